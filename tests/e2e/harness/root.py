"""A clean Debian 12 of its own, booted with its own systemd in a container (mmdebstrap, systemd-nspawn); root only.

It shares the network of this machine, so a server on loopback is a server there too.
"""
import os
import shutil
import signal
import subprocess

from . import process
from .sendq import Result
from .tap import Skip, until

MIRROR = "http://deb.debian.org/debian"
KEEP_QUIET = {"DEBIAN_FRONTEND": "noninteractive", "LANG": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}


class Root:
    def __init__(self, folder, *packages, name="root"):
        """Debootstrap and unpack; nothing runs yet."""
        if os.geteuid() != 0:
            raise Skip("root is needed")
        for program in ("mmdebstrap", "systemd-nspawn", "nsenter"):
            if not shutil.which(program):
                raise Skip(program + " is not installed")
        self.path = os.path.join(folder, name)
        self.process = None
        log = os.path.join(folder, name + ".bootstrap.log")
        with open(log, "wb") as f:
            code = subprocess.run(["mmdebstrap", "--variant=apt", "--include=" + ",".join(("systemd", "systemd-sysv", "dbus") + packages),
                                   "bookworm", self.path, MIRROR], stdin=subprocess.DEVNULL, stdout=f, stderr=f).returncode
        if code:
            with open(log, errors="replace") as f:
                raise AssertionError("mmdebstrap: exit %d: %s" % (code, f.read()[-1500:]))

    def boot(self):
        self.process = process.Process(["systemd-nspawn", "--quiet", "-D", self.path, "--register=no", "--keep-unit", "--boot", "--console=pipe"],
                                       self.path + ".console")
        self.init = until(self._child, 30, "the container's first process")
        process.wait_for(lambda: self.run("systemctl", "is-system-running").out.strip() in ("running", "degraded"), self.process, 90)

    def _child(self):
        for pid, _ in process.running():
            try:
                with open("/proc/%d/stat" % pid) as f:
                    parent = int(f.read().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if parent == self.process.p.pid:
                return pid
        return None

    def run(self, *args, stdin=b"", seconds=120, user=None, **env):
        """A command in the running container, as root or another user: a Result."""
        words = ["nsenter", "-t", str(self.init), "-m", "-u", "-i", "-n", "-p", "-r", "-w", "--"]
        if user:
            words += ["runuser", "-u", user, "--"]
            env = {"HOME": "/home/" + user, **env}
        return Result(subprocess.run(words + [str(a) for a in args], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=seconds,
                                     env={**KEEP_QUIET, **env}))

    def must(self, *args, **kw):
        result = self.run(*args, **kw)
        if result.code:
            raise AssertionError("%s: %r" % (" ".join(str(a) for a in args), result))
        return result.out

    def once(self, *args, binds=(), seconds=1200):
        """A command in the container without its systemd: a Result. `binds`: (here, there)."""
        words = ["systemd-nspawn", "--quiet", "-D", self.path, "--register=no", "--keep-unit", "--pipe"]
        words += ["--bind=%s:%s" % b for b in binds] + ["--setenv=%s=%s" % e for e in KEEP_QUIET.items()]
        return Result(subprocess.run(words + list(args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=seconds))

    def write(self, path, text, mode=0o644):
        with open(self.path + path, "w") as f:
            f.write(text)
        os.chmod(self.path + path, mode)

    def exists(self, path):
        return os.path.lexists(self.path + path)

    def halt(self):
        """Everything in it dies with its first process."""
        if self.process:
            if self.process.alive():
                os.kill(self.init, signal.SIGKILL)
            self.process.p.wait(60)
            self.process.stop()
            self.process = None

    def stop(self):
        self.halt()
        shutil.rmtree(self.path, ignore_errors=True)
