#!/usr/bin/python3
"""auth = "oauth": consent, refreshing and logging in, against an OAuth server of the tests' own and a real Dovecot behind Postfix.

The mail server knows no passwords at all here: whoever gets in has a token that Dovecot asked the OAuth server about.
"""
import json
import os
import stat
import subprocess
import threading
import urllib.error

from harness import process
from harness.oauth import CLIENT_SECRET, Oauth
from harness.sendq import message
from harness.tap import equal, holds, main, test, true, until
from harness.world import USER, World


class Scene(World):
    def __init__(self):
        from harness import certs
        folder = process.temp_folder("oauth-certs")
        self.provider = Oauth(certs.Certs(folder), USER)
        self.provider_ca = os.path.join(folder, "ca.pem")
        super().__init__("oauth", tokeninfo=self.provider.tokeninfo)

    def account(self, token=True, **more):
        settings = self.tls(self.postfix.smtps, "smtps", **self.provider.settings(self.provider_ca, **more))
        del settings["password"]
        q = self.sendq(settings)
        self.reset()
        q.token = os.path.join(os.path.dirname(q.queue), "oauth-home")
        if token:
            self.keep(q.token, self.provider.new_refresh())
        return q

    def keep(self, path, text):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, 0o600)

    def reset(self):
        p = self.provider
        p.requests, p.device_answers, p.token_answers, p.rotate, p.lifetime = [], [], [], False, 3600

    def stop(self):
        self.provider.stop()
        super().stop()


def send(world, q, seconds=30):
    user = world.user()
    number = q.submit(message(user + "@example.test"))
    code = q.flush(seconds=seconds)
    return user, number, code


def grants(world):
    return [form["grant_type"].rsplit(":", 1)[-1] for path, form in world.provider.requests if path == "/token"]


def secret_nowhere(q, *texts):
    """No token in what was said or logged."""
    for text in texts:
        for word in ("a.", "r."):
            true(not [w for w in text.replace('"', " ").split() if w.startswith(word) and len(w) > 200], "a token is in %r" % text[:300])


@test("a refresh token gives an access token, Dovecot takes it, the mail arrives; one exchange serves a session of several")
def refreshed(world):
    q = world.account()
    user, number, code = send(world, q)
    equal(code, 0, "sent")
    world.postfix.settled(user, 1)
    equal(grants(world), ["refresh_token"])
    equal(world.provider.requests[0][1]["scope"], "mail.send offline")
    holds(world.postfix.log(), "sasl_method=", "Postfix says how")
    true("OAUTHBEARER" in world.postfix.log() or "XOAUTH2" in world.postfix.log(), "by a token")


@test("XOAUTH2 too: the same token by Microsoft's and Google's older way")
def xoauth2(world):
    token = world.provider.tokens()["access_token"]
    settings = world.tls(world.postfix.smtps, "smtps", token_command="printf %%s '%s'" % token)
    del settings["password"]
    q = world.sendq(settings)
    user, number, code = send(world, q)
    equal(code, 0)
    holds(world.postfix.log(), "sasl_method=XOAUTH2")


def session_over(q):
    until(lambda: subprocess.run(["pgrep", "-P", str(q.pid()), "-x", "sendq-smtp"], stdout=subprocess.DEVNULL).returncode, 20, "the session ends")


@test("the daemon keeps an access token while it is good: one exchange for two sessions; refused once, it gets a new one")
def kept(world):
    q = world.account()
    q.daemon()
    one = q.submit(message(world.user() + "@example.test"))
    q.wait(one, "sent")
    session_over(q)
    two = q.submit(message(world.user() + "@example.test"))
    q.wait(two, "sent")
    equal(grants(world), ["refresh_token"])
    session_over(q)
    world.provider.good.clear()  # revoked at the provider
    three = q.submit(message(world.user() + "@example.test"))
    until(lambda: q.flush() == 0, 30, "sent")
    q.wait(three, "sent")
    equal(grants(world), ["refresh_token"] * 2, "refused once, had anew")
    secret_nowhere(q, q.log())
    q.stop_daemon()


