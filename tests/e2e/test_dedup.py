#!/usr/bin/python3
"""sendq-dedup over a Maildir, an mbox and a real Dovecot: what it lists, what it moves, and that nothing else changes."""
import fcntl
import glob
import json
import mailbox
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import certs, dovecot, links, process  # noqa: E402
from harness.tap import add, equal, holds, main, test, true  # noqa: E402

USER, PASSWORD = "ann@example.test", dovecot.USERS["ann@example.test"]
URL_USER = USER


def multipart(name, trace=""):
    """Three parts, one of them in a multipart of its own; a whole message of some size."""
    return ("%sFrom: a@example.test\nTo: b@example.test\nSubject: about %s\nDate: Thu, 26 Nov 2026 01:00:00 +0000\n"
            "Message-ID: <%s@example.test>\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"Edge=1\"\n\n"
            "preamble\n--Edge=1\nContent-Type: multipart/alternative; boundary=Inner-2\n\n--Inner-2\n\n%s\n--Inner-2\n"
            "Content-Type: text/html\n\n<p>%s</p>\n--Inner-2--\n--Edge=1\nContent-Type: application/octet-stream\n\n%s\n--Edge=1--\n"
            % (trace, name, name, "first " * 50, "second " * 50, "third " * 200)).encode()


def plain(name, body="hello\nthere\n", trace=""):
    return ("%sFrom: a@example.test\nSubject: %s\nDate: Thu, 26 Nov 2026 01:00:00 +0000\nMessage-ID: <%s@example.test>\n\n%s" %
            (trace, name, name, body)).encode()


W = multipart("w", "Received: from x by y\n")
CUT_THIRD = W[:W.index(b"third") + 300]
CUT_SECOND = W[:W.index(b"second") + 40]
CUT_BETWEEN = W[:W.index(b"--Edge=1\nContent-Type: application") + 5]
CUT_CLOSING = W[:-5]
CUT_DASHES = W[:-3]
OTHER = multipart("w").replace(b"third", b"3rd..")
NAMELESS = b"From: a@example.test\nSubject: none\n\nno id\n"
HEADER_ONLY = W[:W.index(b"MIME-Version")]

# messages in the order they came; for files and for IMAP: kind of each ("-": the first, not listed), and which move
ROWS = {
    "partial, then whole": ([CUT_THIRD, W], "p-", "p-", [0]),
    "whole, then partial": ([W, CUT_THIRD], "-p", "-p", [1]),
    "two partial ones, the longer later, whole between": ([CUT_SECOND, W, CUT_THIRD], "p-p", "p-p", [0, 2]),
    "cut between two parts": ([CUT_BETWEEN, W], "p-", "p-", [0]),
    "cut in its closing boundary, whole first": ([W, CUT_CLOSING], "-p", "-f", [1]),
    "cut in its closing boundary, whole later": ([CUT_CLOSING, W], "p-", "-f", [0]),
    "cut before the last two dashes": ([CUT_DASHES, W], "p-", "-d", [0]),
    "another way, the same content": ([W, multipart("w")], "-d", "-d", []),
    "other content under the same Message-ID": ([W, OTHER], "-f", "-d", []),
    "partial ones only: the longer is kept": ([CUT_SECOND, CUT_THIRD], "pp", "p-", [0]),
    "a single part, cut, then whole": ([plain("p")[:-6], plain("p")], "p-", "p-", [0]),
    "a single part twice": ([plain("p"), plain("p", trace="Received: from z by y\n")], "-d", "-d", []),
    "of two messages": ([W, plain("p"), CUT_THIRD, multipart("v")[:-100]], "--pp", "--p-", [2]),
    "two without a Message-ID": ([NAMELESS, NAMELESS], "--", "--", []),
}
KINDS = {"p": "partial", "d": "duplicate", "f": "differs"}


