#!/usr/bin/python3
"""A submission server that does what its script says, for better or worse.

    Scripted({"RCPT": ["250 ok", "550 5.1.1 no", "250 ok"], "FINAL": "421 4.3.2 going down"})

A script maps a step to its answer: CONNECT, EHLO, STARTTLS, AUTH, MAIL, RCPT,
DATA, BDAT, FINAL (the verdict, after the dot or BDAT LAST), RSET, NOOP, QUIT.
An answer is text (CRLF is added, and a newline in it makes more lines), octets
(as they are), one of CLOSE, RESET, HANG, or a tuple of these in order. A list
gives the answers in turn over the life of the server, its last one for ever. A
function is called with the session and the command line. Steps without an
entry are answered as a good server would.

What was accepted stands in `messages`: (sender, recipients, octets); every
command in `commands`, with AUTH's secrets left as they came. Runs in threads of
the test process, on loopback; by hand: scripted.py SCENARIO prints the port and
serves until its stdin ends.
"""
import base64
import os
import socket
import ssl
import struct
import sys
import threading

CLOSE, RESET, HANG = "<close>", "<reset>", "<hang>"
GOOD_EHLO = ("PIPELINING", "SIZE 100000000", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "CHUNKING")


class _Over(Exception):
    pass


class Session:
    def __init__(self, server, sock, number):
        self.server, self.sock, self.number = server, sock, number
        self.buffer = b""
        self.sender, self.recipients, self.octets = None, [], b""
        self.tls = self.authenticated = False

    # ---- octets

    def fill(self):
        got = self.sock.recv(65536)
        if not got:
            raise _Over
        self.buffer += got

    def line(self):
        while b"\n" not in self.buffer:
            if len(self.buffer) > 1 << 20:
                raise _Over
            self.fill()
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.rstrip(b"\r").decode("utf-8", "replace")

    def exactly(self, n):
        while len(self.buffer) < n:
            self.fill()
        out, self.buffer = self.buffer[:n], self.buffer[n:]
        return out

    def until_dot(self):
        self.buffer = b"\r\n" + self.buffer
        while b"\r\n.\r\n" not in self.buffer:
            self.fill()
        content, _, self.buffer = self.buffer.partition(b"\r\n.\r\n")
        return (content + b"\r\n").replace(b"\r\n.", b"\r\n")[2:]

    # ---- answers

    def answer(self, step, line, good):
        """Give the scripted answer to a step, or the good one. True when it was 2yz or 3yz."""
        answer = self.server.take(step, self, line)
        if answer is None:
            answer = good
        first = None
        for part in answer if isinstance(answer, tuple) else (answer,):
            if part == CLOSE:
                raise _Over
            if part == RESET:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                raise _Over
            if part == HANG:
                while True:
                    self.fill()
                    self.buffer = b""
            octets = part if isinstance(part, bytes) else self.lines(part)
            first = first or octets
            self.sock.sendall(octets)
        return bool(first) and first[:1] in b"23"

    @staticmethod
    def lines(text):
        parts = text.split("\n")
        return "".join((p[:3] + "-" + p[4:] if n + 1 < len(parts) else p) + "\r\n" for n, p in enumerate(parts)).encode()

    def ehlo(self):
        words = list(self.server.ehlo)
        if self.server.context and not self.tls:
            words.append("STARTTLS")
        if self.server.users and (self.tls or not self.server.context):
            words.append("AUTH PLAIN LOGIN")
        return "\n".join(["250 scripted"] + ["250 " + w for w in words])

    # ---- commands

    def run(self):
        if self.server.implicit:
            self.start_tls()
        self.answer("CONNECT", "", "220 scripted ESMTP")
        while True:
            line = self.line()
            self.server.commands.append(line)
            verb = line.split(" ")[0].upper()
            handler = getattr(self, "on_" + verb.lower(), None)
            if handler:
                handler(line)
            else:
                self.answer(verb, line, "502 5.5.2 not known")

    def start_tls(self):
        self.sock = self.server.context.wrap_socket(self.sock, server_side=True)
        self.tls = True

    def on_ehlo(self, line):
        self.answer("EHLO", line, self.ehlo())

    def on_starttls(self, line):
        if self.answer("STARTTLS", line, "220 2.0.0 go on" if self.server.context else "502 5.5.1 no"):
            self.start_tls()

    def on_auth(self, line):
        words = line.split(" ")
        try:
            if words[1].upper() == "LOGIN":
                self.sock.sendall(b"334 VXNlcm5hbWU6\r\n")
                user = base64.b64decode(self.line()).decode()
                self.sock.sendall(b"334 UGFzc3dvcmQ6\r\n")
                password = base64.b64decode(self.line()).decode()
            else:
                if len(words) < 3:
                    self.sock.sendall(b"334 \r\n")
                    words.append(self.line())
                user, password = base64.b64decode(words[2]).decode().split("\0")[1:3]
        except ValueError:
            user = password = ""
        good = self.server.users.get(user) == password
        self.authenticated = self.answer("AUTH", line, "235 2.7.0 welcome" if good else "535 5.7.8 bad login")

    def on_mail(self, line):
        if self.answer("MAIL", line, "250 2.1.0 ok"):
            self.sender, self.recipients, self.octets = line[line.find("<") + 1:line.find(">")], [], b""

    def on_rcpt(self, line):
        if self.answer("RCPT", line, "250 2.1.5 ok" if self.sender is not None else "503 5.5.1 MAIL first"):
            self.recipients.append(line[line.find("<") + 1:line.find(">")])

    def on_rset(self, line):
        self.sender, self.recipients = None, []
        self.answer("RSET", line, "250 2.0.0 ok")

    def on_noop(self, line):
        self.answer("NOOP", line, "250 2.0.0 ok")

    def on_quit(self, line):
        self.answer("QUIT", line, "221 2.0.0 bye")
        raise _Over

    def on_data(self, line):
        if not self.recipients:
            self.answer("NO-RCPT", line, "503 5.5.1 no recipients")
        elif self.answer("DATA", line, "354 go on"):
            self.octets = self.until_dot()
            self.verdict(line)

    def on_bdat(self, line):
        words = line.upper().split(" ")
        octets = self.exactly(int(words[1]))
        if not self.recipients:
            self.answer("NO-RCPT", line, "503 5.5.1 no recipients")
            return
        self.octets += octets
        if "LAST" in words:
            self.verdict(line)
        else:
            self.answer("BDAT", line, "250 2.0.0 chunk taken")

    def verdict(self, line):
        message = (self.sender, self.recipients, self.octets)
        self.sender, self.recipients, self.octets = None, [], b""
        self.server.arrived.append(message)
        if self.answer("FINAL", line, "250 2.0.0 accepted"):
            self.server.messages.append(message)


