"""Somebody who sits at a terminal."""
import os
import pty
import select
import time


class Terminal:
    """A person at a terminal: waits for words, types an answer."""

    def __init__(self, q, *args):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(os.path.join(q.bin, "sendq"), ["sendq", *args], q.env(TERM="dumb"))
        self.seen = ""

    def answer(self, words, text, seconds=40):
        until = time.monotonic() + seconds
        at = 0
        while words not in self.seen[at:]:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                raise AssertionError("no '%s' in %r" % (words, self.seen))
            self.seen += self._read()
        self.seen = self.seen[self.seen.index(words) + len(words):] if text is not None else self.seen
        if text is not None:
            os.write(self.fd, text.encode() + b"\n")

    def _read(self):
        try:
            got = os.read(self.fd, 65536)
        except OSError:
            got = b""
        if not got:
            raise AssertionError("it ended: %r" % self.seen)
        return got.decode("utf-8", "replace")

    def end(self):
        try:
            while True:
                self.seen += self._read()
        except AssertionError:
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
