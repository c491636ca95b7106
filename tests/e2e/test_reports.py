#!/usr/bin/python3
"""Delivery reports settle doubt: `sendq settle --from-mail`, with the reports of a real Postfix.

Sender ann has a Maildir in that Postfix: her reports arrive there.
"""
import os
import re

from harness.sendq import message
from harness.tap import equal, holds, main, test, true, until
from harness.world import World

# Addresses without a mailbox are taken and bounce.
TAKES_ALL = "smtpd_reject_unlisted_recipient = no\n"


def doubt(world, to=None, args=("-t",), rules="* final=cut times=1", **more):
    """A message whose reply was lost: (sendq, id, address, link)."""
    to = to or world.user() + "@example.test"
    link = world.link(world.postfix.port, rules)
    q = world.sendq(world.plain(link.port))
    number = q.submit(message(to, "report", **more), *args)
    equal(q.flush(), 75)
    equal(set(q.states(number).values()), {"doubt"})
    return q, number, to, link


def report_for(world, word):
    """The report in ann's mailbox that holds the word."""
    def look():
        return [r for r in world.postfix.delivered("ann") if word.encode() in r]
    return until(look, 30, "a report about " + word)[0]


def settle(q, report, **kw):
    result = q.run("sendq", "settle", "--from-mail", stdin=report, **kw)
    equal((result.code, result.err), (0, ""), repr(result))
    return result.out


def envid_of(report):
    return re.search(rb"^Original-Envelope-Id: *(\S+)", report, re.M).group(1).decode()


@test("our ENVID, with the epoch in it, comes back in the report of a delivery, and settles the doubt")
def delivered(world):
    q, number, to, link = doubt(world, args=("-t", "-N", "success", "-f", "ann@example.test"))
    report = report_for(world, to)
    equal(envid_of(report), "%s-%s-0" % (q.sql("SELECT value FROM meta WHERE key = 'identity'")[0][0][:8], number))
    holds(settle(q, report), "1 recipient settled as sent")
    equal(q.states(number), {to: "sent"})
    row, = q.sent()
    equal((row["epoch"], row["copies"], row["unknown_copies"], row["reply"]["code"]), (0, 1, 0, 0))
    holds(row["source"], "delivery report of mx.example.test")
    equal(q.flush(), 0, "nothing is left")
    equal(settle(q, report), "", "the same report again")
    equal(len(q.sent()), 1, "rows")
    equal(len(link.records()), 1, "sessions")


@test("a bounce after acceptance: that recipient failed, with the report's words; the other was accepted")
def bounced(world):
    good, bad = world.user() + "@example.test", "no-such-box@example.test"
    q, number, to, link = doubt(world, to=[good, bad], args=("-t", "-f", "ann@example.test"))
    report = report_for(world, bad)
    out = settle(q, report)
    holds(out, "1 recipient settled as failed")
    holds(out, "1 recipient settled as sent")
    equal(q.states(number), {good: "sent", bad: "failed"})
    failed, = [r for r in q.get(number)["recipients"] if r["address"] == bad]
    equal((failed["reply"]["enhanced"]), "5.1.1")
    holds(failed["reply"]["text"], "unknown user")
    q.run("sendqd", "--once")
    true(any("Not delivered" in t and bad in t for t in q.notice_texts()), "the failure is reported")


@test("asked of a daemon it is the same, and a notice tells of it")
def with_daemon(world):
    q, number, to, link = doubt(world, args=("-t", "-N", "success", "-f", "ann@example.test"))
    q.daemon()
    holds(settle(q, report_for(world, to)), "settled as sent")
    equal(q.states(number), {to: "sent"})
    q.stop_daemon()
    true(any("Sent after all" in t and to in t for t in q.notice_texts()), "a notice")
    holds(q.sql("SELECT value FROM learned WHERE key = 'dsn'")[0][0], "yes", "learned")


@test("a report of the first copy while the second waits: no second copy goes out")
def before_the_second(world):
    q, number, to, link = doubt(world, args=("-t", "-N", "success", "-f", "ann@example.test"))
    report = report_for(world, to)
    link.set("* refuse")
    equal(q.status("resend", number).code, 0)
    equal(q.flush(), 75, "the link is down")
    equal(q.states(number), {to: "queued"})
    holds(settle(q, report), "settled as sent")
    equal(q.states(number), {to: "sent"})
    link.set("")
    equal(q.flush(), 0)
    world.postfix.settled(to.split("@")[0], 1)
    row, = q.sent()
    equal((row["epoch"], row["unknown_copies"]), (0, 0))


