#!/usr/bin/python3
"""The recipes for receivers: second and partial copies are filed, never dropped, whichever comes first.

Each row is delivered by the real program of each kind: Dovecot's delivery agent with Pigeonhole, procmail with
formail, maildrop with reformail, and notmuch with its hook over a Maildir that something else fills.
"""
import glob
import os
import pwd
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import process  # noqa: E402
from harness.tap import Skip, add, equal, holds, main, test, true  # noqa: E402

CONTRIB = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "contrib")
FILTERS = os.path.abspath(os.path.join(CONTRIB, "filters"))
FOLDERS = {"inbox": "", "Partial": ".Partial/", "Duplicates": ".Duplicates/"}


def multipart(parameter='boundary="Edge=1"', edge="Edge=1", name="a"):
    return ("From: a@example.test\nTo: b@example.test\nSubject: x\nMessage-ID: <%s@example.test>\n"
            "MIME-Version: 1.0\nContent-Type: multipart/mixed;\n %s\n\n"
            "--%s\n\nfirst\n--%s\n\nsecond\n--%s--\n" % (name, parameter, edge, edge, edge)).encode()


WHOLE = multipart()
CUT = WHOLE[:-len(b"-\n")]  # one octet of the closing boundary is missing
HEADER = WHOLE[:WHOLE.index(b"MIME-Version")] + b"\n"  # cut in the header, and closed by who delivers it
BARE = multipart("boundary=Edge", "Edge")
MIDDLE = multipart("boundary=Edge; charset=utf-8", "Edge")
LOUD = multipart("BOUNDARY=Edge", "Edge")
ODD = multipart('boundary="+(Ed.g)e\'=?_1/:,"', "+(Ed.g)e'=?_1/:,")
SMALL = multipart('boundary="edge"', "edge").replace(b"--edge--", b"--EDGE--")  # closes another part, not this message
NESTED = multipart().replace(b"first\n", b"Content-Type: multipart/alternative; boundary=in\n\n--in\n\nx\n--in--\n")
PLAIN = b"From: a@example.test\nMessage-ID: <p@example.test>\n\nplain\n"
EMPTY = b"From: a@example.test\nMessage-ID: <p@example.test>\n\n"
NAMELESS = b"From: a@example.test\nSubject: no id\n\nplain\n"

# what arrives, in this order; how many in the inbox, in Partial, in Duplicates
ROWS = {
    "whole twice": ([WHOLE, WHOLE], (1, 0, 1)),
    "partial first, whole after": ([CUT, WHOLE], (1, 1, 0)),
    "whole first, partial after": ([WHOLE, CUT], (1, 1, 0)),
    "partial twice, whole twice": ([CUT, CUT, WHOLE, WHOLE], (1, 2, 1)),
    "cut between two parts, then whole": ([WHOLE[:WHOLE.index(b"second")], WHOLE], (1, 1, 0)),
    "cut behind an inner closing boundary, then whole": ([NESTED[:NESTED.index(b"second")], NESTED], (1, 1, 0)),
    "cut in the header, then whole twice": ([HEADER, WHOLE, WHOLE], (2, 0, 1)),
    "without a body, then whole": ([EMPTY, PLAIN], (2, 0, 0)),
    "a boundary without quotes": ([BARE[:-6], BARE, BARE], (1, 1, 1)),
    "a boundary before another parameter": ([MIDDLE[:-6], MIDDLE, MIDDLE], (1, 1, 1)),
    "a boundary in capitals": ([LOUD[:-6], LOUD, LOUD], (1, 1, 1)),
    "a boundary of odd characters": ([ODD[:-3], ODD, ODD], (1, 1, 1)),
    "a boundary in another case is another": ([SMALL, SMALL], (0, 2, 0)),
    "a single part twice": ([PLAIN, PLAIN], (1, 0, 1)),
    "two without a Message-ID": ([NAMELESS, NAMELESS.replace(b"plain", b"other")], (2, 0, 0)),
    "two messages of their own": ([WHOLE, multipart(name="b")], (2, 0, 0)),
}


class Receivers:
    """A folder for each mailbox, owned by an ordinary user."""

    def __init__(self):
        self.folder, self._n = process.temp_folder("downstream"), 0
        self.user = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())

    def _own(self):
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(self.user.pw_gid)
            os.setuid(self.user.pw_uid)

    def home(self):
        self._n += 1
        home = os.path.join(self.folder, str(self._n))
        os.mkdir(home)
        self.mine(home)
        return home

    def mine(self, path):
        if os.getuid() == 0:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)

    def run(self, args, home, data=b"", **env):
        done = subprocess.run(args, input=data, capture_output=True, timeout=20, preexec_fn=self._own, cwd=home,
                              env={"HOME": home, "USER": self.user.pw_name, "LOGNAME": self.user.pw_name,
                                   "PATH": os.environ["PATH"], **env})
        equal(done.returncode, 0, "%s: %r %r" % (args[0], done.stdout[-2000:], done.stderr[-2000:]))
        return done.stdout.decode()

    def write(self, home, name, text):
        path = os.path.join(home, name)
        with open(path, "w") as f:
            f.write(text)
        self.mine(path)
        return path


