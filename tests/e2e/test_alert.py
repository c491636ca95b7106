#!/usr/bin/python3
"""The early alert: whoever sent a message is told at once that it broke off, and not every time."""
import email
import email.policy
import os

from harness import gateway, links, process, sendq
from harness.sendq import message
from harness.tap import equal, holds, main, note, test, true, until

MINUTE = 60 * 1000
ANN = "ann@example.test"


class Scene:
    def __init__(self):
        self.folder = process.temp_folder("alert")
        self.n = 0
        self.open = []

    def link(self, port, rules):
        self.n += 1
        folder = "%s/link%d" % (self.folder, self.n)
        os.mkdir(folder)
        self.open.append(links.BadLink(folder, port, rules))
        return self.open[-1]

    def sink(self):
        self.n += 1
        folder = "%s/sink%d" % (self.folder, self.n)
        os.mkdir(folder)
        self.open.append(links.Sink(folder))
        return self.open[-1]

    def sendq(self, link, route=None, **settings):
        self.n += 1
        settings = {"name": "home", "server": "smtp://127.0.0.1:%d" % link.port, "tls": "none", **(route or {})}, settings
        return sendq.Sendq(self.folder, [settings[0]], name="q%d" % self.n, **settings[1])

    def stop(self):
        for thing in self.open:
            thing.stop()


def body(octets):
    return ("x" * 75 + "\n") * (octets // 76)


def cuts(q):
    """Notices of cuts, in the order of their times."""
    found = [email.message_from_string(t, policy=email.policy.default) for t in q.notice_texts()]
    return [m for m in found if m["Subject"].startswith("Broke off")]


def text(notice):
    return " ".join(notice.get_body(("plain",)).get_content().split()) if notice.get_body(("plain",)) \
        else " ".join(next(p for p in notice.walk() if p.get_content_type() == "text/plain").get_content().split())


def ended(q, number):
    return len([a for a in q.attempts(number) if a["ended_ms"]])


@test("the first cut of a message is told at once; a second within the hour is not, over a restart; one after it is")
def hourly(scene):
    link = scene.link(scene.sink().port, "* cut=up:400000")
    told = os.path.join(scene.folder, "told")
    # All attempts may start: what is tested is not the start rule.
    q = scene.sendq(link, notify='echo "$SENDQ_EVENT $SENDQ_ID $SENDQ_TEXT: $SENDQ_WHY" >>%s' % told)
    q.clock(0)
    number = q.submit(message("bob@example.test", "holiday pictures", body(2000000)))
    silent = q.submit(message("carol@example.test", "no word of it", body(2000000)), "-t", "-N", "never")
    q.daemon()
    until(lambda: cuts(q), 20, "a notice")
    notice, = cuts(q)
    note(text(notice))
    equal(notice["Subject"], "Broke off, goes on: holiday pictures")
    for words in ("It is kept, and goes on by itself", " of 2.0 MB", "had come through", "This server cannot resume: the next try begins at the first octet",
                  "It goes on in ", "sendq why " + number):
        holds(text(notice), words)
    status = [p for p in notice.walk() if p.get_content_type() == "message/delivery-status"][0].get_payload()[1]
    equal((status["Final-Recipient"], status["Action"], status["Status"]), ("rfc822; bob@example.test", "delayed", "4.4.2"))
    true(status["Will-Retry-Until"], "no time until which it is tried")
    until(lambda: os.path.exists(told), 10, "the notify command")
    line = open(told).read()
    holds(line, "cut %s broke off on the way, goes on by itself: " % number)
    holds(line, "had come through")

    def cut_again(ahead):
        before = ended(q, number)
        q.clock(ahead)
        q.flush(number)  # whatever the link has earned meanwhile
        until(lambda: ended(q, number) > before, 30, "another attempt")

    cut_again(20 * MINUTE)
    q.stop_daemon()
    q.daemon()
    cut_again(58 * MINUTE)
    until(lambda: ended(q, silent) > 0 or q.flush(silent), 30, "the other was tried too")
    equal(len(cuts(q)), 1, "notices within an hour")
    cut_again(62 * MINUTE)
    until(lambda: len(cuts(q)) == 2, 20, "a second notice")
    equal({m["Subject"] for m in cuts(q)}, {"Broke off, goes on: holiday pictures"}, "nobody else's")
    equal(q.stop_daemon(), 0)


@test("what the server keeps is in the notice, and `alert = 0` wants none")
def resumable(scene):
    server = gateway.Gateway(scene.folder, listen=("smtp",))
    scene.open.append(server)
    link = scene.link(server.port, "* cut=up:1500000 times=2")
    login = {"user": ANN, "password": gateway.USERS[ANN]}
    q = scene.sendq(link, {**login})
    number = q.submit(message("bob@example.test", "resumed", body(2000000)))
    equal(q.flush(), 75)
    notice, = cuts(q)
    note(text(notice))
    holds(text(notice), " of it: they are not sent again")
    holds(text(notice), "The server keeps ")
    true("cannot resume" not in text(notice), "it can")
    quiet = scene.sendq(link, {**login, "alert": "0"})
    other = quiet.submit(message("bob@example.test", "unsaid", body(2000000)))
    equal(quiet.flush(), 75)
    equal(quiet.attempts(other)[0]["outcome"], "cut")
    equal(quiet.notice_texts(), [])
    for a, n in ((q, number), (quiet, other)):
        equal(a.flush(), 0)
        equal(set(a.states(n).values()), {"sent"})


@test("killed between the cut and the notice, the next daemon tells of it, once")
def killed(scene):
    link = scene.link(scene.sink().port, "* cut=up:400000 times=1")
    q = scene.sendq(link)
    number = q.submit(message("bob@example.test", "killed", body(2000000)))
    true(q.run("sendqd", "--once", SENDQ_FAULT="runner_before_report=kill").code < 0, "it was not killed")
    equal(cuts(q), [])
    equal(ended(q, number), 1)
    q.run("sendqd", "--once")
    equal(len(cuts(q)), 1)
    q.run("sendqd", "--once")
    equal(len(cuts(q)), 1)


@test("a cut before its content, and a refusal, are not told: nothing had come through")
def before_content(scene):
    link = scene.link(scene.sink().port, "* reply=3")
    q = scene.sendq(link)
    number = q.submit(message("bob@example.test", "at the envelope"))
    equal(q.flush(), 75)
    equal([a["outcome"] for a in q.attempts(number)], ["cut"])
    equal(q.notice_texts(), [])


if __name__ == "__main__":
    main(Scene, Scene.stop)
