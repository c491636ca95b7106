#!/usr/bin/python3
"""SIGKILL at every named fault point, of every program, and what must hold afterwards.

The points are read from include/sendq/fault.h, so a new one is tested as soon
as it is named. After each death sendq is run again without faults, and then:

- what sendmail exited 0 for is sent or in doubt, never gone; what it did not is there once or not at all;
- nothing stands in the queue as being sent by somebody who is dead;
- at the receiver is one copy of what is sent, at most one of what is in doubt, and never two;
- no lock is left: the next runner works at once;
- nothing of a killed submission is left behind.
"""
import os
import re
import signal
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
from harness.filing import Filing  # noqa: E402
from harness.sendq import message  # noqa: E402
from harness.tap import add, equal, main, note, true, until  # noqa: E402

OWNER = {"submit": "sendq-sendmail", "runner": "sendqd", "agent": "sendq-smtp"}
# Points that a delivery passes only when there is something to report.
REPORTS = {"runner_before_report", "runner_after_report"}
# Points that are passed only when evidence settles a doubt.
EVIDENCE = {"runner_before_settle"}
# Passed only where mail changes its route: tests/e2e/test_routes.py kills there.
ELSEWHERE = {"runner_rerouted"}
LARGE = "x" * 75 + "\n" + ("y" * 75 + "\n") * 9000


def points():
    with open(os.path.join(ROOT, "include", "sendq", "fault.h")) as f:
        text = f.read()
    names = re.findall(r"^\s*X\((\w+)\)", text, re.M)
    equal(len(names), len(set(names)), "names")
    true(len(names) > 20, "fault points found: %r" % names)
    return names


class Case:
    """One message to one user, over a link that counts."""

    def __init__(self, world, body="hello\n", to=None, rules=None):
        """With `rules` for its link: the account over TLS that has a Sent folder to ask, and a clock."""
        self.world = world
        self.user = to or world.user()
        self.address = self.user + "@example.test"
        self.body = body
        if rules is not None:
            self.q, self.link, self.clock = world.account(rules)
            return
        self.link = world.link(world.postfix.port)
        self.q = world.sendq(world.plain(self.link.port))

    def submit(self):
        self.number = self.q.submit(message(self.address, "crash", self.body))

    def recover(self):
        """Run again without faults, as the next start would; the states after that."""
        code = self.q.flush(seconds=60)
        states = self.q.states()
        equal(code, 75 if "doubt" in states.values() else 0, "flush after the crash, with %r" % states)
        for state in states.values():
            true(state in ("sent", "doubt", "failed"), "after recovery it is %s" % state)
        # A second runner, and the daemon too, must find the lock free.
        equal(self.q.run("sendqd", "--once", seconds=60).code in (0, 75), True, "sendqd --once after the crash")
        equal(self.q.states(), states, "states change by looking again")
        return states

    def copies(self):
        until(self.world.postfix.queue_is_empty, 30, "Postfix has delivered", pause=0.05)
        return len(self.world.postfix.delivered(self.user))

    def verify(self):
        """The invariant for one message that sendmail exited 0 for."""
        states = self.recover()
        equal(list(states), [self.address], "messages")
        copies, state = self.copies(), states[self.address]
        if state == "sent":
            equal(copies, 1, "copies of a message that is sent")
            equal(len(self.q.sent()), 1, "ledger rows")
        else:
            equal(state, "doubt")
            true(copies <= 1, "%d copies of a message in doubt" % copies)
        self.no_leftovers()
        return state, copies

    def no_leftovers(self):
        rows = self.q.sql("SELECT count(*) FROM content WHERE id >> 20 NOT IN (SELECT id FROM message)")
        equal(rows, [(0,)], "octets of nobody's message")


def ended_by_kill(code):
    true(code in (-signal.SIGKILL, 128 + signal.SIGKILL), "it was not killed: exit status %r; the point was not passed" % code)


def submission(point):
    def run(world):
        case = Case(world, LARGE)
        result = case.q.sendmail(message(case.address, "crash", case.body), SENDQ_FAULT=point + "=kill",
                                 SENDQ_FAULT_PROGRAM=None)
        ended_by_kill(result.code)
        there = len(case.q.list(all=True))
        true(there <= (1 if point == "submit_after_commit" else 0), "%d messages" % there)
        if there:
            note(case.verify())
            return
        case.submit()
        note(case.verify())
        equal(len(case.q.list(all=True)), 1, "messages")
    return run


def by_daemon(point, program):
    """The daemon runs with the fault armed until it (or its agent) was killed."""
    def run(world):
        case = Case(world, LARGE if point == "agent_content" else "hello\n")
        case.submit()
        armed = dict(SENDQ_FAULT=point + "=kill", SENDQ_FAULT_PROGRAM=program)
        daemon = case.q.daemon(**armed)
        if program == "sendqd":
            until(lambda: not daemon.alive(), 20, "sendqd passes %s" % point)
            ended_by_kill(daemon.p.returncode)
            case.q.stop_daemon()
        else:
            agent_was_killed(case, point)
            case.q.stop_daemon()
        note("%s, copies %d" % case.verify())
    return run


def agent_was_killed(case, point):
    """It says no QUIT then: the server is not who closes first; before it has connected, nothing was seen of it."""
    if point == "agent_start":
        until(lambda: case.q.attempts(case.number) or case.q.log().count("agent"), 20, "the agent's death is noticed", pause=0.1)
        equal(case.link.records(), [], "connections")
        return
    ends = until(lambda: [r["end"] for r in case.link.records()], 20, "the agent's connection ends")
    true(ends[0] in ("client-eof", "client-reset"), "the agent was not killed: the connection ended by %s" % ends[0])


