"""Dovecot of its own: logins for Postfix (auth socket over TCP), IMAP, and the submission server.

What an IMAP client says is kept where its user's home has a folder `rawlog`.
"""
import os

from . import process

USERS = {"ann@example.test": "correct horse", "bob@example.test": "battery staple"}

CONFIG = """
protocols = {protocols}
listen = 127.0.0.1
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
auth_mechanisms = {mechanisms}
disable_plaintext_auth = no
ssl = yes
ssl_cert = <{cert}
ssl_key = <{key}
first_valid_uid = 100
mail_location = maildir:{mail}/%n
rawlog_dir = {mail}/%n/rawlog
hostname = localhost
submission_relay_host = 127.0.0.1
submission_relay_port = {relay}
submission_relay_trusted = no
submission_relay_ssl = no
submission_max_mail_size = {size}
{oauth}passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {folder}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={mail}/%n
}}
namespace inbox {{
  inbox = yes
  mailbox Sent {{
    auto = create
    special_use = \Sent
  }}
}}
service auth {{
  inet_listener {{
    address = 127.0.0.1
    port = {auth}
  }}
}}
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service submission-login {{
  inet_listener submission {{
    port = {submission}
  }}
}}
"""

OAUTH = """passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {folder}/oauth2.conf.ext
}}
"""


class Dovecot:
    def __init__(self, folder, certs, mail, relay_port=25, servers=False, size=60000000, tokeninfo=None):
        """`servers`: IMAP and submission too, relaying to relay_port; else logins only.
        `tokeninfo`: address of who knows OAuth tokens; then they are the only login."""
        self.folder = os.path.join(folder, "dovecot")
        self.auth_port, self.imap_port, self.imaps_port, self.port = (process.free_port() for _ in range(4))
        for name in ("", "run", "state"):
            os.makedirs(os.path.join(self.folder, name), exist_ok=True)
        with open(os.path.join(self.folder, "users"), "w") as f:
            for user, password in USERS.items():
                f.write("%s:{PLAIN}%s\n" % (user, password))
        if tokeninfo:
            with open(os.path.join(self.folder, "oauth2.conf.ext"), "w") as f:
                f.write("tokeninfo_url = %s\nusername_attribute = email\n" % tokeninfo)
        config = os.path.join(self.folder, "dovecot.conf")
        with open(config, "w") as f:
            f.write(CONFIG.format(protocols="imap submission" if servers else "", mechanisms="xoauth2 oauthbearer" if tokeninfo else "plain login cram-md5",
                                  oauth=OAUTH.format(folder=self.folder) if tokeninfo else "", folder=self.folder, cert=certs.cert,
                                  key=certs.key, mail=mail, relay=relay_port, auth=self.auth_port,
                                  imap=self.imap_port, imaps=self.imaps_port, submission=self.port, size=size))
        self.process = process.Process(["/usr/sbin/dovecot", "-F", "-c", config], os.path.join(self.folder, "stderr"))
        process.wait_for(lambda: process.answers(self.auth_port) and (not servers or process.answers(self.port)),
                         self.process)

    def log(self):
        with open(os.path.join(self.folder, "dovecot.log")) as f:
            return f.read()

    def stop(self):
        self.process.stop()
