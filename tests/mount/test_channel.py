"""FUSE over io_uring: the same results as over /dev/fuse, and a clean end whatever happens.

Mount cycles under load: VALFS_CYCLES (default 20; 200 in the nightly run).
"""

import hashlib
import mmap
import os
import signal
import subprocess
import sys
import threading

from harness import SWITCH, MountTest, main, run

CYCLES = int(os.environ.get("VALFS_CYCLES") or (200 if os.environ.get("VALFS_NIGHTLY") else 20))

# Creates, reads, overwrites and deletes until the mount is gone.
LOAD = r"""
import os, sys
mnt, number = sys.argv[1], sys.argv[2]
os.chdir(mnt)  # the path will lead to what is below the mount, once that is gone
base = "load-" + number
print("on", flush=True)
try:
    os.makedirs(base, exist_ok=True)
    for i in range(10_000_000):
        path = os.path.join(base, str(i % 50))
        with open(path, "wb", buffering=0) as file:
            file.write(b"%d" % i * 200)
            if i % 20 == 0:
                os.fsync(file.fileno())
        with open(path, "rb", buffering=0) as file:
            file.read()
        if i % 3 == 0:
            os.unlink(path)
except OSError:
    pass
"""


class ChannelTest(MountTest):
    MOUNT = False

    def setUp(self):
        if not os.path.exists(SWITCH):
            self.skipTest("this kernel has no FUSE over io_uring")
        super().setUp()

    def loads(self, count):
        started = []
        for number in range(count):
            load = subprocess.Popen([sys.executable, "-c", LOAD, self.mnt, str(number)],
                                    stdout=subprocess.PIPE)
            started.append(load)
            self.addCleanup(load.stdout.close)
            self.addCleanup(load.wait)
            self.addCleanup(load.kill)
        for load in started:
            load.stdout.readline()
        return started


