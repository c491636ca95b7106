"""A server with CHECKPOINT, written from RFC 1845 alone and knowing nothing of the gateway.

    Checkpoint(promise=True)     promises RETAIN and STORE as XSENDQ does; without it, a plain RFC 1845 server
    Checkpoint(hashes=True)      355 tells the SHA-256 of what it has

It keeps octets as they arrive, whether or not the chunk or line they are in is
whole; what it tells is what RFC 1845 allows: with DATA a line's start, with BDAT
any octet. A transfer is known by EHLO name and TRANSID. `states` may be changed
by a test. What was accepted stands in `messages`, as with Scripted.
"""
import hashlib
import re

from scripted import GOOD_EHLO, Scripted, Session

OFFERS = tuple(w for w in GOOD_EHLO if w != "SIZE 100000000") + ("SIZE 200000000", "CHECKPOINT")


class State:
    def __init__(self):
        self.sender, self.recipients, self.octets = None, [], b""
        self.complete, self.verdict, self.begun = False, None, False


class CheckpointSession(Session):
    state = None
    name = ""

    def on_ehlo(self, line):
        self.name = line.split(" ")[1].lower() if " " in line else ""
        super().on_ehlo(line)

    def on_mail(self, line):
        found = re.search(r" TRANSID=(<\S+>)", line)
        self.state = None
        if not found:
            super().on_mail(line)
            return
        key = (self.name, found.group(1))
        known = self.server.states.get(key)
        self.server.asked.append(key)
        scripted = self.server.take("MAIL", self, line)
        if scripted:
            self.server.script["MAIL-NOW"] = scripted
            self.answer("MAIL-NOW", line, "")
            return
        self.sender = line[line.find("<") + 1:line.find(">")]
        if known and known.begun:
            self.state = known
            self.recipients = list(known.recipients)
            self.answer("RESUME", line, "355 %d%s go on" % (len(self.kept()), self.hash()))
            return
        self.state = self.server.states[key] = State()
        self.recipients = []
        self.sock.sendall(b"250 2.1.0 new\r\n")

    def kept(self):
        return self.state.octets

    def hash(self):
        return " sha256=" + hashlib.sha256(self.kept()).hexdigest() if self.server.hashes else ""

    def on_rcpt(self, line):
        if self.state and self.state.begun:
            self.answer("RCPT-AFTER-355", line, "503 5.5.1 the recipients are known")
            return
        super().on_rcpt(line)
        if self.state:
            self.state.recipients = list(self.recipients)

    def forget(self):
        """RSET, a new MAIL, QUIT: the client knows (RFC 1845 §3)."""
        for key, state in list(self.server.states.items()):
            if state is self.state:
                del self.server.states[key]
        self.state = None

    def on_rset(self, line):
        if self.state:
            self.forget()
        super().on_rset(line)

    def on_quit(self, line):
        if self.state:
            self.forget()
        super().on_quit(line)

    def take_in(self, n):
        """n octets into the state, as they come: a cut in the middle leaves what came."""
        left = n
        while left:
            if not self.buffer:
                self.fill()
            piece, self.buffer = self.buffer[:left], self.buffer[left:]
            self.state.octets += piece
            left -= len(piece)

    def on_bdat(self, line):
        if not self.state:
            super().on_bdat(line)
            return
        self.state.begun = True
        words = line.upper().split(" ")
        self.take_in(int(words[1]))
        if "LAST" in words:
            self.finish(line)
        else:
            self.answer("BDAT", line, "250 2.0.0 chunk kept")

    def on_data(self, line):
        if not self.state:
            super().on_data(line)
            return
        self.state.begun = True
        if not self.answer("DATA", line, "354 go on"):
            return
        while True:
            while b"\n" not in self.buffer:
                self.fill()
            at = self.buffer.index(b"\n") + 1
            row, self.buffer = self.buffer[:at], self.buffer[at:]
            if row == b".\r\n":
                break
            self.state.octets += row[1:] if row.startswith(b".") else row
        self.finish(line)

    def finish(self, line):
        state = self.state
        if not state.complete:
            state.complete = True
            self.server.finals += 1
        verdict = self.server.take("FINAL", self, line)
        if state.verdict is None or state.verdict.startswith("4"):
            # a scripted cut is one of the reply, not of the acceptance
            state.verdict = verdict if isinstance(verdict, str) and verdict[:1] in "45" else "250 2.0.0 accepted"
            if state.verdict.startswith("2"):
                self.server.messages.append((self.sender, list(state.recipients), state.octets))
        if verdict is not None and verdict is not state.verdict:
            self.server.script["FINAL-NOW"] = verdict
            self.answer("FINAL-NOW", line, "")
            return
        self.sock.sendall(state.verdict.encode() + b"\r\n")
        self.sender, self.recipients = None, []


class Checkpoint(Scripted):
    session = CheckpointSession

    def __init__(self, script=None, promise=False, hashes=False, store="s1", retain=86400, words=OFFERS, **more):
        self.states, self.asked, self.hashes, self.finals = {}, [], hashes, 0
        super().__init__(script, ehlo=words + (("XSENDQ RETAIN=%d STORE=%s" % (retain, store),) if promise else ()), **more)
