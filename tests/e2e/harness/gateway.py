"""sendq-gateway of its own, and a client that says exactly what a test wants said."""
import base64
import crypt
import os
import re
import signal
import socket
import ssl
import subprocess
import warnings

from . import links, process

warnings.simplefilter("ignore", DeprecationWarning)

USERS = {"ann@example.test": "ann's word", "bob@example.test": "bob's word"}


class Gateway:
    """`listen`: schemes of the listeners, in order; `ports` has their ports. Mail goes to Maildirs below `mail`."""

    def __init__(self, folder, name="gateway", certs=None, listen=("smtp",), env=None, mailboxes=USERS, **settings):
        self.folder = os.path.join(folder, name)
        self.mail = self.folder + "/mail"
        self.state = self.folder + "/state"
        self.clock = self.folder + "/clock"
        os.makedirs(self.folder)
        for address in mailboxes:
            for part in ("tmp", "new", "cur"):
                os.makedirs(os.path.join(self.mail, address, part))
        self.passwords = self.folder + "/passwords"
        with open(self.passwords, "w") as f:
            for user, word in USERS.items():
                f.write("%s:%s\n" % (user, crypt.crypt(word, crypt.mksalt(crypt.METHOD_SHA256, rounds=1000))))
        os.chmod(self.passwords, 0o600)
        self.config = self.folder + "/gateway.conf"
        self.listen = listen
        self.settings = dict(hostname="gw.example.test", state=self.state, passwords=self.passwords)
        os.makedirs(self.mail, exist_ok=True)
        if not settings.pop("backend", False):
            self.settings["maildir"] = self.mail
        if certs:
            self.settings.update(certificate=certs.cert, key=certs.key)
        self.settings.update(settings)
        self.env = env or {}
        self.shift(0)
        self.start()

    def shift(self, seconds):
        """The gateway's clocks, moved on by so much."""
        with open(self.clock + ".new", "w") as f:
            f.write("%d" % (seconds * 1000))
        os.rename(self.clock + ".new", self.clock)

    def write_config(self):
        with open(self.config, "w") as f:
            f.write("listen = [%s];\n" % ", ".join('"%s://127.0.0.1:0"' % s for s in self.listen))
            for key, value in self.settings.items():
                word = str(value).lower() if isinstance(value, bool) else value if isinstance(value, int) else '"%s"' % value
                f.write("%s = %s;\n" % (key, word))

    def start(self, **env):
        self.write_config()
        self.process = process.Process([links.program("sendq-gateway"), "--config", self.config], self.folder + "/log",
                                       env={**os.environ, "SENDQ_TEST_CLOCK": self.clock, **self.env, **env},
                                       stdout=subprocess.PIPE)
        self.ports = []
        for _ in self.listen:
            line = self.process.p.stdout.readline().decode()
            if not line.startswith("listening on "):
                raise AssertionError("the gateway did not start: %s" % self.process.output())
            self.ports.append(int(line.rsplit(":", 1)[1]))
        self.port = self.ports[0]

    def command(self, *args):
        """Another call of the program on the same settings."""
        done = subprocess.run([links.program("sendq-gateway"), "--config", self.config] + list(args), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env={**os.environ, "SENDQ_TEST_CLOCK": self.clock, **self.env})
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def stop(self, sig=signal.SIGTERM):
        self.process.stop(sig)
        self.process.p.stdout.close()

    def restart(self, sig=signal.SIGTERM, **env):
        self.stop(sig)
        self.start(**env)

    def copies(self, address="ann@example.test"):
        """The delivered files as octets, CRLF line ends."""
        folder = os.path.join(self.mail, address, "new")
        out = []
        for name in sorted(os.listdir(folder), key=lambda n: os.stat(os.path.join(folder, n)).st_mtime_ns):
            with open(os.path.join(folder, name), "rb") as f:
                out.append(f.read().replace(b"\n", b"\r\n"))
        return out

    def found(self, content, address="ann@example.test"):
        """How many copies of just this content there are, behind the trace fields."""
        return sum(1 for c in self.copies(address) if c.endswith(content) and b"\r\n\r\n" not in c[:len(c) - len(content)])

    def empty(self):
        for address in os.listdir(self.mail):
            for name in os.listdir(os.path.join(self.mail, address, "new")):
                os.unlink(os.path.join(self.mail, address, "new", name))

    def spooled(self):
        return sorted(os.listdir(self.state + "/spool"))

    def log(self):
        return self.process.output()