@test("a refresh token that is replaced at each use is kept, durable and 0600, and the next use goes by it")
def rotated(world):
    q = world.account()
    world.provider.rotate = True
    first = open(q.token).read()
    equal(send(world, q)[2], 0)
    second = open(q.token).read()
    true(second != first and second in world.provider.refresh, "the successor is kept")
    equal(stat.S_IMODE(os.stat(q.token).st_mode), 0o600)
    equal(send(world, q)[2], 0, "and used")
    equal(grants(world), ["refresh_token"] * 2)


@test("invalid_grant: nothing bounces, why says that consent is needed, and with it mail goes")
def revoked(world):
    q = world.account()
    world.provider.refresh.clear()
    user, number, code = send(world, q)
    equal(code, 75)
    equal(q.states(number), {user + "@example.test": "queued"})
    why = q.status("why", number).out
    holds(why, "invalid_grant: Token has been revoked.")
    holds(why, "sendq oauth home")
    q.daemon()
    done = consent(world, q, "--device")
    equal(done.returncode, 0, "%r" % done.out)
    q.wait(number, "sent")
    q.stop_daemon()


class Running:
    """`sendq oauth --json` under way: the prompt as soon as it is there."""

    def __init__(self, q, *args):
        self.p = subprocess.Popen([os.path.join(q.bin, "sendq"), "oauth", "--json", *args], env=q.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  preexec_fn=process.die_with_parent)
        line = self.p.stdout.readline()
        self.prompt = json.loads(line) if line.strip() else None

    def end(self):
        out, err = self.p.communicate(timeout=60)
        self.out, self.returncode = (out + err).decode(), self.p.returncode
        true("Sanitizer" not in self.out and "runtime error" not in self.out, self.out)
        return self


def consent(world, q, *args):
    return Running(q, *args).end()


@test("consent on another device: pending, slow down, pending, then tokens; the code is shown, the token kept, mail goes")
def device(world):
    q = world.account(token=False, oauth_client_secret_command="printf %%s '%s'" % CLIENT_SECRET)
    user, number, code = send(world, q)
    equal(code, 75)
    holds(q.status("why", number).out, "sendq oauth home")
    world.reset()
    world.provider.device_answers = ["authorization_pending", "slow_down", "authorization_pending"] if os.environ.get("SENDQ_LONG") else ["authorization_pending"] * 2
    run = Running(q)
    equal(run.prompt["code"], "WDJB-MJHT")
    holds(run.prompt["url"], "/enter")
    equal(run.end().returncode, 0, run.out)
    equal(len(grants(world)), 4 if os.environ.get("SENDQ_LONG") else 3)
    equal(world.provider.requests[-1][1]["client_secret"], CLIENT_SECRET)
    equal(stat.S_IMODE(os.stat(q.token).st_mode), 0o600)
    equal(q.flush(), 0)
    secret_nowhere(q, run.out)


@test("consent on another device that is denied, expires, or meets nonsense: said in the provider's words, nothing kept")
def device_refused(world):
    q = world.account(token=False)
    for answer in ("access_denied", "expired_token"):
        world.provider.device_answers = [answer]
        done = consent(world, q, "--device")
        equal(done.returncode, 77, done.out)
        holds(done.out, answer)
    for status, octets, word in ((200, b"{}", "no access token"), (200, b"[" * 60000, "nothing that can be used"), (500, b"x" * 100000, "more than"),
                                 (503, b"<html>", "status 503"), (200, b'{"access_token": "bad \\u0007 token"}', "no access token")):
        q2 = world.account()
        world.provider.token_answers = [(status, octets)]
        number = q2.submit(message(world.user() + "@example.test"))
        equal(q2.flush(), 75)
        holds(q2.status("why", number).out, word)
    true(not os.path.exists(q.token), "nothing is kept")


