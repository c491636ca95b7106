#!/usr/bin/python3
"""What the far side has is not sent again: CHECKPOINT against a server written from RFC 1845 alone."""
import base64
import os
import random
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fake"))
from checkpoint import OFFERS, Checkpoint, CheckpointSession  # noqa: E402
from harness import links, process, sendq  # noqa: E402
from harness.sendq import message  # noqa: E402
from harness.tap import add, equal, holds, main, note, test, true, until  # noqa: E402

MIB = 1 << 20
NO_CHUNKS = tuple(w for w in OFFERS if w != "CHUNKING")
BOB = "bob@example.test"


class Scene:
    def __init__(self):
        self.folder = process.temp_folder("resume")
        self._n = 0

    def pair(self, server, rules="", **route):
        """sendq on a link to the server: (sendq, link)."""
        self._n += 1
        folder = "%s/link%d" % (self.folder, self._n)
        os.makedirs(folder)
        link = links.BadLink(folder, server.port, rules)
        q = sendq.Sendq(self.folder, [sendq.route("smtp://127.0.0.1:%d" % link.port, tls="none", **route)],
                        name="sendq%d" % self._n, connect_timeout="20s")
        return q, link


def large(n, subject="large"):
    """n octets and a little of text with dots at line starts; no line repeats."""
    lines = []
    seed = random.Random(7)
    while n > 0:
        lines.append("%s%032x" % ("." if len(lines) % 5 == 0 else "", seed.getrandbits(128)))
        n -= len(lines[-1]) + 2
    return message(BOB, subject, "\n".join(lines) + "\n")


def frozen(q, number):
    return q.octets(number)


def once(server, octets, recipients=(BOB,)):
    """Accepted once, byte for byte."""
    equal(len(server.messages), 1, "accepted")
    equal(server.messages[0][1], list(recipients), "recipients")
    true(server.messages[0][2] == octets, "the octets differ: %d and %d" % (len(server.messages[0][2]), len(octets)))


def sent_up(link):
    return sum(r["up"] for r in link.records())


def cut_and_resumed(words, **options):
    def run(scene):
        server = Checkpoint(words=words, **options)
        q, link = scene.pair(server, "* cut=up:300000 with=fin times=1")
        number = q.submit(large(MIB))
        octets = frozen(q, number)
        equal(q.flush(), 75)
        # In doubt where the link had taken the whole of it, terminator included, and lost the rest.
        true(q.get(number)["recipients"][0]["state"] in ("queued", "doubt"), repr(q.get(number)["recipients"]))
        equal(q.flush(), 0)
        once(server, octets)
        equal(len(server.asked), 2, "MAILs with TRANSID")
        equal(len(set(server.asked)), 1, "one TRANSID")
        equal([c.split(" ")[0] for c in server.commands].count("RCPT"), 1, "RCPTs")
        true(sent_up(link) < 1.02 * len(octets), "%d octets for %d" % (sent_up(link), len(octets)))
    return run


add("BDAT, cut in the middle, resumed", cut_and_resumed(OFFERS))
add("BDAT, cut, resumed, with a promise and a hash", cut_and_resumed(OFFERS, promise=True, hashes=True))
add("DATA, cut in the middle, resumed at a line's start", cut_and_resumed(NO_CHUNKS, hashes=True))
add("without PIPELINING", cut_and_resumed(tuple(w for w in OFFERS if w != "PIPELINING")))


@test("25 cuts, one an attempt: everything goes over the wire once")
def many_cuts(scene):
    server = Checkpoint(promise=True, hashes=True)
    q, link = scene.pair(server, "* cut=up:200000 with=fin times=25")
    number = q.submit(large(4 * MIB))
    octets = frozen(q, number)
    flushes = 0
    while q.flush() == 75:
        flushes += 1
        true(flushes < 40, "it does not get through")
    once(server, octets)
    note("%d connections, %.4f times the message's octets" % (len(link.records()), sent_up(link) / len(octets)))
    true(sent_up(link) <= 1.05 * len(octets), "%d octets for %d" % (sent_up(link), len(octets)))