def by_flush(point):
    """`sendq flush` without a daemon runs the same loop in its own process."""
    def run(world):
        case = Case(world)
        case.submit()
        result = case.q.run("sendq", "flush", SENDQ_FAULT=point + "=kill", SENDQ_FAULT_PROGRAM="sendq")
        ended_by_kill(result.code)
        note("%s, copies %d" % case.verify())
    return run


def reports(point):
    """A recipient that was refused: the report is delivered, once or (killed behind it) at most twice, never not at all."""
    def run(world):
        case = Case(world, to="refused-1")
        case.submit()
        daemon = case.q.daemon(SENDQ_FAULT=point + "=kill", SENDQ_FAULT_PROGRAM="sendqd")
        until(lambda: not daemon.alive(), 20, "sendqd passes %s" % point)
        ended_by_kill(daemon.p.returncode)
        case.q.stop_daemon()
        states = case.recover()
        equal(states, {case.address: "failed"})
        equal(len(case.q.notice_texts()), 1, "reports")
        folder = os.path.join(case.q.notices, "tmp")
        equal(os.listdir(folder), [], "half a report is left")
    return run


def between_cuts(point, program):
    """The link breaks in the content, the next try is killed, and the one behind that loses its final reply."""
    def run(world):
        case = Case(world)
        case.submit()
        case.link.set("* unit=up:5 off=-1 times=1")  # EHLO, MAIL, RCPT, BDAT, its content
        equal(case.q.flush(), 75, "the link breaks in the content")
        equal((case.q.states(), case.copies()), ({case.address: "queued"}, 0), "after the first cut")
        case.link.set("")
        result = case.q.run("sendq", "flush", SENDQ_FAULT=point + "=kill", SENDQ_FAULT_PROGRAM=program)
        if program == "sendq":
            ended_by_kill(result.code)
        elif point != "agent_start":
            ends = [r["end"] for r in case.link.records()]
            true(ends[1] in ("client-eof", "client-reset"), "the agent was not killed: %s" % ends)
        case.link.set("* final=cut times=1")
        equal(case.q.flush() in (0, 75), True, "the next one")
        lost = [r["end"] for r in case.link.records()].count("cut-final")
        if lost:
            equal((case.q.states(), case.copies()), ({case.address: "doubt"}, 1), "after the lost reply")
        case.link.set("")
        note("%s, copies %d" % case.verify())
    return run


def settling(point, daemon):
    """Killed when evidence has come and its verdict is not yet durable: still in doubt, asked again, and settled once."""
    def run(world):
        case = Case(world, rules="* final=cut times=1")
        case.submit()
        equal(case.q.flush(), 75, "the reply is lost")
        equal(case.q.states(), {case.address: "doubt"})
        world.postfix.settled(case.user, 1)
        armed = dict(SENDQ_FAULT=point + "=kill", SENDQ_FAULT_PROGRAM="sendqd" if daemon else "sendq")
        if daemon:
            case.clock.forward(2 * 60 * 1000)
            process = case.q.daemon(**armed)
            until(lambda: not process.alive(), 60, "sendqd passes %s" % point)
            ended_by_kill(process.p.returncode)
            case.q.stop_daemon()
        else:
            ended_by_kill(case.q.run("sendq", "flush", **armed).code)
        equal(case.q.states(), {case.address: "doubt"}, "after the kill")
        equal(case.q.sent(), [], "ledger rows after the kill")
        state, copies = case.verify()
        equal((state, copies, len(case.link.records())), ("sent", 1, 1), "state, copies, sessions with the server")
        true(sum("Sent after all" in t for t in case.q.notice_texts()) == 1, "told once")
    return run


def second_message(point):
    """Killed at the second message of a session: the first one's verdict is safe."""
    def run(world):
        case = Case(world)
        case.submit()
        other = world.user()
        case.q.submit(message(other + "@example.test", "second"))
        daemon = case.q.daemon(SENDQ_FAULT=point + ":2=kill", SENDQ_FAULT_PROGRAM="sendqd")
        until(lambda: not daemon.alive(), 20, "sendqd passes %s twice" % point)
        ended_by_kill(daemon.p.returncode)
        case.q.stop_daemon()
        states = case.recover()
        equal(len(states), 2, "messages")
        until(world.postfix.queue_is_empty, 30)
        for address, state in states.items():
            copies = len(world.postfix.delivered(address.split("@")[0]))
            true(copies == 1 if state == "sent" else copies <= 1, "%s is %s and has %d copies" % (address, state, copies))
    return run


for point_ in points():
    owner_ = OWNER[point_.split("_")[0]]
    if owner_ == "sendq-sendmail":
        add("sendmail killed at " + point_, submission(point_))
    elif point_ in REPORTS:
        add("sendqd killed at " + point_, reports(point_))
    elif point_ in EVIDENCE:
        add("sendqd killed at " + point_, settling(point_, True))
        add("sendq flush killed at " + point_, settling(point_, False))
    elif point_ not in ELSEWHERE:
        add("%s killed at %s" % (owner_, point_), by_daemon(point_, owner_))
        if owner_ == "sendqd":
            add("sendq flush killed at " + point_, by_flush(point_))
for point_ in points():
    owner_ = OWNER[point_.split("_")[0]]
    if owner_ != "sendq-sendmail" and point_ not in REPORTS | EVIDENCE | ELSEWHERE:
        add("killed at %s, between a cut and a lost reply" % point_, between_cuts(point_, "sendq" if owner_ == "sendqd" else owner_))
for point_ in ("runner_claimed", "runner_after_intent", "runner_after_go", "runner_before_verdict", "runner_after_verdict"):
    add("sendqd killed at the second message's " + point_, second_message(point_))

if __name__ == "__main__":
    main(lambda: Filing("crash"), Filing.stop)