@test("a report of the first copy after the second was accepted: the ledger says sent twice")
def sent_twice(world):
    q, number, to, link = doubt(world, args=("-t", "-N", "success", "-f", "ann@example.test"))
    first = report_for(world, to)
    equal(q.status("resend", number).code, 0)
    equal(q.flush(), 0)
    row, = q.sent()
    equal((row["epoch"], row["copies"], row["unknown_copies"]), (1, 1, 1))
    holds(q.status("sent").out, "may have been sent twice")
    holds(q.status("why", number).out, "may have arrived twice")
    settle(q, first)
    equal([(r["epoch"], r["copies"], r["unknown_copies"]) for r in q.sent()], [(1, 2, 0), (0, 2, 0)])
    equal(q.status("sent").out.count("SENT TWICE"), 2)
    true("may have" not in q.status("why", number).out, "why: no doubt is left")
    world.postfix.settled(to.split("@")[0], 2)
    second = until(lambda: [r for r in world.postfix.delivered("ann") if to.encode() in r and envid_of(r).endswith("-1")], 30)[0]
    equal(settle(q, second), "", "the report of the second copy tells nothing new")
    equal(len(q.sent()), 2)


@test("an ENVID of the user's own, and a plain bounce that quotes the Message-ID")
def other_names(world):
    q, number, to, link = doubt(world, args=("-t", "-N", "success", "-V", "mine+1=x", "-f", "ann@example.test"))
    report = report_for(world, to)
    equal(envid_of(report), "mine+1=x")
    holds(settle(q, report), "settled as sent")
    q, number, to, link = doubt(world)
    mid = q.get(number)["message_id"]
    bounce = "Return-Path: <>\nFrom: MAILER-DAEMON@elsewhere.test\n\nIt did not arrive.\n\nMessage-ID: %s\n" % mid
    holds(settle(q, bounce.encode()), "settled as sent")
    equal(q.states(number), {to: "sent"})
    equal(q.sql("SELECT value FROM learned WHERE key = 'message_id'"), [("kept",)])


@test("nothing is believed of a message that is not in doubt, of another queue's, of a copy that never was")
def not_believed(world):
    q, number, to, link = doubt(world)
    identity = q.sql("SELECT value FROM meta WHERE key = 'identity'")[0][0][:8]
    second = q.submit(message(world.user() + "@example.test", "waits"))
    link.set("* refuse")
    status = ("Return-Path: <>\nContent-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n"
              "Original-Envelope-Id: %s\n\nFinal-Recipient: rfc822; %s\nAction: %s\nStatus: 5.0.0\n\n--b--\n")
    before = q.states()
    for envid, who, action in [(identity + "-" + second + "-0", list(q.states(second))[0], "failed"),
                               (identity + "-" + second + "-0", list(q.states(second))[0], "delivered"),
                               ("00000000-" + number + "-0", to, "delivered"), (identity + "-" + number + "-1", to, "delivered"),
                               (identity + "-" + number + "-0x", to, "delivered"), (identity + "-" + number, to, "delivered"),
                               (identity + "-" + number + "-0", to, "pondered")]:
        equal(settle(q, (status % (envid, who, action)).encode()), "", envid)
        equal(q.states(), before, envid)
    holds(settle(q, (status % (identity + "-" + number + "-0", to, "delivered")).encode()), "settled as sent", "the true one")


@test("whatever mail comes in, a filter's command succeeds in silence")
def any_mail(world):
    q, number, to, link = doubt(world)
    mid = q.get(number)["message_id"]
    own = [t.encode() for t in q.notice_texts()]
    true(len(own) == 1 and b"In doubt" in own[0], "a notice of the doubt is there")
    for mail in [b"", b"\0\r\n\r", b"From: bob@example.test\nReferences: %s\n\nMessage-ID: %s\n" % (mid.encode(), mid.encode()),
                 message(to, "ordinary"), b"x" * 3000000, own[0]]:
        equal(settle(q, mail), "")
    equal(q.states(number), {to: "doubt"})
    equal(settle(world.sendq(world.plain(1)), own[0]), "", "no queue yet")
    equal(q.run("sendq", "settle", "--from-mail", "x").code, 64)


if __name__ == "__main__":
    main(lambda: World("reports", more=TAKES_ALL), World.stop)