class Scripted:
    session = Session

    def __init__(self, script=None, ehlo=GOOD_EHLO, certs=None, cert=None, key=None, users=None, implicit=False,
                 host="127.0.0.1", port=0):
        """TLS where `certs` (harness) or `cert` and `key` are given; logins where `users` is."""
        self.script = {k: list(v) if isinstance(v, list) else v for k, v in (script or {}).items()}
        self.ehlo, self.users, self.implicit = ehlo, users or {}, implicit
        self.commands, self.messages, self.arrived = [], [], []
        self.sessions = 0
        self.context = None
        if certs or cert:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(cert or certs.cert, key or certs.key)
        self._lock = threading.Lock()
        self._listener = socket.create_server((host, port), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def take(self, step, session, line):
        """The next scripted answer of a step, or None."""
        with self._lock:
            answer = self.script.get(step)
            if isinstance(answer, list):
                answer = answer.pop(0) if len(answer) > 1 else answer[0]
        return answer(session, line) if callable(answer) else answer

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.sessions += 1
            threading.Thread(target=self._serve, args=(sock, self.sessions), daemon=True).start()

    def _serve(self, sock, number):
        session = self.session(self, sock, number)
        try:
            session.run()
        except (_Over, OSError, ssl.SSLError):
            pass
        finally:
            try:
                session.sock.close()
            except OSError:
                pass

    def stop(self):
        self._listener.close()


def endless_line(session, line):
    """A reply line of 10 MB."""
    return b"250 " + b"x" * (10 << 20) + b"\r\n"


# Scripts by name, for tests and for trying things by hand.
SCENARIOS = {
    "good": {},
    "closes-at-once": {"CONNECT": CLOSE},
    "resets-at-once": {"CONNECT": RESET},
    "silent": {"CONNECT": HANG},
    "garbage": {"CONNECT": b"\x00\xff\x16garbage\n" * 100},
    "greeting-421": {"CONNECT": ("421 4.3.2 too busy", CLOSE)},
    "greeting-554": {"CONNECT": ("554 5.7.1 go away", CLOSE)},
    "ehlo-500": {"EHLO": "500 5.5.1 what"},
    "endless-greeting": {"CONNECT": b"220-" + b"x" * (10 << 20) + b"\r\n"},
    "endless-reply": {"MAIL": endless_line},
    "endless-lines": {"RCPT": b"250-x\r\n" * 2000000},
    "garbage-reply": {"MAIL": b"hello there\r\n"},
    "code-999": {"MAIL": "999 what"},
    "two-replies": {"MAIL": b"250 ok\r\n250 ok\r\n"},
    "greylist": {"RCPT": ["451 4.7.1 greylisted", "250 2.1.5 ok"]},
    "one-bad-of-three": {"RCPT": ["250 2.1.5 ok", "550 5.1.1 no such user", "250 2.1.5 ok"]},
    "quota": {"MAIL": ["550 5.4.5 Daily user sending limit exceeded."]},
    "421-verdict": {"FINAL": ("421 4.3.2 shutting down", CLOSE)},
    "half-verdict": {"FINAL": (b"25", CLOSE)},
    "verdict-without-end": {"FINAL": (b"250-accepted\r\n", CLOSE)},
    "no-verdict": {"FINAL": CLOSE},
    "verdict-451": {"FINAL": ["451 4.3.0 try again", "250 2.0.0 accepted"]},
    "verdict-554": {"FINAL": "554 5.6.0 refused"},
    "closes-in-content": {"BDAT": RESET, "DATA": ("354 go on", RESET)},
}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in SCENARIOS:
        sys.exit("usage: scripted.py " + "|".join(SCENARIOS))
    print(Scripted(SCENARIOS[sys.argv[1]]).port, flush=True)
    os.read(0, 1)
