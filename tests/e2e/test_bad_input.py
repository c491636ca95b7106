#!/usr/bin/python3
"""Every kind of bad input of the issue: one clear sentence, the right exit status, and nothing queued or lost."""
import os
import pwd
import signal
import sqlite3
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fake"))
from harness import process, sendq  # noqa: E402
from harness.sendq import (EX_CANTCREAT, EX_CONFIG, EX_DATAERR, EX_IOERR, EX_NOINPUT, EX_NOPERM, EX_NOUSER,  # noqa: E402
                           EX_OSERR, EX_TEMPFAIL, EX_UNAVAILABLE, EX_USAGE, message)
from harness.tap import Skip, add, equal, holds, main, test, true, until  # noqa: E402

PORT = 1  # nobody listens: nothing of this reaches a server


class Scene:
    def __init__(self):
        self.folder = process.temp_folder("bad")
        self._n = 0

    def sendq(self, *routes, **settings):
        self._n += 1
        routes = list(routes) or [sendq.route("smtp://127.0.0.1:%d" % PORT, tls="none")]
        return sendq.Sendq(self.folder, routes, name="sendq%d" % self._n, **settings)


def refused(q, result, codes, *words):
    """An exit status of `codes`, a sentence of one line with these words, nothing on stdout, nothing queued."""
    true(result.code in codes, "exit status %d, not %s: %r" % (result.code, codes, result))
    equal(result.out, "", "stdout")
    lines = result.err.strip().splitlines()
    equal(len(lines), 1, "lines on stderr: %r" % result.err)
    for word in words:
        holds(lines[0].lower(), word.lower(), "the sentence")
    true(not lines[0].endswith(":"), "the sentence ends in the middle")


def queue_is_empty(q):
    if os.path.exists(q.queue):
        equal(q.list(all=True), [])


# arguments, stdin, exit statuses, words of the sentence
INPUTS = {
    "no recipients at all": ((), b"Subject: x\n\nx\n", (EX_USAGE, EX_NOINPUT, EX_DATAERR), ("recipient",)),
    "-t and none in the header": (("-t",), b"Subject: x\n\nx\n", (EX_USAGE, EX_NOINPUT, EX_DATAERR), ("recipient",)),
    "empty stdin with -t": (("-t",), b"", (EX_NOINPUT, EX_DATAERR, EX_USAGE), ("empty",)),
    "an address in an argument that is none": (("bob@@example.test",), b"Subject: x\n\nx\n", (EX_DATAERR, EX_USAGE, EX_NOUSER),
                                               ("bob@@example.test",)),
    "an address in To that is none": (("-t",), b"To: bob@example.test, <carol@\nSubject: x\n\nx\n",
                                      (EX_DATAERR, EX_USAGE, EX_NOUSER), ("to", "carol")),
    "an address in Bcc that is none": (("-t",), b"To: bob@example.test\nBcc: a b c <\n\nx\n",
                                       (EX_DATAERR, EX_USAGE, EX_NOUSER), ("bcc",)),
    "an address with a line end in it": (("bob@example.test\r\nRCPT TO:<eve@example.test>",), b"x\n",
                                         (EX_DATAERR, EX_USAGE, EX_NOUSER), ("bob@example.test",)),
    "an unknown option": (("--no-such-option", "bob@example.test"), b"x\n", (EX_USAGE,), ("--no-such-option",)),
    "-f without a value": (("-f",), b"x\n", (EX_USAGE,), ("-f",)),
    "a sender that is none": (("-f", "not an address", "bob@example.test"), b"x\n", (EX_DATAERR, EX_USAGE, EX_NOUSER),
                              ("not an address",)),
    "-N with a word that is none": (("-N", "sometimes", "-f", "a@example.test", "bob@example.test"), b"x\n", (EX_USAGE,),
                                    ("sometimes",)),
    "-R with a word that is none": (("-R", "half", "-f", "a@example.test", "bob@example.test"), b"x\n", (EX_USAGE,), ("half",)),
}


def bad_input(arguments, data, codes, words):
    def run(scene):
        q = scene.sendq(identity="ann@example.test")
        refused(q, q.sendmail(data, *arguments), codes, *words)
        queue_is_empty(q)
    return run


for title_, row_ in INPUTS.items():
    add("sendmail: " + title_, bad_input(*row_))

