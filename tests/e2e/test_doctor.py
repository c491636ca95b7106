#!/usr/bin/python3
"""sendq doctor against real servers and faults: each fault is named where it is, with the server's words and a way out.

It never sends and never changes anything: the queue's messages and the mailboxes are compared.
"""
import os
import re
import socket
import ssl
import threading

from harness.filing import Filing
from harness.sendq import message
from harness.tap import equal, holds, main, test, true
from harness.world import PASSWORD, USER

CHECKS = ["configuration", "permissions", "queue", "disk", "mail", "daemon", "units", "clock"]
WAY = ["secret", "name", "connect", "certificate", "tls", "greeting", "login", "capabilities"]
IMAP = ["imap name", "imap connect", "imap certificate", "imap tls", "imap greeting", "imap login", "sent folder"]


def checks(q, *args, code=None, **env):
    """What doctor finds, by check; several of one name as a list's last."""
    import json
    done = q.status("doctor", "--json", *args, **env)
    if code is not None:
        equal(done.code, code, "sendq doctor: %r" % done)
    return [json.loads(line) for line in done.out.splitlines()]


def one(found, check):
    rows = [f for f in found if f["check"] == check]
    equal(len(rows), 1, "findings of '%s' in %r" % (check, found))
    return rows[0]


@test("all is well: every part of the way to Postfix and Dovecot's Sent folder, in order, timed, exit 0")
def well(world):
    q, link, clock = world.account("")
    q.submit(message(world.user() + "@example.test", "one that waits"), "-t", "-O", "NotBefore=1h")
    before = q.sql("SELECT id, state FROM recipient")
    found = checks(q, code=0)
    equal([f["check"] for f in found if not f["route"]], CHECKS)
    equal([f["check"] for f in found if f["route"] == "home"], WAY + IMAP)
    for f in found:
        true(f["verdict"] in ("ok", "skipped") or f["check"] == "daemon", "all is well: %r" % f)
    for name in WAY:
        true(name in ("certificate", "capabilities") or one(found, name)["ms"] >= 0, "%s is timed" % name)
    holds(one(found, "certificate")["what"], "localhost", "who it is for")
    holds(one(found, "tls")["what"], "TLSv1.3")
    holds(one(found, "capabilities")["what"], "CHUNKING")
    holds(one(found, "sent folder")["what"], "'Sent'")
    equal(q.sql("SELECT id, state FROM recipient"), before, "the queue is as it was")
    said = q.status("doctor")
    holds(said.out, "warning", "no daemon runs and autostart is off")
    true(PASSWORD not in said.out + str(found), "no secret is said")


@test("STARTTLS: TLS comes behind the greeting; the goodbye is heard, so that Postfix logs no lost connection")
def starttls(world):
    q = world.sendq(world.tls(world.postfix.submission))
    found = checks(q, code=0)
    equal([f["check"] for f in found if f["route"]], ["secret", "name", "connect", "greeting", "certificate", "tls", "login", "capabilities", "sent folder"])
    true("lost connection after AUTH" not in world.postfix.log(), "Postfix heard QUIT")


def untrusting(world, **more):
    settings = world.tls(world.postfix.smtps, "smtps", **more)
    del settings["ca_file"]
    return settings


@test("a certificate that nobody trusts, and one for another name: told before any password, with the fingerprint to pin")
def certificates(world):
    q = world.sendq(untrusting(world))
    found = checks(q, code=69)
    bad = one(found, "certificate")
    equal(bad["verdict"], "failed")
    pin = re.search(r"sha256:[0-9a-f]{64}", bad["mend"]).group()
    equal(one(found, "tls")["verdict"], "failed")
    true(not [f for f in found if f["check"] == "login"], "no login was tried")
    q = world.sendq(untrusting(world, fingerprint=pin))
    holds(one(checks(q, code=0), "certificate")["what"], "pinned")
    found = checks(world.sendq(dict(world.tls(world.postfix.smtps), server="smtps://127.0.0.2:%d" % world.postfix.smtps)), code=69)
    true(one(found, "tls" if any(f["check"] == "tls" for f in found) else "connect")["verdict"] == "failed", "another name: %r" % found)


@test("nobody listens, no such name, TLS where there is none: each is named where it is")
def unreachable(world):
    free = socket.socket()
    free.bind(("127.0.0.1", 0))
    q = world.sendq(world.plain(free.getsockname()[1]))
    f = one(checks(q, code=69), "connect")
    equal((f["verdict"], f["what"]), ("failed", "unreachable"))
    q = world.sendq(dict(world.plain(25), server="smtp://no-such-name.invalid:25"))
    f = one(checks(q, code=69), "name")
    equal((f["verdict"], f["what"]), ("failed", "offline"))
    q = world.sendq(world.tls(world.postfix.port, "smtps"))
    f = one(checks(q, code=69), "tls")
    equal(f["verdict"], "failed")
    holds(f["mend"], "STARTTLS")


class Says:
    """A server that greets with these words and hangs up at the first command."""

    def __init__(self, greeting):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.greeting = greeting
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            s, _ = self.listener.accept()
            with s:
                s.sendall(self.greeting)
                s.recv(4096)


