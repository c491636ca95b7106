#!/usr/bin/python3
"""The power fails at every write and every sync of a submission and of a delivery; disks that fail, disks that are full.

The real programs run under recorder.c, which writes down what they do to the
queue's folder and what they say to the server. From that, for every moment:
what a disk would hold that had kept what was synced and nothing else, all of
it, or any part (by seed). In each of these

- the database is whole;
- a message whose sendmail had exited 0 is there, with all of its octets and recipients;
- a message whose terminator was on its way is committing, in doubt or sent: never one to be sent again;
- a message whose session was ended by QUIT is sent.

And sendq, started on a sample of them, sends no message again whose terminator was out.
SENDQ_SEED=n repeats one run; SENDQ_LONG=1 looks at more.
"""
import errno
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [os.path.join(ROOT, "tests", "e2e"), os.path.join(ROOT, "tests", "fake"), HERE]
import disk  # noqa: E402
from harness import process, sendq  # noqa: E402
from harness.sendq import message  # noqa: E402
from harness.tap import Skip, equal, main, note, test, true  # noqa: E402
from scripted import Scripted  # noqa: E402

QUEUED, SENDING, COMMITTING, DOUBT, HELD, SENT = range(6)  # include/sendq/outcome.h
LONG = os.environ.get("SENDQ_LONG") == "1"
SEED = int(os.environ.get("SENDQ_SEED", "0")) or int.from_bytes(os.urandom(4), "big")
random.seed(SEED)
LARGE = "x" * 70 + "\n" + ("y" * 70 + "\n") * 14000  # a megabyte: chunks, and a log that sendmail itself checkpoints


