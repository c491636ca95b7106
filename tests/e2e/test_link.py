#!/usr/bin/python3
"""What sendq does with a link that it has come to know: order, start rule, patience, and who pays for a bad one."""
import os
import socket
import sys
import time

from harness import links, process, sendq
from harness.sendq import message
from harness.tap import equal, holds, main, note, test, true, until

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fake"))
import scripted  # noqa: E402

MINUTE, HOUR = 60 * 1000, 3600 * 1000


class Scene:
    def __init__(self):
        self.folder = process.temp_folder("link")
        self.n = 0
        self.open = []

    def place(self):
        self.n += 1
        path = os.path.join(self.folder, "t%d" % self.n)
        os.mkdir(path)
        return path

    def sendq(self, rules="", sink_options=(), route=None, **settings):
        """A sendq, the link it sends over, and the sink behind that."""
        folder = self.place()
        sink = links.Sink(folder, *sink_options)
        link = links.BadLink(folder, sink.port, rules)
        q = sendq.Sendq(folder, [sendq.route("smtp://127.0.0.1:%d" % link.port, tls="none", **(route or {}))], **settings)
        self.open += [sink, link]
        return q, link, sink

    def stop(self):
        for thing in self.open:
            thing.stop()


def body(octets):
    return ("x" * 75 + "\n") * (octets // 76)


def waits(q, number):
    return q.get(number)["recipients"][0]["waits"]


@test("a large message is not begun for ever on a link that breaks: it waits for a better one, says so, and small mail goes", 240)
def start_rule(scene):
    q, link, sink = scene.sendq("* cut=up:300000")
    q.clock(0)
    large = q.submit(message("large@example.test", "large", body(5000000)))
    q.daemon()
    tries = 0
    for step in range(1, 40):
        until(lambda: waits(q, large) == "better_link" or len(link.records()) > tries, 30, "try %d" % step)
        tries = len(link.records())
        if waits(q, large) == "better_link":
            break
        until(lambda: q.get(large)["recipients"][0]["state"] == "queued", 30, "it broke")
        q.clock(step * 31 * MINUTE)
        until(lambda: waits(q, large) == "better_link" or len(link.records()) > tries, 30, "the next thing")
    note("%d attempts, then it waits" % tries)
    equal(waits(q, large), "better_link")
    true(2 <= tries <= 5, "%d attempts" % tries)
    why = q.status("why", large).out
    for word in ("waits for a better link", "chance of", "sendq flush " + large):
        holds(why, word, "sendq why")
    holds(q.status("list").out, "waits for a better link", "sendq list")
    small = q.submit(message("small@example.test", "small"))
    q.wait(small, "sent")
    equal(q.states(large), {"large@example.test": "queued"})
    # A person may force it.
    before = len(link.records())
    equal(q.flush(large), 75)
    until(lambda: len(link.records()) > before, 20, "the forced attempt")
    until(lambda: q.get(large)["recipients"][0]["state"] == "queued", 20, "it broke again")
    # It survives a restart, and six hours later it is tried by itself.
    q.stop_daemon()
    q.clock((step + 1) * 31 * MINUTE)
    q.daemon()
    until(lambda: waits(q, large) == "better_link", 20, "it waits again")
    before = len(link.records())
    link.set("")
    q.clock((step + 1) * 31 * MINUTE + 6 * HOUR + 10 * MINUTE)
    q.wait(large, "sent")
    equal(q.stop_daemon(), 0)


@test("where the server keeps what came before a cut, an even chance is asked for")
def partial(scene):
    q, link, sink = scene.sendq("* cut=up:300000", route={"keeps_partial": "yes"})
    q.clock(0)
    number = q.submit(message("p@example.test", "partial", body(2000000)))
    equal(q.flush(), 75)
    q.daemon()
    until(lambda: q.get(number)["recipients"][0]["waits"] in ("better_link", "partial") or q.clock(20 * MINUTE), 30, "it waits")
    note(q.status("why", number).out)
    holds(q.status("why", number).out, "waits for a better link")
    q.stop_daemon()


@test("a small message goes at once beside a large one that takes long, on a connection of its own")
def small_beside_large(scene):
    q, link, sink = scene.sendq("* rate=60000")
    q.daemon()
    large = q.submit(message("large@example.test", "large", body(4000000)))
    # Once its speed is known.
    until(lambda: q.json("links") and q.json("links")[0]["goodput_bps"] > 0, 40, "the speed of the link", pause=0.2)
    began = time.monotonic()
    small = q.submit(message("small@example.test", "small"))
    q.wait(small, "sent", 15)
    note("sent after %.1f s" % (time.monotonic() - began))
    equal(q.states(large), {"large@example.test": "sending"}, "the large one goes on")
    other = q.submit(message("other@example.test", "as large", body(4000000)))
    until(lambda: q.get(large)["recipients"][0]["acked_octets"] > 500000, 40, "it goes on", pause=0.2)
    equal(q.states(other), {"other@example.test": "queued"}, "another large one waits for its turn")
    q.stop_daemon()


@test("small mail goes first, however long the large one has been there")
def small_first(scene):
    q, link, sink = scene.sendq()
    sizes = (3000000, 1000, 200000, 50000, 2000000, 3000)
    for n, size in enumerate(sizes):
        q.submit(message("m%d@example.test" % n, "m", body(size)))
    equal(q.flush(), 0)
    got = [r["to"][0] for r in sink.records()]
    want = ["m%d@example.test" % n for n, _ in sorted(enumerate(sizes), key=lambda p: p[1])]
    # The oldest has a fifth of the octets: that one alone may come before its turn.
    rest = [m for m in got if m != "m0@example.test"]
    equal(rest, [m for m in want if m != "m0@example.test"])


@test("an idle daemon with mail that waits does not wake up")
def no_wakeups(scene):
    q, link, sink = scene.sendq("* refuse")
    for n in range(20):
        q.submit(message("u%d@example.test" % n, "idle"))
    daemon = q.daemon()
    until(lambda: q.json("links") and q.json("links")[0]["next_try_ms"] > 0, 20, "the route waits")
    pid = daemon.p.pid

    def switches():
        with open("/proc/%d/status" % pid) as f:
            return int([line for line in f if line.startswith("voluntary_ctxt_switches")][0].split()[1])

    def still():
        before = switches()
        time.sleep(1)
        return switches() == before
    until(still, 15, "it comes to rest")
    before = switches()
    time.sleep(5)
    equal(switches() - before, 0, "wake-ups in 5 s")
    q.stop_daemon()


@test("the route's wait survives a restart of the daemon")
def waits_survive(scene):
    q, link, sink = scene.sendq("* refuse")
    q.submit(message("u@example.test", "wait"))
    q.daemon()
    row = until(lambda: [r for r in q.json("links") if r["next_try_ms"] > 0], 20, "the route waits")[0]
    q.stop_daemon()
    link.set("")
    q.daemon()
    other = q.submit(message("v@example.test", "wait"))
    for command in ("hold", "release"):  # the second is answered in a later round than the first
        equal(q.status(command, other).code, 0)
    row2 = q.json("links")[0]
    equal([row2[k] for k in ("next_try_ms", "cause", "failures")], [row[k] for k in ("next_try_ms", "cause", "failures")])
    equal(link.records()[-1]["end"], "refused", "nothing was tried before its time")
    q.stop_daemon()


@test("a provider's limit pauses the route until its hour, over restarts and new networks; nothing bounces")
def quota(scene):
    folder = scene.place()
    server = scripted.Scripted({"FINAL": ["550 5.4.5 Daily user sending limit exceeded", "250 2.0.0 ok"]})
    q = sendq.Sendq(folder, [sendq.route("smtp://127.0.0.1:%d" % server.port, tls="none")])
    q.clock(0)
    number = q.submit(message("u@example.test", "quota"))
    q.daemon()
    row = until(lambda: [r for r in q.json("links") if r["cause"] == "quota"], 20, "the route is paused")[0]
    equal(q.states(number), {"u@example.test": "queued"})
    true(row["next_try_ms"] - row["last_fail_ms"] > 40 * MINUTE, "it waits %d ms" % (row["next_try_ms"] - row["last_fail_ms"]))
    other = q.submit(message("v@example.test", "quota"))
    q.stop_daemon()
    q.clock(row["next_try_ms"] - int(time.time() * 1000) - 5 * MINUTE)
    q.daemon()
    holds(q.status("why", other).out, "provider's limit", "sendq why")
    equal(len(server.arrived), 1, "nothing was tried while it waits")
    q.clock(row["next_try_ms"] - int(time.time() * 1000) + MINUTE)
    q.wait(other, "sent")
    q.stop_daemon()


class Deaf:
    """Its accept queue is full: the kernel drops every further SYN, as a firewall would."""

    def __init__(self):
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(0)
        self.port = self.listener.getsockname()[1]
        self.callers = []
        while True:
            caller = socket.socket()
            caller.settimeout(0.3)
            self.callers.append(caller)
            try:
                caller.connect(("127.0.0.1", self.port))
            except socket.timeout:
                return

    def stop(self):
        for s in self.callers + [self.listener]:
            s.close()


def black_holes(scene, folder):
    """Nine routes that swallow what they are given: settings by name, and what mail of each looks like while it is stuck."""
    def says(script):
        return {"server": "smtp://127.0.0.1:%d" % scripted.Scripted(script).port}

    hang = scripted.HANG
    deaf, sink = Deaf(), links.Sink(folder)
    far = links.BadLink(folder, sink.port, "* hole=up:3000")
    scene.open += [deaf, far, sink]
    return {
        "silent": (says({"CONNECT": hang}), "sending"), "deaf": ({"server": "smtp://127.0.0.1:%d" % deaf.port}, "sending"),
        "ehlo": (says({"EHLO": hang}), "sending"), "starttls": ({**says({"EHLO": "250 x\n250 STARTTLS", "STARTTLS": ("220 go", hang)}), "tls": None}, "sending"),
        "mail": (says({"MAIL": hang}), "sending"), "data": (says({"BDAT": hang}), "sending"),
        "verdict": (says({"FINAL": hang}), "committing"), "hole": ({"server": "smtp://127.0.0.1:%d" % far.port}, "sending"),
        "secret": ({"server": "smtps://127.0.0.1:1", "tls": None, "user": "u", "password_command": "exec sleep 100"}, "sending"),
    }


@test("ten routes, nine of them black holes: the tenth's mail leaves within a second of submission", 120)
def bad_routes(scene):
    folder = scene.place()
    holes = black_holes(scene, folder)
    equal(len(holes), 9)
    sink = links.Sink(scene.place())
    scene.open.append(sink)
    routes = []
    for name, (settings, _) in holes.items():
        routes.append({k: v for k, v in {"name": name, "tls": "none", "from": name + "@example.test", **settings}.items() if v})
    routes.append(sendq.route("smtp://127.0.0.1:%d" % sink.port, name="well", tls="none"))
    routes[-1]["from"] = "well@example.test"
    q = sendq.Sendq(folder, routes, stop_grace="0")

    def submit(name, octets=20):
        return q.submit(message("to-%s@example.test" % name, sender=name + "@example.test", body=body(octets)))

    def took(number, since=None):
        """From submission (or from `since`) to acceptance, by the ledger."""
        q.wait(number, "sent", 20)
        accepted = [r["accepted_ms"] for r in q.sent() if r["id"] == number]
        return accepted[0] - (since or q.get(number)["submitted_ms"])

    def leaves(number, when, since=None):
        ms = took(number, since)
        note("%s: %d ms" % (when, ms))
        true(ms < 1000, "%s: the tenth's mail left after %d ms" % (when, ms))

    # All are there before the daemon is, the good one last; five of each.
    stuck = {}
    for name in holes:
        stuck[name] = [submit(name, 20000) for _ in range(3)][0]
    first = submit("well")
    began = int(time.time() * 1000)
    q.daemon()
    leaves(first, "at the start of the daemon", began)
    for name, (_, state) in holes.items():
        until(lambda: state in q.states(stuck[name]).values(), 30, "mail of %s is %s, not %s" % (name, q.states(stuck[name]), state))
    for n in range(3):
        leaves(submit("well"), "while nine hang (%d)" % n)
    # And beside new mail for the bad ones.
    for name in holes:
        submit(name)
    leaves(submit("well"), "behind new mail for the nine")
    equal(len([r for r in sink.records() if r["to"]]), 5)
    equal([m for m in q.list(all=True) if m["recipients"][0]["state"] == "sent" and m["from"] != "well@example.test"], [])
    q.stop_daemon()


if __name__ == "__main__":
    main(Scene, Scene.stop)
