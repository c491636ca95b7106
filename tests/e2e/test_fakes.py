#!/usr/bin/python3
"""The link and the servers that the other tests trust: that they break where they say, and nowhere else."""
import hashlib
import os
import smtplib
import socket
import ssl
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fake"))
from harness import certs, links, process  # noqa: E402
from harness.tap import equal, main, test, true, until  # noqa: E402
from scripted import SCENARIOS, Scripted  # noqa: E402

BODY = "Subject: x\r\n\r\n.dot\r\n..\r\nhello\r\n" + "x" * 50000 + "\r\n"


class Scene:
    def __init__(self):
        self.folder = process.temp_folder("fakes")
        self.certs = certs.Certs(self.folder)
        self.sink = links.Sink(self.folder)
        self.link = links.BadLink(self.folder, self.sink.port)
        self.seen = 0

    def send(self, rules):
        """One message under these rules: (accepted, the link's record, messages that the sink took)."""
        self.link.set(rules)
        before = len(self.sink.records())
        try:
            server = smtplib.SMTP("127.0.0.1", self.link.port, timeout=3)
            try:
                server.sendmail("a@b.test", ["c@d.test", "e@f.test"], BODY)
                accepted = True
            finally:
                server.close()
        except (OSError, smtplib.SMTPException):
            accepted = False
        self.seen += 1
        record = until(lambda: self.link.records()[self.seen - 1:], 10)[0]
        return accepted, record, len(self.sink.records()) - before

    def stop(self):
        self.link.stop()
        self.sink.stop()


@test("a good link changes no octet")
def good(scene):
    accepted, record, taken = scene.send("")
    equal((accepted, taken, record["terminators"]), (True, 1, 1))
    equal(scene.sink.messages()[-1], BODY.encode())
    equal(scene.sink.records()[-1]["sha256"], hashlib.sha256(BODY.encode()).hexdigest())
    equal(scene.sink.records()[-1]["to"], ["c@d.test", "e@f.test"])


@test("it breaks behind exactly the octets it was told, either way")
def exact(scene):
    for octets in (0, 1, 57, 1000, 30001):
        accepted, record, taken = scene.send("* cut=up:%d" % octets)
        equal((accepted, record["up"], record["end"], taken), (False, octets, "cut-up", 0))
    for octets in (0, 1, 15, 60):
        accepted, record, taken = scene.send("* cut=down:%d with=fin" % octets)
        equal((accepted, record["down"], record["end"], taken), (False, octets, "cut-down", 0))


@test("the final reply is lost, the message is there; so many times and no more")
def final(scene):
    for want in (False, False, True):
        accepted, record, taken = scene.send("* final=cut times=2")
        equal((accepted, record["end"] == "cut-final", taken), (want, not want, 1))
    accepted, record, taken = scene.send("* final=cut pass=3")
    equal((record["end"], taken), ("cut-final", 1))


@test("a break where a command or a reply ends, and one octet before and behind it")
def units(scene):
    _, whole, _ = scene.send("")
    true(whole["units_up"] > 5 and whole["units_down"] > 5, whole)
    for way in ("up", "down"):
        ends = []
        for unit in (1, 2, 3):
            cuts = [scene.send("* unit=%s:%d off=%d" % (way, unit, off))[1] for off in (-1, 0, 1)]
            equal([r["end"] for r in cuts], ["cut-" + way] * 3)
            equal([r[way] - cuts[1][way] for r in cuts], [-1, 0, 1], "octets")
            ends.append(cuts[1][way])
        true(ends == sorted(set(ends)), ends)
    accepted, record, taken = scene.send("* unit=up:%d off=1" % whole["units_up"])
    equal((accepted, taken, record["units_up"]), (True, 1, whole["units_up"]), "nothing comes behind the last one")


@test("a black hole, a closed window, a refusal")
def silent(scene):
    for rules, up in (("* hole=up:5000", 5000), ("* stall=up:3000", 3000), ("* refuse", 0)):
        accepted, record, taken = scene.send(rules)
        equal((accepted, record["up"], taken), (False, up, 0), rules)


@test("behind TLS the terminator is known by its record's length")
def tls(scene):
    server = Scripted(certs=scene.certs)
    os.makedirs(scene.folder + "/tls")
    link = links.BadLink(scene.folder + "/tls", server.port, "* final=cut")
    sock = socket.create_connection(("127.0.0.1", link.port), 5)
    plain = sock.makefile("rb")
    plain.readline()
    sock.sendall(b"EHLO x\r\n")
    while plain.readline()[3:4] == b"-":
        pass
    sock.sendall(b"STARTTLS\r\n")
    plain.readline()
    secure = ssl.create_default_context(cafile=scene.certs.ca).wrap_socket(sock, server_hostname="localhost")
    for command in (b"EHLO x\r\n", b"MAIL FROM:<a@b.test>\r\n", b"RCPT TO:<c@d.test>\r\n", b"BDAT 4\r\nabc\n"):
        secure.sendall(command)
        true(secure.recv(4096)[:1] == b"2", command)
    equal(server.arrived, [])
    secure.sendall(b"BDAT 0 LAST\r\n")
    try:
        got = secure.recv(4096)
    except OSError:
        got = b""
    equal((got, len(server.arrived)), (b"", 1))
    equal([r["end"] for r in until(link.records, 5)], ["cut-final"])
    link.stop()
    server.stop()


@test("the scripted server follows its script and takes nothing it refused")
def scripts(scene):
    for name, accepted in (("good", 1), ("greylist", 1), ("one-bad-of-three", 1), ("verdict-554", 0), ("421-verdict", 0),
                           ("garbage", 0), ("greeting-554", 0)):
        server = Scripted(SCENARIOS[name])
        try:
            with smtplib.SMTP("127.0.0.1", server.port, timeout=5) as client:
                client.sendmail("a@b.test", ["1@d.test", "2@d.test", "3@d.test"], BODY)
        except (OSError, smtplib.SMTPException):
            pass
        equal(len(server.messages), accepted, name)
        if accepted:
            equal(server.messages[0][2], BODY.encode())
        server.stop()


if __name__ == "__main__":
    main(Scene, Scene.stop)
