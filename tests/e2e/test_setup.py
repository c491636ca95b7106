#!/usr/bin/python3
"""sendq setup: from an address to a configuration that sends, with Postfix and Dovecot as the provider.

The look-ups go to servers of the tests' own: HTTPS for autoconfig files, a name server for SRV.
"""
import http.server
import json
import os
import re
import ssl
import stat
import subprocess
import threading
import time

from harness import dovecot, postfix, process
from harness.filing import Filing
from harness.names import Names
from harness.oauth import CLIENT, Oauth
from harness.person import Terminal
from harness.tap import equal, holds, main, test, true
from harness.world import PASSWORD, USER

CONFIG = """<?xml version="1.0" encoding="UTF-8"?>
<clientConfig version="1.1"><emailProvider id="example.test"><domain>example.test</domain>
<incomingServer type="pop3"><hostname>localhost</hostname><port>1</port><socketType>SSL</socketType></incomingServer>
<incomingServer type="imap"><hostname>localhost</hostname><port>%(imaps)d</port><socketType>SSL</socketType>
 <username>%%EMAILADDRESS%%</username><authentication>password-cleartext</authentication></incomingServer>
<outgoingServer type="smtp"><hostname>localhost</hostname><port>25</port><socketType>plain</socketType></outgoingServer>
<outgoingServer type="smtp"><hostname>localhost</hostname><port>%(submission)d</port><socketType>STARTTLS</socketType></outgoingServer>
<outgoingServer type="smtp"><hostname>localhost</hostname><port>%(smtps)d</port><socketType>SSL</socketType>
 <username>%%EMAILLOCALPART%%@%%EMAILDOMAIN%%</username><authentication>password-cleartext</authentication></outgoingServer>
</emailProvider></clientConfig>"""


class Scene(Filing):
    def __init__(self):
        super().__init__("setup")
        self.names = Names()
        self.files, self.asked = {}, []
        scene = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                scene.asked.append(self.path)
                body = scene.files.get(self.path.split("?")[0])
                self.send_response(200 if body is not None else 404)
                self.end_headers()
                self.wfile.write((body or "").encode())

            def log_message(self, *args):
                pass

        self.https = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certs.cert, self.certs.key)
        self.https.socket = context.wrap_socket(self.https.socket, server_side=True)
        threading.Thread(target=self.https.serve_forever, daemon=True).start()
        self.base = "https://localhost:%d" % self.https.server_address[1]
        self.xml = CONFIG % {"imaps": self.imap.imaps_port, "smtps": self.postfix.smtps, "submission": self.postfix.submission}

    def fresh(self, files=True):
        """A user without a configuration."""
        q = self.sendq(self.plain(self.postfix.port))
        os.unlink(q.config)
        q.extra_env.update(SENDQ_TEST_AUTOCONFIG=self.base, SENDQ_TEST_RESOLVER="127.0.0.1:%d" % self.names.port)
        self.files = {"/autoconfig.example.test/mail/config-v1.1.xml": self.xml} if files else {}
        self.names.records, self.names.asked, self.asked = {}, [], []
        return q

    def stop(self):
        self.https.shutdown()
        self.https.server_close()
        super().stop()


def setup(world, q, *args, stdin=PASSWORD + "\n", code=0, address=USER):
    done = q.status("setup", address, "--ca-file", world.certs.ca, *args, stdin=stdin.encode())
    if code is not None:
        equal(done.code, code, "sendq setup: %r" % done)
    true(PASSWORD not in done.out + done.err, "the password is said")
    return done


@test("an address is enough: autoconfig, certificate, login, Sent folder; a test message goes, and the server is seen to file it")
def whole(world):
    q = world.fresh()
    done = setup(world, q, "--password-stdin", "--test", "u010@example.test", "--no-service")
    q.end_autostarted()
    holds(done.out, "autoconfig: ")
    holds(done.out, "certificate for localhost")
    holds(done.out, "Login ok")
    holds(done.out, "Folder of sent mail: 'Sent'")
    holds(done.out, "Accepted for u010@example.test: 250 2.0.0 Ok")
    holds(done.out, "The server files what it sends")
    holds(world.asked[0], "emailaddress=ann%40example.test")
    world.postfix.settled("u010", 1)
    equal(stat.S_IMODE(os.stat(q.config).st_mode), 0o600)
    text = open(q.config).read()
    holds(text, 'user = "ann@example.test";')
    true(PASSWORD not in text, "the password is not in the configuration")
    secret = re.search(r'password_file = "([^"]+)"', text).group(1)
    equal(stat.S_IMODE(os.stat(secret).st_mode), 0o600)
    equal(open(secret).read(), PASSWORD)
    found = q.status("doctor")
    equal(found.code, 0, "doctor agrees: %r" % found)


