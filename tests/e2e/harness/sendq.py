"""sendq itself: one folder with configuration, queue and home, and the four programs.

SENDQ_BUILD names the build folder (SENDQ_PROGRAMS another one for the programs alone). Its programs are collected as links in one
bin folder; builds with fault points find each other by SENDQ_AGENT and
SENDQ_DAEMON, installed ones by their places.
"""
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess

from . import links, process
from .tap import equal, until

PROGRAMS = ("sendq-sendmail", "sendqd", "sendq-smtp", "sendq")

EX_OK, EX_USAGE, EX_DATAERR, EX_NOINPUT, EX_NOUSER, EX_NOHOST = 0, 64, 65, 66, 67, 68
EX_UNAVAILABLE, EX_SOFTWARE, EX_OSERR, EX_CANTCREAT, EX_IOERR, EX_TEMPFAIL, EX_NOPERM, EX_CONFIG = \
    69, 70, 71, 73, 74, 75, 77, 78

SETTLED = ("sent", "failed", "expired", "removed")


class Result:
    """What a program said. Text is decoded; octets are kept as `raw`."""

    def __init__(self, completed):
        self.code = completed.returncode
        self.raw = completed.stdout
        self.out = completed.stdout.decode("utf-8", "replace")
        self.err = completed.stderr.decode("utf-8", "replace")

    def __repr__(self):
        return "exit %d, stdout %r, stderr %r" % (self.code, self.out[:1500], self.err[:1500])


def message(to="u001@example.test", subject="hello", body="hello\n", sender="Ann <ann@example.test>", **fields):
    """A small message as octets, LF line ends, as a mail program would pipe it in."""
    head = ["From: " + sender, "To: " + (to if isinstance(to, str) else ", ".join(to)), "Subject: " + subject]
    head += ["%s: %s" % (name.replace("_", "-"), value) for name, value in fields.items()]
    return ("\n".join(head) + "\n\n" + body).encode()


