#!/usr/bin/python3
"""The verdict that does not come, comes late or comes broken; and the patience that waits for it as long as the link lives."""
import os
import re
import socket
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fake"))
from harness.filing import Clock, Filing  # noqa: E402
from harness.sendq import message, route  # noqa: E402
from harness.tap import add, equal, holds, main, note, test, true, until  # noqa: E402
from scripted import CLOSE, RESET, Scripted, Session  # noqa: E402

MINUTE = 60 * 1000


class Scene(Filing):
    def to(self, server, **more):
        """sendq with a scripted server and a clock of its own."""
        q = self.sendq(route("smtp://127.0.0.1:%d" % server.port, tls="none", **more))
        clock = os.path.join(q.folder, "clock")
        q.extra_env["SENDQ_TEST_CLOCK"] = clock
        return q, Clock(clock)


def copies(world, q, numbers):
    return [len(world.postfix.delivered(address.split("@")[0])) for n in numbers for address in q.states(n)]


# ---- lost again and again


def lost(n):
    def run(world):
        """So many messages, and each of their final replies is lost; the provider can be asked."""
        q, link, clock = world.account("* final=cut times=%d" % n)
        numbers = [q.submit(message(world.user() + "@example.test", "lost %d of %d" % (i, n))) for i in range(n)]
        for _ in range(3 * n + 3):
            if q.flush() == 0:
                break
            until(world.postfix.queue_is_empty, 30)
        equal({s for i in numbers for s in q.states(i).values()}, {"sent"}, "states")
        equal([r["end"] for r in link.records()].count("cut-final"), n, "final replies lost")
        equal(copies(world, q, numbers), [1] * n, "copies")
        equal(len(q.sent()), n, "ledger rows")
    return run


def lost_of_one(n):
    def run(world):
        """One message that may be doubled (duplicates = allow) and loses its reply n times: n + 1 copies, and all of them told."""
        user = world.user()
        q, link, clock = world.account("* final=cut times=%d" % n, imap=None, duplicates="allow")
        number = q.submit(message(user + "@example.test", "lost %d times" % n))
        for _ in range(3 * n + 3):
            if q.flush() == 0:
                break
        equal(q.states(number), {user + "@example.test": "sent"})
        found = world.postfix.settled(user, n + 1)
        equal(len({c[c.lower().index(b"message-id"):].split(b"\n")[0] for c in found}), 1, "Message-IDs")
        row, = q.sent()
        equal(row["epoch"], n, "the ledger counts the sendings behind the first")
        holds(q.status("why", number).out, "twice")
        true(any("Sent again" in t for t in q.notice_texts()), "told")
    return run


def lost_and_withheld(n):
    def run(world):
        """Nobody can be asked: one copy each, whatever is tried, and nothing claims to be sent."""
        q, link, clock = world.account("* final=cut times=%d" % n, imap=None)
        numbers = [q.submit(message(world.user() + "@example.test", "withheld %d of %d" % (i, n))) for i in range(n)]
        for _ in range(n + 3):
            equal(q.flush(), 75)
            clock.forward(60 * MINUTE)
        until(world.postfix.queue_is_empty, 30)
        equal({s for i in numbers for s in q.states(i).values()}, {"doubt"}, "states")
        equal(copies(world, q, numbers), [1] * n, "copies")
        equal(q.sent(), [], "the ledger")
    return run


for n_ in (1, 3, 10):
    add("the final reply lost %d times, evidence at hand: each message once" % n_, lost(n_), 240)
    add("the final reply lost %d times, evidence withheld: each message once" % n_, lost_and_withheld(n_), 240)
    add("the final reply of one message lost %d times where copies are allowed: each copy is told" % n_, lost_of_one(n_), 240)


# ---- broken


def broken(answer, want, outcome):
    def run(world):
        server = Scripted({"FINAL": answer})
        q, clock = world.to(server)
        number = q.submit(message("bob@example.test", "broken"))
        for _ in range(2):
            q.flush()
        equal(q.states(number), {"bob@example.test": want})
        equal(q.attempts(number)[0]["outcome"], outcome)
        equal(len(server.arrived), 1 if want == "doubt" else 2, "times it was sent")
        server.stop()
    return run


for octets_ in ("2", "25", "250", "250 ", "250 2.0.0 ok", "250 2.0.0 ok\r", "250-2.0.0 ok\r\n", "250-2.0.0 ok\r\n250 "):
    for end_ in (CLOSE, RESET):
        add("a verdict cut behind %r, then %s: doubt" % (octets_, end_),
            broken([(octets_.encode(), end_), "250 2.0.0 ok"], "doubt", "doubt"))
add("421 instead of a verdict is no acceptance: sent again", broken([("421 4.3.2 no", CLOSE), "250 2.0.0 ok"], "sent", "deferred"))
add("a server that takes the message and closes: doubt", broken([CLOSE, "250 2.0.0 ok"], "doubt", "doubt"))
add("a server that takes the message and resets: doubt", broken([RESET, "250 2.0.0 ok"], "doubt", "doubt"))


