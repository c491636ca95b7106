#!/usr/bin/python3
"""Every way in: SMTP on standard input, the options of sendmail, aliases, senders that no server knows, undo and later."""
import os
import re
import shutil
import smtplib
import socket
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fake"))
from harness import links, process, sendq  # noqa: E402
from harness.sendq import EX_CONFIG, EX_DATAERR, EX_NOPERM, EX_OK, EX_USAGE, message  # noqa: E402
from scripted import CLOSE, Scripted  # noqa: E402
from harness.tap import Skip, equal, holds, main, test, true, until  # noqa: E402


class Scene:
    def __init__(self):
        self.folder = process.temp_folder("submit")
        self._n = 0

    def sendq(self, *routes, **settings):
        """No server: what is looked at here is the queue."""
        self._n += 1
        routes = list(routes) or [sendq.route("smtp://127.0.0.1:1", tls="none")]
        return sendq.Sendq(self.folder, routes, name="sendq%d" % self._n, **settings)


class OverPipe(smtplib.SMTP):
    """Python's own client, on a socket whose other end is standard input and output of `sendmail -bs`."""

    def __init__(self, q, *arguments):
        ours, theirs = socket.socketpair()
        self.child = subprocess.Popen([q.bin + "/sendmail", "-bs"] + list(arguments), stdin=theirs, stdout=theirs,
                                      stderr=subprocess.PIPE, env=q.env())
        theirs.close()
        self._ours = ours
        super().__init__()
        self.connect("localhost", 1)

    def _get_socket(self, host, port, timeout):
        return self._ours

    def finish(self):
        self.quit()
        self.child.wait(20)
        words = self.child.stderr.read().decode()
        self.child.stderr.close()
        equal((self.child.returncode, words), (0, ""), "sendmail -bs")


# ---- -bs

@test("-bs: Python's smtplib, three messages in a session, each its own")
def bs_smtplib(scene):
    q = scene.sendq()
    with_dots = b"From: ann@example.test\r\nTo: bob@example.test\r\nSubject: dots\r\n\r\n.\r\n..two\r\nend\r\n"
    client = OverPipe(q)
    client.ehlo()
    for word in ("pipelining", "8bitmime", "smtputf8", "dsn", "size", "chunking", "enhancedstatuscodes"):
        true(client.has_extn(word), "EHLO does not offer " + word)
    equal(client.sendmail("ann@example.test", ["u001@example.test", "u002@example.test"], message(subject="one")), {})
    equal(client.sendmail("ann@example.test", "bob@example.test", with_dots, mail_options=["RET=HDRS", "ENVID=q+2B1"],
                          rcpt_options=["NOTIFY=FAILURE,DELAY", "ORCPT=rfc822;bob@example.test"]), {})
    client.send_message(__import__("email").message_from_bytes(message(subject="three", Bcc="u003@example.test")))
    client.finish()
    rows = q.list()
    equal([len(m["recipients"]) for m in rows], [2, 1, 2])
    equal(q.sql("SELECT source, envid, ret FROM message ORDER BY id"), [("bs", "", 0), ("bs", "q+2B1", 2), ("bs", "", 0)])
    equal(q.sql("SELECT orcpt, notify FROM recipient WHERE address = 'bob@example.test'"), [("rfc822;bob@example.test", 12)])
    true(q.octets(rows[1]["id"]).endswith(b"\r\n\r\n.\r\n..two\r\nend\r\n"), "dots: %r" % q.octets(rows[1]["id"]))
    true(b"Bcc" not in q.octets(rows[2]["id"]), "Bcc is left")


@test("-bs: a refused recipient costs only itself, and a refused message only itself")
def bs_refusals(scene):
    q = scene.sendq(message_size_max="20k")
    client = OverPipe(q)
    equal(list(client.sendmail("ann@example.test", ["u001@example.test", "a b@@c"], message())), ["a b@@c"])
    try:
        client.sendmail("ann@example.test", "u001@example.test", message(body="x" * 70 + "\n" + "y\n" * 40000))
        raise AssertionError("too large a message was taken")
    except smtplib.SMTPResponseException as e:
        equal(e.smtp_code, 552, str(e))
    equal(client.sendmail("ann@example.test", "u002@example.test", message(subject="after")), {})
    client.finish()
    equal([m["recipients"][0]["address"] for m in q.list()], ["u001@example.test", "u002@example.test"])


@test("-bs: the sender that no route takes is refused for good, and says so")
def bs_no_route(scene):
    q = scene.sendq(sendq.route("smtp://127.0.0.1:1", tls="none", **{"from": ["*@work.test"]}))
    client = OverPipe(q)
    try:
        client.sendmail("me@home.test", "u001@example.test", message(sender="me@home.test"))
        raise AssertionError("taken")
    except smtplib.SMTPResponseException as e:
        equal(e.smtp_code, 550)
        holds(e.smtp_error.decode(), "no route")
    equal(client.sendmail("me@work.test", "u001@example.test", message(sender="me@work.test")), {})
    client.finish()
    equal(len(q.list()), 1)


def dialogue(q, octets, *arguments, code=0):
    result = q.run("sendmail", "-bs", *arguments, stdin=octets)
    equal(result.code, code, repr(result))
    return [line for line in result.out.split("\r\n") if line[3:4] == " "]


