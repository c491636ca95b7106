#!/usr/bin/python3
"""The log of an own MTA as evidence about doubt: real Postfix, real Exim."""
import os
import subprocess

from harness.exim import Exim
from harness.sendq import message
from harness.tap import equal, holds, main, test, true, until
from harness.world import World

MINUTE = 60 * 1000


class Scene(World):
    def account(self, rules, log, port=None, **more):
        """sendq on a link with these rules, on a route that names the log: (sendq, link, forward)."""
        link = self.link(port or self.postfix.port, rules)
        q = self.sendq(self.plain(link.port, mta_log=log, **more))
        clock = os.path.join(q.folder, "clock")
        q.extra_env["SENDQ_TEST_CLOCK"] = clock
        shift = [0]

        def forward(ms):
            shift[0] += ms
            with open(clock + ".new", "w") as f:
                f.write("%d\n" % shift[0])
            os.rename(clock + ".new", clock)
        return q, link, forward

    def log(self):
        return self.postfix.folder + "/mail.log"


@test("Postfix took it: its log settles the doubt, by file and by command")
def positive(world):
    for log in (world.log(), "|cat '%s'" % world.log()):
        user = world.user()
        q, link, forward = world.account("* final=cut times=1", log)
        number = q.submit(message(user + "@example.test", "logged"))
        equal(q.flush(), 75)
        world.postfix.settled(user, 1)
        equal(q.flush(), 0, "a flush asks at once")
        equal(q.states(number), {user + "@example.test": "sent"})
        row, = q.sent()
        holds(row["source"], "server's log")
        holds(row["source"], "postfix/qmgr")
        equal(len(link.records()), 1, "sessions")


@test("Postfix did not get all of it: its log says that the session ended, and it is sent again at once")
def ended(world):
    user = world.user()
    q, link, forward = world.account("", world.log())
    other = world.user()
    q.submit(message(other + "@example.test", "measured"))
    equal(q.flush(), 0)
    # The terminator (BDAT 0 LAST) and QUIT stand at the end; the connection breaks inside the terminator.
    link.set("* cut=up:%d times=1" % (link.records()[-1]["up"] - len("QUIT\r\n") - 3))
    number = q.submit(message(user + "@example.test", "measured"))
    equal(q.flush(), 75)
    equal(q.states(number), {user + "@example.test": "doubt"})
    until(lambda: "lost connection after" in world.postfix.log(), 20, "Postfix's line")
    equal(q.flush(), 0, "the log is certain: no need to wait or to ask twice")
    equal(q.states(number), {user + "@example.test": "sent"})
    world.postfix.settled(user, 1)
    true(any("the server's own log shows" in t for t in q.notice_texts()), "the notice says why")


@test("a whole log without a trace counts after 15 minutes and twice; one that is not whole never does")
def negative(world):
    for whole in (True, False):
        user = world.user()
        q, link, forward = world.account("* final=cut times=1", "/nowhere/log")
        log = os.path.join(q.folder, "mail.log")
        q.configure([world.plain(link.port, mta_log=log)])
        number = q.submit(message(user + "@example.test", "no trace"))
        equal(q.flush(), 75)
        stamp = subprocess.run(["date", "+%b %e %H:%M:%S", "-d", "+1 minute"], stdout=subprocess.PIPE, check=True).stdout.decode().strip()
        with open(log, "w") as f:
            if whole:
                f.write("Jan  1 00:00:00 mx postfix/master[1]: daemon started\n")
            f.write(stamp + " mx postfix/anvil[2]: statistics\n")
        equal(q.flush(), 75, "too early to count")
        forward(16 * MINUTE)
        equal(q.flush(), 75, "once")
        equal(q.states(number), {user + "@example.test": "doubt"})
        forward(60 * MINUTE)
        equal(q.flush(), 0 if whole else 75, "twice")
        equal(q.states(number), {user + "@example.test": "sent" if whole else "doubt"})
        if not whole:
            holds(q.status("why", number).out, "does not reach back")
        world.postfix.settled(user, 2 if whole else 1)


@test("a log that cannot be read, a command that fails: no answer, and it is told")
def no_log(world):
    for log, words in (("/nowhere/mail.log", "it cannot be read"), ("|exit 3", "the command failed"), ("|yes", "no line of Postfix or Exim")):
        user = world.user()
        q, link, forward = world.account("* final=cut times=1", log if log != "|yes" else "|yes | head -1000000")
        number = q.submit(message(user + "@example.test", "no log"))
        equal(q.flush(), 75)
        equal(q.flush(), 75)
        equal(q.states(number), {user + "@example.test": "doubt"})
        holds(q.status("why", number).out, words)


@test("by itself, in the daemon, a minute after the cut")
def by_itself(world):
    user = world.user()
    q, link, forward = world.account("* final=cut times=1", world.log())
    q.daemon()
    number = q.submit(message(user + "@example.test", "by itself"))
    q.wait(number, "doubt")
    world.postfix.settled(user, 1)
    forward(2 * MINUTE)
    q.poke()
    q.wait(number, "sent")
    q.stop_daemon()
    equal(len(link.records()), 1)


@test("Exim took it: one line of its log settles the doubt")
def exim_took_it(world):
    server = Exim(world.folder + "/took")
    try:
        q, link, forward = world.account("* final=cut times=1", server.folder + "/log/mainlog", port=server.port)
        number = q.submit(message("bob@example.org", "exim"))
        equal(q.flush(), 75)
        until(lambda: " <= " in server.log(), 20, "Exim's line")
        equal(q.flush(), 0, "the log: " + server.log())
        equal(q.states(number), {"bob@example.org": "sent"})
        holds(q.sent()[0]["source"], " <= ")
        equal(len(server.messages()), 1)
    finally:
        server.stop()


@test("Exim threw it away because nobody was there to hear its answer: sent again at once")
def exim_threw_it_away(world):
    # It looks at the connection when the content has been checked.
    server = Exim(world.folder + "/lost", more="acl_smtp_data = accept delay = 2s")
    try:
        q, link, forward = world.account("", server.folder + "/log/mainlog", port=server.port)
        q.submit(message("bob@example.org", "measured"))
        equal(q.flush(), 0)
        link.set("* cut=up:%d times=1" % (link.records()[-1]["up"] - len("QUIT\r\n")))
        number = q.submit(message("bob@example.org", "measured"))
        equal(q.flush(), 75)
        equal(q.states(number), {"bob@example.org": "doubt"})
        until(lambda: "lost after final dot" in server.log(), 20, "Exim's line")
        equal(len(server.messages()), 1, "taken by Exim")
        equal(q.flush(), 0, "the log: " + server.log())
        equal(q.states(number), {"bob@example.org": "sent"})
        equal(len(server.messages()), 2)
        true(any("the server's own log shows" in t for t in q.notice_texts()), "the notice says why")
    finally:
        server.stop()


if __name__ == "__main__":
    main(lambda: Scene("mtalog"), Scene.stop)
