#!/usr/bin/python3
"""What goes in comes out: octet for octet, over every kind of session, to the recipients that take it."""
import base64
import hashlib
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fake"))
from harness import dovecot, links, process  # noqa: E402
from harness.postfix import without_trace  # noqa: E402
from harness.sendq import message  # noqa: E402
from harness.tap import equal, holds, main, note, test, true, until  # noqa: E402
from harness.world import PASSWORD, USER, World  # noqa: E402
from scripted import Scripted  # noqa: E402

CORPUS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "corpus")

AWKWARD = (
    "dots\n.\n..\n.x\n...\nFrom here on\n>From there\n"
    "8 bit: Grüße, 你好, \U0001f600\n"
    "trailing blanks   \t\n\n\n"
    + "x" * 998 + "\n" + "." + "y" * 997 + "\n"
    "MAIL FROM:<x@y>\nBDAT 5 LAST\nDATA\nQUIT\n"
    ".\n")


def deliver(world, q, user, data, copies=1, args=()):
    """Queue, flush, and compare what arrived with what was frozen; the frozen octets."""
    number = q.submit(data, *args)
    frozen = q.octets(number)
    equal(q.flush(), 0, "flush: %r" % q.list())
    equal(set(q.states(number).values()), {"sent"})
    for copy in world.postfix.settled(user, copies):
        same(without_trace(copy, frozen), frozen)
    rows = [r for r in q.sent() if r["message_id"] == q.get(number)["message_id"]]
    equal({r["sha256"] for r in rows}, {hashlib.sha256(frozen).hexdigest()}, "SHA-256 in the ledger")
    return frozen


def same(got, want):
    if got != want:
        at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
        raise AssertionError("octets differ at %d of %d/%d: %r, frozen %r" %
                             (at, len(got), len(want), got[at - 20:at + 60], want[at - 20:at + 60]))


def corpus():
    for folder, _, names in sorted(os.walk(CORPUS)):
        for name in sorted(names):
            if name.endswith(".eml"):
                yield os.path.join(folder, name)


@test("every message of the corpus arrives as it was frozen, and nothing but line ends and missing fields was changed", 300)
def whole_corpus(world):
    q = world.sendq(world.plain(world.postfix.port))
    frozen, skipped = {}, []
    for path in corpus():
        user = world.user()
        with open(path, "rb") as f:
            data = f.read()
        result = q.sendmail(data, "-oi", "-v", "-f", USER, "--", user + "@example.test")
        if result.code != 0:
            skipped.append("%s: exit %d: %s" % (os.path.relpath(path, CORPUS), result.code, result.err.strip()))
            continue
        number = q.list()[-1]["id"]
        frozen[user] = (path, q.octets(number))
        body_kept(path, data, frozen[user][1])
    note("\n".join(skipped))
    true(len(skipped) <= 2, "%d files were refused:\n%s" % (len(skipped), "\n".join(skipped)))
    equal(q.flush(), 0, "flush: %r" % q.list())
    for user, (path, octets) in frozen.items():
        copy, = world.postfix.settled(user, 1)
        if re.match(rb"[!-9;-~]+[ \t]+:", octets):
            continue  # Postfix takes the blanks out before the colon of a field (obsolete syntax, RFC 5322 4.5.8)
        try:
            same(without_trace(copy, octets), octets)
        except AssertionError as e:
            raise AssertionError("%s: %s" % (path, e))
    note("%d messages" % len(frozen))


def body_kept(path, data, frozen):
    """
    The body begins behind the first empty line, or with the first line that
    can be none of a header; behind that only line ends may differ.
    """
    rest = re.sub(rb"\AFrom .*\n", b"", data)
    while True:
        line = re.match(rb"(.*?)(\r?\n|\Z)", rest, re.S)
        if not line.group(1) or not line.group(2):
            rest = rest[line.end():]
            break
        if not re.match(rb"[ \t]|[!-9;-~]+[ \t]*:", line.group(1)):
            break
        rest = rest[line.end():]
    want = re.sub(rb"\r?\n", b"\r\n", rest)
    got = frozen.split(b"\r\n\r\n", 1)[1]
    at = next((i for i in range(min(len(got), len(want))) if got[i] != want[i]), min(len(got), len(want)))
    true(got in (want, want + b"\r\n"), "%s: the body was changed at octet %d of %d (%d): %r, not %r" %
         (path, at, len(want), len(got), got[max(at - 20, 0):at + 40], want[max(at - 20, 0):at + 40]))