class Scene:
    def __init__(self):
        # The replays are thousands of small files that nobody syncs for real.
        self.folder = tempfile.mkdtemp(prefix="sendq-power-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        os.chmod(self.folder, 0o755)
        self.n = 0
        note("SENDQ_SEED=%d" % SEED)

    def queue(self, ehlo=None, **script):
        self.n += 1
        server = Scripted(script, **({"ehlo": ehlo} if ehlo else {}))
        return Recorded(self.folder, "q%d" % self.n, server)

    def stop(self):
        shutil.rmtree(self.folder, True)


class Recorded(sendq.Sendq):
    """sendq whose programs are recorded, with a server of its own."""

    def __init__(self, folder, name, server):
        self.routes = [sendq.route("smtp://127.0.0.1:%d" % server.port, tls="none")]
        super().__init__(folder, self.routes, name=name)
        self.server = server
        self.records = os.path.join(self.folder, "records")
        self.state = os.path.dirname(self.queue)
        library = os.path.join(os.environ["SENDQ_BUILD"], "tests", "crash", "librecorder.so")
        agent = os.path.join(self.folder, "recorded", "sendq-smtp")
        os.mkdir(os.path.dirname(agent))
        with open(agent, "w") as f:
            f.write("#!/bin/sh\nexport LD_PRELOAD='%s' SENDQ_RECORD_LOG='%s'\nexec '%s'\n" % (library, self.records, self.paths["sendq-smtp"]))
        os.chmod(agent, 0o755)
        asan = os.environ.get("ASAN_OPTIONS", "")
        self.recorded = dict(LD_PRELOAD=library, SENDQ_RECORD_DIR=self.state + "/", SENDQ_RECORD_LOG=self.records,
                             SENDQ_AGENT=agent, ASAN_OPTIONS=asan + ":verify_asan_link_order=0")

    def flush_recorded(self):
        return self.flush(**self.recorded)


def identity(n):
    return "<%d@power.test>" % n


def submit(q, n, body="hello\n"):
    result = q.sendmail(message(["a%d@b.test" % n, "c%d@b.test" % n], "power", body, Message_ID=identity(n)), **q.recorded)
    equal(result.code, 0, repr(result))
    disk.mark(q.records, identity(n).encode())


class Wire:
    """What one delivery agent has said so far: which terminators, and whether it has said QUIT."""

    def __init__(self):
        self.buffer, self.content, self.left, self.last, self.data = b"", b"", 0, False, False
        self.terminated, self.quit = set(), False

    def feed(self, octets):
        self.buffer += octets
        while self.step():
            pass

    def step(self):
        if self.left:
            part, self.buffer = self.buffer[:self.left], self.buffer[self.left:]
            self.content += part
            self.left -= len(part)
            if part and not self.left and self.last:
                self.over()
            return bool(part)
        line, end, rest = self.buffer.partition(b"\r\n")
        if not end:
            return False
        self.buffer = rest
        words = line.upper().split(b" ")
        if self.data:
            self.content += line + end
            if line == b".":
                self.data = False
                self.over()
        elif words[0] == b"BDAT":
            self.left, self.last = int(words[1]), b"LAST" in words
            if self.last and not self.left:
                self.over()
        else:
            self.data = words[0] == b"DATA"
            self.quit = self.quit or words[0] == b"QUIT"
            self.content = b"" if words[0] == b"MAIL" else self.content
        return True

    def over(self):
        self.terminated.add(re.search(rb"(?i)(?:^|\n)Message-ID: (<[^>]*>)", self.content).group(1).decode())


class Truth:
    """What the outside world knows after each record: exits, terminators, and who was let go behind his verdicts."""

    def __init__(self):
        self.accepted, self.wires = set(), {}

    def feed(self, r):
        if r.kind == "X":
            self.accepted.add(r.octets.decode())
        elif r.kind == "N":
            self.wires.setdefault(r.pid, Wire()).feed(r.octets)

    @property
    def terminated(self):
        return set().union(*(w.terminated for w in self.wires.values()))

    @property
    def settled(self):
        """QUIT is never said behind a verdict that was not read, nor before it is durable."""
        return set().union(*(w.terminated for w in self.wires.values() if w.quit))


def look(path):
    """{Message-ID: (states, octets missing)} of a database that a power loss left, or None where there is no schema yet."""
    db = sqlite3.connect(path, timeout=1)
    try:
        equal(db.execute("PRAGMA integrity_check").fetchall(), [("ok",)], "integrity")
        if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'recipient'").fetchall():
            return {}
        out = {}
        for number, mid, size, stored in db.execute("SELECT id, message_id, size, stored FROM message").fetchall():
            states = [r[0] for r in db.execute("SELECT state FROM recipient WHERE id >> 16 = ?", (number,))]
            have = db.execute("SELECT coalesce(sum(length(data)), 0) FROM content WHERE id >> 20 = ?", (number,)).fetchone()[0]
            out[mid] = (states, size - have if stored else 0)
        return out
    finally:
        db.close()


def check(files, queue, folder, truth, what):
    path = os.path.join(folder, "queue.db")
    for suffix in ("", "-wal", "-journal"):
        octets = files.get(queue + suffix)
        if octets is not None:
            with open(path + suffix, "wb") as f:
                f.write(octets)
    try:
        found = look(path) if os.path.exists(path) else {}
    except sqlite3.DatabaseError as why:
        raise AssertionError("%s: the database: %s" % (what, why)) from why
    finally:
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
    for mid in truth.accepted:
        true(mid in found, "%s: %s is gone, though sendmail exited 0" % (what, mid))
    for mid, (states, missing) in found.items():
        equal((len(states), missing), (2, 0), "%s: recipients and missing octets of %s" % (what, mid))
        if mid in truth.terminated:
            true(set(states) <= {COMMITTING, DOUBT, SENT}, "%s: %s is %s, and its terminator was out" % (what, mid, states))
        if mid in truth.settled:
            equal(set(states), {SENT}, "%s: states of %s, whose session was ended by QUIT" % (what, mid))


def replay(scene, q, states_at_most=None):
    """Every moment of what was recorded. Returns (moments, states) and a few states to start sendq on."""
    records = disk.read(q.records)
    folder = os.path.join(scene.folder, "replay")
    os.makedirs(folder, exist_ok=True)
    d, truth, states, kept = disk.Disk(), Truth(), 0, []
    chance = 1 if not states_at_most else min(1, states_at_most / (5 * len(records)))
    for n, r in enumerate(records):
        truth.feed(r)
        # What is about to go over the wire must be preceded by what is durable already.
        d.feed(r)
        must = r.kind in "NX"
        for how in ("synced", "all", "some", "some", "some"):
            if not must and random.random() > chance:
                continue
            files = d.left(how, random)
            check(files, q.queue, folder, truth, "record %d (%s %s), %s" % (n, r.kind, os.path.basename(r.path), how))
            states += 1
            if how != "all" and truth.accepted:
                keep(kept, (files, set(truth.terminated), set(truth.settled), n))
    equal(len(truth.terminated), len(truth.accepted), "terminators seen on the wire")
    return len(records), states, kept


def keep(kept, state, at_most=60):
    """Any of all states with the same chance."""
    keep.seen = 0 if not kept else keep.seen
    keep.seen += 1
    if len(kept) < at_most:
        kept.append(state)
    elif random.random() < at_most / keep.seen:
        kept[random.randrange(at_most)] = state


def start_on(q, kept, n):
    """sendq on a sample of what was left: nothing is offered again whose terminator was out, and the rest goes once."""
    for files, terminated, settled, at in random.sample(kept, min(n, len(kept))):
        before = len(q.server.arrived)
        disk.put_back(q.state, files)
        mids = look(q.queue)
        code = q.flush()
        arrived = [re.search(rb"(?i)\nMessage-ID: (<[^>]*>)", m[2]).group(1).decode() for m in q.server.arrived[before:]]
        equal(sorted(arrived), sorted(set(mids) - terminated - {m for m, (s, _) in mids.items() if set(s) <= {COMMITTING, DOUBT, SENT}}),
              "record %d: sent after the power came back" % at)
        states = {m: set(s) for m, (s, _) in look(q.queue).items()}
        for mid in mids:
            want = {SENT} if mid in settled or mid in arrived else None
            true(states[mid] == want if want else states[mid] in ({DOUBT}, {SENT}), "record %d: %s is %s" % (at, mid, states[mid]))
        equal(code, 75 if {DOUBT} in states.values() else 0, "record %d: flush" % at)


def power(ehlo=None, bodies=("hello\n",), at_most=None, starts=6):
    def run(scene):
        q = scene.queue(ehlo)
        for n, body in enumerate(bodies):
            submit(q, n, body)
        equal(q.flush_recorded(), 0, "flush")
        equal(len(q.server.messages), len(bodies))
        moments, states, kept = replay(scene, q, at_most)
        note("%d moments, %d states of the disk" % (moments, states))
        start_on(q, kept, starts * (10 if LONG else 1))
        q.server.stop()
    return run


WITHOUT_CHUNKING = ("PIPELINING", "SIZE 100000000", "8BITMIME", "ENHANCEDSTATUSCODES")
test("power fails anywhere in a first submission and its delivery by BDAT")(power())
test("power fails anywhere in two submissions and their delivery by DATA in one session")(
    power(WITHOUT_CHUNKING, ("hello\n", "again\n"), None if LONG else 700))
test("power fails in a large submission that checkpoints its own log, and in its delivery")(
    power(None, ("hello\n", LARGE), None if LONG else 300, 3))


@test("power fails anywhere while a lost reply is noted: in doubt before and after")
def lost(scene):
    q = scene.queue(FINAL="<close>")
    submit(q, 0)
    equal(q.flush_recorded(), 75)
    moments, states, kept = replay(scene, q)
    note("%d moments, %d states of the disk" % (moments, states))
    q.server.script.clear()
    start_on(q, kept, 6)
    q.server.stop()


# ---- disks that fail


def failed(q):
    """Did anything fail since the last look? The records are not needed any more."""
    if not os.path.exists(q.records):
        return False
    there = any(r.kind == "F" for r in disk.read(q.records))
    os.truncate(q.records, 0)
    return there


def one_line(result):
    text = result.err.strip()
    true(text and "\n" not in text, "stderr is one line: %r" % result)


def failing_submissions(what, error, body, step=1, fresh=False):
    """Each write (or sync) of a submission fails in turn."""
    def run(scene):
        q = scene.queue()
        if not fresh:
            submit(q, 0)
        at, codes, there = 1, {}, 0 if fresh else 1
        while True:
            if fresh:
                q = scene.queue()
                there = 0
            n = 1000 + at
            failed(q)
            result = q.sendmail(message(["a%d@b.test" % n, "c%d@b.test" % n], "fails", body, Message_ID=identity(n)), **q.recorded,
                                SENDQ_RECORD_FAIL="%s:%d=%d" % (what, at, error))
            codes[result.code] = codes.get(result.code, 0) + 1
            found = look(q.queue) if os.path.exists(q.queue) and os.path.getsize(q.queue) else {}
            if result.code == 0:
                equal(found.get(identity(n)), ([QUEUED, QUEUED], 0), "%s %d: what sendmail exited 0 for" % (what, at))
                there += 1
            else:
                one_line(result)
                true(result.code in (sendq.EX_IOERR, sendq.EX_TEMPFAIL), "%s %d: %r" % (what, at, result))
                unsure = result.code == sendq.EX_IOERR and "may be queued" in result.err
                true(unsure or identity(n) not in found, "%s %d: exit %d, and it is queued" % (what, at, result.code))
                there += identity(n) in found
            if not failed(q):
                equal(result.code, 0, "nothing failed, and sendmail")
                break
            at += step
        submit(q, 1)
        equal(q.flush(), 0, "flush")
        equal(len(q.server.messages), there + 1, "messages that the server has")
        note("%d failures; exit statuses %s" % (at - 1, codes))
        q.server.stop()
    return run


def failing_deliveries(what, error, count):
    """A write (or sync) of the runner fails in the middle of a delivery: nothing twice, nothing lost, and it goes on by itself."""
    def run(scene):
        q = scene.queue()
        submit(q, 0)
        failed(q)
        equal(q.flush_recorded(), 0)
        n = len([r for r in disk.read(q.records) if r.kind in ("WT" if what == "write" else "S")])
        codes, doubts = {}, 0
        places = range(1, n + 1) if LONG else sorted(random.sample(range(1, n + 1), min(n, count)))
        for at in places:
            before = len(q.server.arrived)
            submit(q, at)
            result = q.status("flush", **q.recorded, SENDQ_RECORD_FAIL="%s:%d=%d" % (what, at, error))
            codes[result.code] = codes.get(result.code, 0) + 1
            true(result.code == 0 or result.err.strip(), "%s %d: %r" % (what, at, result))
            code = q.flush()
            states = set(look(q.queue)[identity(at)][0])
            copies = len(q.server.arrived) - before
            # Doubt without a copy: the intent was written, its sync failed, and no GO was given.
            true((states, copies) in (({SENT}, 1), ({DOUBT}, 1), ({DOUBT}, 0)), "%s %d: it is %s, copies %d" % (what, at, states, copies))
            if states == {DOUBT}:
                equal(code, 75)
                doubts += 1
                number = [m["id"] for m in q.list(all=True) if m["message_id"] == identity(at)][0]
                equal(q.status("settle", number, "sent").code, 0)
        note("%d places of %d; exit statuses %s; %d in doubt" % (len(places), n, codes, doubts))
        q.server.stop()
    return run


EIO, ENOSPC = errno.EIO, errno.ENOSPC
test("every write of a submission fails: EIO")(failing_submissions("write", EIO, "hello\n"))
test("every write of a submission fails: ENOSPC")(failing_submissions("write", ENOSPC, "hello\n"))
test("every sync of a submission fails")(failing_submissions("sync", EIO, "hello\n"))
test("every sync of the first submission, which makes the queue, fails")(failing_submissions("sync", EIO, "hello\n", fresh=True))
test("writes of a large submission fail")(failing_submissions("write", ENOSPC, LARGE, step=1 if LONG else 97))
test("writes fail in a delivery: EIO")(failing_deliveries("write", EIO, 6))
test("writes fail in a delivery: ENOSPC")(failing_deliveries("write", ENOSPC, 6))
test("syncs fail in a delivery")(failing_deliveries("sync", EIO, 6))


class SmallDisk:
    """A file system of its own for the queue."""

    def __init__(self, q, size):
        self.folder = q.state
        os.makedirs(q.state, mode=0o700)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%s,mode=0700" % size, "tmpfs", self.folder], stderr=subprocess.PIPE)
        if done.returncode != 0:
            raise Skip("no file system can be mounted here: %s" % done.stderr.decode().strip())

    def resize(self, size):
        subprocess.run(["mount", "-o", "remount,size=%s" % size, self.folder], check=True)

    def stop(self):
        subprocess.run(["umount", "-l", self.folder], check=True)


@test("a disk that is full: sendmail says so and queues nothing; what was taken goes, once, when there is room")
def full(scene):
    q = scene.queue()
    small = SmallDisk(q, "700k")
    try:
        result = q.sendmail(message("early@b.test"))
        equal(result.code, sendq.EX_TEMPFAIL, "sendmail with less room than free_disk_min: %r" % result)
        one_line(result)
        q.configure(q.routes, free_disk_min=0)
        taken = 0
        for n in range(200):
            result = q.sendmail(message("a%d@b.test" % n, "full", "x" * 3000 + "\n", Message_ID=identity(n)))
            if result.code != 0:
                break
            taken += 1
        equal(result.code, sendq.EX_TEMPFAIL, "sendmail on a full disk, after %d messages: %r" % (taken, result))
        one_line(result)
        true(taken > 2, "%d messages were taken" % taken)
        true(identity(taken) not in look_loose(q), "what was refused is queued")
        # Nothing may go out whose intent cannot be written down.
        result = q.status("flush")
        note("a flush without room: %r" % result)
        equal(len(q.server.arrived), sum(s in (COMMITTING, DOUBT, SENT) for s in look_loose(q).values()), "sent without room for the intent")
        small.resize("30m")
        for _ in range(3):
            code = q.flush()
        states = look_loose(q)
        equal(len(states), taken, "messages")
        true(set(states.values()) <= {SENT, DOUBT}, states)
        equal(sorted(len(m[1]) for m in q.server.arrived), [1] * taken, "copies")
        equal(code, 75 if DOUBT in states.values() else 0)
        note("%d messages on it; %d in doubt at the end" % (taken, list(states.values()).count(DOUBT)))
    finally:
        small.stop()
        q.server.stop()


def look_loose(q):
    return dict(q.sql("SELECT m.message_id, p.state FROM recipient p JOIN message m ON m.id = p.id >> 16"))


# ---- yesterday's backup


def restore(how):
    def run(scene):
        q = scene.queue()
        q.submit(message("first@b.test"))
        equal(q.flush(), 0)
        numbers = [q.submit(message("n%d@b.test" % n, "yesterday %d" % n)) for n in range(2)]
        backup = os.path.join(q.folder, "backup")
        os.makedirs(backup)
        for name in ("queue.db", "queue.db-wal"):
            if os.path.exists(os.path.join(q.state, name)):
                shutil.copy(os.path.join(q.state, name), backup)
        equal(q.flush(), 0, "both are sent today")
        equal(len(q.server.messages), 3)
        for turn in range(2):  # the same backup put back once more
            if how == "another file":
                for name in os.listdir(q.state):
                    if not name.endswith(".epoch"):
                        os.unlink(os.path.join(q.state, name))
            for suffix in ("-wal", "-shm"):
                if os.path.exists(q.queue + suffix):
                    os.unlink(q.queue + suffix)
            for name in os.listdir(backup):
                with open(os.path.join(backup, name), "rb") as f, open(os.path.join(q.state, name), "w+b") as to:
                    to.write(f.read())
                os.chmod(os.path.join(q.state, name), 0o600)
            q.flush()
            equal(set(q.states(n).popitem()[1] for n in numbers), {"held"}, "states after the backup was put back")
            equal(len(q.server.messages), 3, "sent from a backup, unasked")
            why = q.status("why", numbers[0])
            equal(why.code, 0, repr(why))
            true("backup" in why.out, why.out)
            true("sendq release" in why.out or "sendq resend" in why.out, why.out)
        equal(q.status("release", numbers[0]).code, 0)
        q.flush()
        equal(len(q.server.messages), 4, "released by hand it goes")
        equal(q.states(numbers[1]).popitem()[1], "held", "the other one")
        equal(q.status("remove", numbers[1]).code, 0)
        fresh = q.submit(message("today@b.test"))
        equal(q.flush(), 0)
        equal(q.states(fresh), {"today@b.test": "sent"}, "new mail")
        note(why.out)
        q.server.stop()
    return run


test("a queue out of yesterday's backup is held and explained: another file in its place")(restore("another file"))
test("a queue out of yesterday's backup is held and explained: written over the one that was there")(restore("the same file"))


if __name__ == "__main__":
    main(Scene, Scene.stop)
