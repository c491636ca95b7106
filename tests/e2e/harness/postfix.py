"""Postfix of its own: configuration, queue and mail below one folder, three listeners on loopback.

    port        plain SMTP, everything permitted, no TLS offered
    submission  STARTTLS required, AUTH required
    smtps       TLS from the start, AUTH required
    also        ports of the listeners asked for by `also`: (EHLO keywords that are not offered, TLS from the start)

Recipients of USERS at example.test and second.test have a Maildir each. Local parts with a meaning:
`refused…` 550, `later…` 450, `grey…` 450 at the first time (a policy server
in the test process), `full…` 452 4.2.2, `secret-policy…` 554 5.7.1.
"""
import grp
import os
import pwd
import re
import shutil
import signal
import socketserver
import threading

from . import process
from .tap import Skip, until

DAEMONS = "/usr/lib/postfix/sbin"

MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
daemon_directory = {daemons}
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.example.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
alias_maps =
virtual_mailbox_domains = example.test, second.test
virtual_mailbox_base = {mail}
virtual_mailbox_maps = texthash:{folder}/mailboxes
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_mailbox_limit = 0
message_size_limit = {size}
queue_minfree = 0
smtpd_recipient_restrictions = check_recipient_access regexp:{folder}/access,
    check_policy_service inet:127.0.0.1:{policy}, permit_sasl_authenticated, permit_mynetworks, reject
smtpd_relay_restrictions =
smtpd_tls_cert_file = {cert}
smtpd_tls_key_file = {key}
smtpd_sasl_type = dovecot
smtpd_sasl_path = inet:127.0.0.1:{auth}
smtpd_sasl_security_options = noanonymous
smtpd_error_sleep_time = 0
smtpd_client_event_limit_exceptions = 127.0.0.0/8
smtpd_discard_ehlo_keywords = {discard}
smtpd_timeout = 60s
in_flow_delay = 0
message_drop_headers =
local_header_rewrite_clients =
disable_mime_input_processing = yes
smtputf8_enable = yes
"""

MASTER = """
127.0.0.1:{port} inet n - n - - smtpd -o smtpd_tls_security_level=none -o smtpd_sasl_auth_enable=no
127.0.0.1:{submission} inet n - n - - smtpd -o smtpd_tls_security_level=encrypt -o smtpd_sasl_auth_enable=yes
  -o mynetworks=192.0.2.1
127.0.0.1:{smtps} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes -o smtpd_sasl_auth_enable=yes
  -o mynetworks=192.0.2.1
{also}cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

ALSO = """127.0.0.1:{port} inet n - n - - smtpd -o smtpd_discard_ehlo_keywords={discard} -o smtpd_tls_wrappermode={tls}
  -o smtpd_tls_security_level={level} -o smtpd_sasl_auth_enable=yes
"""

ACCESS = """
/^refused/ 550 5.1.1 No such user here
/^later/ 450 4.2.0 Come back later
/^full/ 452 4.2.2 Mailbox full
/^secret-policy/ 554 5.7.1 Not to this one
"""


# Whoever has a mailbox: names for people, numbers for tables.
USERS = (["ann", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "grey", "later", "jürgen"]
         + ["u%03d" % n for n in range(1000)])


class _Policy(socketserver.StreamRequestHandler):
    """Greylisting: a recipient grey… is deferred the first time it is seen."""

    def handle(self):
        attributes = {}
        for line in self.rfile:
            line = line.decode().rstrip("\n")
            if line:
                name, _, value = line.partition("=")
                attributes[name] = value
                continue
            recipient = attributes.get("recipient", "")
            action = "dunno"
            if recipient.startswith("grey") and recipient not in self.server.seen:
                self.server.seen.add(recipient)
                action = "defer 4.7.1 Greylisted, come back later"
            self.wfile.write(("action=%s\n\n" % action).encode())
            attributes = {}


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


