"""System mode below one folder (SENDQ_SYSTEM_ROOT): the queue's user, and people who share it."""
import os
import pwd
import re
import shutil
import socket
import subprocess

from . import links, process, sendq
from .tap import Skip, equal

# Accounts that every Debian has: the queue's user, and three people.
KEEPER, ANN, BOB, EVE = "proxy", "games", "news", "uucp"
PROGRAMS = ("sendq-sendmail", "sendq-submitd", "sendqd", "sendq-smtp", "sendq")


class System:
    """A machine in system mode."""

    def __init__(self, scene, number, route, **settings):
        self.root = "%s/root%d" % (scene.folder, number)
        self.bin = scene.bin
        keeper = pwd.getpwnam(KEEPER)
        for path, mode, owner in (("etc/sendq", 0o755, 0), ("var/lib/sendq", 0o700, keeper.pw_uid), ("run/sendq", 0o755, keeper.pw_uid),
                                  ("var/mail", 0o3777, 0)):
            os.makedirs(self.root + "/" + path)
            os.chmod(self.root + "/" + path, mode)
            os.chown(self.root + "/" + path, owner, keeper.pw_gid)
        self.config = self.root + "/etc/sendq/sendq.conf"
        self.route = route
        self.configure(**settings)
        self.submitd = self.sendqd = None
        self.starts = 0

    def configure(self, **settings):
        settings = {"identity": '"postmaster@example.test"', "log": '"debug"', **settings}
        with open(self.config, "w") as f:
            f.write("".join("%s = %s;\n" % item for item in settings.items()))
            f.write("routes = ( { " + " ".join("%s = %s;" % (k, sendq._value(v)) for k, v in self.route.items()) + " } );\n")
        # A password may stand in it: root's, and readable by the queue's group.
        os.chown(self.config, 0, pwd.getpwnam(KEEPER).pw_gid)
        os.chmod(self.config, 0o640)

    def env(self, **more):
        env = {k: v for k, v in os.environ.items() if k in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "TZ")}
        env.update(PATH=self.bin + ":/usr/sbin:/usr/bin:/sbin:/bin", LANG="C.UTF-8", SENDQ_SYSTEM_ROOT=self.root, HOME="/nonexistent",
                   SENDQ_AGENT=self.bin + "/sendq-smtp", SENDQ_BIN=self.bin)
        env.update(more)
        return env

    def start(self, deliver=False, **env):
        self.starts += 1
        self.submitd = process.Process(self.as_user(KEEPER, "sendq-submitd"), self.root + "/submitd.%d.log" % self.starts, env=self.env(**env))
        process.wait_for(lambda: self.can_connect("submit") and self.can_connect("control"), self.submitd)
        if deliver:
            self.deliver()

    def deliver(self):
        self.sendqd = process.Process(self.as_user(KEEPER, "sendqd", "-C", self.config), self.root + "/sendqd.%d.log" % self.starts, env=self.env())
        process.wait_for(lambda: os.path.exists(self.root + "/var/lib/sendq/queue.db.wake"), self.sendqd)

    def can_connect(self, name):
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.connect("%s/run/sendq/%s.sock" % (self.root, name))
            return True
        except OSError:
            return False

    def as_user(self, user, program, *args, groups=None):
        account = pwd.getpwnam(user) if isinstance(user, str) else None
        uid, gid = (account.pw_uid, account.pw_gid) if account else (user, user)
        return ["setpriv", "--reuid=%d" % uid, "--regid=%d" % gid, "--groups=%s" % groups if groups else "--clear-groups", program] + list(args)

    def run(self, user, program, *args, stdin=b"", groups=None, seconds=60, **env):
        done = subprocess.run(self.as_user(user, program, *args, groups=groups), input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=seconds, env=self.env(**env))
        result = sendq.Result(done)
        sendq._no_sanitizer(result.err, program)
        return result

    def submit(self, user, data, *args):
        result = self.run(user, "sendmail", "-v", *(args or ("-t",)), stdin=data)
        equal(result.code, 0, "%s: %r" % (user, result))
        return re.search(r"queued as (\w+)", result.out).group(1)

    def ids(self, user, **kw):
        result = self.run(user, "sendq", "list", "--json", **kw)
        equal(result.code, 0, repr(result))
        return re.findall(r'^\{"id":"(\w+)"', result.out, re.M)

    def stop(self):
        for p in (self.submitd, self.sendqd):
            if p:
                p.stop()
                sendq._no_sanitizer(p.output(), p.args[-1])
        self.submitd = self.sendqd = None


class Scene:
    def __init__(self):
        if os.geteuid() != 0 or not shutil.which("setpriv"):
            raise Skip("root and setpriv are needed")
        self.folder = process.temp_folder("system")
        # Where every user may run them, wherever the build folder is.
        self.bin = self.folder + "/bin"
        os.mkdir(self.bin)
        for name in PROGRAMS:
            shutil.copy(links.program(name, os.environ.get("SENDQ_PROGRAMS")), self.bin + "/" + name)
        for alias in ("sendmail", "mailq", "newaliases"):
            os.symlink("sendq-sendmail", self.bin + "/" + alias)
        self._n = 0
        self.systems = []

    def system(self, port=1, **settings):
        self._n += 1
        s = System(self, self._n, sendq.route("smtp://127.0.0.1:%d" % port, tls="none"), **settings)
        self.systems.append(s)
        return s


def teardown(scene):
    for s in scene.systems:
        s.stop()