@test("-bs: BDAT, LF from the keyboard, and smuggling by mixed line ends")
def bs_line_ends(scene):
    q = scene.sendq()
    begin = b"EHLO x\r\nMAIL FROM:<ann@example.test>\r\nRCPT TO:<u001@example.test>\r\n"
    text = message(subject="chunked", body="a\nb\n")
    replies = dialogue(q, begin + b"BDAT %d\r\n%sBDAT %d LAST\r\n%sQUIT\r\n" % (20, text[:20], len(text) - 20, text[20:]))
    equal([r[:3] for r in replies], ["220", "250", "250", "250", "250", "250", "221"])
    true(q.octets(q.list()[0]["id"]).endswith(b"\r\na\r\nb\r\n"), "chunks")
    equal([r[:3] for r in dialogue(q, begin.replace(b"\r", b"") + b"DATA\nSubject: typed\n\nx\n.\nQUIT\n")],
          ["220", "250", "250", "250", "354", "250", "221"])
    equal(len(q.list()), 2)
    for end in (b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r\n.\r"):
        replies = dialogue(q, begin + b"DATA\r\nSubject: x\r\n\r\nx" + end
                           + b"MAIL FROM:<eve@example.test>\r\nRCPT TO:<victim@example.test>\r\nDATA\r\ny\r\n.\r\nQUIT\r\n")
        equal([r[:3] for r in replies], ["220", "250", "250", "250", "354", "554", "421"], repr(end))
    equal(len(q.list()), 2, "messages")


@test("-bs: the other side goes away in the middle of a message: nothing of it is queued")
def bs_gone(scene):
    q = scene.sendq()
    begin = b"EHLO x\r\nMAIL FROM:<ann@example.test>\r\nRCPT TO:<u001@example.test>\r\n"
    dialogue(q, begin + b"DATA\r\nSubject: x\r\n\r\n" + b"y" * 70 + b"\r\n" * 400000, code=66)
    dialogue(q, begin + b"DATA\r\nSubject: x\r\n\r\nwhole but for the dot\r\n", code=66)
    dialogue(q, begin + b"BDAT 100 LAST\r\nshort", code=66)
    equal(q.list(all=True), [])
    equal(q.sql("SELECT count(*) FROM content"), [(0,)])


@test("-bs: the queue breaks between two messages: 4yz, and a full disk never gets a 250")
def bs_disk(scene):
    q = scene.sendq(free_disk_min="900T")
    replies = dialogue(q, b"EHLO x\r\nMAIL FROM:<ann@example.test>\r\nQUIT\r\n")
    equal([r[:3] for r in replies], ["220", "250", "452", "221"])
    q = scene.sendq()
    text = b"EHLO x\r\n" + b"".join(
        b"MAIL FROM:<ann@example.test>\r\nRCPT TO:<u%03d@example.test>\r\nDATA\r\nSubject: %d\r\n\r\nx\r\n.\r\n" % (n, n) for n in range(3))
    result = q.run("sendmail", "-bs", stdin=text, SENDQ_FAULT="submit_before_commit:2=kill")
    taken = len(re.findall("queued as", result.out))
    equal((taken, len(q.list())), (1, 1), "250s, messages")


@test("-bs on a TCP socket: only its own user may speak there")
def bs_tcp(scene):
    q = scene.sendq()
    for mapped in (False, True):
        listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) if mapped \
            else socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]

        def session(prefix=()):
            client = subprocess.Popen(list(prefix) + ["/usr/bin/python3", "-c", """
import socket, sys
s = socket.create_connection(("127.0.0.1", %d))
s.sendall(b"QUIT\\r\\n")
print(s.makefile().read())""" % port], stdout=subprocess.PIPE)
            connection, _ = listener.accept()
            done = subprocess.run([q.bin + "/sendmail", "-bs"], stdin=connection, stdout=connection, env=q.env(), timeout=60)
            connection.close()
            return done.returncode, client.communicate(timeout=60)[0].decode()

        code, words = session()
        equal((code, words[:3]), (0, "220"))
        if os.geteuid() == 0 and shutil.which("setpriv"):
            # The queue is root's here, and root may always; so it is another user's queue that root's child asks for.
            code, words = session(("setpriv", "--reuid=nobody", "--clear-groups"))
            equal((code, words[:3]), (EX_NOPERM, "554"), words)
        listener.close()


