"""fio writes blocks that carry their own checksums and reads them back, with every way of I/O."""

import os
import shutil
import unittest

from harness import MountTest, main, run


@unittest.skipUnless(shutil.which("fio"), "needs fio")
class Fio(MountTest):

    def verify(self, engine, direct, *more):
        run("fio", "--name=verify", f"--directory={self.mnt}", "--rw=randrw", "--bs=4k",
            "--size=64m", "--verify=crc32c", f"--ioengine={engine}", f"--direct={direct}",
            "--iodepth=8", "--verify_fatal=1", *more)
        os.unlink(self.path("verify.0.0"))

    def test_psync(self):
        self.verify("psync", 0)
        self.verify("psync", 1)

    def test_libaio(self):
        self.verify("libaio", 0)
        self.verify("libaio", 1)

    def test_io_uring(self):
        self.verify("io_uring", 0)
        self.verify("io_uring", 1)

    def test_mmap(self):
        self.verify("mmap", 0)

    def test_small_file_stays_in_the_log(self):
        run("fio", "--name=verify", f"--directory={self.mnt}", "--rw=randrw", "--bs=4k",
            "--size=3m", "--verify=crc32c", "--ioengine=psync", "--verify_fatal=1", "--fsync=16")
        self.assertEqual(self.stats()["blobs"]["disk_bytes"], 0)


if __name__ == "__main__":
    main()
