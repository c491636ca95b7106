#!/usr/bin/python3
"""System mode: one queue, many users, some of them hostile. Everything below one folder (SENDQ_SYSTEM_ROOT)."""
import mailbox
import os
import pwd
import socket
import sqlite3
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fake"))
from harness import links, process  # noqa: E402
from harness.sendq import EX_CONFIG, EX_DATAERR, EX_TEMPFAIL, message  # noqa: E402
from harness.system import ANN, BOB, EVE, KEEPER, Scene, teardown  # noqa: E402
from harness.tap import equal, holds, main, note, test, true, until  # noqa: E402

from scripted import Scripted  # noqa: E402


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


@test("sendq-submitd never starts the daemon: it would live in a place without a network and keep the real one out")
def no_autostart(scene):
    s = scene.system()
    daemon = s.root + "/daemon"
    with open(daemon, "w") as f:
        f.write("#!/bin/sh\nsleep 20\n:\n")
    os.chmod(daemon, 0o755)
    s.start(SENDQ_DAEMON=daemon)
    s.submit(ANN, message(sender="ann@example.test"))
    equal(s.run(ANN, "sendmail", "-q").code, 0)
    listing = subprocess.run(["ps", "-u", KEEPER, "-o", "pid=,ppid=,args="], stdout=subprocess.PIPE).stdout.decode()
    # From the moment of the 250 there would be one, as itself or still as a copy of its starter.
    ours = [line.split(None, 2) for line in listing.splitlines() if "sendq" in line]
    true(any(int(words[0]) == s.submitd.p.pid for words in ours), listing)
    equal([words for words in ours if s.root in words[2] or (words[1] == "1" and "sendq-submitd" in words[2])], [], "started by sendq-submitd")
    s.stop()


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
    holds(result.err, "broken")
    s.stop()
    # Neither daemon starts on a configuration that is broken or not there.
    for config in (s.config, s.root + "/none"):
        for program in ("sendq-submitd", "sendqd"):
            result = s.run(KEEPER, program, "-C", config)
            equal((result.code, len(result.err.strip().splitlines())), (EX_CONFIG, 1), "%s: %r" % (program, result))


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


@test("sendq-submitd told to end: the message under way is taken whole, who idles is sent away, who comes meanwhile is taken by the next")
def told_to_end(scene):
    s = scene.system()
    s.start()
    slow = subprocess.Popen(s.as_user(ANN, "sendmail", "-t"), stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=s.env())
    slow.stdin.write(message(sender="ann@example.test", subject="slow") + b"x" * 200000 + b"\n")
    slow.stdin.flush()
    until(lambda: children_of(s.submitd.p.pid), 20, "a session")
    idle = socket.socket(socket.AF_UNIX)
    idle.settimeout(30)
    idle.connect(s.root + "/run/sendq/submit.sock")
    equal(idle.recv(4), b"220 ")
    s.submitd.p.terminate()
    words = idle.makefile("rb").read()
    holds(words.decode(), "421 4.7.0 this service is ending")
    late = subprocess.Popen(s.as_user(BOB, "sendmail", "-t"), stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=s.env())
    late.stdin.write(message(sender="bob@example.test", subject="late"))
    late.stdin.close()
    equal(s.submitd.alive(), True, "it waits for ann")
    slow.stdin.write(b"the end\n")
    slow.stdin.close()
    equal(slow.wait(30), 0, slow.stderr.read())
    equal(s.submitd.p.wait(20), 0)
    s.start()
    equal(late.wait(30), 0, late.stderr.read())
    for p in (slow, late):
        p.stderr.close()
    idle.close()
    equal((len(s.ids(ANN)), len(s.ids(BOB))), (1, 1))
    s.stop()


def children_of(pid):
    done = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid="], stdout=subprocess.PIPE)
    return [int(w) for w in done.stdout.split()]


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