@test("-bs: swaks as the client")
def bs_swaks(scene):
    if not shutil.which("swaks"):
        raise Skip("swaks is not installed")
    q = scene.sendq()
    done = subprocess.run(["swaks", "--pipe", q.bin + "/sendmail -bs", "--from", "ann@example.test", "--to",
                           "u001@example.test,u002@example.test", "--header", "Subject: from swaks", "--body", "one\n.\ntwo\n"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=q.env(), timeout=60)
    equal(done.returncode, 0, done.stdout.decode())
    rows = q.list()
    equal(sorted(r["address"] for r in rows[0]["recipients"]), ["u001@example.test", "u002@example.test"])
    holds(q.octets(rows[0]["id"]).decode(), "\r\none\r\n.\r\ntwo\r\n")



# ---- the options, aliases, and senders that no server knows

def head(q, number):
    """The frozen header as {name: value} (last one wins) of a message."""
    block = q.octets(number).split(b"\r\n\r\n")[0].decode()
    return {line.partition(":")[0]: line.partition(":")[2].strip() for line in block.split("\r\n")}


def addresses(q, number):
    return sorted(r["address"] for r in q.get(number)["recipients"])


@test("cron's call: from root to root, and it goes from one's own address to oneself")
def cron(scene):
    output = b"From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@laptop> backup\nAuto-Submitted: auto-generated\n\ndisk full\n"
    for settings, own in (({"identity": "me@home.test"}, "me@home.test"), ({}, "ann@example.test")):
        q = scene.sendq(sendq.route("smtps://localhost:1", user="ann@example.test", password="x"), **settings)
        number = q.submit(output, "-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root")
        equal(addresses(q, number), [own])
        equal(q.sql("SELECT sender FROM message"), [("ann@example.test",)], "envelope")
        equal(head(q, number)["From"], "Cron Daemon <ann@example.test>")
        equal(head(q, number)["To"], "root", "the rest stays")


@test("root@thismachine in the envelope, and in the header where it is asked for; never one's own mail domain")
def masquerade(scene):
    here = socket.gethostname()
    for setting, envelope, header in ((None, "me@home.test", "root@" + here), ("header", "me@home.test", "me@home.test"),
                                      ("off", "root@" + here, "root@" + here)):
        q = scene.sendq(identity="me@home.test", masquerade=setting)
        number = q.submit(message(sender="Super User <root@%s>" % here), "-t")
        equal(q.sql("SELECT sender FROM message"), [(envelope,)], str(setting))
        equal(head(q, number)["From"], "Super User <%s>" % header, str(setting))
    q = scene.sendq(identity="me@" + here)
    number = q.submit(message(sender="Ann <ann@%s>" % here), "-t")
    equal(q.sql("SELECT sender FROM message"), [("ann@" + here,)], "a machine named as its mail domain")
    q = scene.sendq(identity="me@home.test", local_domains=["*.lan.test"], masquerade="header")
    number = q.submit(message(sender="root@box.lan.test"), "-t", "-f", "www-data@box.lan.test")
    equal((q.sql("SELECT sender FROM message"), head(q, number)["From"]), ([("me@home.test",)], "me@home.test"))
    signed = b"DKIM-Signature: v=1; h=from\n" + message(sender="root@box.lan.test", subject="signed")
    number = q.submit(signed, "-t")
    equal(head(q, number)["From"], "root@box.lan.test", "under a DKIM signature")


@test("force_from: whatever the caller says, envelope and From are the route's; the name stays")
def force_from(scene):
    q = scene.sendq(sendq.route("smtp://127.0.0.1:1", tls="none", force_from="shop@example.test"))
    number = q.submit(message(sender='"Web, Shop" <www@else.test>', Reply_To="help@example.test"), "-t", "-f", "www@else.test")
    equal(q.sql("SELECT sender FROM message"), [("shop@example.test",)])
    equal((head(q, number)["From"], head(q, number)["Reply-To"]), ('"Web, Shop" <shop@example.test>', "help@example.test"))
    result = scene.sendq(sendq.route("smtp://127.0.0.1:1", tls="none", force_from="shop")).sendmail(message())
    equal(result.code, EX_CONFIG)
    holds(result.err, "force_from")


def write(path, text):
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, 0o600)
    return path


@test("aliases: names of names, :include:, quotes, default; each address once; -bv and newaliases show it")
def aliases(scene):
    members = write(scene.folder + "/members", "# the band\nu003@example.test\n\ncarol, Dave <u004@example.test>\n")
    path = write(scene.folder + "/aliases", """# names of this machine
root: ann,
\tbob@example.test
ann: u001@example.test
Carol : \\carol, u002@example.test
"big list": :include:%s, root
default: postmaster@example.test
""" % members)
    q = scene.sendq(aliases=path, identity="me@home.test", domain="corp.test")
    number = q.submit(message(to="ROOT"), "-t")
    equal(addresses(q, number), ["bob@example.test", "u001@example.test"])
    number = q.submit(message(to='"big list"', subject="b"), "-t", "root@localhost")
    equal(addresses(q, number), ["bob@example.test", "carol@corp.test", "u001@example.test", "u002@example.test", "u003@example.test",
                                 "u004@example.test"])
    number = q.submit(message(to="nobody-here, daemon", subject="c"), "-t")
    equal(addresses(q, number), ["nobody-here@corp.test", "postmaster@example.test"])
    result = q.run("sendmail", "-bv", "root", "x@y.test", "a@@b")
    equal(result.code, 67)
    equal(result.out.splitlines()[:3], ["root... deliverable: route home, address u001@example.test",
                                        "root... deliverable: route home, address bob@example.test",
                                        "x@y.test... deliverable: route home, address x@y.test"])
    holds(result.out, "a@@b... undeliverable")
    for program, arguments in (("newaliases", ()), ("sendmail", ("-bi",))):
        result = q.run(program, *arguments)
        equal(result.code, 0, repr(result))
        holds(result.out, "%s: 5 aliases" % path)


