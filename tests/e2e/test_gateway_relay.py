#!/usr/bin/python3
"""sendq-gateway in front of a real Postfix, and of servers that misbehave: only the backend's verdicts, each message once."""
import base64
import hashlib
import os
import random
import signal
import smtplib
import ssl
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fake"))
from harness import dovecot, gateway, process, sendq  # noqa: E402
from harness.gateway import Gateway, Peer, wire_data  # noqa: E402
from harness.postfix import without_trace  # noqa: E402
from harness.sendq import message as message_to  # noqa: E402
from harness.tap import add, equal, holds, main, test, true, until  # noqa: E402
from harness.world import World  # noqa: E402
from scripted import CLOSE, GOOD_EHLO, RESET, Scripted  # noqa: E402

ANN = "ann@example.test"
XCLIENT = GOOD_EHLO + ("XCLIENT NAME ADDR PORT PROTO HELO LOGIN",)
# Twice: the probes, without a name and as a stranger.
CLOSED = ["554 5.7.1 no relay", "554 5.7.1 no relay", "250 2.1.5 ok"]
gateway.USERS.update(dovecot.USERS)
numbers = iter(range(1, 1000000))


def message(size=3000, subject="relayed"):
    n = next(numbers)
    out = b"From: <ann@example.test>\r\nMessage-ID: <%d.%d@relay.test>\r\nSubject: %s %d\r\n\r\n" % (
        os.getpid(), n, subject.encode(), n)
    rng = random.Random(n)
    while len(out) < size:
        out += rng.choice([b"", b".", b".."]) + bytes(rng.choice(b"abcdefgh ijklm") for _ in range(rng.randrange(1, 80))) + b"\r\n"
    return out + b"..\r\n.end\r\n"


def transid():
    return "<r%d.%d@client.example.test>" % (os.getpid(), next(numbers))


class Scene(World):
    def __init__(self):
        super().__init__("gateway-relay", more="smtpd_authorized_xclient_hosts = 127.0.0.1\n")
        common = dict(certs=self.certs, listen=("smtp", "starttls", "smtps"), mailboxes=(), backend_ca=self.certs.ca, backend=True)
        self.passthrough = Gateway(self.folder, name="passthrough", passthrough="starttls://localhost:%d" % self.postfix.submission,
                                   **common)
        self.trusted = Gateway(self.folder, name="trusted", trusted="starttls://localhost:%d" % self.postfix.submission, **common)

    def scripted(self, script, **settings):
        """A gateway that trusts a server with this script: (gateway, server)."""
        self._n += 1
        server = Scripted({"RCPT": list(CLOSED), "XCLIENT": "220 2.0.0 go on", **script},
                          ehlo=[word for word in XCLIENT if word != "CHUNKING" or "DATA" not in script])
        return Gateway(self.folder, name="scripted%d" % self._n, trusted="smtp://127.0.0.1:%d" % server.port, mailboxes=(),
                       backend=True, **settings), server

    def stop(self):
        self.passthrough.stop()
        self.trusted.stop()
        super().stop()


def one_copy(scene, user, content):
    found = scene.postfix.settled(user, 1)[0]
    equal(hashlib.sha256(without_trace(found, content)).hexdigest(), hashlib.sha256(content).hexdigest())
    return found


# ---- Postfix

def whole(kind, verb):
    def run(scene):
        gw, user, content = getattr(scene, kind), scene.user(), message(300000)
        peer = Peer(gw.ports[2], tls="implicit", ca=scene.certs.ca)
        equal(peer.envelope(transid(), len(content), to=["%s@example.test" % user]).code, 250)
        verdict = peer.data(content) if verb == "DATA" else peer.bdat(content)
        equal(verdict.code, 250, repr(verdict))
        holds(verdict.text, "queued as", "the backend's own verdict")
        found = one_copy(scene, user, content)
        holds(found, b"by gw.example.test (sendq-gateway) with ESMTPSA id ")
        holds(found, b"from lap.example.test ([127.0.0.1])")
        equal(peer.cmd("RCPT TO:<%s@example.test>" % user).code, 503)
    return run


