#!/usr/bin/python3
"""The world ends waits: networks come and go, machines wake up, files change.

Runs in a network namespace of its own (as root), so that addresses and routes
can be made up; nothing outside sees them.
"""
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time

from harness import links, process, sendq
from harness.sendq import message
from harness.tap import Skip, equal, holds, main, note, test, true, until

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fake"))
import scripted  # noqa: E402

CLONE_NEWNET = 0x40000000


def ip(*args):
    subprocess.run(("ip",) + args, check=True, stdout=subprocess.DEVNULL)


class Scene:
    def __init__(self):
        if os.geteuid() != 0 or ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
            raise Skip("no network namespace can be made")
        ip("link", "set", "lo", "up")
        self.folder = process.temp_folder("world")
        self.n = 0

    def place(self):
        self.n += 1
        path = os.path.join(self.folder, "t%d" % self.n)
        os.mkdir(path)
        return path

    def away(self, **script):
        """A server with an address that this machine does not have yet, and a sendq that wants to reach it."""
        self.n += 1
        address = "10.77.%d.1" % self.n
        server = scripted.Scripted(script, host="0.0.0.0")
        q = sendq.Sendq(self.place(), [sendq.route("smtp://%s:%d" % (address, server.port), tls="none")])
        return q, server, address

    def interface(self, name):
        """A made-up interface, gone at the end of the test's with block."""
        return Interface(name)

    def stop(self):
        pass


class Interface:
    def __init__(self, name):
        self.name = name

    def __enter__(self):
        ip("link", "add", self.name, "type", "veth", "peer", "name", self.name + "p")
        ip("link", "set", self.name, "up")
        ip("link", "set", self.name + "p", "up")
        return self

    def address(self, address):
        ip("addr", "add", address + "/24", "dev", self.name)

    def gateway(self, address):
        ip("route", "replace", "default", "via", address, "dev", self.name)

    def __exit__(self, *_):
        ip("link", "del", self.name)


def rounds(q, number):
    """The daemon has been round its loop: each request is answered in a round."""
    for command in ("hold", "release"):
        equal(q.status(command, number).code, 0)


@test("mail that waits because there is no network goes as soon as an address comes")
def address_comes(scene):
    q, server, address = scene.away()
    number = q.submit(message("u@example.test", "offline"))
    q.daemon()
    row = until(lambda: [r for r in q.json("links") if r["next_try_ms"] > 0], 20, "the route waits")[0]
    true(row["next_try_ms"] - row["last_fail_ms"] > 20000, "it would wait for %d ms" % (row["next_try_ms"] - row["last_fail_ms"]))
    equal(row["state"], "down")
    attempts = q.attempts(number)
    began = time.monotonic()
    with scene.interface("net0") as i:
        i.address(address)
        q.wait(number, "sent", 15)
        note("sent %.2f s after the address came" % (time.monotonic() - began))
    equal(len(server.messages), 1)
    note("attempts before: %r" % [(a["outcome"], a["phase"]) for a in attempts])
    q.stop_daemon()


@test("a default route that comes ends the wait too; one that only goes does not")
def route_comes(scene):
    with scene.interface("net0") as i:
        i.address("10.9.0.2")
        q, server, address = scene.away()
        number = q.submit(message("u@example.test", "no route"))
        q.daemon()
        until(lambda: [r for r in q.json("links") if r["next_try_ms"] > 0], 20, "the route waits")
        tries = q.json("links")[0]["connect_failures"]
        i.gateway("10.9.0.1")
        until(lambda: sum(r["connect_failures"] for r in q.json("links")) + len(
            [a for a in q.attempts(number) if a["ended_ms"] == 0]) > tries, 20, "another attempt")
        q.stop_daemon()
        network = q.sql("SELECT id FROM network ORDER BY seq DESC LIMIT 1")
        equal(len(network[0][0]), 16, "a fingerprint")
        true("10.9.0.1" not in str(q.sql("SELECT * FROM network")), "the gateway's address is stored only as a hash")


@test("what was learned of a link belongs to its network; a large message gets its try on a new one")
def networks(scene):
    folder = scene.place()
    sink = links.Sink(folder)
    link = links.BadLink(folder, sink.port, "* cut=up:300000")
    q = sendq.Sendq(folder, [sendq.route("smtp://127.0.0.1:%d" % link.port, tls="none")])
    q.clock(0)
    with scene.interface("net0") as i, scene.interface("net1") as k:
        i.address("10.9.0.2")
        k.address("10.10.0.2")
        i.gateway("10.9.0.1")
        number = q.submit(message("u@example.test", "large", ("x" * 75 + "\n") * 70000))
        q.daemon()
        for step in range(1, 30):
            if until(lambda: q.get(number)["recipients"][0]["waits"] == "better_link" or
                     (q.get(number)["recipients"][0]["waits"] == "link" and "again"), 30, "it breaks") is True:
                break
            q.clock(step * 31 * 60000)
        equal(q.get(number)["recipients"][0]["waits"], "better_link")
        tries = len(link.records())
        first = q.json("links")
        equal(len(first), 1, "links")
        equal(first[0]["state"], "poor")
        k.gateway("10.10.0.1")
        until(lambda: len(link.records()) > tries, 20, "an attempt on the new network")
        rows = until(lambda: [r for r in q.json("links") if r["network"] != first[0]["network"]], 20, "a row for it")
        equal(rows[0]["cuts"], 1, "the new network has its own figures")
        equal(len({r["network"] for r in q.json("links")}), 2)
        # Back: nothing is new here.
        until(lambda: q.get(number)["recipients"][0]["state"] == "queued", 20, "it broke")
        i.gateway("10.9.0.1")
        until(lambda: q.sql("SELECT id FROM network ORDER BY seq DESC LIMIT 1")[0][0] == first[0]["network"], 20, "back")
        q.stop_daemon()
    sink.stop()
    link.stop()


