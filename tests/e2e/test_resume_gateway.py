#!/usr/bin/python3
"""sendq and sendq-gateway together on a link that breaks: one copy, byte for byte, and nothing goes over the wire twice."""
import hashlib
import os
import random
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import certs, links, process, sendq  # noqa: E402
from harness.gateway import USERS, Gateway  # noqa: E402
from harness.sendq import message  # noqa: E402
from harness.tap import add, equal, main, note, test, true, until  # noqa: E402

LONG = os.environ.get("SENDQ_LONG") == "1"
SEED = int(os.environ.get("SENDQ_SEED", "1"))
ANN, BOB = "ann@example.test", "bob@example.test"
MIB = 1 << 20


class Scene:
    def __init__(self):
        self.folder = process.temp_folder("resume-gateway")
        self.certs = certs.Certs(self.folder)
        self.gateway = Gateway(self.folder, certs=self.certs, listen=("smtp", "starttls"))
        self._n = 0

    def pair(self, rules="", gateway=None, tls=False, **route):
        gateway = gateway or self.gateway
        self._n += 1
        folder = "%s/link%d" % (self.folder, self._n)
        os.makedirs(folder)
        link = links.BadLink(folder, gateway.ports[1] if tls else gateway.port, rules)
        how = {"ca_file": self.certs.ca} if tls else {"tls": "none"}
        q = sendq.Sendq(self.folder, [sendq.route("smtp://%s:%d" % ("localhost" if tls else "127.0.0.1", link.port),
                                                  user=ANN, password=USERS[ANN], **how, **route)],
                        name="sendq%d" % self._n, connect_timeout="20s")
        return q, link

    def another(self, **settings):
        self._n += 1
        return Gateway(self.folder, name="gateway%d" % self._n, certs=self.certs, listen=("smtp", "starttls"), **settings)

    def stop(self):
        self.gateway.stop()


counter = iter(range(1, 1 << 30))


def body(n):
    """n octets of text that repeats nowhere, with dots at line starts."""
    rng = random.Random(next(counter))
    lines = []
    while n > 0:
        lines.append("%s%032x" % ("." if len(lines) % 5 == 0 else "", rng.getrandbits(128)))
        n -= len(lines[-1]) + 2
    return "\n".join(lines) + "\n.\n..\n"


def submit(q, n, to=BOB):
    number = q.submit(message(to, "number %d" % next(counter), body(n)))
    return number, q.octets(number)


def until_sent(q, number, tries=40):
    for flushes in range(1, tries + 1):
        if q.flush() == 0:
            return flushes
    raise AssertionError("not sent in %d tries: %r" % (tries, q.get(number)["recipients"]))


def once(gateway, octets, address=BOB, copies=1):
    """Exactly so many copies of just these octets."""
    equal(gateway.found(octets, address), copies, "copies")


def sent_up(link):
    return sum(r["up"] for r in link.records())


# ---- cut anywhere ----------------------------------------------------------------

def cut_anywhere(direction, way, tls):
    def run(scene):
        probe, link = scene.pair(tls=tls)
        number, octets = submit(probe, 3000)
        equal(probe.flush(), 0)
        once(scene.gateway, octets)
        record, = until(link.records, 20, "the link's record of the connection")
        total = record[direction]
        rng = random.Random("%d %s %s %s" % (SEED, direction, way, tls))
        # In the clear, every octet: test_resume_octets.py.
        places = range(1, total + 1, 7) if LONG and tls else sorted(rng.sample(range(1, total + 1), 8) + [total - k for k in (6, 7, 8, 18, 19, 20)])
        doubts = 0
        for k in places:
            q, link = scene.pair("* cut=%s:%d with=%s times=1" % (direction, k, way), tls=tls)
            number, octets = submit(q, 3000)
            q.run("sendqd", "--once")
            doubts += set(q.states(number).values()) == {"doubt"}
            until_sent(q, number, 5)
            once(scene.gateway, octets)
            rows = [r for r in q.sent() if r["recipient"] == BOB]
            equal(len(rows), 1, "ledger rows behind a cut at %d" % k)
            link.stop()
        note("%d cuts, %d in doubt, all settled at contact" % (len(places), doubts))
    return run


for tls_ in (False, True):
    for direction_ in ("up", "down"):
        for way_ in ("rst", "fin"):
            add("cut after any octet %s, %s, %s: once, and no doubt is left" % (direction_, way_.upper(), "TLS" if tls_ else "plain"),
                cut_anywhere(direction_, way_, tls_), seconds=3000 if LONG else 240)


# ---- large mail ------------------------------------------------------------------

