#!/usr/bin/python3
"""What sendq prints: JSON that any parser takes, with the names that others rely on; text that fits a terminal.

The rows are made worse than servers and senders can make them: octets that
are no UTF-8, controls, quotes, escape sequences.
"""
import json
import math
import os
import re
import sqlite3
import subprocess
import time

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


# Sums of one route's link, made by hand; the state that follows, and the words that explain it.
HOUR = 3600 * 1000
LINKS = [
    ({"connects": 5, "octets": 8e7, "seconds": 100, "speed": 1e6, "speed_weight": 1, "rtt": 0.02}, "good", None, "good for 2 h"),
    ({"connects": 5, "cuts": 3, "octets": 3e6, "seconds": 60, "rated": 3, "log_rate": 3 * 11}, "poor", "cuts", "because the connection breaks about every 1.5 MB"),
    ({"connects": 5, "cuts": 3, "octets": 3e6, "seconds": 60, "rated": 3, "log_rate": 3 * 9}, "fair", "cuts", "because the connection breaks about every 5.5 MB"),
    ({"connects": 5, "cuts": 3, "octets": 2e7, "seconds": 60}, "fair", "cuts", "because the connection breaks about every 6.8 MB"),
    ({"connects": 5, "octets": 1e6, "seconds": 500, "speed": 2000, "speed_weight": 1}, "poor", "speed", "because it carries only 2.0 KB/s"),
    ({"connects": 1, "refusals": 3, "octets": 1e6, "seconds": 5}, "poor", "connects", "because 75 % of connections do not come about"),
    ({"connects": 5, "octets": 1e6, "seconds": 5, "rtt": 1.25}, "fair", "rtt", "because a round trip takes 1.2 s"),
    ({"connects": 5, "refusals": 2, "unreached": 2}, "down", "unreached", "because the server cannot be reached (2 times in a row)"),
]


# What `why` says of a recipient in each state, and the commands that it names.
WHY = {
    "queued": ["waits.", "sendq flush ID"], "sending": ["is being sent", "octets are acknowledged"],
    "committing": ["the whole message is out", "it is in doubt"],
    "doubt": ["in doubt for", "may have it, or not", "sendq settle ID sent", "sendq settle ID unsent", "sendq resend ID"],
    "held": ["held for", "sendq release ID", "sendq remove ID"], "sent": ["accepted by the server", "ago"],
    "failed": ["refused for good", "report", "sendq resend ID"], "expired": ["given up because it waited too long"],
    "removed": ["taken out by hand"],
}


@test("why explains every state, and names what can be done")
def why_each(scene):
    q = scene.sendq()
    number = q.submit(message("u@example.test", "why"))
    q.flush()
    db = sqlite3.connect(q.queue)
    for n, state in enumerate(STATES):
        db.execute("UPDATE recipient SET state = ?, reply_code = 0, reply_text = ''", (n,))
        db.execute("UPDATE link SET next_try_ms = 0, cause = ''")
        db.commit()
        said = q.status("why", number).out
        for words in WHY[state]:
            true(words.replace("ID", number) in said, "%s: %r is not in %r" % (state, words, said))
    db.close()


@test("why: what the server or the system said stands there once, whoever waits for it")
def why_once(scene):
    q = scene.sendq()
    number = q.submit(message("u@example.test", "why"))
    equal(q.flush(), 75)
    said = q.status("why", number).out
    words = q.json("links")[0]["reply"]["text"]
    true(words, "the route has no words: %r" % said)
    equal(said.count(words), 1, said)