def settled_at_contact(words, **options):
    def run(scene):
        server = Checkpoint(words=words, **options)
        q, link = scene.pair(server, "* final=cut times=1")
        number = q.submit(large(20000))
        octets = frozen(q, number)
        q.flush()
        once(server, octets)
        if set(q.states(number).values()) == {"doubt"}:
            holds(q.status("why", number).out, "the server is asked", "sendq why")
            equal(q.flush(), 0)
        equal(q.states(number), {BOB: "sent"})
        once(server, octets)
        rows = q.sent()
        equal([(r["recipient"], r["reply"]["code"]) for r in rows], [(BOB, 250)])
        true(sent_up(link) < len(octets) + 4000, "it was sent again")
    return run


add("a lost final reply: the server is asked, and says that it has accepted (BDAT)", settled_at_contact(OFFERS))
add("the same with DATA", settled_at_contact(NO_CHUNKS))
add("the same with a promise", settled_at_contact(OFFERS, promise=True, hashes=True))


@test("a lost final reply that was a refusal: it fails, with the server's words")
def lost_refusal(scene):
    server = Checkpoint({"FINAL": ["554 5.7.1 not this one"]})
    q, link = scene.pair(server, "* final=cut times=1")
    number = q.submit(large(5000))
    q.flush()
    q.flush()
    equal(q.states(number), {BOB: "failed"})
    equal(len(server.messages), 0)
    holds(q.get(number)["recipients"][0]["reply"]["text"], "not this one")


@test("the terminator never arrived: the server shows it, and the message goes once")
def terminator_lost(scene):
    server = Checkpoint(promise=True)
    q, link = scene.pair(server)
    number = q.submit(large(50000))
    octets = frozen(q, number)
    # All content and not one octet of what follows it.
    probe = Checkpoint(promise=True)
    other, probe_link = scene.pair(probe)
    other.submit(large(50000))
    equal(other.flush(), 0)
    equal(len(probe.messages[0][2]), len(octets))
    whole = sent_up(probe_link)
    link.set("* cut=up:%d times=1" % (whole - len("BDAT 0 LAST\r\nQUIT\r\n")))
    q.flush()
    q.flush()
    equal(q.states(number), {BOB: "sent"})
    once(server, octets)


@test("in doubt, and a plain server knows nothing any more: it stays in doubt and is never sent again")
def forgotten_in_doubt(scene):
    server = Checkpoint()
    q, link = scene.pair(server, "* final=cut times=1")
    number = q.submit(large(5000))
    q.run("sendqd", "--once")
    if server.states:
        equal(q.states(number), {BOB: "doubt"})
    server.states.clear()
    for _ in range(3):
        equal(q.flush(), 75)
        equal(q.states(number), {BOB: "doubt"})
    equal(len(server.messages), 1, "accepted")
    equal(q.status("settle", number, "sent").code, 0)
    equal(q.flush(), 0)


@test("in doubt, and the store that promised to remember knows nothing: not accepted, it is sent")
def promised_and_unknown(scene):
    server = Checkpoint(promise=True, script={"FINAL": []})
    server.script = {}
    q, link = scene.pair(server, "* final=cut times=1")
    number = q.submit(large(5000))
    q.run("sendqd", "--once")
    equal(q.states(number), {BOB: "doubt"})
    # As if the terminator, and all before it, had never been processed.
    server.states.clear()
    server.messages.clear()
    q.flush()
    equal(q.states(number), {BOB: "sent"})
    equal(len(server.messages), 1)


@test("in doubt, and another store answers: it stays in doubt")
def another_store(scene):
    server = Checkpoint(promise=True)
    q, link = scene.pair(server, "* final=cut times=1")
    number = q.submit(large(5000))
    q.run("sendqd", "--once")
    server.states.clear()
    server.ehlo = server.ehlo[:-1] + ("XSENDQ RETAIN=86400 STORE=s2",)
    equal(q.flush(), 75)
    equal(q.states(number), {BOB: "doubt"})
    equal(len(server.messages), 1)


