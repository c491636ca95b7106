#!/usr/bin/python3
"""System mode: one queue, many users, some of them hostile. Everything below one folder (SENDQ_SYSTEM_ROOT)."""
import mailbox
import os
import pwd
import re
import shutil
import socket
import sqlite3
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fake"))
from harness import links, process, sendq  # noqa: E402
from harness.sendq import EX_CONFIG, EX_DATAERR, EX_TEMPFAIL, message  # noqa: E402
from harness.tap import Skip, equal, holds, main, test, true, until  # noqa: E402

from scripted import Scripted  # noqa: E402

# Accounts that every Debian has: the queue's user, and three people.
KEEPER, ANN, BOB, EVE = "proxy", "games", "news", "uucp"
PROGRAMS = ("sendq-sendmail", "sendq-submitd", "sendqd", "sendq-smtp", "sendq")


class System:
    """A machine in system mode."""

    def __init__(self, scene, number, route, **settings):
        self.root = "%s/root%d" % (scene.folder, number)
        self.bin = scene.bin
        keeper = pwd.getpwnam(KEEPER)
        for path, mode, owner in (("etc/sendq", 0o755, 0), ("var/lib/sendq", 0o700, keeper.pw_uid), ("run/sendq", 0o755, keeper.pw_uid),
                                  ("var/mail", 0o3777, 0)):
            os.makedirs(self.root + "/" + path)
            os.chmod(self.root + "/" + path, mode)
            os.chown(self.root + "/" + path, owner, keeper.pw_gid)
        self.config = self.root + "/etc/sendq/sendq.conf"
        self.route = route
        self.configure(**settings)
        self.submitd = self.sendqd = None
        self.starts = 0

    def configure(self, **settings):
        settings = {"identity": '"postmaster@example.test"', "log": '"debug"', **settings}
        with open(self.config, "w") as f:
            f.write("".join("%s = %s;\n" % item for item in settings.items()))
            f.write("routes = ( { " + " ".join("%s = %s;" % (k, sendq._value(v)) for k, v in self.route.items()) + " } );\n")
        # A password may stand in it: root's, and readable by the queue's group.
        os.chown(self.config, 0, pwd.getpwnam(KEEPER).pw_gid)
        os.chmod(self.config, 0o640)

    def env(self, **more):
        env = {k: v for k, v in os.environ.items() if k in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "TZ")}
        env.update(PATH=self.bin + ":/usr/sbin:/usr/bin:/sbin:/bin", LANG="C.UTF-8", SENDQ_SYSTEM_ROOT=self.root, HOME="/nonexistent",
                   SENDQ_AGENT=self.bin + "/sendq-smtp", SENDQ_BIN=self.bin)
        env.update(more)
        return env

    def start(self, deliver=False):
        self.starts += 1
        self.submitd = process.Process(self.as_user(KEEPER, "sendq-submitd"), self.root + "/submitd.%d.log" % self.starts, env=self.env())
        process.wait_for(lambda: self.can_connect("submit") and self.can_connect("control"), self.submitd)
        if deliver:
            self.deliver()

    def deliver(self):
        self.sendqd = process.Process(self.as_user(KEEPER, "sendqd", "-C", self.config), self.root + "/sendqd.%d.log" % self.starts, env=self.env())
        process.wait_for(lambda: os.path.exists(self.root + "/var/lib/sendq/queue.db.wake"), self.sendqd)

    def can_connect(self, name):
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.connect("%s/run/sendq/%s.sock" % (self.root, name))
            return True
        except OSError:
            return False

    def as_user(self, user, program, *args, groups=None):
        account = pwd.getpwnam(user) if isinstance(user, str) else None
        uid, gid = (account.pw_uid, account.pw_gid) if account else (user, user)
        return ["setpriv", "--reuid=%d" % uid, "--regid=%d" % gid, "--groups=%s" % groups if groups else "--clear-groups", program] + list(args)

    def run(self, user, program, *args, stdin=b"", groups=None, seconds=60, **env):
        done = subprocess.run(self.as_user(user, program, *args, groups=groups), input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=seconds, env=self.env(**env))
        result = sendq.Result(done)
        sendq._no_sanitizer(result.err, program)
        return result

    def submit(self, user, data, *args):
        result = self.run(user, "sendmail", "-v", *(args or ("-t",)), stdin=data)
        equal(result.code, 0, "%s: %r" % (user, result))
        return re.search(r"queued as (\w+)", result.out).group(1)

    def ids(self, user, **kw):
        result = self.run(user, "sendq", "list", "--json", **kw)
        equal(result.code, 0, repr(result))
        return re.findall(r'^\{"id":"(\w+)"', result.out, re.M)

    def stop(self):
        for p in (self.submitd, self.sendqd):
            if p:
                p.stop()
                sendq._no_sanitizer(p.output(), p.args[-1])
        self.submitd = self.sendqd = None


