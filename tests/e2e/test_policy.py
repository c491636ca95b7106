#!/usr/bin/python3
"""What is done about doubt where a message says so itself, and what people are told: notices, the notify command, sendq why."""
import os

from harness.filing import Filing
from harness.sendq import message
from harness.tap import equal, holds, main, test, true, until

MINUTE = 60 * 1000
DAY = 24 * 60 * MINUTE
HOOK = """umask 077; sleep 0.2; env | grep '^SENDQ_' | grep -v -e CONFIG -e TEST -e AGENT -e DAEMON | sort | tr '\\n' '|' >> %s; echo >> %s"""


def doubt(world, *args, hook=None, **more):
    """A message in doubt on a route without evidence: (sendq, id, address, link, clock)."""
    to = world.user() + "@example.test"
    q, link, clock = world.account("* final=cut times=1", imap=None, **more)
    if hook:
        with open(q.config) as f:
            text = f.read()
        q.write_config('notify = "%s";\n' % hook.replace("\\", "\\\\").replace('"', '\\"') + text)
    number = q.submit(message(to, "policy; `touch /tmp/x` $(id)"), *(args or ("-t",)))
    equal(q.flush(), 75)
    return q, number, to, link, clock


def told(path):
    """What the notify command was told: one dict a run."""
    if not os.path.exists(path):
        return []
    with open(path) as f:
        return [dict(v.split("=", 1) for v in line.split("|") if "=" in v) for line in f.read().splitlines()]


@test("a message that allows a second copy is sent again at once, whatever its route says; the notice says why")
def own_allow(world):
    for routes in ("avoid", "ask"):
        q, number, to, link, clock = doubt(world, "-t", "-O", "Duplicates=allow", duplicates=routes)
        equal(q.flush(), 0)
        equal(q.states(number), {to: "sent"})
        world.postfix.settled(to.split("@")[0], 2)
        true(any("the message itself allows" in t for t in q.notice_texts()), "the reason")
        row, = q.sent()
        equal((row["epoch"], row["unknown_copies"]), (1, 1))


@test("a message that asks, or avoids, waits on a route that allows; even a program's own mail")
def own_ask(world):
    for word in ("ask", "AVOID"):
        q, number, to, link, clock = doubt(world, "-t", "-OduplicaTES=" + word, duplicates="allow")
        clock.forward(3 * 60 * MINUTE)
        equal(q.flush(), 75)
        equal(q.states(number), {to: "doubt"})
        world.postfix.settled(to.split("@")[0], 1)
    equal(q.sendmail(message("x@example.test"), "-t", "-O", "Duplicates=perhaps").code, 64)
    to = world.user() + "@example.test"
    link.set("* final=cut times=2")
    number = q.submit(message(to, "cron", Auto_Submitted="auto-generated"), "-t", "-O", "Duplicates=ask")
    q.flush()
    q.flush()
    equal(q.states(number), {to: "doubt"})


@test("the notify command is run for each event, in order, with documented variables that no words can break")
def hook(world):
    path = os.path.join(world.folder, "told-hook")
    q, number, to, link, clock = doubt(world, hook=HOOK % (path, path))
    second, third = world.user() + "@example.test", "refused7@example.test"
    link.set("")
    q.submit(message(third, "refused"))
    q.flush()
    link.set("* final=cut times=2")
    other = q.submit(message(second, "second"))
    q.flush()
    equal([t["SENDQ_EVENT"] for t in told(path)], ["doubt", "failed", "doubt"])
    first = told(path)[0]
    equal({k: first[k] for k in first if k not in ("SENDQ_MESSAGE_ID",)},
          {"SENDQ_EVENT": "doubt", "SENDQ_TEXT": "in doubt: the server may have it, or not", "SENDQ_WHY": "", "SENDQ_ID": number,
           "SENDQ_SUBJECT": "policy; `touch /tmp/x` $(id)", "SENDQ_FROM": "ann@example.test", "SENDQ_TO": to, "SENDQ_RECIPIENTS": "1",
           "SENDQ_ROUTE": "home"})
    equal(told(path)[1]["SENDQ_TO"], third)
    equal((told(path)[2]["SENDQ_TO"], told(path)[2]["SENDQ_ID"]), (second, other))
    clock.forward(DAY + MINUTE)
    q.flush()
    equal(sorted(t["SENDQ_ID"] for t in told(path)[3:]), sorted([number, other]), "reminded once a day")
    q.flush()
    equal(len(told(path)), 5)


