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
from harness import process, sendq  # noqa: E402
from harness.sendq import EX_CONFIG, EX_DATAERR, EX_NOPERM, EX_OK, EX_USAGE, message  # noqa: E402
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


if __name__ == "__main__":
    main(Scene)