def resumed(kind, verb):
    def run(scene):
        gw = getattr(scene, kind)
        for cut in (0, 1, 1500, -1):
            user, content, identity = scene.user(), message(), transid()
            peer = Peer(gw.port)
            peer.envelope(identity, len(content), to=["%s@example.test" % user])
            if verb == "DATA":
                equal(peer.cmd("DATA").code, 354)
                peer.send(wire_data(content)[:cut % len(wire_data(content))])
            else:
                peer.send(b"BDAT %d LAST\r\n" % len(content) + content[:cut % len(content)])
            peer.hang_up()
            peer = Peer(gw.port)
            answer = peer.mail(identity, len(content))
            equal(answer.code, 355, repr(answer))
            rest = content[answer.offset():]
            verdict = peer.data(rest) if verb == "DATA" else peer.bdat(rest)
            equal(verdict.code, 250, repr(verdict))
            one_copy(scene, user, content)
            # The verdict was lost, too.
            peer.hang_up()
            peer = Peer(gw.port)
            equal(peer.mail(identity, len(content)).offset(), len(content))
            equal((peer.data(b"") if verb == "DATA" else peer.bdat(b"")).lines, verdict.lines)
            one_copy(scene, user, content)
        for word in ("DATA", "BDAT"):
            true("lost connection after " + word not in scene.postfix.log(), "the backend saw a message that was cut")
    return run


for kind_ in ("passthrough", "trusted"):
    for verb_ in ("DATA", "BDAT"):
        add("%s, %s: a whole message, the backend's verdict, the client's name in Received" % (kind_, verb_), whole(kind_, verb_))
        add("%s, %s: cut and taken up again: the backend sees one whole message" % (kind_, verb_), resumed(kind_, verb_))


@test("what the backend refuses is refused with its own words, recipient by recipient")
def refusals(scene):
    for gw in (scene.passthrough, scene.trusted):
        peer = Peer(gw.port)
        equal(peer.mail(transid()).code, 250)
        for address, code in (("refused1@example.test", 550), ("full1@example.test", 452), ("secret-policy@example.test", 554)):
            equal(peer.cmd("RCPT TO:<%s>" % address).code, code)
        user, content = scene.user(), message()
        equal(peer.cmd("RCPT TO:<%s@example.test>" % user).code, 250)
        equal(peer.data(content).code, 250)
        one_copy(scene, user, content)


@test("passthrough: the backend's logins, wrong and right, PLAIN and LOGIN")
def logins(scene):
    peer = Peer(scene.passthrough.port, login=False)
    hello = peer.cmd("EHLO lap.example.test").lines
    true("250-AUTH PLAIN LOGIN" in hello, "what of it the gateway can pass on: %r" % hello)
    equal(peer.cmd("MAIL FROM:<ann@example.test>").code, 530)
    equal(peer.cmd("AUTH PLAIN " + base64.b64encode(b"\0ann@example.test\0wrong").decode()).code, 535)
    equal(peer.cmd("AUTH PLAIN").code, 334)
    equal(peer.cmd("*").code, 501)
    equal(peer.cmd("AUTH LOGIN").code, 334)
    equal(peer.cmd(base64.b64encode(ANN.encode()).decode()).code, 334)
    equal(peer.cmd(base64.b64encode(gateway.USERS[ANN].encode()).decode()).code, 235)
    user, content, identity = scene.user(), message(), transid()
    peer.envelope(identity, len(content), to=["%s@example.test" % user])
    peer.cmd("DATA")
    peer.send(wire_data(content)[:1000])
    peer.hang_up()
    # The same person by another mechanism; another person does not get at it.
    equal(Peer(scene.passthrough.port, user="bob@example.test").mail(identity, len(content)).code, 250)
    peer = Peer(scene.passthrough.port)
    answer = peer.mail(identity, len(content))
    equal(answer.code, 355)
    equal(peer.data(content[answer.offset():]).code, 250)
    one_copy(scene, user, content)
    for word in gateway.USERS.values():
        true(word not in scene.passthrough.log() and base64.b64encode(word.encode()).decode() not in scene.passthrough.log(),
             "a password is in the log")


@test("trusted: Postfix is told who and from where")
def told(scene):
    user, content = scene.user(), message()
    peer = Peer(scene.trusted.port, ehlo="told.example.test")
    peer.envelope(transid(), to=["%s@example.test" % user])
    equal(peer.data(content).code, 250)
    one_copy(scene, user, content)
    until(lambda: "sasl_method=XCLIENT, sasl_username=ann@example.test" in scene.postfix.log(), message="the login in the log")


