#!/usr/bin/python3
"""No TLS early data: octets of a first flight can be replayed, and a replayed message is a second one.

The server offers it: openssl's own, whose tickets say that early data is welcome. A relay reads
every ClientHello; that the relay can see early data is shown by a client that sends some.
"""
import os
import socket
import struct
import subprocess
import threading

from harness import certs, process, sendq
from harness.sendq import message
from harness.tap import equal, main, test, true, until

EARLY_DATA = 42


class Relay:
    """One connection after the other to a port; the extensions of each ClientHello."""

    def __init__(self, server):
        self.server, self.to, self.hellos = server, server.port, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.to))
            hello = self.hello(client)
            self.hellos.append(extensions(hello))
            server.sendall(hello)
            self.server.say(b"220 openssl\r\n")
            back = threading.Thread(target=pump, args=(server, client), daemon=True)
            back.start()
            pump(client, server)
            back.join()

    @staticmethod
    def hello(sock):
        data = b""
        while len(data) < 5 or len(data) < 5 + struct.unpack(">H", data[3:5])[0]:
            more = sock.recv(4096)
            if not more:
                break
            data += more
        return data


def pump(a, b):
    try:
        while True:
            data = a.recv(65536)
            if not data:
                break
            b.sendall(data)
        b.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def extensions(hello):
    """Numbers of a ClientHello's extensions: record 5, handshake 4, version 2, random 32, session, suites, compressions."""
    at = 43
    at += 1 + hello[at]
    at += 2 + struct.unpack(">H", hello[at:at + 2])[0]
    at += 1 + hello[at]
    end = at + 2 + struct.unpack(">H", hello[at:at + 2])[0]
    at, out = at + 2, []
    while at < end:
        kind, n = struct.unpack(">HH", hello[at:at + 4])
        out.append(kind)
        at += 4 + n
    return out


class Server:
    """openssl s_server, made to speak SMTP through its standard input and output."""

    REPLIES = {b"EHLO": b"250-openssl\r\n250 PIPELINING\r\n", b"DATA": b"354 go on\r\n", b"QUIT": b"221 bye\r\n"}

    def __init__(self, scene):
        self.port = process.free_port()
        self.messages, self.early = 0, 0
        self.p = subprocess.Popen(["openssl", "s_server", "-accept", "127.0.0.1:%d" % self.port, "-cert", scene.certs.cert, "-key",
                                   scene.certs.key, "-tls1_3", "-early_data", "-no_anti_replay", "-quiet"],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  preexec_fn=process.die_with_parent)
        threading.Thread(target=self.serve, daemon=True).start()
        until(self.listens, 20, "openssl s_server listens")

    def listens(self):
        with open("/proc/net/tcp") as f:
            return ":%04X 00000000:0000 0A" % self.port in f.read()

    def say(self, octets):
        self.p.stdin.write(octets)
        self.p.stdin.flush()

    def serve(self):
        content = False
        for line in self.p.stdout:
            word = line.strip().upper()
            self.early += b"HELLO EARLY" in word
            if content:
                content = word != b"."
                if not content:
                    self.messages += 1
                    self.say(b"250 accepted\r\n")
            elif word[:4] in (b"EHLO", b"MAIL", b"RCPT", b"DATA", b"RSET", b"QUIT"):
                content = word == b"DATA"
                self.say(self.REPLIES.get(word[:4], b"250 ok\r\n"))

    def stop(self):
        self.p.kill()
        self.p.wait()


class Scene:
    def __init__(self):
        self.folder = process.temp_folder("early")
        self.certs = certs.Certs(self.folder)


def s_client(scene, port, *more, stdin=b""):
    return subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % port, "-tls1_3", "-CAfile", scene.certs.ca] + list(more),
                          input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)


@test("the relay sees early data, and the server takes it, where a client sends some")
def can_fail(scene):
    server = Server(scene)
    relay = Relay(server)
    session, early = os.path.join(scene.folder, "session"), os.path.join(scene.folder, "early")
    with open(early, "wb") as f:
        f.write(b"HELLO EARLY\r\n")
    child = subprocess.Popen(["openssl", "s_client", "-connect", "127.0.0.1:%d" % relay.port, "-tls1_3", "-sess_out", session],
                             stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: os.path.exists(session) and os.path.getsize(session), 20, "a ticket")
    child.stdin.close()
    child.wait(20)
    child = subprocess.Popen(["openssl", "s_client", "-connect", "127.0.0.1:%d" % relay.port, "-tls1_3", "-sess_in", session,
                              "-early_data", early], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: server.early, 20, "early data reaches the server")
    child.stdin.close()
    child.wait(20)
    equal([EARLY_DATA in h for h in relay.hellos], [False, True], "early data in the ClientHello")
    server.stop()


@test("sendq offers none, however often it comes back to a server that would take it")
def none(scene):
    server = Server(scene)
    relay = Relay(server)
    q = sendq.Sendq(scene.folder, [sendq.route("smtps://localhost:%d" % relay.port, ca_file=scene.certs.ca)])
    daemon = None
    for n in range(3):
        number = q.submit(message("bob@example.test", "early %d" % n))
        if n == 0:
            equal(q.flush(), 0)
        else:
            daemon = daemon or q.daemon()
            q.poke()
            q.wait(number, "sent")
    q.stop_daemon()
    equal(server.messages, 3)
    true(len(relay.hellos) >= 2, "sessions: %d" % len(relay.hellos))
    equal([EARLY_DATA in h for h in relay.hellos], [False] * len(relay.hellos), "early data in a ClientHello")
    server.stop()


if __name__ == "__main__":
    main(Scene)
