#!/usr/bin/python3
"""Many messages through bad weather: random cuts, lost replies, refusals and kills, and then every message is asked for.

A fast sink behind a bad link takes the mail of two routes: one that never
doubles (what is in doubt is settled by the receiver's own log, as its owner
would), one with duplicates = "allow". Submitters, runners and delivery agents
are killed at random and at their fault points. At the end, message by
message: none is lost, none is doubled where that was not asked for, every
second copy of the other route stands in the ledger, and the ledger's hash is
that of the octets which the receiver has.

A hundred messages in contrib/check (SENDQ_SEED=n repeats a run), ten thousand
with SENDQ_LONG=1, or as many as LONG_SECONDS allow.
"""
import concurrent.futures
import os
import random
import re
import signal
import socket
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
from harness import links, process, sendq  # noqa: E402
from harness.filing import Clock  # noqa: E402
from harness.sendq import message  # noqa: E402
from harness.tap import equal, main, note, test, true, until  # noqa: E402

HOUR = 3600 * 1000
LONG_SECONDS = 2400
SEED = int(os.environ.get("SENDQ_SEED", "0")) or int.from_bytes(os.urandom(4), "big")
DOUBT, SENT = 3, 5  # include/sendq/outcome.h
# Passed without evidence and without reports, by whoever runs the loop and by the agent.
RUNNER_POINTS = ("runner_recovered", "runner_claimed", "runner_before_envelope", "runner_after_envelope", "runner_before_intent",
                 "runner_after_intent", "runner_after_go", "runner_before_verdict", "runner_after_verdict")
AGENT_POINTS = ("agent_start", "agent_connected", "agent_after_envelope", "agent_content", "agent_before_terminator",
                "agent_after_terminator", "agent_after_reply", "agent_after_verdict")


class Scene:
    def __init__(self):
        self.folder = process.temp_folder("soak")
        self.sink = links.Sink(self.folder)
        self.link = links.BadLink(self.folder, self.sink.port)
        server = "smtp://127.0.0.1:%d" % self.link.port
        self.q = sendq.Sendq(self.folder, [
            sendq.route(server, name="once", tls="none", **{"from": ["ann@*"]}),
            sendq.route(server, name="often", tls="none", duplicates="allow", **{"from": ["bob@*"]})], duplicate_window="0s")
        path = os.path.join(self.folder, "clock")
        self.q.extra_env["SENDQ_TEST_CLOCK"] = path
        self.clock = Clock(path)
        self.random = random.Random(SEED)
        self.taken = {}      # number: whether sendmail exited 0
        self.counts = {}
        self.seen = 0

    def stop(self):
        self.link.stop()
        self.sink.stop()

    def count(self, what, n=1):
        self.counts[what] = self.counts.get(what, 0) + n

    # ---- mail

    def submit(self, n, killed):
        sender = "Bob <bob@example.test>" if often(n) else "Ann <ann@example.test>"
        body = "hello %d\n" % n + "x" * 60 * (n % 50) + "\n"
        env = {"SENDQ_FAULT": killed + "=kill"} if killed else {}
        result = self.q.sendmail(message(address(n), "soak", body, sender=sender, Message_ID="<%d@soak.test>" % n), **env)
        true(result.code == 0 or killed and result.code == -signal.SIGKILL, repr(result))
        return n, result.code == 0

    def submit_some(self, numbers):
        plans = [(n, self.random.choice(("submit_before_commit", "submit_after_commit")) if self.random.random() < 0.05 else None)
                 for n in numbers]
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for n, ok in pool.map(lambda plan: self.submit(*plan), plans):
                self.taken[n] = ok
                self.count("submitters killed", not ok)

    # ---- weather

    def weather(self):
        r = self.random
        rules = []
        for _ in range(r.randint(2, 6)):
            rules.append(r.choice((
                "* cut=up:%d with=%s times=1" % (r.randint(0, 3000), r.choice(("rst", "fin"))),
                "* cut=down:%d with=%s times=1" % (r.randint(0, 1500), r.choice(("rst", "fin"))),
                "* unit=%s:%d off=%d with=%s times=1" % (r.choice(("up", "down")), r.randint(1, 40), r.randint(-1, 1), r.choice(("rst", "fin"))),
                "* final=cut nth=%d times=1" % r.randint(1, 3),
                "* final=cut nth=%d pass=%d with=fin times=1" % (r.randint(1, 3), r.randint(0, 5)),
                "* final=cut side=client nth=%d times=1" % r.randint(1, 3),
                "* refuse times=1")))
        self.link.set("\n".join(rules))

    def spell(self):
        """Somebody works on the queue for a while, until it is done, or dies."""
        how = self.random.choice(("flush", "flush dies", "agent dies", "daemon is killed"))
        at = self.random.randint(1, 4)
        if how == "flush":
            code = self.q.status("flush").code
            true(code in (0, 75), "flush: %d" % code)
        elif how == "flush dies":
            code = self.q.status("flush", SENDQ_FAULT="%s:%d=kill" % (self.random.choice(RUNNER_POINTS), at), SENDQ_FAULT_PROGRAM="sendq").code
            true(code in (0, 75, -signal.SIGKILL), "flush: %d" % code)
            self.count("runners killed", code == -signal.SIGKILL)
        elif how == "agent dies":
            code = self.q.status("flush", SENDQ_FAULT="%s:%d=kill" % (self.random.choice(AGENT_POINTS), at), SENDQ_FAULT_PROGRAM="sendq-smtp").code
            true(code in (0, 75), "flush: %d" % code)
        else:
            daemon = self.q.daemon()
            want = len(self.sink.records()) + self.random.randint(0, 5)
            # Whatever it has come to by then: the moment is not the point.
            end = time.monotonic() + 1
            while len(self.sink.records()) < want and time.monotonic() < end:
                time.sleep(0.005)
            daemon.p.kill()
            self.q.stop_daemon()
            self.count("runners killed")

    # ---- truth

    def quiet(self):
        """No connection is open, and the sink has read what came."""
        self.q.flush()  # waits for agents that outlived their runner
        until(self.no_connections, 30, "the link is idle")
        with socket.create_connection(("127.0.0.1", self.sink.port), 10) as s:
            f = s.makefile("rb")
            f.readline()
            for command in (b"NOOP\r\n", b"NOOP\r\n"):
                s.sendall(command)
                f.readline()

    def no_connections(self):
        with open("/proc/net/tcp") as f:
            lines = [line.split() for line in f.readlines()[1:]]
        established = "01"
        return not any(int(w[1].split(":")[1], 16) == self.link.port and w[3] == established for w in lines)

    def received(self):
        """{number: [sha256 of each copy]}"""
        out = {}
        for record in self.sink.records():
            for to in record["to"]:
                out.setdefault(number(to), []).append(record["sha256"])
        return out

    def settle(self):
        """What the owner of the receiving server would do: look in its log."""
        received = self.received()
        rows = self.q.sql("SELECT p.address FROM recipient p WHERE p.state = %d" % DOUBT)
        ids = {m["recipients"][0]["address"]: m["id"] for m in self.q.list()} if rows else {}
        for (to,) in rows:
            there = number(to) in received
            result = self.q.status("settle", ids[to], "sent" if there else "unsent")
            equal(result.code, 0, repr(result))
            self.count("settled as " + ("sent" if there else "unsent"))