@test("one of two recipients has the message already: only the other one gets it from the backend")
def partly_duplicate(scene):
    for gw in (scene.passthrough, scene.trusted):
        one, two, content = scene.user(), scene.user(), message()
        for to, text in (([one], "queued as"), ([one], "duplicate of"), ([one, two], "queued as"), ([two, one], "duplicate of")):
            peer = Peer(gw.port)
            peer.envelope(transid(), to=["%s@example.test" % u for u in to])
            verdict = peer.data(content)
            equal(verdict.code, 250)
            holds(verdict.text, text)
            peer.cmd("QUIT")
        one_copy(scene, one, content)
        one_copy(scene, two, content)


@test("the backend is restarted while a client is connected and while one is away")
def backend_restarts(scene):
    for gw in (scene.passthrough, scene.trusted):
        user, content, identity = scene.user(), message(), transid()
        peer = Peer(gw.port)
        answer = peer.envelope(identity, len(content), to=["%s@example.test" % user])
        equal(answer.code, 250, "%r; the gateway: %s; Postfix: %s" % (answer, gw.log()[-600:], scene.postfix.log()[-1500:]))
        equal(peer.cmd("DATA").code, 354)
        peer.send(wire_data(content)[:1000])
        scene.postfix.without("")
        peer.send(wire_data(content)[1000:])
        equal(peer.reply().code, 250)
        one_copy(scene, user, content)
        # The next message of the session, on a connection that the backend has closed.
        scene.postfix.without("")
        user, content = scene.user(), message()
        equal(peer.envelope(transid(), to=["%s@example.test" % user]).code, 250)
        equal(peer.bdat(content).code, 250)
        one_copy(scene, user, content)


@test("the backend without CHUNKING gets DATA, dots doubled")
def without_chunking(scene):
    scene.postfix.without("chunking")
    try:
        for gw in (scene.passthrough, scene.trusted):
            user, content = scene.user(), message(100000) + b".\r\n..\r\n.\r\n"
            peer = Peer(gw.port)
            peer.envelope(to=["%s@example.test" % user])
            equal(peer.bdat(content).code, 250)
            one_copy(scene, user, content)
    finally:
        scene.postfix.without("")


# ---- starting

def refused_start(scene, **settings):
    scene._n += 1
    try:
        Gateway(scene.folder, name="refused%d" % scene._n, mailboxes=(), backend=True, **settings).stop()
    except AssertionError as why:
        return str(why)
    raise AssertionError("it started")


@test("it does not start in front of a server that relays for strangers, or whose TLS or XCLIENT is not as it must be")
def starts_not(scene):
    holds(refused_start(scene, trusted="smtp://127.0.0.1:%d" % scene.postfix.port), "relays to 'postmaster@example.com'")
    stranger = Scripted({"RCPT": ["554 5.7.1 no", "250 2.1.5 ok"], "XCLIENT": "220 go on"}, ehlo=XCLIENT)
    holds(refused_start(scene, trusted="smtp://127.0.0.1:%d" % stranger.port), "a stranger named by XCLIENT")
    deaf = Scripted({"RCPT": "554 5.7.1 no"})
    holds(refused_start(scene, trusted="smtp://127.0.0.1:%d" % deaf.port), "XCLIENT")
    holds(refused_start(scene, passthrough="starttls://localhost:%d" % scene.postfix.submission), "certificate")
    holds(refused_start(scene, passthrough="starttls://127.0.0.1:%d" % deaf.port, backend_ca=scene.certs.ca), "STARTTLS")
    holds(refused_start(scene, passthrough="smtp://127.0.0.1:%d" % deaf.port), "in the clear")
    holds(refused_start(scene, trusted="smtp://192.0.2.7:25"), "127.0.0.1")
    holds(refused_start(scene, trusted="smtp://127.0.0.1:%d" % process.free_port()), "cannot connect")
    holds(refused_start(scene, trusted="smtp://127.0.0.1:25", maildir="/tmp"), "one of maildir")
    holds(refused_start(scene, trusted="smtp://127.0.0.1:25", nonsense="x"), "no such setting 'nonsense'")
    holds(refused_start(scene, trusted="smtp://127.0.0.1:25", retain="often"), "a duration")


