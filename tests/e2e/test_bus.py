#!/usr/bin/python3
"""What the machine's services say on the system bus: sign-ins of networks, sleep.

A bus of the test's own, with python3-dbusmock's NetworkManager and login1 on
it; a real Postfix. It has an address that no one could take for this machine's
own by its looks, in a network namespace of the test's (as root).
"""
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

from harness import certs, links, process, sendq
from harness.bus import FULL, LIMITED, LOGIN_MANAGER, LOGIN_PATH, NM, NM_PATH, NONE, PORTAL, UNKNOWN, Bus
from harness.postfix import Postfix
from harness.sendq import message
from harness.tap import Skip, equal, holds, main, note, test, true, until

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fake"))
import scripted  # noqa: E402

CLONE_NEWNET = 0x40000000
AWAY = "10.77.0.1"
SLOW = "10.77.0.2"
SIGN_IN = "the network asks for a sign-in (captive portal)"


def ip(*args):
    subprocess.run(("ip",) + args, check=True, stdout=subprocess.DEVNULL)


class Scene:
    def __init__(self):
        self.folder = process.temp_folder("bus")
        self.bus = Bus(self.folder)
        if os.geteuid() != 0 or ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
            raise Skip("no network namespace can be made")
        ip("link", "set", "lo", "up")
        for address in (AWAY, SLOW):
            ip("addr", "add", address + "/32", "dev", "lo")
        self.certs = certs.Certs(self.folder)
        self.port = process.free_port()
        # Two seconds between the end of a message and the answer, on the second address.
        options = "-o mynetworks=10.0.0.0/8"
        self.postfix = Postfix(self.folder, self.certs, services="%s:%d inet n - n - - smtpd %s\n%s:%d inet n - n - - smtpd %s %s\n" % (
            AWAY, self.port, options, SLOW, self.port, options, "-o smtpd_end_of_data_restrictions=sleep,2"))
        self.bus.start()
        self.n = 0
        self.users = 0

    def place(self):
        self.n += 1
        path = os.path.join(self.folder, "t%d" % self.n)
        os.mkdir(path)
        return path

    def user(self):
        self.users += 1
        return "u%03d" % self.users

    def sendq(self, *routes, bus=None, **settings):
        q = sendq.Sendq(self.place(), list(routes), **settings)
        q.extra_env["DBUS_SYSTEM_BUS_ADDRESS"] = bus or self.bus.address
        return q

    def away(self, address=AWAY, **more):
        return sendq.route("smtp://%s:%d" % (address, self.port), tls="none", **more)

    def daemon(self, q):
        """… that is on the bus and has heard of the network."""
        q.daemon()
        until(lambda: "NetworkManager connectivity" in q.log(), 20, "it hears of the network")

    def stop(self):
        self.bus.stop()
        self.postfix.stop()