def often(n):
    return n % 5 == 0


def address(n):
    return "m%05d@soak.test" % n


def number(to):
    return int(re.match(r"m(\d+)@", to).group(1))


def check(scene):
    received, q = scene.received(), scene.q
    ledger, copies = {}, 0
    for to, epoch, sha in q.sql("SELECT recipient, epoch, lower(hex(sha256)) FROM ledger"):
        ledger.setdefault(number(to), []).append((epoch, sha))
    for n, sure in scene.taken.items():
        hashes, rows = received.get(n, []), ledger.get(n, [])
        if not sure and not hashes:
            equal(rows, [], "the ledger of %d, whose submission died and which nobody has" % n)
            continue
        true(hashes, "message %d is lost" % n)
        equal(len(rows), 1, "ledger rows of %d" % n)
        epoch, sha = rows[0]
        equal(set(hashes), {sha}, "octets of %d" % n)
        if not often(n):
            equal((len(hashes), epoch <= 1), (1, True), "copies of %d, and its epoch %d" % (n, epoch))
        true(len(hashes) <= 1 + epoch, "%d has %d copies, and the ledger knows of %d" % (n, len(hashes), 1 + epoch))
        copies += len(hashes) - 1
    equal(set(received) - set(scene.taken), set(), "messages of nobody")
    return copies


def soak(scene, messages, batch, seconds):
    began, n = time.monotonic(), 0
    note("SENDQ_SEED=%d" % SEED)
    while n < messages and time.monotonic() - began < seconds:
        more = min(scene.random.randint(batch // 2, batch), messages - n)
        scene.submit_some(range(n, n + more))
        n += more
        scene.weather()
        scene.spell()
        scene.clock.forward(scene.random.choice((0, 1, 3)) * HOUR // 60)
        if scene.random.random() < 0.3:
            scene.link.set("")
            scene.quiet()
            scene.settle()
    scene.link.set("")
    for _ in range(10):
        scene.quiet()
        scene.settle()
        if scene.q.flush() == 0:
            break
    equal(scene.q.sql("SELECT count(*) FROM recipient WHERE state <> %d" % SENT), [(0,)], "recipients that are not sent")
    copies = check(scene)
    ends = {}
    for r in scene.link.records():
        ends[r["end"]] = ends.get(r["end"], 0) + 1
    note("%d messages, %s; connections: %s" % (n, ", ".join("%d %s" % (v, k) for k, v in sorted(scene.counts.items())),
                                               ", ".join("%d %s" % (v, k) for k, v in sorted(ends.items()))))
    note("0 lost, 0 doubled where that was not asked for; %d second copies where it was, all in the ledger; %.0f s"
         % (copies, time.monotonic() - began))
    equal(n, messages, "messages in the time there was")


@test("a hundred messages through bad weather", seconds=240)
def small(scene):
    soak(scene, 100, 8, 120)


@test("ten thousand messages through bad weather", seconds=LONG_SECONDS + 600, long=True)
def large(scene):
    soak(Scene(), 10000, 60, LONG_SECONDS)


if __name__ == "__main__":
    main(Scene, Scene.stop)