# ---- a backend that fails

def failing(title, script, first, second=250, copies=1):
    """355: nobody knows, and it is not tried again."""
    def run(scene):
        gw, server = scene.scripted(script)
        content, identity = message(), transid()
        peer = Peer(gw.port)
        equal(peer.envelope(identity, len(content)).code, 250)
        verdict = peer.data(content)
        equal(verdict.code, first, repr(verdict))
        peer.cmd("QUIT")
        peer = Peer(gw.port)
        answer = peer.mail(identity, len(content))
        equal((answer.code, answer.offset()), (355, len(content)), repr(answer))
        equal(peer.data(b"").code, second)
        equal(len(server.messages), copies, "messages that the backend accepted")
        for sender, recipients, octets in server.messages:
            equal((sender, recipients), (ANN, [ANN]))
            true(octets.endswith(content) and octets.startswith(b"Received: from lap.example.test ([127.0.0.1])\r\n"), "octets")
        gw.stop()
        server.stop()
    add("the backend " + title, run)


failing("says 451: passed on, the data kept, tried again", {"FINAL": ["451 4.3.0 later", "250 2.0.0 ok"]}, 451)
failing("says 554: passed on, for good", {"FINAL": ["554 5.6.0 no", "250 2.0.0 ok"]}, 554, 554, 0)
failing("resets instead of a verdict: nobody knows", {"FINAL": [(RESET,), "250 2.0.0 ok"]}, 355, 355, 0)
failing("hangs up instead of a verdict: nobody knows", {"FINAL": [(CLOSE,), "250 2.0.0 ok"]}, 355, 355, 0)
failing("says half a verdict: nobody knows", {"FINAL": [(b"25", CLOSE), "250 2.0.0 ok"]}, 355, 355, 0)
failing("says 354 instead of a verdict: nobody knows", {"FINAL": ["354 more", "250 2.0.0 ok"]}, 355, 355)
failing("accepts at DATA what it has not got: tried again", {"DATA": ["250 2.0.0 ok", "354 go on"]}, 451)
failing("says 421 and goes", {"FINAL": [("421 4.3.2 down", CLOSE), "250 2.0.0 ok"]}, 421)


@test("the backend gives no verdict: a client without TRANSID hears none either")
def no_verdict(scene):
    gw, server = scene.scripted({"FINAL": [(CLOSE,), "250 2.0.0 ok"]})
    peer = Peer(gw.port)
    peer.envelope()
    equal(peer.data(message()).lines, [])
    gw.stop()
    server.stop()


@test("the store's disk is full when the backend has accepted: the client hears the 250; whoever lost it is told that nobody knows")
def full_disk(scene):
    for kind in ("plain", "transid", "lost"):
        state = "%s/full-%s" % (scene.folder, kind)
        os.mkdir(state)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "none", state], check=True)
        try:
            def fill(session, line):
                with open(state + "/filler", "wb", buffering=0) as f:
                    try:
                        while True:
                            f.write(b"x" * 4096)
                    except OSError:
                        pass
                return "250 2.0.0 accepted"
            gw, server = scene.scripted({"FINAL": fill}, state=state, interrupted="1h", retain="9h")
            content, identity = message(), None if kind == "plain" else transid()
            peer = Peer(gw.port)
            peer.envelope(identity, len(content))
            if kind == "lost":
                peer.send(b"BDAT %d LAST\r\n" % len(content) + content)
                peer.hang_up()
            else:
                equal(peer.bdat(content).text, "2.0.0 accepted")
                peer.close()
            holds(gw.log(), "unstored")
            os.unlink(state + "/filler")
            if identity:
                # As long as a verdict would be, it is remembered that there may be one; a client that says RSET knows no better.
                gw.shift(4 * 3600)
                for ending in ("RSET", "QUIT", "BDAT 0 LAST", "BDAT 0 LAST"):
                    peer = Peer(gw.port)
                    equal(peer.mail(identity, len(content)).offset(), len(content), "before %s, %s" % (ending, kind))
                    equal(peer.cmd(ending).code, {"RSET": 250, "QUIT": 221}.get(ending, 355))
                    peer.close()
            equal(len(server.arrived), 1, "copies")
            gw.stop()
            server.stop()
        finally:
            subprocess.run(["umount", "-l", state], check=True)