class Postfix:
    def __init__(self, folder, certs, auth_port=1, size=60000000, discard="", more="", also=(), services=""):
        """`more`: lines of main.cf behind the others; `services`: of master.cf."""
        if os.geteuid() != 0 or not os.path.exists(DAEMONS + "/master"):
            raise Skip("Postfix needs root and the package postfix")
        self.folder = os.path.join(folder, "postfix")
        self.mail = os.path.join(folder, "mail")
        self.port, self.submission, self.smtps = (process.free_port() for _ in range(3))
        self.also = [process.free_port() for _ in also]
        self.policy = _Server(("127.0.0.1", 0), _Policy)
        self.policy.seen = set()
        threading.Thread(target=self.policy.serve_forever, daemon=True).start()
        self._folders()
        self._config = dict(folder=self.folder, mail=self.mail, size=size, cert=certs.cert, key=certs.key,
                            auth=auth_port, policy=self.policy.server_address[1], daemons=DAEMONS, discard=discard)
        self.more = more
        self._write("main.cf", MAIN.format(**self._config) + more)
        self._write("master.cf", MASTER.format(port=self.port, submission=self.submission, smtps=self.smtps, also="".join(
            ALSO.format(port=port, discard=words, tls="yes" if tls else "no", level="encrypt" if tls else "none")
            for port, (words, tls) in zip(self.also, also))) + services)
        self._write("access", ACCESS)
        self._write("mailboxes", "".join("%s@%s.test %s/\n" % (user, domain, user)
                                         for user in USERS for domain in ("example", "second")))
        self._start()

    def _start(self):
        self.process = process.Process([DAEMONS + "/master", "-c", self.folder, "-d"], self.folder + "/stderr",
                                       env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"})
        process.wait_for(lambda: all(process.answers(p, p != self.smtps)
                                     for p in (self.port, self.submission, self.smtps)), self.process)

    def _folders(self):
        owner = pwd.getpwnam("postfix")
        postdrop = grp.getgrnam("postdrop").gr_gid
        os.makedirs(self.folder + "/queue")
        for name in ("active bounce corrupt defer deferred flush hold incoming private saved trace").split():
            self._mkdir("queue/" + name, 0o700, owner.pw_uid, 0)
        self._mkdir("queue/maildrop", 0o730, owner.pw_uid, postdrop)
        self._mkdir("queue/public", 0o710, owner.pw_uid, postdrop)
        self._mkdir("queue/pid", 0o755, 0, 0)
        self._mkdir("data", 0o700, owner.pw_uid, owner.pw_gid)
        os.makedirs(self.mail, exist_ok=True)
        os.chown(self.mail, 65534, 65534)

    def _mkdir(self, name, mode, uid, gid):
        path = os.path.join(self.folder, name)
        os.mkdir(path)
        os.chown(path, uid, gid)
        os.chmod(path, mode)

    def _write(self, name, text):
        with open(os.path.join(self.folder, name), "w", encoding="utf-8") as f:
            f.write(text)

    def without(self, keywords):
        """Offer all but these EHLO keywords ("chunking pipelining") from now on."""
        self._config["discard"] = keywords
        self._write("main.cf", MAIN.format(**self._config) + self.more)
        # Not by SIGHUP: master then logs to a postlogd that it has just ended, and with a full log socket
        # both wait for ever.
        self.process.stop()
        # A child with a session open holds its port on, and takes connections that it never serves; a service manager ends it, too.
        until(lambda: not [os.kill(pid, signal.SIGKILL) for p in (self.port, self.submission, self.smtps) for pid in process.listeners(p)],
              30, "Postfix is gone")
        self._start()

    def log(self):
        path = self.folder + "/mail.log"
        if not os.path.exists(path):
            return ""
        with open(path, errors="replace") as f:
            return f.read()

    def delivered(self, user):
        """The delivered files of a Maildir as octets, LF line ends, trace fields included, oldest first."""
        folder = os.path.join(self.mail, user, "new")
        out = []
        if os.path.isdir(folder):
            for name in sorted(os.listdir(folder), key=lambda n: os.stat(os.path.join(folder, n)).st_mtime_ns):
                with open(os.path.join(folder, name), "rb") as f:
                    out.append(f.read())
        return out

    def queue_is_empty(self):
        return not any(files for name in ("incoming", "active", "deferred", "maildrop")
                       for _, _, files in os.walk(os.path.join(self.folder, "queue", name)))

    def settled(self, user, copies, seconds=30):
        """Wait until the queue has drained; then there must be just so many copies."""
        until(lambda: len(self.delivered(user)) >= copies and self.queue_is_empty(), seconds,
              "%d copies for %s" % (copies, user))
        found = self.delivered(user)
        if len(found) != copies:
            raise AssertionError("%s has %d copies, not %d" % (user, len(found), copies))
        return found

    def forget(self, user):
        shutil.rmtree(os.path.join(self.mail, user), True)

    def stop(self):
        self.process.stop()
        self.policy.shutdown()
        self.policy.server_close()


_TRACE = re.compile(rb"(?:(?:Return-Path|X-Original-To|Delivered-To|Received):[^\n]*\n(?:[ \t][^\n]*\n)*)*", re.I)


def without_trace(delivered, frozen=None):
    """What virtual(8) delivered, less the trace fields on top, with CRLF again.

    Postfix stores lines without their ends, so CRLF and LF are one here.
    `frozen` may begin with trace fields of its own: where it is given and what
    was delivered ends with it, only what stands before it must be trace fields.
    """
    crlf = delivered.replace(b"\n", b"\r\n")
    if frozen is not None and crlf.endswith(frozen):
        head = crlf[:len(crlf) - len(frozen)].replace(b"\r\n", b"\n")
        return frozen if _TRACE.fullmatch(head) else crlf
    return delivered[_TRACE.match(delivered).end():].replace(b"\n", b"\r\n")
