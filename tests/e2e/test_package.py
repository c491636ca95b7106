#!/usr/bin/python3
"""The Debian packages: made in a clean root, installed in another one that runs its own systemd, used, upgraded, removed, purged."""
import glob
import os
import re
import shutil
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import certs, links, process  # noqa: E402
from harness.root import Root  # noqa: E402
from harness.sendq import EX_CONFIG, message  # noqa: E402
from harness.tap import Skip, equal, holds, main, note, test, true, until  # noqa: E402

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fake"))
import scripted  # noqa: E402

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NEXT = "0.1.0+next"
QUEUE = "/var/lib/sendq/queue.db"
CONFIG = """identity = "me@home.test";
domain = "home.test";
log = "debug";
routes = ( { name = "home"; server = "smtp://127.0.0.1:%d"; tls = "none"; } );
"""


class Scene:
    """`packages`: where the packages are; `root`: the machine they are tried on."""

    def __init__(self):
        if os.environ.get("SENDQ_LONG") != "1":
            raise Skip("only with SENDQ_LONG=1")
        self.folder = process.temp_folder("package")
        self.packages = self.folder + "/packages"
        if os.environ.get("SENDQ_PACKAGES"):
            shutil.copytree(os.environ["SENDQ_PACKAGES"], self.packages)
        self.sink = links.Sink(self.folder)
        self.dead = process.free_port()
        self.root = None

    def machine(self):
        """The machine, with two people on it."""
        if not self.root:
            self.root = Root(self.folder, "python3-minimal", "libpam-systemd", "dbus-user-session", "polkitd")
            self.root.boot()
            for user in ("ann", "bob"):
                self.root.must("useradd", "-m", "-s", "/bin/sh", user)
            os.mkdir(self.root.path + "/packages")
            for path in self.debs():
                shutil.copy(path, self.root.path + "/packages")
        return self.root

    def debs(self, name="*", version="*"):
        found = sorted(glob.glob("%s/%s_%s_*.deb" % (self.packages, name, version)))
        true(found, "no package %s %s was made" % (name, version))
        return found

    def install(self, name="sendq", version="0.1.0", more=()):
        return self.root.must("apt-get", "-qq", "-y", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0", "install",
                              *["/packages/" + os.path.basename(p) for p in self.debs(name, version)], *more, seconds=300)

    def configure(self, port):
        self.root.write("/etc/sendq/sendq.conf", CONFIG % port, 0o640)
        self.root.must("chown", "root:_sendq", "/etc/sendq/sendq.conf")

    def start(self, how, *units):
        result = self.root.run("systemctl", how, *units)
        equal(result.code, 0, "%r\n%s" % (result, self.journal()))

    def journal(self):
        return self.root.run("journalctl", "--no-pager", "-n", "30", "-u", "sendqd", "-u", "sendq-submitd").out

    def submit(self, user=None, **fields):
        """By the machine's sendmail: its id."""
        result = self.root.run("/usr/sbin/sendmail", "-v", "-t", stdin=message(**fields), user=user)
        equal(result.code, 0, repr(result))
        return re.search(r"queued as (\w+)", result.out).group(1)

    def arrived(self, *subjects, seconds=60):
        """Each of these came once; what else came is none of this test's."""
        def all_there():
            texts = [m.decode("utf-8", "replace") for m in self.sink.messages()]
            return all(any("Subject: %s\r\n" % s in t for t in texts) for s in subjects)
        until(all_there, seconds, "%r arrive" % (subjects,), pause=0.2)
        return [[m for m in self.sink.messages() if ("Subject: %s\r\n" % s).encode() in m] for s in subjects]

    def property(self, unit, name, *user):
        return self.root.must("systemctl", *user, "show", "-P", name, unit).strip()

    def stop(self):
        if self.root:
            self.root.stop()
        self.sink.stop()