class Reply:
    def __init__(self, lines):
        self.lines = lines
        self.code = int(lines[-1][:3]) if lines and lines[-1][:3].isdigit() else 0
        self.text = lines[-1][4:] if lines else ""

    def __repr__(self):
        return "\n".join(self.lines)

    def offset(self):
        return int(self.text.split()[0])

    def sha256(self):
        return re.search(r"sha256=([0-9a-f]{64})", self.text).group(1)


class Peer:
    """A client's end of one connection."""

    def __init__(self, port, user="ann@example.test", ehlo="lap.example.test", tls=None, ca=None, login=True, seconds=30):
        self.s = socket.create_connection(("127.0.0.1", port), seconds)
        self.s.settimeout(seconds)
        self.ca = ca
        if tls == "implicit":
            self.wrap()
        self.f = self.s.makefile("rb")
        self.greeting = self.reply()
        self.hello = None
        if tls == "starttls":
            self.cmd("EHLO " + ehlo)
            assert self.cmd("STARTTLS").code == 220
            self.secure()
        if login:
            self.hello = self.cmd("EHLO " + ehlo)
            words = base64.b64encode(("\0%s\0%s" % (user, USERS[user])).encode()).decode()
            answer = self.cmd("AUTH PLAIN " + words)
            if answer.code != 235:
                raise AssertionError("no login: %r" % answer)

    def wrap(self):
        context = ssl.create_default_context(cafile=self.ca)
        self.s = context.wrap_socket(self.s, server_hostname="localhost")

    def secure(self):
        self.wrap()
        self.f = self.s.makefile("rb")

    def send(self, octets):
        self.s.sendall(octets)

    def reply(self):
        lines = []
        while True:
            line = self.f.readline().decode("utf-8", "replace")
            if not line:
                return Reply(lines)
            lines.append(line.rstrip("\r\n"))
            if line[3:4] != "-":
                return Reply(lines)

    def cmd(self, line):
        self.send(line.encode() + b"\r\n")
        return self.reply()

    def mail(self, transid=None, size=None, sender="ann@example.test", more=""):
        return self.cmd("MAIL FROM:<%s>%s%s%s" % (sender, " SIZE=%d" % size if size is not None else "",
                                                  " TRANSID=%s" % transid if transid else "", more))

    def envelope(self, transid=None, size=None, to=("ann@example.test",), **more):
        """MAIL, and RCPT where it is not taken up again; the reply to MAIL."""
        answer = self.mail(transid, size, **more)
        if answer.code == 250:
            for address in to:
                got = self.cmd("RCPT TO:<%s>" % address)
                if got.code != 250:
                    raise AssertionError("RCPT: %r" % got)
        return answer

    def data(self, content):
        """DATA, octets, dot; the verdict."""
        answer = self.cmd("DATA")
        if answer.code != 354:
            return answer
        self.send(wire_data(content))
        return self.reply()

    def bdat(self, content, last=True):
        self.send(b"BDAT %d%s\r\n" % (len(content), b" LAST" if last else b"") + content)
        return self.reply()

    def hang_up(self):
        """FIN behind all that was sent; back when the gateway has read it and ended the session."""
        try:
            self.s.shutdown(socket.SHUT_WR)
            while self.s.recv(65536):
                pass
        except OSError:
            pass
        self.close()

    def reset(self):
        """RST: what the gateway has not read yet is lost."""
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()

    def close(self):
        self.f.close()
        self.s.close()


def stuffed(content):
    return re.sub(rb"(?m)^\.", b"..", content)


def wire_data(content):
    return stuffed(content) + b".\r\n"