@test("consent in a browser: PKCE and state are checked from both ends; a stray request does not end it")
def browser(world):
    q = world.account(token=False)
    run = Running(q, "--browser")
    holds(run.prompt["url"], "?tenant=x&response_type=code")
    holds(run.prompt["url"], "code_challenge_method=S256")
    equal(run.prompt["code"], None)
    try:
        world.provider.consent(run.prompt["url"], state="f" * 32)
        raise AssertionError("a wrong state is taken")
    except urllib.error.HTTPError as e:
        equal(e.code, 404)
    holds(world.provider.consent(run.prompt["url"]), "Done.")
    equal(run.end().returncode, 0, run.out)
    equal(send(world, q)[2], 0, "and the mail goes")
    run = Running(q, "--browser")
    holds(world.provider.consent(run.prompt["url"], error="access_denied"), "said no")
    equal(run.end().returncode, 77)
    holds(run.out, "access_denied: The person said no")


@test("the refresh token by commands: printed by one, its successor kept by the other")
def commands(world):
    kept = os.path.join(world.folder, "keyring")
    q = world.account(token=False, oauth_refresh_command="cat " + kept, oauth_refresh_store="cat > " + kept)
    world.keep(kept, world.provider.new_refresh())
    world.provider.rotate = True
    first = open(kept).read()
    equal(send(world, q)[2], 0)
    true(open(kept).read() != first, "the successor is kept")
    equal(send(world, q)[2], 0)


@test("a keyring that takes its time over the new refresh token delays no other route's mail")
def slow_keeper(world):
    kept, gate = os.path.join(world.folder, "slow-keyring"), os.path.join(world.folder, "gate")
    os.mkfifo(gate)
    q = world.account(token=False, oauth_refresh_command="cat " + kept, oauth_refresh_store="cat > %s; cat %s" % (kept, gate), **{"from": [USER]})
    with open(q.config) as f:
        text = f.read().rstrip().removesuffix(");")
    q.write_config(text + ',\n  { name = "other"; server = "smtp://127.0.0.1:%d"; tls = "none"; }\n);\n' % world.postfix.port)
    world.keep(kept, world.provider.new_refresh())
    world.provider.rotate, first = True, open(kept).read()
    q.daemon()
    waits = q.submit(message(world.user() + "@example.test", sender=USER))
    until(lambda: open(kept).read() not in (first, ""), 20, "the keyring is asked")
    other = q.submit(message(world.user() + "@example.test", sender="bob@example.test"))
    q.wait(other, "sent", seconds=5)
    true("sent" not in q.states(waits).values(), "the mail of the route that keeps its token waits for that")
    with open(gate, "w"):
        pass
    q.wait(waits, "sent")
    q.stop_daemon()


@test("a token server that nobody vouches for gets no refresh token")
def certificate(world):
    q = world.account(oauth_ca_file=world.certs.ca)
    user, number, code = send(world, q)
    equal(code, 75)
    equal(world.provider.requests, [])
    holds(q.status("why", number).out.lower(), "certificate")


@test("doctor asks for a token and logs in with it; a world-readable refresh token is refused with the chmod")
def doctor(world):
    q = world.account()
    done = q.status("doctor", "--json")
    equal(done.code, 0, "%r" % done)
    secret_nowhere(q, done.out)
    equal(json.loads([l for l in done.out.splitlines() if '"secret"' in l][0])["what"], "oauth gives one")
    os.chmod(q.token, 0o644)
    done = q.status("doctor")
    equal(done.code, 69)
    holds(done.out, "chmod 600")


@test("settings that contradict each other, and routes that are none of oauth's, are told in a sentence")
def settings(world):
    q = world.sendq(world.tls(world.postfix.smtps, "smtps", oauth_client_id="x"))
    done = q.status("list")
    equal(done.code, 78)
    holds(done.err, 'settings of oauth need auth = "oauth"')
    q = world.sendq(world.tls(world.postfix.smtps, "smtps", **world.provider.settings(world.provider_ca)))
    holds(q.status("list").err, "gets its tokens by itself")
    q = world.account(token=False, oauth_token_url="http://localhost/token")
    holds(q.status("list").err, "must begin with https://")
    q = world.sendq(world.plain(world.postfix.port))
    equal(q.status("oauth").code, 64)


if __name__ == "__main__":
    main(Scene, Scene.stop)
