#!/usr/bin/python3
"""Patience: a link that goes silent, with real kernels on both of its ends.

The servers (Postfix, sendq-gateway) live in another network namespace, behind
a virtual wire. On command that side drops every packet, so that the client's
kernel hears nothing at all: no reset, no unreachable, no acknowledgement. Each
connection was brought to the wanted place before that by badlink, on the
servers' side of the wire.
"""
import contextlib
import ctypes
import hashlib
import os
import ssl
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import certs, links, postfix, process, sendq  # noqa: E402
from harness.gateway import USERS, Gateway  # noqa: E402
from harness.sendq import message  # noqa: E402
from harness.tap import Skip, equal, holds, main, note, test, true, until  # noqa: E402

LONG = os.environ.get("SENDQ_LONG") == "1"
CLONE_NEWNET = 0x40000000
NEAR, FAR = "10.78.0.1", "10.78.0.2"
ANN, BOB = "ann@example.test", "bob@example.test"
libc = ctypes.CDLL(None, use_errno=True)


def body(octets):
    return ("y" * 75 + "\n") * (octets // 76)


class Side:
    """A network namespace; inside `with` this thread, and what it starts, is in it."""

    def __init__(self):
        self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)

    def __enter__(self):
        self.back = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        libc.setns(self.fd, CLONE_NEWNET)
        return self

    def __exit__(self, *_):
        libc.setns(self.back, CLONE_NEWNET)
        os.close(self.back)

    def ip(self, *args):
        return self.run("ip", *args)

    def ss(self, *args):
        return self.run("ss", *args)

    def run(self, *args):
        with self:
            return subprocess.run(args, check=True, stdout=subprocess.PIPE).stdout.decode()


def new_side():
    if os.geteuid() != 0 or libc.unshare(CLONE_NEWNET) != 0:
        raise Skip("no network namespace can be made")
    side = Side()
    side.ip("link", "set", "lo", "up")
    return side


class Wire:
    """Two namespaces and what joins them. This thread stays on the near side."""

    def __init__(self):
        self.far = new_side()
        with self.far:
            self.holder = subprocess.Popen(["sleep", "1000"], preexec_fn=process.die_with_parent)
        self.near = new_side()
        self.near.ip("link", "add", "near0", "type", "veth", "peer", "name", "far0", "netns", str(self.holder.pid))
        self.near.ip("addr", "add", NEAR + "/24", "dev", "near0")
        self.near.ip("link", "set", "near0", "up")
        self.far.ip("addr", "add", FAR + "/24", "dev", "far0")
        self.far.ip("link", "set", "far0", "up")
        # A router goes on answering for its address, whatever happens behind it.
        for side, device, other, at in ((self.near, "near0", self.far, FAR), (self.far, "far0", self.near, NEAR)):
            peer = "far0" if other is self.far else "near0"
            words = other.ip("-o", "link", "show", peer).split()
            side.ip("neigh", "replace", at, "lladdr", words[words.index("link/ether") + 1], "dev", device, "nud", "permanent")

    @contextlib.contextmanager
    def silence(self):
        self.far.ip("route", "add", "blackhole", NEAR + "/32")
        try:
            yield
        finally:
            self.far.ip("route", "del", "blackhole", NEAR + "/32")

    def stop(self):
        self.holder.kill()
        self.holder.wait()


class Scene:
    def __init__(self):
        self.wire = Wire()
        self.folder = process.temp_folder("patience")
        self.n = 0
        self.certs = certs.Certs(self.folder)
        with open(self.certs.cert) as f:
            self.pin = "sha256:" + hashlib.sha256(ssl.PEM_cert_to_DER_cert(f.read())).hexdigest()
        with self.wire.far:
            self.postfix = postfix.Postfix(self.folder, self.certs)
            self.gateway = Gateway(self.folder, certs=self.certs, listen=("smtp", "starttls"))

    def case(self, rules, resumes=False, **settings):
        """A sendq on this side and its own link to a server on the other; the daemon runs."""
        self.n += 1
        folder = "%s/case%d" % (self.folder, self.n)
        os.mkdir(folder)
        with self.wire.far:
            link = links.BadLink(folder, self.gateway.ports[1] if resumes else self.postfix.port, rules, address=FAR)
        how = {"user": ANN, "password": USERS[ANN], "fingerprint": self.pin} if resumes else {"tls": "none"}
        q = sendq.Sendq(folder, [sendq.route("smtp://%s:%d" % (FAR, link.port), **how)], **settings)
        q.clock(0)
        q.daemon()
        return q, link

    def stop(self):
        self.gateway.stop()
        self.postfix.stop()
        self.wire.stop()


def state(q, number):
    return q.get(number)["recipients"][0]["state"]


def last(q, number):
    return [a for a in q.attempts(number) if a["ended_ms"]][-1]["outcome"]


def words(q, number):
    return q.get(number)["recipients"][0]["reply"]["text"]


def given_up(case, since, limit=40):
    """Seconds from the silence until the attempt has ended."""
    q, number = case
    until(lambda: state(q, number) not in ("sending", "committing"), limit, "given up")
    return time.monotonic() - since


