#!/usr/bin/python3
"""Settings of routes that show only over time: warn, report_to, fallback, and a route that the configuration lost."""
import email
import email.policy
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fake"))
from harness import links, process, sendq  # noqa: E402
from harness.filing import Clock  # noqa: E402
from harness.sendq import message  # noqa: E402
from harness.tap import equal, holds, main, test, true, until  # noqa: E402
from scripted import Scripted  # noqa: E402

HOUR = 3600 * 1000


class Scene:
    def __init__(self):
        self.folder = process.temp_folder("routes")
        self._n = 0

    def sendq(self, *routes, **settings):
        self._n += 1
        q = sendq.Sendq(self.folder, list(routes), name="sendq%d" % self._n, **settings)
        clock = Clock(os.path.join(q.folder, "clock"))
        clock.forward(0)
        q.extra_env["SENDQ_TEST_CLOCK"] = clock.path
        return q, clock


def plain(port, name="home", **more):
    return sendq.route("smtp://127.0.0.1:%d" % port, name=name, tls="none", **more)


def reports(q):
    return [email.message_from_string(t, policy=email.policy.default) for t in q.notice_texts()]


def fields(report):
    """The delivery-status part: the fields of the first recipient."""
    status = [p for p in report.walk() if p.get_content_type() == "message/delivery-status"][0]
    return status.get_payload()[1]


@test("a message that waits longer than `warn` is told of once, as delayed, and goes on waiting")
def warned(scene):
    q, clock = scene.sendq(plain(1, warn="4h"))
    number = q.submit(message("bob@example.test", "slow"))
    never = q.submit(message("carol@example.test", "no word of it"), "-t", "-N", "never")
    q.daemon()
    until(lambda: q.attempts(number) and q.attempts(number)[0]["ended_ms"], 20, "a first try")
    clock.forward(4 * HOUR - 600 * 1000)
    q.poke()
    later = q.submit(message("dan@example.test", "ten minutes to four"))
    equal(q.notice_texts(), [], "too early")
    clock.forward(601 * 1000)
    q.poke()
    until(q.notice_texts, 20, "a warning")
    report, = reports(q)
    equal(report["Subject"], "Still waiting: slow")
    equal(fields(report)["Action"], "delayed")
    equal(fields(report)["Final-Recipient"], "rfc822; bob@example.test")
    true(fields(report)["Will-Retry-Until"], "until when it is tried")
    words = report.get_body().get_content()
    for word in ("bob@example.test", "sendq why " + number, "sendq flush " + number, "given up"):
        holds(words, word, "the words")
    q.stop_daemon()
    # A new runner does not tell it again, and nobody is told who did not want to be.
    clock.forward(HOUR)
    q.flush()
    equal(len(q.notice_texts()), 1, "reports")
    clock.forward(4 * HOUR)
    q.flush()
    equal(sorted(r["Subject"] for r in reports(q)), ["Still waiting: slow", "Still waiting: ten minutes to four"])
    equal(set(q.states().values()), {"queued"})
    equal(len(q.states(never)) + len(q.states(later)), 2)


@test("warn = 0 tells nobody")
def never_warned(scene):
    q, clock = scene.sendq(plain(1, warn="0"))
    q.submit(message("bob@example.test", "slow"))
    q.flush()
    clock.forward(30 * HOUR)
    q.flush()
    equal(q.notice_texts(), [])


@test("report_to: the report is mailed as well, once; what is mailed about is never a report")
def mailed(scene):
    sink = links.Sink(scene.folder + "/mailed")
    refusing = Scripted({"RCPT": "550 5.1.1 no such user"})
    q, clock = scene.sendq(plain(refusing.port, "work", **{"from": ["*@work.test"]}), plain(sink.port, "home"), report_to="me@home.test")
    number = q.submit(message("nobody@example.test", "Größe", sender="Ann <ann@work.test>"))
    equal(q.flush(), 0)
    equal(q.states(number), {"nobody@example.test": "failed"})
    local, = reports(q)
    got, = sink.messages()
    true(b"\n" not in got.replace(b"\r\n", b""), "bare LF")
    by_mail = email.message_from_bytes(got, policy=email.policy.default)
    equal(by_mail["Subject"], "Not delivered: Größe")
    equal(by_mail["To"], "me@home.test")
    equal(by_mail["From"], "sendq <me@home.test>")
    equal(by_mail.get_content_type(), "multipart/report")
    equal(fields(by_mail)["Status"], "5.1.1")
    equal(fields(local)["Status"], "5.1.1")
    row, = [r for r in q.sent() if r["recipient"] == "me@home.test"]
    equal(row["message_id"], by_mail["Message-ID"])
    # A report that cannot be mailed: the local notice of what it told stands, nothing is told about the report.
    sink.stop()
    q.configure([plain(refusing.port)], report_to="me@home.test")
    number = q.submit(message("nobody@example.test", "second"))
    equal(q.flush(), 0)
    equal(sorted(r["Subject"] for r in reports(q)), sorted(["Not delivered: Größe", "Not delivered: second"]))
    equal(q.flush(), 0)
    equal(sorted(q.states().items()), [("me@home.test", "failed"), ("nobody@example.test", "failed")])
    equal(len(q.list(all=True)), 4, "messages")
    refusing.stop()