class Scene:
    def __init__(self):
        if os.geteuid() != 0 or not shutil.which("setpriv"):
            raise Skip("root and setpriv are needed")
        self.folder = process.temp_folder("system")
        # Where every user may run them, wherever the build folder is.
        self.bin = self.folder + "/bin"
        os.mkdir(self.bin)
        for name in PROGRAMS:
            shutil.copy(links.program(name, os.environ.get("SENDQ_PROGRAMS")), self.bin + "/" + name)
        for alias in ("sendmail", "mailq", "newaliases"):
            os.symlink("sendq-sendmail", self.bin + "/" + alias)
        self._n = 0
        self.systems = []

    def system(self, port=1, **settings):
        self._n += 1
        s = System(self, self._n, sendq.route("smtp://127.0.0.1:%d" % port, tls="none"), **settings)
        self.systems.append(s)
        return s


def teardown(scene):
    for s in scene.systems:
        s.stop()


@test("mail of several users goes out; each is told from the other by the kernel, none needs a configuration")
def several_users(scene):
    sink = links.Sink(process.temp_folder("system-sink"))
    s = scene.system(sink.port)
    s.start(deliver=True)
    a = s.submit(ANN, message(sender="ann@example.test", subject="from ann", Bcc="u009@example.test"))
    b = s.submit(BOB, b"Subject: no sender\n\nx\n", "-F", "Bob B", "u002@example.test")
    until(lambda: len(sink.messages()) == 2, 60, "two messages are accepted")
    first = next(m for m in sink.messages() if b"from ann" in m)
    second = next(m for m in sink.messages() if b"no sender" in m)
    true(b"u009" not in first and b"Bcc" not in first, "Bcc shows")
    holds(second.decode(), "From: Bob B <postmaster@example.test>\r\n")
    true(a != b, "ids")
    until(lambda: s.ids(ANN) == [] and s.ids(BOB) == [], 30)
    holds(s.run(ANN, "sendq", "sent").out, "u001@example.test")
    true("u002" not in s.run(ANN, "sendq", "sent").out, "ann sees what bob sent")
    s.stop()
    sink.stop()


@test("own messages only: list, show, why, mailq, remove, hold, flush, undo, edit; root and the group see and handle all")
def privacy(scene):
    s = scene.system()
    s.start(deliver=True)
    a = s.submit(ANN, message(sender="ann@example.test", to="secret@example.test", subject="ann's secret"))
    b = s.submit(BOB, message(sender="bob@example.test", subject="bob's"))
    equal((s.ids(ANN), s.ids(BOB), s.ids(EVE)), ([a], [b], []))
    equal(s.ids("root"), [a, b])
    equal(s.ids(EVE, groups=str(pwd.getpwnam(KEEPER).pw_gid)), [a, b], "a member of the group")
    for command in (("show", a), ("why", a), ("remove", a), ("hold", a), ("release", a), ("flush", a), ("undo", a), ("resend", a), ("settle", a, "sent"),
                    ("edit", a, "--to", "eve@example.test"), ("forget", a), ("show", a[:-1]), ("why", "0")):
        result = s.run(EVE, "sendq", *command)
        true(result.code in (66, 69), "%r: %r" % (command, result))
        true("secret" not in result.out + result.err and "ann@" not in result.out + result.err, repr(result))
    for command in ((), ("list", "--all"), ("links",), ("sent",), ("list", "--json"), ("forget", "--all")):
        result = s.run(EVE, "sendq", *command)
        true("secret" not in result.out + result.err and a not in result.out, "%r: %r" % (command, result))
    equal(s.run(EVE, "mailq").out, "Mail queue is empty\n")
    equal(s.run(EVE, "sendmail", "-bpc").out, "0\n")
    holds(s.run(ANN, "mailq").out, "in 1 Request.")
    holds(s.run("root", "mailq").out, "in 2 Requests.")
    # What would read files of the asker's choice, or run in the keeper's name
    trap = scene.folder + "/trap.conf"
    with open(trap, "w") as f:
        f.write('queue = "/tmp/x"; routes = ( { name = "x"; server = "smtp://h"; user = "u"; password_command = "id > %s/owned"; } );' % scene.folder)
    os.chmod(trap, 0o644)
    for words in (["sendq", "-C", trap, "list"], ["sendq", "--config=" + trap, "flush"], ["sendq", "setup"], ["sh", "-c", "id"], ["sendq", "doctor"]):
        code, out, err = control(s, EVE, words)
        true(code in (64, 69), "%r: %r %r" % (words, code, err))
        true("uid=" not in out, out)
    true(not os.path.exists(scene.folder + "/owned"), "a command of eve's was run")
    equal(s.run(ANN, "sendq", "flush").code, 0)
    equal(s.run(ANN, "sendmail", "-q").code, 0)
    equal(s.run(BOB, "sendq", "undo").code in (0, 69), True)
    result = s.run(ANN, "sendq", "remove", a)
    equal(result.code, 0, repr(result))
    equal(s.ids(ANN), [])
    # The files themselves
    for path in ("/var/lib/sendq/queue.db", "/etc/sendq/sendq.conf"):
        equal(s.run(EVE, "cat", s.root + path).code, 1, path)
    s.stop()