BAD_ALIASES = {
    "a circle": ("a: b\nb: c, x@y.test\nc: a\n", ("circle", "a -> b -> c -> a")),
    "a circle of one": ("a: a\n", ("circle", "a -> a")),
    "a command": ('a: "|/bin/prog -x"\n', ("line 1", "command")),
    "a file": ("b: x@y.test\na: /var/mail/a\n", ("line 2", "file")),
    "an :include: that is not there": ("a: :include:/no/such/list\n", ("/no/such/list",)),
    "a file that includes itself": ("a: :include:%(folder)s/self\n", ("circle", "/self")),
    "no colon": ("a: x@y.test\nb x@y.test\n", ("line 2", "colon")),
    "a name twice": ("a: x@y.test\nA: z@y.test\n", ("line 2", "second")),
    "nothing behind the name": ("a:\n", ("line 1", "nothing")),
    "an address that is none": ("a: x@@y.test\n", ("line 1", "x@@y.test")),
}


@test("aliases: every mistake is a sentence with file and line, nothing is queued, and newaliases finds it first")
def bad_aliases(scene):
    write(scene.folder + "/self", ":include:%s/self\n" % scene.folder)
    for what, (text, words) in BAD_ALIASES.items():
        path = write(scene.folder + "/bad-aliases", text % {"folder": scene.folder} if "%(" in text else text)
        q = scene.sendq(aliases=path, identity="me@home.test")
        for result in (q.sendmail(message(to="a"), "-t"), q.run("newaliases")):
            true(result.code in (EX_DATAERR, EX_CONFIG), "%s: %r" % (what, result))
            equal(len(result.err.strip().splitlines()), 1, what)
            for word in words:
                holds(result.err, word, what)
        equal(q.list(all=True), [], what)
    path = write(scene.folder + "/open-aliases", "a: x@y.test\n")
    os.chmod(path, 0o666)
    q = scene.sendq(aliases=path, identity="me@home.test")
    equal(q.sendmail(message(to="a"), "-t").code, EX_CONFIG)
    q = scene.sendq(aliases=scene.folder + "/missing")
    equal(q.sendmail(message(to="a"), "-t").code, EX_CONFIG)
    equal(q.sendmail(message(to="a@b.test"), "-t").code, 0, "aliases are not needed for an address")
    # a bomb: 2^40 addresses
    path = write(scene.folder + "/bomb", "".join("a%d: a%d, a%d\n" % (n, n + 1, n + 1) for n in range(19)) + "a19: x@y.test\n")
    q = scene.sendq(aliases=path, identity="me@home.test")
    result = q.sendmail(message(to="a0"), "-t")
    true(result.code != 0, repr(result))


@test("nobody is named: the message says undisclosed-recipients, and Bcc does not show")
def undisclosed(scene):
    q = scene.sendq()
    number = q.submit(b"From: ann@example.test\nBcc: u001@example.test\nSubject: x\n\nx\n", "-t")
    equal((head(q, number)["To"], "Bcc" in head(q, number)), ("undisclosed-recipients:;", False))
    number = q.submit(b"From: ann@example.test\nCc: u002@example.test\n\nx\n", "-t")
    true("To" not in head(q, number), "To beside Cc")


@test("-bC checks, newaliases before there is a configuration is silent")
def checks(scene):
    q = scene.sendq()
    equal(q.run("sendmail", "-bC").code, 0)
    q.write_config("nonsense = 1;\n")
    result = q.run("sendmail", "-bC")
    equal(result.code, EX_CONFIG)
    os.unlink(q.config)
    result = q.run("newaliases", SENDQ_CONFIG=None)
    equal((result.code, result.out, result.err), (0, "", ""))


@test("mailq: what monitors parse, full and empty; -bpc counts")
def mailq(scene):
    q = scene.sendq()
    equal(q.run("mailq").out, "Mail queue is empty\n")
    equal(q.run("sendmail", "-bpc").out, "0\n")
    q.submit(message(), "-t")
    out = q.run("mailq").out
    equal(out.splitlines()[0], "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------")
    true(re.search(r"^-- [0-9]+ Kbytes in 1 Request\.$", out.splitlines()[-1]), out)
    # Checkmk's postfix_mailq and Nagios' check_mailq look for these
    true(re.match(r"^[0-9A-Za-z]+[*!?]? +[0-9]+ [A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8}  ann@example.test$", out.splitlines()[1]), out)
    q.submit(message(subject="two"), "-t")
    true(re.search(r"^-- [0-9]+ Kbytes in 2 Requests\.$", q.run("sendmail", "-bp").out.splitlines()[-1]), out)
    equal(q.run("sendmail", "-bpc").out, "2\n")


@test("-q by id, recipient and sender asks for those messages only")
def flush_forms(scene):
    q = scene.sendq()
    first = q.submit(message(to="u001@example.test"), "-t")
    second = q.submit(message(to="u002@example.test", sender="bob@example.test"), "-t")
    for arguments, want in ((("-qRu001",), [first]), (("-q!R", "u001"), [second]), (("-qSBOB@",), [second]), (("-qI", second), [second]),
                            (("-q!S", "bob"), [first]), (("-qRnobody",), [])):
        before = q.sql("SELECT coalesce(max(id), 0) FROM request")[0][0]
        equal(q.run("sendmail", *arguments).code, 0)
        got = [r[0] for r in q.sql("SELECT message FROM request WHERE id > %d ORDER BY id" % before)]
        equal(got, [_number(i) for i in want], repr(arguments))


def _number(text):
    n = 0
    for digit in text:
        n = n * 32 + "0123456789abcdefghjkmnpqrstvwxyz".index(digit)
    return n


# ---- callers, unchanged, as Debian ships them

def needs(*programs):
    for program in programs:
        if not shutil.which(program):
            raise Skip(program + " is not installed")


