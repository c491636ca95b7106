#!/usr/bin/python3
"""Real processes, cut where a command, a reply or a TLS record ends, and one octet before and behind it.

The real programs send two messages of two recipients in one session to a real
Postfix, over {PIPELINING, CHUNKING on and off} × {TLS, plain}; the link breaks
in either direction, by RST or FIN, at each of these places. Then sendq goes on

- with evidence (the provider files what it accepts, and sendq may ask): at the
  end everything is accepted exactly once;
- without: what is in doubt stays so however often it is tried, and after
  `sendq resend` a second copy has a row in the ledger that says so.

What sendq calls queued after the cut must not have arrived, what it calls sent
must have, once. In contrib/check a sample by seed runs for SECONDS
(SENDQ_SEED=n repeats one); SENDQ_LONG=1 runs every case. Both say how many.
The argument says which half of the matrix: plain or tls; they run beside each other.
"""
import email.parser
import itertools
import os
import random
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))
from harness.filing import FILED, Clock, Filing  # noqa: E402
from harness.sendq import message  # noqa: E402
from harness.tap import equal, main, note, test, true, until  # noqa: E402
from harness.world import PASSWORD, USER  # noqa: E402

SECONDS = 40
HOUR = 3600 * 1000
QUEUED, DOUBT, SENT = 0, 3, 5  # include/sendq/outcome.h
USERS = ("bob", "carol")
MATRIX = [(pipelining, chunking, tls) for tls in (sys.argv[1] == "tls",) for pipelining in (True, False) for chunking in (True, False)]


def discarded(pipelining, chunking):
    return ",".join(word for word, on in (("pipelining", pipelining), ("chunking", chunking)) if not on)


def title(cell):
    return "%s %s %s" % ("pipelining" if cell[0] else "step by step", "BDAT" if cell[1] else "DATA", "TLS" if cell[2] else "plain")


class Scene(Filing):
    def __init__(self):
        super().__init__("processes", also=[(discarded(p, c), t) for p, c, t in MATRIX])
        self.copies = {}  # (Message-ID, user): copies that Postfix delivered
        self._log_at, self._connects, self._disconnects = 0, 0, 0
        until(lambda: self.served() > 2 and self._connects == self._disconnects, 10, "Postfix is quiet")
        self.probes = self._connects
        self._parts = {}
        self.number = 0
        self.sessions = 0  # connections that the links of ended cases passed on

    def served(self):
        """Sessions that Postfix has begun and ended, by its log."""
        path = self.postfix.folder + "/mail.log"
        if os.path.exists(path):
            with open(path, errors="replace") as f:
                f.seek(self._log_at)
                text = f.read()
            whole = text.rfind("\n") + 1
            self._log_at += len(text[:whole].encode())
            self._connects += text[:whole].count(": connect from ")
            self._disconnects += text[:whole].count(": disconnect from ")
        return self._disconnects

    def settle(self, part):
        """Every session is over at both ends, and what was accepted is delivered: count it."""
        until(lambda: self.all_over(part), 30, "Postfix ends every session")
        until(self.postfix.queue_is_empty, 30, "Postfix delivers")
        for user in USERS:
            folder = os.path.join(self.folder, "mail", user, "new")
            for name in os.listdir(folder) if os.path.isdir(folder) else ():
                path = os.path.join(folder, name)
                with open(path, "rb") as f:
                    head = email.parser.BytesHeaderParser().parse(f)
                key = (head["Message-ID"], user)
                self.copies[key] = self.copies.get(key, 0) + 1
                os.unlink(path)

    def all_over(self, part):
        new = len(part.link.records()) - part.connections
        return new and self.served() >= self.probes + self.sessions + new and self._connects == self._disconnects

    def parts(self, cell, evidence):
        """One queue and one link for each cell."""
        key = (cell, evidence)
        if key not in self._parts:
            self._parts[key] = Part(self, cell, evidence)
        return self._parts[key]


