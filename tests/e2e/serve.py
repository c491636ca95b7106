#!/usr/bin/python3
"""The receiving end for contrib/try: Postfix with TLS and logins, until SIGTERM or the end of stdin.

serve.py serve FOLDER            prints shell assignments (submission=PORT smtps=PORT ca=FILE cert=FILE key=FILE
                                 user=ADDRESS password=WORDS mail=FOLDER), then waits
serve.py copies MAIL USER ID     how many copies with this Message-ID the user's Maildir holds
serve.py sums MAIL USER ID       SHA-256 of each, less the trace fields that the server put on top
"""
import hashlib
import os
import shlex
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import certs, dovecot, postfix, world  # noqa: E402


def serve(folder):
    os.chmod(folder, 0o755)
    keys = certs.Certs(folder)
    logins = dovecot.Dovecot(folder, keys, folder + "/mail")
    server = postfix.Postfix(folder, keys, logins.auth_port)
    for name, value in (("submission", server.submission), ("smtps", server.smtps), ("ca", keys.ca), ("cert", keys.cert), ("key", keys.key),
                        ("user", world.USER), ("password", world.PASSWORD), ("mail", server.mail)):
        print("%s=%s" % (name, shlex.quote(str(value))))
    print("ready", flush=True)
    signal.signal(signal.SIGTERM, lambda s, f: os.close(0))
    try:
        os.read(0, 1)
    except OSError:
        pass
    server.stop()
    logins.stop()


def found(mail, user, identity):
    folder = os.path.join(mail, user, "new")
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        with open(os.path.join(folder, name), "rb") as f:
            octets = f.read()
        if identity.encode() in octets:
            yield octets


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    elif sys.argv[1] == "copies":
        print(len(list(found(*sys.argv[2:5]))))
    elif sys.argv[1] == "sums":
        for copy in found(*sys.argv[2:5]):
            print(hashlib.sha256(postfix.without_trace(copy)).hexdigest())
    else:
        sys.exit(__doc__)