def call(q, args, stdin=b"", **env):
    """A mail program that finds our sendmail: exit status, output."""
    done = subprocess.run(args, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=100,
                          env=q.env(PATH=q.bin + ":" + os.environ["PATH"], **env))
    return done.returncode, done.stdout.decode("utf-8", "replace")


@test("mutt: sends, and its sendmail setting with DSN works")
def mutt(scene):
    needs("mutt")
    q = scene.sendq()
    rc = write(scene.folder + "/muttrc", """set sendmail="%s/sendmail -oem -oi"
set from="ann@example.test"
set use_envelope_from=yes
set dsn_notify="failure,delay"
set dsn_return=hdrs
set copy=no
set hostname=example.test
""" % q.bin)
    attachment = write(scene.folder + "/file.txt", "attached\n")
    code, out = call(q, ["mutt", "-n", "-F", rc, "-s", "from mutt", "-c", "u002@example.test", "-a", attachment, "--", "u001@example.test"], b"hi\n.\nbye\n")
    equal(code, 0, out)
    equal(q.sql("SELECT sender, ret FROM message"), [("ann@example.test", 2)])
    equal(q.sql("SELECT address, notify FROM recipient ORDER BY address"), [("u001@example.test", 12), ("u002@example.test", 12)])
    holds(q.octets(q.list()[0]["id"]).decode(), "hi\r\n.\r\nbye\r\n")
    q.configure([sendq.route("smtp://127.0.0.1:1", tls="none", **{"from": ["*@work.test"]})])
    code, out = call(q, ["mutt", "-n", "-F", rc, "-s", "refused", "--", "u001@example.test"], b"x\n")
    true(code != 0, "mutt says it was sent: " + out)
    equal(len(q.list()), 1)


@test("s-nail and bsd-mailx: mail -s, and the exit status when nothing was queued")
def mailx(scene):
    for program in ("s-nail", "bsd-mailx"):
        needs(program)
        q = scene.sendq(identity="ann@example.test")
        extra = ["-S", "mta=%s/sendmail" % q.bin, "-n"] if program == "s-nail" else ["-n"]
        rc = write(scene.folder + "/mailrc", "set sendmail=%s/sendmail\nset sendwait\n" % q.bin)
        code, out = call(q, [program] + extra + ["-s", "from mail", "-c", "u002@example.test", "u001@example.test"], b"hello\n", MAILRC=rc)
        equal(code, 0, program + ": " + out)
        until(lambda: len(q.list()) == 1, 20, program + ": " + out)
        number = q.list()[0]["id"]
        equal(addresses(q, number), ["u001@example.test", "u002@example.test"], program)
        equal(q.sql("SELECT sender FROM message"), [("ann@example.test",)], program)
        equal(head(q, number)["Subject"], "from mail")
        true("@" in head(q, number)["From"], head(q, number)["From"])


@test("git send-email: a series of 20 in one thread, whole and in order", seconds=300)
def git_send_email(scene):
    needs("git")
    if not os.path.exists("/usr/lib/git-core/git-send-email"):
        raise Skip("git-email is not installed")
    q = scene.sendq()
    repo = scene.folder + "/repo"

    def git(*args, check=True):
        code, out = call(q, ["git", "-C", repo, "-c", "user.name=Ann", "-c", "user.email=ann@example.test", "-c",
                             "sendemail.smtpServer=%s/sendmail" % q.bin] + list(args), GIT_CONFIG_NOSYSTEM="1")
        if check:
            equal(code, 0, out)
        return out

    os.mkdir(repo)
    git("init", "-q")
    for n in range(21):
        write(repo + "/file", "line %d\n.\nFrom here\n" % n)
        git("add", "file")
        git("commit", "-qm", "change %d\n\n.\nFrom the body\n" % n)
    git("format-patch", "-q", "--thread", "--cover-letter", "-20", "-o", scene.folder + "/patches", "--subject-prefix=PATCH v2")
    patches = sorted(os.path.join(scene.folder, "patches", n) for n in os.listdir(scene.folder + "/patches"))
    git("send-email", "--quiet", "--confirm=never", "--suppress-cc=all", "--force", "--from=Ann <ann@example.test>", "--to=u001@example.test",
        "--cc=u002@example.test", *patches)
    rows = q.list()
    equal(len(rows), 21)
    heads = [head(q, m["id"]) for m in rows]
    for n, h in enumerate(heads):
        holds(h["Subject"], "[PATCH v2 %02d/20]" % n)
        if n:
            equal(h["In-Reply-To"], heads[0]["Message-Id" if "Message-Id" in heads[0] else "Message-ID"])
    holds(q.octets(rows[5]["id"]).decode(), "\r\n.\r\nFrom the body\r\n")
    q.configure([sendq.route("smtp://127.0.0.1:1", tls="none", **{"from": ["*@work.test"]})])
    out = git("send-email", "--quiet", "--confirm=never", "--force", "--from=Ann <ann@example.test>", "--to=u001@example.test", patches[1], check=False)
    holds(out, "no route", "git shows why")
    equal(len(q.list()), 21)