@test("dots, 8-bit text, long lines and SMTP look-alikes arrive unchanged, with BDAT and with DATA")
def awkward(world):
    for keywords in ("", "chunking", "chunking pipelining"):
        world.postfix.without(keywords)
        user = world.user()
        q = world.sendq(world.plain(world.postfix.port))
        deliver(world, q, user, message(user + "@example.test", "awkward", AWKWARD), args=("-t", "-oi"))
    world.postfix.without("")


@test("a message without a last line end, without a body, with nothing but a body")
def odd_shapes(world):
    for data in (b"To: %s\nSubject: a\n\nno line end", b"To: %s\nSubject: b\n", b"To: %s\nSubject: c\n\n\n\n"):
        user = world.user()
        q = world.sendq(world.plain(world.postfix.port))
        deliver(world, q, user, data.replace(b"%s", (user + "@example.test").encode()), args=("-t", "-f", USER))
    user = world.user()
    q = world.sendq(world.plain(world.postfix.port))
    deliver(world, q, user, b"just text\n", args=("-f", USER, user + "@example.test"))


@test("a 25 MB attachment", 300)
def large(world):
    user = world.user()
    attachment = base64.encodebytes(hashlib.sha256(b"seed").digest() * (18 << 15)).decode()
    q = world.sendq(world.plain(world.postfix.port))
    frozen = deliver(world, q, user, message(user + "@example.test", "large", attachment))
    true(len(frozen) > 25000000, "only %d octets" % len(frozen))


@test("100 recipients in one transaction, one copy each")
def hundred(world):
    users = [world.user() for _ in range(100)]
    link = world.link(world.postfix.port)
    q = world.sendq(world.plain(link.port))
    number = q.submit(message(users[0] + "@example.test", "many"), "-t", *[u + "@example.test" for u in users[1:]])
    equal(len(q.states(number)), 100)
    frozen = q.octets(number)
    equal(q.flush(), 0)
    equal(set(q.states(number).values()), {"sent"})
    for user in users:
        same(without_trace(world.postfix.settled(user, 1)[0], frozen), frozen)
    equal([r["terminators"] for r in link.records()], [1], "transactions over the link")


@test("refused recipients are reported one by one, the others get their copy")
def refused(world):
    good = [world.user(), world.user()]
    q = world.sendq(world.plain(world.postfix.port))
    number = q.submit(message([good[0] + "@example.test", "refused-1@example.test", good[1] + "@example.test"], "some"))
    equal(q.flush(), 0)
    equal(q.states(number), {good[0] + "@example.test": "sent", good[1] + "@example.test": "sent",
                             "refused-1@example.test": "failed"})
    for user in good:
        world.postfix.settled(user, 1)
    reply = [r["reply"] for r in q.get(number)["recipients"] if r["state"] == "failed"][0]
    equal((reply["code"], reply["enhanced"]), (550, "5.1.1"))
    holds(reply["text"], "No such user here")
    report, = q.notice_texts()
    for word in ("multipart/report", "refused-1@example.test", "No such user here", "5.1.1"):
        holds(report, word, "the report")
    true(good[0] + "@example.test" not in report.split("message/rfc822")[0].split("text/rfc822-headers")[0],
         "the report names a recipient who got the message")
    equal(q.flush(), 0)
    equal(len(q.notice_texts()), 1, "reports")


@test("greylisted now, accepted at the next try")
def greylisted(world):
    q = world.sendq(world.plain(world.postfix.port))
    number = q.submit(message("grey@example.test", "grey"))
    equal(q.flush(), 75)
    row = q.get(number)["recipients"][0]
    equal((row["state"], row["reply"]["code"], row["reply"]["enhanced"]), ("queued", 450, "4.7.1"))
    true(row["next_try_ms"] > q.get(number)["submitted_ms"] + 60000, "the next try is later")
    equal(q.flush(), 0)
    equal(q.states(number), {"grey@example.test": "sent"})
    world.postfix.settled("grey", 1)


@test("a full mailbox waits and fails nothing")
def later(world):
    q = world.sendq(world.plain(world.postfix.port))
    number = q.submit(message("later-1@example.test", "later"))
    equal(q.flush(), 75)
    equal(q.states(number), {"later-1@example.test": "queued"})
    equal(q.notice_texts(), [])


@test("STARTTLS with AUTH PLAIN, with AUTH LOGIN, with what is chosen by itself; smtps with the same")
def tls(world):
    for port, scheme in ((world.postfix.submission, "smtp"), (world.postfix.smtps, "smtps")):
        for mechanism in ({"auth": "PLAIN"}, {"auth": "LOGIN"}, {}):
            user = world.user()
            q = world.sendq(world.tls(port, scheme, **mechanism))
            deliver(world, q, user, message(user + "@example.test", "tls", AWKWARD), args=("-t", "-oi"))
            copy, = world.postfix.delivered(user)
            holds(copy.decode(), "ESMTPSA", "Postfix's own trace field")
            if mechanism:
                holds(world.postfix.log(), "sasl_method=" + mechanism["auth"])


