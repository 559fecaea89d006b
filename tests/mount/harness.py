"""A volume of its own for each test: made on the disk, mounted, and gone afterwards, whatever happens.

A mount that hangs has its FUSE connection aborted, which fails the test instead of the
machine. Nothing here sleeps to wait for valfs: its commands return when they are done.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

VALFS = os.environ.get("VALFS") or os.path.join(
    os.path.dirname(__file__), "../../build/release/fs/valfs")
PATIENCE = 240  # seconds that one test may take
SWITCH = "/sys/module/fuse/parameters/enable_uring"  # the kernel's, for FUSE over io_uring
TRANSPORT = os.environ.get("VALFS_TRANSPORT")  # instead of what a mount chooses


def run(*command, check=True, timeout=PATIENCE, **options):
    result = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, timeout=timeout, **options)
    if check and result.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))} exited {result.returncode}:\n"
                             f"{result.stdout}{result.stderr}")
    return result


def shell(script, cwd, check=True, timeout=PATIENCE):
    return run("bash", "-ec", script, cwd=cwd, check=check, timeout=timeout)


def why_not():
    """The reason why mounts cannot be tested here, or None."""
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse"
    if os.geteuid() != 0:
        return "needs root"
    return None


class MountTest(unittest.TestCase):
    """Gives self.data and self.mnt, mounted with self.OPTIONS."""

    OPTIONS = ()
    MOUNT = True
    RING = True  # the switch is on

    def setUp(self):
        reason = why_not()
        if reason:
            self.skipTest(reason)
        self._switch(self.RING)
        self.root = tempfile.mkdtemp(prefix="valfs-test-", dir="/var/tmp")
        os.chmod(self.root, 0o755)  # other users come this way
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        self.data = os.path.join(self.root, "data")
        self.mnt = os.path.join(self.root, "mnt")
        os.mkdir(self.data)
        os.mkdir(self.mnt)
        self.addCleanup(self._detach)
        self.watchdog = threading.Timer(PATIENCE, self._abort)
        self.watchdog.daemon = True
        self.watchdog.start()
        self.addCleanup(self.watchdog.cancel)
        if self.MOUNT:
            self.mount()

    def _switch(self, on):
        """Turns FUSE over io_uring on or off, where there is a switch, until the test ends."""
        if not os.path.exists(SWITCH):
            return

        def turn(value):
            with open(SWITCH, "w") as switch:
                switch.write(value)

        with open(SWITCH) as switch:
            self.addCleanup(turn, switch.read().strip())
        turn("Y" if on else "N")

    # --- the daemon

    def mount(self, *options, check=True):
        arguments = []
        chosen = [] if TRANSPORT is None else [f"transport={TRANSPORT}"]
        for option in (*chosen, *self.OPTIONS, *options):
            arguments += ["-o", option]
        return run(VALFS, "mount", self.data, self.mnt, *arguments, check=check)

    def umount(self, check=True):
        return run(VALFS, "umount", self.mnt, check=check)

    def remount(self, *options):
        self.umount()
        self.mount(*options)

    def pid(self):
        with open(os.path.join(self.data, "lock")) as lock:
            return int(lock.read().split()[0])

    def kill(self):
        """kill -9 of the daemon; returns when it is gone."""
        pid = self.pid()
        handle = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        import select
        select.select([handle], [], [], 60)
        os.close(handle)
        run("umount", "-l", self.mnt, check=False)

    def stats(self):
        with open(os.path.join(self.mnt, ".valfs/stats")) as stats:
            return json.load(stats)

    def control(self, word):
        fd = os.open(os.path.join(self.mnt, ".valfs/control"), os.O_WRONLY)
        try:
            os.write(fd, word.encode())
        finally:
            os.close(fd)
        with open(os.path.join(self.mnt, ".valfs/control")) as control:
            return control.read()

    def log(self):
        """What the daemon has logged."""
        path = os.path.join(self.data, "valfs.log")
        if not os.path.exists(path):
            return ""
        with open(path) as log:
            return log.read()

    # --- checks

    def path(self, *parts):
        return os.path.join(self.mnt, *parts)

    def assertSameTree(self, expected, actual, times=True):
        # diff cannot compare FIFOs; the listing does.
        run("diff", "-r", "--no-dereference", "--exclude=fifo", expected, actual)
        self.assertEqual(listing(expected, times), listing(actual, times))

    # --- the end

    def _connection(self):
        with open("/proc/self/mountinfo") as mounts:
            for line in mounts:
                fields = line.split()
                if fields[4] == self.mnt:
                    return fields[2].split(":")[1]
        return None

    def abort_connection(self):
        """Whoever waits for the daemon gets an error now."""
        minor = self._connection()
        if minor is None:
            return
        control = f"/sys/fs/fuse/connections/{minor}/abort"
        if os.path.exists(control):
            with open(control, "w") as abort:
                abort.write("1")
        else:  # fusectl is not mounted here; a forced umount aborts, too, even if it is refused
            run("umount", "-f", self.mnt, check=False)

    def _abort(self):
        print(f"{self.id()}: took too long; aborting its mount", file=sys.stderr)
        self.abort_connection()

    def _detach(self):
        if self._connection() is None:
            return
        try:
            done = run(VALFS, "umount", self.mnt, check=False, timeout=60)
            if done.returncode == 0:
                return
        except subprocess.TimeoutExpired:
            pass
        self._abort()
        run("umount", "-l", self.mnt, check=False)


def listing(root, times=True):
    """Names and metadata of a tree, comparable between file systems."""
    lines = []
    links = {}
    for directory, names, files in os.walk(root):
        for name in sorted(names + files):
            path = os.path.join(directory, name)
            info = os.lstat(path)
            kind = info.st_mode & 0o170000
            is_directory = kind == 0o040000
            first = links.setdefault(info.st_ino, os.path.relpath(path, root))
            lines.append((
                os.path.relpath(path, root), oct(info.st_mode), info.st_uid, info.st_gid,
                info.st_nlink, None if is_directory else info.st_size,
                info.st_mtime_ns if times else None,
                first if info.st_nlink > 1 and not is_directory else None,
                os.readlink(path) if kind == 0o120000 else None))
    return sorted(lines)


class LoopDisk:
    """A small file system of its own, on a loop device."""

    def __init__(self, test, megabytes, kind="ext4"):
        self.image = os.path.join(test.root, f"disk-{kind}.img")
        self.mountpoint = os.path.join(test.root, f"disk-{kind}")
        os.mkdir(self.mountpoint)
        with open(self.image, "wb") as image:
            image.truncate(megabytes << 20)
        run(f"mkfs.{kind}", "-q", self.image)
        run("mount", "-o", "loop", self.image, self.mountpoint)
        test.addCleanup(run, "umount", self.mountpoint, check=False)
        test.addCleanup(test._detach)  # before that: what is mounted on it keeps it busy


def main():
    unittest.main(verbosity=2)
