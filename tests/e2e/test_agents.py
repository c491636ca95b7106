#!/usr/bin/python3
"""Agents that lie, and a runner that does: whoever is lied to ends the other, and the mail is safe.

A lying agent (tests/fake/liar.c) stands in the place of sendq-smtp. It can
claim what it likes: nothing is sent that had no terminator, nothing that had
one is sent again by itself, and the runner goes on.
"""
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading

from harness import links, process, sendq
from harness.filing import Clock
from harness.sendq import message
from harness.tap import add, equal, holds, main, test, true, until

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "fake"))
import scripted  # noqa: E402

# What it does: the state of the mail behind it, a word of the log ("" where the agent just ends).
LIES = {
    "garbage": ("queued", "is ended"),
    "oversize": ("queued", "is ended"),
    "unknown-type": ("queued", "is ended"),
    "half-a-frame": ("queued", ""),
    "version": ("queued", "another version"),
    "dies-at-once": ("queued", ""),
    "go": ("queued", "not its to send"),
    "bye": ("queued", "not its to send"),
    "accepted-before-ready": ("queued", "is ended"),
    "ready-again": ("queued", "out of turn"),
    "accepted-at-once": ("queued", "without a terminator"),
    "doubt-at-once": ("queued", "without a terminator"),
    "terminator-at-once": ("queued", "fits no open transaction"),
    "idle-with-work": ("queued", "idle with a transaction open"),
    "reads-behind-the-end": ("queued", "more than there is"),
    "too-many-reads": ("queued", "more than there is"),
    "another-transaction": ("queued", "does not fit"),
    "evidence": ("queued", "is ended"),
    "dies-with-work": ("queued", ""),
    "accepted-without-terminator": ("queued", "without a terminator"),
    "other-octets": ("queued", "all of the content"),
    "envelope-again": ("queued", "does not fit"),
    "garbage-behind-envelope": ("queued", "is ended"),
    "dies-behind-terminator": ("doubt", ""),
    "garbage-behind-terminator": ("doubt", "is ended"),
    "verdict-on-a-stranger": ("doubt", "does not fit"),
    "verdict-on-nobody": ("doubt", "does not fit"),
    "terminator-again": ("doubt", "fits no open transaction"),
    "reads-behind-terminator": ("doubt", "of no open transaction"),
    "accepted-twice": ("sent", "does not fit"),
    "behaves": ("sent", None),
}


class Scene:
    def __init__(self):
        self.folder = process.temp_folder("agents")
        self.liar = os.path.join(os.environ["SENDQ_BUILD"], "tests", "fake", "liar")
        self._n = 0

    def sendq(self, lie, **settings):
        self._n += 1
        q = sendq.Sendq(self.folder, [sendq.route("smtp://127.0.0.1:1", tls="none")], name="sendq%d" % self._n, **settings)
        os.symlink(self.liar, os.path.join(q.folder, lie))
        q.extra_env["SENDQ_AGENT"] = os.path.join(q.folder, lie)
        return q


def lie(name):
    state, word = LIES[name]

    def run(scene):
        q = scene.sendq(name)
        q.daemon()
        number = q.submit(message(["bob@example.test", "carol@example.test"], name))
        until(lambda: q.attempts(number) and q.attempts(number)[0]["ended_ms"], 30, "the attempt ends")
        q.wait(number, state)
        if word is not None:
            holds(q.log(), word, "the log")
        equal(q.attempts(number)[0]["outcome"], {"queued": "local", "doubt": "doubt", "sent": "accepted"}[state])
        equal(len(q.sent()), 2 if state == "sent" else 0, "rows of the ledger")
        # The runner is none the worse: with an honest agent the next message goes, one in doubt does not.
        q.stop_daemon()
        os.mkdir(os.path.join(q.folder, "good"))
        os.symlink(scene.liar, os.path.join(q.folder, "good", "behaves"))
        q.extra_env["SENDQ_AGENT"] = os.path.join(q.folder, "good", "behaves")
        equal(q.flush(), 75 if state == "doubt" else 0)
        equal(set(q.states(number).values()), {"doubt" if state == "doubt" else "sent"})
        equal(len(q.attempts(number)), 2 if state == "queued" else 1, "attempts")
    return run


for name_ in LIES:
    add("an agent: " + name_, lie(name_))


@test("every lie of the agent is in the table")
def all_lies(scene):
    said = subprocess.run([scene.liar], stdout=subprocess.PIPE).stdout.decode().split()
    equal(sorted(said), sorted(list(LIES) + ["silent"]))


@test("an agent that says nothing is ended when its time is over")
def silent(scene):
    q = scene.sendq("silent", connect_timeout="5s")
    clock = Clock(os.path.join(q.folder, "clock"))
    clock.forward(0)
    q.extra_env["SENDQ_TEST_CLOCK"] = clock.path
    q.daemon()
    number = q.submit(message("bob@example.test", "silent"))
    q.wait(number, "sending")
    clock.forward(60 * 1000)
    q.poke()
    q.wait(number, "queued")
    holds(q.log(), "took too long")
    q.stop_daemon()


