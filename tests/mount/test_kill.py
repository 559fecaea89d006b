"""P1: what has returned survives kill -9 of the daemon. Rounds: VALFS_KILLS (default 20)."""

import json
import os
import random
import subprocess
import sys
import time
import unittest

from harness import MountTest, main, run

# Writes until the mount dies, and notes outside of it what has returned. The last line may be of an
# operation that did not return.
WRITER = r"""
import json, os, random, sys
mnt, journal, seed = ".", sys.argv[2], int(sys.argv[3])
os.chdir(sys.argv[1])  # the path will lead to what is below the mount, once that is gone
choose = random.Random(seed)
log = open(journal, "a", buffering=1)
files = {}
def write_all(fd, data):
    while data:  # a write may be cut short when the daemon dies
        data = data[os.write(fd, data):]
def note(stage, *what):
    log.write(json.dumps([stage, *what]) + "\n")
try:
    for number in range(1_000_000):
        action = choose.choice("cccwwarut")
        name = f"{seed}-{number}" if action == "c" or not files else choose.choice(list(files))
        path = os.path.join(mnt, name)
        size = choose.choice([10, 1000, 5000, 70000, 300000])
        note("start", action, name, size, number)
        if action == "c" or not files:
            with open(path, "wb", buffering=0) as file:
                write_all(file.fileno(), bytes([number % 251]) * size)
            files[name] = [[number % 251, size]]
        elif action == "w":
            fd = os.open(path, os.O_WRONLY)
            os.ftruncate(fd, 0)
            write_all(fd, bytes([number % 251]) * size)
            os.close(fd)
            files[name] = [[number % 251, size]]
        elif action == "a":
            with open(path, "ab", buffering=0) as file:
                write_all(file.fileno(), bytes([number % 251]) * size)
            files[name].append([number % 251, size])
        elif action == "r":
            os.rename(path, path + "r")
            files[name + "r"] = files.pop(name)
        elif action == "u":
            os.unlink(path)
            del files[name]
        elif action == "t":
            os.mkdir(path + ".d")
            os.rename(path, path + ".d/inner")
            os.rename(path + ".d/inner", path)
            os.rmdir(path + ".d")
        note("done", action, name, size, number)
        if number % 50 == 49:
            os.fsync(os.open(mnt, os.O_RDONLY)) if number % 200 == 199 else None
except OSError:
    pass
"""


def replay(journal):
    """The files after all operations that returned, and the name of the one that may not have."""
    files = {}
    pending = None
    with open(journal) as lines:
        for line in lines:
            if not line.endswith("\n"):
                break
            stage, action, name, size, number = json.loads(line)
            if stage == "start":
                pending = name
                created = action == "c" or not files
                continue
            pending = None
            if created or action == "w":
                files[name] = [(number % 251, size)]
            elif action == "a":
                files[name].append((number % 251, size))
            elif action == "r":
                files[name + "r"] = files.pop(name)
            elif action == "u":
                del files[name]
    return files, pending


class Kill(MountTest):

    def test_P1_nothing_that_returned_is_lost(self):
        rounds = int(os.environ.get("VALFS_KILLS", "20"))
        seed = int(os.environ.get("VALFS_SEED", random.randrange(1 << 30)))
        print(f"seed {seed}, {rounds} rounds", file=sys.stderr)
        choose = random.Random(seed)
        checked = 0
        for number in range(rounds):
            journals = [os.path.join(self.root, f"journal-{number}-{w}") for w in range(2)]
            writers = [subprocess.Popen([sys.executable, "-c", WRITER, self.mnt, journal,
                                         str(seed + number * 100 + w)])
                       for w, journal in enumerate(journals)]
            # Let it run until so many operations have been noted.
            wanted = choose.randrange(50, 2500)
            while sum(lines(journal) for journal in journals) < wanted:
                if any(writer.poll() is not None for writer in writers):
                    break
                time.sleep(0.002)
            if number % 3 == 0:
                collector = subprocess.Popen(
                    ["sh", "-c", f"echo gc > {self.path('.valfs/control')}"],
                    stderr=subprocess.DEVNULL)
                time.sleep(choose.random() * 0.05)
                self.kill()
                collector.wait(timeout=60)
            else:
                self.kill()
            for writer in writers:
                writer.wait(timeout=60)
            self.mount()
            for journal in journals:
                files, pending = replay(journal)
                for name, pieces in files.items():
                    if pending is not None and name.startswith(pending):
                        continue
                    with open(self.path(name), "rb") as file:
                        content = file.read()
                    expected = b"".join(bytes([value]) * size for value, size in pieces)
                    self.assertEqual(len(content), len(expected), name)
                    self.assertTrue(content == expected, name)
                    checked += 1
            run("find", self.mnt, "-mindepth", "1", "-delete")
        print(f"{checked} files checked", file=sys.stderr)


def lines(path):
    if not os.path.exists(path):
        return 0
    with open(path, "rb") as file:
        return file.read().count(b"\n")


if __name__ == "__main__":
    main()
