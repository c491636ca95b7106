#!/usr/bin/python3
"""SIGKILL in sendq-submitd, at every fault point that taking a message in has: what got 250 is on disk, nothing half is there.

A session is a process of its own, so the point kills that; the listener lives and takes the next one. Then the listener
itself is killed, with sessions under way.
"""
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
from harness import links, process  # noqa: E402
from harness.sendq import EX_IOERR, EX_TEMPFAIL, message  # noqa: E402
from harness.system import ANN, BOB, EVE, Scene, teardown  # noqa: E402
from harness.tap import add, equal, holds, main, note, test, true, until  # noqa: E402

LARGE = "x" * 75 + "\n" + ("y" * 75 + "\n") * 9000


def points():
    with open(os.path.join(ROOT, "include", "sendq", "fault.h")) as f:
        names = re.findall(r"^\s*X\((submit_\w+)\)", f.read(), re.M)
    true(len(names) >= 4, "fault points found: %r" % names)
    return names


def database(s, query):
    if not os.path.exists(s.root + "/var/lib/sendq/queue.db"):
        return [(0,)]
    db = sqlite3.connect("file:%s/var/lib/sendq/queue.db?mode=ro" % s.root, uri=True, timeout=20)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def whole(s, subjects, sink):
    """Run as the next start would: these are there and go out once and whole, nothing of others is left."""
    s.stop()
    s.start()
    s.submit(EVE, message(subject="after"))
    s.deliver()
    until(lambda: s.ids("root") == [], 60, "the queue is empty", pause=0.1)
    equal(database(s, "SELECT count(*) FROM content WHERE id >> 20 NOT IN (SELECT id FROM message)"), [(0,)], "octets of nobody's message")
    arrived = sorted(re.search(rb"^Subject: (.*)\r$", m, re.M).group(1).decode() for m in sink.messages())
    equal(arrived, sorted(subjects + ["after"]))
    for m in sink.messages():
        if b"Subject: large" in m:
            equal(m.split(b"\r\n\r\n", 1)[1], LARGE.replace("\n", "\r\n").encode(), "a message's octets")
    s.stop()


def at_point(point):
    def run(scene):
        sink = links.Sink(process.temp_folder("crash-sink"))
        s = scene.system(sink.port)
        # The second one of a session: a chunk is passed often in one message.
        nth = 2 if point == "submit_chunk" else 1
        s.start(SENDQ_FAULT="%s:%d=kill" % (point, nth))
        result = s.run(ANN, "sendmail", "-t", stdin=message(subject="large 1", body=LARGE))
        if point in ("submit_before_commit", "submit_after_commit"):
            equal(result.code, EX_IOERR, "the client cannot know: %r" % result)
            holds(result.err, "queued")
        else:
            equal(result.code, EX_TEMPFAIL, repr(result))
            holds(result.err, "nothing is queued")
        equal(len(result.err.strip().splitlines()), 1, result.err)
        there = database(s, "SELECT count(*) FROM message")[0][0]
        equal(there, 1 if point == "submit_after_commit" else 0, "messages")
        true(s.submitd.alive(), "the listener died")
        whole(s, ["large 1"] * there, sink)
        sink.stop()
    return run


def second_of_session(point):
    """The first message of a session got its 250 and is on disk, whatever becomes of the second."""
    def run(scene):
        sink = links.Sink(process.temp_folder("crash-sink"))
        s = scene.system(sink.port)
        s.start(SENDQ_FAULT=point + ":2=kill")
        lines = b"EHLO x\r\n" + b"".join(
            b"MAIL FROM:<a@example.test>\r\nRCPT TO:<u001@example.test>\r\nDATA\r\nSubject: %d\r\n\r\n%sx\r\n.\r\n" % (n, b"y" * 70 + b"\r\n" * 60000) for n in (1, 2))
        result = s.run(BOB, "sendmail", "-bs", stdin=lines + b"QUIT\r\n")
        said = re.findall(r"^250 2\.\d\.\d queued as (\w+)", result.out, re.M)
        there = [str(n) for n in range(1, database(s, "SELECT count(*) FROM message")[0][0] + 1)]
        if point != "submit_chunk":
            equal(len(said), 1, "messages that got 250: %r" % result.out[-500:])
        true(len(said) <= len(there) <= len(said) + (point == "submit_after_commit"), "250s %d, messages %d" % (len(said), len(there)))
        note("%d got 250, %d are there" % (len(said), len(there)))
        whole(s, there, sink)
        sink.stop()
    return run


for point_ in points():
    add("a session killed at " + point_, at_point(point_))
    add("a session killed at its second " + point_, second_of_session(point_))


@test("the listener killed with ten sessions under way: each ends, none is queued by half, what got 250 is there")
def listener(scene):
    sink = links.Sink(process.temp_folder("crash-sink"))
    s = scene.system(sink.port)
    s.start()
    sessions, taken = [], []
    for n in range(10):
        c = socket.socket(socket.AF_UNIX)
        c.settimeout(30)
        c.connect(s.root + "/run/sendq/submit.sock")
        f = c.makefile("rwb")
        equal(f.readline()[:3], b"220")
        f.write(b"HELO x\r\nMAIL FROM:<a@example.test>\r\nRCPT TO:<u001@example.test>\r\nDATA\r\n")
        f.flush()
        equal([f.readline()[:3] for _ in range(4)], [b"250", b"250", b"250", b"354"])
        f.write(b"Subject: %d\r\n\r\n" % n + b"y" * 70 + b"\r\n" * 40000)
        f.flush()
        if n % 2:
            f.write(b".\r\n")
            f.flush()
            equal(f.readline()[:3], b"250")
            taken.append(str(n))
        sessions.append((c, f))
    s.submitd.p.send_signal(signal.SIGKILL)
    s.submitd.p.wait()
    for c, f in sessions:
        try:
            equal(f.read()[:1] in (b"", b"4"), True)
        except ConnectionResetError:
            pass
        f.close()
        c.close()
    equal(database(s, "SELECT count(*) FROM message"), [(len(taken),)])
    done = subprocess.Popen(s.as_user(ANN, "sendmail", "-t"), stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=s.env())
    done.stdin.write(message(subject="while nobody listened"))
    done.stdin.close()
    s.submitd = None
    os.unlink(s.root + "/run/sendq/submit.sock")
    s.start()
    equal(done.wait(30), 0, done.stderr.read())
    done.stderr.close()
    whole(s, taken + ["while nobody listened"], sink)
    sink.stop()


if __name__ == "__main__":
    main(Scene, teardown)
