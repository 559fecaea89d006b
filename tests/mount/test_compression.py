"""Compression by the cleaner (F38): values come back, take less room, and tools read them."""

import base64
import json
import os
import shutil

from harness import VALFS, MountTest, main, run


class Compression(MountTest):

    def fill(self):
        """Text, and noise, and enough garbage beside it that all of it is cleaned."""
        for copy in range(2):
            target = self.path(f"include{copy}")
            shutil.copytree("/usr/include/linux", target, symlinks=True)
            for i in range(20):
                with open(self.path(f"garbage{i}"), "wb") as file:
                    file.write(os.urandom(200_000))
        with open(self.path("noise"), "wb") as file:
            file.write(os.urandom(300_000))
        shutil.rmtree(self.path("include1"))
        for i in range(20):
            os.remove(self.path(f"garbage{i}"))

    def check(self):
        run("diff", "-r", "--no-dereference", "/usr/include/linux", self.path("include0"))

    def dump(self, *options):
        lines = run(VALFS, "dump", self.data, *options).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def test_F38(self):
        for algorithm in ("lz4", "zstd"):
            with self.subTest(algorithm):
                self.remount(f"compress={algorithm}")
                self.fill()
                self.control("gc")
                self.control("drop_caches")
                stats = self.stats()
                cleaner = stats["cleaner"]
                self.assertGreater(cleaner["compressed_records"], 100)
                self.assertLess(cleaner["compressed_bytes"], cleaner["compressed_raw_bytes"] / 2)
                self.assertLess(stats["log"]["live_bytes"], cleaner["compressed_raw_bytes"])
                self.check()
                self.remount("compress=none")
                self.check()
                self.umount()
                run(VALFS, "fsck", self.data)
                run(VALFS, "scrub", self.data)
                self.compare_dump(algorithm)
                self.mount()
                for name in os.listdir(self.mnt):
                    run("rm", "-rf", self.path(name))

    def compare_dump(self, algorithm):
        """The dump shows the bytes of the value, and how they are stored."""
        self.assertEqual(self.dump("--super")[0]["incompat"], 1)
        name = [line for line in self.dump("--type", "NAME")
                if line["name"]["name"] == "btrfs_tree.h"][-1]
        line = self.dump("--id", str(name["name"]["inode"]), "--type", "EXTENT",
                         "--payload", "base64")[-1]
        with open("/usr/include/linux/btrfs_tree.h", "rb") as file:
            content = file.read()
        self.assertEqual(line["extent"]["compression"], algorithm)
        self.assertEqual(line["extent"]["length"], len(content))
        self.assertLess(line["extent"]["stored_length"], len(content) / 2)
        self.assertEqual(base64.b64decode(line["payload_base64"]), content)


if __name__ == "__main__":
    main()