class Part:
    def __init__(self, scene, cell, evidence):
        self.scene, self.cell, self.evidence = scene, cell, evidence
        self.link = scene.link(scene.postfix.also[MATRIX.index(cell)])
        more = {"imap": "imaps://localhost:%d" % scene.imap.imaps_port} if evidence else {}
        if cell[2]:
            route = scene.tls(self.link.port, "smtps", **more)
        else:
            route = scene.plain(self.link.port, user=USER, password=PASSWORD, ca_file=scene.certs.ca, **more)
        self.q = scene.sendq(route)
        clock = os.path.join(self.q.folder, "clock")
        self.q.extra_env["SENDQ_TEST_CLOCK"] = clock
        self.clock = Clock(clock)
        self.connections = 0
        self.units = self.calibrate() if evidence else scene.parts(cell, True).units

    def submit(self):
        self.scene.number += 1
        self.ids = ["<%06d.%d@cuts.test>" % (self.scene.number, n) for n in (1, 2)]
        for identity in self.ids:
            self.q.submit(message([u + "@example.test" for u in USERS], "cut", "hello\n.dot\n", Message_ID=identity,
                                  Date="Thu, 26 Nov 2026 05:00:00 +0000"))

    def calibrate(self):
        """Two sessions without a break: four messages that the provider has filed, and the units of the second."""
        for _ in range(2):
            self.submit()
            equal(self.q.flush(), 0, "without a break")
            self.scene.settle(self)
        records = self.link.records()
        self.leave()
        equal(len(records), 2, "sessions for two times two messages")
        record = max(records, key=lambda r: r["units_up"] + r["units_down"])
        return {"up": record["units_up"], "down": record["units_down"]}

    def leave(self):
        """The case is over: its connections count as the past."""
        self.scene.sessions += len(self.link.records()) - self.connections
        self.connections = len(self.link.records())
        # Not all of them: but the last ones of every part, which show that the provider files what it accepts.
        folder = os.path.join(self.scene.folder, "mail", FILED)
        filed = sorted((os.path.join(folder, d, n) for d in ("new", "cur") for n in os.listdir(os.path.join(folder, d))),
                       key=lambda p: os.stat(p).st_mtime_ns)
        for path in filed[:-400]:
            os.unlink(path)

    def states(self):
        rows = self.q.sql("SELECT m.message_id, p.address, p.state FROM recipient p JOIN message m ON m.id = p.id >> 16"
                          " WHERE m.message_id IN ('%s', '%s')" % tuple(self.ids))
        # The rows of a finished message go with time; the ledger stays.
        out = {key: SENT for key in self.ledger()}
        out.update({(identity, address.split("@")[0]): state for identity, address, state in rows})
        equal(len(out), len(self.ids) * len(USERS), "recipients that sendq knows of")
        return out

    def ledger(self):
        out = {}
        for identity, recipient, epoch in self.q.sql(
                "SELECT message_id, recipient, epoch FROM ledger WHERE message_id IN ('%s', '%s')" % tuple(self.ids)):
            out.setdefault((identity, recipient.split("@")[0]), []).append(epoch)
        return out


def check_copies(scene, part, states, what):
    """What sendq says against what arrived."""
    for key, state in states.items():
        copies = scene.copies.get(key, 0)
        if state == QUEUED:
            equal(copies, 0, "%s: copies of what is queued, %s" % (what, key))
        elif state == SENT:
            equal(copies, 1, "%s: copies of what is sent, %s" % (what, key))
        else:
            equal(state, DOUBT, "%s: state of %s" % (what, key))
            true(copies <= 1, "%s: %d copies of what is in doubt" % (what, copies))


def with_evidence(scene, part):
    for _ in range(6):
        code = part.q.flush()
        if code == 0:
            break
        part.clock.forward(61 * 60 * 1000)
    scene.settle(part)
    equal(set(part.states().values()), {SENT}, "states with evidence at hand")
    for key in itertools.product(part.ids, USERS):
        equal(scene.copies.get(key, 0), 1, "copies of %s" % (key,))
        equal(len(part.ledger().get(key, [])), 1, "ledger rows of %s" % (key,))


def without_evidence(scene, part, before):
    for _ in range(2):
        part.q.flush()
        part.clock.forward(3 * HOUR)
    scene.settle(part)
    states = part.states()
    for key, state in states.items():
        equal(state, DOUBT if before[key] == DOUBT else SENT, "state of %s, tried again" % (key,))
    check_copies(scene, part, states, "tried again")
    doubtful = {key: scene.copies.get(key, 0) for key, state in states.items() if state == DOUBT}
    for identity in {key[0] for key in doubtful}:
        equal(part.q.status("resend", number_of(part, identity)).code, 0, "sendq resend")
    if doubtful:
        part.q.flush()
        scene.settle(part)
    equal(set(part.states().values()), {SENT}, "states at the end")
    for key in itertools.product(part.ids, USERS):
        copies, epochs = scene.copies.get(key, 0), part.ledger().get(key, [])
        equal(copies, doubtful.get(key, 0) + 1 if key in doubtful else 1, "copies of %s" % (key,))
        equal(epochs, [1 if key in doubtful else 0], "epochs in the ledger of %s" % (key,))