def control(s, user, words, raw=None):
    """A request as eve would write it, without our client: (status, stdout, stderr)."""
    program = """
import socket, struct, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
words = b"".join(w.encode() + b"\\0" for w in sys.argv[2:])
s.sendall(struct.pack(">I", len(words)) + words)
out = {"o": "", "e": ""}
f = s.makefile("rb")
while True:
    head = f.read(5)
    if len(head) < 5:
        print(repr((None, out["o"], out["e"])))
        break
    data = f.read(struct.unpack(">I", head[1:])[0])
    if head[:1] == b"x":
        print(repr((struct.unpack(">I", data)[0], out["o"], out["e"])))
        break
    out[head[:1].decode()] += data.decode("utf-8", "replace")
"""
    done = subprocess.run(s.as_user(user, "/usr/bin/python3", "-c", program, s.root + "/run/sendq/control.sock", *words), stdout=subprocess.PIPE, timeout=60,
                          env=s.env())
    return eval(done.stdout.decode())


@test("exit statuses as without system mode: what the message, the configuration and the machine did wrong")
def statuses(scene):
    s = scene.system()
    result = s.run(ANN, "sendmail", "-t", stdin=message())
    equal(result.code, EX_TEMPFAIL, "nobody listens: %r" % result)
    holds(result.err, "does not answer")
    s.start()
    for args, data, codes, word in ((("a@@b",), b"x\n", (EX_DATAERR,), "a@@b"), (("-t",), b"Subject: x\n\nx\n", (64,), "no recipients"),
                                    (("-t",), b"", (66, 64), "empty"), (("-f", "a b", "c@d.test"), b"x\n", (EX_DATAERR,), "sender"),
                                    (("-t",), b"To: a@b.test\nX: \r\r\r y\0\n\nx\n", (EX_DATAERR,), "line")):
        result = s.run(ANN, "sendmail", *args, stdin=data)
        true(result.code in codes, "%r: %r" % (args, result))
        equal(len(result.err.strip().splitlines()), 1, repr(result))
        holds(result.err, word)
    equal(s.ids("root"), [])
    s.configure(message_size_max='"100k"')
    result = s.run(ANN, "sendmail", "-t", stdin=message(body="y" * 70 + "\n" + "z\n" * 100000))
    equal(result.code, EX_DATAERR, repr(result))
    holds(result.err, "100K")
    s.configure(free_disk_min='"900T"')
    result = s.run(ANN, "sendmail", "-t", stdin=message())
    equal(result.code, EX_TEMPFAIL, repr(result))
    holds(result.err, "disk")
    s.route["from"] = ["*@work.test"]
    s.configure()
    result = s.run(ANN, "sendmail", "-t", stdin=message())
    equal(result.code, EX_CONFIG, repr(result))
    holds(result.err, "no route")
    with open(s.config, "a") as f:
        f.write("nonsense = 1;\n")
    result = s.run(ANN, "sendmail", "-t", stdin=message())
    equal(result.code, EX_TEMPFAIL, repr(result))
    s.stop()