# ---- late


def looks(q, n):
    """Until the delivery agent has looked at its clock n times: it wakes for that once a second."""
    daemon = q.pid()
    with open("/proc/%d/task/%d/children" % (daemon, daemon)) as f:
        agents = f.read().split()
    equal(len(agents), 1, "delivery agents")

    def woken():
        with open("/proc/%s/status" % agents[0]) as f:
            return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", f.read(), re.M).group(1))
    before = woken()
    until(lambda: woken() >= before + n, 60, "the agent wakes")


class Late(Scripted):
    """The verdict comes when the test says so."""

    def __init__(self):
        super().__init__({"FINAL": self.hold})
        self.asked, self.say, self.reset = threading.Event(), threading.Event(), threading.Event()

    def hold(self, session, line):
        self.asked.set()
        self.say.wait(120)
        try:
            session.sock.settimeout(0.001)
            if session.sock.recv(1) == b"":
                return CLOSE
        except TimeoutError:
            session.sock.settimeout(None)
        except ConnectionResetError:
            self.reset.set()
            raise
        return "250 2.0.0 at last"


@test("a verdict after eight minutes is waited for, and heard")
def eight_minutes(world):
    server = Late()
    q, clock = world.to(server)
    q.daemon()
    number = q.submit(message("bob@example.test", "late"))
    true(server.asked.wait(60), "the terminator comes")
    for _ in range(4):
        clock.forward(2 * MINUTE)
        looks(q, 2)
    equal(set(q.states(number).values()), {"committing"})
    server.say.set()
    q.wait(number, "sent")
    q.stop_daemon()
    equal((server.sessions, len(server.arrived)), (1, 1))
    server.stop()


@test("no verdict in ten minutes is doubt, by a reset: what the server says later changes nothing, and nothing is sent again")
def too_late(world):
    server = Late()
    q, clock = world.to(server)
    q.daemon()
    number = q.submit(message("bob@example.test", "too late"))
    true(server.asked.wait(60), "the terminator comes")
    looks(q, 2)
    clock.forward(11 * MINUTE)
    q.wait(number, "doubt")
    server.say.set()
    true(server.reset.wait(20), "the connection ends by a reset")
    q.stop_daemon()
    equal(q.flush(), 75)
    equal(len(server.arrived), 1, "copies")
    server.stop()


class Narrow(Scripted):
    """A server whose window closes in the middle of a large message until the test opens it; its kernel answers all the while."""

    def __init__(self):
        super().__init__()
        self.closed, self.open = threading.Event(), threading.Event()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)

    class session(Session):
        def exactly(self, n):
            if n > 100000:
                self.server.closed.set()
                self.server.open.wait(120)
            return super().exactly(n)


@test("a server that takes nothing for eight minutes, with a link that lives, is waited for: the closed window")
def closed_window(world):
    server = Narrow()
    q, clock = world.to(server)
    q.daemon()
    number = q.submit(message("bob@example.test", "window", ("y" * 70 + "\n") * 120000))
    true(server.closed.wait(60), "content comes")
    until(lambda: q.sql("SELECT max(octets_sent) FROM attempt")[0][0], 30, "octets are handed over")
    for _ in range(4):
        clock.forward(2 * MINUTE)
        looks(q, 2)
    equal(set(q.states(number).values()), {"sending"})
    server.open.set()
    q.wait(number, "sent", 60)
    q.stop_daemon()
    equal((server.sessions, len(server.messages)), (1, 1))
    server.stop()


@test("a link that swallows everything in the middle of a message is given up: it goes again, once")
def black_hole(world):
    user = world.user()
    link = world.link(world.postfix.port, "1 hole=up:200000")
    q = world.sendq(world.plain(link.port))
    clock = os.path.join(q.folder, "clock")
    q.extra_env["SENDQ_TEST_CLOCK"] = clock
    clock = Clock(clock)
    q.daemon()
    number = q.submit(message(user + "@example.test", "hole", ("y" * 70 + "\n") * 40000))
    until(lambda: (q.sql("SELECT max(octets_sent) FROM attempt")[0][0] or 0) > 0, 30, "octets are handed over")
    clock.forward(4 * MINUTE)
    until(lambda: q.sql("SELECT count(*) FROM attempt WHERE ended_ms > 0") != [(0,)], 30, "the attempt ends")
    equal(q.attempts(number)[0]["outcome"], "stalled")
    clock.forward(30 * MINUTE)
    q.poke()
    q.wait(number, "sent", 60)
    q.stop_daemon()
    world.postfix.settled(user, 1)


if __name__ == "__main__":
    main(lambda: Scene("verdict"), Scene.stop)