@test("the password by a command, and from a file")
def secrets(world):
    path = world.folder + "/password"
    with open(path, "w") as f:
        f.write(PASSWORD + "\n")
    os.chmod(path, 0o600)
    for secret in ({"password_command": "echo '%s'" % PASSWORD}, {"password_file": path}):
        user = world.user()
        q = world.sendq(world.tls(world.postfix.submission, password=None, **secret))
        deliver(world, q, user, message(user + "@example.test", "secret"))


@test("through Dovecot's submission server, which shows SIZE and DSN only behind the login")
def submission_server(world):
    folder = process.temp_folder("submission")
    server = dovecot.Dovecot(folder, world.certs, world.folder + "/mail", world.postfix.port, servers=True)
    try:
        for body in ("small\n", AWKWARD, "line\n" * 600000):
            user = world.user()
            q = world.sendq(world.tls(server.port))
            number = q.submit(message(user + "@example.test", "dovecot", body), "-t", "-oi")
            frozen = q.octets(number)
            equal(q.flush(), 0, "flush: %r" % q.list())
            same(without_trace(world.postfix.settled(user, 1)[0], frozen), frozen)
        q = world.sendq(world.tls(server.port))
        for _ in range(3):
            q.submit(message(world.user() + "@example.test", "one of three"))
        equal(q.flush(), 0)
    finally:
        server.stop()


@test("several messages of one route go over one connection")
def one_connection(world):
    link = world.link(world.postfix.port)
    q = world.sendq(world.plain(link.port))
    users = [world.user() for _ in range(8)]
    for user in users:
        q.submit(message(user + "@example.test", "of eight"))
    equal(q.flush(), 0)
    for user in users:
        world.postfix.settled(user, 1)
    equal(len(link.records()), 1, "connections")


@test("too large for the server: refused before one octet of it is sent")
def too_large(world):
    folder = process.temp_folder("sink")
    sink = links.Sink(folder, "--size", "100000")
    link = world.link(sink.port)
    q = world.sendq(world.plain(link.port))
    number = q.submit(message("bob@example.test", "large", "x" * 70 + "\n" + "y" * 70 + "\n" * 200000))
    equal(q.flush(), 0)
    equal(q.states(number), {"bob@example.test": "failed"})
    true(link.records()[0]["up"] < 5000, "octets over the link: %r" % link.records())
    equal(len(q.notice_texts()), 1, "reports")
    sink.stop()


