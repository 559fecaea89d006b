"""Bad input: each a message that names the thing, the right status, nothing lost (P10, one owner)."""

import errno
import os

from harness import LoopDisk, MountTest, VALFS, main, run, shell


def gone(pid):
    """True if there is no such process, or only its exit status is left."""
    try:
        with open(f"/proc/{pid}/stat") as status:
            return status.read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


class BadInput(MountTest):
    MOUNT = False

    def refused(self, *arguments, status=None, says=()):
        result = run(VALFS, "mount", *arguments, check=False)
        self.assertNotEqual(result.returncode, 0)
        if status is not None:
            self.assertEqual(result.returncode, status, result.stderr)
        for text in says:
            self.assertIn(text, result.stderr)
        self.assertTrue(result.stderr.startswith("valfs: "), result.stderr)
        return result

    def test_mountpoints(self):
        file = os.path.join(self.root, "file")
        open(file, "w").close()
        self.refused(self.data, file, says=[file, "not a directory"])
        self.refused(self.data, os.path.join(self.root, "missing"), says=["missing", "not exist"])
        inside = os.path.join(self.data, "inside")
        os.mkdir(inside)
        self.refused(self.data, inside, says=["inside"])
        below = os.path.join(self.mnt, "below")
        os.mkdir(below)
        self.refused(below, self.mnt, says=["inside"])
        self.refused(self.mnt, self.mnt)

    def test_data_directories(self):
        with open(os.path.join(self.data, "letter.txt"), "w") as file:
            file.write("mine")
        self.refused(self.data, self.mnt, says=["letter.txt", "not empty"])
        self.assertIn("letter.txt", os.listdir(self.data))
        file = os.path.join(self.root, "file")
        open(file, "w").close()
        self.refused(file, self.mnt, says=[file])

    def test_options(self):
        self.refused(self.data, self.mnt, "-o", "cahce=1g", status=1, says=["cahce"])
        self.refused(self.data, self.mnt, "-o", "cache=lots", status=1, says=["cache", "lots"])
        self.refused(self.data, self.mnt, "-o", "commit=0", status=1, says=["commit"])

    def test_F39_one_owner(self):
        self.mount()
        with open(self.path("file"), "w") as file:
            file.write("kept")
        other = os.path.join(self.root, "other")
        os.mkdir(other)
        self.refused(self.data, other, says=[str(self.pid())])
        self.refused(self.data, self.mnt)
        with open(self.path("file")) as file:
            self.assertEqual(file.read(), "kept")

    def test_busy_unmount(self):
        self.mount()
        with open(self.path("held"), "w"):
            result = self.umount(check=False)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn("busy", result.stderr)
        self.umount()

    def test_P11_umount_waits_for_the_daemon(self):
        self.mount()
        pid = self.pid()
        shell("for i in $(seq 500); do echo $i > f$i; done", self.mnt)
        self.umount()
        self.assertTrue(gone(pid))
        self.mount()
        self.assertEqual(self.stats()["recovery"]["drained_groups"], 0)
        self.assertEqual(len(os.listdir(self.mnt)), 500)

    def test_a_dead_mount_is_replaced(self):
        self.mount()
        with open(self.path("file"), "w") as file:
            file.write("kept")
        pid = self.pid()
        handle = os.pidfd_open(pid)
        os.kill(pid, 9)
        import select
        select.select([handle], [], [], 60)
        with self.assertRaises(OSError) as caught:
            os.stat(self.mnt)
        self.assertIn(caught.exception.errno, (errno.ENOTCONN, errno.ECONNABORTED))
        self.mount()
        with open(self.path("file")) as file:
            self.assertEqual(file.read(), "kept")

    def test_sigterm_unmounts(self):
        self.mount()
        with open(self.path("file"), "w") as file:
            file.write("kept")
        pid = self.pid()
        handle = os.pidfd_open(pid)
        os.kill(pid, 15)
        import select
        self.assertTrue(select.select([handle], [], [], 60)[0])
        self.mount()
        with open(self.path("file")) as file:
            self.assertEqual(file.read(), "kept")


class FullDisk(MountTest):
    MOUNT = False

    def fill(self):
        """Writes until ENOSPC; returns how many files there are."""
        block = os.urandom(200_000)
        for number in range(100_000):
            try:
                with open(self.path(f"f{number}"), "wb", buffering=0) as file:
                    file.write(block)
            except OSError as error:
                self.assertEqual(error.errno, errno.ENOSPC)
                return number, block
        self.fail("never full")

    def cycle(self):
        kept, block = self.fill()
        self.assertGreater(kept, 10)
        for number in range(kept):
            with open(self.path(f"f{number}"), "rb") as file:
                self.assertTrue(file.read() == block, number)
        for number in range(0, kept, 2):
            os.unlink(self.path(f"f{number}"))  # P10: deletes always work
        self.control("gc")
        more = 0
        for number in range(0, kept // 4):
            with open(self.path(f"g{number}"), "wb", buffering=0) as file:
                file.write(block)
            more += 1
        for number in range(1, kept, 2):
            with open(self.path(f"f{number}"), "rb") as file:
                self.assertTrue(file.read() == block, number)
        run("rm", "-rf", *[self.path(name) for name in os.listdir(self.mnt)])
        return kept

    def test_P10_small_disk(self):
        disk = LoopDisk(self, 128)
        self.data = os.path.join(disk.mountpoint, "data")
        os.mkdir(self.data)
        self.mount()
        first = self.cycle()
        self.remount()
        self.assertGreater(self.cycle(), first // 2)
        self.umount()

    def test_P10_capped_volume(self):
        self.mount("size=256m")
        total = os.statvfs(self.mnt)
        self.assertLessEqual(total.f_blocks * total.f_frsize, 256 << 20)
        self.cycle()
        taken = int(run("du", "-sB1", self.data).stdout.split()[0])
        self.assertLess(taken, 260 << 20)

    def test_a_disk_too_small_to_mount(self):
        disk = LoopDisk(self, 8)
        self.data = os.path.join(disk.mountpoint, "data")
        os.mkdir(self.data)
        result = self.mount(check=False)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("valfs: ", result.stderr)


if __name__ == "__main__":
    main()