GOOD = 'routes = ( { name = "home"; server = "smtp://127.0.0.1:1"; tls = "none"; } );\n'
# text of the file, words of the sentence
CONFIGS = {
    "an unknown setting, with the nearest name": (
        'queue = "/tmp/q";\nroutes = (\n  { name = "home";\n    server = "smtp://127.0.0.1:1";\n    pasword = "x"; } );\n',
        ("sendq.conf", "5", "pasword", "password")),
    "an unknown setting at the top": ("autostrat = true;\n" + GOOD, ("1", "autostrat", "autostart")),
    "a wrong type": ("autostart = 5;\n" + GOOD, ("1", "autostart")),
    "a duration that is none": ('undo_window = "soon";\n' + GOOD, ("1", "undo_window", "soon")),
    "a syntax error": ("routes = ( { name = ;\n", ("1",)),
    "no routes": ('queue = "/tmp/q";\n', ("routes",)),
    "two routes of one name": ('routes = ( { name = "a"; server = "smtp://h"; }, { name = "a"; server = "smtp://h"; } );\n', ("a",)),
    "two secrets in one route": (
        'routes = ( { name = "a"; server = "smtps://h"; user = "u@h"; password = "x"; password_command = "y"; } );\n', ("password",)),
    "a server that is no URL": ('routes = ( { name = "a"; server = "imap://h"; } );\n', ("imap://h",)),
    "a fallback that does not exist": ('routes = ( { name = "a"; server = "smtp://h"; fallback = "b"; } );\n', ("fallback", "b")),
}


def bad_config(text, words):
    def run(scene):
        q = scene.sendq()
        q.write_config(text)
        refused(q, q.sendmail(message()), (EX_CONFIG,), *words)
        for program, arguments in (("sendq", ("list",)), ("sendqd", ("--once",))):
            result = q.run(program, *arguments)
            true(result.code != 0, "%s took it" % program)
            holds(result.err.lower(), words[-1].lower(), program)
        queue_is_empty(q)
    return run


for title_, row_ in CONFIGS.items():
    add("configuration: " + title_, bad_config(*row_))


@test("no configuration at all: every place that was tried is named")
def no_config(scene):
    q = scene.sendq()
    os.unlink(q.config)
    refused(q, q.sendmail(message()), (EX_CONFIG,), q.config)
    refused(q, q.sendmail(message(), "-t", SENDQ_CONFIG=None), (EX_CONFIG,), "sendq.conf")


@test("a configuration with a password in it that others may read")
def readable_config(scene):
    q = scene.sendq(sendq.route("smtps://localhost:1", user="a@b.test", password="x"))
    os.chmod(q.config, 0o644)
    refused(q, q.sendmail(message()), (EX_CONFIG, EX_NOPERM), "chmod", q.config)
    os.chmod(q.config, 0o600)
    equal(q.sendmail(message()).code, 0)


@test("a password file that others may read, and one that is not there")
def readable_secret(scene):
    secret = scene.folder + "/secret"
    with open(secret, "w") as f:
        f.write("x\n")
    os.chmod(secret, 0o644)
    q = scene.sendq(sendq.route("smtps://localhost:1", user="a@b.test", password_file=secret))
    result = q.sendmail(message())
    if result.code == 0:
        equal(q.flush(), 75)
        text = q.status("why", q.list()[0]["id"]).out
    else:
        refused(q, result, (EX_CONFIG, EX_NOPERM), secret)
        text = result.err
    holds(text, secret)
    holds(text, "chmod")
    os.unlink(secret)
    q = scene.sendq(sendq.route("smtps://localhost:1", user="a@b.test", password_file=secret))
    result = q.sendmail(message())
    if result.code == 0:
        equal(q.flush(), 75)
        holds(q.status("why", q.list()[0]["id"]).out, secret)
    else:
        refused(q, result, (EX_CONFIG, EX_NOPERM), secret)


@test("no route matches the sender: never the wrong account")
def no_route(scene):
    q = scene.sendq(sendq.route("smtp://127.0.0.1:1", tls="none", **{"from": ["*@work.test"]}))
    refused(q, q.sendmail(message(sender="me@home.test")), (EX_CONFIG,), "me@home.test", "route")
    queue_is_empty(q)


@test("no sender to be had")
def no_sender(scene):
    q = scene.sendq()
    refused(q, q.sendmail(b"To: bob@example.test\n\nx\n"), (EX_CONFIG,), "identity")
    queue_is_empty(q)


def leftovers(q):
    """Rows of content that belong to no message."""
    return q.sql("SELECT count(*) FROM content WHERE id >> 20 NOT IN (SELECT id FROM message)")[0][0]