@test("a server whose greeting tells the time: a clock that is off is said")
def clock_off(world):
    q = world.sendq(world.plain(Says(b"220 old ESMTP Exim 4.96 Thu, 26 Nov 2015 10:00:00 +0000\r\n").port))
    f = one(checks(q, code=69), "server clock")
    equal(f["verdict"], "warning")
    holds(f["what"], "ahead of the server")
    f = one(checks(q), "ehlo")
    equal(f["verdict"], "failed", "it hung up at EHLO")


@test("hostile words: escapes do not reach the terminal, a greeting of nonsense is a finding")
def hostile(world):
    q = world.sendq(world.plain(Says(b"554 go \x1b[2J\x07 away\r\n").port))
    done = q.status("doctor")
    equal(done.code, 69)
    holds(done.out, "554 go ")
    true("\x1b" not in done.out and "\x07" not in done.out, "no escape in %r" % done.out)
    q = world.sendq(world.plain(Says(b"\x00\xff" * 5000).port), connect_timeout="2s")
    true(any(f["verdict"] == "failed" for f in checks(q, code=69)), "nonsense fails")


@test("a secret that cannot be had is quoted; the way to the server is looked at all the same")
def no_secret(world):
    settings = world.tls(world.postfix.smtps, "smtps", password_command="echo keyring is locked >&2; exit 3")
    del settings["password"]
    q = world.sendq(settings)
    found = checks(q, code=69)
    holds(one(found, "secret")["words"], "keyring is locked")
    equal(one(found, "login")["verdict"], "skipped")
    equal(one(found, "certificate")["verdict"], "ok")


@test("a report for strangers: no name, no address, no home, no secret; the fault stays in it")
def report(world):
    q = world.sendq(world.plain(Says(b"554 5.7.1 Ann@example.test (ann, %s/x) is banned\r\n" % world.folder.encode()).port, user=USER, password="wr0ng"))
    q.extra_env["HOME"] = world.folder
    said = q.status("doctor", "--report").out
    for name in ("ann", "Ann", "wr0ng", world.folder):
        true(not re.search(r"\b%s\b" % re.escape(name), said), "'%s' is in %s" % (name, said))
    holds(said, "554 5.7.1 ...@example.test (..., ~/x) is banned")
    holds(said, "sendq 0.")


@test("files that others may write or read, a damaged queue, no configuration: found, with the command that mends it")
def files(world):
    q = world.sendq(world.plain(world.postfix.port))
    q.submit(message())
    os.chmod(q.config, 0o666)
    f = one(checks(q, code=78), "configuration")
    holds(f["what"], "chmod go-w")
    os.chmod(q.config, 0o600)
    os.chmod(q.folder, 0o777)
    f = one(checks(q, code=69), "permissions")
    holds(f["mend"], "chmod go-w")
    os.chmod(q.folder, 0o700)
    f = checks(q, "--config", "/nonexistent/sendq.conf", code=78)
    equal(f[0]["verdict"], "failed")
    holds(f[0]["what"], "/nonexistent")
    holds(f[0]["mend"], "sendq setup")
    q.sql("SELECT 1")
    size = os.path.getsize(q.queue)
    with open(q.queue, "r+b") as f:
        f.seek(size // 2 // 4096 * 4096)
        f.write(b"\xa5" * 8192)
    for end in ("-wal", "-shm"):
        if os.path.exists(q.queue + end):
            os.unlink(q.queue + end)
    f = one(checks(q, code=69), "queue")
    equal(f["verdict"], "failed", "a damaged queue: %r" % f)


@test("a daemon that runs is named with its version and pid")
def daemon(world):
    q = world.sendq(world.plain(world.postfix.port))
    q.daemon()
    f = one(checks(q, code=0), "daemon")
    equal(f["verdict"], "ok")
    holds(f["what"], "sendqd ")
    holds(f["what"], "pid %d" % q.pid())
    q.stop_daemon()


@test("only the route that is asked for; one that does not exist is a usage error")
def chosen(world):
    q = world.sendq(world.plain(world.postfix.port, name="one"), world.plain(world.postfix.port, name="two"))
    equal({f["route"] for f in checks(q, "two", code=0)}, {None, "two"})
    equal(q.status("doctor", "three").code, 64)


# Last: Dovecot makes everybody from here wait behind it.
@test("a wrong password: the login fails with the server's words, and the rest is shown")
def wrong_password(world):
    q, link, clock = world.account("", password="wrong")
    found = checks(q, code=69)
    login = one(found, "login")
    equal(login["verdict"], "failed")
    holds(login["words"], "535 ")
    holds(login["mend"], "app password")
    equal(one(found, "certificate")["verdict"], "ok")
    login = one(found, "imap login")
    equal(login["verdict"], "failed")
    holds(login["words"], "AUTHENTICATIONFAILED", "Dovecot's own words")


if __name__ == "__main__":
    main(lambda: Filing("doctor"), Filing.stop)