def need(*programs):
    for p in programs:
        if not shutil.which(p):
            raise Skip("'%s' is not installed" % p)


def folders(home, messages, places=FOLDERS, root="Maildir/"):
    """How many messages in each folder; every one that was delivered is in one of them, whole but for the last line end."""
    found, kept = {}, []
    for name, place in places.items():
        files = [p for part in ("new", "cur") for p in glob.glob(os.path.join(home, root + place, part, "*"))]
        found[name] = len(files)
        for path in files:
            with open(path, "rb") as f:
                kept.append(f.read().replace(b"\r\n", b"\n").rstrip(b"\n"))
    for data in messages:
        same = [k for k in kept if k.endswith(data.rstrip(b"\n"))]
        true(same, "a message is in no folder: %r" % data)
        kept.remove(same[0])
    return found


# ---- Pigeonhole ----

DOVECOT = """
mail_location = maildir:%(home)s/Maildir
protocols =
ssl = no
log_path = %(home)s/log
postmaster_address = postmaster@example.test
base_dir = %(home)s/run
protocol lda {
  mail_plugins = sieve
}
plugin {
  sieve = file:%(home)s/sieve;active=%(home)s/%(script)s
}
"""


def pigeonhole(receivers, messages, script="sendq.sieve"):
    lda = "/usr/lib/dovecot/dovecot-lda"
    if not os.path.exists(lda):
        raise Skip("'%s' is not installed" % lda)
    need("sievec")
    home = receivers.home()
    shutil.copy(os.path.join(CONTRIB, "sieve", "sendq.sieve"), home)
    config = receivers.write(home, "dovecot.conf", DOVECOT % {"home": home, "script": script})
    for data in messages:
        receivers.run([lda, "-c", config], home, data.replace(b"\n", b"\r\n"))
    return folders(home, messages)


# ---- procmail, maildrop ----

def procmail(receivers, messages):
    need("procmail", "formail")
    home = receivers.home()
    os.mkdir(home + "/Maildir")
    receivers.mine(home + "/Maildir")
    # procmail takes HOME from the password file, whatever the environment says.
    receivers.write(home, ".procmailrc", "HOME=%s\nMAILDIR=$HOME/Maildir\nDEFAULT=$HOME/Maildir/\n"
                    "INCLUDERC=%s/sendq.procmailrc\n" % (home, FILTERS))
    for data in messages:
        receivers.run(["procmail", home + "/.procmailrc"], home, data)
    return folders(home, messages)


def maildrop(receivers, messages, whole=FILTERS + "/sendq-whole"):
    need("maildrop", "reformail")
    home = receivers.home()
    for part in ("", "/cur", "/new", "/tmp"):
        os.mkdir(home + "/Maildir" + part)
        receivers.mine(home + "/Maildir" + part)
    # maildrop takes HOME from the password file, whatever the environment says.
    rc = receivers.write(home, ".mailfilter", 'HOME="%s"\nSENDQ_WHOLE="%s"\ninclude "%s/sendq.mailfilter"\n'
                         'to "$HOME/Maildir"\n' % (home, whole, FILTERS))
    os.chmod(rc, 0o600)
    for data in messages:
        receivers.run(["maildrop", rc], home, data)
    return folders(home, messages)


# ---- notmuch ----

class Notmuch:
    """A mail root with an INBOX that is filled from elsewhere, and the hook as a user installs it."""

    def __init__(self, receivers):
        need("notmuch")
        self.r, self.n = receivers, 0
        self.home = receivers.home()
        self.call = {"NOTMUCH_CONFIG": self.home + "/config"}
        for part in ("mail", "mail/INBOX", "mail/INBOX/cur", "mail/INBOX/new", "mail/INBOX/tmp", "mail/Sent", "mail/Sent/cur",
                     "mail/Sent/new", "mail/Sent/tmp", "mail/.notmuch", "mail/.notmuch/hooks"):
            os.mkdir(os.path.join(self.home, part))
            receivers.mine(os.path.join(self.home, part))
        receivers.write(self.home, "config", "[database]\npath=%s/mail\n[user]\nprimary_email=a@example.test\n"
                        "[new]\ntags=unread;inbox\nignore=superseded\n" % self.home)
        shutil.copy(FILTERS + "/notmuch-post-new", self.home + "/mail/.notmuch/hooks/post-new")
        shutil.copy(FILTERS + "/sendq-whole", self.home + "/mail/.notmuch/hooks/")
        self("new")

    def __call__(self, *args):
        return self.r.run(["notmuch"] + list(args), self.home, **self.call)

    def arrive(self, data, folder="INBOX", new=True):
        self.n += 1
        path = self.r.write(self.home, "mail/%s/new/%d.m.host" % (folder, self.n), data.decode())
        os.utime(path, (1700000000 + self.n, 1700000000 + self.n))
        if new:
            self("new")

    def folders(self, messages):
        return folders(self.home, messages, {"inbox": "INBOX/", "Partial": "Partial/", "Duplicates": "Duplicates/"}, "mail/")


