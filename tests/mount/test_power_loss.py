"""P2, P3: real file systems lose power under a real mount.

Two ways, for ext4 and for XFS below DATA, both under a load whose operations are noted outside:
- FS_IOC_SHUTDOWN (NOLOGFLUSH): the file system stops dead, and its page cache is gone;
- a reflink of the disk's image, taken while the load runs: what had reached the disk at that moment.
Afterwards the file system is mounted again, which replays its journal, and the volume on it. The tree
must be that of a prefix of the operations, and hold everything that was synced.

Rounds of each: VALFS_POWER_CUTS (default 20).
"""

import fcntl
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
import threading

from harness import LoopDisk, MountTest, main, run

FS_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
NOLOGFLUSH = 2
FICLONE = 0x40049409
ROUND_PATIENCE = 240  # seconds; many times what a round takes on a busy machine

# Changes files in `mnt`, one operation after the other, and notes each before and after. "done" with
# true: it was synced.
WRITER = r"""
import json, os, random, sys
mnt, journal, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
choose = random.Random(seed)
log = open(journal, "a", buffering=1)
files = []
def sync(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
try:
    for number in range(1_000_000):
        action = choose.choice("ccwwaaarul")
        if not files or len(files) < 4:
            action = "c"
        elif len(files) > 50:
            action = "u"
        name = f"f{number}" if action == "c" else choose.choice(files)
        size = choose.choice([10, 1000, 5000, 70000, 300000])
        path = os.path.join(mnt, name)
        to = f"{name}r" if choose.random() < 0.5 else choose.choice(files) if files else name
        log.write(json.dumps(["start", number, action, name, size, to]) + "\n")
        synced = choose.random() < 0.3
        data = bytes([number % 251]) * size
        if action == "c":
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            files.append(name)
        elif action in "wa":
            fd = os.open(path, os.O_WRONLY | (os.O_APPEND if action == "a" else 0))
            while data:
                data = data[os.write(fd, data):]
            os.close(fd)
        elif action == "r":
            os.rename(path, os.path.join(mnt, to))
            if to != name:
                files.remove(name)
                if to not in files:
                    files.append(to)
            name = to
        elif action == "u":
            os.unlink(path)
            files.remove(name)
        elif action == "l":  # replaced by another
            with open(os.path.join(mnt, "tmp"), "wb") as file:
                file.write(data)
            os.rename(os.path.join(mnt, "tmp"), path)
        if synced:
            sync(mnt if action == "u" else os.path.join(mnt, name))
        log.write(json.dumps(["done", number, synced]) + "\n")
except OSError as error:
    print(error, file=sys.stderr)
"""