@test("a login that stopped the route is tried again when the password file changes, by writing or by replacing", 60)
def secret_changes(scene):
    for replace in (False, True):
        folder = scene.place()
        server = scripted.Scripted(users={"ann": "right"})
        secret = os.path.join(folder, "secret")

        def write(text, path):
            with open(path, "w") as f:
                f.write(text)
            os.chmod(path, 0o600)
        write("wrong", secret)
        q = sendq.Sendq(folder, [sendq.route("smtp://127.0.0.1:%d" % server.port, tls="none", user="ann", password_file=secret)])
        q.clock(0)
        number = q.submit(message("u@example.test", "login"))
        q.daemon()
        until(lambda: [r for r in q.json("links") if r["failures"] == 1], 20, "a login failed")
        q.clock(60000)
        until(lambda: [r for r in q.json("links") if r["failures"] == 2], 20, "twice")
        q.clock(3 * 3600000)
        until(lambda: [r for r in q.json("links") if r["stopped"]], 20, "the route is stopped")
        logins = len([c for c in server.commands if c.startswith("AUTH")])
        equal(logins, 3, "logins")
        if replace:
            write("right", secret + ".new")
            os.rename(secret + ".new", secret)
        else:
            write("right", secret)
        q.wait(number, "sent", 15)
        q.stop_daemon()


@test("a changed configuration is read at once, and ends the waits of its routes")
def config_changes(scene):
    folder = scene.place()
    server = scripted.Scripted()
    q = sendq.Sendq(folder, [sendq.route("smtp://127.0.0.1:1", tls="none", password_command="false", user="ann")])
    number = q.submit(message("u@example.test", "config"))
    q.daemon()
    until(lambda: [r for r in q.json("links") if r["cause"] == "secret"], 20, "no password")
    q.configure([sendq.route("smtp://127.0.0.1:%d" % server.port, tls="none")])
    q.wait(number, "sent", 15)
    q.stop_daemon()


@test("waking up from suspend ends the waits that the link earned, not those that a server asked for")
def suspend(scene):
    folder = scene.place()
    sink = links.Sink(folder)
    link = links.BadLink(folder, sink.port, "* refuse")
    later = scripted.Scripted({"RCPT": "451 4.7.1 come back later"})
    q = sendq.Sendq(folder, [sendq.route("smtp://127.0.0.1:%d" % link.port, tls="none", **{"from": ["ann@example.test"]}),
                             sendq.route("smtp://127.0.0.1:%d" % later.port, "later", tls="none")])
    q.clock(0)
    number = q.submit(message("u@example.test", "asleep"))
    other = q.submit(message("u@example.test", "later", sender="bob@example.test"))
    q.daemon()
    until(lambda: [r for r in q.json("links") if r["route"] == "home" and r["next_try_ms"] > 0], 20, "the route waits")
    until(lambda: later.commands and q.get(other)["recipients"][0]["next_try_ms"] > 0 and q.states(other) == {"u@example.test": "queued"}, 20, "deferred")
    link.set("")
    asked = [c for c in later.commands if c.startswith("RCPT")]
    q.clock(0, 3000)
    q.wait(number, "sent", 15)
    holds(q.log(), "awake after a suspend")
    equal([c for c in later.commands if c.startswith("RCPT")], asked, "what the server asked for stays")
    q.stop_daemon()
    sink.stop()
    link.stop()


@test("systemd's socket put in the place of ours while the daemon runs: it hands the queue over, and whom systemd starts gets it")
def handed_over(scene):
    server = scripted.Scripted()
    q = sendq.Sendq(scene.place(), [sendq.route("smtp://127.0.0.1:%d" % server.port, tls="none")])
    first = q.daemon()
    q.submit(message())
    until(lambda: len(server.messages) == 1, 20, "the first message")
    wake = q.queue + ".wake"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        os.kill(first.p.pid, signal.SIGSTOP)
        os.unlink(wake)
        listener.bind(wake)
        second = subprocess.Popen(["bash", "-c", 'exec 3<&%d; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0"' % listener.fileno(), q.bin + "/sendqd"],
                                  env=q.env(), pass_fds=[listener.fileno()], stderr=subprocess.PIPE, preexec_fn=process.die_with_parent)
        holds(next(line for line in second.stderr if b"waiting for another runner" in line or second.poll() is not None).decode(), "waiting for another runner")
        os.kill(first.p.pid, signal.SIGCONT)
        true(select.select([listener], [], [], 20)[0], "nobody is told that there is a queue to take over")
    try:
        equal(first.p.wait(20), 0, "the first daemon's exit")
        q.submit(message())
        until(lambda: len(server.messages) == 2 or second.poll() is not None, 20, "the second message")
        equal(len(server.messages), 2, "messages")
    finally:
        second.terminate()
        _, words = second.communicate(timeout=20)
    equal(second.returncode, 0, words.decode())


if __name__ == "__main__":
    main(Scene, Scene.stop)