@test("taken over while the backend decides: both hear its verdict; before that: the older session's content never ends")
def taken_over(scene):
    content, identity, later = message(), transid(), []

    def takes_over(session, line):
        peer = Peer(gw.port)
        equal(peer.mail(identity, len(content)).offset(), len(content))
        peer.send(b"BDAT 0 LAST\r\n")
        later.append(peer)
        return "250 2.0.0 ok"
    gw, server = scene.scripted({"FINAL": [takes_over, "250 2.0.0 another"]})
    peer = Peer(gw.port)
    peer.envelope(identity, len(content))
    equal(peer.bdat(content).text, "2.0.0 ok")
    equal(later[0].reply().text, "2.0.0 ok")
    equal(len(server.arrived), 1, "copies")
    # A session that resumes says MAIL to the backend at the end of its content: there the next one takes over.
    identity, content = transid(), message()
    peer = Peer(gw.port)
    peer.envelope(identity, len(content))
    equal(peer.bdat(content[:100], last=False).code, 250)
    peer.hang_up()
    peer = Peer(gw.port)
    equal(peer.mail(identity, len(content)).offset(), 100)
    server.script["MAIL"] = [takes_over, "250 2.1.0 ok"]
    equal(peer.bdat(content[100:]).code, 421)
    equal(later[1].reply().text, "2.0.0 another")
    equal(len(server.arrived), 2, "copies of both")
    gw.stop()
    server.stop()


@test("sendq hears that nobody knows: in doubt, asked no more, sent again when a person says so")
def doubt_at_the_client(scene):
    gw, server = scene.scripted({"FINAL": [(CLOSE,), "250 2.0.0 ok"]})
    q = sendq.Sendq(scene.folder, [sendq.route("smtp://127.0.0.1:%d" % gw.port, user=ANN, password=gateway.USERS[ANN], tls="none",
                                               duplicates="ask")], name="doubtful")
    number = q.submit(message_to("bob@example.test", "doubtful", "body\n"))
    for _ in range(3):
        equal(q.flush(), 75)
        equal(set(q.states(number).values()), {"doubt"})
        equal((len(server.arrived), len(server.messages)), (1, 0))
    holds(repr(q.get(number)["recipients"][0]["reply"]), "nobody knows whether it was accepted")
    equal(q.status("resend", number).code, 0)
    equal(q.flush(), 0)
    equal(len(server.messages), 1)
    gw.stop()
    server.stop()


@test("verdicts of several lines are passed on as they are, and again")
def many_lines(scene):
    gw, _ = scene.scripted({"FINAL": "250 2.0.0 one\n250 2.0.0 two\n250 2.0.0 three"})
    identity, content = transid(), message()
    peer = Peer(gw.port)
    peer.envelope(identity)
    want = ["250-2.0.0 one", "250-2.0.0 two", "250 2.0.0 three"]
    equal(peer.data(content).lines, want)
    peer = Peer(gw.port)
    peer.mail(identity)
    equal(peer.data(b"").lines, want)
    gw.stop()


@test("SIGKILL at every fsync and commit, in front of a backend: accepted by it once, or known to be in doubt", seconds=600)
def killed(scene):
    gw, server = scene.scripted({})
    n, survived, doubts = 0, False, 0
    while not survived:
        n += 1
        server.script["RCPT"] = list(CLOSED)
        gw.restart(signal.SIGKILL, SENDQ_GATEWAY_KILL=str(n))
        content, identity = message(), transid()
        server.messages.clear()
        try:
            peer = Peer(gw.port)
            peer.envelope(identity, len(content))
            peer.data(content)
            survived = peer.cmd("QUIT").code == 221
        except (OSError, AssertionError):
            pass
        server.script["RCPT"] = list(CLOSED)
        gw.restart(signal.SIGKILL)
        before = len(server.messages)
        for _ in range(2):
            peer = Peer(gw.port)
            answer = peer.envelope(identity, len(content))
            verdict = peer.data(content[answer.offset():] if answer.code == 355 else content).code
            if verdict == 355:
                # Between the store's word that the backend may have it, and the stored verdict.
                equal(len(server.messages), before, "point %d: sent again in doubt" % n)
            else:
                equal((verdict, len(server.messages)), (250, 1), "point %d: verdict and copies" % n)
            peer.close()
        doubts += verdict == 355
    true(n > 8, "points found")
    true(1 <= doubts <= 3, "%d of %d points leave a doubt" % (doubts, n))
    gw.stop()