class Scene:
    def __init__(self):
        self.folder = process.temp_folder("dedup")
        self.program = links.program("sendq-dedup")
        self.certs = certs.Certs(self.folder)
        self.mail = os.path.join(self.folder, "mail")
        os.makedirs(self.mail)
        os.chown(self.mail, 65534, 65534)
        for part in ("ann", "ann/.Trash", "ann/.Trash/cur", "ann/.Trash/new", "ann/.Trash/tmp"):
            os.mkdir(os.path.join(self.mail, part))
            os.chown(os.path.join(self.mail, part), 65534, 65534)
        self.dovecot = dovecot.Dovecot(self.folder, self.certs, self.mail, servers=True)
        self._n = 0
        self.password = self.file("password", PASSWORD + "\n")

    def file(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, 0o600)
        return path

    def new(self):
        self._n += 1
        path = os.path.join(self.folder, "m%d" % self._n)
        os.makedirs(path)
        return path

    def run(self, *args, status=0, json_lines=True):
        done = subprocess.run([self.program] + (["--json"] if json_lines else []) + list(args), stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=60)
        equal(done.returncode, status, "status of %r: %s %s" % (args, done.stdout.decode(), done.stderr.decode()))
        if not json_lines:
            return done.stdout.decode()
        return [json.loads(line) for line in done.stdout.decode().splitlines()] if status == 0 else done.stderr.decode()

    def imap(self, folder="INBOX", host="localhost"):
        return ["--ca-file", self.certs.ca, "--password-file", self.password,
                "imaps://%s@%s:%d/%s" % (URL_USER, host, self.dovecot.imaps_port, folder)]

    def stop(self):
        self.dovecot.stop()


# ---- a mailbox of each kind: filled, asked for what it holds, in order ----

class Maildir:
    def __init__(self, scene, messages):
        self.path = scene.new() + "/Maildir"
        self.args = [self.path]
        for part in ("cur", "new", "tmp"):
            os.makedirs(os.path.join(self.path, part))
        for n, data in enumerate(messages):
            with open(os.path.join(self.path, "new" if n % 2 else "cur", "%d.m.host" % (1000 + n)), "wb") as f:
                f.write(data)

    def index(self, where):
        return int(os.path.basename(where).split(".")[0]) - 1000

    def _read(self, path):
        files = [p for part in ("cur", "new") for p in glob.glob(os.path.join(path, part, "*"))]
        return [open(p, "rb").read() for p in sorted(files, key=os.path.basename)]

    def kept(self):
        return self._read(self.path)

    def trash(self):
        return self._read(self.path + "/.Trash")


class Mbox:
    def __init__(self, scene, messages):
        self.path = scene.new() + "/inbox"
        self.args = [self.path]
        self.starts = []
        with open(self.path, "wb") as f:
            for data in messages:
                self.starts.append(f.tell())
                f.write(b"From a@example.test Thu Nov 26 01:00:00 2026\n" + data + (b"" if data.endswith(b"\n") else b"\n") + b"\n")

    def index(self, where):
        return self.starts.index(int(where.split()[1]))

    def _read(self, path):
        if not os.path.exists(path):
            return []
        with open(path, "rb") as f:
            return [m.split(b"\n", 1)[1].rstrip(b"\n") for m in (b"\n" + f.read()).split(b"\nFrom a@")[1:]]

    def kept(self):
        return self._read(self.path)

    def trash(self):
        return self._read(os.path.dirname(self.path) + "/Trash")


class Imap:
    """A folder of its own of Dovecot's; delivered as CRLF by the file system, as its LDA would store it."""

    def __init__(self, scene, messages):
        self.root = os.path.join(scene.mail, "ann")
        scene._n += 1
        self.name = "box%d" % scene._n
        self.path = os.path.join(self.root, "." + self.name)
        self.args = scene.imap(self.name)
        for part in ("", "cur", "new", "tmp"):
            os.makedirs(os.path.join(self.path, part), exist_ok=True)
        for n, data in enumerate(messages):
            with open(os.path.join(self.path, "new", "%d.m.host" % (1000 + n)), "wb") as f:
                f.write(data)
        for path, folders, names in os.walk(self.root):
            for entry in [path] + [os.path.join(path, x) for x in names]:
                os.chown(entry, 65534, 65534)

    def index(self, where):
        return int(where.split()[1]) - 1

    def _read(self, path):
        files = [p for part in ("cur", "new") for p in glob.glob(os.path.join(path, part, "*"))]
        return [open(p, "rb").read() for p in sorted(files, key=os.path.basename)]

    def kept(self):
        return self._read(self.path)

    def trash(self):
        return self._read(self.root + "/.Trash")


def same_octets(got, want):
    equal(sorted(g.rstrip(b"\n") for g in got), sorted(w.rstrip(b"\n") for w in want))


