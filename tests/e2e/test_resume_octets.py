#!/usr/bin/python3
"""A cut behind every single octet of a session, client and gateway together: test_resume_octets.py DATA|BDAT.

One queue, one gateway and one bad link for all: only the rule changes. With SENDQ_LONG=1 every octet of both directions,
by RST and by FIN; SENDQ_CUTS="FROM STEP" takes another step. Else a seeded sample."""
import hashlib
import json
import os
import random
import sqlite3
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import links, process, sendq  # noqa: E402
from harness.gateway import USERS, Gateway  # noqa: E402
from harness.sendq import message  # noqa: E402
from harness.tap import add, equal, main, note, true, until  # noqa: E402

LONG = os.environ.get("SENDQ_LONG") == "1"
SEED = int(os.environ.get("SENDQ_SEED", "1"))
FROM, STEP = (int(word) for word in os.environ.get("SENDQ_CUTS", "1 1").split())
VERB = sys.argv[1]
ANN, BOB = "ann@example.test", "bob@example.test"
LINE = 66         # the longest line of the message: with DATA so much of one that was cut goes again
TRIES = 5


class Scene:
    def __init__(self):
        self.folder = process.temp_folder("octets-" + VERB.lower())
        self.gateway = Gateway(self.folder)
        self.link = links.BadLink(self.folder, self.gateway.port)
        self.q = sendq.Sendq(self.folder, [sendq.route("smtp://127.0.0.1:%d" % self.link.port, user=ANN, password=USERS[ANN], tls="none")],
                             connect_timeout="20s")
        self.inbox = os.path.join(self.gateway.mail, BOB, "new")
        self._log, self._rest, self._n, self._connections = None, "", 0, 0
        self.send()
        if VERB == "DATA":
            with sqlite3.connect(self.q.queue, timeout=20) as db:
                db.execute("INSERT OR REPLACE INTO learned SELECT id, 'bdat', 'no', ? FROM route", (int(time.time() * 1000),))
        # What a whole session takes each way, and of that the content.
        octets, (record,) = self.send()
        self.total = {way: record[way] for way in ("up", "down")}
        dots = sum(line.startswith(b".") for line in octets.split(b"\r\n"))
        self.wire = len(octets) + (dots if VERB == "DATA" else 0)
        self.head = record["up"] - self.wire - len(b"QUIT\r\n") - len(b".\r\n" if VERB == "DATA" else b"BDAT 0 LAST\r\n")

    def body(self):
        """Just over 3 kB with the header, the same length each time; dots at the start of lines, and alone."""
        rng = random.Random("%d %d" % (SEED, self._n))
        return "".join("%s%056x\n" % (".." if n % 9 == 0 else "." if n % 3 == 0 else "x", rng.getrandbits(224))
                       for n in range(50)) + ".\n..\n\n...\n.\n"

    def records(self, connections):
        """What the link has written down of so many connections, the last ones."""
        self._log = self._log or open(self.link.log)
        new = []

        def written():
            # A line may be there before its end is.
            self._rest += self._log.read()
            *whole, self._rest = self._rest.split("\n")
            new.extend(json.loads(line) for line in whole)
            return len(new) >= connections
        until(written, 10, "connections' ends", pause=0.002)
        self._connections += connections
        equal(new[-1]["n"], self._connections, "number of connections")
        return new

    def arrived(self):
        """All copies that came since the last call, as octets behind their trace fields."""
        out = []
        for name in os.listdir(self.inbox):
            with open(os.path.join(self.inbox, name), "rb") as f:
                out.append(f.read().replace(b"\n", b"\r\n"))
            os.unlink(os.path.join(self.inbox, name))
        return out

    def send(self, rule=""):
        """One message over a link with this rule until it is sent: (its octets, a record of each connection)."""
        self._n += 1
        self.link.set(rule)
        number = self.q.submit(message(BOB, "number %06d" % self._n, self.body(), Date="Thu, 26 Nov 2026 06:00:00 +0000",
                                       Message_ID="<%06d.%s@octets.test>" % (self._n, VERB)))
        octets = self.q.octets(number)
        for tries in range(1, TRIES + 1):
            if self.q.flush() == 0:
                break
        rows = self.q.sql("SELECT sha256, epoch FROM ledger WHERE message_id = '<%06d.%s@octets.test>'" % (self._n, VERB))
        equal(rows, [(hashlib.sha256(octets).digest(), 0)], "in the ledger behind %d tries" % tries)
        copies = self.arrived()
        equal(len(copies), 1, "copies")
        true(copies[0].endswith(octets) and b"\r\n\r\n" not in copies[0][:-len(octets)], "its octets are others")
        return octets, self.records(tries)

    def stop(self):
        self.link.stop()
        self.gateway.stop()


def cuts(way, how):
    def run(scene):
        total = scene.total[way]
        places = range(FROM, total + 1, STEP)
        if not LONG:
            rng = random.Random("%d %s %s %s" % (SEED, VERB, way, how))
            places = sorted(set(rng.sample(range(1, total + 1), 4) + [total - k for k in (7, 20)]))
        resumed, worst, began = 0, 0, time.monotonic()
        for k in places:
            try:
                _, records = scene.send("* cut=%s:%d with=%s times=1" % (way, k, how))
                up = [r["up"] for r in records]
                true(len(up) <= 2, "%d connections" % len(up))
                if len(up) == 2 and how == "fin":
                    # All that was handed over before a FIN arrives: it counts, in whole lines where that is DATA.
                    kept = min(up[0] - scene.head, scene.wire) - (LINE if VERB == "DATA" else 0)
                    true(up[1] <= scene.total["up"] - max(0, kept), "it sent %d octets, and then %d" % tuple(up))
                resumed += len(up) == 2 and up[1] < scene.total["up"] - 100
                worst = max(worst, sum(up))
                true(worst <= 2 * scene.total["up"], "%d octets for a message of %d" % (worst, scene.wire))
            except AssertionError as why:
                raise AssertionError("cut %s behind %d of %d octets by %s: %s" % (way, k, total, how.upper(), why)) from why
        seconds = time.monotonic() - began
        note("%s: %d cuts of %d octets %s by %s, %.1f s (%.3f s each); %d went on behind octets that were kept; at most %.3f times a whole session"
             % (VERB, len(places), total, way, how.upper(), seconds, seconds / len(places), resumed, worst / scene.total["up"]))
        true(way == "down" or resumed > 0, "nothing was ever taken up again")
    return run


for way_ in ("up", "down"):
    for how_ in ("fin", "rst"):
        add("%s, cut behind any octet %s by %s: one copy, nothing sent twice that was kept" % (VERB, "sent" if way_ == "up" else "received", how_.upper()),
            cuts(way_, how_), seconds=3600 if LONG else 120)

if __name__ == "__main__":
    main(Scene, lambda scene: scene.stop())