@test("NOTIFY=NEVER: no notice, no reminder")
def never(world):
    q, number, to, link, clock = doubt(world, "-t", "-N", "never")
    for _ in range(3):
        clock.forward(DAY + MINUTE)
        q.flush()
    equal(q.states(number), {to: "doubt"})
    equal(q.notice_texts(), [])
    holds(q.status().out, "IN DOUBT")


@test("sendq says that there are notices until a mail program has seen them")
def notices_line(world):
    q, number, to, link, clock = doubt(world)
    holds(q.status().out, "1 new notice in the Maildir " + q.notices)
    for name in os.listdir(q.notices + "/new"):
        os.rename(os.path.join(q.notices, "new", name), os.path.join(q.notices, "cur", name + ":2,S"))
    true("notice" not in q.status().out, "none is new")


@test("where the server delivers what came before a cut, why says how many partial copies may exist")
def partial(world):
    to = world.user() + "@example.test"
    q, link, clock = world.account("", imap=None, keeps_partial="yes")
    link.set("* cut=up:90000")
    number = q.submit(message(to, "partial", ("x" * 70 + "\n") * 4000))
    equal(q.flush(), 75)
    holds(q.status("why", number).out, "1 partial copy may exist")
    equal(q.flush(), 75)
    holds(q.status("why", number).out, "2 partial copies may exist")


@test("without a command of one's own the desktop is told, and what mail says is no markup")
def desktop(world):
    q, link, clock = world.account("* final=cut times=1")
    told, programs = os.path.join(q.folder, "told"), os.path.join(q.folder, "desktop")
    os.mkdir(programs)
    with open(os.path.join(programs, "notify-send"), "w") as f:
        f.write("#!/bin/sh\nprintf '%%s|' \"$DBUS_SESSION_BUS_ADDRESS\" \"$@\" >>'%s'\n" % told)
    os.chmod(os.path.join(programs, "notify-send"), 0o755)
    to = world.user() + "@example.test"
    q.submit(message(to, "<b>5 & 6</b> `id` $(id)"))
    q.extra_env["PATH"] = programs + ":" + os.environ["PATH"]
    q.extra_env["DBUS_SESSION_BUS_ADDRESS"] = "unix:path=/nowhere"
    equal(q.flush(), 75)
    text = until(lambda: os.path.exists(told) and open(told).read(), 20, "a notification")
    equal(text.split("|"), ["unix:path=/nowhere", "--app-name=sendq", "--icon=mail-send", "--", "Mail to " + to,
                            "in doubt: the server may have it, or not: &lt;b&gt;5 &amp; 6&lt;/b&gt; `id` $(id)", ""])


@test("a copy that a provider filed under another Message-ID settles the doubt, and the route learns that it rewrites")
def rewritten(world):
    to = world.user() + "@example.test"
    world.sent_folder(False)
    try:
        q, link, clock = world.account("* final=cut times=1")
        number = q.submit(message(to, "rewritten"))
        equal(q.flush(), 75)
        name = os.path.join(world.folder, "mail", "nobody-files-here", "new", "1.rewritten")
        with open(name, "wb") as f:
            f.write(b"Received: from x by provider.test; now\r\nMessage-ID: <new@provider.test>\r\n"
                    b"X-Microsoft-Original-Message-ID: %s\r\nSubject: rewritten\r\n\r\nhello\r\n" % q.get(number)["message_id"].encode())
        os.chown(name, 65534, 65534)
        equal(q.flush(), 0)
        equal(q.states(number), {to: "sent"})
        equal(q.sql("SELECT value FROM learned WHERE key = 'message_id'"), [("rewritten",)])
        equal([(r["message_id"], r["provider_id"]) for r in q.sent()], [(q.get(number)["message_id"], "<new@provider.test>")])
    finally:
        world.sent_folder(True)


if __name__ == "__main__":
    main(lambda: Filing("policy"), Filing.stop)