# ---- foreign clients

def plain_message(user, n):
    return "From: ann@example.test\nDate: Thu, 26 Nov 2026 06:00:00 +0000\nTo: %s@example.test\nSubject: foreign %d\nMessage-ID: <f%d.%d@foreign.test>\n\n.dot\n..\nbody\n" % (
        user, n, os.getpid(), n)


def smtplib_client(scene, gw, user, text, cut=None):
    context = ssl.create_default_context(cafile=scene.certs.ca)
    port = cut.port if cut else gw.ports[1]
    with smtplib.SMTP("localhost", port, timeout=30) as s:
        s.starttls(context=context)
        s.login(ANN, gateway.USERS[ANN])
        s.sendmail(ANN, ["%s@example.test" % user], text)
    return True


def run_client(args, stdin):
    done = subprocess.run(args, input=stdin.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    return done.returncode == 0 or done.stdout.decode("utf-8", "replace")


def swaks_client(scene, gw, user, text, cut=None):
    port = cut.port if cut else gw.ports[1]
    return run_client(["swaks", "--server", "localhost", "--port", str(port), "--tls", "--tls-ca-path", scene.certs.ca, "--tls-verify",
                       "--auth", "PLAIN", "--auth-user", ANN, "--auth-password", gateway.USERS[ANN], "--from", ANN,
                       "--to", "%s@example.test" % user, "--data", "-"], text)


def curl_client(scene, gw, user, text, cut=None):
    port = cut.port if cut else gw.ports[2]
    return run_client(["curl", "-sS", "--url", "smtps://localhost:%d" % port, "--cacert", scene.certs.ca, "--user",
                       "%s:%s" % (ANN, gateway.USERS[ANN]), "--mail-from", ANN, "--mail-rcpt", "%s@example.test" % user, "--crlf",
                       "--upload-file", "-"], text)


def msmtp_client(scene, gw, user, text, cut=None):
    port = cut.port if cut else gw.ports[1]
    return run_client(["msmtp", "--file=", "--host=localhost", "--port=%d" % port, "--tls=on", "--tls-starttls=on",
                       "--tls-trust-file=" + scene.certs.ca, "--auth=login", "--user=" + ANN,
                       "--passwordeval=echo '%s'" % gateway.USERS[ANN], "--from=" + ANN, "%s@example.test" % user], text)


def foreign(name, client):
    def run(scene):
        for gw in (scene.passthrough, scene.trusted):
            user = scene.user()
            text = plain_message(user, next(numbers))
            equal(client(scene, gw, user, text), True)
            scene.postfix.settled(user, 1)
            # Sent once more by a client that had lost the verdict: it hears 250, the reader gets one.
            equal(client(scene, gw, user, text), True)
            found = scene.postfix.settled(user, 1)[0]
            true(found.replace(b"\r\n", b"\n").rstrip(b"\n").endswith(b"\n\n.dot\n..\nbody"), repr(found[-60:]))
            # The link breaks in the content, and the whole is sent again.
            user = scene.user()
            text = plain_message(user, next(numbers)) + "x" * 70 + "\n" + ("y" * 70 + "\n") * 3000
            link = scene.link(gw.ports[2 if client is curl_client else 1], "1 cut=up:100000")
            try:
                first = client(scene, gw, user, text, cut=link)
            except (OSError, smtplib.SMTPException) as e:
                first = str(e)
            true(first is not True, "the link did not break")
            equal(client(scene, gw, user, text, cut=link), True)
            scene.postfix.settled(user, 1)
    add("a foreign client, whole, again, and cut: " + name, run)


foreign("Python's smtplib", smtplib_client)
foreign("swaks", swaks_client)
foreign("curl", curl_client)
foreign("msmtp", msmtp_client)

if __name__ == "__main__":
    main(Scene, Scene.stop)
