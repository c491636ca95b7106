#!/usr/bin/python3
"""The ledger: what is remembered of mail that was sent, and how it is forgotten."""
import os
import sqlite3

from harness.sendq import message
from harness.tap import equal, holds, main, test, true
from harness.world import World


def sent(world, n, **settings):
    """A queue that has sent so many messages: (sendq, ids, addresses)."""
    q = world.sendq(world.plain(world.postfix.port), **settings)
    to = [world.user() + "@example.test" for _ in range(n)]
    ids = [q.submit(message(a, "ledger", Message_ID="<%s>" % a.replace("@", ".id@"))) for a in to]
    equal(q.flush(), 0)
    return q, ids, to


def everything(q):
    """All octets of the database, its log included."""
    out = b""
    for suffix in ("", "-wal"):
        if os.path.exists(q.queue + suffix):
            with open(q.queue + suffix, "rb") as f:
                out += f.read()
    return out


@test("sent is asked by recipient, by Message-ID with or without brackets, by age, and by all of them")
def filters(world):
    q, ids, to = sent(world, 3)
    equal([r["recipient"] for r in q.sent()], to)
    equal([r["id"] for r in q.sent("--to", to[1].upper())], [ids[1]])
    mid = to[2].replace("@", ".id@")
    for form in (mid, "<%s>" % mid):
        equal([r["id"] for r in q.sent("--message-id", form)], [ids[2]])
    equal(len(q.sent("--since", "1h")), 3)
    clock = os.path.join(q.folder, "clock")
    with open(clock, "w") as f:
        f.write("%d\n" % (2 * 3600 * 1000))
    q.extra_env["SENDQ_TEST_CLOCK"] = clock
    equal(q.sent("--since", "1h"), [])
    equal(len(q.sent("--since", "3h", "--to", to[0], "--message-id", to[0].replace("@", ".id@"))), 1)
    equal(q.sent("--since", "3h", "--to", to[0], "--message-id", mid), [])
    equal(q.status("sent", "--since", "yesterday").code, 64)
    equal(q.status("sent", "--to", "nobody@example.test").out, "Nothing.\n")


@test("forget by id, by recipient, by Message-ID, by age and all; each says how many, and the rest stays")
def forget(world):
    q, ids, to = sent(world, 6)
    mids = [a.replace("@", ".id@") for a in to]
    for words, gone in [((ids[0],), [0]), (("--to", to[1]), [1]), (("--message-id", mids[2]), [2]), (("--before", "1h"), []),
                        (("--to", to[3], "--message-id", mids[4]), []), ((ids[3], ids[4]), [3, 4]), (("--all",), [5]), (("--all",), [])]:
        result = q.status("forget", *words)
        equal(result.code, 0, repr(result))
        total = sum(int(line.split(": ")[-1].split()[0]) for line in result.out.splitlines())
        equal(total, len(gone), "forget " + " ".join(words))
        for i in gone:
            true(to[i] not in [r["recipient"] for r in q.sent()] + list(q.states()), to[i] + " is forgotten")
    equal(q.sent(), [])
    # A clean checkpoint: what was overwritten is gone from the file too.
    db = sqlite3.connect(q.queue)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    for a in to:
        true(a.encode() not in everything(q), "no octet of %s is left" % a)
    again = q.submit(message(to[0], "ledger"))
    true(again not in ids, "ids do not come back")


@test("forget needs to be told what; a daemon does it too; what is not finished stays")
def forget_asked(world):
    q, ids, to = sent(world, 1)
    for words in ((), ("--all", ids[0]), ("--to",), ("--before", "soon"), ("--all", "--to", to[0])):
        equal(q.status("forget", *words).code, 64, "forget " + " ".join(words))
    equal(q.status("forget", "zzzz").code, 66)
    waits = q.submit(message("later1@example.test", "waits"))
    equal(q.flush(), 75)
    q.daemon()
    holds(q.status("forget", "--all").out, "1 entry forgotten")
    equal(q.states(), {"later1@example.test": "queued"})
    holds(q.status("forget", waits).out, "0 entries")
    equal(q.states(), {"later1@example.test": "queued"})
    q.stop_daemon()


@test("ledger_days = 0: nothing is remembered")
def none_kept(world):
    q, ids, to = sent(world, 2, ledger_days=0)
    equal(q.sent(), [])
    true(ids[0] not in [m["id"] for m in q.list(all=True)], "the first message is gone")
    # The last message keeps its row until there is a later one: its id must not come back.
    equal(len(q.list(all=True)), 1)


@test("after ledger_days the rows go by themselves")
def by_age(world):
    q, ids, to = sent(world, 2, ledger_days=1)
    equal(len(q.sent()), 2)
    clock = os.path.join(q.folder, "clock")
    with open(clock, "w") as f:
        f.write("%d\n" % (25 * 3600 * 1000))
    q.extra_env["SENDQ_TEST_CLOCK"] = clock
    equal(q.run("sendqd", "--once").code, 0)
    equal(q.sent(), [])


if __name__ == "__main__":
    main(lambda: World("ledger"), World.stop)