def children(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
        return [int(child) for child in f.read().split()]


def switches(pid):
    """How often it has gone to sleep."""
    with open("/proc/%d/status" % pid) as f:
        return int([line for line in f if line.startswith("voluntary_ctxt_switches")][0].split()[1])


def at_rest(pid):
    """No wake-up in a second, once its sessions are over."""
    def still():
        before = switches(pid)
        time.sleep(0.3)
        return switches(pid) == before
    until(lambda: not children(pid), 15, "its sessions end")
    until(still, 15, "it comes to rest")
    before = switches(pid)
    time.sleep(1)
    equal(switches(pid) - before, 0, "wake-ups in a second")


@test("while the network asks for a sign-in nothing is tried on it, and people see why; then it goes at once")
def portal(scene):
    q = scene.sendq(scene.away(**{"from": ["ann@example.test"]}),
                    sendq.route("smtp://127.0.0.1:%d" % scene.postfix.port, "here", tls="none"))
    scene.bus.connectivity(PORTAL)
    scene.daemon(q)
    user, near = scene.user(), scene.user()
    number = q.submit(message(user + "@example.test", "held"))
    other = q.submit(message(near + "@example.test", "local", sender="bob@example.test"))
    q.wait(other, "sent", 20)
    equal(q.states(number), {user + "@example.test": "queued"})
    equal(q.attempts(number), [], "attempts")
    holds(q.status("why", number).out, SIGN_IN)
    holds(q.status("links").out, SIGN_IN)
    holds(q.status().out, SIGN_IN)
    row, = [r for r in q.json("links") if r["route"] == "home"]
    equal((row["cause"], row["stopped"], row["connects"] + row["connect_failures"]), ("portal", False, 0))
    true(all(r["cause"] is None for r in q.json("links") if r["route"] == "here"), "the local route waits for nothing")
    at_rest(q.pid())
    began = time.monotonic()
    scene.bus.connectivity(FULL)
    q.wait(number, "sent", 20)
    note("sent %.2f s after the sign-in" % (time.monotonic() - began))
    equal(len(scene.postfix.settled(user, 1)), 1)
    true("sign-in" not in q.status("links").out, "nothing is said of it any more")
    q.stop_daemon()


@test("a flush tries regardless of a sign-in; where it gets through, so does what follows")
def regardless(scene):
    port = process.free_port()
    q = scene.sendq(sendq.route("smtp://%s:%d" % (AWAY, port), tls="none"))
    scene.bus.connectivity(PORTAL)
    scene.daemon(q)
    first = q.submit(message("u@example.test", "first"))
    equal(q.flush(), 75)
    equal([a["outcome"] for a in q.attempts(first)], ["unreachable"], "attempts")
    server = scripted.Scripted(host=AWAY, port=port)
    second = q.submit(message("u@example.test", "second"))
    holds(q.status("why", second).out, SIGN_IN)
    equal(q.attempts(second), [], "attempts without being asked")
    equal(q.flush(), 0)
    q.wait(first, "sent", 20)
    q.wait(q.submit(message("u@example.test", "third")), "sent", 20)
    # Asked for anew: whoever got through before may not now.
    scene.bus.connectivity(LIMITED)
    until(lambda: "no more" in q.log(), 20, "it hears of that")
    scene.bus.connectivity(PORTAL)
    until(lambda: q.log().count("its routes wait") == 2, 20, "and of that")
    fourth = q.submit(message("u@example.test", "fourth"))
    holds(q.status("why", fourth).out, SIGN_IN)
    # Killed, it holds nothing any more, nor does anybody say so.
    q.stop_daemon(signal.SIGKILL)
    true(q.sql("SELECT portal_ms FROM network ORDER BY seq DESC LIMIT 1")[0][0] > 0, "the queue has the word of the dead")
    true("sign-in" not in q.status("why", fourth).out, "nobody repeats it")
    scene.bus.stop_network()
    q.daemon()
    q.wait(fourth, "sent", 20)
    equal(len(server.messages), 4)
    q.stop_daemon()
    equal(q.sql("SELECT portal_ms FROM network ORDER BY seq DESC LIMIT 1"), [(0,)])
    scene.bus.start_network()


@test("a network that asks for a sign-in for ever: an attempt in half an hour, and no more than that")
def mistaken(scene):
    port = process.free_port()
    q = scene.sendq(sendq.route("smtp://%s:%d" % (AWAY, port), tls="none"))
    q.clock(0)
    scene.bus.connectivity(PORTAL)
    scene.daemon(q)
    number = q.submit(message("u@example.test", "mistaken"))
    holds(q.status("why", number).out, SIGN_IN)
    for minutes, attempts in ((29, 0), (31, 1), (59, 1)):
        q.clock(minutes * 60000)
        until(lambda: len([a for a in q.attempts(number) if a["ended_ms"]]) == attempts, 20, "attempts")
        at_rest(q.pid())
        equal(len(q.attempts(number)), attempts, "attempts after %d minutes" % minutes)
    holds(q.status("why", number).out, SIGN_IN)
    server = scripted.Scripted(host=AWAY, port=port)
    q.clock(62 * 60000)
    q.wait(number, "sent", 20)
    q.wait(q.submit(message("u@example.test", "next")), "sent", 20)
    equal(len(server.messages), 2)
    q.stop_daemon()
    scene.bus.connectivity(FULL)


@test("no other answer holds mail, nor does NetworkManager going away")
def others(scene):
    q = scene.sendq(scene.away())
    scene.bus.connectivity(PORTAL)
    scene.daemon(q)
    for n, answer in enumerate((UNKNOWN, NONE, LIMITED, None)):
        number = q.submit(message("%s@example.test" % scene.user(), "answer %r" % answer))
        until(lambda: q.log().count("its routes wait") == n + 1, 20, "the network asks for a sign-in")
        holds(q.status("why", number).out, SIGN_IN)
        if answer is None:
            scene.bus.stop_network()
        else:
            scene.bus.connectivity(answer)
        q.wait(number, "sent", 20)
        if answer is None:
            scene.bus.start_network()
        else:
            scene.bus.connectivity(PORTAL)
    q.stop_daemon()
    scene.bus.connectivity(FULL)


@test("when the network is whole again, certificates and servers that failed are tried anew")
def whole(scene):
    ca = os.path.join(scene.place(), "ca.pem")
    port = process.free_port()

    def trust(path):
        with open(path) as f, open(ca, "w") as out:
            out.write(f.read())
    trust(os.path.join(scene.folder, "stranger.pem"))
    secure = scripted.Scripted(certs=scene.certs, implicit=True)
    q = scene.sendq(sendq.route("smtps://127.0.0.1:%d" % secure.port, ca_file=ca, **{"from": ["ann@example.test"]}),
                    sendq.route("smtp://127.0.0.1:%d" % port, "closed", tls="none"))
    q.clock(0)
    scene.daemon(q)
    tls = q.submit(message("u@example.test", "certificate"))
    closed = q.submit(message("u@example.test", "unreachable", sender="bob@example.test"))
    rows = until(lambda: [r for r in q.json("links") if r["failures"] == 1][1:] and q.json("links"), 20, "both failed")
    equal({r["route"]: (r["cause"], r["stopped"]) for r in rows}, {"home": ("certificate", True), "closed": ("unreachable", False)})
    # What they failed by is mended, of which nobody tells the daemon.
    trust(scene.certs.ca)
    server = scripted.Scripted(port=port)
    for answer in (LIMITED, NONE):
        scene.bus.connectivity(answer)
        until(lambda: "connectivity=%d" % answer in q.log(), 20, "it hears of that")
    equal({r["route"]: r["failures"] for r in q.json("links")}, {"home": 1, "closed": 1})
    equal(len(q.attempts(tls)) + len(q.attempts(closed)), 2, "attempts")
    scene.bus.connectivity(FULL)
    q.wait(closed, "sent", 20)
    q.wait(tls, "sent", 20)
    equal(len(secure.messages + server.messages), 2)
    q.stop_daemon()


def going(scene, q, ids):
    """Say so once all of these are in commit."""
    until(lambda: all(set(q.states(i).values()) == {"committing"} for i in ids), 20, "in commit")
    until(lambda: scene.bus.inhibitors(), 20, "sleep is delayed")
    scene.bus.sleep(True)
    until(lambda: "about to sleep" in q.log(), 20, "it hears of that")


@test("before the machine sleeps an answer is waited for, a transfer is let go, and nothing begins; awake, all goes on")
def sleep(scene):
    folder = scene.place()
    link = links.BadLink(folder, scene.postfix.port, "* rate=20000")
    q = scene.sendq(scene.away(SLOW, **{"from": ["ann@example.test"]}),
                    sendq.route("smtp://127.0.0.1:%d" % link.port, "slow", tls="none", **{"from": ["bob@example.test"]}),
                    sendq.route("smtp://127.0.0.1:%d" % scene.postfix.port, "here", tls="none"))
    scene.daemon(q)
    equal(scene.bus.inhibitors(), [], "delays while idle")
    users = [scene.user() for _ in range(3)]
    large = q.submit(message(users[1] + "@example.test", "large", ("x" * 75 + "\n") * 20000, sender="bob@example.test"))
    until(lambda: q.get(large)["recipients"][0]["acked_octets"] > 0, 20, "content goes")
    number = q.submit(message(users[0] + "@example.test", "in commit"))
    going(scene, q, [number])
    equal(scene.bus.inhibitors(), [("sleep", "sendq", "A message is being sent", "delay")])
    third = q.submit(message(users[2] + "@example.test", "new", sender="carol@example.test"))
    until(lambda: q.states(large) == {users[1] + "@example.test": "queued"}, 4, "the transfer is let go")
    equal(q.attempts(large)[0]["outcome"], "cancelled")
    equal(q.states(number), {users[0] + "@example.test": "committing"})
    true(scene.bus.inhibitors(), "sleep waits for the answer")
    q.wait(number, "sent", 10)
    until(lambda: not scene.bus.inhibitors(), 3, "sleep may come")
    equal(q.states(third), {users[2] + "@example.test": "queued"})
    equal(q.attempts(third) + q.attempts(large)[1:], [], "attempts meanwhile")
    link.set("")
    scene.bus.sleep(False)
    for n in (third, large):
        q.wait(n, "sent", 30)
    # Of the transfer that was let go its proxy still has some to give: the server's own queue is not empty yet.
    until(lambda: [len(scene.postfix.delivered(user)) for user in users] == [1, 1, 1], 30, "one copy each")
    until(lambda: not scene.bus.inhibitors(), 10, "no delay while idle")
    q.stop_daemon()
    link.stop()


@test("an answer that does not come delays sleep by five seconds; the message is neither lost nor sent twice")
def no_answer(scene):
    answers = threading.Event()

    def final(session, line):
        answers.wait(60)
        return "250 2.0.0 ok"
    server = scripted.Scripted({"FINAL": final})
    q = scene.sendq(sendq.route("smtp://127.0.0.1:%d" % server.port, tls="none"))
    q.clock(0)
    scene.daemon(q)
    number = q.submit(message("u@example.test", "no answer"))
    began = time.monotonic()
    going(scene, q, [number])
    until(lambda: not scene.bus.inhibitors(), 20, "sleep may come")
    waited = time.monotonic() - began
    note("let go after %.1f s" % waited)
    true(4.5 < waited < 10, "it waited %.1f s" % waited)
    equal(q.states(number), {"u@example.test": "committing"})
    # Longer than an answer is waited for; but asleep nobody is heard.
    q.clock(0, 11 * 60 * 1000)
    scene.bus.sleep(False)
    until(lambda: scene.bus.inhibitors(), 20, "the lock is taken again for what is still in commit")
    agent, = children(q.pid())
    before = switches(agent)
    until(lambda: not children(q.pid()) or switches(agent) - before > 3, 20, "three looks at the connection")
    equal(q.states(number), {"u@example.test": "committing"})
    answers.set()
    q.wait(number, "sent", 20)
    equal(len(server.messages), 1)
    q.stop_daemon()


@test("a login1 that lets nobody delay sleep is asked once for each time that something is under way")
def refused(scene):
    answers = threading.Event()
    server = scripted.Scripted({"FINAL": lambda session, line: answers.wait(60) and "250 2.0.0 ok"})
    q = scene.sendq(sendq.route("smtp://127.0.0.1:%d" % server.port, tls="none"))
    asked = scene.bus.refuse_delays()
    scene.daemon(q)
    number = q.submit(message("u@example.test", "no delay"))
    until(asked, 20, "it asks")
    until(lambda: "sleep cannot be delayed" in q.log(), 20, "it hears the answer")
    # Each goes by the same service, behind whatever is asked there meanwhile.
    equal([asked() for _ in range(100)], [1] * 100)
    answers.set()
    q.wait(number, "sent", 20)
    q.stop_daemon()
    scene.bus.stop()
    scene.bus.start()


@test("a daemon that sleeps for ever by the word of login1 is awake after two minutes, and when that is gone")
def login_gone(scene):
    q = scene.sendq(scene.away())
    q.clock(0)
    scene.daemon(q)
    scene.bus.sleep(True)
    until(lambda: "about to sleep" in q.log(), 20, "it hears of that")
    number = q.submit(message(scene.user() + "@example.test", "awake"))
    q.clock(119000)
    equal(q.status("hold", number).code + q.status("release", number).code, 0)  # it has been round its loop
    equal(q.attempts(number), [], "attempts")
    q.clock(121000)
    q.wait(number, "sent", 20)
    q.stop_daemon()
    scene.daemon(q)
    scene.bus.sleep(True)
    until(lambda: "about to sleep" in q.log(), 20, "it hears of that")
    number = q.submit(message(scene.user() + "@example.test", "awake"))
    equal(q.attempts(number), [], "attempts")
    scene.bus.stop()
    q.wait(number, "sent", 20)
    q.stop_daemon()
    scene.bus.start()


@test("who does not own the names is not heard")
def forged(scene):
    import dbus
    q = scene.sendq(scene.away())
    scene.daemon(q)
    to = until(lambda: scene.bus.name_of(q.pid()), 20, "it is on the bus")
    scene.bus.forge(to, LOGIN_PATH, LOGIN_MANAGER, "PrepareForSleep", "b", True)
    scene.bus.forge(to, NM_PATH, "org.freedesktop.DBus.Properties", "PropertiesChanged", "sa{sv}as", NM,
                    {"Connectivity": dbus.UInt32(PORTAL, variant_level=1)}, [])
    scene.bus.connectivity(LIMITED)  # behind them, and heard
    until(lambda: "connectivity=3" in q.log(), 20, "it hears of that")
    q.wait(q.submit(message(scene.user() + "@example.test", "forged")), "sent", 20)
    true("sleep" not in q.log() and "sign-in" not in q.log(), "it was taken in")
    q.stop_daemon()
    scene.bus.connectivity(FULL)


@test("without a bus mail goes; one that comes, dies and comes back is heard, and nobody asks for it meanwhile")
def comes_and_goes(scene):
    q = scene.sendq(scene.away(), bus="unix:path=" + os.path.join(scene.place(), "later"))
    bus = Bus(os.path.join(scene.folder, "t%d" % scene.n))
    q.extra_env["DBUS_SYSTEM_BUS_ADDRESS"] = bus.address
    q.daemon()
    q.wait(q.submit(message(scene.user() + "@example.test", "no bus")), "sent", 20)
    at_rest(q.pid())
    bus.start(PORTAL)
    until(lambda: "its routes wait" in q.log(), 20, "the bus is heard")
    true(bus.name_of(q.pid()), "by the daemon itself")
    held = q.submit(message(scene.user() + "@example.test", "held"))
    holds(q.status("why", held).out, SIGN_IN)
    at_rest(q.pid())
    bus.stop(signal.SIGKILL)
    q.wait(held, "sent", 20)
    true(os.path.exists(bus.path), "the dead bus's socket is there")
    until(lambda: "Connection refused" in q.log(), 20, "it knows")
    at_rest(q.pid())
    bus.start(PORTAL)
    until(lambda: q.log().count("its routes wait") == 2, 20, "it is heard again")
    q.stop_daemon()
    bus.stop()


@test("an address of no bus, and a bus that lets nobody in, hold nothing up")
def no_bus(scene):
    place = scene.place()
    deaf = os.path.join(place, "deaf")
    import socket
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(deaf)
    listener.listen()
    for address in ("nonsense", "unix:path=" + deaf, "unix:path=/nonexistent/folder/bus"):
        q = scene.sendq(scene.away(), bus=address)
        began = time.monotonic()
        q.daemon()
        at_rest(q.pid())
        q.wait(q.submit(message(scene.user() + "@example.test", "no bus")), "sent", 20)
        true(time.monotonic() - began < 10, "it took %.1f s" % (time.monotonic() - began))
        q.stop_daemon()
    listener.close()


if __name__ == "__main__":
    main(Scene, Scene.stop)
