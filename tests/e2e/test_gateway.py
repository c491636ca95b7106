#!/usr/bin/python3
"""sendq-gateway against a scripted client: whatever is cut, and wherever, one whole copy arrives."""
import base64
import hashlib
import os
import random
import shutil
import signal
import stat
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import certs, process  # noqa: E402
from harness.gateway import USERS, Gateway, Peer, stuffed, wire_data  # noqa: E402
from harness.tap import add, equal, holds, main, note, test, true, until  # noqa: E402

LONG = os.environ.get("SENDQ_LONG") == "1"
numbers = iter(range(1, 1000000))


def message(size=3000, dots=True):
    """A message nobody has seen yet: lines of many lengths, some that begin with dots."""
    n = next(numbers)
    rng = random.Random(n)
    out = (b"From: <ann@example.test>\r\nMessage-ID: <%d.%d@test>\r\nSubject: number %d\r\n\r\n" % (os.getpid(), n, n))
    while len(out) < size - 100:
        line = bytes(rng.choice(b"abcdefghij klmnop") for _ in range(rng.randrange(0, 90)))
        out += (rng.choice([b"", b".", b"..", b"..."]) if dots else b"") + line + b"\r\n"
    return out + b".\r\n..\r\nend\r\n"


def transid():
    return "<t%d.%d@client.example.test>" % (os.getpid(), next(numbers))


class Scene:
    def __init__(self):
        self.folder = process.temp_folder("gateway")
        self.certs = certs.Certs(self.folder)
        self.gateway = Gateway(self.folder, certs=self.certs, listen=("smtp", "starttls", "smtps"))
        self._n = 0

    def another(self, **settings):
        """A gateway of its own, for tests that kill it or turn its clock."""
        self._n += 1
        return Gateway(self.folder, name="gateway%d" % self._n, **settings)

    def peer(self, **more):
        return Peer(self.gateway.port, **more)

    def stop(self):
        self.gateway.stop()


def sha256(octets):
    return hashlib.sha256(octets).hexdigest()


def lines_of(octets):
    """So much of it as whole lines."""
    return octets[:octets.rfind(b"\r\n") + 2] if b"\r\n" in octets else b""


def arrived(wire):
    """Of what DATA sent: the octets of the message that a server has understood, whole lines of it."""
    whole = lines_of(wire)
    out = b""
    for line in whole.splitlines(True):
        if line == b".\r\n":
            break
        out += line[1:] if line.startswith(b".") else line
    return out


def resume(peer, identity, content, verb, size=None):
    """MAIL again, the rest of the content; (offset, verdict)."""
    answer = peer.envelope(identity, size)
    if answer.code == 250:
        return None, peer.data(content) if verb == "DATA" else peer.bdat(content)
    equal(answer.code, 355, "reply to MAIL: %r" % answer)
    offset = answer.offset()
    equal(answer.sha256(), sha256(content[:offset]), "hash of the first %d octets" % offset)
    return offset, peer.data(content[offset:]) if verb == "DATA" else peer.bdat(content[offset:])


# ---- whole messages

def whole(port, tls, verb):
    def run(scene):
        content = message(200000)
        peer = Peer(scene.gateway.ports[port], tls=tls, ca=scene.certs.ca)
        equal(peer.envelope(transid(), len(content)).code, 250)
        verdict = peer.data(content) if verb == "DATA" else peer.bdat(content)
        equal(verdict.code, 250, repr(verdict))
        equal(peer.cmd("QUIT").code, 221)
        equal(scene.gateway.found(content), 1, "copies")
        holds(scene.gateway.copies()[-1], b"with ESMTP%sA id" % (b"S" if tls else b""))
        scene.gateway.empty()
    return run


for port_, (tls_, verb_) in enumerate([(None, "DATA"), ("starttls", "BDAT"), ("implicit", "DATA")]):
    add("a whole message arrives octet by octet: %s, TLS %s" % (verb_, tls_), whole(port_, tls_, verb_))