@test("why and links on a terminal: lines end between words, nothing is lost, and elsewhere nothing is broken")
def wrapped(scene):
    q = scene.sendq()
    number = q.submit(message("u@example.test", "why"))
    equal(q.flush(), 75)
    for command in (["why", number], ["links"]):
        at_terminal = ["script", "-qec", "stty cols 72; %s/sendq %s" % (q.bin, " ".join(command)), "/dev/null"]
        shown = subprocess.run(at_terminal, env=q.env(TERM="dumb"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=60).stdout.decode()
        lines = shown.replace("\r", "").splitlines()
        true(max(len(line) for line in lines) <= 72 and len(lines) > 3, "too long: %r" % lines)
        plain = re.sub(r"\d+", "N", q.status(*command).out)
        equal(re.sub(r"\d+", "N", " ".join(shown.split())), " ".join(plain.split()))
        true(len(plain.splitlines()) < len(lines), "nothing had to be wrapped: %r" % plain)


@test("why and show: what waits for a better link says so, why, until when, and how to force it")
def why_better_link(scene):
    q = scene.sendq()
    number = q.submit(message("u@example.test", "why", ("x" * 75 + "\n") * 40000))
    q.flush()
    now = int(time.time() * 1000)
    db = sqlite3.connect(q.queue)
    db.execute("UPDATE quality SET at_ms = ?, cuts = 6, octets = 1e6, seconds = 60, rated = 0, log_rate = 0, refusals = 0, unreached = 0", (now,))
    for waits, words in ((1, ["breaks about every 480 KB", "its 3.1 MB would get through with a chance of", "when the link gets better, on another network, in 5 h"]),
                         (4, ["delivers what came before a cut", "once an hour and six times a day at most", "in 5 h"])):
        db.execute("UPDATE recipient SET waits = ?, next_try_ms = ?", (waits, now + 6 * HOUR - 60000))
        db.commit()
        said, shown = q.status("why", number).out, q.status("show", number).out
        for part in words + ["It waits for a better link:", "at the latest, or at once with `sendq flush %s`" % number]:
            true(part in said, "%r is not in %r" % (part, said))
        for part in ("waits for a better link, tried in 5 h", "sendq why " + number, "sendq flush " + number):
            true(part in shown, "%r is not in %r" % (part, shown))
        equal(q.json("show", number)[0]["recipients"][0]["waits"], {1: "better_link", 4: "partial"}[waits])
    db.close()


@test("links: the state of each route with its numbers, since when and why")
def links_explained(scene):
    q = scene.sendq()
    q.submit(message("u@example.test", "links"))
    q.flush()
    names = [r[1] for r in q.sql("PRAGMA table_info(quality)")][3:]
    for sums, state, reason, words in LINKS:
        now = int(time.time() * 1000)
        db = sqlite3.connect(q.queue)
        db.execute("UPDATE quality SET at_ms = %d, %s" % (now, ", ".join("%s = %r" % (n, float(sums.get(n, 0))) for n in names)))
        db.execute("UPDATE link SET state = ?, since_ms = ?, goodput_bps = ?", (state, now - 2 * HOUR - 1000, int(sums.get("speed", 0) * 8)))
        db.commit()
        db.close()
        row, = q.json("links")
        equal((row["state"], row["reason"], row["here"], row["configured"]), (state, reason, True, True), repr(sums))
        # The model of DESIGN §8: a Gamma prior of 0.25 cuts in 2 MB, and what was seen.
        shape, exposure = sums.get("cuts", 0) + 0.25, sums.get("octets", 0) + 2e6
        by_time = "rated" in sums and sums["log_rate"] / sums["rated"] < math.log(sums["octets"] / sums["seconds"])
        equal(row["cuts_follow_time"], by_time)
        if not by_time:
            for name, n in (("chance_1mb", 1e6), ("chance_10mb", 10e6), ("chance_25mb", 25e6)):
                want = (exposure / (exposure + n + 6000)) ** shape
                true(abs(row[name] - want) < 0.001 + want * 0.001, "%s of %r: %r, not %r" % (name, sums, row[name], want))
            true(abs(row["cuts_per_mib"] * exposure / shape / 1048576 - 1) < 0.001, row["cuts_per_mib"])
        true(row["chance_1mb"] > row["chance_10mb"] > row["chance_25mb"] > 0, repr(row))
        text = q.status("links").out
        true(text.startswith("home"), text)
        for part in (state + " for 2 h", words, "chance to get through unbroken: 1 MB ", "connections stood"):
            true(part in text, "%r is not in %s" % (part, text))
        equal("(after so much time rather than so many octets)" in text, by_time)
    for line in text.splitlines():
        true(len(line) <= 80 or "last words" in line, "%d columns: %r" % (len(line), line))


@test("links: what waits for what, and a route that was never tried")
def links_waiting(scene):
    q = scene.sendq()
    equal([(r["state"], r["waiting"]["turn"]["messages"]) for r in q.json("links")], [("", 0)])
    ids = [q.submit(message("w%d@example.test" % n, "waits", "x" * 900 + "\n")) for n in range(7)]
    equal([(r["state"], r["waiting"]["turn"]["messages"]) for r in q.json("links")], [("", 7)])
    true("home: not tried yet\n  7 messages (" in q.status("links").out, q.status("links").out)
    q.flush()
    now = int(time.time() * 1000)
    db = sqlite3.connect(q.queue)
    db.execute("UPDATE link SET next_try_ms = 0, failures = 0")
    for n, (state, waits, ahead) in enumerate(((0, 0, -1), (0, 1, 5 * HOUR), (0, 1, 2 * HOUR), (0, 3, HOUR), (0, 0, HOUR), (3, 0, 0), (4, 0, 0))):
        db.execute("UPDATE recipient SET state = ?, waits = ?, next_try_ms = ? WHERE id >> 16 = 32768 + ?", (state, waits, now + ahead if ahead else 0, n))
    db.commit()
    db.close()
    row, = q.json("links")
    equal({k: v["messages"] for k, v in row["waiting"].items()},
          {"sending": 0, "checking": 0, "turn": 1, "link": 1, "better_link": 2, "own": 1, "doubt": 1, "held": 1})
    equal(row["waiting"]["better_link"]["next_try_ms"], now + 2 * HOUR)
    text = q.status("links").out
    for part in ("2 messages (", ") wait for a better link, the next in 1 h 59 min at the latest", "waits for the route, in 59 min",
                 "waits for its own time, in 59 min", "1 message (", ") is in doubt", ") is held", ") waits for its turn\n"):
        true(part in text, "%r is not in %s" % (part, text))
    true(ids[0] in q.status().out, "the state lists it")


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
