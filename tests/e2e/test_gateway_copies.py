#!/usr/bin/python3
"""What a careful provider does with partial messages and duplicates: kept, told of, listed, delivered, removed unseen."""
import base64
import email
import email.policy
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import process  # noqa: E402
from harness.gateway import Gateway, Peer, wire_data  # noqa: E402
from harness.tap import equal, holds, main, test, true, until  # noqa: E402
from harness.world import World  # noqa: E402

numbers = iter(range(1, 1000000))
ANN, BOB = "ann@example.test", "bob@example.test"

MIXED = (b"From: Ann <ann@example.test>\r\nTo: bob@example.test\r\nSubject: =?utf-8?B?R3LDvMOfZQ==?= from afar\r\n"
         b"Message-ID: <%d.mixed@test>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b1\"\r\n\r\n"
         b"--b1\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
         b"Dear Bob, the caf=C3=A9 opens at nine.\r\nThe pictures are attached.\r\n\r\n"
         b"--b1\r\nContent-Type: image/png; name=secret.png\r\nContent-Transfer-Encoding: base64\r\n\r\n")


def picture():
    n = next(numbers)
    return MIXED % n + base64.encodebytes(bytes(range(256)) * 40).replace(b"\n", b"\r\n") + b"--b1--\r\n"


def transid():
    return "<c%d.%d@client.example.test>" % (os.getpid(), next(numbers))


class Scene:
    def __init__(self):
        self.folder = process.temp_folder("gateway-copies")
        self._n = 0

    def gateway(self, **settings):
        self._n += 1
        return Gateway(self.folder, name="g%d" % self._n, **settings)

    def stop(self):
        pass


def interrupt(gateway, content, identity, upto, to=(BOB,)):
    peer = Peer(gateway.port)
    peer.envelope(identity, len(content), to=to)
    peer.cmd("DATA")
    peer.send(wire_data(content)[:upto])
    peer.hang_up()


def listed(gateway, *more):
    code, out, err = gateway.command("list", "--json", *more)
    equal(code, 0, err)
    return [json.loads(line) for line in out.splitlines()]


def alerts(gateway, address):
    return [m for m in (email.message_from_bytes(c, policy=email.policy.default) for c in gateway.copies(address))
            if m["Auto-Submitted"]]