@test("report_to an address that no route takes: the local notice stands")
def not_mailed(scene):
    refusing = Scripted({"RCPT": "550 5.1.1 no such user"})
    q, clock = scene.sendq(plain(refusing.port, **{"from": ["*@work.test"]}), report_to="me@home.test")
    q.submit(message("nobody@example.test", "first", sender="ann@work.test"))
    equal(q.flush(), 0)
    equal(len(reports(q)), 1)
    equal(len(q.list(all=True)), 1, "messages")
    refusing.stop()


@test("mail of a bounce (<>) is never reported by mail")
def no_loop(scene):
    refusing = Scripted({"RCPT": "550 5.1.1 no such user"})
    q, clock = scene.sendq(plain(refusing.port), report_to="me@home.test")
    q.submit(message("nobody@example.test", "a bounce"), "-t", "-f", "<>")
    equal(q.flush(), 0)
    equal(len(reports(q)), 1)
    equal(len(q.list(all=True)), 1, "messages")
    refusing.stop()


@test("mail whose route was renamed is shown, with what to do, and goes when the name is back")
def stranded(scene):
    sink = links.Sink(scene.folder + "/stranded")
    q, clock = scene.sendq(plain(1, "old"))
    number = q.submit(message("bob@example.test", "left behind"))
    equal(q.flush(), 75)
    q.configure([plain(sink.port, "new")])
    q.daemon()
    until(lambda: "route=old is not in the configuration" in q.log(), 20, "a line in the log")
    q.stop_daemon()
    equal(q.flush(), 75)
    screen = q.status().out
    holds(screen, "old: NOT IN THE CONFIGURATION, and 1 recipient waits")
    holds(screen, 'name a route "old"')
    holds(screen, "no route 'old': sendq why " + number)
    why = q.status("why", number).out
    for word in ("'old'", "not in the configuration", 'name a route "old" again', "sendq remove " + number):
        holds(why, word, "sendq why")
    holds(q.status("list").out, "no route 'old'")
    equal(q.json()[0]["unknown_routes"], [{"route": "old", "recipients": 1}])
    equal(sink.messages(), [])
    q.configure([plain(sink.port, "old")])
    equal(q.flush(), 0)
    equal(len(sink.messages()), 1)
    equal(q.json()[0]["unknown_routes"], [])
    true("NOT IN THE CONFIGURATION" not in q.status().out, "still shown")
    sink.stop()


@test("in doubt on a route that the configuration lost: told daily, given up at its end with a report, never sent again")
def stranded_in_doubt(scene):
    sink = links.Sink(scene.folder + "/lost")
    link = links.BadLink(scene.folder, sink.port, "* final=cut times=1")
    q, clock = scene.sendq(plain(link.port, "old"))
    number = q.submit(message("bob@example.test", "left in doubt"))
    equal(q.flush(), 75)
    equal(q.states(number), {"bob@example.test": "doubt"})
    told = len(q.notice_texts())
    q.configure([plain(1, "new")])
    clock.forward(25 * HOUR)
    equal(q.flush(), 75)
    equal(len(q.notice_texts()), told + 1)
    clock.forward(5 * 24 * HOUR)
    q.flush()
    equal(q.states(number), {"bob@example.test": "expired"})
    true(len(q.notice_texts()) > told + 1, "a report at the end")
    equal(len(sink.messages()), 1)
    link.stop()
    sink.stop()


MINUTE = 60 * 1000


def fell_back(q, number):
    return q.json("show", number)[0]["route"]


@test("fallback: mail of a server that is down goes by the other route after fallback_after, once, and no sooner")
def fallback_down(scene):
    sink = links.Sink(scene.folder + "/fallback")
    q, clock = scene.sendq(plain(1, "home", fallback="work", fallback_after="30m", **{"from": ["ann@*"]}), plain(sink.port, "work"))
    first = q.submit(message("bob@example.test", "first"))
    equal(q.flush(), 75)
    holds(q.status("why", first).out, "fallback 'work'", "sendq why")
    equal(sink.messages(), [])
    clock.forward(29 * MINUTE)
    equal(q.flush(), 75)
    equal(sink.messages(), [])
    clock.forward(2 * MINUTE)
    later = q.submit(message("carol@example.test", "younger than that"))
    equal(q.flush(), 75)
    equal(q.states(first), {"bob@example.test": "sent"})
    equal(q.states(later), {"carol@example.test": "queued"})
    equal(fell_back(q, first), "work")
    equal(fell_back(q, later), "home")
    equal([a["route"] for a in q.attempts(first)][-1], "work")
    row, = q.sent()
    equal(row["route"], "work")
    octets, = sink.messages()
    equal(len(octets), q.get(first)["size"])
    sink.stop()