@test("--print changes nothing: no file, nothing in the folders; stdout is a configuration")
def printed(world):
    q = world.fresh()
    q.env()  # makes the home
    before = sorted(os.walk(q.folder))
    done = setup(world, q, "--print", "--password-stdin")
    equal(sorted(os.walk(q.folder)), before)
    holds(done.err, "Login ok")
    q.write_config(done.out)
    equal(q.status("list").code, 0, "it loads")
    done = setup(world, q, "--print")
    true("Login" not in done.err, "without a secret nothing is logged in to")


@test("a wrong password: the server's words, nothing is written")
def wrong(world):
    q = world.fresh()
    done = setup(world, q, "--password-stdin", "--no-test", stdin="wrong\n", code=77)
    holds(done.out, "535 5.7.8")
    true(not os.path.exists(q.config), "nothing is written")


@test("without a terminal and without a secret: a usage error that names the options, not a question")
def no_terminal(world):
    q = world.fresh()
    holds(setup(world, q, stdin="", code=64).err, "--password-command")
    equal(setup(world, q, address="nonsense", code=64).out, "")


@test("SRV records where there is no file; nobody vouches for them, so without --yes it stops")
def records(world):
    q = world.fresh(files=False)
    world.names.srv("_submissions._tcp.example.test", "localhost", world.postfix.smtps)
    world.names.srv("_imaps._tcp.example.test", "localhost", world.imap.imaps_port)
    holds(setup(world, q, "--password-stdin", code=64).err, "nobody vouches")
    true(not os.path.exists(q.config), "nothing is written")
    done = setup(world, q, "--password-stdin", "--yes", "--no-test")
    holds(done.out, "SRV record: _submissions._tcp.example.test")
    true(done.out.index("%d (folder of sent mail)" % world.imap.imaps_port) < done.out.index("Login ok"), "shown before the login")
    holds(open(q.config).read(), 'imap = "imaps://localhost:%d"' % world.imap.imaps_port)
    paths = [p.split("?")[0] for p in world.asked[-3:]]
    equal(paths, ["/autoconfig.example.test/mail/config-v1.1.xml", "/example.test/.well-known/autoconfig/mail/config-v1.1.xml",
                  "/autoconfig.thunderbird.net/v1.1/example.test"])


@test("no file for the domain, but one for the owner of its MX: taken, and to be confirmed, as nobody signs an MX")
def mx_owner(world):
    q = world.fresh(files=False)
    world.names.mx("example.test", "mx1.mail.hoster.test")
    world.files["/autoconfig.thunderbird.net/v1.1/hoster.test"] = world.xml
    holds(setup(world, q, "--password-stdin", code=64).err, "nobody vouches")
    done = setup(world, q, "--password-stdin", "--yes", "--no-test")
    holds(done.out, "the MX's owner, by Thunderbird's collection: ")
    paths = [p.split("?")[0] for p in world.asked]
    equal(paths[-2:], ["/autoconfig.thunderbird.net/v1.1/" + d for d in ("mail.hoster.test", "hoster.test")])
    true("ann" not in world.asked[-1], "a stranger is told the address")


@test("hostile files: entities, nonsense, a host with options in it, plain servers: passed over, the next place is asked")
def hostile(world):
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>' + world.xml.split("?>", 1)[1].replace("localhost", "&b;")
    for text in (bomb, "<html>hello</html>", "<clientConfig>" * 5000, world.xml.replace("localhost", "localhost --yes"),
                 world.xml.replace("SSL", "plain").replace("STARTTLS", "plain"), "x" * 300000):
        q = world.fresh()
        world.files["/autoconfig.example.test/mail/config-v1.1.xml"] = text
        world.files["/autoconfig.thunderbird.net/v1.1/example.test"] = world.xml
        done = setup(world, q, "--password-stdin", "--print")
        holds(done.err, "Thunderbird's collection")


@test("a second account: the route is put before the first for its own mail, the old file is kept; a name that is taken is told")
def second(world):
    q = world.fresh()
    setup(world, q, "--password-stdin", "--no-test")
    old = "# mine ( \" not a list\n" + open(q.config).read() + "undo_window = \"5s\"; /* ) */\n"
    q.write_config(old)
    more = ("--password-stdin", "--no-test", "--user", USER)
    holds(setup(world, q, *more, code=64, address="bob@example.test").err, "is there already: --yes")
    holds(setup(world, q, "--yes", "--name", "example", *more, code=64, address="bob@example.test").err, "another --name")
    equal(open(q.config).read(), old, "left as it was")
    done = setup(world, q, "--yes", *more, address="bob@example.test")
    holds(done.out, ".bak")
    equal(open(q.config + ".bak").read(), old)
    text = open(q.config).read()
    holds(text, 'name = "example-2"; from = "bob@example.test"')
    true(text.index("example-2") < text.index('"example"'), "it comes first")
    holds(text, "undo_window")
    equal(q.status("list").code, 0, "it loads")
    number = q.submit(b"From: bob@example.test\nTo: u011@example.test\n\nhello\n")
    equal(q.json("list", "--all")[0]["route"], "example-2")
    q.flush()
    q.end_autostarted()


