#!/usr/bin/python3
"""contrib/examples/postfix as it stands there, but for ports, paths and names: a real Postfix and the gateway, started from these files."""
import os
import pwd
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fake"))
from harness import dovecot, gateway, links, process  # noqa: E402
from harness.gateway import Peer  # noqa: E402
from harness.sendq import message  # noqa: E402
from harness.tap import add, equal, holds, main, true, until  # noqa: E402
from harness.world import PASSWORD, USER, World  # noqa: E402
from milter import Milter  # noqa: E402

EXAMPLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "contrib", "examples", "postfix")
gateway.USERS.update(dovecot.USERS)


def text(name):
    with open(os.path.join(EXAMPLES, name)) as f:
        return f.read()


class Example(gateway.Gateway):
    """A gateway whose configuration is the example's text."""

    def __init__(self, folder, name, config, ports, certs):
        for port, mine in ports.items():
            config = config.replace("127.0.0.1:%d" % port, "127.0.0.1:%d" % mine)
        # A port that is free, this machine's certificates, a user that is there.
        config = re.sub(r"0\.0\.0\.0:(587|465)", "127.0.0.1:0", config)
        config = re.sub(r'certificate = "[^"]*"', 'certificate = "%s"' % certs.cert, config)
        config = re.sub(r'key = "[^"]*"', 'key = "%s"' % certs.key, config)
        config = config.replace("mail.example.org", "localhost").replace("_sendq-gateway", "nobody")
        config = config.replace("/etc/sendq/gateway.passwords", os.path.join(folder, name, "passwords"))
        # What the file leaves to the defaults and a test must not share with others.
        config += 'state = "%s";\n' % os.path.join(folder, name, "state")
        if "passthrough" in config:
            config += 'backend_ca = "%s";\n' % certs.ca
        self._text = config
        super().__init__(folder, name=name, listen=("starttls", "smtps"), mailboxes=(), backend=True)

    def write_config(self):
        os.chown(self.passwords, pwd.getpwnam("nobody").pw_uid, -1)
        with open(self.config, "w") as f:
            f.write(self._text)


class Scene(World):
    def __init__(self):
        self.ports = {port: process.free_port() for port in map(int, re.findall(r"^127\.0\.0\.1:(\d+)", text("master.cf"), re.M))}
        equal(len(self.ports), 3, "listeners of the example")
        services = text("master.cf")
        for port, mine in self.ports.items():
            services = services.replace("127.0.0.1:%d " % port, "127.0.0.1:%d " % mine)
        self.milter = Milter()
        super().__init__("gateway-examples", services=services,
                         more="smtpd_milters = inet:127.0.0.1:%d\nmilter_default_action = tempfail\n" % self.milter.port)
        self.gateways = {name: Example(self.folder, name, text(name + ".conf"), self.ports, self.certs) for name in ("passthrough", "trusted")}

    def stop(self):
        for gw in self.gateways.values():
            gw.stop()
        super().stop()
        self.milter.shutdown()
        self.milter.server_close()