@test("a black hole: before content, in content, and behind the terminator; given up by what it costs", 700 if LONG else 150)
def black_hole(scene):
    def case(rules, octets, ready, resumes=False):
        q, link = scene.case(rules, resumes)
        number = q.submit(message(BOB, "hole", body(octets)))
        sent = q.octets(number)
        until(lambda: ready(q, number, link), 30, "it is there: %s" % rules)
        return q, link, number, sent

    def in_envelope(q, number, link):
        return q.attempts(number) and state(q, number) == "sending"

    def in_content(octets):
        return lambda q, number, link: q.get(number)["recipients"][0]["acked_octets"] >= octets

    def in_verdict(q, number, link):
        return state(q, number) == "committing"
    # Replies up to EHLO's pass; from then on nothing does, in that place.
    envelope = case("1 hole=down:200", 1000, in_envelope)
    content = case("1 stall=up:400000", 3000000, in_content(200000))
    resumable = case("1 stall=up:400000", 3000000, in_content(200000), True)
    verdict = case("1 final=hold", 1000, in_verdict)
    resumable_verdict = case("1 final=hold", 1000, in_verdict, True)
    everybody = [envelope, content, resumable, verdict, resumable_verdict]
    equal([state(c[0], c[2]) for c in everybody], ["sending", "sending", "sending", "committing", "committing"])
    with scene.wire.silence():
        since = time.monotonic()
        for where, one in (("before content", envelope), ("in content that can be resumed", resumable), ("verdict that can be asked for", resumable_verdict)):
            note("%s: given up %.1f s after the link went silent" % (where, given_up((one[0], one[2]), since)))
            # The last sign of life may be a probe's answer, some seconds before the silence.
            true(9 < time.monotonic() - since < 25, "given up too soon or too late")
        for one in (envelope, resumable):
            equal(last(one[0], one[2]), "stalled")
            holds(words(one[0], one[2]), "no sign of life from the server for ")
        equal(state(resumable_verdict[0], resumable_verdict[2]), "doubt")
        # Where giving up costs octets or makes doubt it goes on waiting.
        equal(state(content[0], content[2]), "sending")
        equal(state(verdict[0], verdict[2]), "committing")
        if LONG:
            note("in content without resume: given up %.1f s after" % given_up((content[0], content[2]), since, 220))
            true(170 < time.monotonic() - since < 200, "about three minutes")
            equal(state(verdict[0], verdict[2]), "committing")
    # The link is back: the one goes on where it was, the other is asked for.
    for q, link, number, sent in (resumable, resumable_verdict):
        # A try may be connecting still, with a minute between two of its packets.
        until(lambda: q.status("flush", number, seconds=150).code in (0, 75) and state(q, number) == "sent", 150, "sent")
        equal(scene.gateway.found(sent, BOB), 1, "copies")
    up = [r["up"] for r in resumable[1].records()]
    resumable[0].stop_daemon()
    resumable_verdict[0].stop_daemon()
    resumable[1].stop()
    up = sum(r["up"] for r in resumable[1].records())
    true(up < 1.05 * len(resumable[3]) + 20000, "%d octets for %d" % (up, len(resumable[3])))
    q, link, number, sent = envelope
    until(lambda: q.status("flush", number, seconds=150).code == 0 and state(q, number) == "sent", 150, "sent")
    # What waits for its verdict heard nothing: it is in doubt only when its own time is over.
    q, link, number, sent = verdict
    q.clock(11 * 60 * 1000)
    until(lambda: state(q, number) == "doubt", 30, "in doubt after eleven minutes")
    for one in (content, verdict, envelope):
        one[0].stop_daemon()


@test("a server that takes nothing, on a link that lives, is slow and not dead")
def closed_window(scene):
    q, link = scene.case("1 stall=up:400000")
    number = q.submit(message(BOB, "slow", body(3000000)))
    until(lambda: q.get(number)["recipients"][0]["acked_octets"] >= 200000, 30, "content")
    acked = None

    def standing():
        nonlocal acked
        now, acked = acked, q.get(number)["recipients"][0]["acked_octets"]
        return now == acked
    until(standing, 30, "the window is closed", pause=1.5)
    # Far beyond the time for content without a sign of life.
    q.clock(10 * 60 * 1000)
    until(lambda: [r for r in q.json("links") if r["route"]], 10)
    equal(q.status("list").code, 0)
    rounds = len(q.attempts(number))
    until(lambda: ticks(q, number, 3), 20, "three looks at the connection")
    equal(state(q, number), "sending")
    equal(len(q.attempts(number)), rounds)
    q.clock(45 * 60 * 1000)
    until(lambda: state(q, number) == "queued", 20, "half an hour is enough")
    equal(last(q, number), "stalled")
    holds(words(q, number), "the server's machine answers, but the server has taken nothing for ")
    q.stop_daemon()


def heard_ms(wire, port):
    """Since the kernel behind this connection was last heard, by our own kernel's word; None: there is none."""
    words = wire.near.ss("-tinH", "dst", "%s:%d" % (FAR, port)).split()
    return min([int(w.split(":")[1]) for w in words if w.startswith(("lastrcv:", "lastack:"))], default=None)


