"""The usual scene with a provider that files sent mail: Postfix gives the sender a copy, Dovecot shows it as the Sent folder."""
import os
import shutil

from . import dovecot
from .world import World

FILED = "u999"  # whose Maildir is Ann's Sent folder


class Filing(World):
    def __init__(self, name, **postfix_settings):
        super().__init__(name, **postfix_settings, more="sender_bcc_maps = inline:{ann@example.test=%s@example.test}\n" % FILED)
        self.imap = dovecot.Dovecot(self.folder + "/imap", self.certs, self.folder + "/mail", relay_port=self.postfix.port,
                                    servers=True)
        self.sent_folder(True)

    def sent_folder(self, files):
        """Does the provider file sent mail, or is the Sent folder one of its own that nobody writes?"""
        sent = os.path.join(self.folder, "mail", "ann", ".Sent")
        os.makedirs(os.path.dirname(sent), exist_ok=True)
        if os.path.islink(sent):
            os.unlink(sent)
        elif os.path.isdir(sent):
            shutil.rmtree(sent)
        target = os.path.join(self.folder, "mail", FILED if files else "nobody-files-here")
        for part in ("new", "cur", "tmp"):
            os.makedirs(os.path.join(target, part), exist_ok=True)
        for path, folders, names in os.walk(os.path.join(self.folder, "mail")):
            for entry in [path] + [os.path.join(path, n) for n in names]:
                os.chown(entry, 65534, 65534, follow_symlinks=False)
        os.symlink(target, sent)
        os.chown(sent, 65534, 65534, follow_symlinks=False)

    def account(self, rules, **more):
        """sendq with an account whose link has these rules: (sendq, link, clock)."""
        link = self.link(self.postfix.smtps, rules)
        settings = {"imap": "imaps://localhost:%d" % self.imap.imaps_port, **more}
        q = self.sendq({k: v for k, v in self.tls(link.port, "smtps", **settings).items() if v is not None})
        clock = os.path.join(q.folder, "clock")
        q.extra_env["SENDQ_TEST_CLOCK"] = clock
        return q, link, Clock(clock)

    def stop(self):
        self.imap.stop()
        super().stop()


class Clock:
    def __init__(self, path):
        self.path, self.shift = path, 0

    def forward(self, ms):
        self.shift += ms
        with open(self.path + ".new", "w") as f:
            f.write("%d\n" % self.shift)
        os.rename(self.path + ".new", self.path)