@test("-bs and python's smtplib over the socket; -O NotBefore, DSN wishes and -bv arrive at the other end")
def other_ways(scene):
    s = scene.system()
    s.start()
    done = s.run(ANN, "sendmail", "-bs", stdin=b"EHLO x\r\nMAIL FROM:<ann@example.test>\r\nRCPT TO:<u001@example.test>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT\r\n")
    equal([line[:3] for line in done.out.split("\r\n") if line[3:4] == " "], ["220", "250", "250", "250", "354", "250", "221"])
    number = s.submit(BOB, message(subject="later"), "-t", "-O", "NotBefore=@4000000000", "-ODuplicates=ask", "-N", "success,delay", "-R", "hdrs", "-V", "my+id")
    row = s.run(BOB, "sendq", "show", number, "--json").out
    holds(row, '"next_try_ms":4000000000000')
    db = sqlite3.connect("file:%s/var/lib/sendq/queue.db?mode=ro" % s.root, uri=True)
    equal(db.execute("SELECT duplicates, ret, envid FROM message ORDER BY id DESC LIMIT 1").fetchone(), (3, 2, "my+2Bid"))
    db.close()
    holds(s.run(ANN, "sendmail", "-bv", "a@b.test", "root").out, "a@b.test... deliverable")
    equal(s.run(ANN, "newaliases").code, 0)
    equal(len(s.ids("root")), 2)
    s.stop()