@test("sendmail killed while it reads: nothing queued, and nothing of it left after the next start")
def killed_while_reading(scene):
    q = scene.sendq()
    child = subprocess.Popen([q.bin + "/sendmail", "-t", "-oi"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=q.env())
    child.stdin.write(message(body="x" * 70 + "\n"))
    child.stdin.write(b"y" * 70 + b"\n" + b"z" * 75 + b"\n" * 2)
    for _ in range(30):
        child.stdin.write((b"a" * 75 + b"\n") * 2000)
    child.stdin.flush()
    until(lambda: os.path.exists(q.queue) and leftovers(q) > 0, 20, "some content is stored")
    child.kill()
    child.wait()
    child.stdin.close()
    child.stderr.close()
    equal(q.list(all=True), [])
    q.daemon()
    until(lambda: leftovers(q) == 0, 20, "the leftovers are swept")
    q.stop_daemon()


@test("sendmail ended by a signal while it reads: nothing queued")
def ended_while_reading(scene):
    for sig in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        q = scene.sendq()
        child = subprocess.Popen([q.bin + "/sendmail", "-t"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=q.env(),
                                 preexec_fn=process.die_with_parent)
        child.stdin.write(message())
        child.stdin.flush()
        # It reads: its end of the pipe has nothing left.
        until(lambda: _pipe_is_empty(child.stdin.fileno()), 20)
        child.send_signal(sig)
        child.wait(20)
        child.stdin.close()
        child.stderr.close()
        true(child.returncode != 0, "exit status 0")
        queue_is_empty(q)


def _pipe_is_empty(fd):
    import array
    import fcntl
    import termios
    n = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, n)
    return n[0] == 0


@test("a message over message_size_max")
def too_large(scene):
    q = scene.sendq(message_size_max="100k")
    refused(q, q.sendmail(message(body="x" * 70 + "\n" + "y\n" * 100000)), (EX_UNAVAILABLE, EX_DATAERR), "100")
    queue_is_empty(q)
    true(leftovers(q) == 0 if os.path.exists(q.queue) else True, "content is left")


@test("too little free disk: refused before anything is written")
def little_disk(scene):
    q = scene.sendq(free_disk_min="900T")
    refused(q, q.sendmail(message()), (EX_TEMPFAIL,), "disk")
    queue_is_empty(q)


@test("a queue on a full disk")
def full_disk(scene):
    place = scene.folder + "/small"
    os.mkdir(place)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "none", place], stderr=subprocess.DEVNULL).returncode:
        raise AssertionError("cannot mount a small tmpfs; root is needed")
    try:
        q = scene.sendq(queue=place + "/queue.db", free_disk_min=0)
        q.queue = place + "/queue.db"
        equal(q.sendmail(message(body="fits\n")).code, 0)
        result = q.sendmail(message(body="x" * 75 + "\n" + ("y" * 75 + "\n") * 60000))
        refused(q, result, (EX_TEMPFAIL, EX_IOERR))
        equal(len(q.list()), 1, "messages")
        equal(q.sendmail(message(subject="after", body="fits as well\n")).code in (0, EX_TEMPFAIL), True)
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@test("a database newer than the program")
def newer(scene):
    q = scene.sendq()
    equal(q.sendmail(message()).code, 0)
    db = sqlite3.connect(q.queue)
    db.execute("PRAGMA user_version = 999")
    db.commit()
    db.close()
    for result in (q.sendmail(message()), q.status("list"), q.run("sendqd", "--once")):
        true(result.code != 0, repr(result))
        holds(result.err, "999")


@test("a file that is no database, and one that was damaged; it is left as it is")
def corrupted(scene):
    q = scene.sendq()
    os.makedirs(os.path.dirname(q.queue), 0o700)
    with open(q.queue, "wb") as f:
        f.write(b"this is not a database\n" * 1000)
    os.chmod(q.queue, 0o600)
    before = open(q.queue, "rb").read()
    result = q.sendmail(message())
    true(result.code not in (0, -6, -11), repr(result))
    holds(result.err, q.queue)
    equal(open(q.queue, "rb").read(), before, "the file")
    q = scene.sendq()
    equal(q.sendmail(message()).code, 0)
    db = sqlite3.connect(q.queue)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    size = os.path.getsize(q.queue)
    with open(q.queue, "r+b") as f:
        f.seek(4096)
        f.write(os.urandom(size - 4096))
    for result in (q.sendmail(message(subject="b")), q.status("list"), q.run("sendqd", "--once")):
        true(result.code > 0, "exit status %d: %r" % (result.code, result))
        true(result.err.strip(), "a sentence")


def nobody():
    if os.geteuid() != 0:
        raise Skip("needs root")
    return pwd.getpwnam("nobody")


@test("another user's queue is refused, and names both users")
def foreign_queue(scene):
    user = nobody()
    q = scene.sendq()
    equal(q.sendmail(message()).code, 0)
    for folder, _, names in os.walk(os.path.dirname(q.queue)):
        for name in [folder] + [os.path.join(folder, n) for n in names]:
            os.chown(name, user.pw_uid, user.pw_gid)
    result = q.sendmail(message(subject="second"))
    refused(q, result, (EX_NOPERM, EX_CONFIG), "nobody", "root")


