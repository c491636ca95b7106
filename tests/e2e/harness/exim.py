"""Exim of its own: it takes messages and keeps them in its spool, undelivered, where `messages()` reads them.

Debian's exim4-daemon-light cannot be installed beside Postfix, so it is fetched with apt-get and unpacked into a
temporary folder. The user it was built for exists only in its own mount namespace. Local parts with a meaning:
recipients `refused…` 550, `later…` 450; senders `refused…` 550.
"""
import glob
import os
import re
import subprocess

from . import process
from .tap import Skip

UID = 64981

CONFIG = """
exim_path = {program}
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
pid_file_path = {folder}/exim.pid
primary_hostname = mx.example.test
domainlist local_domains =
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
keep_environment =
queue_only
queue_run_max = 0
message_size_limit = 50M
chunking_advertise_hosts = *
pipelining_advertise_hosts = *
dsn_advertise_hosts = *
tls_advertise_hosts =
host_lookup =
rfc1413_query_timeout = 0s
acl_smtp_mail = check_mail
acl_smtp_rcpt = check_rcpt
{more}

begin acl
check_mail:
  deny condition = ${{if match{{$sender_address}}{{^refused}}}}
       message = sender refused here
  accept
check_rcpt:
  deny local_parts = ^refused
       message = no such user here
  defer local_parts = ^later
       message = come back later
  accept

begin routers
all:
  driver = accept
  transport = keep
begin transports
keep:
  driver = appendfile
  file = /dev/null
begin retry
* * F,1h,15m
"""


class Message:
    def __init__(self, sender, recipients, subject, body):
        self.sender, self.recipients, self.subject, self.body = sender, recipients, subject, body

    def __repr__(self):
        return "%s -> %s: %s" % (self.sender, self.recipients, self.subject)


class Exim:
    def __init__(self, folder, more=""):
        """`more`: lines of the main section."""
        self.folder = os.path.join(folder, "exim")
        for name in ("", "spool", "log", "etc", "debs"):
            os.makedirs(os.path.join(self.folder, name), exist_ok=True)
        self.port = process.free_port()
        self._unpack()
        self._accounts()
        config = self._write("exim.conf", CONFIG.format(program=self.program, folder=self.folder, port=self.port, more=more))
        for name in ("spool", "log"):
            os.chown(os.path.join(self.folder, name), UID, UID)
        script = "mount --bind {0}/etc/passwd /etc/passwd && mount --bind {0}/etc/group /etc/group && exec {1} -bdf -C {2}"
        self.process = process.Process(["unshare", "-m", "sh", "-c", script.format(self.folder, self.program, config)],
                                       self.folder + "/stderr")
        process.wait_for(lambda: process.answers(self.port), self.process)

    def _unpack(self):
        if os.geteuid() != 0:
            raise Skip("Exim needs root")
        debs = os.path.join(self.folder, "debs")
        os.chmod(debs, 0o777)
        got = subprocess.run(["apt-get", "-q", "download", "exim4-daemon-light"], cwd=debs, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        found = glob.glob(debs + "/*.deb")
        if got.returncode != 0 or not found:
            raise Skip("exim4-daemon-light cannot be fetched: %s" % got.stdout.decode("utf-8", "replace")[-300:])
        subprocess.run(["dpkg", "-x", found[0], self.folder + "/root"], check=True)
        self.program = self.folder + "/root/usr/sbin/exim4"

    def _accounts(self):
        for name, line in (("passwd", "Debian-exim:x:%d:%d::/:/usr/sbin/nologin\n"), ("group", "Debian-exim:x:%d:\n")):
            with open("/etc/" + name) as f:
                text = f.read()
            self._write("etc/" + name, text + line % ((UID, UID) if name == "passwd" else UID))

    def _write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, 0o644)
        return path

    def messages(self):
        """What it has accepted: envelope, Subject and body, read from its spool."""
        out = []
        for path in sorted(glob.glob(self.folder + "/spool/input/**/*-H", recursive=True)):
            try:
                with open(path, "rb") as f:
                    head = f.read().decode("utf-8", "replace")
                with open(path[:-1] + "D", "rb") as f:
                    body = f.read().decode("utf-8", "replace").split("\n", 1)[1]
            except OSError:
                continue
            lines = head.split("\n")
            tree = next(n for n, line in enumerate(lines) if re.fullmatch(r"\d+", line))
            count = int(lines[tree])
            recipients = [line.split(" ")[0] for line in lines[tree + 1:tree + 1 + count]]
            subject = re.search(r"^\d+. Subject: (.*)$", head, re.M)
            out.append(Message(lines[2].strip("<>"), recipients, subject.group(1) if subject else "", body))
        return out

    def log(self):
        out = ""
        for name in ("main", "reject", "panic"):
            path = "%s/log/%slog" % (self.folder, name)
            if os.path.exists(path):
                with open(path, errors="replace") as f:
                    out += f.read()
        return out

    def stop(self):
        self.process.stop()