@test("Python and a shell script: subprocess, pipe, exit statuses")
def scripts(scene):
    q = scene.sendq()
    code, out = call(q, ["/usr/bin/python3", "-c", """
import subprocess
from email.message import EmailMessage
m = EmailMessage()
m["From"], m["To"], m["Subject"] = "ann@example.test", "u001@example.test", "J\\u00fcrgen"
m.set_content("h\\u00e4llo\\n.\\nend\\n")
subprocess.run(["sendmail", "-t", "-oi"], input=m.as_bytes(), check=True)
"""])
    equal(code, 0, out)
    code, out = call(q, ["sh", "-c", "printf 'Subject: x\\n\\nx\\n' | sendmail -f '' u001@example.test; echo $?; echo x | sendmail 'a b@@'; echo $?"])
    equal([line for line in out.splitlines() if line.isdigit()], ["0", "65"], out)
    equal(len(q.list()), 2)


# ---- undo and later

def clock(scene, q):
    """A clock of the test's own; call it with the milliseconds by which it is ahead."""
    path = write(q.folder + "/clock", "0")
    q.extra_env["SENDQ_TEST_CLOCK"] = path
    return lambda ms: write(path, str(ms))


@test("undo_window: the message can be taken back until it goes, and goes by itself after that")
def undo(scene):
    sink = links.Sink(process.temp_folder("undo"))
    q = scene.sendq(sendq.route("smtp://127.0.0.1:%d" % sink.port, tls="none"), undo_window="1h")
    ahead = clock(scene, q)
    first, second, third = (q.submit(message(subject=w), "-t") for w in ("first", "second", "third"))
    equal(q.status("undo").code, 0)
    equal(q.status("undo", first).code, 0)
    equal([q.states(m)["u001@example.test"] for m in (first, second, third)], ["removed", "queued", "removed"])
    equal(q.flush(), 75, "a flush of everything does not end the wait")
    equal(q.states(second), {"u001@example.test": "queued"})
    q.daemon()
    ahead(3601000)
    q.poke()
    q.wait(second, "sent")
    result = q.status("undo", second)
    equal(result.code, 69, repr(result))
    holds(result.err, "too late")
    q.stop_daemon()
    equal(len(sink.messages()), 1)
    equal(q.status("undo").code, 66)
    sink.stop()


@test("undo of a message that a server has seen something of is refused")
def undo_seen(scene):
    server = Scripted({"FINAL": "451 4.3.0 later"})
    q = scene.sendq(sendq.route("smtp://127.0.0.1:%d" % server.port, tls="none"))
    number = q.submit(message(), "-t")
    equal(q.flush(), 75)
    result = q.status("undo", number)
    equal(result.code, 69)
    holds(result.err, "sendq remove")
    equal(q.states(number), {"u001@example.test": "queued"})
    server.stop()


@test("-O NotBefore and Deadline: not before, and not after, with a report; sendq edit moves both")
def later(scene):
    sink = links.Sink(process.temp_folder("later"))
    q = scene.sendq(sendq.route("smtp://127.0.0.1:%d" % sink.port, tls="none"))
    ahead = clock(scene, q)
    late = q.submit(message(subject="late"), "-v", "-t", "-O", "NotBefore=2h")
    dead = q.submit(message(to="u002@example.test", subject="dead"), "-v", "-t", "-O", "NotBefore=3h", "-ODeadline=4h")
    result = q.sendmail(message(), "-t", "-O", "NotBefore=3h", "-O", "Deadline=2h")
    equal(result.code, EX_USAGE, repr(result))
    equal(q.flush(), 75)
    equal(len(sink.messages()), 0, "sent before its time")
    holds(q.status("why", late).out, "asked")
    equal(q.status("edit", late, "--at", "90m").code, 0)
    equal(q.status("edit", dead, "--at", "10h").code, 0)
    equal(q.status("edit", dead, "--deadline", "30m").code, 0, "a deadline alone may come before")
    ahead(5401000)
    equal(q.flush(), 0)
    equal(q.states(), {"u001@example.test": "sent", "u002@example.test": "expired"})
    equal(len(sink.messages()), 1)
    true(any("u002@example.test" in t for t in q.notice_texts()), "a report about the deadline")
    sink.stop()


NO_TIMES = ("", " ", "-1", "-5m", "99999999999999999999h", "1e9h", "2026-02-30 10:00", "2026-13-01", "25:00", "24:00", "18:60", "@-1", "@99999999999999999999",
            "@1e5", "now", "tomorrow", "18:00x", "2h 3m", "2h\n", "1900-01-01 00:00", "18:00:61", "%s%n", "h", "@", "x" * 5000)