def row(make, messages, kinds, moves, trash_folder=()):
    def run(scene):
        box = make(scene, messages)
        found = scene.run(*box.args)
        got = {box.index(f["where"]): f["kind"] for f in found}
        equal(got, {n: KINDS[k] for n, k in enumerate(kinds) if k != "-"}, "what is listed")
        equal(sorted(box.index(f["where"]) for f in found if f["strictly_less"]), moves, "what could move")
        true(not any(f["trashed"] for f in found), "dry by default")
        same_octets(box.kept(), messages)
        before = box.trash()
        moved = scene.run("--trash", *trash_folder, *box.args)
        equal(sorted(box.index(f["where"]) for f in moved if f["trashed"]), moves, "what moved")
        same_octets(box.kept(), [m for n, m in enumerate(messages) if n not in moves])
        gone = box.trash()
        for m in before:
            gone.remove(m)
        same_octets(gone, [messages[n] for n in moves])
        equal([f for f in scene.run(*box.args) if f["strictly_less"]], [], "what could move afterwards")
    return run


for title, (messages_, in_files, in_imap, moves_) in ROWS.items():
    add("Maildir: " + title, row(Maildir, messages_, in_files, moves_))
    add("mbox: " + title, row(Mbox, messages_, in_files, moves_))
    imap_moves = [n for n in moves_ if in_imap[n] == "p"]
    add("IMAP: " + title, row(Imap, messages_, in_imap, imap_moves, ["--trash-folder", "Trash"]))


@test("words for people: what, which copy is more complete, and what could be done")
def words(scene):
    out = scene.run(*Maildir(scene, [CUT_THIRD, W, W, b"Message-ID: <\x1b[31mred>\n\n--"]).args, json_lines=False)
    for part in ("partial ", "cur/1000.m.host", "more complete: new/1001.m.host", "the same as new/1001.m.host",
                 "4 messages: 1 partial, 1 duplicate, 0 with other content", "1 could go to Trash: --trash"):
        holds(out, part)
    true("\x1b" not in out, "control characters reach the terminal")


@test("Maildir: a copy cut in its header; a folder of the tree shares the root's Trash; a taken name is not written over")
def maildir_tree(scene):
    box = Maildir(scene, [])
    folder = box.path + "/.Lists"
    os.makedirs(box.path + "/.Trash/cur")
    for part in ("cur", "new", "tmp"):
        os.makedirs(os.path.join(folder, part))
    for name, data in (("1.m", HEADER_ONLY), ("2.m", W), ("3.m", CUT_THIRD)):
        with open(os.path.join(folder, "cur", name), "wb") as f:
            f.write(data)
    with open(box.path + "/.Trash/cur/3.m", "wb") as f:
        f.write(b"another one")
    done = scene.run("--trash", folder, status=74)
    holds(done, "cannot move")
    equal(sorted(os.listdir(box.path + "/.Trash/cur")), ["1.m", "3.m"])
    equal(sorted(os.listdir(folder + "/cur")), ["2.m", "3.m"])
    equal(open(box.path + "/.Trash/cur/3.m", "rb").read(), b"another one")
    holds(scene.run("--trash", box.path + "/.Trash", status=65), "is the Trash itself")


@test("mbox: what moved stands in Trash as an mbox that others read")
def mbox_readable(scene):
    box = Mbox(scene, [CUT_THIRD, plain("p"), W, CUT_SECOND, plain("q")])
    scene.run("--trash", *box.args)
    equal(sorted(m["Subject"] for m in mailbox.mbox(box.path)), ["about w", "p", "q"])
    equal([m["Subject"] for m in mailbox.mbox(os.path.dirname(box.path) + "/Trash")], ["about w"] * 2)
    equal(sorted(os.listdir(os.path.dirname(box.path))), ["Trash", "inbox"], "nothing is left beside it")


@test("mbox: a line of a letter that begins with From begins no message; one of ten megabytes needs no memory")
def mbox_lines(scene):
    box = Mbox(scene, [plain("q", "From me to you\n\nFrom here on: text\n" + "x" * 10000000 + "\n"), plain("p")])
    holds(scene.run(*box.args, json_lines=False), "2 messages: 0 partial")


@test("mbox: a lock of another program is respected, both kinds; a list needs none")
def mbox_locked(scene):
    box = Mbox(scene, [CUT_THIRD, W])
    with open(box.path + ".lock", "w"):
        pass
    equal(len(scene.run(*box.args)), 1)
    holds(scene.run("--trash", *box.args, status=75), "there is a file")
    os.unlink(box.path + ".lock")
    with open(box.path, "r+b") as f:
        fcntl.lockf(f, fcntl.LOCK_EX)
        holds(scene.run("--trash", *box.args, status=75), "locked by another program")
    same_octets(box.kept(), [CUT_THIRD, W])
    equal(os.listdir(os.path.dirname(box.path)), ["inbox"])


