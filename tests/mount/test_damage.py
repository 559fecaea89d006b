"""P0, P9: flipped bits cost the values that they hit, and nothing else."""

import errno
import os
import random
import sys

from harness import MountTest, main


class Damage(MountTest):

    def flip(self, seed, count):
        choose = random.Random(seed)
        logs = [os.path.join(directory, name)
                for directory, _, names in os.walk(os.path.join(self.data, "wal"))
                for name in names]
        for _ in range(count):
            path = choose.choice(logs)
            with open(path, "r+b") as file:
                size = os.path.getsize(path)
                at = choose.randrange(4096, size)
                file.seek(at)
                byte = file.read(1)[0]
                file.seek(at)
                file.write(bytes([byte ^ (1 << choose.randrange(8))]))

    def fill(self):
        choose = random.Random(1)
        contents = {}
        for i in range(2000):
            contents[f"f{i}"] = choose.randbytes(choose.choice([50, 1000, 20000]))
            with open(self.path(f"f{i}"), "wb") as file:
                file.write(contents[f"f{i}"])
        return contents

    def check(self, contents, flips):
        damaged = 0
        for name, expected in contents.items():
            try:
                with open(self.path(name), "rb") as file:
                    content = file.read()
                self.assertTrue(content == expected,
                                f"{name}: {len(content)} bytes for {len(expected)}")
            except OSError as error:
                self.assertEqual(error.errno, errno.EIO, name)
                damaged += 1
        self.assertLessEqual(damaged, flips)
        return damaged

    def test_P9_bits_flipped_while_unmounted(self):
        contents = self.fill()
        self.umount()
        seed = random.randrange(1 << 30)
        print(f"seed {seed}", file=sys.stderr)
        self.flip(seed, 40)
        self.mount("log=" + os.path.join(self.root, "log"))
        damaged = self.check(contents, 40)
        self.assertGreater(damaged, 0)
        with open(os.path.join(self.root, "log")) as log:
            text = log.read()
        self.assertRegex(text, r"cannot read f\d+ at \d+: wal/\S+ .*at offset \d+")
        # What was hit can be written anew.
        for name in contents:
            with open(self.path(name), "wb") as file:
                file.write(b"new")
            with open(self.path(name), "rb") as file:
                self.assertEqual(file.read(), b"new")

    def test_P9_bits_flipped_behind_a_killed_daemon(self):
        contents = self.fill()
        self.control("sync")
        self.kill()
        self.flip(7, 10)
        self.mount()
        self.check(contents, 10 * 20)

    def test_P9_bits_flipped_in_bin(self):
        data = random.Random(3).randbytes(6_000_000)
        with open(self.path("large"), "wb") as file:
            file.write(data)
        with open(self.path("other"), "wb") as file:
            file.write(data)
        self.umount()
        (first, second) = sorted(os.path.join(directory, name)
                                 for directory, _, names in os.walk(os.path.join(self.data, "bin"))
                                 for name in names)
        with open(first, "r+b") as file:
            file.seek(3_000_000)
            file.write(b"\x00garbage")
        self.mount()
        hit = 0
        for name in ("large", "other"):
            with open(self.path(name), "rb", buffering=0) as file:
                self.assertEqual(file.read(100_000), data[:100_000])
                file.seek(2_990_000)
                try:
                    self.assertTrue(file.read(20_000) == data[2_990_000:3_010_000])
                except OSError as error:
                    self.assertEqual(error.errno, errno.EIO)
                    hit += 1
        self.assertEqual(hit, 1)


if __name__ == "__main__":
    main()