@test("the same where the server can resume: between two probes of a closed window silence is no death", 120, long=True)
def closed_window_resumes(scene):
    q, link = scene.case("1 stall=up:400000", True)
    number = q.submit(message(BOB, "slow", body(3000000)))
    until(lambda: q.get(number)["recipients"][0]["acked_octets"] >= 200000, 30, "content")
    until(lambda: (heard_ms(scene.wire, link.port) or 0) > 20000 or state(q, number) != "sending", 80, "20 s between two probes", pause=1)
    equal((state(q, number), len(q.attempts(number))), ("sending", 1))
    until(lambda: ticks(q, number, 3), 20, "three looks at the connection")
    equal(state(q, number), "sending")
    q.stop_daemon()


_seen = {}


def ticks(q, number, n):
    """The agent of this transfer has been round its loop: the kernel counts its sleeps."""
    pids = [pid for pid, words in process.running() if words and words[0].endswith("sendq-smtp") and parent(pid) == q._daemon.p.pid]
    if not pids:
        return False
    with open("/proc/%d/status" % pids[0]) as f:
        now = int([line for line in f if line.startswith("voluntary_ctxt_switches")][0].split()[1])
    return now - _seen.setdefault((number, pids[0]), now) >= n


def parent(pid):
    with open("/proc/%d/stat" % pid) as f:
        return int(f.read().rsplit(")", 1)[1].split()[1])


@test("a verdict that takes over 20 s: people see it, and the rest of the mail takes a second connection")
def slow_verdict(scene):
    q, link = scene.case("1 final=hold")
    first = q.submit(message(BOB, "being checked", body(1000)))
    until(lambda: state(q, first) == "committing", 30, "verdict")
    # Heard of once a second, and progress, behind which the clock begins anew.
    until(lambda: q.get(first)["recipients"][0]["acked_octets"] == q.get(first)["size"], 10, "all is acknowledged")
    rest = [q.submit(message(BOB, "the rest", body(1000))) for _ in range(3)]
    # Each request is answered in a round of the daemon's: it has seen them, and they wait.
    for command in ("hold", "release"):
        equal(q.status(command, rest[0]).code, 0)
    equal([state(q, n) for n in rest], ["queued"] * 3)
    q.clock(10 * 1000)
    for command in ("hold", "release"):
        equal(q.status(command, rest[0]).code, 0)
    equal([state(q, n) for n in rest], ["queued"] * 3)
    q.clock(21 * 1000)
    for n in rest:
        q.wait(n, "sent", 20)
    equal(state(q, first), "committing")
    holds(q.status().out, "the server is checking")
    q.clock(11 * 60 * 1000)
    until(lambda: state(q, first) == "doubt", 20, "in doubt at last")
    q.stop_daemon()
    link.stop()
    equal(len(link.records()), 2, "connections")


@test("the address that a connection came from goes: it is given up at once, but for ten seconds where that makes doubt")
def address_goes(scene):
    plain, link1 = scene.case("1 stall=up:400000")
    content = plain.submit(message(BOB, "homeless", body(3000000)))
    other, link2 = scene.case("1 final=hold")
    verdict = other.submit(message(BOB, "homeless", body(1000)))
    until(lambda: plain.get(content)["recipients"][0]["acked_octets"] >= 200000, 30, "content")
    until(lambda: state(other, verdict) == "committing", 30, "verdict")
    flap, link3 = scene.case("* delay=400")
    back = flap.submit(message(BOB, "an interface is set up anew", body(1000)))
    until(lambda: state(flap, back) == "committing", 30, "verdict under way")
    scene.wire.near.ip("addr", "del", NEAR + "/24", "dev", "near0")
    since = time.monotonic()
    until(lambda: plain.attempts(content)[0]["ended_ms"], 10, "given up", pause=0.01)
    note("given up after %.2f s" % (time.monotonic() - since))
    scene.wire.near.ip("addr", "add", NEAR + "/24", "dev", "near0")
    # What was given up is tried again as soon as there is a network.
    flap.wait(back, "sent", 20)
    equal(len(flap.attempts(back)), 1, "attempts of what had its address back in time")
    equal(state(other, verdict), "committing")
    plain.wait(content, "sent", 60)
    equal([plain.attempts(content)[n]["outcome"] for n in (0, -1)], ["cut", "accepted"])
    holds(plain.attempts(content)[0]["reply"]["text"], "the address of this machine that the connection came from is gone")
    scene.wire.near.ip("addr", "del", NEAR + "/24", "dev", "near0")
    since = time.monotonic()
    until(lambda: state(other, verdict) == "doubt", 20, "given up")
    note("behind the terminator: after %.2f s" % (time.monotonic() - since))
    true(9 < time.monotonic() - since < 13, "ten seconds")
    holds(words(other, verdict), "the address of this machine that the connection came from is gone")
    scene.wire.near.ip("addr", "add", NEAR + "/24", "dev", "near0")
    for q in (plain, other, flap):
        q.stop_daemon()


main(Scene, Scene.stop)