def large(size, every, limit, way):
    def run(scene):
        q, link = scene.pair("* cut=up:%d with=%s" % (every, way), tls=True)
        number, octets = submit(q, size)
        flushes = until_sent(q, number, 60)
        once(scene.gateway, octets)
        factor = sent_up(link) / len(octets)
        note("%d octets, cut every %d: %d tries, %.4f times the octets on the wire" % (len(octets), every, flushes, factor))
        true(factor <= limit, "%.4f times its octets" % factor)
    return run


for way_ in ("rst", "fin"):
    add("25 MB, the link cut every 8 MiB, %s: one copy, at most 1.01 times its octets" % way_.upper(),
        large(25 * MIB, 8 * MIB, 1.01, way_), seconds=300)
    add("4 MB, the link cut every 1 MiB, %s: one copy, at most 1.05 times its octets" % way_.upper(),
        large(4 * MIB, MIB, 1.05, way_), seconds=300)


def lost(times):
    def run(scene):
        q, link = scene.pair("* final=cut times=%d" % times, tls=True)
        number, octets = submit(q, 20000)
        q.run("sendqd", "--once")
        equal(q.states(number), {BOB: "doubt"})
        until_sent(q, number, times + 2)
        once(scene.gateway, octets)
        true(sent_up(link) < len(octets) + 5000 * (times + 1), "it was sent again")
    return run


for n_ in (1, 3, 10):
    add("the final reply lost %d times: one copy, settled by the server itself" % n_, lost(n_))


# ---- kills and stores ------------------------------------------------------------

@test("the gateway is killed in the middle, again and again: what it told it has, it has")
def gateway_killed(scene):
    gateway = scene.another()
    q, link = scene.pair("1 cut=up:400000\n2 cut=up:300000\n3 cut=up:300000", gateway)
    number, octets = submit(q, MIB)
    for _ in range(3):
        q.flush()
        # The port is the link's business: it is told the new one by being made anew.
        gateway.stop(signal.SIGKILL)
        gateway.start()
        q, link = again(scene, q, gateway, "* cut=up:300000 times=1")
    until_sent(q, number)
    once(gateway, octets)
    gateway.stop()


def again(scene, q, gateway, rules=""):
    """The same queue on a new link."""
    scene._n += 1
    folder = "%s/link%d" % (scene.folder, scene._n)
    os.makedirs(folder)
    link = links.BadLink(folder, gateway.port, rules)
    q.configure([sendq.route("smtp://127.0.0.1:%d" % link.port, user=ANN, password=USERS[ANN], tls="none")], connect_timeout="20s")
    return q, link


@test("in doubt, and the gateway's store is a new one: it stays in doubt")
def another_store(scene):
    gateway = scene.another()
    q, link = scene.pair("* final=cut times=1", gateway)
    number, octets = submit(q, 5000)
    q.run("sendqd", "--once")
    equal(q.states(number), {BOB: "doubt"})
    gateway.stop()
    for name in os.listdir(gateway.state):
        path = os.path.join(gateway.state, name)
        if os.path.isfile(path):
            os.unlink(path)
    gateway.start()
    q, link = again(scene, q, gateway)
    for _ in range(3):
        equal(q.flush(), 75)
    equal(q.states(number), {BOB: "doubt"})
    once(gateway, octets)
    gateway.stop()


@test("a person's resend is not swallowed as a duplicate")
def resend(scene):
    q, link = scene.pair("* final=cut times=1")
    number, octets = submit(q, 5000)
    q.run("sendqd", "--once")
    equal(q.status("resend", number).code, 0)
    equal(q.flush(), 0)
    once(scene.gateway, octets, copies=2)


def killed(program, point):
    def run(scene):
        q, link = scene.pair()
        number, octets = submit(q, 300000)
        q.run("sendqd", "--once", SENDQ_FAULT=point + "=kill", SENDQ_FAULT_PROGRAM=program)
        until_sent(q, number, 5)
        once(scene.gateway, octets)
    return run


for program_, point_ in (("sendqd", "runner_after_envelope"), ("sendqd", "runner_after_go"), ("sendqd", "runner_before_verdict"),
                         ("sendq-smtp", "agent_content"), ("sendq-smtp", "agent_after_terminator"), ("sendq-smtp", "agent_after_reply")):
    add("%s killed at %s: once, no doubt is left" % (program_, point_), killed(program_, point_))


@test("what arrived has the hash of what was queued")
def hashes(scene):
    q, link = scene.pair("* cut=up:200000 times=3", tls=True)
    number, octets = submit(q, 900000)
    until_sent(q, number)
    row, = q.sent()
    equal(row["sha256"], hashlib.sha256(octets).hexdigest())
    once(scene.gateway, octets)


if __name__ == "__main__":
    main(Scene, lambda scene: scene.stop())