FLOOD = """
import socket, sys
path, wanted = sys.argv[1], int(sys.argv[2])
tried = taken = 0
while tried < wanted:
    try:
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        f = s.makefile("rwb")
        f.readline()
        f.write(b"EHLO x\\r\\n"); f.flush()
        while f.readline()[3:4] == b"-":
            pass
        while tried < wanted:
            f.write(b"MAIL FROM:<eve@example.test>\\r\\nRCPT TO:<u001@example.test>\\r\\n"); f.flush()
            first = f.readline()[:1]; f.readline()
            tried += 1
            if first != b"2":
                continue
            f.write(b"DATA\\r\\n"); f.flush(); f.readline()
            f.write(b"Subject: flood %d\\r\\n\\r\\nx\\r\\n.\\r\\n" % tried); f.flush()
            taken += f.readline()[:1] == b"2"
    except OSError:
        pass
print(tried, taken, flush=True)
"""
KILLER = """
import subprocess, sys, time
while True:
    p = subprocess.Popen(["sendmail", "-t"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        p.stdin.write(b"To: victim@example.test\\nSubject: killed\\n\\n" + b"x" * 70000); p.stdin.flush()
    except OSError:
        pass
    p.kill(); p.wait()
"""
SLOW = """
import subprocess, time
p = [subprocess.Popen(["sendmail", "-t"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(4)]
while True:
    for c in p:
        c.stdin.write(b"X-%d: y\\n" % time.monotonic_ns()); c.stdin.flush()
    time.sleep(0.2)
"""
HUGE = "while :; do { echo 'To: victim@example.test'; echo; yes; } | sendmail -t; echo $?; done 2>/dev/null"


@test("a siege by four users at once: floods, killed sendmails, slow pipes, mail without end; ann's and bob's mail is taken and sent at once", seconds=600)
def siege(scene):
    attempts = 10000 if os.environ.get("SENDQ_LONG") == "1" else 1500
    sink = links.Sink(process.temp_folder("siege-sink"))
    s = scene.system(sink.port, user_messages_max=200, user_connections_max=5, message_size_max='"300k"')
    s.start(deliver=True)
    python = "/usr/bin/python3"
    path = s.root + "/run/sendq/submit.sock"
    flood, *others = [process.Process(s.as_user(user, *words), "%s/%s.log" % (s.root, user), env=s.env()) for user, words in (
        (EVE, (python, "-c", FLOOD, path, str(attempts))), ("lp", (python, "-c", KILLER)), ("man", (python, "-c", SLOW)), ("list", ("sh", "-c", HUGE)))]
    took, behind = [], []

    def eves():
        return sum(b"Subject: flood" in m for m in sink.messages())

    until(lambda: "65" in others[2].output() and eves() > 0, 60, "the siege is on")
    for n in range(4):
        for user in (ANN, BOB):
            subject = "%s's own %d" % (user, n)
            began = time.monotonic()
            s.submit(user, message(sender="x@example.test", subject=subject))
            took.append(time.monotonic() - began)
            before = eves()
            until(lambda: any(subject.encode() in m for m in sink.messages()), 60, subject + " is sent", pause=0.05)
            behind.append(eves() - before)
        true(s.ids(BOB) == s.ids(ANN) == [], "their own is sent, and they see nothing else")
        true("victim" not in s.run(BOB, "mailq").out, "mailq shows others' mail")
    note("taken within %.2f s at most; %d of the flood's messages went between handing in and arrival at most" % (max(took), max(behind)))
    true(max(took) < 10, "handing in took %r s" % took)
    true(max(behind) <= 150, "messages of the flood that went before: %r" % behind)
    flood.p.wait(400)
    tried, taken = map(int, flood.output().split())
    note("%d of %d of the flood were taken" % (taken, tried))
    equal(tried, attempts)
    # Before they end: a pipe that is closed then ends its message.
    true(not any(b"victim" in m for m in sink.messages()), "a killed, endless or unfinished message went out")
    for p in [flood] + others:
        p.stop()
    equal(set(others[2].output().split()) - {"65"}, set(), "exit statuses of mail without end")
    until(lambda: s.ids("root") == [], 200, "the queue is empty", pause=0.5)
    equal(eves(), taken, "what was taken was sent, once")
    equal(set(s.submitd.output().split()) & {"SIGSEGV", "Sanitizer"}, set())
    true(s.submitd.alive() and s.sendqd.alive(), "the daemons live")
    db = sqlite3.connect("file:%s/var/lib/sendq/queue.db?mode=ro" % s.root, uri=True)
    until(lambda: db.execute("SELECT count(*) FROM content").fetchone() == (0,), 60, "octets of unfinished messages are swept", pause=0.5)
    db.close()
    s.stop()
    sink.stop()


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
    until(lambda: not os.path.exists(box + ".lock"), 20, "the lock is taken away")
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