@test("whatever the server does not offer is not used, and the octets are the same")
def extensions(world):
    for without in ((), ("PIPELINING",), ("CHUNKING",), ("PIPELINING", "CHUNKING"), ("SIZE", "DSN", "ENHANCEDSTATUSCODES"),
                    ("PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "DSN", "SIZE", "ENHANCEDSTATUSCODES")):
        folder = process.temp_folder("sink")
        sink = links.Sink(folder, *[w for word in without for w in ("--without", word)])
        q = world.sendq(world.plain(sink.port, eightbit="send"))
        number = q.submit(message("bob@example.test", "plain", AWKWARD), "-t", "-oi", "-R", "hdrs", "-V", "id", "-N", "failure")
        frozen = q.octets(number)
        equal(q.flush(), 0, "without %r: %r" % (without, q.list()))
        same(sink.messages()[0], frozen)
        sink.stop()


@test("8-bit content and non-ASCII addresses fail where the server cannot take them, and are never converted")
def eight_bit(world):
    folder = process.temp_folder("sink")
    sink = links.Sink(folder, "--without", "8BITMIME", "--without", "SMTPUTF8")
    q = world.sendq(world.plain(sink.port))
    first = q.submit(message("bob@example.test", "8 bit", "Grüße\n"))
    second = q.submit(message("jürgen@example.test", "address", "plain\n"))
    equal(q.flush(), 0)
    equal(q.get(first)["recipients"][0]["reply"]["enhanced"], "5.6.3")
    equal(q.get(second)["recipients"][0]["reply"]["enhanced"], "5.6.7")
    equal(set(q.states().values()), {"failed"})
    equal(sink.messages(), [])
    sink.stop()


@test("a non-ASCII address where the server takes it")
def smtputf8(world):
    q = world.sendq(world.plain(world.postfix.port))
    deliver(world, q, "jürgen", message("jürgen@example.test", "Grüße an Jürgen", "Grüße\n"))


@test("what was asked of the server by -N, -R and -V reaches it, and the sender by -f")
def dsn(world):
    server = Scripted()
    q = world.sendq(world.plain(server.port))
    q.submit(message("bob@example.test", "dsn"), "-t", "-f", "carol@example.test", "-N", "success,failure", "-R", "hdrs",
             "-V", "my-id")
    equal(q.flush(), 0)
    mail = [c for c in server.commands if c.startswith("MAIL")][0]
    rcpt = [c for c in server.commands if c.startswith("RCPT")][0]
    for word in ("FROM:<carol@example.test>", "RET=HDRS", "ENVID=my-id", "SIZE="):
        holds(mail, word)
    for word in ("TO:<bob@example.test>", "NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;bob@example.test"):
        holds(rcpt.replace("NOTIFY=FAILURE,SUCCESS", "NOTIFY=SUCCESS,FAILURE"), word)
    server.stop()


@test("added once: Date, Message-ID and From; removed: Bcc; and no host or user name in what goes out")
def frozen_fields(world):
    server = Scripted()
    q = world.sendq(world.plain(server.port), identity=USER)
    number = q.submit(b"To: bob@example.test\nBcc: carol@example.test\nSubject: fields\n\nhello\n")
    frozen = q.octets(number)
    head = frozen.split(b"\r\n\r\n")[0].decode()
    for field in ("Date", "Message-ID", "From", "To", "Subject"):
        equal(len(re.findall(r"(?im)^%s:" % field, head)), 1, field)
    true(not re.search(r"(?im)^bcc:", head), "Bcc is gone")
    equal(sorted(q.states(number)), ["bob@example.test", "carol@example.test"])
    identity = re.search(r"(?im)^message-id: *(\S+)", head).group(1)
    true(re.fullmatch(r"<[A-Za-z0-9]+\.[A-Za-z0-9]+@example\.test>", identity), identity)
    equal(q.flush(), 0)
    equal(server.messages[0][2], frozen)
    for name in (os.uname().nodename,):
        if len(name) > 3:
            true(name not in head + "".join(server.commands), "the host name went out")
    ehlo = [c for c in server.commands if c.startswith("EHLO")][0]
    true(re.fullmatch(r"EHLO [0-9a-f]{16}\.invalid", ehlo), ehlo)
    server.stop()


@test("every try sends the same octets")
def same_octets_each_try(world):
    server = Scripted({"FINAL": ["451 4.3.0 again", "451 4.3.0 again", "250 2.0.0 fine"]})
    q = world.sendq(world.plain(server.port))
    q.submit(message("bob@example.test", "again"))
    equal([q.flush(), q.flush(), q.flush()], [75, 75, 0])
    equal(len({m[2] for m in server.arrived}), 1, "different contents")
    equal(len(server.arrived), 3)
    server.stop()


@test("the daemon delivers by itself as soon as a message is queued")
def by_the_daemon(world):
    q = world.sendq(world.plain(world.postfix.port))
    q.daemon()
    user = world.user()
    number = q.submit(message(user + "@example.test", "daemon"))
    q.wait(number, "sent", 20)
    world.postfix.settled(user, 1)
    equal(q.stop_daemon(), 0, "sendqd's exit status")


@test("sendmail starts the daemon by itself, and does not wait for it")
def autostart(world):
    q = world.sendq(world.plain(world.postfix.port), autostart=True)
    user = world.user()
    try:
        number = q.submit(message(user + "@example.test", "autostart"))
        q.wait(number, "sent", 20)
        world.postfix.settled(user, 1)
    finally:
        ended = q.end_autostarted()
    equal(ended, 1, "daemons")


@test("two routes: by sender, and a dead one does not hold up the other")
def two_routes(world):
    dead = process.free_port()
    q = world.sendq(world.plain(dead, name="dead", **{"from": ["*@dead.test"]}),
                    world.plain(world.postfix.port, name="live"))
    q.daemon()
    user = world.user()
    stuck = q.submit(message("bob@example.test", "stuck", sender="me@dead.test"))
    number = q.submit(message(user + "@example.test", "fine"))
    q.wait(number, "sent", 20)
    equal(q.states(stuck), {"bob@example.test": "queued"})
    q.stop_daemon()


@test("a message over the black hole does not hold up the CLI or sendmail")
def black_hole(world):
    link = world.link(world.postfix.port, "* hole=up:2000")
    q = world.sendq(world.plain(link.port))
    q.daemon()
    number = q.submit(message("bob@example.test", "hole", "x\n" * 50000))
    until(lambda: q.states(number) == {"bob@example.test": "sending"}, 20)
    q.submit(message("bob@example.test", "behind it"))
    equal(q.status().code, 0)
    equal(q.status("why", number).code, 0)
    q.stop_daemon()
    equal(q.states(number), {"bob@example.test": "queued"})


if __name__ == "__main__":
    main(lambda: World("delivery"), World.stop)