@test("an interrupted message is listed, shown, and removed unseen; its sender begins again")
def partial_listed(scene):
    gateway = scene.gateway()
    content, identity = picture(), transid()
    equal(listed(gateway), [])
    interrupt(gateway, content, identity, 1000)
    found = listed(gateway)
    equal(len(found), 1)
    one = found[0]
    equal((one["kind"], one["user"], one["from"], one["to"], one["size"]), ("partial", ANN, ANN, [BOB], len(content)))
    true(0 < one["octets"] <= 1000, "octets %r" % one["octets"])
    holds(one["message_id"], ".mixed@test>")
    equal((listed(gateway, ANN), listed(gateway, BOB)), (found, []))
    code, out, _ = gateway.command("show", str(one["id"]))
    holds(out, "partial")
    holds(out, BOB)
    holds(gateway.command("list")[1], "%d %%" % (one["octets"] * 100 // len(content)))
    equal(len(gateway.spooled()), 1)
    equal(gateway.command("remove", str(one["id"]))[0], 0)
    equal((listed(gateway), gateway.spooled()), ([], []))
    equal(gateway.command("remove", str(one["id"]))[0], 66)
    equal(gateway.command("show", "x")[0], 64)
    equal(Peer(gateway.port).mail(identity, len(content)).code, 250)
    gateway.stop()


@test("removed while its session still sends: the session is told, nothing of it arrives")
def removed_meanwhile(scene):
    gateway = scene.gateway()
    content = picture()
    peer = Peer(gateway.port)
    peer.envelope(transid(), len(content), to=[BOB])
    equal(peer.bdat(content[:1000], last=False).code, 250)
    equal(gateway.command("remove", str(listed(gateway)[0]["id"]))[0], 0)
    equal(peer.bdat(content[1000:]).code, 421)
    equal(gateway.copies(BOB), [])
    gateway.stop()


@test("partial = keep: nobody is told; deliver: one early alert, then the whole message unaltered")
def early_alert(scene):
    gateway = scene.gateway(alert_after="10m")
    equal(gateway.command("set", ANN, "partial=deliver")[0], 0)
    equal(gateway.command("set", ANN, "partial=perhaps")[0], 64)
    content, identity = picture(), transid()
    cut = content.find(b"base64") + 500
    interrupt(gateway, content, identity, cut)
    # Somebody of whom nothing is said: kept.
    other = Peer(gateway.port, user=BOB)
    other.envelope(transid(), to=[ANN])
    equal(other.bdat(b"Subject: of bob's\r\n\r\nhello\r\n", last=False).code, 250)
    gateway.shift(700)
    alert = until(lambda: alerts(gateway, BOB), 30, "an alert")[0]
    equal(alert["Return-Path"], "<>")
    equal(alert["Auto-Submitted"], "auto-generated")
    percent = listed(gateway, ANN)[0]["octets"] * 100 // len(content)
    equal(alert["Subject"], "[Incomplete, %d %%] Grüße from afar" % percent)
    original = email.message_from_bytes(content, policy=email.policy.default)["Message-ID"]
    equal(alert["References"], original)
    true(alert["Message-ID"] != original, "an alert is no copy of the message")
    text = alert.get_content()
    for word in ("Dear Bob, the café opens at nine.", "From: Ann <ann@example.test>", "of %d octets" % len(content), "still sending"):
        holds(text, word)
    for word in ("AAECAwQFBgcICQ", "The sender's name"):
        true(word not in text, "an attachment is in it")
    # One, whatever comes: another cut, another round, another TRANSID of the same message.
    peer = Peer(gateway.port)
    offset = peer.mail(identity, len(content)).offset()
    peer.cmd("DATA")
    peer.send(wire_data(content[offset:])[:200])
    peer.hang_up()
    interrupt(gateway, content, transid(), cut)
    gateway.shift(2000)
    marked = content.replace(b".mixed@", b".later@")
    interrupt(gateway, marked, transid(), cut)
    gateway.shift(3000)
    until(lambda: len(alerts(gateway, BOB)) >= 2, 30, "the alert of the later message")
    equal(len(alerts(gateway, BOB)), 2)
    equal(alerts(gateway, ANN), [], "bob's mail waits without a word")
    peer = Peer(gateway.port)
    offset = peer.mail(identity, len(content)).offset()
    equal(peer.data(content[offset:]).code, 250)
    equal(gateway.found(content, BOB), 1)
    gateway.stop()


@test("an alert of less than a header, and of what a person asks for by hand")
def small_alerts(scene):
    gateway = scene.gateway()
    content = picture()
    interrupt(gateway, content, transid(), 40)
    one = listed(gateway)[0]
    equal(gateway.command("deliver", str(one["id"]))[0], 0)
    alert = alerts(gateway, BOB)[0]
    holds(alert["Subject"], "[Incomplete, 0 %]")
    true("Its header" not in alert.get_content(), "half a header is shown")
    html = (b"From: ann@example.test\r\nSubject: h\r\nMessage-ID: <%d.h@test>\r\nContent-Type: text/html\r\n\r\n<b>bold</b>\r\nmore\r\n"
            % next(numbers))
    peer = Peer(gateway.port)
    peer.envelope(transid(), to=[BOB])
    peer.bdat(html, last=False)
    peer.hang_up()
    equal(gateway.command("deliver", str(listed(gateway)[1]["id"]))[0], 0)
    text = alerts(gateway, BOB)[1].get_content()
    true("bold" not in text, "HTML is no text")
    holds(text, "of how many is not known")
    equal(len(listed(gateway)), 2, "told of, and still waiting")
    gateway.stop()


@test("a duplicate is set aside: delivered by hand, removed, or gone with its window")
def duplicates(scene):
    gateway = scene.gateway(duplicate_window="1h")
    content = picture()
    for identity in (transid(), transid(), None):
        peer = Peer(gateway.port)
        peer.envelope(identity, to=[BOB])
        equal(peer.data(content).code, 250)
        peer.cmd("QUIT")
    equal(gateway.found(content, BOB), 1)
    found = listed(gateway)
    equal([(d["kind"], d["octets"], d["to"]) for d in found], [("duplicate", len(content), [BOB])] * 2)
    holds(found[0]["verdict"], "duplicate of")
    equal(len(gateway.spooled()), 2)
    equal(gateway.command("deliver", str(found[1]["id"]))[0], 0)
    equal(sum(1 for c in gateway.copies(BOB) if c.endswith(content)), 2)
    equal(gateway.command("deliver", str(found[0]["id"]))[0], 0)
    equal(sum(1 for c in gateway.copies(BOB) if c.endswith(content)), 3)
    equal((listed(gateway), gateway.spooled()), ([], []))
    peer = Peer(gateway.port)
    peer.envelope(to=[BOB])
    equal(peer.data(content).code, 250)
    equal(len(listed(gateway)), 1)
    gateway.shift(3700)
    until(lambda: listed(gateway) == [] and gateway.spooled() == [], 30, "the sweep")
    gateway.stop()


@test("many messages in a session without TRANSID: each its own octets, and a copy that was set aside keeps its")
def one_session(scene):
    gateway = scene.gateway()
    long, short, peer = picture(), MIXED % next(numbers) + b"short\r\n--b1--\r\n", Peer(gateway.port)
    for content in (long, short, long, picture(), short, picture()):
        peer.envelope(to=[BOB])
        equal(peer.data(content).code, 250)
        equal(gateway.found(content, BOB), 1)
    equal([d["octets"] for d in listed(gateway)], [len(long), len(short)])
    equal(sorted(os.path.getsize("%s/spool/%s" % (gateway.state, name)) for name in gateway.spooled()), [len(short), len(long)])
    for copy in listed(gateway):
        equal(gateway.command("deliver", str(copy["id"]))[0], 0)
    for content in (long, short):
        equal(sum(1 for c in gateway.copies(BOB) if c.endswith(content)), 2)
    gateway.stop()


@test("allow_duplicates, by user and for all")
def allow(scene):
    for gateway in (scene.gateway(), scene.gateway(allow_duplicates=True)):
        everybody = "allow_duplicates" in gateway.settings
        content = picture()

        def give():
            peer = Peer(gateway.port)
            peer.envelope(to=[BOB])
            equal(peer.data(content).code, 250)
            return gateway.found(content, BOB)

        equal(give(), 1)
        equal(give(), 2 if everybody else 1)
        gateway.command("set", ANN, "allow_duplicates=" + ("off" if everybody else "on"))
        equal(give(), 2)
        gateway.stop()


@test("in front of a backend alerts go to local people by a server that needs no login, else to the sender alone")
def local_people(scene):
    # Local mail without a login, nothing else: what mynetworks trusts is not this machine.
    world = World("gateway-local", more="mynetworks = 192.0.2.1\nsmtpd_recipient_restrictions = permit_sasl_authenticated, "
                  "reject_unauth_destination\nsmtpd_authorized_xclient_hosts = 127.0.0.1\n")
    postfix = world.postfix
    gateway = scene.gateway(mailboxes=(), backend=True, trusted="starttls://localhost:%d" % postfix.submission,
                            backend_ca=world.certs.ca, local_server="smtp://127.0.0.1:%d" % postfix.port, deliver_partial=True,
                            alert_after="1m")
    mine, outside = picture(), picture()
    interrupt(gateway, mine, transid(), 900, to=["bob@example.test", "friend@elsewhere.test"])
    interrupt(gateway, outside, transid(), 900, to=["friend@elsewhere.test"])
    gateway.shift(100)
    bob = postfix.settled("bob", 1)[0]
    ann = postfix.settled("ann", 1)[0]
    for one in (bob, ann):
        parsed = email.message_from_bytes(one, policy=email.policy.default)
        holds(parsed["Subject"], "[Incomplete")
        equal(parsed["Return-Path"], "<>")
    true("elsewhere.test>, relay" not in postfix.log(), "an alert left the house")
    gateway.stop()
    world.stop()


if __name__ == "__main__":
    main(Scene, Scene.stop)