class Ring(ChannelTest):

    def setUp(self):
        super().setUp()
        self.mount("transport=uring")
        self.assertEqual(self.stats()["transport"], "io_uring")

    def test_trees_are_the_same(self):
        run("cp", "-a", "/usr/include/linux", self.mnt)
        self.assertSameTree("/usr/include/linux", self.path("linux"))
        self.remount()
        self.assertSameTree("/usr/include/linux", self.path("linux"))
        run("rm", "-rf", self.path("linux"))
        self.assertEqual(os.listdir(self.mnt), [])

    def test_sizes_around_requests_and_limits(self):
        for size in (0, 1, 4095, 4096, 65537, 1 << 20, (1 << 20) + 1, 4 << 20, (4 << 20) + 1,
                     40_000_001):
            data = os.urandom(size)
            with open(self.path(f"s{size}"), "wb") as file:
                file.write(data)
            self.remount("transport=uring")  # nothing is in any cache
            with open(self.path(f"s{size}"), "rb") as file:
                self.assertEqual(hashlib.sha256(file.read()).digest(),
                                 hashlib.sha256(data).digest(), size)

    def test_direct_readers_wait_for_the_disk_and_not_for_each_other(self):
        block = 64 << 10
        data = os.urandom(block * 64)
        with open(self.path("value"), "wb") as file:
            file.write(data)
            os.fsync(file.fileno())
        self.control("drop_caches")
        failures = []

        def read(start):
            fd = os.open(self.path("value"), os.O_RDONLY | os.O_DIRECT)
            buffer = mmap.mmap(-1, block)
            for i in range(64):
                at = (start + i * 7) % 64 * block
                if os.preadv(fd, [buffer], at) != block or buffer[:] != data[at:at + block]:
                    failures.append(at)
            os.close(fd)

        threads = [threading.Thread(target=read, args=(i,)) for i in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])

    def test_more_commits_wait_than_a_ring_has_entries(self):
        """Two CPUs have 128 entries at most; 300 clients wait at once, and somebody reads."""
        def put(i):
            fd = os.open(self.path(f"c{i}"), os.O_CREAT | os.O_WRONLY)
            for _ in range(5):
                os.write(fd, b"x" * 100)
                os.fsync(fd)
            os.close(fd)

        threads = [threading.Thread(target=put, args=(i,)) for i in range(300)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            self.assertIn(".valfs", os.listdir(self.mnt) + [".valfs"])
            threads[0].join(0.01)
            threads = [thread for thread in threads if thread.is_alive()] or threads[:1]
        self.assertEqual({os.path.getsize(self.path(f"c{i}")) for i in range(300)}, {500})

    def test_forgets_come_and_inodes_go(self):
        for i in range(2000):
            with open(self.path(f"f{i}"), "wb") as file:
                file.write(b"x")
        before = self.stats()["volume"]["inodes"]
        for i in range(2000):
            os.unlink(self.path(f"f{i}"))
        run("sync", self.mnt)
        with open("/proc/sys/vm/drop_caches", "w") as drop:
            drop.write("2")
        while self.stats()["volume"]["inodes"] > before - 2000:
            pass  # they come within milliseconds; the watchdog bounds it
        self.remount("transport=uring")

    def test_killed_under_load_nobody_hangs(self):
        loads = self.loads(4)
        self.kill()
        for load in loads:
            load.wait(timeout=60)
        self.mount("transport=uring")
        self.assertEqual(self.stats()["transport"], "io_uring")

    def test_sigterm_under_load_ends_it(self):
        self.umount()
        self.mount("transport=uring", "stop-timeout=0")
        loads = self.loads(4)
        pid = self.pid()
        handle = os.pidfd_open(pid)
        os.kill(pid, signal.SIGTERM)
        import select
        self.assertTrue(select.select([handle], [], [], 60)[0])
        os.close(handle)
        for load in loads:
            load.wait(timeout=60)
        self.assertIn("everything is durable", self.log())

    def test_forced_umount_under_load(self):
        loads = self.loads(2)
        pid = self.pid()
        handle = os.pidfd_open(pid)
        run("umount", "-f", self.mnt, check=False)
        import select
        self.assertTrue(select.select([handle], [], [], 60)[0])
        os.close(handle)
        for load in loads:
            load.wait(timeout=60)
        run("umount", "-l", self.mnt, check=False)

    def test_mount_cycles_under_load(self):
        threads = set()
        for cycle in range(CYCLES):
            loads = self.loads(2)
            if cycle % 2 == 0:
                self.kill()
            else:
                for load in loads:
                    load.kill()
                    load.wait(timeout=60)
                self.umount()
            for load in loads:
                load.wait(timeout=60)
            self.mount("transport=uring")
            threads.add(len(os.listdir(f"/proc/{self.pid()}/task")))
        self.assertLessEqual(max(threads), 60)
        self.assertEqual(self.stats()["transport"], "io_uring")


class Dev(ChannelTest):

    def test_dev_is_served_where_it_is_asked_for(self):
        self.mount("transport=dev")
        self.assertEqual(self.stats()["transport"], "/dev/fuse (as asked for)")
        run("cp", "-a", "/usr/include/linux", self.mnt)
        self.assertSameTree("/usr/include/linux", self.path("linux"))


class SwitchedOff(ChannelTest):
    RING = False

    def test_auto_falls_back_and_says_the_line(self):
        told = self.mount().stderr
        self.assertEqual(told.count("echo 1 > " + SWITCH), 1, told)
        self.assertEqual(self.stats()["transport"],
                         "/dev/fuse (FUSE over io_uring is switched off)")
        self.umount()
        self.assertNotIn(SWITCH, self.mount("transport=dev").stderr)

    def test_uring_refuses_and_says_the_line(self):
        refused = self.mount("transport=uring", check=False)
        self.assertEqual(refused.returncode, 32, refused.stderr)
        self.assertIn("switched off", refused.stderr)
        self.assertIn("echo 1 > " + SWITCH, refused.stderr)
        self.assertFalse(os.path.ismount(self.mnt))


if __name__ == "__main__":
    main()
