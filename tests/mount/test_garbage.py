"""Garbage collection through the control file: space comes back, contents stay (F31, P9)."""

import os
import subprocess
import time

from harness import MountTest, main, run, shell


def bound(stats):
    return stats["log"]["dead_bytes"] <= stats["log"]["live_bytes"] * 0.25


class Garbage(MountTest):

    def fill(self):
        for _ in range(4):
            run("cp", "-a", "/usr/include", self.mnt)
        half = sorted(os.listdir("/usr/include"))[::2]
        for name in half:
            run("rm", "-rf", self.path("include", name))
        return half

    def check(self, deleted):
        result = run("diff", "-r", "--no-dereference", "/usr/include", self.path("include"),
                     check=False)
        for line in result.stdout.splitlines():
            self.assertTrue(line.startswith("Only in /usr/include: "), line)
            self.assertIn(line.split(": ", 1)[1], deleted)

    def test_gc_brings_dead_bytes_below_a_quarter(self):
        deleted = self.fill()
        text = self.control("gc")
        self.assertRegex(text, r"gc: done, \d+ bytes reclaimed, \d+ files freed")
        stats = self.stats()
        self.assertTrue(bound(stats), stats["log"])
        self.check(deleted)
        taken = int(run("du", "-sB1", self.data).stdout.split()[0])
        self.assertLess(taken, stats["log"]["live_bytes"] * 1.25 + stats["blobs"]["disk_bytes"] +
                        stats["checkpoint"]["disk_bytes"] + 3 * (16 << 20))
        self.remount()
        self.check(deleted)

    def test_gc_survives_kill_at_any_moment(self):
        deleted = self.fill()
        for delay in (0.0, 0.02, 0.05, 0.1, 0.2, 0.4):
            collector = subprocess.Popen(["sh", "-c", "echo gc > .valfs/control"], cwd=self.mnt,
                                         stderr=subprocess.DEVNULL)
            time.sleep(delay)  # anywhere inside; where exactly does not matter
            self.kill()
            collector.wait(timeout=60)
            self.mount()
            self.check(deleted)
        self.control("gc")
        self.assertTrue(bound(self.stats()), self.stats()["log"])
        self.check(deleted)

    def test_deleting_everything_gives_the_space_back(self):
        run("cp", "-a", "/usr/include", self.mnt)
        run("rm", "-rf", self.path("include"))
        self.control("gc")
        self.assertLess(self.stats()["log"]["dead_bytes"], 1 << 20)
        taken = int(run("du", "-sB1", self.data).stdout.split()[0])
        # Two log files that are written to, up to three spares, and what is not log.
        self.assertLess(taken, 5 * (16 << 20) + (1 << 20))

    def test_garbage_is_bounded_without_asking(self):
        block = os.urandom(1 << 20)
        for _ in range(8):
            for i in range(100):
                with open(self.path(f"f{i}"), "wb") as file:
                    file.write(block)
        deadline = time.monotonic() + 60
        while True:
            log = self.stats()["log"]
            if log["dead_bytes"] <= log["live_bytes"] * 0.25 + 2 * (16 << 20):
                break
            self.assertLess(time.monotonic(), deadline, log)
            time.sleep(0.1)

    def test_control_words(self):
        for word in ("sync", "checkpoint", "drop_caches"):
            self.assertEqual(self.control(word), f"{word}: done\n")
        bad = shell("echo nonsense > .valfs/control", self.mnt, check=False)
        self.assertIn("Invalid argument", bad.stderr)
        self.assertEqual(oct(os.stat(self.path(".valfs/control")).st_mode & 0o777), "0o600")
        self.assertNotIn(".valfs", os.listdir(self.mnt))
        self.assertEqual(sorted(os.listdir(self.path(".valfs"))), ["config", "control", "stats"])


if __name__ == "__main__":
    main()
