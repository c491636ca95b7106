#!/usr/bin/python3
"""Passwords that systemd hands to the service as credentials, and how sendq setup makes them (with the real systemd-creds).

The key of "this machine" is made in a folder of the test's, in a mount namespace of its own (as root).
"""
import ctypes
import os
import shutil
import stat
import subprocess
import sys

from harness import certs, process, sendq
from harness.sendq import EX_USAGE, message
from harness.tap import Skip, equal, holds, main, test, true, until

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fake"))
import scripted  # noqa: E402

NAME = "sendq-home"
CLONE_NEWNS = 0x20000
SECRET = "to be kept well"
DAEMON = 65534  # whoever owns the queue's folder


class Scene:
    def __init__(self):
        self.folder = process.temp_folder("credential")
        self.n = 0
        self.key = self.certs = None

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

    def machine(self):
        """A machine below a folder whose configuration root sets up: its root, sendq, and the server of the account."""
        if os.geteuid() != 0 or not shutil.which("systemd-creds"):
            raise Skip("root and systemd-creds are needed")
        if not self.key:
            self.key = os.path.join(self.folder, "key")
            os.mkdir(self.key, 0o700)
            equal(ctypes.CDLL(None).unshare(CLONE_NEWNS), 0, "unshare")
            for args in (("--make-rprivate", "/"), ("--bind", self.key, "/var/lib/systemd")):
                subprocess.run(("mount",) + args, check=True)
            self.certs = certs.Certs(self.folder)
        place = self.place()
        server = scripted.Scripted(certs=self.certs, implicit=True, users={"ann@example.test": SECRET})
        q = sendq.Sendq(place, [sendq.route("smtp://127.0.0.1:1", tls="none")])
        root = os.path.join(place, "root")
        for path, uid in (("etc/sendq", 0), ("var/lib/sendq", DAEMON)):
            os.makedirs(os.path.join(root, path))
            os.chown(os.path.join(root, path), uid, uid)
        # Its arguments and environment are noted, and it does its work.
        tools = os.path.join(place, "tools")
        os.mkdir(tools)
        with open(tools + "/systemd-creds", "w") as f:
            f.write("#!/bin/sh\n{ echo \"$@\"; env; } >>%s/noted\nexec %s \"$@\"\n" % (place, shutil.which("systemd-creds")))
        os.chmod(tools + "/systemd-creds", 0o755)
        q.extra_env.update(SENDQ_SYSTEM_ROOT=root, PATH=tools + ":" + os.environ["PATH"])
        return root, q, server

    def setup(self, q, server, config, *more):
        return q.status("--config", config, "setup", "ann@example.test", "--server", "smtps://localhost:%d" % server.port, "--imap", "none",
                        "--ca-file", self.certs.ca, "--password-stdin", "--yes", "--name", "home", *more, stdin=SECRET.encode() + b"\n")

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


def decrypted(path, name):
    return subprocess.run(["systemd-creds", "decrypt", "--name=" + name, path, "-"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, check=True).stdout.decode()


def tree(root):
    for folder, _, names in os.walk(root):
        for name in names:
            with open(os.path.join(folder, name), "rb") as f:
                yield os.path.join(folder, name), f.read()


@test("setup encrypts the password of the machine's configuration, tells the unit, and the daemon logs in with it")
def kept(scene):
    root, q, server = scene.machine()
    config = root + "/etc/sendq/sendq.conf"
    result = scene.setup(q, server, config, "--store", "credential")
    equal(result.code, 0, repr(result))
    holds(result.out, "systemctl daemon-reload")
    credential = root + "/etc/credstore.encrypted/" + NAME
    equal(decrypted(credential, NAME), SECRET)
    equal(stat.S_IMODE(os.stat(credential).st_mode) & 0o77, 0, "mode of the credential")
    drop_in = root + "/etc/systemd/system/sendqd.service.d/%s.conf" % NAME
    with open(drop_in) as f:
        equal(f.read().splitlines()[1:], ["[Service]", "LoadCredentialEncrypted=%s:%s" % (NAME, credential)])
    with open(config) as f:
        holds(f.read(), 'password_credential = "%s";' % NAME)
    st = os.stat(config)
    equal((st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)), (0, DAEMON, 0o640), "owner, group and mode of the configuration")
    for path, octets in tree(os.path.dirname(root)):
        true(SECRET.encode() not in octets, "the password stands in " + path)
    with open(os.path.dirname(root) + "/noted") as f:
        holds(f.read(), "encrypt --name=%s - %s" % (NAME, credential))
    # What systemd does with it: decrypted for the service, in a folder that it names.
    folder = os.path.join(scene.place(), "credentials")
    os.mkdir(folder, 0o700)
    put(folder, decrypted(credential, NAME))
    with open(config) as f:
        text = f.read()
    q.write_config('queue = "%s";\nautostart = false;\n' % q.queue + text)
    q.daemon(CREDENTIALS_DIRECTORY=folder)
    q.wait(q.submit(message("u@example.test", "kept"), "-t", "-f", "ann@example.test"), "sent", 20)
    equal(len(server.messages), 1)
    q.stop_daemon()


@test("a second account gets a credential of its own name, and nothing that is there is written over")
def second(scene):
    root, q, server = scene.machine()
    os.makedirs(root + "/etc/credstore.encrypted")
    with open(root + "/etc/credstore.encrypted/" + NAME, "w") as f:
        f.write("somebody's")
    result = scene.setup(q, server, root + "/etc/sendq/sendq.conf")  # without --store: the machine's default
    equal(result.code, 0, repr(result))
    with open(root + "/etc/credstore.encrypted/" + NAME) as f:
        equal(f.read(), "somebody's")
    equal(decrypted(root + "/etc/credstore.encrypted/%s-2" % NAME, NAME + "-2"), SECRET)
    with open(root + "/etc/sendq/sendq.conf") as f:
        holds(f.read(), 'password_credential = "%s-2";' % NAME)


@test("in a file of the machine the password is the daemon's user's")
def in_file(scene):
    root, q, server = scene.machine()
    equal(scene.setup(q, server, root + "/etc/sendq/sendq.conf", "--store", "file").code, 0)
    st = os.stat(root + "/etc/sendq/password-home")
    equal((st.st_uid, stat.S_IMODE(st.st_mode)), (DAEMON, 0o600))


@test("for a user's own configuration a credential is refused in a sentence, before anything is asked or written")
def refused_to_users(scene):
    root, q, server = scene.machine()
    mine = os.path.join(q.folder, "mine.conf")
    result = scene.setup(q, server, mine, "--store", "credential")
    equal(result.code, EX_USAGE)
    holds(result.err, "systemd 256")
    true(not os.path.exists(mine), "nothing is written")
    result = scene.setup(q, server, root + "/etc/sendq/sendq.conf", "--test")
    equal((result.code, os.listdir(root + "/etc/sendq")), (EX_USAGE, []))
    equal(server.commands, [], "nobody was talked to")


@test("where systemd-creds fails nothing is configured")
def fails(scene):
    root, q, server = scene.machine()
    with open(q.extra_env["PATH"].split(":")[0] + "/systemd-creds", "w") as f:
        f.write("#!/bin/sh\necho 'no key' >&2; exit 1\n")
    result = scene.setup(q, server, root + "/etc/sendq/sendq.conf", "--store", "credential")
    true(result.code != 0, repr(result))
    holds(result.err, "did not encrypt")
    equal(os.listdir(root + "/etc/sendq"), [])


if __name__ == "__main__":
    main(Scene, Scene.stop)
