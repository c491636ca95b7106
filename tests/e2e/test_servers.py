#!/usr/bin/python3
"""Servers that break the rules: nothing is lost, nothing is accepted that was not, nothing crashes, and the user is told."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fake"))
from harness import certs, process, sendq  # noqa: E402
from harness.sendq import message  # noqa: E402
from harness.tap import add, equal, holds, main, test, true  # noqa: E402
from scripted import CLOSE, SCENARIOS, Scripted  # noqa: E402

USERS = {"ann@example.test": "correct horse"}


class Scene:
    def __init__(self):
        self.folder = process.temp_folder("servers")
        self.certs = certs.Certs(self.folder)
        self._n = 0

    def sendq(self, server, **route):
        self._n += 1
        route = {"tls": "none", **route}
        scheme = "smtps" if server.implicit else "smtp"
        host = "localhost" if route["tls"] == "required" else "127.0.0.1"
        return sendq.Sendq(self.folder, [sendq.route("%s://%s:%d" % (scheme, host, server.port), **route)],
                           name="sendq%d" % self._n, connect_timeout="20s")

    def secure(self, server, **route):
        return self.sendq(server, **{"tls": "required", "ca_file": self.certs.ca, **route})


# scenario: state after the first flush, after the second, messages accepted by the server, outcome of the first attempt
EXPECTED = {
    "good": ("sent", "sent", 1, "accepted"),
    "closes-at-once": ("queued", "queued", 0, None),
    "resets-at-once": ("queued", "queued", 0, None),
    "garbage": ("queued", "queued", 0, None),
    "greeting-421": ("queued", "queued", 0, None),
    "greeting-554": ("queued", "queued", 0, None),
    "ehlo-500": ("queued", "queued", 0, None),
    "endless-greeting": ("queued", "queued", 0, None),
    "endless-reply": ("queued", "queued", 0, "protocol"),
    "endless-lines": ("queued", "queued", 0, "protocol"),
    "garbage-reply": ("queued", "queued", 0, "protocol"),
    "code-999": ("queued", "queued", 0, "protocol"),
    "greylist": ("queued", "sent", 1, "deferred"),
    "quota": ("queued", "queued", 0, "quota"),
    "421-verdict": ("queued", "queued", 0, "deferred"),
    "half-verdict": ("doubt", "doubt", 0, "doubt"),
    "verdict-without-end": ("doubt", "doubt", 0, "doubt"),
    "no-verdict": ("doubt", "doubt", 0, "doubt"),
    "verdict-451": ("queued", "sent", 1, "deferred"),
    "verdict-554": ("failed", "failed", 0, "refused"),
    "closes-in-content": ("queued", "queued", 0, "cut"),
}
# A verdict that was begun and not ended was sent all the same: the script counts it as given.
BEGUN = {"half-verdict", "verdict-without-end"}


def scenario(name):
    first, second, accepted, outcome = EXPECTED[name]

    def run(scene):
        server = Scripted(SCENARIOS[name])
        q = scene.sendq(server)
        number = q.submit(message("bob@example.test", name))
        for want in (first, second):
            q.flush(seconds=100)
            equal(set(q.states(number).values()), {want})
        if name not in BEGUN:
            equal(len(server.messages), accepted, "accepted")
        true(len(server.arrived) <= 1 or first != "doubt", "sent again while in doubt")
        if outcome:
            equal(q.attempts(number)[0]["outcome"], outcome)
        why = q.status("why", number)
        equal(why.code, 0, repr(why))
        true(len(why.out) < 20000, "sendq why prints %d octets" % len(why.out))
        server.stop()
    return run


for name_ in EXPECTED:
    add("server: " + name_, scenario(name_), 150)


@test("one bad recipient of three: the other two have it, once")
def one_bad(scene):
    server = Scripted(SCENARIOS["one-bad-of-three"])
    q = scene.sendq(server)
    number = q.submit(message(["a@example.test", "b@example.test", "c@example.test"], "three"))
    equal(q.flush(), 0)
    states = q.states(number)
    equal(sorted(states.values()), ["failed", "sent", "sent"])
    (_, recipients, _), = server.messages
    equal(sorted(recipients), sorted(a for a, s in states.items() if s == "sent"))
    server.stop()


@test("recipients one of which is deferred: only that one goes again")
def one_later(scene):
    server = Scripted({"RCPT": ["250 ok", "451 4.7.1 later", "250 ok"]})
    q = scene.sendq(server)
    number = q.submit(message(["a@example.test", "b@example.test"], "two"))
    equal(q.flush(), 75)
    equal(q.flush(), 0)
    equal(set(q.states(number).values()), {"sent"})
    equal([len(m[1]) for m in server.messages], [1, 1])
    true(server.messages[0][1] != server.messages[1][1], "the same recipient twice")
    equal(server.messages[0][2], server.messages[1][2], "contents")
    server.stop()


@test("reply lines with octets behind the reply are no licence to accept")
def two_replies(scene):
    server = Scripted(SCENARIOS["two-replies"])
    q = scene.sendq(server)
    number = q.submit(message("bob@example.test", "shifted"))
    q.flush()
    states = set(q.states(number).values())
    true(states in ({"queued"}, {"sent"}, {"doubt"}), states)
    if states == {"sent"}:
        equal(len(server.messages), 1, "sent, and the server has it")
    server.stop()


@test("a login that is refused: said so, nothing sent, nothing bounced, and not tried without end")
def login_refused(scene):
    server = Scripted(certs=scene.certs, users=USERS)
    q = scene.secure(server, user="ann@example.test", password="wrong")
    number = q.submit(message("bob@example.test", "login"))
    equal(q.flush(), 75)
    equal(q.states(number), {"bob@example.test": "queued"})
    why = q.status("why", number).out
    holds(why, "535")
    holds(why.lower(), "login")
    true("wrong" not in why + "".join(q.notice_texts()), "the password is shown")
    true(server.sessions <= 3, "%d logins" % server.sessions)
    equal(q.attempts(number)[0]["outcome"] if q.attempts(number) else "login", "login")
    server.stop()


@test("a login that cannot be made now")
def login_later(scene):
    server = Scripted({"AUTH": ["454 4.7.0 try later", "454 4.7.0 try later", "235 2.7.0 welcome"]}, certs=scene.certs, users=USERS)
    q = scene.secure(server, user="ann@example.test", password="correct horse")
    number = q.submit(message("bob@example.test", "login"))
    equal(q.flush(), 75)
    equal(q.states(number), {"bob@example.test": "queued"})
    server.stop()


@test("no TLS where it is required: nothing goes out, no password either")
def no_tls(scene):
    server = Scripted(users=USERS)
    q = scene.secure(server, user="ann@example.test", password="correct horse")
    number = q.submit(message("bob@example.test", "no tls"))
    equal(q.flush(), 75)
    equal(q.states(number), {"bob@example.test": "queued"})
    true(not [c for c in server.commands if c.upper().startswith(("AUTH", "MAIL"))], server.commands)
    holds(q.status("why", number).out, "TLS")
    server.stop()


def bad_certificate(**server_settings):
    def run(scene):
        settings = {k: getattr(scene.certs, v) if isinstance(v, str) else v for k, v in server_settings.items()}
        server = Scripted(users=USERS, **settings)
        q = scene.secure(server, user="ann@example.test", password="correct horse")
        number = q.submit(message("bob@example.test", "certificate"))
        equal(q.flush(), 75)
        equal(q.states(number), {"bob@example.test": "queued"})
        true(not [c for c in server.commands if c.upper().startswith(("AUTH", "MAIL"))], server.commands)
        holds(q.status("why", number).out.lower(), "certificate")
        server.stop()
    return run


add("a certificate of nobody known, STARTTLS", bad_certificate(cert="stranger_cert", key="stranger_key"))
add("a certificate of nobody known, smtps", bad_certificate(cert="stranger_cert", key="stranger_key", implicit=True))
add("a certificate for another name", bad_certificate(cert="other_cert", key="other_key"))


@test("octets injected behind STARTTLS's reply end the session before anything is said in it")
def injected(scene):
    server = Scripted({"STARTTLS": b"220 2.0.0 go on\r\n250 injected\r\n"}, certs=scene.certs, users=USERS)
    q = scene.secure(server, user="ann@example.test", password="correct horse")
    number = q.submit(message("bob@example.test", "injected"))
    equal(q.flush(), 75)
    equal(q.states(number), {"bob@example.test": "queued"})
    true(not [c for c in server.commands if c.upper().startswith(("AUTH", "MAIL"))], server.commands)
    server.stop()


@test("a login is never sent over a connection without TLS")
def no_clear_login(scene):
    server = Scripted(users=USERS, ehlo=("AUTH PLAIN LOGIN",))
    q = scene.secure(server, user="ann@example.test", password="correct horse")
    q.submit(message("bob@example.test", "clear"))
    equal(q.flush(), 75)
    true(not any("AUTH" in c.upper() for c in server.commands), server.commands)
    server.stop()


@test("a secret that cannot be had: the route waits, and the command's own words are quoted")
def no_secret(scene):
    server = Scripted(certs=scene.certs, users=USERS)
    q = scene.secure(server, user="ann@example.test", password_command="echo the keyring is locked >&2; exit 1")
    number = q.submit(message("bob@example.test", "secret"))
    equal(q.flush(), 75)
    equal(q.states(number), {"bob@example.test": "queued"})
    holds(q.status("why", number).out, "the keyring is locked")
    equal(server.commands, [], "the server was asked")
    server.stop()


@test("a quota pauses the route and fails nothing; a daily limit said as 550 5.7.1 too")
def quotas(scene):
    for text in ("550 5.4.5 Daily user sending limit exceeded.", "432 4.3.2 Concurrent connections limit exceeded",
                 "454 4.7.0 Throttling failure: Maximum sending rate exceeded.",
                 "550 5.7.1 Daily message limit exceeded"):
        server = Scripted({"MAIL": text})
        q = scene.sendq(server)
        number = q.submit(message("bob@example.test", "quota"))
        q.submit(message("carol@example.test", "quota"))
        equal(q.flush(), 75)
        equal(set(q.states().values()), {"queued"}, text)
        equal(q.attempts(number)[0]["outcome"], "quota", text)
        equal(q.notice_texts(), [], "reports")
        server.stop()


@test("421 in the middle of several messages: those behind it are not accepted, and none is lost")
def shut_down_between(scene):
    server = Scripted({"FINAL": ["250 2.0.0 ok", ("421 4.3.2 shutting down", CLOSE), "250 2.0.0 ok"]})
    q = scene.sendq(server)
    for n in range(3):
        q.submit(message("u%d@example.test" % n, "of three"))
    q.flush()
    true("doubt" not in q.states().values(), q.states())
    equal(q.flush(), 0)
    equal(set(q.states().values()), {"sent"})
    equal(sorted(m[1][0] for m in server.messages), ["u0@example.test", "u1@example.test", "u2@example.test"])
    server.stop()


if __name__ == "__main__":
    main(Scene)