def number_of(part, identity):
    return [m["id"] for m in part.q.list(all=True) if m["message_id"] == identity][0]


def one_case(scene, case):
    """Whether the link broke (a place behind the last octet of a session breaks nothing), and what was in doubt."""
    cell, evidence, way, unit, off, how = case
    part = scene.parts(cell, evidence)
    what = "%s, %s, unit=%s:%d off=%d with=%s" % (title(cell), "evidence" if evidence else "withheld", way, unit, off, how)
    try:
        part.submit()
        part.link.set("%d unit=%s:%d off=%d with=%s" % (part.connections + 1, way, unit, off, how))
        code = part.q.flush()
        scene.settle(part)
        broken = part.link.records()[part.connections]["end"].startswith("cut-")
        states = part.states()
        doubts = sum(s == DOUBT for s in states.values())
        check_copies(scene, part, states, "after the cut")
        equal(code, 0 if set(states.values()) == {SENT} else 75, "flush")
        if evidence:
            with_evidence(scene, part)
        else:
            without_evidence(scene, part, states)
        part.link.set("")
        part.leave()
        return broken, doubts
    except Exception as why:
        raise AssertionError("%s: %s" % (what, why)) from why


def all_cases(scene, cells, evidences):
    for cell in cells:
        for evidence in evidences:
            units = scene.parts(cell, evidence).units
            for way in ("up", "down"):
                for unit in range(1, units[way] + 1):
                    for off in (-1, 0, 1):
                        for how in ("rst", "fin"):
                            yield cell, evidence, way, unit, off, how


def run(scene, cases, until_when=None):
    began, done, broken, doubts, last = time.monotonic(), 0, 0, 0, {}
    for case in cases:
        if until_when and time.monotonic() > until_when:
            break
        cut, in_doubt = one_case(scene, case)
        done, broken, doubts = done + 1, broken + cut, doubts + in_doubt
        last[case[0]] = last.get(case[0], 0) + 1
    note("%d cases, the link broke in %d; %d recipients were in doubt; %.2f s a case"
         % (done, broken, doubts, (time.monotonic() - began) / max(done, 1)))
    return done, broken, doubts


def by_turns(scene, cell, evidence):
    """Forty of a cell's cases: every other one about the last terminator and its reply, where doubt is."""
    units = scene.parts(cell, evidence).units
    cases = list(all_cases(scene, [cell], [evidence]))
    late = [c for c in cases if units[c[2]] - 2 <= c[3] < units[c[2]]]
    return [case for pair in zip(random.sample(late, 20), random.sample(cases, 20)) for case in pair]


@test("cuts at the ends of commands, replies and TLS records: a sample by seed", seconds=300)
def sample(scene):
    began = time.monotonic()
    seed = int(os.environ.get("SENDQ_SEED", "0")) or int.from_bytes(os.urandom(4), "big")
    random.seed(seed)
    cells = [(cell, evidence) for cell in MATRIX for evidence in (True, False)]
    chosen = [by_turns(scene, cell, evidence) for cell, evidence in cells]
    note("SENDQ_SEED=%d; %s" % (seed, "; ".join(
        "%s: %d units up, %d down" % (title(c), *(scene.parts(c, True).units[w] for w in ("up", "down"))) for c in MATRIX)))
    # One of each cell in turn, so that a slow machine has fewer of each and not fewer cells.
    done, broken, doubts = run(scene, [case for turn in zip(*chosen) for case in turn], began + SECONDS)
    true(broken > done // 2, "the link broke in %d of %d cases" % (broken, done))
    true(doubts > 0, "nothing was ever in doubt")


def whole(cell, evidence):
    def function(scene):
        cases = list(all_cases(scene, [cell], [evidence]))
        done, broken, doubts = run(scene, cases)
        equal(done, len(cases), "cases")
        true(doubts > 0, "nothing was ever in doubt")
    test("every cut: %s, evidence %s" % (title(cell), "at hand" if evidence else "withheld"), seconds=3600, long=True)(function)


for cell_ in MATRIX:
    for evidence_ in (True, False):
        whole(cell_, evidence_)

if __name__ == "__main__":
    main(Scene, Scene.stop)
