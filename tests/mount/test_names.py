"""The same commands on the mount and on the disk give the same tree; what POSIX says of names."""

import errno
import os
import stat

from harness import MountTest, main, run, shell

SCRIPT = r"""
mkdir -p a/b/c d
for i in $(seq 200); do echo "content $i" > a/f$i; done
for i in $(seq 1 2 200); do mv a/f$i d/g$i; done
for i in $(seq 2 4 200); do ln a/f$i d/hard$i; ln -s ../a/f$i d/soft$i; done
for i in $(seq 2 2 100); do cp a/f2 a/f$i 2>/dev/null || true; done
for i in $(seq 102 2 150); do echo more >> a/f$i; done
truncate -s 5 a/f104
truncate -s 100000 a/f106
cp /bin/bash a/b/bash
cat /bin/bash >> a/b/bash
truncate -s 123456 a/b/bash
touch -d '1999-12-31 23:59:59.123456789' a/f110
touch -d '1960-01-01' a/f112
chmod 4755 a/f114; chmod 700 d; chown 1000:2000 a/f116; chown -h 12:13 d/soft2
mkfifo a/fifo
mkdir -p x/y/z; mv x/y d/moved; rmdir x
mv a/b d/b2; mkdir a/b; mv d/b2/c a/b/c
rm -f d/g1 d/g3; rm -rf d/moved
echo new > tmp; mv tmp a/f120
mv -T a/f122 a/f124
mkdir full; touch full/x; ! rmdir full 2>/dev/null
mkdir empty; mkdir empty2; mv -T empty empty2
printf '%s' "$(head -c 200 /dev/zero | tr '\0' n)" > "$(head -c 255 /dev/zero | tr '\0' n)"
"""


class Names(MountTest):

    def test_end_state_is_that_of_the_disk(self):
        disk = os.path.join(self.root, "disk")
        os.mkdir(disk)
        shell(SCRIPT, disk)
        shell(SCRIPT, self.mnt)
        self.assertSameTree(disk, self.mnt, times=False)
        for name in ("a/f110", "a/f112"):
            self.assertEqual(os.stat(os.path.join(disk, name)).st_mtime_ns,
                             os.stat(self.path(name)).st_mtime_ns)
        before = [os.lstat(self.path("a", name)) for name in sorted(os.listdir(self.path("a")))]
        self.remount()
        self.assertSameTree(disk, self.mnt, times=False)
        after = [os.lstat(self.path("a", name)) for name in sorted(os.listdir(self.path("a")))]
        self.assertEqual([(i.st_ino, i.st_mtime_ns, i.st_ctime_ns) for i in before],
                         [(i.st_ino, i.st_mtime_ns, i.st_ctime_ns) for i in after])

    def test_unlinked_file_lives_until_its_last_close(self):
        with open(self.path("file"), "w+") as file:
            file.write("still here")
            file.flush()
            os.unlink(self.path("file"))
            self.assertEqual(os.fstat(file.fileno()).st_nlink, 0)
            file.write(", and written to")
            file.seek(0)
            self.assertEqual(file.read(), "still here, and written to")
        self.assertEqual(os.listdir(self.mnt), [])

    def test_rename_flags(self):
        shell("echo a > a; echo b > b; mkdir d; echo c > d/c", self.mnt)
        run("python3", "-c", f"""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def rename(old, new, flags):
    done = libc.renameat2(-100, old.encode(), -100, new.encode(), flags)
    return 0 if done == 0 else ctypes.get_errno()
os.chdir({self.mnt!r})
assert rename('a', 'b', 1) == {errno.EEXIST}
assert rename('a', 'n', 1) == 0
assert rename('n', 'a', 0) == 0
assert rename('a', 'd', 2) == 0        # exchange file and directory
assert open('d').read() == 'a\\n' and open('a/c').read() == 'c\\n'
assert rename('a', 'missing', 2) == {errno.ENOENT}
""")
        self.assertEqual(os.stat(self.mnt).st_nlink, 3)

    def test_errors(self):
        os.mkdir(self.path("dir"))
        open(self.path("file"), "w").close()
        os.mkdir(self.path("full"))
        open(self.path("full/x"), "w").close()
        cases = [
            (errno.EEXIST, lambda: os.mkdir(self.path("dir"))),
            (errno.ENOENT, lambda: os.unlink(self.path("missing"))),
            (errno.EISDIR, lambda: os.unlink(self.path("dir"))),
            (errno.ENOTDIR, lambda: os.rmdir(self.path("file"))),
            (errno.ENOTEMPTY, lambda: os.rmdir(self.path("full"))),
            (errno.ENOTEMPTY, lambda: os.rename(self.path("dir"), self.path("full"))),
            (errno.EINVAL, lambda: os.rename(self.path("full"), self.path("full/in"))),
            (errno.ENOTDIR, lambda: os.rename(self.path("dir"), self.path("file"))),
            (errno.EISDIR, lambda: os.rename(self.path("file"), self.path("dir"))),
            (errno.ENAMETOOLONG, lambda: os.mkdir(self.path("n" * 256))),
            (errno.EPERM, lambda: os.link(self.path("dir"), self.path("hard"))),
            (errno.EACCES, lambda: open(self.path(".valfs/new"), "w")),
        ]
        for expected, call in cases:
            with self.assertRaises(OSError) as caught:
                call()
            self.assertEqual(caught.exception.errno, expected)

    def test_readdir_while_names_go(self):
        os.mkdir(self.path("many"))
        for i in range(3000):
            open(self.path("many", f"file{i}"), "w").close()
        run("rm", "-rf", self.path("many"))
        self.assertFalse(os.path.exists(self.path("many")))

    def test_permissions_are_checked_for_others(self):
        shell("echo secret > private; chmod 600 private; mkdir closed; chmod 700 closed; "
              "mkdir shared; chmod 2775 shared; chgrp 12 shared; echo x > shared/file", self.mnt)
        self.assertEqual(os.stat(self.path("shared/file")).st_gid, 12)
        denied = run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat",
                     self.path("private"), check=False)
        self.assertIn("Permission denied", denied.stderr)
        denied = run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat",
                     self.path(".valfs/control"), check=False)
        self.assertIn("Permission denied", denied.stderr)

    def test_suid_goes_with_a_write(self):
        path = self.path("suid")
        shell("echo x > suid; chmod 6755 suid; chmod 777 .; chown 65534 suid; chmod 6755 suid",
              self.mnt)
        run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-c",
            f"echo y >> {path}")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode) & 0o6000, 0)


if __name__ == "__main__":
    main()