@test("the packages are made in a clean root with nothing but what debian/control asks for", seconds=1200, long=True)
def build(scene):
    if os.environ.get("SENDQ_PACKAGES"):
        raise Skip("those of SENDQ_PACKAGES are tried")
    began = time.monotonic()
    os.mkdir(scene.packages)
    root = Root(scene.folder, "build-essential", name="build-root")
    try:
        os.mkdir(root.path + "/control")
        shutil.copytree(SOURCE + "/contrib/debian", root.path + "/control/debian")
        result = root.once("apt-get", "-qq", "update")
        equal(result.code, 0, "apt-get update: %r" % result)
        result = root.once("apt-get", "-qq", "-y", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0", "build-dep", "/control")
        equal(result.code, 0, "apt-get build-dep: %r" % result)
        note("root and what is needed to build: %.0f s" % (time.monotonic() - began))
        began = time.monotonic()
        result = root.once("/source/contrib/package", "/packages", binds=((SOURCE, "/source"), (scene.packages, "/packages")))
        equal(result.code, 0, "contrib/package: %r" % result)
        note("the packages: %.0f s" % (time.monotonic() - began))
    finally:
        root.stop()
    equal(sorted(os.path.basename(p).split("_")[0] for p in scene.debs()), ["sendq", "sendq-dedup", "sendq-gateway"])


@test("lintian finds no error", long=True)
def lintian(scene):
    if not shutil.which("lintian"):
        raise Skip("lintian is not installed")
    done = subprocess.run(["lintian", "--allow-root", "--fail-on=error", "--tag-display-limit=0"] + scene.debs(), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=100)
    note(done.stdout.decode())
    equal(done.returncode, 0, done.stdout.decode())


@test("nothing in the packages is setuid, setgid or for all to write", long=True)
def modes(scene):
    for path in scene.debs():
        listing = subprocess.run(["dpkg-deb", "-c", path], stdout=subprocess.PIPE, check=True).stdout.decode()
        true("sendq" in listing, listing)
        for line in listing.splitlines():
            true("s" not in line[:10] and (line[8] != "w" or line[0] == "l"), line)


@test("installed: user, units and names are there, nothing runs before there is a configuration, sendmail says what is missing",
      seconds=600, long=True)
def install(scene):
    began = time.monotonic()
    root = scene.machine()
    note("a machine that runs: %.0f s" % (time.monotonic() - began))
    began = time.monotonic()
    root.must("apt-get", "-qq", "update")
    scene.install()
    note("installed: %.0f s" % (time.monotonic() - began))
    holds(root.must("getent", "passwd", "_sendq"), "/var/lib/sendq")
    equal(root.must("stat", "-c", "%U %G %a", "/var/lib/sendq").strip(), "_sendq _sendq 700")
    for path in ("/usr/sbin/sendmail", "/usr/lib/sendmail", "/usr/bin/mailq", "/usr/bin/newaliases"):
        equal(root.must("readlink", "-f", path).strip(), "/usr/sbin/sendq-sendmail")
    holds(root.must("dpkg-query", "-W", "-f", "${Provides}", "sendq"), "mail-transport-agent")
    for unit in ("sendqd.service", "sendq-submit.socket"):
        equal(root.run("systemctl", "is-enabled", unit).out.strip(), "enabled", unit)
        equal(scene.property(unit, "ActiveState"), "inactive", unit)
    equal(root.run("systemctl", "is-enabled", "--global", "sendqd.service", "sendqd.socket", "sendq-smtp.socket").out.split(), ["disabled"] * 3)
    for user in (None, "ann"):
        result = root.run("/usr/sbin/sendmail", "-t", stdin=message(), user=user)
        equal(result.code, EX_CONFIG, repr(result))
        equal(len(result.err.strip().splitlines()), 1, result.err)
        holds(result.err, "sendq.conf")


@test("configured: users and root send by /usr/sbin/sendmail, units as they should be, each sees his own", long=True)
def system_mode(scene):
    root = scene.root
    scene.configure(scene.sink.port)
    scene.start("start", "sendq-submit.socket", "sendqd.service")
    equal(scene.property("sendq-submitd.service", "ActiveState"), "inactive", "nobody connected yet")
    scene.submit("ann", subject="from ann", sender="ann@home.test")
    scene.submit(None, subject="from root", sender="root@" + os.uname().nodename)
    scene.arrived("from ann", "from root")
    envelopes = scene.sink.records()
    true(not any("root@" in str(r) for r in envelopes), "an address of this machine went out: %r" % envelopes)
    equal(root.must("mailq", user="bob"), "Mail queue is empty\n")
    holds(root.must("sendq", "sent", user="ann"), "u001@example.test")
    true("u001" not in root.must("sendq", "sent", user="bob"), "bob sees what ann sent")
    for unit in ("sendqd.service", "sendq-submitd.service"):
        pid = scene.property(unit, "MainPID")
        status = root.must("cat", "/proc/%s/status" % pid)
        uid = root.must("id", "-u", "_sendq").strip()
        equal(set(re.search(r"^Uid:\s+(.*)$", status, re.M).group(1).split()), {uid}, unit)
        holds(status, "NoNewPrivs:\t1", unit)
        equal(re.search(r"^CapEff:\s+(\w+)$", status, re.M).group(1).strip("0"), "", unit + " has capabilities")
        equal(re.search(r"^Seccomp:\s+(\w+)$", status, re.M).group(1), "2", unit + " filters system calls")
        equal(scene.property(unit, "NRestarts"), "0", unit)
    equal(scene.property("sendq-submit.socket", "TriggerLimitIntervalUSec"), "0")
    equal(root.run("systemctl", "--failed", "--plain", "--no-legend").out, "")


@test("what uses the socket may come as often as it likes: thirty starts of sendq-submitd at once do no harm", seconds=240, long=True)
def trigger(scene):
    root = scene.root
    for n in range(30):
        root.must("systemctl", "stop", "sendq-submitd.service")
        scene.submit("ann" if n % 2 else "bob", subject="start %d" % n)
    equal(scene.property("sendq-submit.socket", "ActiveState"), "active")
    scene.arrived(*["start %d" % n for n in range(30)])


@test("the daemons killed come again by themselves, and nothing is lost", seconds=240, long=True)
def killed(scene):
    root = scene.root
    for n, unit in enumerate(("sendqd.service", "sendq-submitd.service", "sendqd.service")):
        scene.submit("ann", subject="before %d" % n)
        pid = scene.property(unit, "MainPID")
        root.must("systemctl", "kill", "-s", "KILL", "--kill-who=main", unit)
        scene.submit("bob", subject="after %d" % n)
        until(lambda: scene.property(unit, "MainPID") not in ("0", pid), 60, unit + " comes again", pause=0.2)
    # One that was on its way in that moment may be in doubt.
    subjects = {"%s %d" % (w, n) for n in range(3) for w in ("before", "after")}

    def accounted():
        texts = [m.decode("utf-8", "replace") for m in scene.sink.messages()]
        doubt = re.findall(r'"state":"doubt"', root.must("sendq", "list", "--json"))
        missing = [s for s in subjects if not any("Subject: %s\r\n" % s in t for t in texts)]
        return len(missing) <= len(doubt)
    try:
        until(accounted, 120, "everything is sent or in doubt", pause=0.5)
    except AssertionError:
        note(scene.journal())
        note(root.must("sendq", "why", *re.findall(r'^\{"id":"(\w+)"', root.must("sendq", "list", "--json"), re.M)))
        raise
    for number in re.findall(r'^\{"id":"(\w+)"', root.must("sendq", "list", "--json"), re.M):
        root.must("sendq", "settle", number, "sent")


@test("set up by root, the password is a credential that systemd decrypts for the service alone; sleep waits while mail is under way", seconds=240, long=True)
def credential(scene):
    root = scene.root
    secrets = certs.Certs(scene.folder)
    answers = threading.Event()

    def final(session, line):
        answers.wait(60)
        return "250 2.0.0 ok"
    server = scripted.Scripted({"FINAL": final}, certs=secrets, implicit=True, users={"me@home.test": "for the service alone"})
    shutil.copy(secrets.ca, root.path + "/etc/sendq/ca.pem")
    os.chmod(root.path + "/etc/sendq/ca.pem", 0o644)
    os.unlink(root.path + "/etc/sendq/sendq.conf")
    result = root.run("sendq", "-C", "/etc/sendq/sendq.conf", "setup", "me@home.test", "--server", "smtps://localhost:%d" % server.port, "--imap", "none",
                      "--ca-file", "/etc/sendq/ca.pem", "--password-stdin", "--store", "credential", "--yes", "--service", "--name", "home",
                      stdin=b"for the service alone\n")
    equal(result.code, 0, "%r\n%s" % (result, scene.journal()))
    equal(root.must("stat", "-c", "%U %G %a", "/etc/sendq/sendq.conf").strip(), "root _sendq 640")
    equal(root.run("grep", "-rl", "for the service alone", "/etc", "/var/lib/systemd").out, "")
    pid = scene.property("sendqd.service", "MainPID")
    folder = re.search(r"^CREDENTIALS_DIRECTORY=(.*)$", root.must("cat", "/proc/%s/environ" % pid).replace("\0", "\n"), re.M).group(1)
    equal(root.must("cat", folder + "/sendq-home"), "for the service alone")
    true(root.run("cat", folder + "/sendq-home", user="ann").code != 0, "a user reads it")
    scene.submit("ann", subject="by credential", sender="me@home.test")
    until(lambda: "committing" in root.must("sendq", "list", "--json"), 30, "a message is in commit", pause=0.2)
    # Only with polkit may others than root delay sleep.
    listed = root.must("systemd-inhibit", "--list", "--no-pager", "--no-legend")
    true("sendq" in listed or root.run("test", "-e", "/usr/lib/polkit-1/polkitd").code != 0, listed)
    note(listed)
    answers.set()
    until(lambda: server.messages, 30, "it is sent")
    until(lambda: "sendq" not in root.must("systemd-inhibit", "--list", "--no-pager", "--no-legend"), 30, "sleep is not delayed any more", pause=0.2)
    os.unlink(root.path + "/etc/sendq/ca.pem")  # a file of the machine's own, which no purge removes
    scene.configure(scene.sink.port)
    scene.start("restart", "sendqd.service")


@test("a user's own queue: units for the user, started by mail, SMTP on loopback for him alone", seconds=240, long=True)
def user_units(scene):
    root = scene.root
    root.must("loginctl", "enable-linger", "ann")
    uid = root.must("id", "-u", "ann").strip()
    until(lambda: root.exists("/run/user/%s/systemd/private" % uid) or root.run("test", "-S", "/run/user/%s/systemd/private" % uid).code == 0, 60,
          "ann's own systemd")
    env = {"XDG_RUNTIME_DIR": "/run/user/" + uid}
    root.must("mkdir", "-p", "/home/ann/.config/sendq", user="ann")
    root.write("/home/ann/.config/sendq/sendq.conf", (CONFIG % scene.sink.port).replace('log = "debug"', 'log = "info"'), 0o600)
    root.must("chown", "ann:", "/home/ann/.config/sendq/sendq.conf")
    root.must("systemctl", "--user", "enable", "--now", "sendqd.socket", "sendq-smtp.socket", user="ann", **env)

    def state(unit):
        return root.must("systemctl", "--user", "show", "-P", "ActiveState", unit, user="ann", **env).strip()

    equal(state("sendqd.service"), "inactive")
    scene.submit("ann", subject="own queue", sender="ann@home.test")
    until(lambda: state("sendqd.service") == "active", 30, "sendqd was started by mail")
    scene.arrived("own queue")
    client = """
import smtplib, sys
s = smtplib.SMTP("127.0.0.1", 2525)
s.sendmail("ann@home.test", ["u001@example.test"], "Subject: by loopback\\r\\n\\r\\nx\\r\\n")
s.quit()
"""
    root.must("apt-get", "-qq", "-y", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0", "install", "python3", seconds=300)
    root.must("python3", "-c", client, user="ann")
    scene.arrived("by loopback")
    result = root.run("python3", "-c", client, user="bob")
    true(result.code != 0 and "554" in result.err, "bob speaks to ann's: %r" % result)
    holds(root.must("sendq", "sent", "--json", user="ann"), "u001@example.test")
    root.must("systemctl", "--user", "disable", "--now", "sendqd.socket", "sendq-smtp.socket", "sendqd.service", user="ann", **env)
    root.must("loginctl", "disable-linger", "ann")
    root.must("rm", "-r", "/home/ann/.config/sendq", "/home/ann/.local/state/sendq")


@test("cron, as Debian has it: a job's output arrives from an address that the provider takes", seconds=400, long=True)
def cron(scene):
    root = scene.root
    root.must("apt-get", "-qq", "-y", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0", "install", "cron", seconds=300)
    before = len(scene.sink.messages())
    root.must("crontab", "-", user="ann", stdin=b"* * * * * echo the disk is full; echo .; echo end\n")
    root.must("crontab", "-", stdin=b"* * * * * echo root says so\n")
    until(lambda: len(scene.sink.messages()) >= before + 2, 150, "mail of cron", pause=1)
    for user in ("ann", None):
        root.must("crontab", "-r", user=user)
    texts = [m.decode() for m in scene.sink.messages()[before:]]
    anns = next(t for t in texts if "the disk is full" in t)
    holds(anns, "the disk is full\r\n.\r\nend\r\n")
    holds(anns, "Subject: Cron <ann@")
    holds(next(t for t in texts if "root says so" in t), "Subject: Cron <root@")
    for text in texts:
        true(re.search(r"^From: .*<me@home\.test>\r$", text, re.M), text)
    for record in scene.sink.records():
        true(os.uname().nodename + ">" not in str(record), repr(record))


@test("upgraded with mail in the queue: it stays, what is handed in meanwhile is kept, and all of it goes once", seconds=400, long=True)
def upgrade(scene):
    root = scene.root
    next_version(scene)
    scene.configure(scene.dead)
    scene.start("restart", "sendqd.service")
    held = [scene.submit(user, subject="kept %d" % n) for n, user in enumerate(("ann", "bob", None))]
    queued, failed, end = [], [], threading.Event()

    def keep_sending():
        while not end.is_set():
            result = root.run("/usr/sbin/sendmail", "-t", user="bob", stdin=message(subject="meanwhile %d" % len(queued)))
            if result.code == 0:
                queued.append(len(queued))
            else:
                failed.append(repr(result))

    sender = threading.Thread(target=keep_sending)
    sender.start()
    try:
        scene.install(version=NEXT)
    finally:
        end.set()
        sender.join()
    equal(failed, [], "sendmail while the package was replaced")
    note("%d messages were handed in meanwhile" % len(queued))
    true(queued, "nothing was handed in")
    holds(root.must("dpkg-query", "-W", "sendq"), NEXT)
    left = re.findall(r'^\{"id":"(\w+)"', root.must("sendq", "list", "--json"), re.M)
    equal(left[:3], held)
    equal(len(left), 3 + len(queued))
    equal(scene.property("sendqd.service", "ActiveState"), "active")
    scene.configure(scene.sink.port)
    equal(root.run("sendq", "flush", seconds=300).code, 0)
    for copies in scene.arrived(*["kept %d" % n for n in range(3)] + ["meanwhile %d" % n for n in queued]):
        equal(len(copies), 1, "copies")


def next_version(scene):
    """The same package with a higher version, and programs that are other files."""
    folder = scene.folder + "/next"
    subprocess.run(["dpkg-deb", "-R", scene.debs("sendq", "0.1.0")[0], folder], check=True)
    with open(folder + "/DEBIAN/control") as f:
        text = f.read()
    with open(folder + "/DEBIAN/control", "w") as f:
        f.write(re.sub(r"(?m)^Version: .*$", "Version: " + NEXT, text))
    name = "/sendq_%s_all.deb" % NEXT
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", folder, scene.packages + name], check=True, stdout=subprocess.DEVNULL)
    shutil.copy(scene.packages + name, scene.root.path + "/packages")


@test("removed with mail in the queue: says how much and where; installed again, it goes", seconds=400, long=True)
def remove(scene):
    root = scene.root
    scene.configure(scene.dead)
    scene.start("restart", "sendqd.service")
    scene.submit("ann", subject="over removal 1")
    scene.submit("bob", subject="over removal 2")
    result = root.run("apt-get", "-qq", "-y", "remove", "sendq", seconds=300)
    equal(result.code, 0, repr(result))
    holds(result.out + result.err, "2 queued messages stay in " + QUEUE)
    true(root.exists(QUEUE) and root.exists("/etc/sendq/sendq.conf"), "queue and configuration stay")
    true(not root.exists("/usr/sbin/sendmail"), "the program is gone")
    equal(root.run("systemctl", "is-active", "sendqd.service", "sendq-submit.socket", "sendq-submitd.service").out.split(), ["inactive"] * 3)
    scene.configure(scene.sink.port)
    scene.install(version=NEXT)
    for copies in scene.arrived("over removal 1", "over removal 2"):
        equal(len(copies), 1, "copies")


@test("purged: asks nothing, keeps a queue that is not empty and says so; a queue that is empty goes", seconds=400, long=True)
def purge(scene):
    root = scene.root
    scene.configure(scene.dead)
    scene.start("restart", "sendqd.service")
    for n in range(3):
        scene.submit("ann", subject="purged %d" % n)
    result = root.run("apt-get", "-qq", "-y", "purge", "sendq", seconds=300)
    equal(result.code, 0, repr(result))
    holds(result.out + result.err, "3 queued messages are in " + QUEUE)
    true(root.exists(QUEUE), "the queue is gone")
    true(not root.exists("/etc/sendq"), "the configuration stays")
    # Again: with the programs of a new installation it is all there
    scene.install(version=NEXT)
    scene.configure(scene.sink.port)
    scene.start("start", "sendq-submit.socket", "sendqd.service")
    scene.arrived(*["purged %d" % n for n in range(3)])
    until(lambda: root.must("mailq") == "Mail queue is empty\n", 30, "the queue is empty")
    # A queue of which nobody could say what is in it
    scene.root.write("/etc/sendq/sendq.conf", "nonsense;\n", 0o640)
    result = root.run("apt-get", "-qq", "-y", "purge", "sendq", seconds=300)
    holds(result.out + result.err, "may hold")
    true(root.exists(QUEUE), "a queue that could not be read is gone")
    scene.install(version=NEXT)
    scene.configure(scene.dead)
    scene.start("start", "sendq-submit.socket", "sendqd.service")
    equal(root.must("mailq"), "Mail queue is empty\n")
    result = root.run("apt-get", "-qq", "-y", "purge", "sendq", seconds=300)
    equal(result.code, 0, repr(result))
    true("queued" not in result.out + result.err, repr(result))
    true(not root.exists("/var/lib/sendq"), "an empty queue stays")
    equal(root.must("systemctl", "--failed", "--plain", "--no-legend"), "")


@test("gateway and dedup install beside another mail server; sendq takes the place of one", seconds=400, long=True)
def beside(scene):
    root = scene.root
    out = root.must("apt-get", "-s", "install", *["/packages/" + os.path.basename(p) for n in ("sendq-gateway", "sendq-dedup") for p in scene.debs(n)],
                    "postfix")
    equal(sorted(re.findall(r"^Inst (sendq\S*|postfix) ", out, re.M)), ["postfix", "sendq-dedup", "sendq-gateway"])
    root.must("apt-get", "-qq", "-y", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0", "install", "nullmailer", seconds=300)
    scene.install(version=NEXT)
    equal(root.run("dpkg-query", "-W", "-f", "${db:Status-Status}", "nullmailer").out, "config-files")
    equal(root.must("readlink", "-f", "/usr/sbin/sendmail").strip(), "/usr/sbin/sendq-sendmail")
    for name in ("sendq-gateway", "sendq-dedup"):
        scene.install(name)
        root.must(name, "--version")


if __name__ == "__main__":
    main(Scene, Scene.stop)