def notmuch(receivers, messages):
    n = Notmuch(receivers)
    for data in messages:
        n.arrive(data)
    place = n.home + "/mail/Partial/superseded"
    gone = os.listdir(place) if os.path.isdir(place) else []
    for name in gone:  # counted where they were before
        os.rename(os.path.join(place, name), os.path.join(n.home, "mail/Partial/cur", name))
    return n.folders(messages)


KINDS = {"Pigeonhole": pigeonhole, "procmail": procmail, "maildrop": maildrop, "notmuch": notmuch}


def row(kind, messages, counts):
    def run(receivers):
        equal(kind(receivers, messages), dict(zip(("inbox", "Partial", "Duplicates"), counts)))
    return run


for kind_, function in KINDS.items():
    for title, (messages_, counts_) in ROWS.items():
        if not (kind_ == "notmuch" and HEADER in messages_):  # it takes a header alone for no mail
            add("%s: %s" % (kind_, title), row(function, messages_, counts_))


@test("Pigeonhole: included by a script of the user's own")
def included(receivers):
    home = receivers.home()
    script = 'require ["include", "imap4flags"];\ninclude :personal "sendq";\naddflag "mine";\n'
    need("sievec")
    os.mkdir(home + "/sieve")
    receivers.mine(home + "/sieve")
    shutil.copy(os.path.join(CONTRIB, "sieve", "sendq.sieve"), home + "/sieve/sendq.sieve")
    receivers.write(home, "own.sieve", script)
    config = receivers.write(home, "dovecot.conf", DOVECOT % {"home": home, "script": "own.sieve"})
    for data in (CUT, WHOLE, WHOLE):
        receivers.run(["/usr/lib/dovecot/dovecot-lda", "-c", config], home, data.replace(b"\n", b"\r\n"))
    equal(folders(home, [CUT, WHOLE, WHOLE]), {"inbox": 1, "Partial": 1, "Duplicates": 1})


@test("maildrop: without sendq-whole everything goes to the inbox, and nothing is remembered")
def whole_is_missing(receivers):
    equal(maildrop(receivers, [CUT, WHOLE, WHOLE], "/nonexistent/sendq-whole"), {"inbox": 3, "Partial": 0, "Duplicates": 0})


@test("notmuch: the whole message behind a partial one is shown, and is new again")
def notmuch_shows(receivers):
    n = Notmuch(receivers)
    n.arrive(CUT)
    equal(n("search", "--output=tags", "*").split(), ["inbox", "partial", "unread"])
    n("tag", "-unread", "-inbox", "--", "*")
    n.arrive(WHOLE)
    equal(n("search", "--output=tags", "*").split(), ["inbox", "unread"])
    files = n("search", "--output=files", "*").split()
    equal(len(files), 1, "files in the index: %s" % files)
    with open(files[0], "rb") as f:
        equal(f.read(), WHOLE)
    n("tag", "-unread", "--", "*")
    n("new")
    equal(n("search", "--output=tags", "*").split(), ["inbox"], "after another run")


@test("notmuch: several that came between two runs; the oldest whole copy stays")
def notmuch_at_once(receivers):
    n = Notmuch(receivers)
    for data in (CUT, WHOLE, WHOLE, CUT, PLAIN):
        n.arrive(data, new=False)
    n("new")
    equal(sorted(os.listdir(n.home + "/mail/INBOX/new") + os.listdir(n.home + "/mail/INBOX/cur")), ["2.m.host", "5.m.host"])
    equal(len(os.listdir(n.home + "/mail/Partial/superseded")), 2)
    equal(len(os.listdir(n.home + "/mail/Duplicates/cur")), 1)


@test("notmuch: one's own copy in Sent is neither moved nor the first copy")
def notmuch_sent(receivers):
    n = Notmuch(receivers)
    n.arrive(WHOLE, "Sent")
    n.arrive(WHOLE)
    equal(n.folders([WHOLE]), {"inbox": 1, "Partial": 0, "Duplicates": 0})
    equal(len(os.listdir(n.home + "/mail/Sent/cur") + os.listdir(n.home + "/mail/Sent/new")), 1)


@test("notmuch: mail that was there before the hook is left alone; without new.ignore nothing is done")
def notmuch_first(receivers):
    n = Notmuch(receivers)
    os.unlink(n.home + "/mail/.notmuch/sendq-post-new")
    for data in (WHOLE, WHOLE, CUT):
        n.arrive(data, new=False)
    n("new")
    n("new")
    equal(n.folders([]), {"inbox": 3, "Partial": 0, "Duplicates": 0})
    n("config", "set", "new.ignore")
    n.arrive(multipart(name="b")[:-4], new=False)
    done = subprocess.run(["notmuch", "new"], env={**os.environ, "HOME": n.home, **n.call}, capture_output=True, timeout=20,
                          preexec_fn=receivers._own, cwd=n.home)
    holds(done.stderr.decode(), "lacks the word 'superseded'")
    equal(n.folders([]), {"inbox": 4, "Partial": 0, "Duplicates": 0})


if __name__ == "__main__":
    main(Receivers)