@test("times that are none: refused with one line by sendmail and by sendq edit; nothing is queued or changed")
def no_times(scene):
    q = scene.sendq()
    number = q.submit(message(), "-v", "-t", "-O", "NotBefore=5h")
    before = q.get(number)["recipients"][0]["next_try_ms"]
    for value in NO_TIMES:
        for option in ("NotBefore", "Deadline"):
            result = q.sendmail(message(subject="bad time"), "-t", "-O", "%s=%s" % (option, value))
            equal(result.code, EX_USAGE, "%s=%r: %r" % (option, value[:40], result))
            equal(len(result.err.strip().splitlines()), 1, result.err)
            holds(result.err, option)
        for option in ("--at", "--deadline"):
            result = q.status("edit", number, option, value)
            equal(result.code, EX_USAGE, "%s %r: %r" % (option, value[:40], result))
            equal(len(result.err.strip().splitlines()), 1, result.err)
    for arguments, code, word in ((("--at",), 64, "--at"), (("--nonsense",), 64, "no option"), (("--to", "|cmd"), 65, "domain"), (("--to", "x@y.test,z@y.test"), 65, "second"),
                                  (("--to", "x@y.test\r\nRCPT TO:<z@z>"), 65, "control"), (("--to", "a" * 5000 + "@b.test"), 65, "64 octets"),
                                  ((number, "--at", "2h"), 64, "one message"), (("--at", "5h", "--deadline", "2h"), 69, "deadline")):
        result = q.status("edit", number, *arguments)
        equal(result.code, code, "%r: %r" % (arguments[:1], result))
        holds(result.err, word)
    for arguments in (("x",), ("",), ("%s",), ("1" * 5000,), (number + "\n",)):
        equal(q.status("undo", *arguments).code, 66, repr(arguments)[:50])
    equal(len(q.list()), 1)
    equal(q.get(number)["recipients"][0]["next_try_ms"], before)


@test("sendq edit --to: another recipient, the same octets; never what is sent or in doubt")
def edit_to(scene):
    sink = links.Sink(process.temp_folder("edit"))
    q = scene.sendq(sendq.route("smtp://127.0.0.1:%d" % sink.port, tls="none"))
    one = q.submit(message(to="wrong@example.test"), "-t")
    two = q.submit(message(to=["u002@example.test", "u003@example.test"], subject="two"), "-t")
    octets = q.octets(one)
    equal(q.status("edit", one, "--to", "u001@example.test").code, 0)
    for arguments, code, word in (((two, "--to", "u004@example.test"), 69, "replace"), ((two, "--to", "u002@example.test"), 69, "already"),
                                  ((two, "--to", "a@@b"), 65, "a@@b"), ((two, "--to", "name"), 65, "domain"), ((two,), 64, "--at"),
                                  ((two, "--at", "yesterday"), 64, "yesterday"), ((two, "--to", "x@y.test", "--instead-of", "nobody@y.test"), 69, "nobody"),
                                  (("zzzz", "--at", "2h"), 66, "zzzz")):
        result = q.status("edit", *arguments)
        equal(result.code, code, "%r: %r" % (arguments, result))
        holds(result.err, word)
    equal(q.status("hold", two).code, 0)
    equal(q.status("edit", two, "--to", "jürgen@example.test", "--instead-of", "u003@example.test").code, 0)
    equal(q.states(two), {"u002@example.test": "held", "jürgen@example.test": "held"})
    equal(q.sql("SELECT flags & 2 FROM message ORDER BY id"), [(0,), (2,)], "SMTPUTF8 is needed now")
    equal(q.octets(one), octets, "frozen octets")
    equal(q.flush(), 0)
    equal(q.states(one), {"u001@example.test": "sent"})
    equal(sink.messages(), [octets])
    result = q.status("edit", one, "--to", "u005@example.test")
    equal(result.code, 69, repr(result))
    server = Scripted({"FINAL": CLOSE})
    q = scene.sendq(sendq.route("smtp://127.0.0.1:%d" % server.port, tls="none"))
    doubtful = q.submit(message(), "-t")
    q.flush()
    equal(q.states(), {"u001@example.test": "doubt"})
    for arguments in (("edit", doubtful, "--to", "x@y.test"), ("edit", doubtful, "--at", "2h"), ("undo", doubtful)):
        result = q.status(*arguments)
        equal(result.code, 69, repr(result))
    equal(q.states(), {"u001@example.test": "doubt"})
    server.stop()
    sink.stop()


