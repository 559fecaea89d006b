"""What people do first: copy trees in, look at them, unmount, mount again (P1, F9, F10)."""

import hashlib
import os
import unittest

from harness import MountTest, main, run, shell

LIMIT = 4 * 1024 * 1024


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Copies(MountTest):

    def test_cp_a_keeps_everything_across_remount_and_kill(self):
        run("cp", "-a", "/usr/include", self.path("include"))
        self.assertSameTree("/usr/include", self.path("include"))
        self.remount()
        self.assertSameTree("/usr/include", self.path("include"))
        run("cp", "-a", "/etc", self.path("etc"))
        self.kill()
        self.mount()
        self.assertSameTree("/usr/include", self.path("include"))
        self.assertSameTree("/etc", self.path("etc"))

    def test_tar_and_rsync(self):
        shell("tar -C /usr/share -cf - perl5 | tar -xf -", self.mnt)
        self.assertSameTree("/usr/share/perl5", self.path("perl5"))
        run("rsync", "-aH", "/usr/share/perl5/", self.path("synced"))
        self.assertSameTree("/usr/share/perl5", self.path("synced"))
        again = run("rsync", "-aHin", "/usr/share/perl5/", self.path("synced"))
        self.assertEqual(again.stdout, "")  # nothing to do: sizes and times are right

    def test_F9_F10_only_values_over_the_limit_lie_in_bin(self):
        digests = {}
        for size in (0, 1, LIMIT - 1, LIMIT, LIMIT + 1, 100_000_000):
            source = os.path.join(self.root, str(size))
            with open(source, "wb") as file:
                file.write(os.urandom(size))
            run("cp", source, self.path(str(size)))
            digests[str(size)] = digest(source)
        for again in range(2):
            for name, expected in digests.items():
                self.assertEqual(digest(self.path(name)), expected, name)
            sizes = sorted(os.path.getsize(os.path.join(directory, name))
                           for directory, _, names in os.walk(os.path.join(self.data, "bin"))
                           for name in names)
            self.assertEqual(sizes, [LIMIT + 1, 100_000_000])
            self.remount()

    def test_a_value_moves_to_bin_when_it_grows_and_a_hole_does_not_count(self):
        with open(self.path("grows"), "wb") as file:
            for piece in range(40):
                file.write(bytes([piece]) * 131072)
                file.flush()
        with open(self.path("sparse"), "wb") as file:
            file.seek(1 << 30)
            file.write(b"end")
        blobs = [name for _, _, names in os.walk(os.path.join(self.data, "bin")) for name in names]
        self.assertEqual(len(blobs), 1)
        self.assertLess(os.stat(self.path("sparse")).st_blocks * 512, 65536)
        with open(self.path("grows"), "rb") as file:
            for piece in range(40):
                self.assertEqual(file.read(131072), bytes([piece]) * 131072)
        with open(self.path("sparse"), "rb") as file:
            self.assertEqual(file.read(4096), bytes(4096))
            file.seek(1 << 30)
            self.assertEqual(file.read(), b"end")


class CappedCopies(MountTest):
    """The free space of the disk changes under us; that of a capped volume does not."""

    OPTIONS = ("size=1g",)

    def test_df_and_du_tell_what_is_there(self):
        before = os.statvfs(self.mnt)
        with open(self.path("file"), "wb") as file:
            file.write(os.urandom(50_000_000))
        after = os.statvfs(self.mnt)
        used = (before.f_bfree - after.f_bfree) * after.f_frsize
        self.assertGreater(used, 45_000_000)
        self.assertLess(used, 80_000_000)
        self.assertGreaterEqual(os.stat(self.path("file")).st_blocks * 512, 50_000_000)
        self.assertEqual(after.f_bsize, after.f_frsize)
        self.assertGreater(after.f_ffree, 0)


if __name__ == "__main__":
    main()
