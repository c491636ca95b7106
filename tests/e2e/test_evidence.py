#!/usr/bin/python3
"""A message in doubt is settled by evidence: a real Postfix that files sent mail, a real Dovecot that shows it.

Postfix gives the sender a copy of everything it accepts (sender_bcc_maps);
Dovecot serves that Maildir as the Sent folder. So the copies bear a server's trace.
"""
import os

from harness.filing import Filing
from harness.sendq import message
from harness.tap import equal, holds, main, test, true, until

MINUTE = 60 * 1000


def accept(world, q, n):
    """So many messages that are accepted and filed."""
    for i in range(n):
        q.submit(message(world.user() + "@example.test", "accepted %d" % i))
    equal(q.flush(), 0, "accepted")
    until(world.postfix.queue_is_empty, 30, "delivery")


@test("a copy with a server's trace in the Sent folder settles the doubt, and nothing is sent twice")
def positive(world):
    user = world.user()
    q, link, clock = world.account("* final=cut times=1")
    number = q.submit(message(user + "@example.test", "filed"))
    equal(q.flush(), 75)
    equal(q.states(number), {user + "@example.test": "doubt"})
    world.postfix.settled(user, 1)
    equal(q.flush(), 0, "a flush asks at once")
    equal(q.states(number), {user + "@example.test": "sent"})
    equal(len(link.records()), 1, "sessions with the server: none but the first")
    row = [r for r in q.sent() if r["message_id"] == q.get(number)["message_id"]][0]
    holds(row["source"], "sent folder", "the ledger's source")
    holds(row["source"], "Postfix", "the trace is quoted")
    true(any("Sent after all" in t for t in q.notice_texts()), "a notice tells of it")
    world.postfix.settled(user, 1)


@test("asked by itself: the daemon settles a doubt a minute after the cut")
def positive_by_itself(world):
    user = world.user()
    q, link, clock = world.account("* final=cut times=1")
    q.daemon()
    number = q.submit(message(user + "@example.test", "filed, by itself"))
    q.wait(number, "doubt")
    world.postfix.settled(user, 1)
    clock.forward(2 * MINUTE)
    q.poke()
    q.wait(number, "sent")
    q.stop_daemon()
    equal(len(link.records()), 1, "sessions with the server")


@test("a provider that files what it accepts, and did not file it: sent again after two such answers, later than 15 minutes")
def negative(world):
    user = world.user()
    q, link, clock = world.account("")
    accept(world, q, 3)
    accept(world, q, 1)
    # Inside the record of the terminator, ahead of those of QUIT and close_notify: truly not accepted.
    link.set("* cut=up:%d times=1" % (link.records()[-1]["up"] - 60))
    number = q.submit(message(user + "@example.test", "accepted 0"))
    equal(q.flush(), 75)
    equal(q.states(number), {user + "@example.test": "doubt"})
    sessions = len(link.records())
    equal(q.flush(), 75, "too early to count")
    equal(q.states(number), {user + "@example.test": "doubt"})
    clock.forward(16 * MINUTE)
    equal(q.flush(), 75, "the first answer that counts")
    equal(q.states(number), {user + "@example.test": "doubt"})
    equal(len(link.records()), sessions, "sessions with the server")
    clock.forward(60 * MINUTE)
    equal(q.flush(), 0, "the second answer that counts: sent again")
    equal(q.states(number), {user + "@example.test": "sent"})
    world.postfix.settled(user, 1)
    true(any("Sent again" in t for t in q.notice_texts()), "a notice tells of it")
    why = q.status("why", number).out
    holds(why, "twice", "why says that a second copy may exist")


@test("a provider that does not file sent mail: no copy means nothing, the message stays in doubt")
def unknown(world):
    user = world.user()
    world.sent_folder(False)
    try:
        q, link, clock = world.account("")
        accept(world, q, 3)
        link.set("* final=cut times=1")
        number = q.submit(message(user + "@example.test", "nobody files"))
        equal(q.flush(), 75)
        for _ in range(4):
            clock.forward(61 * MINUTE)
            equal(q.flush(), 75, "flush")
            equal(q.states(number), {user + "@example.test": "doubt"})
        world.postfix.settled(user, 1)
    finally:
        world.sent_folder(True)