@test("check_mailq of Debian's monitoring plugins: empty, warning, critical, and an error is no empty queue")
def check_mailq(scene):
    folder = scene.folder + "/plugins"
    os.makedirs(folder)
    os.chmod(folder, 0o777)
    got = subprocess.run(["apt-get", "-q", "download", "monitoring-plugins-standard", "monitoring-plugins-common"], cwd=folder, stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    debs = [n for n in os.listdir(folder) if n.endswith(".deb")]
    if got.returncode != 0 or len(debs) != 2:
        raise Skip("monitoring-plugins cannot be fetched: %s" % got.stdout.decode("utf-8", "replace")[-300:])
    for name in debs:
        subprocess.run(["dpkg", "-x", "%s/%s" % (folder, name), folder + "/root"], check=True)
    plugins = folder + "/root/usr/lib/nagios/plugins"
    q = scene.sendq()
    # The site's setting of the path is all that is changed.
    with open(plugins + "/utils.pm") as f:
        text = f.read()
    changed = re.sub(r'(?m)^(\$PATH_TO_MAILQ\s*=).*$', lambda m: '%s "%s/mailq";' % (m.group(1), q.bin), text)
    true(changed != text, "PATH_TO_MAILQ in utils.pm")
    write(plugins + "/utils.pm", changed)

    def plugin():
        return call(q, ["perl", plugins + "/check_mailq", "-M", "postfix", "-w", "1", "-c", "3"])

    for count, code, word in ((0, 0, "OK"), (2, 1, "WARNING"), (3, 2, "CRITICAL")):
        while len(q.list()) < count:
            q.submit(message(subject=str(len(q.list()))), "-t")
        got = plugin()
        equal(got[0], code, got[1])
        holds(got[1], word)
        holds(got[1], "unsent=%d" % count)
    q.write_config("nonsense = 1;\n")
    got = plugin()
    equal(got[0], 2, got[1])
    holds(got[1], "Error code 78")


def _heavy(name):
    needs(name)


@test("PHP's mail()", long=True)
def php(scene):
    _heavy("php")
    q = scene.sendq(identity="ann@example.test")
    code, out = call(q, ["php", "-n", "-d", "sendmail_path=%s/sendmail -t -i" % q.bin, "-r",
                         'exit(mail("u001@example.test", "from php", "hi\\n.\\nbye", "From: ann@example.test") ? 0 : 1);'])
    equal(code, 0, out)
    holds(q.octets(q.list()[0]["id"]).decode(), "hi\r\n.\r\nbye")
    q.configure([sendq.route("smtp://127.0.0.1:1", tls="none", **{"from": ["*@work.test"]})])
    code, out = call(q, ["php", "-n", "-d", "sendmail_path=%s/sendmail -t -i" % q.bin, "-r",
                         'exit(mail("u001@example.test", "x", "x", "From: ann@example.test") ? 0 : 1);'])
    equal(code, 1, "mail() says it was sent")


@test("neomutt", long=True)
def neomutt(scene):
    _heavy("neomutt")
    q = scene.sendq()
    rc = write(scene.folder + "/neomuttrc", 'set sendmail="%s/sendmail -oem -oi"\nset from="ann@example.test"\nset use_envelope_from=yes\nset copy=no\n' % q.bin)
    code, out = call(q, ["neomutt", "-n", "-F", rc, "-s", "from neomutt", "--", "u001@example.test"], b"hi\n")
    equal(code, 0, out)
    equal(addresses(q, q.list()[0]["id"]), ["u001@example.test"])


@test("Emacs: sendmail-send-it, and that nothing was queued reaches the user", long=True)
def emacs(scene):
    _heavy("emacs")
    q = scene.sendq()
    lisp = """(progn (require 'sendmail) (setq send-mail-function 'sendmail-send-it sendmail-program "%s/sendmail" mail-interactive t
 user-mail-address "ann@example.test" user-full-name "Ann")
 (with-temp-buffer (mail-mode)
 (insert "To: u001@example.test\nSubject: from Emacs\n" mail-header-separator "\n.\nhi\n") (funcall send-mail-function)))""" % q.bin
    code, out = call(q, ["emacs", "-Q", "--batch", "--eval", lisp])
    equal(code, 0, out)
    equal(addresses(q, q.list()[0]["id"]), ["u001@example.test"])
    equal(q.sql("SELECT sender FROM message"), [("ann@example.test",)])
    true(q.octets(q.list()[0]["id"]).endswith(b"\r\n\r\n.\r\nhi\r\n"), repr(q.octets(q.list()[0]["id"])))
    q.configure([sendq.route("smtp://127.0.0.1:1", tls="none", **{"from": ["*@work.test"]})])
    code, out = call(q, ["emacs", "-Q", "--batch", "--eval", lisp])
    true(code != 0 and "exit value 78" in out, "Emacs: %d %s" % (code, out))


@test("aerc, on a terminal of tmux", long=True)
def aerc(scene):
    _heavy("aerc")
    _heavy("tmux")
    q = scene.sendq()
    home = q.folder + "/home"
    os.makedirs(home + "/.config/aerc", exist_ok=True)
    os.makedirs(home + "/Mail/cur")
    os.makedirs(home + "/Mail/new")
    os.makedirs(home + "/Mail/tmp")
    write(home + "/.config/aerc/accounts.conf",
          "[home]\nsource = maildir://%s\noutgoing = %s/sendmail -oi\nfrom = Ann <ann@example.test>\n" % (home + "/Mail", q.bin))
    editor = write(home + "/editor", "#!/bin/sh\nprintf '.\\nfrom aerc\\n' >>\"$1\"\n")
    os.chmod(editor, 0o755)
    env = q.env(PATH=q.bin + ":" + os.environ["PATH"], EDITOR=editor, XDG_CONFIG_HOME=home + "/.config", XDG_RUNTIME_DIR=home, TERM="xterm", SHELL="/bin/sh",
                TMUX_TMPDIR=home)
    tmux = ["tmux", "-L", "aerc", "-f", "/dev/null"]

    def screen():
        return subprocess.run(tmux + ["capture-pane", "-p"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env).stdout.decode("utf-8", "replace")

    subprocess.run(tmux + ["new-session", "-d", "-x", "120", "-y", "40", "aerc"], check=True, env=env)
    try:
        until(lambda: "home" in screen(), 30, "aerc is there", pause=0.2)
        subprocess.run(tmux + ["send-keys", ":compose -H \"To: u001@example.test\" -H \"Subject: from aerc\"", "Enter"], check=True, env=env)
        until(lambda: "y" in screen() and "Send" in screen(), 30, "aerc asks whether to send", pause=0.2)
        subprocess.run(tmux + ["send-keys", "y"], check=True, env=env)
        try:
            until(lambda: q.list(), 30, "aerc's message is queued", pause=0.2)
        except AssertionError:
            raise AssertionError(screen())
    finally:
        subprocess.run(tmux + ["kill-server"], env=env)
    number = q.list()[0]["id"]
    equal(addresses(q, number), ["u001@example.test"])
    holds(q.octets(number).decode(), "from aerc\r\n")


if __name__ == "__main__":
    main(Scene)