@test("sudo sendmail in a user's home touches nothing of that user's")
def sudo(scene):
    user = nobody()
    home = scene.folder + "/home-of-nobody"
    os.makedirs(home + "/.config/sendq")
    with open(home + "/.config/sendq/sendq.conf", "w") as f:
        f.write('routes = ( { name = "home"; server = "smtp://127.0.0.1:1"; tls = "none"; } );\nautostart = false;\n')
    os.chmod(home + "/.config/sendq/sendq.conf", 0o600)
    for name in (home, home + "/.config", home + "/.config/sendq", home + "/.config/sendq/sendq.conf"):
        os.chown(name, user.pw_uid, user.pw_gid)
    q = scene.sendq()
    result = q.run("sendmail", "-t", stdin=message(),
                   env=q.env(HOME=home, SENDQ_CONFIG=None, XDG_CONFIG_HOME=None, XDG_STATE_HOME=None))
    equal(sorted(os.listdir(home)), [".config"], "root wrote into the user's home: %r" % result)
    true(result.code in (EX_CONFIG, EX_NOPERM), repr(result))


@test("a queue folder that others may write in")
def open_folder(scene):
    q = scene.sendq()
    os.makedirs(os.path.dirname(q.queue))
    os.chmod(os.path.dirname(q.queue), 0o777)
    result = q.sendmail(message())
    refused(q, result, (EX_NOPERM, EX_CONFIG, EX_CANTCREAT, EX_OSERR), os.path.dirname(q.queue))


@test("bare CR, NUL, and lines over 998 octets: a sentence or a documented rule, never a crash, never half a message")
def odd_octets(scene):
    for body in (b"a\rb\n", b"a\0b\n", b"x" * 5000 + b"\n", b"\r\r\n", b"\n\r\n"):
        q = scene.sendq()
        result = q.sendmail(message() + body, "-t", "-oi")
        if result.code == 0:
            frozen = q.octets(q.list()[0]["id"])
            true(b"\r" not in frozen.replace(b"\r\n", b""), "bare CR in the frozen stream")
            true(b"\n" not in frozen.replace(b"\r\n", b""), "bare LF in the frozen stream")
            true(b"\0" not in frozen, "NUL in the frozen stream")
        else:
            refused(q, result, (EX_DATAERR,))
            queue_is_empty(q)


@test("sendq with an id that does not exist, an ambiguous one, a state that forbids it, an unknown command")
def cli(scene):
    q = scene.sendq()
    number = q.submit(message())
    for arguments, word in ((("show", "zzzzzz"), "zzzzzz"), (("settle", number, "sent"), number), (("frobnicate",), "frobnicate"),
                            (("settle", number, "perhaps"), "perhaps"), (("show",), "show")):
        result = q.status(*arguments)
        true(result.code != 0, "%r: exit status 0" % (arguments,))
        holds(result.err, word, repr(arguments))
    equal(q.states(number), {"u001@example.test": "queued"})


@test("the same message twice within the window: one row, exit 0, and it is said")
def local_duplicate(scene):
    q = scene.sendq()
    data = message(Message_ID="<fixed.1@example.test>", Date="Tue, 24 Nov 2026 12:00:00 +0000")
    equal(q.sendmail(data).code, 0)
    again = q.sendmail(data)
    equal(again.code, 0)
    true(again.err.strip(), "it is said on stderr")
    equal(len(q.list()), 1, "rows")
    equal(q.sendmail(data.replace(b"hello\n", b"other\n")).code, 0)
    equal(len(q.list()), 2, "another content is another message")


@test("a server's name that is not found is told as that, with and without a network, and tried again")
def no_such_name(scene):
    if os.geteuid() != 0:
        raise Skip("needs root")
    for arrange, words in (("ip link set lo up && ip route add default dev lo && ", "the name may be wrong"), ("", "has no network")):
        q = scene.sendq(sendq.route("smtp://no-such-host.invalid:25", tls="none"))
        number = q.submit(message())
        done = subprocess.run(["unshare", "-n", "sh", "-c", arrange + 'exec "$0" flush', q.bin + "/sendq"], env=q.env(), timeout=110,
                              stdout=subprocess.DEVNULL)
        equal(done.returncode, 75)
        why = q.status("why", number).out
        holds(why, "no-such-host.invalid")
        holds(why, words)
        equal(q.attempts(number)[0]["outcome"], "offline")
        equal(q.states(number), {"u001@example.test": "queued"})


@test("a daemon beside a daemon: the second says so and goes")
def second_daemon(scene):
    q = scene.sendq()
    q.daemon()
    result = q.run("sendqd")
    true(result.code != 0, repr(result))
    true(result.err.strip(), "a sentence")
    equal(q.stop_daemon(), 0)


if __name__ == "__main__":
    main(Scene)
