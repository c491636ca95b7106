#!/usr/bin/python3
"""What the daemon must not lose sight of: mail that comes while it looks elsewhere, and requests about mail that is in a window."""
import os
import signal
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fake"))
from harness import process, sendq  # noqa: E402
from harness.sendq import message  # noqa: E402
from harness.tap import equal, main, test, true, until  # noqa: E402
from scripted import Scripted  # noqa: E402

MANY = 80


class Scene:
    def __init__(self):
        self.folder = process.temp_folder("pick")

    def stop(self):
        pass


def place(scene, server, name):
    return sendq.Sendq(scene.folder, [sendq.route("smtp://127.0.0.1:%d" % server.port, tls="none", **{"from": "*"})], name=name)


@test("mail whose submission began before another's and ended after it goes at once")
def late(scene):
    server = Scripted()
    q = place(scene, server, "late")
    q.daemon()
    q.wait(q.submit(message("first@example.test")), "sent")
    slow = subprocess.Popen([os.path.join(q.bin, "sendmail"), "-t"], stdin=subprocess.PIPE, env=q.env(), preexec_fn=process.die_with_parent)
    slow.stdin.write(message("slow@example.test", body="x" * 70 + "\n") + b"y" * 70 + b"\n")
    for _ in range(40000):
        slow.stdin.write(b"z" * 70 + b"\n")
    slow.stdin.flush()
    until(lambda: q.sql("SELECT count(*) FROM ingest")[0][0] == 1, 20, "its content is being written")
    q.wait(q.submit(message("quick@example.test")), "sent")
    slow.stdin.close()
    equal(slow.wait(30), 0)
    until(lambda: q.states().get("slow@example.test") == "sent", 15, "the slow one is sent")
    q.stop_daemon()
    server.stop()


@test("more mail at once than is taken note of at a time is all sent")
def burst(scene):
    server = Scripted()
    q = place(scene, server, "burst")
    q.daemon()
    q.wait(q.submit(message("first@example.test")), "sent")
    os.kill(q.pid(), signal.SIGSTOP)
    try:
        for n in range(MANY):
            q.submit(message("b%d@example.test" % n, "burst %d" % n))
    finally:
        os.kill(q.pid(), signal.SIGCONT)
    until(lambda: len(server.messages) == MANY + 1, 20, "all are sent")
    q.stop_daemon()
    server.stop()


@test("a request about mail whose window is in commit is answered, and the daemon lives")
def window(scene):
    server = Scripted()
    q = place(scene, server, "window")
    for n in range(2):
        q.submit(message("p%d@example.test" % n))
    equal(q.flush(), 0)
    asked, answer = threading.Event(), threading.Event()

    def slow(session, line):
        asked.set()
        answer.wait(30)

    server.script["FINAL"] = slow
    numbers = [q.submit(message("w%d@example.test" % n)) for n in range(2)]
    daemon = q.daemon()
    true(asked.wait(20), "the server has all of the first")
    equal([line for line in server.commands if line == "RSET"], [], "before the second")
    try:
        said = [q.status("hold", numbers[0]), q.status("resend", numbers[1])]
    finally:
        answer.set()
    true(daemon.alive(), "sendqd ended: " + q.log()[-2000:])
    for s in said:
        true("committed" in s.out + s.err, s)
    for number in numbers:
        q.wait(number, "sent")
    equal(sum(line == "RSET" for line in server.commands), 1, "they went in one window")
    equal(len(server.messages), 4)
    q.stop_daemon()
    server.stop()


if __name__ == "__main__":
    main(Scene, Scene.stop)