@test("sendmail killed at any moment queues nothing or the whole, and nothing of it is left over")
def killed(scene):
    s = scene.system()
    s.start(deliver=True)
    data = message(body="x" * 75 + "\n" + ("y" * 75 + "\n") * 30000)
    for n in range(6):
        child = subprocess.Popen(s.as_user(EVE, "sendmail", "-t"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=s.env())
        try:
            child.stdin.write(data[:len(data) * n // 6 + 1000])
            child.stdin.flush()
        except BrokenPipeError:
            pass
        child.kill()
        child.wait()
        child.stdin.close()
    equal(s.ids("root"), [])
    s.submit(ANN, message(sender="ann@example.test"))
    until(lambda: len(s.ids("root")) == 1, 20)
    s.stop()


def has_socket(pid):
    try:
        return any("socket:" in os.readlink(f.path) for f in os.scandir("/proc/%d/fd" % pid))
    except OSError:
        return False  # one was closed meanwhile


@test("slow pipes, silent connections, floods of connections: nobody else waits for them", seconds=240)
def hostile_connections(scene):
    s = scene.system(user_connections_max=5)
    s.start()
    slow = subprocess.Popen(s.as_user(EVE, "sendmail", "-t"), stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=s.env())
    slow.stdin.write(message(sender="eve@example.test") + b"slow\n")
    slow.stdin.flush()
    # It is in before the others come; sendmail connects when it has read something.
    until(lambda: has_socket(slow.pid), 30, "the slow one's session")
    hog = """
import socket, sys, time
held = []
for i in range(60):
    for name in ("submit", "control"):
        s = socket.socket(socket.AF_UNIX)
        s.connect(sys.argv[1] + "/run/sendq/" + name + ".sock")
        held.append(s)
print("held", flush=True)
sys.stdin.read()
"""
    hogs = subprocess.Popen(s.as_user(EVE, "/usr/bin/python3", "-c", hog, s.root), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=s.env())
    equal(hogs.stdout.readline(), b"held\n")
    result = s.run(EVE, "sendmail", "-t", stdin=message(sender="eve@example.test"))
    equal(result.code, EX_TEMPFAIL, "eve has too many: %r" % result)
    holds(result.err, "too many")
    began = time.monotonic()
    for user in (ANN, BOB, "root"):
        s.submit(user, message(sender="x@example.test"))
        equal(s.run(user, "mailq").code, 0)
    true(time.monotonic() - began < 30, "others waited %.1f s" % (time.monotonic() - began))
    hogs.stdin.close()
    hogs.wait(30)
    hogs.stdout.close()
    slow.stdin.close()
    equal(slow.wait(60), 0, slow.stderr.read())
    slow.stderr.close()
    equal(len(s.ids(EVE)), 1, "the slow message itself is taken")
    s.stop()


@test("a flood of messages stops at the user's limit, and goes behind everybody else's mail", seconds=240)
def flood(scene):
    s = scene.system(user_messages_max=100)
    s.start()
    script = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
f = s.makefile("rwb")
def reply():
    while True:
        line = f.readline()
        if line[3:4] == b" ":
            return line[:3].decode()
reply()
f.write(b"EHLO x\\r\\n"); f.flush(); reply()
codes = []
for i in range(130):
    f.write(b"MAIL FROM:<eve@example.test>\\r\\n"); f.flush()
    codes.append(reply())
    if codes[-1] != "250":
        continue
    f.write(b"RCPT TO:<u001@example.test>\\r\\nDATA\\r\\nSubject: %d\\r\\n\\r\\nx\\r\\n.\\r\\n" % i); f.flush()
    reply(), reply(), reply()
    if len([c for c in codes if c != "250"]) > 5:
        break
print(codes.count("250"), codes.count("452"))
"""
    done = subprocess.run(s.as_user(EVE, "/usr/bin/python3", "-c", script, s.root + "/run/sendq/submit.sock"), stdout=subprocess.PIPE, timeout=200, env=s.env())
    taken, refused = map(int, done.stdout.split())
    equal(taken, 100)
    true(refused > 0, done.stdout)
    s.submit(ANN, message(sender="ann@example.test"))
    db = sqlite3.connect("file:%s/var/lib/sendq/queue.db?mode=ro" % s.root, uri=True)
    lowest, = db.execute("SELECT min(priority) FROM message WHERE uid = %d" % pwd.getpwnam(EVE).pw_uid).fetchone()
    anns, = db.execute("SELECT priority FROM message WHERE uid = %d" % pwd.getpwnam(ANN).pw_uid).fetchone()
    db.close()
    true(lowest < 0 and anns == 0, "priorities: eve's last %d, ann's %d" % (lowest, anns))
    s.stop()


@test("nonsense on both sockets: an answer or an end, never a crash; the listener lives")
def nonsense(scene):
    s = scene.system()
    s.start()
    for name in ("submit", "control"):
        for octets in (b"", b"\0" * 100, os.urandom(5000), struct.pack(">I", 0xffffffff) + b"x", struct.pack(">I", 5) + b"abcde", struct.pack(">I", 3) + b"\0\0\0",
                       b"EHLO x\r\nMAIL FROM:<" + b"a" * 10000 + b"@b>\r\n", struct.pack(">I", 60000) + b"a\0" * 30000,
                       struct.pack(">I", 6) + b"sendq\0", struct.pack(">I", 12) + b"sendq\0list\0\n"):
            with socket.socket(socket.AF_UNIX) as c:
                c.settimeout(30)
                c.connect("%s/run/sendq/%s.sock" % (s.root, name))
                c.sendall(octets)
                c.shutdown(socket.SHUT_WR)
                try:
                    while c.recv(65536):
                        pass
                except ConnectionResetError:
                    pass
    equal(s.submitd.alive(), True)
    s.submit(ANN, message())
    s.stop()


@test("notices go into the user's mailbox, which he can read and others cannot; a broken one costs nothing")
def notices(scene):
    server = Scripted({"RCPT": "550 5.1.1 no such user"})
    s = scene.system(server.port)
    s.start(deliver=True)
    ann = pwd.getpwnam(ANN)
    s.submit(ANN, message(sender="ann@example.test", to="nobody@example.test", subject="first", body="From here\n"))
    box = "%s/var/mail/%s" % (s.root, ANN)
    until(lambda: os.path.exists(box) and b"first" in open(box, "rb").read(), 60, "a notice in ann's mailbox")
    equal(s.run(ANN, "cat", box).code, 0, "ann reads it")
    equal(s.run(EVE, "cat", box).code, 1, "eve does not")
    # A mailbox that is there, owned by its user and writable by the group mail has; here by a list.
    s.submit(ANN, message(sender="ann@example.test", to="nobody@example.test", subject="second"))
    until(lambda: b"second" in open(box, "rb").read(), 60, "the second one")
    equal(len(mailbox.mbox(box)), 2)
    true(not os.path.exists(box + ".lock"), "a lock is left")
    # Eve puts a link where bob's mailbox would be
    os.symlink(s.root + "/var/lib/sendq/queue.db", "%s/var/mail/%s" % (s.root, BOB))
    s.submit(BOB, message(sender="bob@example.test", to="nobody@example.test", subject="third"))
    kept = s.root + "/var/lib/sendq/notices/new"
    until(lambda: os.path.isdir(kept) and os.listdir(kept), 60, "the notice is kept where nobody else can put links")
    equal(s.run("root", "mailq").out, "Mail queue is empty\n", "the queue is whole")
    true(ann.pw_uid != 0, "ann")
    s.stop()
    server.stop()


if __name__ == "__main__":
    main(Scene, teardown)