class Sendq:
    def __init__(self, folder, routes, name="sendq", **settings):
        """`routes`: list of dicts of settings; further top-level settings by name."""
        self.folder = os.path.join(folder, name)
        self.queue = os.path.join(self.folder, "state", "sendq", "queue.db")
        self.notices = os.path.join(self.folder, "state", "sendq", "notices")
        self.config = os.path.join(self.folder, "sendq.conf")
        self.bin = os.path.join(self.folder, "bin")
        self.extra_env = {}
        self._daemon = None
        self._daemons = 0
        os.makedirs(self.bin)
        self.paths = {p: links.program(p, os.environ.get("SENDQ_PROGRAMS")) for p in PROGRAMS}
        for p, path in self.paths.items():
            os.symlink(path, os.path.join(self.bin, p))
        for alias in ("sendmail", "mailq", "newaliases"):
            os.symlink(self.paths["sendq-sendmail"], os.path.join(self.bin, alias))
        self.configure(routes, **settings)

    # ---- configuration

    def configure(self, routes, **settings):
        settings = {"queue": self.queue, "autostart": False, "notices": self.notices, "log": "debug", **settings}
        text = "".join("%s = %s;\n" % (k, _value(v)) for k, v in settings.items() if v is not None)
        text += "routes = (\n" + ",\n".join(
            "  { " + " ".join("%s = %s;" % (k, _value(v)) for k, v in route.items()) + " }" for route in routes) + "\n);\n"
        self.write_config(text)

    def write_config(self, text):
        with open(self.config, "w") as f:
            f.write(text)
        os.chmod(self.config, 0o600)

    def env(self, **more):
        home = os.path.join(self.folder, "home")
        os.makedirs(home, exist_ok=True)
        env = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "TZ", "ASAN_OPTIONS", "UBSAN_OPTIONS",
                                                            "LSAN_OPTIONS", "TMPDIR")}
        env.setdefault("UBSAN_OPTIONS", "halt_on_error=1:print_stacktrace=1")
        env.update(HOME=home, SENDQ_CONFIG=self.config, XDG_STATE_HOME=os.path.join(self.folder, "state"),
                   XDG_CONFIG_HOME=os.path.join(self.folder, "config"), SENDQ_AGENT=self.paths["sendq-smtp"],
                   SENDQ_DAEMON=self.paths["sendqd"])
        env.update(self.extra_env)
        env.update(more)
        return {k: str(v) for k, v in env.items() if v is not None}

    # ---- the programs

    def run(self, program, *args, stdin=b"", seconds=60, env=None, **more_env):
        """Run one to its end. A sanitizer's report fails the test whatever the exit status."""
        done = subprocess.run([os.path.join(self.bin, program)] + [str(a) for a in args], input=stdin,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=seconds,
                              env=env or self.env(**more_env), preexec_fn=process.die_with_parent)
        result = Result(done)
        _no_sanitizer(result.err, program)
        return result

    def sendmail(self, data, *args, **kw):
        return self.run("sendmail", *(args or ("-t",)), stdin=data, **kw)

    def submit(self, data, *args, **kw):
        """Queue a message that must be taken; its id."""
        result = self.run("sendmail", *(("-v",) + (args or ("-t",))), stdin=data, **kw)
        equal(result.code, 0, "sendmail %r: %r" % (args, result))
        found = re.findall(r"\b(?=[0-9a-z]*[0-9])[0-9a-z]{4,16}\b", result.out + result.err)
        if not found:
            raise AssertionError("sendmail -v names no queue id: %r" % result)
        return found[-1]

    def status(self, *args, **kw):
        return self.run("sendq", *args, **kw)

    def json(self, *args):
        result = self.status(*args, "--json")
        equal(result.code, 0, "sendq %s: %r" % (" ".join(args), result))
        return [json.loads(line) for line in result.out.splitlines() if line.strip()]

    def list(self, all=False):
        if not os.path.exists(self.queue):
            return []
        return self.json("list", *(("--all",) if all else ()))

    def get(self, message_id):
        rows = [m for m in self.list(all=True) if m["id"] == message_id]
        equal(len(rows), 1, "rows of " + message_id)
        return rows[0]

    def states(self, message_id=None):
        """State by address, of one message or of all."""
        rows = [self.get(message_id)] if message_id else self.list(all=True)
        return {r["address"]: r["state"] for m in rows for r in m["recipients"]}

    def attempts(self, message_id):
        return self.json("show", message_id)[0]["attempts"]

    def octets(self, message_id):
        """The frozen stream, read from the queue itself. It goes with acceptance: take it before."""
        number = 0
        for digit in message_id:  # two messages may share a Message-ID, so it is looked up by its number
            number = number * 32 + "0123456789abcdefghjkmnpqrstvwxyz".index(digit)
        db = sqlite3.connect("file:%s?mode=ro" % self.queue, uri=True, timeout=20)
        try:
            return b"".join(row[0] for row in db.execute(
                "SELECT data FROM content WHERE id >> 20 = ? ORDER BY id", (number,)))
        finally:
            db.close()

    def sent(self, *args):
        return self.json("sent", *args) if os.path.exists(self.queue) else []

    def flush(self, *ids, seconds=120, **kw):
        """Exit status of `sendq flush`: 0 nothing left, 75 something waits."""
        result = self.status("flush", *ids, seconds=seconds, **kw)
        if result.code not in (0, 75):
            raise AssertionError("sendq flush: %r" % result)
        return result.code

    def sql(self, query):
        """Rows of the database, for what no command shows."""
        db = sqlite3.connect("file:%s?mode=ro" % self.queue, uri=True, timeout=20)
        try:
            return db.execute(query).fetchall()
        finally:
            db.close()

    # ---- the daemon

    def daemon(self, **env):
        """Start sendqd and wait until its wake socket answers."""
        self._daemons += 1
        log = os.path.join(self.folder, "sendqd.%d.log" % self._daemons)
        wake = self.queue + ".wake"
        if os.path.exists(wake):
            os.unlink(wake)
        self._daemon = process.Process([os.path.join(self.bin, "sendqd")], log, env=self.env(**env))
        process.wait_for(lambda: os.path.exists(wake) or self._daemon_died_by_fault(env), self._daemon)
        return self._daemon

    def _daemon_died_by_fault(self, env):
        return "SENDQ_FAULT" in env and not self._daemon.alive()

    def end_autostarted(self):
        """End the sendqd that sendmail started: it was given our configuration, and nobody else's is in this folder."""
        found = [pid for pid, words in process.running() if words[:1] == ["sendqd"] and self.config in words]
        for pid in found:
            os.kill(pid, signal.SIGTERM)
            until(lambda: not os.path.exists("/proc/%d" % pid), 20, "sendqd ends", pause=0.1)
        return len(found)

    def stop_daemon(self, sig=signal.SIGTERM):
        """Its exit status; a sanitizer's report fails the test."""
        if not self._daemon:
            return None
        code = self._daemon.stop(sig)
        with open(self._daemon.log, "rb") as f:
            _no_sanitizer(f.read().decode("utf-8", "replace"), "sendqd")
        self._daemon = None
        return code

    def clock(self, ahead_ms, asleep_ms=0):
        """Set the clock of the programs that run with SENDQ_TEST_CLOCK, and wake the daemon to look at it."""
        path = os.path.join(self.folder, "clock")
        with open(path + ".new", "w") as f:
            f.write("%d %d" % (ahead_ms, asleep_ms))
        os.rename(path + ".new", path)
        self.extra_env["SENDQ_TEST_CLOCK"] = path
        if self._daemon:
            self.poke()

    def poke(self):
        """What sendmail does: one octet to the wake socket, whose path may be too long for an address."""
        folder = os.open(os.path.dirname(self.queue), os.O_PATH)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
                s.sendto(b"w", "/proc/self/fd/%d/%s" % (folder, os.path.basename(self.queue) + ".wake"))
        finally:
            os.close(folder)

    def pid(self):
        return self._daemon.p.pid

    def log(self):
        return self._daemon.output() if self._daemon else ""

    def wait(self, message_id, state, seconds=30):
        """Until every recipient of the message is in `state`."""
        return until(lambda: set(self.states(message_id).values()) == {state}, seconds,
                     "%s is %s, not %s" % (message_id, "?", state), pause=0.1)

    def notice_texts(self):
        folder = os.path.join(self.notices, "new")
        out = []
        if os.path.isdir(folder):
            for name in sorted(os.listdir(folder)):
                with open(os.path.join(folder, name), "rb") as f:
                    out.append(f.read().decode("utf-8", "replace"))
        return out


def _value(v):
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, int):
        return str(v)
    if isinstance(v, (list, tuple)):
        return "( " + ", ".join(_value(i) for i in v) + " )"
    return '"%s"' % str(v).replace("\\", "\\\\").replace('"', '\\"')


def _no_sanitizer(text, program):
    for mark in ("AddressSanitizer", "LeakSanitizer", "runtime error:", "UndefinedBehaviorSanitizer"):
        if mark in text:
            raise AssertionError("%s: a sanitizer speaks:\n%s" % (program, text[-6000:]))


def route(server, name="home", user=None, password=None, **more):
    """Settings of a route; plain where `tls` says none."""
    out = {"name": name, "server": server}
    if user:
        out["user"] = user
    if password:
        out["password"] = password
    out.update(more)
    return out
