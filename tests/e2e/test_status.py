#!/usr/bin/python3
"""What sendq prints: JSON that any parser takes, with the names that others rely on; text that fits a terminal.

The rows are made worse than servers and senders can make them: octets that
are no UTF-8, controls, quotes, escape sequences.
"""
import json
import os
import sqlite3

from harness import process, sendq
from harness.sendq import message
from harness.tap import equal, main, test, true

STATES = ["queued", "sending", "committing", "doubt", "held", "sent", "failed", "expired", "removed"]
NASTY = [b'"quoted" \\back', b"\x1b[2J\x1b[31m", b"\xff\xfe\xc3", b"line\nline\ttab\x00nul", "grüße 漢字 🎉".encode(), b"\xed\xa0\x80", b"\xe2\x80\xa8", b"x" * 2048]

# The words: these names, these types.
LIST = {"id": str, "message_id": str, "from": str, "size": int, "submitted_ms": int, "hold": bool, "recipients": list}
RECIPIENT = {"address": str, "state": str, "next_try_ms": int, "reply": (dict, type(None)), "durable_octets": int, "acked_octets": int}
ATTEMPT = {"route": str, "started_ms": int, "ended_ms": int, "phase": str, "octets_sent": int, "octets_durable": int, "outcome": str,
           "reply": (dict, type(None))}
REPLY = {"code": int, "enhanced": str, "text": str}
SENT = {"message_id": str, "recipient": str, "sha256": (str, type(None)), "accepted_ms": int, "route": str, "reply": (dict, type(None))}
PHASES = "none connect greeting tls ehlo auth mail rcpt data content terminator verdict".split()


class Scene:
    def __init__(self):
        self.folder = process.temp_folder("status")
        self._n = 0

    def sendq(self):
        self._n += 1
        return sendq.Sendq(self.folder, [sendq.route("smtp://127.0.0.1:1", tls="none")], name="sendq%d" % self._n)

    def every_state(self):
        """A message with a recipient in each state, an attempt, a row of the ledger, and nasty words everywhere."""
        q = self.sendq()
        number = q.submit(message(["u%d@example.test" % i for i in range(len(STATES))], "words"))
        q.flush()
        db = sqlite3.connect(q.queue)
        db.text_factory = bytes
        for i, _ in enumerate(STATES):
            db.execute("UPDATE recipient SET state = ?, reply_code = ?, reply_enhanced = '5.1.1', reply_text = CAST(? AS TEXT) WHERE id & 65535 = ?",
                       (i, 0 if i == 1 else 550, NASTY[i % len(NASTY)], i))
        for n, words in enumerate(NASTY):
            db.execute("INSERT INTO ledger (message_id, mid_hash, recipient, sha256, accepted_ms, route, message, epoch, provider_id, source,"
                       " reply_code, reply_enhanced, reply_text) SELECT message_id, mid_hash, CAST(? AS TEXT), zeroblob(32), 5, route, id, ?, CAST(? AS TEXT),"
                       " '', 250, '2.0.0', CAST(? AS TEXT) FROM message", (words, n % 2, words, words))
        db.execute("UPDATE message SET subject = CAST(? AS TEXT), header_from = CAST(? AS TEXT)", (NASTY[2], NASTY[1]))
        db.execute("UPDATE attempt SET reply_text = CAST(? AS TEXT), reply_code = 451", (NASTY[5],))
        db.execute("UPDATE link SET reply_text = CAST(? AS TEXT)", (NASTY[3],))
        db.commit()
        db.close()
        return q, number


def strict(octets):
    """One object a line, UTF-8, no name twice, no NaN."""
    def pairs(items):
        names = [k for k, _ in items]
        equal(len(names), len(set(names)), "names")
        return dict(items)

    def refuse(word):
        raise AssertionError("not JSON: " + word)

    text = octets.decode("utf-8", "strict")
    true(text == "" or text.endswith("\n"), "the last line has no end")
    return [json.loads(line, object_pairs_hook=pairs, parse_constant=refuse) for line in text.split("\n")[:-1]]