@test("other octets than ours under our TRANSID: noticed by the hash, and begun anew")
def other_octets(scene):
    server = Checkpoint(hashes=True)
    q, link = scene.pair(server, "* cut=up:30000 times=1")
    number = q.submit(large(100000))
    octets = frozen(q, number)
    equal(q.flush(), 75)
    state, = server.states.values()
    state.octets = b"X" + state.octets[1:]
    q.flush()
    equal(q.flush(), 0)
    once(server, octets)
    equal(len(set(server.asked)), 2, "TRANSIDs")


@test("more octets than the message has: begun anew")
def too_many_octets(scene):
    server = Checkpoint()
    q, link = scene.pair(server, "* cut=up:30000 times=1")
    number = q.submit(large(100000))
    octets = frozen(q, number)
    equal(q.flush(), 75)
    state, = server.states.values()
    state.octets = octets + b"more\r\n"
    q.flush()
    equal(q.flush(), 0)
    once(server, octets)


@test("the old session is still in use: asked again later, nothing is lost and nothing sent twice")
def in_use(scene):
    server = Checkpoint({"MAIL": [None, "450 4.4.5 transfer in use", None]})
    q, link = scene.pair(server, "* cut=up:30000 times=1")
    number = q.submit(large(100000))
    octets = frozen(q, number)
    equal(q.flush(), 75)
    equal(q.flush(), 75)
    holds(q.get(number)["recipients"][0]["reply"]["text"], "in use")
    equal(q.flush(), 0)
    once(server, octets)
    true(sent_up(link) < 1.1 * len(octets), "sent twice")


@test("the EHLO name of the configuration changes: the transfer goes on under the one it began with")
def ehlo_name_changes(scene):
    server = Checkpoint()
    q, link = scene.pair(server, "* cut=up:30000 times=1", ehlo_name="one.example.test")
    number = q.submit(large(100000))
    octets = frozen(q, number)
    equal(q.flush(), 75)
    q.configure([sendq.route("smtp://127.0.0.1:%d" % link.port, tls="none", ehlo_name="two.example.test")])
    equal(q.flush(), 0)
    once(server, octets)
    equal(len(set(server.asked)), 1, "TRANSIDs")
    q.submit(large(5000, "next"))
    equal(q.flush(), 0)
    equal(server.commands[-1 - [c.startswith("EHLO") for c in reversed(server.commands)].index(True)], "EHLO two.example.test")


@test("a recipient refused before the cut stays refused; the others are resumed")
def partly_refused(scene):
    server = Checkpoint({"RCPT": ["250 ok", "550 5.1.1 no such user", "250 ok", "550 5.1.1 no such user"]})
    q, link = scene.pair(server, "* cut=up:30000 times=1")
    number = q.submit(large(100000), "-t", "alice@example.test", "carol@example.test")
    octets = frozen(q, number)
    equal(q.flush(), 75)
    q.flush()
    q.flush()
    equal(q.states(number), {BOB: "sent", "alice@example.test": "sent", "carol@example.test": "failed"})
    once(server, octets, ("alice@example.test", BOB))
    true(sent_up(link) < 1.1 * len(octets), "sent twice")


@test("one of two in doubt is settled by hand: the server is not asked for both")
def settled_in_part(scene):
    server = Checkpoint()
    q, link = scene.pair(server, "* final=cut times=1")
    number = q.submit(large(5000), "-t", "carol@example.test")
    q.run("sendqd", "--once")
    equal(set(q.states(number).values()), {"doubt"})
    equal(q.status("settle", number, "sent", "--to", BOB).code, 0)
    equal(q.flush(), 75)
    equal(q.states(number), {BOB: "sent", "carol@example.test": "doubt"})
    equal(len(server.messages), 1)


@test("a person's resend is a transfer of its own, and says so to a server that recognises duplicates")
def person_resends(scene):
    server = Checkpoint(promise=True)
    q, link = scene.pair(server, "* final=cut times=1")
    number = q.submit(large(5000))
    q.run("sendqd", "--once")
    equal(q.status("resend", number).code, 0)
    equal(q.flush(), 0)
    mails = [c for c in server.commands if c.startswith("MAIL")]
    equal(len(mails), 2)
    holds(mails[1], " XRESEND")
    true(" XRESEND" not in mails[0], "the first copy says XRESEND")
    equal(len(set(server.asked)), 2, "TRANSIDs")


