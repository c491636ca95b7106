#!/usr/bin/python3
"""The promise that everything else rests on: accepted, the reply lost, and not sent twice.

A real Postfix takes the message; the link breaks in place of its final 250.
"""
import signal

from harness.sendq import message
from harness.tap import equal, holds, main, note, test, true
from harness.world import World


def lose_the_reply(world, route=None, copies=1, subject="doubt"):
    """A message whose final reply is lost: (sendq, id, user, link)."""
    user = world.user()
    link = world.link(world.postfix.port, "* final=cut times=%d" % copies)
    q = world.sendq(route or world.plain(link.port))
    number = q.submit(message(user + "@example.test", subject))
    equal(q.flush(), 75, "flush leaves something in doubt")
    equal([r["end"] for r in link.records()], ["cut-final"], "what the link did")
    return q, number, user, link


@test("a lost final reply is doubt, and one copy however often it is tried")
def doubt_is_never_resent(world):
    q, number, user, link = lose_the_reply(world)
    equal(q.states(number), {user + "@example.test": "doubt"})
    for _ in range(3):
        equal(q.flush(), 75, "flush")
        equal(q.flush(number), 75, "flush by id")
    for sig in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
        q.daemon()
        equal(q.flush(), 75, "flush asked of the daemon")
        q.stop_daemon(sig)
    equal(q.run("sendqd", "--once").code in (0, 75), True, "sendqd --once")
    equal(q.states(number), {user + "@example.test": "doubt"})
    equal(len(link.records()), 1, "connections: nothing was tried again")
    world.postfix.settled(user, 1)
    equal(q.sent(), [], "the ledger does not claim it")


@test("sendq says that it is in doubt, and what can be done")
def doubt_is_explained(world):
    q, number, user, link = lose_the_reply(world)
    why = q.status("why", number)
    equal(why.code, 0, repr(why))
    for word in ("doubt", "sendq resend", "sendq settle"):
        holds(why.out.lower(), word, "sendq why")
    attempt = q.attempts(number)[-1]
    equal((attempt["outcome"], attempt["phase"]), ("doubt", "terminator"))
    note(why.out)


@test("settled as sent by hand it is done, with one copy and a line in the ledger")
def settle_sent(world):
    q, number, user, link = lose_the_reply(world)
    equal(q.status("settle", number, "sent").code, 0)
    equal(q.states(number), {user + "@example.test": "sent"})
    equal(q.flush(), 0, "nothing is left")
    world.postfix.settled(user, 1)
    rows = [r for r in q.sent() if r["recipient"] == user + "@example.test"]
    equal(len(rows), 1, "ledger rows")


@test("settled as unsent it goes once more")
def settle_unsent(world):
    user = world.user()
    link = world.link(world.postfix.port, "* final=cut times=1")
    q = world.sendq(world.plain(link.port))
    number = q.submit(message(user + "@example.test", "unsent"))
    equal(q.flush(), 75)
    equal(q.status("settle", number, "unsent").code, 0)
    equal(q.flush(), 0)
    equal(q.states(number), {user + "@example.test": "sent"})


@test("resent by hand there are two copies with one Message-ID, and the ledger says so")
def resend(world):
    q, number, user, link = lose_the_reply(world)
    identity = q.get(number)["message_id"]
    equal(q.status("resend", number).code, 0)
    equal(q.flush(), 0)
    equal(q.states(number), {user + "@example.test": "sent"})
    copies = world.postfix.settled(user, 2)
    for copy in copies:
        holds(copy.decode(), "Message-I", "a copy")
        holds(copy.decode(), identity, "a copy")
    rows = [r for r in q.sent() if r["message_id"] == identity]
    true(rows, "the ledger has the message")
    why = q.status("why", number).out + q.status("sent").out
    holds(why.lower(), "twice", "sendq tells that it may have arrived twice")


@test("over TLS with a login the same holds")
def doubt_over_tls(world):
    user = world.user()
    link = world.link(world.postfix.smtps, "* final=cut times=1")
    q = world.sendq(world.tls(link.port, "smtps"))
    number = q.submit(message(user + "@example.test", "over tls"))
    equal(q.flush(), 75)
    equal([r["end"] for r in link.records()], ["cut-final"], "what the link did")
    equal(q.states(number), {user + "@example.test": "doubt"})
    equal(q.flush(), 75)
    world.postfix.settled(user, 1)


@test("with DATA instead of BDAT the same holds")
def doubt_with_data(world):
    world.postfix.without("chunking")
    try:
        q, number, user, link = lose_the_reply(world)
        equal(q.states(number), {user + "@example.test": "doubt"})
        equal(q.flush(), 75)
        world.postfix.settled(user, 1)
    finally:
        world.postfix.without("")


@test("a reply cut inside its first line is no reply")
def half_a_reply(world):
    for octets in (1, 3, 5):
        user = world.user()
        link = world.link(world.postfix.port, "* final=cut pass=%d with=fin" % octets)
        q = world.sendq(world.plain(link.port))
        number = q.submit(message(user + "@example.test", "half"))
        equal(q.flush(), 75)
        equal(q.states(number), {user + "@example.test": "doubt"}, "after %d octets of the reply" % octets)
        world.postfix.settled(user, 1)


@test("a link that breaks inside the content is no doubt: it goes again, once")
def cut_in_content(world):
    user = world.user()
    link = world.link(world.postfix.port, "* cut=up:20000 times=2")
    q = world.sendq(world.plain(link.port))
    number = q.submit(message(user + "@example.test", "cut", "x" * 70 + "\n" + ("y" * 70 + "\n") * 1000))
    equal(q.flush(), 75)
    equal(q.states(number), {user + "@example.test": "queued"})
    equal(q.flush(), 75)
    equal(q.flush(), 0)
    equal(q.states(number), {user + "@example.test": "sent"})
    world.postfix.settled(user, 1)
    equal([r["end"] for r in link.records()][:2], ["cut-up", "cut-up"])


if __name__ == "__main__":
    main(lambda: World("doubt"), World.stop)
