#!/usr/bin/python3
"""sendq setup for a domain that tells nothing: by its MX, and by guesses; Postfix and Dovecot are the provider.

Runs in a network of its own (as root) with its own name server, so that the servers have the names and ports that are guessed.
"""
import os
import sys

from harness import certs, dovecot, names, postfix, process, sendq
from harness.person import Terminal
from harness.tap import equal, holds, main, test, true
from harness.world import PASSWORD, USER

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fake"))
import scripted  # noqa: E402

LISTENERS = """127.0.0.1:465 inet n - n - - smtpd -o smtpd_tls_wrappermode=yes -o smtpd_sasl_auth_enable=yes -o mynetworks=192.0.2.1
127.0.0.2:587 inet n - n - - smtpd -o smtpd_tls_security_level=encrypt -o smtpd_sasl_auth_enable=yes -o mynetworks=192.0.2.1
"""
# Whom the provider's certificate is for.
OURS = ("smtp.one.test", "mail.two.test", "mx.three.test", "submission.four.test", "smtp.gmail.com", "smtp.office365.com", "smtp.xn--bcher-kva.test",
        "smtp.seven.test", "smtp.eight.test", "smtp.elsewhere.test", "imap.elsewhere.test", "localhost")


class Scene:
    def __init__(self):
        self.folder = process.temp_folder("find")
        names.own_network(self.folder)
        self.names = names.Names(53)
        self.certs = certs.Certs(self.folder)
        self.certs.cert, self.certs.key = self.certs.signed("ours", ",".join("DNS:" + n for n in OURS))
        self.imap = dovecot.Dovecot(self.folder, self.certs, self.folder + "/mail", servers=True)
        self.postfix = postfix.Postfix(self.folder, self.certs, self.imap.auth_port, services=LISTENERS)
        self.n = 0

    def user(self):
        """Somebody without a configuration."""
        self.n += 1
        q = sendq.Sendq(self.folder, [sendq.route("smtp://127.0.0.1:1", tls="none")], name="sendq%d" % self.n)
        os.unlink(q.config)
        return q

    def at(self, host, address):
        self.names.a(host, address)

    def listen(self, address, port, script=None, other=False, tls=True):
        """A server that keeps what it was told; with `other`, its certificate is another host's."""
        cert, key = (self.certs.other_cert, self.certs.other_key) if other else (self.certs.cert, self.certs.key)
        return scripted.Scripted(script, users={USER: PASSWORD}, host=address, port=port,
                                 **({"cert": cert, "key": key, "implicit": port != 587} if tls else {}))

    def stop(self):
        self.postfix.stop()
        self.imap.stop()


def setup(scene, address, *args, code=0):
    q = scene.user()
    done = q.status("setup", address, "--ca-file", scene.certs.ca, "--password-stdin", "--no-test", *args, stdin=PASSWORD.encode() + b"\n")
    equal(done.code, code, "sendq setup: %r" % done)
    true(PASSWORD not in done.out + done.err, "the password is said")
    equal(os.path.exists(q.config), code == 0, "a configuration is written")
    return q, done


def kept(q, server):
    with open(q.config) as f:
        text = f.read()
    holds(text, 'server = "%s"' % server)
    return text


def no_login(*servers):
    for server in servers:
        true(not any("AUTH" in line.upper() for line in server.commands), "a login was tried: %r" % server.commands)


@test("a guess that answers: nobody vouches, so without --yes it stops before the login; with it, a message goes")
def guess(scene):
    scene.at("smtp.one.test", "127.0.0.1")
    _, done = setup(scene, "ann@one.test", "--user", USER, code=64)
    holds(done.err, "'smtps://smtp.one.test:465' is a guess, which nobody vouches for: say --server")
    holds(done.out, "trying the usual names")
    q, done = setup(scene, "ann@one.test", "--yes", "--user", USER)
    true(done.out.index("smtps://smtp.one.test:465 (a guess)") < done.out.index("certificate for") < done.out.index("Login ok"), done.out)
    kept(q, "smtps://smtp.one.test")
    q.submit(b"From: ann@example.test\nTo: u001@example.test\n\nhello\n")
    equal(q.flush(), 0)
    scene.postfix.settled("u001", 1)
    q.end_autostarted()


@test("only one of the usual names and ports answers: it is found")
def names_and_ports(scene):
    scene.at("mail.two.test", "127.0.0.2")
    scene.at("smtp.two.test", "127.0.0.3")
    q, done = setup(scene, "ann@TWO.test", "--yes", "--user", USER)
    kept(q, "smtp://mail.two.test")
    holds(done.out, "smtp.two.test port 465")
    scene.at("submission.four.test", "127.0.0.2")
    q, done = setup(scene, "ann@four.test", "--yes", "--user", USER)
    kept(q, "smtp://submission.four.test")
    equal(done.out.count("there is no host of that name"), 2, done.out)


@test("no host of a usual name: the MX itself is tried last; one that says 'no mail' (RFC 7505) is none")
def mx_itself(scene):
    scene.names.mx("three.test", "far.three.test", 20)
    scene.names.mx("three.test", "mx.three.test", 10)
    scene.at("mx.three.test", "127.0.0.1")
    q, _ = setup(scene, "ann@three.test", "--yes", "--user", USER)
    kept(q, "smtps://mx.three.test")
    scene.names.mx("null.test", ".", 0)
    setup(scene, "ann@null.test", "--yes", code=69)