@test("a copy that a mail program filed itself is no evidence")
def own_copy(world):
    user = world.user()
    world.sent_folder(False)
    try:
        q, link, clock = world.account("* final=cut times=1")
        number = q.submit(message(user + "@example.test", "filed by the mail program"))
        equal(q.flush(), 75)
        name = os.path.join(world.folder, "mail", "nobody-files-here", "new", "1.own.copy")
        with open(name, "wb") as f:
            f.write(b"From: ann@example.test\r\nMessage-ID: %s\r\nSubject: own\r\n\r\nhello\r\n" % q.get(number)["message_id"].encode())
        os.chown(name, 65534, 65534)
        for _ in range(3):
            clock.forward(61 * MINUTE)
            equal(q.flush(), 75)
            equal(q.states(number), {user + "@example.test": "doubt"})
        holds(q.status("why", number).out, "without a server's trace", "why quotes what was found")
    finally:
        world.sent_folder(True)


@test("an IMAP server that is gone or refuses the login is no answer, and no fault of the route")
def no_imap(world):
    for settings in ({"imap": "imaps://localhost:1"}, {}):
        user = world.user()
        q, link, clock = world.account("* final=cut times=1", **settings)
        number = q.submit(message(user + "@example.test", "no evidence to be had"))
        equal(q.flush(), 75)
        if not settings:
            world.imap.stop()
        clock.forward(16 * MINUTE)
        equal(q.flush(), 75)
        equal(q.states(number), {user + "@example.test": "doubt"})
        other = world.user()
        second = q.submit(message(other + "@example.test", "the route still works"))
        equal(q.flush(second), 0)
        equal(q.states(number), {user + "@example.test": "doubt"})


@test("duplicates = \"allow\": sent again at once, and the ledger says so")
def allow(world):
    user = world.user()
    q, link, clock = world.account("* final=cut times=1", imap=None, duplicates="allow")
    number = q.submit(message(user + "@example.test", "allowed"))
    q.flush()
    equal(q.flush(), 0)
    equal(q.states(number), {user + "@example.test": "sent"})
    copies = world.postfix.settled(user, 2)
    equal(len({c[c.lower().index(b"message-id"):].split(b"\n")[0] for c in copies}), 1, "one Message-ID")
    holds(q.status("why", number).out, "twice")


@test("a program's own mail (Auto-Submitted) is sent again at once")
def service(world):
    user = world.user()
    q, link, clock = world.account("* final=cut times=1", imap=None)
    number = q.submit(message(user + "@example.test", "cron", Auto_Submitted="auto-generated"))
    q.flush()
    equal(q.flush(), 0)
    world.postfix.settled(user, 2)


@test("Message-ID kept, no evidence to be had: again after two hours of usable link, and not before")
def kept(world):
    user = world.user()
    q, link, clock = world.account("* final=cut times=1", imap=None, message_id="kept")
    q.daemon()
    number = q.submit(message(user + "@example.test", "kept"))
    q.wait(number, "doubt")
    clock.forward(2 * MINUTE)
    q.poke()
    until(lambda: q.sql("SELECT asked FROM doubt") == [(1,)], 20, "a connection that proves the link usable")
    clock.forward(90 * MINUTE)
    q.poke()
    until(lambda: q.sql("SELECT asked FROM doubt") == [(2,)], 20, "the daemon's look")
    equal(q.states(number), {user + "@example.test": "doubt"}, "after an hour and a half")
    clock.forward(45 * MINUTE)
    q.poke()
    q.wait(number, "sent")
    q.stop_daemon()
    world.postfix.settled(user, 2)


@test("duplicates = \"ask\", or a provider that rewrites Message-ID: only a person resends; at expiry the outcome is told as unknown")
def ask(world):
    for settings in ({"duplicates": "ask"}, {"message_id": "rewritten"}):
        user = world.user()
        q, link, clock = world.account("* final=cut times=1", imap=None, **settings)
        number = q.submit(message(user + "@example.test", "ask"))
        equal(q.flush(), 75)
        for _ in range(4):
            clock.forward(24 * 60 * MINUTE)
            equal(q.flush(), 75)
            equal(q.states(number), {user + "@example.test": "doubt"})
        true(sum("In doubt" in t for t in q.notice_texts()) >= 3, "told daily")
        clock.forward(30 * 60 * MINUTE)
        q.flush()
        equal(q.states(number), {user + "@example.test": "expired"})
        true(any("outcome is unknown" in t for t in q.notice_texts()), "the report says that nobody knows")
        world.postfix.settled(user, 1)


if __name__ == "__main__":
    main(lambda: Filing("evidence"), Filing.stop)