@test("EHLO says what it can, and a stable store id")
def offers(scene):
    first, second = scene.peer().hello.lines, scene.peer().hello.lines
    words = [line[4:].split()[0] for line in first]
    for word in ("PIPELINING", "CHUNKING", "SIZE", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8", "AUTH", "CHECKPOINT"):
        true(word in words, "%s is not in %r" % (word, words))
    true(first[-1] == "250 CHECKPOINT", "CHECKPOINT takes no parameter: %r" % first[-1])
    promise = [line for line in first if "XSENDQ" in line]
    holds(promise[0], "RETAIN=2592000 STORE=")
    equal([line for line in second if "XSENDQ" in line], promise)


@test("several messages and a pipelined one in a session")
def several(scene):
    peer = scene.peer()
    for content in (message(), message()):
        peer.envelope(transid(), len(content))
        equal(peer.data(content).code, 250)
        equal(scene.gateway.found(content), 1)
    content = message()
    peer.send(b"MAIL FROM:<ann@example.test> TRANSID=%s\r\nRCPT TO:<ann@example.test>\r\nRCPT TO:<nobody@example.test>\r\n"
              b"RCPT TO:<bob@example.test>\r\nBDAT 10\r\n" % transid().encode() + content[:10] +
              b"BDAT %d LAST\r\n" % (len(content) - 10) + content[10:] + b"QUIT\r\n")
    equal([peer.reply().code for _ in range(7)], [250, 250, 550, 250, 250, 250, 221])
    equal((scene.gateway.found(content), scene.gateway.found(content, "bob@example.test")), (1, 1))
    scene.gateway.empty()


def nameless(pid):
    """Octets of files without a name that this process and its children have open."""
    n = 0
    for fd in os.listdir("/proc/%d/fd" % pid):
        try:
            st = os.stat("/proc/%d/fd/%s" % (pid, fd))
        except FileNotFoundError:
            continue
        n += st.st_size if stat.S_ISREG(st.st_mode) and st.st_nlink == 0 else 0
    with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
        return n + sum(nameless(int(child)) for child in f.read().split())


@test("a session that is kept open keeps no room for a large message that is through")
def room(scene):
    gateway = scene.another()
    peer = Peer(gateway.port)
    for size, most in ((3000000, 0), (3000, 4096)):
        content = message(100) + (b"y" * 70 + b"\r\n") * (size // 72)
        peer.envelope()
        equal(peer.data(content).code, 250)
        true(nameless(gateway.process.p.pid) >= len(content), "it is seen")
        peer.cmd("RSET")
        true(nameless(gateway.process.p.pid) <= most, "%d octets are kept" % nameless(gateway.process.p.pid))
    gateway.stop()


# ---- cuts

def points(length, special):
    """All of them, or a seeded sample with the special ones."""
    if LONG:
        return range(length + 1)
    return sorted(set(random.Random(1845).sample(range(length), 25)) | set(special))


@test("DATA cut by FIN: all that came counts, in whole lines, and the rest makes one copy", seconds=3000)
def cut_data(scene):
    sample = message()
    wire = wire_data(sample)
    dot = wire.find(b"\r\n..") + 2
    special = [0, 1, dot - 1, dot, dot + 1, dot + 2, len(wire) - 3, len(wire) - 2, len(wire) - 1, len(wire)]
    for k in points(len(wire), special):
        content = sample.replace(b"Subject: number", b"Subject: %6d" % k).replace(b"Message-ID: <", b"Message-ID: <%d." % k)
        k += len(wire_data(content)) - len(wire)
        identity = transid()
        first = scene.peer()
        first.envelope(identity, len(content))
        equal(first.cmd("DATA").code, 354)
        sent = wire_data(content)[:k]
        first.send(sent)
        first.hang_up()
        second = scene.peer()
        offset, verdict = resume(second, identity, content, "DATA", len(content))
        equal(offset, len(arrived(sent)), "offset after a cut behind %d octets of %d" % (k, len(wire_data(content))))
        equal(verdict.code, 250, repr(verdict))
        second.close()
        equal(scene.gateway.found(content), 1, "copies after a cut behind %d octets" % k)
        scene.gateway.empty()


@test("BDAT cut by FIN: every octet counts", seconds=3000)
def cut_bdat(scene):
    sample = message()
    for k in points(len(sample), [0, 1, 999, 1000, 1001, len(sample) - 1, len(sample)]):
        content = sample.replace(b"Message-ID: <", b"Message-ID: <%d.b" % k)
        identity = transid()
        first = scene.peer()
        first.envelope(identity, len(content))
        half = min(k, 1000)
        if half == 1000:
            equal(first.bdat(content[:half], last=False).code, 250)
        else:
            half = 0
        first.send(b"BDAT %d LAST\r\n" % (len(content) - half) + content[half:k])
        first.hang_up()
        second = scene.peer()
        offset, verdict = resume(second, identity, content, "BDAT", len(content))
        equal(offset, k, "offset after a cut behind %d octets of %d" % (k, len(content)))
        equal(verdict.code, 250, repr(verdict))
        second.close()
        equal(scene.gateway.found(content), 1, "copies after a cut behind %d octets" % k)
        scene.gateway.empty()


@test("cut by RST at any octet, again and again: one copy, and no offset beyond what was sent", seconds=1200)
def cut_by_reset(scene):
    rng = random.Random(47)
    for _ in range(100 if LONG else 12):
        content, identity, verdict, tries = message(20000), transid(), None, 0
        verb = rng.choice(["DATA", "BDAT"])
        while verdict is None or verdict.code != 250:
            tries += 1
            peer = scene.peer()
            answer = peer.envelope(identity, len(content))
            at = answer.offset() if answer.code == 355 else 0
            if at:
                equal(answer.sha256(), sha256(content[:at]), "prefix")
            if tries > 4:
                verdict = peer.data(content[at:]) if verb == "DATA" else peer.bdat(content[at:])
                equal(verdict.code, 250, repr(verdict))
            elif verb == "DATA":
                equal(peer.cmd("DATA").code, 354)
                wire = wire_data(content[at:])
                peer.send(wire[:rng.randrange(len(wire) + 1)])
            else:
                peer.send(b"BDAT %d LAST\r\n" % (len(content) - at) + content[at:at + rng.randrange(len(content) - at + 1)])
            peer.reset()
        equal(scene.gateway.found(content), 1, "copies")
        scene.gateway.empty()


@test("a lost verdict is given again, as often as it is asked for, and until retention ends")
def lost_verdict(scene):
    gateway = scene.another(retain="1h")
    for verb in ("DATA", "BDAT"):
        content, identity = message(), transid()
        peer = Peer(gateway.port)
        peer.envelope(identity, len(content))
        verdict = peer.data(content) if verb == "DATA" else peer.bdat(content)
        peer.cmd("QUIT")
        for _ in range(3):
            peer = Peer(gateway.port)
            answer = peer.envelope(identity, len(content))
            equal((answer.code, answer.offset(), answer.sha256()), (355, len(content), sha256(content)))
            again = peer.data(b"") if verb == "DATA" else peer.bdat(b"")
            equal(again.lines, verdict.lines)
            peer.close()
        equal(gateway.found(content), 1)
        equal(gateway.spooled(), [], "the body goes once the client knows")
    gateway.shift(3601)
    answer = Peer(gateway.port).mail(identity, len(content))
    equal(answer.code, 250, "after retention: %r" % answer)
    gateway.stop()


@test("what was interrupted waits for as long as was promised, and no longer")
def interrupted_expires(scene):
    gateway = scene.another(interrupted="1h")
    content, identity = message(), transid()
    for shift, code in ((3000, 355), (7000, 250)):
        peer = Peer(gateway.port)
        answer = peer.envelope(identity, len(content))
        if answer.code == 250:
            peer.cmd("DATA")
            peer.send(wire_data(content)[:500])
        peer.hang_up()
        gateway.shift(shift)
        peer = Peer(gateway.port)
        equal(peer.mail(identity, len(content)).code, code, "%d s later" % shift)
        peer.hang_up()
    gateway.stop()


@test("octets beyond a complete message are refused, and change nothing")
def beyond(scene):
    content, identity = message(), transid()
    peer = scene.peer()
    peer.envelope(identity, len(content))
    verdict = peer.data(content)
    peer.close()
    peer = scene.peer()
    equal(peer.mail(identity, len(content)).offset(), len(content))
    equal(peer.data(b"more\r\n").code, 554)
    peer = scene.peer()
    equal(peer.mail(identity, len(content)).offset(), len(content))
    equal(peer.data(b"").lines, verdict.lines)
    equal(scene.gateway.found(content), 1)
    scene.gateway.empty()


# ---- who may take up what

@test("two sessions at once: the newer has it, whatever the older still says is void")
def two_sessions(scene):
    for verb in ("DATA", "BDAT"):
        for late in ("terminator", "content"):
            content, identity = message(), transid()
            old, new = scene.peer(), scene.peer()
            old.envelope(identity, len(content))
            if verb == "DATA":
                old.cmd("DATA")
                old.send(wire_data(content)[:1000])
            else:
                equal(old.bdat(content[:1000], last=False).code, 250)
            answer = new.mail(identity, len(content))
            equal(answer.code, 355)
            # The old session goes on as if nothing had happened.
            if verb == "DATA":
                old.send(wire_data(content)[1000:] if late == "terminator" else wire_data(content)[1000:2000])
            else:
                old.send(b"BDAT %d%s\r\n" % (len(content) - 1000, b" LAST" if late == "terminator" else b"") + content[1000:])
            if late == "terminator" or verb == "BDAT":
                equal(old.reply().code, 421, "the late end of the older session")
            at = answer.offset()
            equal(answer.sha256(), sha256(content[:at]))
            verdict = new.data(content[at:]) if verb == "DATA" else new.bdat(content[at:])
            equal(verdict.code, 250, repr(verdict))
            equal(scene.gateway.found(content), 1, "copies")
            old.close()
            new.close()
            scene.gateway.empty()


@test("two sessions that both begin anew: one has the content, the other is sent away")
def two_beginnings(scene):
    content, identity = message(), transid()
    one, two = scene.peer(), scene.peer()
    one.envelope(identity)
    two.envelope(identity)
    equal(one.cmd("DATA").code, 354)
    equal(two.cmd("DATA").code, 421)
    one.send(wire_data(content))
    equal(one.reply().code, 250)
    equal(scene.gateway.found(content), 1)
    scene.gateway.empty()


@test("another EHLO name, other parameters, another login")
def keys(scene):
    content, identity = message(), transid()
    first = scene.peer()
    first.envelope(identity, len(content))
    first.cmd("DATA")
    first.send(wire_data(content)[:1000])
    first.hang_up()
    equal(scene.peer(ehlo="elsewhere.example.test").mail(identity, len(content)).code, 250, "another EHLO name")
    equal(scene.peer(user="bob@example.test").mail(identity, len(content)).code, 250, "a stranger with the TRANSID")
    for changed in (dict(size=len(content) + 1), dict(size=len(content), sender="bob@example.test"),
                    dict(size=len(content), more=" BODY=8BITMIME"), dict()):
        answer = scene.peer().mail(identity, **changed)
        equal((answer.code, answer.text[:5]), (501, "5.5.4"), "changed to %r" % changed)
    answer = scene.peer(ehlo="LAP.Example.TEST").mail(identity, len(content))
    equal(answer.code, 355, "nothing of this has changed the state: %r" % answer)


@test("no recipients after 355 but those that are known")
def recipients_settled(scene):
    content, identity = message(), transid()
    peer = scene.peer()
    peer.envelope(identity, len(content))
    peer.cmd("DATA")
    peer.send(wire_data(content)[:1000])
    peer.hang_up()
    peer = scene.peer()
    equal(peer.mail(identity, len(content)).code, 355)
    equal(peer.cmd("RCPT TO:<ann@example.test>").code, 250)
    equal(peer.cmd("RCPT TO:<bob@example.test>").code, 503)
    equal(peer.cmd("BDAT 0 LAST").code, 503, "another verb than the first session's")


@test("RSET, QUIT and a new MAIL end what is under way; before content nothing is kept")
def ended_by_client(scene):
    for word in ("RSET", "QUIT"):
        content, identity = message(), transid()
        peer = scene.peer()
        peer.envelope(identity, len(content))
        equal(peer.bdat(content[:1000], last=False).code, 250)
        peer.cmd(word)
        peer.hang_up()
        equal(scene.peer().mail(identity, len(content)).code, 250, "after " + word)
    peer = scene.peer()
    identity = transid()
    peer.envelope(identity)
    peer.hang_up()
    equal(scene.peer().mail(identity).code, 250, "cut before content")


@test("a temporary refusal keeps the data, though the client quits; the next terminator tries again")
def refused_for_now(scene):
    content, identity = message(), transid()
    box = os.path.join(scene.gateway.mail, "ann@example.test")
    os.rename(box + "/tmp", box + "/gone")
    peer = scene.peer()
    peer.envelope(identity, len(content))
    equal(peer.data(content).code, 451)
    peer.cmd("QUIT")
    os.rename(box + "/gone", box + "/tmp")
    peer = scene.peer()
    equal(peer.mail(identity, len(content)).offset(), len(content))
    equal(peer.data(b"").code, 250)
    equal(scene.gateway.found(content), 1)
    scene.gateway.empty()


# ---- what is refused

@test("one of two mailboxes fails: the other one's copy is not made again, wherever its reader has put it")
def one_of_two(scene):
    both = ("ann@example.test", "bob@example.test")
    box, seen = os.path.join(scene.gateway.mail, both[1]), os.path.join(scene.gateway.mail, both[0])
    for identity in (transid(), None):
        content = message()
        os.rename(box + "/tmp", box + "/gone")
        peer = scene.peer()
        peer.envelope(identity, len(content), to=both)
        equal(peer.data(content).code, 451)
        peer.close()
        os.rename(box + "/gone", box + "/tmp")
        equal(scene.gateway.found(content), 1)
        for name in os.listdir(seen + "/new"):
            os.rename("%s/new/%s" % (seen, name), "%s/cur/%s:2,S" % (seen, name))
        peer = scene.peer()
        answer = peer.envelope(identity, len(content), to=both)
        equal(peer.data(content if answer.code == 250 else b"").code, 250)
        equal((scene.gateway.found(content), scene.gateway.found(content, both[1])), (0, 1), "new copies")
        scene.gateway.empty()


@test("TRANSID as RFC 1845 has it, and nothing else")
def transid_syntax(scene):
    peer = scene.peer()
    for good in ("<a@b>", "<a.b.c@d.e>", "<!#$%&'*+-^_`{|}~@x>", "<" + "a" * 38 + "@" + "b" * 39 + ">"):
        equal(peer.mail(good).code, 250, good)
        peer.cmd("RSET")
    for bad in ("a@b", "<a>", "<@b>", "<a@>", "<a..b@c>", "<.a@c>", "<a.@c>", "<a@b@c>", "<a@[1.2.3.4]>", "<a,b@c>",
                "<" + "a" * 39 + "@" + "b" * 39 + ">"):
        peer = scene.peer()
        equal(peer.mail(bad).code, 501, bad)
    equal(scene.peer().cmd("MAIL FROM:<ann@example.test> TRANSID=<a@b> TRANSID=<a@b>").code, 501)


@test("a bare CR or LF is refused, never mended: no mail can be smuggled")
def smuggling(scene):
    for bad in (b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"a\nb", b"a\rb", b"\r\r\n"):
        content = stuffed(message()) + b"x" + bad + b"MAIL FROM:<evil@example.test>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\nevil\r\n.\r\n"
        peer = scene.peer()
        peer.envelope()
        equal(peer.cmd("DATA").code, 354)
        peer.send(content)
        answer = peer.reply()
        equal(answer.code, 554, "after %r: %r" % (bad, answer))
        equal(peer.f.read(), b"", "nothing is said or taken behind it")
        peer = scene.peer()
        peer.envelope(transid())
        equal(peer.bdat(message() + b"x" + bad + b"y\r\n").code, 554, "BDAT with %r" % bad)
    equal((scene.gateway.copies(), scene.gateway.copies("bob@example.test")), ([], []))


@test("nothing follows STARTTLS in the clear, and nothing said before it is remembered")
def starttls(scene):
    peer = Peer(scene.gateway.ports[1], login=False)
    peer.cmd("EHLO x")
    equal(peer.cmd("AUTH PLAIN AAAA").code, 538, "no login in the clear")
    peer.send(b"STARTTLS\r\nNOOP\r\n")
    equal(peer.reply().code, 501)
    equal(peer.f.read(), b"")
    peer = Peer(scene.gateway.ports[1], tls="starttls", ca=scene.certs.ca, login=False)
    equal(peer.cmd("MAIL FROM:<a@b>").code, 503, "EHLO is to be said again")


@test("logins: wrong words, no words, others' names, before and after")
def logins(scene):
    peer = scene.peer(login=False)
    equal(peer.cmd("MAIL FROM:<ann@example.test>").code, 503)
    peer.cmd("EHLO x")
    equal(peer.cmd("MAIL FROM:<ann@example.test>").code, 530)
    word = USERS["ann@example.test"]
    for words in ("\0ann@example.test\0wrong", "\0ann@example.test\0", "\0nobody\0" + word, "bob\0ann@example.test\0" + word,
                  "\0ann@example.test", "", "\0ann@example.test\0" + word + "\0x"):
        equal(peer.cmd("AUTH PLAIN " + (base64.b64encode(words.encode()).decode() or "=")).code, 535, repr(words))
    equal(peer.cmd("AUTH PLAIN !").code, 501)
    equal(peer.cmd("AUTH CRAM-MD5").code, 504)
    equal(peer.cmd("AUTH LOGIN").code, 334)
    equal(peer.cmd(base64.b64encode(b"ann@example.test").decode()).code, 334)
    equal(peer.cmd(base64.b64encode(word.encode()).decode()).code, 235)
    equal(peer.cmd("AUTH LOGIN").code, 503)
    equal(peer.cmd("MAIL FROM:<ann@example.test>").code, 250)
    true(word not in scene.gateway.log() and base64.b64encode(word.encode()).decode() not in scene.gateway.log(),
         "a password is in the log")


@test("no mail for strangers: recipients without a mailbox, and paths that lead out of it")
def local_only(scene):
    peer = scene.peer()
    peer.mail()
    for address in ("x@elsewhere.test", "nobody@example.test", "../x@example.test", "ann@example.test/../bob@example.test", ".@x"):
        equal(peer.cmd("RCPT TO:<%s>" % address).code, 550, address)
    equal(peer.cmd("RCPT TO:<ANN@Example.Test>").code, 250, "letters of any case")
    equal(peer.cmd("RCPT TO:<>").code, 501)


@test("sizes: declared and sent, lines, parameters, errors")
def bounds(scene):
    gateway = scene.another(max_size="100k", user_quota="150k")
    equal(Peer(gateway.port).mail(size=200000).code, 552)
    peer = Peer(gateway.port)
    peer.envelope(transid())
    equal(peer.data(message(200000)).code, 552)
    peer = Peer(gateway.port)
    peer.envelope(transid())
    peer.send(b"BDAT 200000\r\n")
    equal(peer.reply().code, 552)
    peer = Peer(gateway.port)
    equal(peer.cmd("NOOP " + "x" * 5000).code, 500)
    equal(peer.f.read(), b"")
    peer = Peer(gateway.port)
    codes = [peer.cmd("NONSENSE").code for _ in range(21)]
    equal(codes, [500] * 20 + [421])
    # Two halves of a quota, and one message too many.
    for n, code in enumerate((250, 452)):
        peer = Peer(gateway.port)
        equal(peer.envelope("<q%d@x>" % n, 90000).code, code, "message %d" % n)
        if code == 250:
            equal(peer.bdat(message(90000), last=False).code, 250)
        peer.hang_up()
    gateway.stop()


@test("user_messages: so many may be interrupted; one that is accepted counts no more, though its client stays")
def interrupted_ones(scene):
    gateway = scene.another(user_messages=2)
    peers = []
    for code in (250, 250, 250):
        peers.append(Peer(gateway.port))
        content = message()
        equal(peers[-1].envelope(transid(), len(content)).code, code)
        equal(peers[-1].bdat(content).code, 250)
    for code in (250, 250, 452):
        peer = Peer(gateway.port)
        equal(peer.envelope(transid(), 1000).code, code)
        if code == 250:
            equal(peer.bdat(message()[:500], last=False).code, 250)
        peer.hang_up()
    gateway.stop()


# ---- duplicates

@test("the same message from the same sender to the same recipient is answered, not delivered again")
def duplicates(scene):
    gateway, content = scene.another(duplicate_window="1h"), message()

    def give(to=("ann@example.test",), user="ann@example.test", identity=None, more="", octets=content):
        peer = Peer(gateway.port, user=user)
        peer.envelope(identity, to=to, more=more)
        verdict = peer.data(octets)
        equal(verdict.code, 250, repr(verdict))
        peer.cmd("QUIT")
        return verdict.text

    first = give()
    name = first.split()[-1]
    equal(give(), "2.0.0 duplicate of " + name)
    equal(give(identity=transid()), "2.0.0 duplicate of " + name)
    true("duplicate" not in give(to=("ann@example.test", "bob@example.test")), "for bob it is new")
    equal((gateway.found(content), gateway.found(content, "bob@example.test")), (1, 1))
    true("duplicate" not in give(user="bob@example.test"), "another sender's is another message")
    other = content.replace(b"end", b"END")
    true("duplicate" not in give(octets=other), "other content under the same Message-ID")
    equal((gateway.found(content), gateway.found(other)), (2, 1))
    true("duplicate" not in give(more=" XRESEND"), "a person wants it")
    true("duplicate" not in give(more=" XRESEND", identity=transid()), "a person wants it")
    equal(gateway.found(content), 4)
    gateway.shift(3700)
    true("duplicate" not in give(), "after the window")
    nameless = content.replace(b"Message-ID", b"X-Message-ID")
    for n in (1, 2):
        give(octets=nameless)
        equal(gateway.found(nameless), n, "without a Message-ID nothing is a duplicate")
    gateway.stop()


# ---- crashes

@test("SIGKILL at every point where something becomes durable: nothing is lost, nothing comes twice", seconds=1200)
def killed(scene):
    gateway = scene.another()
    for verb in ("DATA", "BDAT"):
        n, survived = 0, False
        while not survived:
            n += 1
            gateway.restart(signal.SIGKILL, SENDQ_GATEWAY_KILL=str(n))
            content, identity, promised = message(), transid(), 0
            try:
                peer = Peer(gateway.port)
                peer.envelope(identity, len(content))
                if verb == "BDAT":
                    promised = 1000 if peer.bdat(content[:1000], last=False).code == 250 else 0
                    verdict = peer.bdat(content[1000:])
                else:
                    verdict = peer.data(content)
                survived = peer.cmd("QUIT").code == 221
                equal(verdict.code, 250)
            except (OSError, AssertionError):
                verdict = None
            if verdict is not None and verdict.code == 250:
                equal(gateway.found(content), 1, "accepted, so it is there")
            gateway.process.p.wait() if not survived else None
            gateway.restart(signal.SIGKILL)
            peer = Peer(gateway.port)
            offset, verdict = resume(peer, identity, content, verb, len(content))
            true((offset or 0) >= promised, "point %d: offset %r, and %d were promised" % (n, offset, promised))
            equal(verdict.code, 250, "point %d" % n)
            equal(gateway.found(content), 1, "copies after a death at point %d (%s)" % (n, verb))
            gateway.empty()
        note("%s: %d points" % (verb, n - 1))
        true(n > 8, "points found")
    gateway.stop()


@test("SIGTERM: sessions are told, and what they have is kept")
def terminated(scene):
    gateway = scene.another()
    content, identity = message(), transid()
    peer = Peer(gateway.port)
    peer.envelope(identity, len(content))
    peer.cmd("DATA")
    peer.send(wire_data(content)[:1500])
    gateway.restart()
    equal(peer.reply().code, 421)
    peer = Peer(gateway.port)
    offset, verdict = resume(peer, identity, content, "DATA", len(content))
    equal((offset, verdict.code), (len(arrived(wire_data(content)[:1500])), 250))
    gateway.stop()


@test("what came is durable two seconds later, though the client only waits")
def two_seconds(scene):
    gateway = scene.another()
    content, identity = message(), transid()
    peer = Peer(gateway.port)
    peer.envelope(identity, len(content))
    peer.cmd("DATA")
    peer.send(wire_data(content)[:1500])
    until(lambda: counted(gateway, identity) >= len(arrived(wire_data(content)[:1500])), 20,
          "the octets are counted")
    gateway.restart(signal.SIGKILL)
    equal(Peer(gateway.port).mail(identity, len(content)).code, 355)
    gateway.stop()


def counted(gateway, identity):
    import sqlite3
    with sqlite3.connect("file:%s/store.db?mode=ro" % gateway.state, uri=True) as db:
        row = db.execute("SELECT octets FROM txn WHERE transid = ?", (identity,)).fetchone()
    return row[0] if row else 0


@test("a store put back from a backup has a new id, and knows nothing of what was interrupted")
def restored(scene):
    gateway = scene.another()

    def store_id():
        return [line for line in Peer(gateway.port).hello.lines if "STORE=" in line][0]

    def put_back(how):
        gateway.stop()
        how()
        gateway.start()

    content, cut, done = message(), transid(), transid()
    peer = Peer(gateway.port)
    peer.envelope(cut, len(content))
    peer.bdat(content[:1000], last=False)
    peer.hang_up()
    first = store_id()
    gateway.restart()
    equal(store_id(), first, "a plain restart")
    gateway.restart(signal.SIGKILL)
    equal(store_id(), first, "a crash")
    gateway.stop()
    shutil.copytree(gateway.state, gateway.folder + "/backup")
    gateway.start()
    equal(store_id(), first)
    # Accepted after the copy was made: the copy must not pretend to know.
    peer = Peer(gateway.port)
    peer.envelope(done, len(content))
    equal(peer.bdat(content).code, 250)
    peer.close()

    def whole_folder():
        shutil.rmtree(gateway.state)
        shutil.copytree(gateway.folder + "/backup", gateway.state)

    def file_alone():
        shutil.copyfile(gateway.folder + "/backup/store.db", gateway.state + "/store.db")

    put_back(whole_folder)
    second = store_id()
    true(second != first, "another store id")
    equal(Peer(gateway.port).mail(cut, len(content)).code, 250, "interrupted before the copy: nobody knows")
    # The file alone, in place, copied while the gateway ran.
    shutil.rmtree(gateway.folder + "/backup")
    gateway.stop()
    os.makedirs(gateway.folder + "/backup")
    shutil.copyfile(gateway.state + "/store.db", gateway.folder + "/backup/store.db")
    gateway.start()
    equal(store_id(), second)
    gateway.stop()
    gateway.start()
    peer = Peer(gateway.port)
    peer.envelope(transid(), len(content))
    equal(peer.bdat(message()).code, 250)
    peer.close()
    put_back(file_alone)
    true(store_id() not in (first, second), "another store id")
    gateway.stop()


if __name__ == "__main__":
    main(Scene, Scene.stop)