@test("the secret by a command, and a file of one's own: used, never copied")
def own_secret(world):
    q = world.fresh()
    setup(world, q, "--password-command", "cat " + keep(world, PASSWORD), "--no-test")
    holds(open(q.config).read(), 'password_command = "cat ')
    q = world.fresh()
    path = keep(world, PASSWORD)
    setup(world, q, "--password-file", path, "--no-test", "--json")
    holds(open(q.config).read(), 'password_file = "%s"' % path)


def keep(world, text):
    path = os.path.join(world.folder, "secret")
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, 0o600)
    return path


@test("a provider that wants OAuth: consent, login and test by tokens, the refresh token where the configuration looks for it", long=True)
def oauth(world):
    provider = Oauth(world.certs, USER)
    imap = dovecot.Dovecot(world.folder + "/tokens", world.certs, world.folder + "/mail", tokeninfo=provider.tokeninfo)
    mta = postfix.Postfix(world.folder + "/tokens", world.certs, imap.auth_port)
    try:
        q = world.fresh()
        oauth = "<oAuth2><authURL>%s/authorize</authURL><tokenURL>%s/token</tokenURL><scope>mail.send offline</scope></oAuth2></emailProvider>" % (provider.base, provider.base)
        xml = world.xml.replace(":%d" % world.postfix.smtps, "").replace("<port>%d<" % world.postfix.smtps, "<port>%d<" % mta.smtps)
        world.files["/autoconfig.example.test/mail/config-v1.1.xml"] = xml.replace("password-cleartext", "OAuth2").replace("</emailProvider>", oauth)
        run = subprocess.Popen([os.path.join(q.bin, "sendq"), "setup", USER, "--json", "--ca-file", world.certs.ca, "--imap", "none", "--oauth-client-id", CLIENT,
                                "--browser", "--test", "u012@example.test"], env=q.env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               preexec_fn=process.die_with_parent)
        holds(provider.consent(json.loads(run.stdout.readline())["url"]), "Done.")
        out, err = (t.decode() for t in run.communicate(timeout=60))
        q.end_autostarted()
        equal(run.returncode, 0, out + err)
        holds(err, "Accepted for u012@example.test: 250")
        equal(json.loads(out.splitlines()[-1])["route"], "example")
        holds(open(q.config).read(), 'auth = "oauth"')
        kept = [os.path.join(path, name) for path, _, names in os.walk(q.folder) for name in names if name == "oauth-example"]
        equal([stat.S_IMODE(os.stat(path).st_mode) for path in kept], [0o600], "the refresh token is kept")
    finally:
        mta.stop()
        imap.stop()
        provider.stop()


@test("a person who says no to adding a route: nothing is changed, no password is kept")
def declined(world):
    q = world.fresh()
    setup(world, q, "--password-stdin", "--no-test")
    before = open(q.config).read()
    t = Terminal(q, "setup", USER, "--ca-file", world.certs.ca, "--user", USER)
    t.answer("Log in there? [Y/n]", "")
    t.answer("Password (not shown):", PASSWORD)
    t.answer("Add the route to it, for mail from ann@example.test? [Y/n]", "n")
    equal(t.end(), 0, t.seen)
    holds(t.seen, "Nothing was changed")
    equal(open(q.config).read(), before)
    equal(sorted(n for n in os.listdir(os.path.dirname(q.config)) if n.startswith(("password", "sendq.conf"))), ["password-example", "sendq.conf"])


@test("a person at a terminal: asked step by step, the password is not shown, a mistyped one may be typed again")
def person(world):
    q = world.fresh()
    t = Terminal(q, "setup", USER, "--ca-file", world.certs.ca, "--store", "file")
    t.answer("Log in there? [Y/n]", "")
    t.answer("User name [ann@example.test]", "")
    t.answer("Password (not shown):", "mistyped")
    t.answer("does not let you in: 535", "")  # the empty answer is the user name again
    t.answer("Password (not shown):", PASSWORD)
    t.answer("Login ok", None)
    true(PASSWORD not in t.seen and "mistyped" not in t.seen, "nothing is echoed")
    t.answer("Send a test message to ann@example.test? [Y/n]", "n")
    equal(t.end(), 0, t.seen)
    true(os.path.exists(q.config), "the configuration is written")


if __name__ == "__main__":
    main(Scene, Scene.stop)