def foreign(name):
    def run(scene):
        gw, user = scene.gateways[name], scene.user()
        done = subprocess.run(["swaks", "--server", "localhost:%d" % gw.port, "--tls", "--auth", "PLAIN", "--auth-user", USER, "--auth-password",
                               PASSWORD, "--from", USER, "--to", user + "@example.test", "--header", "Subject: by swaks"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        equal(done.returncode, 0, done.stdout.decode()[-1500:])
        found, = scene.postfix.settled(user, 1)
        holds(found, b"by localhost (sendq-gateway) with ESMTPSA id ")
        bad = subprocess.run(["swaks", "--server", "localhost:%d" % gw.port, "--tls", "--auth", "PLAIN", "--auth-user", USER, "--auth-password",
                              "wrong", "--to", user + "@example.test"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        holds(bad.stdout.decode(), "535 ")
        scene.postfix.settled(user, 1)
    return run


def cut(name):
    def run(scene):
        gw, user = scene.gateways[name], scene.user()
        link = scene.link(gw.ports[1], "* cut=up:150000 times=2")
        q = scene.sendq(scene.tls(link.port, "smtps"))
        number = q.submit(message(user + "@example.test", "cut twice", "x" * 70 + "\n" + ("y" * 70 + "\n") * 6000))
        for _ in range(4):
            if q.flush() == 0:
                break
        equal(q.states(number), {user + "@example.test": "sent"})
        scene.postfix.settled(user, 1)
        size, sent = q.get(number)["size"], sum(r["up"] for r in link.records())
        true(len(link.records()) >= 3 and sent < 1.3 * size, "octets over the link: %d of %d in %d connections" % (sent, size, len(link.records())))
        holds(q.sent()[-1]["reply"]["text"], "queued as", "the backend's own verdict")
    return run


def filtered(name):
    """A virus scanner behind Postfix, say: of a message that was cut it sees nothing, and then the whole."""
    def run(scene):
        gw, user, scene.milter.whole[:] = scene.gateways[name], scene.user(), []
        content = b"From: <ann@example.test>\r\nSubject: filtered\r\nMessage-ID: <f-%s@x>\r\n\r\n" % name.encode() + b"one line of many\r\n" * 5000
        for at in (100, 60000):
            peer = Peer(gw.ports[1], tls="implicit", ca=scene.certs.ca)
            answer = peer.envelope("<filtered-%s@x>" % name, len(content), to=["%s@example.test" % user])
            begun = answer.offset() if answer.code == 355 else 0
            equal(peer.bdat(content[begun:at], last=False).code, 250)
            peer.hang_up()
        peer = Peer(gw.ports[1], tls="implicit", ca=scene.certs.ca)
        answer = peer.envelope("<filtered-%s@x>" % name, len(content), to=["%s@example.test" % user])
        equal(answer.offset(), 60000)
        equal(peer.bdat(content[60000:]).code, 250)
        scene.postfix.settled(user, 1)
        equal([len(b) for b in scene.milter.whole], [5000 * 18], "bodies that the filter saw whole")
        equal(scene.milter.broken, [], "and that broke off under it")
        for word in ("DATA", "BDAT"):
            true("lost connection after " + word not in scene.postfix.log(), "the backend saw a message that was cut")
    return run


def unfiltered(scene):
    """The same cut without the gateway: Postfix has begun on a message that it never gets. With it, that is in no log."""
    peer = Peer(scene.ports[10025], login=False)
    peer.cmd("EHLO x")
    peer.cmd("XCLIENT LOGIN=ann@example.test ADDR=192.0.2.7")
    peer.cmd("EHLO x")
    equal(peer.cmd("MAIL FROM:<%s>" % USER).code, 250)
    equal(peer.cmd("RCPT TO:<%s@example.test>" % scene.user()).code, 250)
    equal(peer.cmd("DATA").code, 354)
    peer.send(b"Subject: piece\r\n\r\n" + b"one line of many\r\n" * 9000)
    peer.hang_up()
    until(lambda: "lost connection after DATA" in scene.postfix.log(), 20, "Postfix sees the cut")


def no_relay(name):
    def run(scene):
        peer = Peer(scene.gateways[name].ports[1], tls="implicit", ca=scene.certs.ca, login=False)
        peer.cmd("EHLO stranger.test")
        equal(peer.cmd("MAIL FROM:<%s>" % USER).code, 530)
        peer = Peer(scene.gateways[name].port, login=False)
        peer.cmd("EHLO stranger.test")
        equal(peer.cmd("MAIL FROM:<%s>" % USER).code, 530, "without TLS")
    return run


def listeners(scene):
    for port in (10025, 10026):
        peer = Peer(scene.ports[port], login=False)
        equal(peer.cmd("MAIL FROM:<x@example.com>").code, 250)
        equal(peer.cmd("RCPT TO:<y@elsewhere.test>").code, 554, "port %d relays" % port)
    equal(peer.cmd("RCPT TO:<%s@example.test>" % scene.user()).code, 250, "local people, for alerts")
    peer = Peer(scene.ports[10587], login=False)
    equal(peer.cmd("MAIL FROM:<x@example.com>").code, 530, "STARTTLS first")


def alerts(name):
    def run(scene):
        gw, user = scene.gateways[name], scene.user()
        peer = Peer(gw.ports[1], tls="implicit", ca=scene.certs.ca)
        octets = b"From: <ann@example.test>\r\nSubject: partial\r\nMessage-ID: <p-%s@x>\r\n\r\nbegun\r\n" % name.encode()
        equal(peer.envelope("<%s@x>" % name, 5000, to=["%s@example.test" % user]).code, 250)
        equal(peer.bdat(octets, last=False).code, 250)
        peer.hang_up()
        code, out, err = gw.command("list")
        number = re.search(r"^(\d+) +partial", out, re.M).group(1)
        equal(gw.command("deliver", number)[0], 0)
        found, = scene.postfix.settled(user, 1)
        holds(found, b"[Incomplete, 1 %] partial")
        equal(gw.command("remove", number)[0], 0)
    return run


for name_ in ("passthrough", "trusted"):
    add("%s: a foreign client sends, and one with a wrong password does not" % name_, foreign(name_))
    add("%s: sendq's message is cut twice and arrives once, taken up again" % name_, cut(name_))
    add("%s: a filter of the backend sees whole messages only" % name_, filtered(name_))
    add("%s: nobody sends without a login" % name_, no_relay(name_))
    add("%s: an early alert reaches a local recipient" % name_, alerts(name_))
add("Postfix's own listeners relay nothing for strangers", listeners)

add("without the gateway the backend sees a message that was cut", unfiltered)

if __name__ == "__main__":
    main(Scene, Scene.stop)