# The real agent behind a wire that keeps CANCEL (17) back until TXN (4) comes, and gives it both at once.
LATE = """#!/usr/bin/python3
import os, select, socket, struct, subprocess
runner, (ours, theirs) = socket.socket(fileno=3), socket.socketpair()
agent = subprocess.Popen([%r], pass_fds=(3, 4), preexec_fn=lambda: os.dup2(theirs.fileno(), 3))
theirs.close()
buffered = held = b""
while True:
    ready = select.select([runner, ours], [], [])[0]
    if ours in ready:
        octets = ours.recv(65536)
        if not octets:
            break
        runner.sendall(octets)
    if runner in ready:
        octets = runner.recv(65536)
        if not octets:
            break
        buffered += octets
        while len(buffered) >= 8 and len(buffered) >= 8 + struct.unpack("<I", buffered[:4])[0]:
            n, kind = struct.unpack("<IH", buffered[:6])
            frame, buffered = buffered[:8 + n], buffered[8 + n:]
            if kind == 17:
                held = frame
                open(%r, "w").close()
                continue
            ours.sendall(held + frame if kind == 4 else frame)
"""


@test("a message that is taken back while its agent connects: no word of an agent that died, and the route waits for nothing")
def taken_back(scene):
    greeting = threading.Event()
    server = scripted.Scripted({"CONNECT": lambda session, line: greeting.wait(30) and "220 late ESMTP"})
    q = sendq.Sendq(scene.folder, [sendq.route("smtp://127.0.0.1:%d" % server.port, tls="none")], name="late")
    held, agent = os.path.join(q.folder, "held"), os.path.join(q.folder, "sendq-smtp")
    with open(agent, "w") as f:
        f.write(LATE % (links.program("sendq-smtp"), held))
    os.chmod(agent, 0o700)
    q.extra_env["SENDQ_AGENT"] = agent
    q.daemon()
    number = q.submit(message("bob@example.test", "taken back"))
    q.wait(number, "sending")
    hold = threading.Thread(target=q.status, args=("hold", number))
    hold.start()
    until(lambda: os.path.exists(held), 20, "CANCEL is on its way")
    greeting.set()
    hold.join(20)
    until(lambda: q.attempts(number)[0]["ended_ms"], 20, "the attempt ends")
    equal([a["outcome"] for a in q.attempts(number)], ["cancelled"])
    equal([(r["cause"], r["next_try_ms"]) for r in q.json("links")], [(None, 0)])
    q.stop_daemon()


# ---- the other side: a runner that lies to the real agent

def frame(kind, payload=b"", txn=0):
    return struct.pack("<IHH", len(payload), kind, txn) + payload


with open(os.path.join(HERE, "../../include/sendq/agent.h")) as header:
    HELLO = frame(1, struct.pack("<I", int(re.search(r"SQ_AGENT_VERSION = ([0-9]+)", header.read()).group(1))))
RUNNERS = {
    "says nothing and goes": b"",
    "garbage": b"\x00\xff" * 4000,
    "a frame of 2 GB": b"\xff\xff\xff\x7f\x01\x00\x00\x00",
    "half a frame": HELLO + b"\x40\x00\x00\x00\x02",
    "another version": frame(1, struct.pack("<I", 99)),
    "type 99": HELLO + frame(99),
    "a job cut short": HELLO + frame(2, b"\x00" * 10),
    "a job of strings that are longer than the frame": HELLO + frame(2, b"\x00" + b"\xff\xff\xff\x7f" * 20),
    "GO before anything": HELLO + frame(10, struct.pack("<I", 1)),
    "CONTENT before anything": HELLO + frame(7, b"\x00" * 12, 1),
    "a secret of 300 KB": HELLO + frame(3, struct.pack("<I", 300000) + b"x" * 300000),
}


def runner(data):
    def run(scene):
        ours, theirs = socket.socketpair()
        lock = os.open("/dev/null", os.O_RDONLY)

        def arrange():
            os.dup2(theirs.fileno(), 3)
            os.dup2(lock, 4)

        agent = subprocess.Popen([links.program("sendq-smtp")], preexec_fn=arrange, close_fds=False, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE)
        theirs.close()
        os.close(lock)
        try:
            ours.sendall(data)
        except OSError:
            pass  # it has ended already
        ours.shutdown(socket.SHUT_WR)
        err = agent.communicate(timeout=30)[1].decode("utf-8", "replace")
        ours.close()
        true(agent.returncode not in (-signal.SIGSEGV, -signal.SIGABRT), "exit %d: %s" % (agent.returncode, err[-2000:]))
        for word in ("AddressSanitizer", "runtime error"):
            true(word not in err, err[-4000:])
    return run


for name_, data_ in RUNNERS.items():
    add("a runner: " + name_, runner(data_))


if __name__ == "__main__":
    main(Scene)
