"""The usual scene: certificates, Dovecot's logins, Postfix, a link that may break, and sendq on it."""
import os

from . import certs, dovecot, links, postfix, process, sendq

USER, PASSWORD = "ann@example.test", dovecot.USERS["ann@example.test"]


class World:
    def __init__(self, name, tokeninfo=None, **postfix_settings):
        self.folder = process.temp_folder(name)
        self.certs = certs.Certs(self.folder)
        self.logins = dovecot.Dovecot(self.folder, self.certs, self.folder + "/mail", tokeninfo=tokeninfo)
        self.postfix = postfix.Postfix(self.folder, self.certs, self.logins.auth_port, **postfix_settings)
        self._users = iter(postfix.USERS[11:])
        self._n = 0
        self._links = []

    def user(self):
        """An address nobody has used yet; its Maildir has the local part's name."""
        return next(self._users)

    def link(self, port, rules=""):
        self._n += 1
        folder = "%s/link%d" % (self.folder, self._n)
        os.makedirs(folder)
        link = links.BadLink(folder, port, rules)
        self._links.append(link)
        return link

    def plain(self, port, **more):
        """Route settings for a plain connection without a login."""
        return sendq.route("smtp://127.0.0.1:%d" % port, tls="none", **more)

    def tls(self, port, scheme="smtp", **more):
        """Route settings for TLS and a login."""
        settings = {"user": USER, "password": PASSWORD, "ca_file": self.certs.ca, **more}
        return sendq.route("%s://localhost:%d" % (scheme, port), **settings)

    def sendq(self, *routes, **settings):
        self._n += 1
        return sendq.Sendq(self.folder, list(routes), name="sendq%d" % self._n, **settings)

    def stop(self):
        for link in self._links:
            link.stop()
        self.postfix.stop()
        self.logins.stop()