def killed(program, point):
    def run(scene):
        server = Checkpoint(promise=True)
        q, link = scene.pair(server)
        number = q.submit(large(600000))
        octets = frozen(q, number)
        q.run("sendqd", "--once", SENDQ_FAULT=point + "=kill", SENDQ_FAULT_PROGRAM=program)
        true(len(server.messages) <= 1, "accepted")
        for _ in range(4):
            if q.flush() == 0:
                break
        equal(q.states(number), {BOB: "sent"})
        once(server, octets)
    return run


for where in ("runner_after_envelope", "runner_after_intent", "runner_after_go", "runner_before_verdict"):
    add("sendqd killed at " + where + ": once", killed("sendqd", where))
for where in ("agent_after_envelope", "agent_content", "agent_before_terminator", "agent_after_terminator", "agent_after_reply"):
    add("sendq-smtp killed at " + where + ": once", killed("sendq-smtp", where))


class ByLogin(CheckpointSession):
    """Keeps transfers by login, as RFC 1845 lets it, and sendq-gateway does."""

    def on_auth(self, line):
        self.user = base64.b64decode(line.split(" ")[2]).split(b"\0")[1].decode()
        super().on_auth(line)

    def on_mail(self, line):
        self.name = self.name.split("/")[0] + "/" + self.user
        super().on_mail(line)


@test("in doubt, and the route logs in as somebody else: what that one is not told says nothing; it stays in doubt")
def another_login(scene):
    server = Checkpoint(promise=True, users={"ann": "a", "ann@example.test": "a"})
    server.session = ByLogin
    q, link = scene.pair(server, "* final=cut times=1", user="ann", password="a", auth="PLAIN")
    number = q.submit(message(BOB))
    equal(q.flush(), 75)
    equal(q.states(number), {BOB: "doubt"})
    q.configure([sendq.route("smtp://127.0.0.1:%d" % link.port, tls="none", user="ann@example.test", password="a", auth="PLAIN")])
    for _ in range(2):
        equal(q.flush(), 75)
    equal(q.states(number), {BOB: "doubt"})
    equal(len(server.messages), 1, "accepted")


@test("a doubt whose time ends while the server is asked: its answer is heard first, and no other session suffers")
def asked_at_the_end(scene):
    server = Checkpoint(promise=True)
    q, link = scene.pair(server, "* final=cut times=1")
    q.clock(0)
    number, later = q.submit(message(BOB)), q.submit(message("carol@example.test"), "-O", "NotBefore=30d", "-t")
    q.run("sendqd", "--once")
    equal(q.states(number), {BOB: "doubt"})
    asked, answer = threading.Event(), threading.Event()

    def slow(session, line):
        asked.set()
        answer.wait(60)

    server.script["RESUME"] = slow
    q.daemon()
    true(asked.wait(60), "the server was not asked: " + q.log()[-1500:])
    q.clock(6 * 86400 * 1000)
    # Carried out by the daemon: a round has passed since the clock was set.
    equal(q.status("hold", later).code, 0)
    equal(q.states(number), {BOB: "doubt"})
    answer.set()
    until(lambda: q.states(number) == {BOB: "sent"}, 20, "the answer is heard")
    true("queue failed" not in q.log(), q.log()[-1500:])
    q.stop_daemon()
    equal(len(server.messages), 1, "accepted")


@test("people see what the server keeps, and what a resume saves")
def seen(scene):
    server = Checkpoint(promise=True)
    q, link = scene.pair(server, "* cut=up:2500000 times=1")
    number = q.submit(large(4 * MIB))
    equal(q.flush(), 75)
    kept = q.get(number)["recipients"][0]["durable_octets"]
    true(kept >= MIB, "durable octets: %d" % kept)
    holds(q.status("why", number).out, "not sent again")
    equal(q.flush(), 0)


if __name__ == "__main__":
    main(Scene)