@test("a domain whose MX is Google's or Microsoft's: the table knows the server, and nothing has to be confirmed")
def hosted(scene):
    scene.names.mx("hosted.test", "ASPMX.L.GOOGLE.com", 1)
    scene.names.mx("hosted.test", "alt1.aspmx.l.google.com", 5)
    scene.at("smtp.gmail.com", "127.0.0.1")
    q, done = setup(scene, "ann@hosted.test", "--user", USER)
    holds(done.out, "(Gmail: the mail of hosted.test goes to ASPMX.L.GOOGLE.com)")
    kept(q, "smtps://smtp.gmail.com")
    scene.names.mx("tenant.test", "tenant-test.mail.protection.outlook.com", 0)
    scene.at("smtp.office365.com", "127.0.0.2")
    q, done = setup(scene, "ann@tenant.test", "--user", USER)
    holds(kept(q, "smtp://smtp.office365.com"), 'message_id = "rewritten"')


@test("a domain with letters of another alphabet: asked for by its name in the DNS")
def alphabet(scene):
    scene.at("smtp.xn--bcher-kva.test", "127.0.0.1")
    q, done = setup(scene, "ann@bücher.test", "--yes", "--user", USER)
    kept(q, "smtps://smtp.xn--bcher-kva.test")


@test("wrong guesses: somebody else's certificate, no TLS, silence, nobody: each with its sentence; no login is tried anywhere")
def wrong(scene):
    servers = [scene.listen("127.0.0.5", 465, other=True), scene.listen("127.0.0.6", 465, tls=False), scene.listen("127.0.0.6", 587, tls=False),
               scene.listen("127.0.0.5", 587, {"CONNECT": scripted.HANG})]
    scene.at("smtp.bad.test", "127.0.0.5")
    scene.at("mail.bad.test", "127.0.0.6")
    _, done = setup(scene, "ann@bad.test", "--user", USER, "--yes", code=69)
    for words in ("certificate for mail.elsewhere.test", "does not speak TLS on this port", "does not offer STARTTLS", "the server says nothing",
                  "there is no host of that name"):
        holds(done.out, words)
    for words in ("autoconfig.bad.test", "_submissions._tcp.bad.test: no record", "no server of bad.test was found", "--server smtps://HOST", "--ca-file"):
        holds(done.err, words)
    no_login(*servers)
    _, done = setup(scene, "ann@bad.test", "--user", USER, "--server", "smtps://smtp.bad.test", code=69)
    holds(done.err, "smtps://smtp.bad.test, which you named, cannot be used")


@test("a person is asked before the login: by Return yes below the own domain, no at a host elsewhere; a no sends nothing")
def asked(scene):
    scene.at("smtp.seven.test", "127.0.0.7")
    scene.at("smtp.elsewhere.test", "127.0.0.8")
    own, foreign = scene.listen("127.0.0.7", 465), scene.listen("127.0.0.8", 465)
    for answer in ("", "n"):
        q = scene.user()
        scene.names.records.pop(("_submissions._tcp.seven.test", names.SRV), None)
        scene.names.srv("_submissions._tcp.seven.test", "smtp.elsewhere.test", 465)
        t = Terminal(q, "setup", "ann@seven.test", "--ca-file", scene.certs.ca, "--imap", "none", "--no-test", "--store", "file", "--user", USER)
        t.answer("(SRV record). Is it your provider's? Log in there? [y/N]", "")
        t.answer("(a guess). Is it your provider's? Log in there? [Y/n]", answer)
        if answer == "":
            no_login(own)
            t.answer("Password (not shown):", PASSWORD)
        equal(t.end(), 0 if answer == "" else 69, t.seen)
        no_login(foreign)
        equal(os.path.exists(q.config), answer == "")
    equal(len([line for line in own.commands if line.startswith("AUTH")]), 1, "logins")


@test("the server with the folder of sent mail is shown before the login too, as it gets the same password")
def sent_folder(scene):
    imap = "imaps://localhost:%d" % scene.imap.imaps_port
    _, done = setup(scene, "ann@one.test", "--yes", "--user", USER, "--imap", imap)
    lines = done.out.splitlines()
    at = lines.index(imap + " (folder of sent mail)")
    true(lines[at + 1].startswith("  certificate for ") and at < next(n for n, line in enumerate(lines) if line.startswith("Login ok")), done.out)
    foreign = scene.listen("127.0.0.9", 993, other=True)
    scene.at("imap.one.test", "127.0.0.9")
    q, done = setup(scene, "ann@one.test", "--yes", "--user", USER, "--imap", "imaps://imap.one.test")
    holds(done.out, "set up without it")
    true("imap" not in kept(q, "smtps://smtp.one.test"), "an IMAP server whose certificate is another's")
    no_login(foreign)


@test("by Return yes only where the server with the folder of sent mail is below the own domain, too")
def sent_folder_elsewhere(scene):
    scene.at("smtp.eight.test", "127.0.0.10")
    scene.at("imap.elsewhere.test", "127.0.0.1")
    own = scene.listen("127.0.0.10", 465)
    scene.names.srv("_submissions._tcp.eight.test", "smtp.eight.test", 465)
    scene.names.srv("_imaps._tcp.eight.test", "imap.elsewhere.test", scene.imap.imaps_port)
    q = scene.user()
    t = Terminal(q, "setup", "ann@eight.test", "--ca-file", scene.certs.ca, "--no-test", "--store", "file", "--user", USER)
    t.answer("imaps://imap.elsewhere.test:%d (folder of sent mail)" % scene.imap.imaps_port, None)
    t.answer("(SRV record). Is it your provider's? Log in there? [y/N]", "")
    equal(t.end(), 69, t.seen)
    no_login(own)


if __name__ == "__main__":
    main(Scene, Scene.stop)