class Journal:
    """What was noted: the operations that were started, and how many were synced."""

    def __init__(self, path):
        self.operations = []
        self.done = 0
        self.synced = 0
        with open(path) as lines:
            for line in lines:
                if not line.endswith("\n"):
                    break
                stage, number, *rest = json.loads(line)
                if stage == "start":
                    self.operations.append(rest)
                else:
                    self.done = number + 1
                    if rest[0]:
                        self.synced = number + 1

    def find(self, found, low, high):
        """The number of operations after which the tree was `found`; None if it never was."""
        files = {}
        for count in range(high + 1):
            if count >= low:
                for tree in self.states_within(files, count, high):
                    if same(tree, found):
                        return count
            if count < len(self.operations):
                apply(files, count, *self.operations[count])
        return None

    def states_within(self, files, count, high):
        """The tree after `count` operations, and those that the next goes through."""
        yield files
        if count >= high or count >= len(self.operations):
            return
        action, name, size, _ = self.operations[count]
        byte = count % 251
        if action == "l":
            yield {**files, "tmp": b""}
        if action in "wal":
            # The kernel may send a write as several requests, each of whole pages; each is one change.
            offset = len(files[name]) if action == "a" else 0
            for end in range(offset // 4096 * 4096 + 4096, offset + size, 4096):
                partial = dict(files)
                if action == "l":
                    partial["tmp"] = bytes([byte]) * end
                else:
                    apply(partial, count, action, name, end - offset, "")
                yield partial
            if action == "l":
                yield {**files, "tmp": bytes([byte]) * size}


def apply(files, number, action, name, size, to):
    data = bytes([number % 251]) * size
    if action == "c":
        files[name] = b""
    elif action == "w":
        files[name] = data + files[name][size:]
    elif action == "a":
        files[name] = files[name] + data
    elif action == "r":
        files[to] = files.pop(name)
    elif action == "u":
        del files[name]
    elif action == "l":
        files[name] = data


def same(tree, found):
    return tree.keys() == found.keys() and all(
        len(tree[name]) == len(found[name]) and tree[name] == found[name] for name in tree)


def count_lines(path):
    if not os.path.exists(path):
        return 0
    with open(path, "rb") as file:
        return file.read().count(b"\n")


class PowerLoss(MountTest):

    MOUNT = False

    def setUp(self):
        super().setUp()
        self.rounds = int(os.environ.get("VALFS_POWER_CUTS", "20"))
        self.seed = int(os.environ.get("VALFS_SEED", random.randrange(1 << 30)))
        self.choose = random.Random(self.seed)
        print(f"VALFS_SEED={self.seed}, {self.rounds} rounds", file=sys.stderr)
        self.volume = None
        self.addCleanup(self.lose_memory)

    # --- the parts of a round

    def mount_volume(self):
        os.makedirs(self.data, exist_ok=True)
        self.mount("log=" + os.path.join(self.root, "log"))
        self.volume = self.stats()["volume"]

    def lose_memory(self):
        """What the daemon's staging slots held goes with the power."""
        if self.volume is not None:
            path = f"/run/valfs/staging-{self.volume}"
            if os.path.exists(path):
                os.unlink(path)

    def start_writer(self, journal, seed):
        with open(journal + ".errors", "wb") as errors:
            writer = subprocess.Popen([sys.executable, "-c", WRITER, self.mnt, journal, str(seed)],
                                      stderr=errors)
        self.addCleanup(stop, writer)
        return writer

    def wait_for(self, writer, journal, lines):
        with open(journal, "ab"):
            pass
        while count_lines(journal) < lines:
            if writer.poll() is not None:
                with open(journal + ".errors") as errors:
                    self.fail(f"VALFS_SEED={self.seed}: the load has ended by itself: {errors.read()}")
            # Whoever waits does so for a count of operations, whatever time they take.
            try:
                writer.wait(timeout=0.002)
            except subprocess.TimeoutExpired:
                pass

    def kill_daemon(self, pid):
        """Aborts the connection first, so that nobody hangs on it."""
        handle = os.pidfd_open(pid)
        try:
            self.abort_connection()
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            gone, _, _ = select.select([handle], [], [], ROUND_PATIENCE)
            self.assertTrue(gone, "the daemon does not die")
        except ProcessLookupError:
            pass  # it went with its connection
        finally:
            os.close(handle)
        run("umount", "-l", self.mnt, check=False)

    def umount_disk(self, mountpoint):
        """The kernel drops a dead daemon's ring, and the files in it, when it comes to it."""
        for _ in range(1000):
            if run("umount", mountpoint, check=False).returncode == 0:
                return
            select.select([], [], [], 0.01)
        run("umount", mountpoint)

    def tree(self):
        files = {}
        for name in os.listdir(self.mnt):
            with open(self.path(name), "rb") as file:
                files[name] = file.read()
        return files

    def check(self, journal, low, high, what):
        found = self.tree()
        at = journal.find(found, low, high)
        if at is None:
            names = {name: len(data) for name, data in found.items()}
            self.fail(f"{what}, VALFS_SEED={self.seed}: no prefix of {low} to {high} operations gives "
                      f"{names}; the operations: {journal.operations[:high]}")
        stats = self.stats()
        self.assertEqual(stats["recovery"]["damaged_groups"], 0, stats)
        return at

    def in_time(self, work):
        """Runs one round; if it hangs, its mount is aborted."""
        timer = threading.Timer(ROUND_PATIENCE, self._abort)
        timer.daemon = True
        timer.start()
        try:
            work()
        finally:
            timer.cancel()

    # --- FS_IOC_SHUTDOWN

    def shut_down(self, kind):
        disk = LoopDisk(self, 400, kind)
        self.data = os.path.join(disk.mountpoint, "data")
        lost = []

        def work(number):
            self.mount_volume()
            run("find", self.mnt, "-mindepth", "1", "-delete")
            pid = self.pid()
            path = os.path.join(self.root, f"journal-{kind}-{number}")
            writer = self.start_writer(path, self.seed + number)
            self.wait_for(writer, path, self.choose.randrange(20, 1200))
            fd = os.open(disk.mountpoint, os.O_RDONLY)
            try:
                fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("I", NOLOGFLUSH))
            finally:
                os.close(fd)
            self.kill_daemon(pid)
            stop(writer)
            self.umount_disk(disk.mountpoint)
            self.lose_memory()
            run("mount", "-o", "loop", disk.image, disk.mountpoint)
            self.mount_volume()
            journal = Journal(path)
            at = self.check(journal, journal.synced, len(journal.operations),
                            f"{kind} shut down, round {number}")
            lost.append(len(journal.operations) - at)
            self.umount()

        for number in range(self.rounds):
            self.in_time(lambda: work(number))
        print(f"{kind}: {self.rounds} shutdowns, {sum(lost)} operations lost that were not synced",
              file=sys.stderr)

    def test_P2_P3_ext4_shuts_down(self):
        self.shut_down("ext4")

    def test_P2_P3_xfs_shuts_down(self):
        self.shut_down("xfs")

    # --- reflinked images

    def reflink(self, kind):
        outer = LoopDisk(self, 1400, "xfs")  # FICLONE needs one
        image = os.path.join(outer.mountpoint, "disk.img")
        inner = os.path.join(self.root, "inner")
        os.mkdir(inner)
        with open(image, "wb") as file:
            file.truncate(400 << 20)
        run(f"mkfs.{kind}", "-q", image)
        run("mount", "-o", "loop", image, inner)
        self.addCleanup(run, "umount", inner, check=False)
        self.addCleanup(self._detach)
        self.data = os.path.join(inner, "data")
        self.mount_volume()
        path = os.path.join(self.root, f"journal-{kind}")
        writer = self.start_writer(path, self.seed)
        moments = []

        def take(number):
            self.wait_for(writer, path, count_lines(path) + self.choose.randrange(5, 120))
            copy = os.path.join(outer.mountpoint, f"copy-{number}.img")
            low = Journal(path).synced
            with open(copy, "wb") as target, open(image, "rb") as source:
                fcntl.ioctl(target.fileno(), FICLONE, source.fileno())
            moments.append((copy, low, len(Journal(path).operations)))

        for number in range(self.rounds):
            self.in_time(lambda: take(number))
        stop(writer)
        self.umount()
        run("umount", inner)
        journal = Journal(path)

        def check(copy, low, high):
            self.lose_memory()
            run("mount", "-o", "loop", copy, inner)
            self.mount_volume()
            self.check(journal, low, high, f"{kind}, {os.path.basename(copy)}")
            self.umount()
            run("umount", inner)
            os.unlink(copy)

        for moment in moments:
            self.in_time(lambda: check(*moment))
        print(f"{kind}: {self.rounds} images", file=sys.stderr)

    def test_P2_P3_images_of_ext4(self):
        self.reflink("ext4")

    def test_P2_P3_images_of_xfs(self):
        self.reflink("xfs")


def stop(process):
    process.kill()
    process.wait(timeout=ROUND_PATIENCE)


if __name__ == "__main__":
    main()