def fields(row, names):
    for name, kind in names.items():
        true(name in row, "no '%s' in %r" % (name, row))
        true(isinstance(row[name], kind) and (kind is not int or not isinstance(row[name], bool)), "'%s' is %r" % (name, row[name]))


def reply(row):
    if row["reply"] is not None:
        fields(row["reply"], REPLY)
        equal(sorted(row["reply"]), sorted(REPLY), "names of a reply")


@test("list, show, sent, links, why and the state as JSON: valid whatever was said, with the fixed names")
def as_json(scene):
    q, number = scene.every_state()
    for arguments in (("list",), ("list", "--all"), ("show", number), ("sent",), ("links",), ("why", number), ()):
        result = q.status(*arguments, "--json")
        equal(result.code, 0, repr(arguments))
        equal(result.err, "", "stderr")
        rows = strict(result.raw)
        true(rows, "%r: no rows" % (arguments,))
        # The option may stand in front as well.
        equal(q.status("--json", *arguments).code, 0, repr(arguments))
    row, = strict(q.status("list", "--json").raw)
    fields(row, LIST)
    equal([r["state"] for r in row["recipients"]], STATES)
    equal(row["hold"], True)
    for r in row["recipients"]:
        fields(r, RECIPIENT)
        reply(r)
    shown, = strict(q.status("show", number, "--json").raw)
    fields(shown, LIST)
    fields(shown, {"attempts": list})
    true(shown["attempts"], "no attempts")
    for a in shown["attempts"]:
        fields(a, ATTEMPT)
        reply(a)
        true(a["phase"] in PHASES, a["phase"])
    sent = strict(q.status("sent", "--json").raw)
    equal(len(sent), len(NASTY))
    for r in sent:
        fields(r, SENT)
        reply(r)
    equal(sent[4]["recipient"], NASTY[4].decode())
    equal(sent[0]["recipient"], NASTY[0].decode())


@test("finished messages are listed with --all only")
def finished(scene):
    q, number = scene.every_state()
    db = sqlite3.connect(q.queue)
    db.execute("UPDATE recipient SET state = 5")
    db.commit()
    db.close()
    equal(strict(q.status("list", "--json").raw), [])
    equal([m["id"] for m in strict(q.status("list", "--all", "--json").raw)], [number])


@test("for people: no controls of others reach the terminal, each line of a screen fits 80 columns")
def for_people(scene):
    q, number = scene.every_state()
    for arguments in (("list",), ("list", "--all"), ("show", number), ("sent",), ("links",), ("why", number), ()):
        result = q.status(*arguments)
        equal(result.code, 0, "%r: %r" % (arguments, result))
        for c in (b"\x1b", b"\x00", b"\t", b"\r"):
            true(c not in result.raw, "%r prints %r: %r" % (arguments, c, result.raw[:300]))
    db = sqlite3.connect(q.queue)
    db.execute("UPDATE recipient SET reply_text = '', address = 'first.last' || (id & 65535) || '@example.org'")
    db.execute("UPDATE link SET reply_text = 'connection refused'")
    db.commit()
    db.close()
    for arguments in (("list",), ()):
        for line in q.status(*arguments).out.splitlines():
            true(len(line) <= 80, "%d columns: %r" % (len(line), line))


@test("colours on a terminal only, and not with NO_COLOR")
def colours(scene):
    import pty
    q, number = scene.every_state()
    for more, wanted in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        ours, theirs = pty.openpty()
        env = q.env(**{"TERM": "xterm", **more})
        pid = os.fork()
        if pid == 0:
            os.dup2(theirs, 1)
            os.close(ours)
            os.execve(q.bin + "/sendq", ["sendq", "list"], env)
        os.close(theirs)
        octets = b""
        try:
            while True:
                piece = os.read(ours, 65536)
                if not piece:
                    break
                octets += piece
        except OSError:
            pass
        os.waitpid(pid, 0)
        os.close(ours)
        equal(b"\x1b[" in octets, wanted, "%r: %r" % (more, octets[:200]))


if __name__ == "__main__":
    main(Scene)
