"""How many requests an operation costs: each is a wake-up, and so most of what a small one takes.

Each operation is done to many files and the requests of them all are counted, in `stats`, by
opcode. Reading `stats` takes some itself: a few, whatever the number of files. FORGETs are not
counted, as nobody waits for them.
"""

import os

from harness import MountTest, main

FILES = 200
LISTED = 10_000  # names in the directory of the listing


class Messages(MountTest):
    """The default profile, mounted with `-o private`."""

    OPTIONS = ("private",)
    CREATE = {"lookup": 1, "mknod": 1, "write": 1}
    UNLINK = {"unlink": 1}

    def setUp(self):
        super().setUp()
        self.at = os.path.join(self.mnt, "directory")
        os.mkdir(self.at)
        self.paths = [os.path.join(self.at, f"file-{i}") for i in range(FILES)]

    def expect(self, expected, operation, paths=None):
        """The requests that each of the files costs: {opcode: count}."""
        paths = paths or self.paths
        self.requests()  # what reading it needs once only
        idle = self.difference(self.requests(), self.requests())
        before = self.requests()
        for path in paths:
            operation(path)
        counted = self.difference(before, self.requests())
        for opcode, count in idle.items():
            counted[opcode] -= count
        each = {opcode: count / len(paths) for opcode, count in counted.items()}
        # The directory above may be looked at once.
        found = {opcode: round(count, 1) for opcode, count in each.items() if count > 0.05}
        self.assertEqual(found, expected)

    def requests(self):
        counts = dict(self.stats()["requests"])
        counts.pop("forget", None)
        return counts

    @staticmethod
    def difference(before, after):
        return {opcode: count - before.get(opcode, 0) for opcode, count in after.items()}

    def create(self, path):
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        os.write(file, b"v" * 1024)
        os.close(file)

    def read(self, path):
        file = os.open(path, os.O_RDONLY)
        self.assertEqual(len(os.read(file, 4096)), 1024)
        os.close(file)

    def overwrite(self, path):
        file = os.open(path, os.O_WRONLY | os.O_TRUNC)
        os.write(file, b"w" * 1024)
        os.close(file)

    def append(self, path):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.write(file, b"x" * 100)
        os.close(file)

    def missing(self, path):
        self.assertFalse(os.path.exists(path + ".not"))

    def test_each_operation(self):
        self.expect(self.CREATE, self.create)
        self.expect({"getattr": 1}, os.stat)  # the first after a write
        self.expect({}, os.stat)
        self.expect({"read": 1}, self.read)
        self.expect({}, self.read)  # kept in the page cache
        self.expect({"setattr": 1, "write": 1}, self.overwrite)
        self.expect({"write": 1}, self.append)
        self.expect({"lookup": 1}, self.missing)
        self.expect({}, self.missing)  # that it is not there is remembered
        self.expect(self.UNLINK, os.unlink)

    def test_a_long_listing(self):
        for i in range(LISTED):
            os.mknod(os.path.join(self.at, f"f{i}"))
        self.remount()
        before = sum(self.requests().values())
        with os.scandir(self.at) as entries:
            self.assertEqual(sum(1 for entry in entries if entry.stat().st_size == 0), LISTED)
        self.assertLessEqual(sum(self.requests().values()) - before, 500)


class MessagesOfRoot(Messages):
    """What root gets without options: who may do what is asked again at each change of a name."""

    OPTIONS = ()
    CREATE = {"lookup": 1, "getattr": 1, "mknod": 1, "write": 1}
    UNLINK = {"getattr": 1, "unlink": 1}


if __name__ == "__main__":
    main()