@test("mbox: a run that was ended in the middle is told of, and nothing moves before that is settled")
def mbox_ended(scene):
    box = Mbox(scene, [CUT_THIRD, W])
    with open(box.path + ".sendq-dedup", "w"):
        pass
    holds(scene.run("--trash", *box.args, status=77), "the mailbox as it was is in")
    same_octets(box.kept(), [CUT_THIRD, W])
    same_octets(box.trash(), [])


@test("IMAP: without --trash-folder the folder marked as Trash, or of that name")
def imap_trash(scene):
    box = Imap(scene, [CUT_THIRD, W])
    before = box.trash()
    scene.run("--trash", *box.args)
    equal(len(box.trash()), len(before) + 1)
    holds(scene.run("--trash", "--trash-folder", box.name, *box.args, status=65), "is the Trash itself")


@test("IMAP: no content is fetched, and without --trash the folder is only examined")
def imap_reads_no_bodies(scene):
    box = Imap(scene, [CUT_THIRD, W, W, plain("p")])
    raw = os.path.join(box.root, "rawlog")
    os.mkdir(raw)
    os.chown(raw, 65534, 65534)
    try:
        equal(len(scene.run(*box.args)), 2)
        said = "".join(open(p, encoding="latin-1").read().upper() for p in glob.glob(raw + "/*.in"))
    finally:
        os.rename(raw, raw + ".done")
    holds(said, "EXAMINE")
    holds(said, "BODYSTRUCTURE")
    items = set(re.findall(r"\((UID [^)]*)\)", said))
    equal(items, {"UID RFC822.SIZE ENVELOPE", "UID RFC822.SIZE ENVELOPE BODYSTRUCTURE"})
    for word in ("BODY[", "PEEK", "SELECT", "STORE", "EXPUNGE", "MOVE"):
        true(word not in said, "'%s' was said" % word)


@test("IMAP: 1,200 messages in steps, one pair among them")
def imap_many(scene):
    box = Imap(scene, [plain("m%d" % n) for n in range(1199)] + [plain("m7")[:-5]])
    found = scene.run(*box.args)
    equal([(f["where"], f["of"], f["kind"]) for f in found], [("uid 1200", "uid 8", "partial")])


@test("the manual names every option of --help")
def manual(scene):
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "contrib", "dedup", "sendq-dedup.1.scd")) as f:
        there = f.read()
    options = re.findall(r"--[a-z-]+", scene.run("--help", json_lines=False))
    true(len(set(options)) > 6, "the options of --help: %s" % options)
    for option in options:
        holds(there, "*" + option)


@test("bad input: a sentence each")
def bad_input(scene):
    folder = scene.new()
    url = "imaps://%s@localhost:%d/" % (URL_USER, scene.dovecot.imaps_port)
    open_file = scene.file("open", "x")
    os.chmod(open_file, 0o644)
    text = scene.file("text", "Dear all,\n\nno mbox\n")
    for args, status, part in (
            ([folder], 65, "no Maildir"), (["/nonexistent"], 66, "cannot open '/nonexistent'"), ([text], 65, "is no mbox"),
            (["/dev/null"], 65, "neither a file nor a folder"), ([], 64, "usage"), (["--frob", folder], 64, "usage"),
            (["--trash-folder", "x", folder], 64, "--trash is not given"),
            ([url], 65, "needs one of --password-command and --password-file"),
            (["--password-file", open_file, url], 77, "chmod 600"),
            (["--password-command", "exit 3", url], 77, "failed"),
            (["--password-command", "true", url], 77, "empty"),
            (["imaps://ann:secret@localhost/"], 65, "a password does not belong in a URL"),
            (["imaps://localhost/INBOX"], 65, "names no user"), (["imaps://ann@/INBOX"], 65, "names no host"),
            (["imaps://ann@localhost/%zz"], 65, "hexadecimal"), (["imaps://ann@localhost/Entw\u00fcrfe"], 65, "modified UTF-7"),
            (["--password-command", "echo wrong", "--ca-file", scene.certs.ca, url], 77, "cannot log in"),
            (["--password-file", scene.password, url], 74, "certificate"),
            (scene.imap("no-such-folder"), 66, "'no-such-folder' cannot be opened")):
        holds(scene.run(*args, status=status), part, "%r" % (args,))
        if part == "a password does not belong in a URL":
            true("secret" not in scene.run(*args, status=status), "the password is repeated")


if __name__ == "__main__":
    main(Scene, Scene.stop)