@test("fallback: the daemon takes it by itself, when the time has come, for a route that refuses the login")
def fallback_by_itself(scene):
    sink = links.Sink(scene.folder + "/itself")
    refusing = Scripted({"AUTH": "535 5.7.8 no"})
    q, clock = scene.sendq(plain(refusing.port, "home", user="ann", password="x", auth="PLAIN", fallback="work", fallback_after="30m",
                                 **{"from": ["ann@*"]}), plain(sink.port, "work"))
    number = q.submit(message("bob@example.test", "by itself"))
    q.daemon()
    until(lambda: q.attempts(number) and q.attempts(number)[-1]["ended_ms"], 20, "a first try")
    clock.forward(31 * MINUTE)
    q.poke()
    until(lambda: q.states(number) == {"bob@example.test": "sent"}, 20, "acceptance by the fallback")
    equal(fell_back(q, number), "work")
    q.stop_daemon()
    refusing.stop()
    sink.stop()


@test("fallback: old mail of a server that let us in a moment ago waits for it first")
def fallback_not_at_once(scene):
    sink, busy = links.Sink(scene.folder + "/moment"), Scripted({"RCPT": "450 4.2.1 later"})
    home = dict(fallback="work", fallback_after="30m", **{"from": ["ann@*"]})
    q, clock = scene.sendq(plain(busy.port, "home", **home), plain(sink.port, "work"))
    number = q.submit(message("bob@example.test", "greylisted"))
    equal(q.flush(), 75)
    clock.forward(40 * MINUTE)
    equal(q.flush(), 75)
    busy.stop()
    q.configure([plain(1, "home", **home), plain(sink.port, "work")])
    for _ in range(2):
        clock.forward(10 * MINUTE)
        equal(q.flush(), 75)
    equal(fell_back(q, number), "home")
    clock.forward(11 * MINUTE)
    equal(q.flush(), 0)
    equal(fell_back(q, number), "work")
    equal(len(sink.messages()), 1)
    sink.stop()


@test("fallback: while neither server is there nothing is moved, and the first that is back takes the mail")
def fallback_both_down(scene):
    sink = links.Sink(scene.folder + "/both")
    q, clock = scene.sendq(plain(1, "home", fallback="work", fallback_after="10m"), plain(2, "work"))
    number = q.submit(message("bob@example.test", "both down"))
    clock.forward(20 * MINUTE)
    equal(q.flush(), 75)
    clock.forward(20 * MINUTE)
    equal(q.flush(), 75)
    equal(fell_back(q, number), "home")
    q.configure([plain(sink.port, "home", fallback="work", fallback_after="10m"), plain(2, "work")])
    equal(q.flush(), 0)
    equal(q.sent()[0]["route"], "home")
    sink.stop()


@test("fallback: what is in doubt stays where it is")
def fallback_not_in_doubt(scene):
    sink, other = links.Sink(scene.folder + "/doubtful"), links.Sink(scene.folder + "/other")
    link = links.BadLink(scene.folder, sink.port)
    home = dict(fallback="work", fallback_after="10m", **{"from": ["ann@*"]})
    q, clock = scene.sendq(plain(link.port, "home", **home), plain(other.port, "work"))
    link.set("* final=cut times=1")
    number = q.submit(message("bob@example.test", "doubtful"))
    equal(q.flush(), 75)
    equal(q.states(number), {"bob@example.test": "doubt"})
    q.configure([plain(1, "home", **home), plain(other.port, "work")])
    for _ in range(3):
        clock.forward(20 * MINUTE)
        equal(q.flush(), 75)
    equal(q.states(number), {"bob@example.test": "doubt"})
    equal(other.messages(), [])
    equal(fell_back(q, number), "home")
    equal(len(sink.messages()), 1)
    for server in (link, sink, other):
        server.stop()


@test("fallback: killed before the move is committed, the runner finds everything as it was, and sends it once")
def fallback_killed(scene):
    sink = links.Sink(scene.folder + "/killed")
    q, clock = scene.sendq(plain(1, "home", fallback="work", fallback_after="10m", **{"from": ["ann@*"]}), plain(sink.port, "work"))
    number = q.submit(message("bob@example.test", "killed"))
    clock.forward(20 * MINUTE)
    true(q.status("flush", SENDQ_FAULT="runner_rerouted=kill").code < 0, "it was not killed")
    equal(fell_back(q, number), "home")
    equal(q.flush(), 0)
    equal(len(sink.messages()), 1)
    equal(len(q.sent()), 1)
    sink.stop()


if __name__ == "__main__":
    main(Scene)
