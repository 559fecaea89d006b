"""fsck, scrub, dump and salvage, against real data directories with every kind of damage."""

import base64
import hashlib
import json
import os
import random
import shutil
import sys

from harness import VALFS, MountTest, listing, main, run

CLEAN, CORRECTED, UNCORRECTED, OPERATIONAL, USAGE = 0, 1, 4, 8, 16


def digest(directory):
    """Every byte below a directory: contents, names, sizes and times of change."""
    state = {}
    for parent, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, "rb") as file:
                info = os.stat(path)
                state[os.path.relpath(path, directory)] = (
                    hashlib.sha256(file.read()).hexdigest(), info.st_size, info.st_mtime_ns)
    return state


class Tools(MountTest):
    """A volume of many files, a tree, links, a large value; unmounted."""

    OPTIONS = ("log_file=16m",)

    def setUp(self):
        super().setUp()
        self.seed = int(os.environ.get("VALFS_SEED", random.randrange(1 << 30)))
        print(f"seed {self.seed}", file=sys.stderr)
        self.choose = random.Random(self.seed)
        self.contents = {}
        os.mkdir(self.path("d"))
        os.mkdir(self.path("d/e"))
        for i in range(300):
            name = f"d/f{i}" if i % 3 else f"d/e/f{i}"
            self.put(name, self.choose.randbytes(self.choose.choice([50, 3000, 40_000])))
        # Several log files, and some of what they hold dead: too little for the cleaner to begin.
        for i in range(12):
            self.put(f"big{i}", self.choose.randbytes(3_900_000))
        for i in range(0, 12, 4):
            self.put(f"big{i}", b"small now")
        self.put("large", self.choose.randbytes(5_000_000))
        os.link(self.path("d/f1"), self.path("hard"))
        self.contents["hard"] = self.contents["d/f1"]
        os.symlink("d/f1", self.path("symbolic"))
        self.put(b"d/\xff\xfe\n".decode(errors="surrogateescape"), b"odd")
        os.chmod(self.path("d/f2"), 0o4751)
        os.utime(self.path("d/f2"), ns=(1_000_000_000_123_456_789, 1_100_000_000_987_654_321))
        os.chown(self.path("d/f4"), 1234, 4321)
        with open(self.path("sparse"), "wb") as file:
            file.seek(1_000_000)
            file.write(b"end")
        self.contents["sparse"] = bytes(1_000_000) + b"end"
        self.umount()

    def put(self, name, content):
        with open(self.path(name), "wb") as file:
            file.write(content)
        self.contents[name] = content

    # --- the tools

    def tool(self, *arguments, expect=0):
        done = run(VALFS, *arguments, check=False)
        self.assertEqual(done.returncode, expect, f"{arguments}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def fsck(self, *options, expect):
        """The findings. Without --repair not one byte may change."""
        before = digest(self.data)
        lines = [json.loads(line) for line in
                 self.tool("fsck", self.data, "--json", *options, expect=expect).splitlines()]
        if "--repair" not in options:
            self.assertEqual(before, digest(self.data))
        self.assertEqual(lines[-1]["severity"], "summary")
        self.assertEqual(lines[-1]["status"], expect)
        return lines[:-1]

    def dump(self, *options):
        return [json.loads(line) for line in
                self.tool("dump", self.data, *options).splitlines()]

    def errors(self, findings, kind):
        return [finding for finding in findings
                if finding["severity"] == "error" and finding["kind"] == kind]

    # --- damage

    def files(self, room):
        return sorted(os.path.join(parent, name)
                      for parent, _, names in os.walk(os.path.join(self.data, room))
                      for name in names)

    def flip(self, path, offset):
        with open(path, "r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 0x10]))

    def extent_of(self, name):
        """The record that holds the (last) bytes of a file."""
        return [record for record in self.dump("--type", "EXTENT")
                if record["extent"].get("name") == os.path.basename(name)][-1]

    def in_data(self, record):
        return os.path.join(self.data, record["file"])

    # --- checks

    def check_files(self, root, damaged=(), gone=()):
        """All files are right, but for those that may be damaged (EIO, or holes) or gone."""
        good = 0
        for name, expected in self.contents.items():
            try:
                with open(os.path.join(root, name), "rb") as file:
                    content = file.read()
            except OSError as error:
                self.assertIn(name, (*damaged, *gone), error)
                continue
            if name in damaged:
                continue
            self.assertTrue(content == expected, f"{name}: wrong contents")
            good += 1
        return good

    def check_mount(self, damaged=()):
        self.mount()
        good = self.check_files(self.mnt, damaged)
        with open(self.path("new"), "wb") as file:
            file.write(b"writable")
        self.umount()
        self.assertGreaterEqual(good, len(self.contents) - len(damaged))

    def salvage(self, expect, damaged=(), gone=()):
        target = os.path.join(self.root, "salvaged")
        shutil.rmtree(target, ignore_errors=True)
        before = digest(self.data)
        self.tool("salvage", self.data, target, expect=expect)
        self.assertEqual(before, digest(self.data))
        with open(os.path.join(target, "salvage-report.jsonl")) as report:
            lines = [json.loads(line) for line in report]
        self.check_files(target, damaged, gone)
        return target, lines


class Sound(Tools):

    def test_a_sound_volume(self):
        self.assertEqual(self.fsck(expect=CLEAN), [])
        self.assertEqual(self.fsck("--repair", expect=CLEAN), [])
        self.assertIn("clean", self.tool("fsck", self.data))
        self.assertIn("0 damaged", self.tool("scrub", self.data))
        target, report = self.salvage(expect=0)
        self.assertEqual([line["kind"] for line in report], ["summary"])
        os.remove(os.path.join(target, "salvage-report.jsonl"))
        # Names, modes, owners, times, links.
        self.mount()
        run("diff", "-r", "--no-dereference", self.mnt, target)
        self.assertEqual(listing(self.mnt), listing(target))

    def test_wrong_calls(self):
        self.tool("fsck", expect=USAGE)
        self.tool("fsck", self.data, "--no-such-option", expect=USAGE)
        self.tool("fsck", os.path.join(self.root, "missing"), expect=OPERATIONAL)
        empty = os.path.join(self.root, "empty")
        os.mkdir(empty)
        self.tool("fsck", empty, expect=OPERATIONAL)
        self.assertEqual(os.listdir(empty), [])
        self.tool("salvage", self.data, os.path.join(self.data, "inside"), expect=1)
        self.tool("salvage", self.data, self.root, expect=1)  # not empty
        self.tool("dump", self.data, "--type", "NOTHING", expect=1)
        for tool in ("fsck", "scrub", "dump", "salvage"):
            self.assertIn("Exit status", self.tool(tool, "--help"))

    def test_a_mounted_volume_is_refused_and_its_owner_named(self):
        self.mount()
        for arguments in (("fsck", self.data), ("fsck", self.data, "--repair")):
            done = run(VALFS, *arguments, check=False)
            self.assertEqual(done.returncode, OPERATIONAL)
            self.assertIn(f"process {self.pid()} ", done.stderr)
            self.assertIn(self.mnt, done.stderr)
        # The mount point is not a data directory.
        self.tool("fsck", self.mnt, expect=OPERATIONAL)

    def test_after_a_kill_staged_groups_are_seen_and_left_alone(self):
        self.mount()
        self.put("late", b"in a staging slot only")
        self.kill()
        kinds = [finding["kind"] for finding in self.fsck(expect=CLEAN)]
        self.assertIn("unclean", kinds)
        target, _ = self.salvage(expect=0)
        with open(os.path.join(target, "late"), "rb") as file:
            self.assertEqual(file.read(), b"in a staging slot only")
        self.check_mount()

    def test_dump(self):
        records = self.dump()
        self.assertEqual(records[0]["type"], "LOG_FILE")
        for record in records:
            self.assertIn("file", record)
            self.assertIn("offset", record)
        odd = [record for record in self.dump("--type", "NAME") if "name_hex" in record["name"]]
        self.assertEqual(bytes.fromhex(odd[0]["name"]["name_hex"]), b"\xff\xfe\n")
        name = [record for record in self.dump("--type", "name")
                if record["name"]["name"] == "f2"][-1]
        inode = name["name"]["inode"]
        history = self.dump("--id", str(inode))
        self.assertEqual({record["type"] for record in history}, {"NAME", "EXTENT", "INODE"})
        # Log files take turns: the youngest record is the one with the highest sequence.
        last = max((record for record in history if record["type"] == "INODE"),
                   key=lambda record: record["sequence"])["inode"]
        self.assertEqual(last["mode"], "0104751")
        self.assertEqual(last["modified"], "2004-11-09T11:33:20.987654321Z")
        extent = [record for record in history if record["type"] == "EXTENT"][-1]
        self.assertEqual(extent["extent"]["parent"], name["name"]["parent"])
        self.assertEqual(extent["payload_crc"], "good")
        self.assertNotIn("payload_hex", extent)
        content = self.contents["d/f2"]
        for form, decode in (("hex", bytes.fromhex), ("base64", base64.b64decode)):
            one = self.dump("--id", str(inode), "--type", "EXTENT", "--payload", form)[-1]
            self.assertEqual(decode(one[f"payload_{form}"]), content)
        # A log file by itself, and filtered.
        path = self.in_data(extent)
        alone = self.tool("dump", path).splitlines()
        self.assertEqual(alone[1:], self.tool("dump", self.data, "--file", os.path.basename(path)
                                              ).splitlines()[1:])
        superblocks = self.dump("--super")
        self.assertEqual(len(superblocks), 4)
        self.assertTrue(superblocks[0]["clean"])
        checkpoint = self.dump("--checkpoint")[-1]
        self.assertEqual(checkpoint["generation"], superblocks[0]["checkpoint"])
        self.assertGreater(checkpoint["names"], len(self.contents))
        # What is damaged has lines of its own.
        self.flip(path, extent["offset"] + 20)
        damage = self.dump("--type", "DAMAGE")
        self.assertEqual([(line["offset"], line["id"]) for line in damage],
                         [(extent["offset"], inode)])


class Damaged(Tools):

    def test_superblock_copy(self):
        self.flip(os.path.join(self.data, "super"), 4096 + 50)
        self.assertEqual(len(self.errors(self.fsck(expect=UNCORRECTED), "superblock")), 1)
        self.fsck("--repair", expect=CORRECTED)
        self.assertEqual(self.fsck(expect=CLEAN)[0]["kind"], "quarantine")
        self.check_mount()

    def test_superblock_lost(self):
        path = os.path.join(self.data, "super")
        for missing in (False, True):
            if missing:
                os.remove(path)
            else:
                for copy in range(4):
                    self.flip(path, copy * 4096 + 50)
            self.assertNotEqual(self.mount(check=False).returncode, 0)
            self.salvage(expect=0)
            self.assertEqual(len(self.errors(self.fsck(expect=UNCORRECTED), "superblock")), 1)
            self.fsck("--repair", expect=CORRECTED)
            self.check_mount()

    def test_log_file_header(self):
        for path in self.files("wal"):
            self.flip(path, 20)
        self.assertEqual(len(self.errors(self.fsck(expect=UNCORRECTED), "log-header")),
                         len(self.files("wal")))
        self.salvage(expect=0)
        self.fsck("--repair", expect=CORRECTED)
        self.assertNotIn("DAMAGE", self.tool("dump", self.data))
        self.check_mount()

    def test_payload(self):
        record = self.extent_of("d/f5")
        path = self.in_data(record)
        with open(path, "rb") as file:
            at = file.read().index(self.contents["d/f5"][:40], record["offset"])
        self.flip(path, at + 30)
        findings = self.errors(self.fsck(expect=UNCORRECTED), "value")
        self.assertEqual([(f["path"], f["file"], f["offset"]) for f in findings],
                         [("d/f5", record["file"], record["offset"])])
        self.assertIn("d/f5", self.tool("scrub", self.data, expect=UNCORRECTED))
        self.fsck("--repair", expect=UNCORRECTED)
        self.check_mount(damaged=("d/f5",))
        target, report = self.salvage(expect=UNCORRECTED, damaged=("d/f5",))
        lost = [line for line in report if line["kind"] == "value"]
        self.assertEqual([line["path"] for line in lost], ["d/f5"])
        # Byte for byte as far as it is good.
        with open(os.path.join(target, "d/f5"), "rb") as file:
            found = file.read()
        begin, end = lost[0]["offset"], lost[0]["offset"] + lost[0]["length"]
        expected = self.contents["d/f5"]
        self.assertEqual(len(found), len(expected))
        self.assertEqual(found[:begin], expected[:begin])
        self.assertEqual(found[end:], expected[end:])
        # Somebody writes it anew, and all is well.
        self.mount()
        self.put("d/f5", b"new")
        self.umount()
        self.fsck(expect=CLEAN)

    def test_online_scrub_names_what_is_damaged(self):
        record = self.extent_of("d/f7")
        path = self.in_data(record)
        with open(path, "rb") as file:
            at = file.read().index(self.contents["d/f7"][:40], record["offset"])
        self.mount()
        self.assertIn("0 damaged", self.tool("scrub", self.mnt))
        self.flip(path, at + 3)
        self.flip(self.files("bin")[0], 200_000)
        text = self.tool("scrub", self.mnt, expect=UNCORRECTED)
        self.assertIn("2 damaged", text)
        self.assertIn("d/f7", text)
        self.assertIn("large", text)
        # By the data directory as well: the daemon does it.
        self.assertIn("2 damaged", self.tool("scrub", self.data, expect=UNCORRECTED))
        self.assertIn("2 damaged", self.tool("scrub", self.mnt, "--rate", "1g",
                                             expect=UNCORRECTED))
        with self.assertRaises(OSError):
            self.control("scrub rate=fast")
        self.check_files(self.mnt, damaged=("d/f7", "large"))

    def test_record_header(self):
        record = self.extent_of("d/f8")
        self.flip(self.in_data(record), record["offset"] + 12)
        self.assertIn("d/f8", [f["path"] for f in self.errors(self.fsck(expect=UNCORRECTED),
                                                              "value")])
        self.assertIn("d/f8", self.tool("scrub", self.data, expect=UNCORRECTED))
        self.salvage(expect=UNCORRECTED, damaged=("d/f8",), gone=("d/f8",))
        self.check_mount(damaged=("d/f8",))

    def test_group_header(self):
        groups = [line for line in self.dump("--groups") if line["type"] == "GROUP"]
        group = self.choose.choice([g for g in groups if g["records"] > 3][:-1])
        self.flip(self.in_data(group), group["offset"] + 40)
        findings = self.errors(self.fsck(expect=UNCORRECTED), "log-damage")
        self.assertEqual(findings[0]["offset"], group["offset"])
        self.assertIn("no group can be recognised", [line.get("what") for line in
                                                     self.dump("--type", "DAMAGE")])
        self.salvage(expect=UNCORRECTED)  # but every file is there
        self.check_mount()

    def test_checkpoint(self):
        newest = self.files("checkpoint")[-1]
        for missing in (False, True):
            if missing:
                os.remove(self.files("checkpoint")[-1])
            else:
                self.flip(newest, 500)
            self.assertTrue(self.errors(self.fsck(expect=UNCORRECTED), "checkpoint"))
            self.salvage(expect=0)
            self.fsck("--repair", expect=CORRECTED)
            self.mount()
            self.assertTrue(self.stats()["recovery"]["used_checkpoint"])
            self.umount()
            self.check_mount()
        self.assertTrue(self.files("quarantine"))

    def test_blob(self):
        path = self.files("bin")[0]
        self.flip(path, 1_000_000)
        findings = self.errors(self.fsck(expect=UNCORRECTED), "blob")
        self.assertEqual([(f["path"], f["offset"]) for f in findings],
                         [("large", 1_000_000 // 65536 * 65536)])
        self.assertIn("large", self.tool("scrub", self.data, expect=UNCORRECTED))
        target, report = self.salvage(expect=UNCORRECTED, damaged=("large",))
        hole = [line for line in report if line["kind"] == "value"][0]
        with open(os.path.join(target, "large"), "rb") as file:
            found = file.read()
        expected = self.contents["large"]
        end = hole["offset"] + hole["length"]
        self.assertEqual(found, expected[:hole["offset"]] + bytes(hole["length"]) + expected[end:])
        os.remove(path)
        findings = self.errors(self.fsck(expect=UNCORRECTED), "blob")
        self.assertIn("missing", findings[0]["what"])
        self.check_mount(damaged=("large",))

    def test_strays(self):
        stray = os.path.join(self.data, "bin/ff/ff/000000000000ffff")
        os.makedirs(os.path.dirname(stray))
        left = os.path.join(self.data, "gc/left")
        for path in (stray, left):
            with open(path, "wb") as file:
                file.write(b"whose?")
        self.assertEqual({f["kind"] for f in self.fsck(expect=CLEAN)},
                         {"blob-orphan", "gc-leftover"})
        self.fsck("--repair", expect=CLEAN)
        self.assertFalse(os.path.exists(stray) or os.path.exists(left))
        contents = []
        for path in self.files("quarantine"):
            with open(path, "rb") as file:
                contents.append(file.read())
        self.assertEqual(contents.count(b"whose?"), 2)
        self.check_mount()


class Missing(Tools):

    def victims(self, path):
        """Files that have bytes in a log file, by its records."""
        names = set()
        for record in self.dump("--type", "EXTENT"):
            if self.in_data(record) == path:
                names |= {name for name in self.contents
                          if os.path.basename(name) == record["extent"].get("name")}
        if "d/f1" in names:
            names.add("hard")
        return names

    def test_a_missing_log_file(self):
        logs = self.files("wal")
        self.assertGreater(len(logs), 2)
        victim = logs[1]
        damaged = self.victims(victim)
        self.assertTrue(damaged)
        os.rename(victim, os.path.join(self.root, "kept"))
        refused = self.mount(check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("valfs fsck --repair", refused.stderr)
        self.assertTrue(self.errors(self.fsck(expect=UNCORRECTED), "log-missing"))
        # Put back, all is well.
        os.rename(os.path.join(self.root, "kept"), victim)
        self.fsck(expect=CLEAN)
        os.remove(victim)
        found = self.fsck("--repair", expect=UNCORRECTED)
        named = {f["path"] for f in self.errors(found, "value")}
        self.assertTrue(named)
        self.assertLessEqual(named, damaged)
        self.check_mount(damaged=damaged)
        # The loss does not come back, nor do older bytes, when the checkpoint is lost as well.
        for path in self.files("checkpoint"):
            os.remove(path)
        self.mount()
        self.check_files(self.mnt, damaged=named)
        for name in named:
            with self.assertRaises(OSError, msg=name):
                with open(self.path(name), "rb") as file:
                    file.read()
        for name in named:
            self.put(name, b"anew")
        self.umount()
        self.fsck("--repair", expect=CLEAN)
        self.check_mount()

    def test_salvage_without_anything_but_records(self):
        os.remove(os.path.join(self.data, "super"))
        shutil.rmtree(os.path.join(self.data, "checkpoint"))
        for path in self.files("wal"):
            with open(path, "r+b") as file:
                file.write(bytes(4096))
        # And no directory: every NAME and INODE record but those of values is destroyed.
        names = self.dump("--type", "NAME")
        for record in names:
            self.flip(self.in_data(record), record["offset"] + 60)
        target = os.path.join(self.root, "salvaged")
        self.tool("salvage", self.data, target, expect=UNCORRECTED)
        # The parents have lost their names: they are in lost+found, with all their files.
        found = {}
        for parent, _, files in os.walk(target):
            for name in files:
                if os.path.islink(os.path.join(parent, name)):
                    continue
                with open(os.path.join(parent, name), "rb") as file:
                    found.setdefault(hashlib.sha256(file.read()).hexdigest(), name)
        for name, content in self.contents.items():
            if name == "sparse":
                continue
            self.assertIn(hashlib.sha256(content).hexdigest(), found, name)

    def test_salvage_of_log_files_that_lie_anywhere(self):
        heap = os.path.join(self.root, "heap")
        os.mkdir(heap)
        for path in self.files("wal") + self.files("bin"):
            os.rename(path, os.path.join(heap, os.path.basename(path)))
        target = os.path.join(self.root, "salvaged")
        self.tool("salvage", heap, target)
        self.check_files(target)


if __name__ == "__main__":
    main()
