#!/usr/bin/python3
"""Passwords that systemd hands to the service as credentials."""
import os
import sys

from harness import process, sendq
from harness.sendq import message
from harness.tap import equal, holds, main, test, true, until

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fake"))
import scripted  # noqa: E402

NAME = "sendq-home"


class Scene:
    def __init__(self):
        self.folder = process.temp_folder("credential")
        self.n = 0

    def place(self):
        self.n += 1
        path = os.path.join(self.folder, "t%d" % self.n)
        os.mkdir(path)
        return path

    def account(self):
        """A server that wants a login, and sendq with the name of a credential for it; the folder that systemd would make."""
        place = self.place()
        server = scripted.Scripted(users={"ann": "from systemd"})
        q = sendq.Sendq(place, [sendq.route("smtp://127.0.0.1:%d" % server.port, tls="none", user="ann", password_credential=NAME)])
        folder = os.path.join(place, "credentials")
        os.mkdir(folder, 0o700)
        return server, q, folder

    def stop(self):
        pass


def put(folder, text, mode=0o400):
    path = os.path.join(folder, NAME)
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, mode)


def refused(q, words):
    """The route waits, and people are told the reason."""
    number = q.submit(message("u@example.test", "refused"))
    until(lambda: [r for r in q.json("links") if r["cause"] == "secret"], 20, "no secret")
    holds(q.status("why", number).out, words)
    return number


@test("a daemon that has the credential logs in with it, with or without a line end behind it")
def given(scene):
    for text in ("from systemd", "from systemd\n"):
        server, q, folder = scene.account()
        put(folder, text, 0o440)  # with an access list for the service's user the group bits are its mask
        q.daemon(CREDENTIALS_DIRECTORY=folder)
        q.wait(q.submit(message("u@example.test", "given")), "sent", 20)
        equal(len(server.messages), 1)
        q.stop_daemon()
        true("from systemd" not in q.log(), "no secret in the log")


@test("without it nothing is tried, mail waits, and why says what the unit lacks")
def missing(scene):
    server, q, folder = scene.account()
    q.daemon()
    number = refused(q, "is only for sendqd as a service whose unit has LoadCredentialEncrypted=" + NAME)
    q.stop_daemon()
    q.daemon(CREDENTIALS_DIRECTORY=folder)
    equal(q.flush(), 75)
    holds(q.status("why", number).out, "systemd gave the service no credential '%s'" % NAME)
    put(folder, "from systemd", 0o444)
    equal(q.flush(), 75)
    holds(q.status("why", number).out, "others may read it")
    os.unlink(os.path.join(folder, NAME))
    os.symlink("/etc/hostname", os.path.join(folder, NAME))
    equal(q.flush(), 75)
    equal(server.commands, [], "nobody was talked to")
    os.unlink(os.path.join(folder, NAME))
    put(folder, "from systemd")
    equal(q.flush(), 0)
    equal(len(server.messages), 1)
    q.stop_daemon()


@test("doctor does not take it for a fault that only the daemon has it")
def doctor(scene):
    server, q, folder = scene.account()
    rows = {(r["check"], r["verdict"]): r["what"] for r in q.json("doctor") if r["route"] == "home"}
    holds(rows[("secret", "skipped")], NAME)


if __name__ == "__main__":
    main(Scene, Scene.stop)
