#!/usr/bin/python3
"""SIGKILL at every fault point that a window of several messages passes, of the runner and of the agent.

The route is proved first, so that the messages go out in one group. Afterwards sendq is run again without faults, and:
what is sent is at the receiver once, what is in doubt at most once, nothing twice, nothing lost; and where GO was
given to the group and nothing was reported, all of it is in doubt.
"""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
from harness import links, process, sendq  # noqa: E402
from harness.sendq import message  # noqa: E402
from harness.tap import add, equal, main, note, true, until  # noqa: E402

SIZE = 6
# Point, whose, and what the six are in afterwards: None where it depends on when the reader looks.
# Where a refusal to guess is right, `doubt` says which points must leave all six in doubt.
POINTS = [
    ("runner_claimed", "sendqd", 2, "sent"),
    ("runner_before_intent", "sendqd", 1, "sent"),
    ("runner_after_intent", "sendqd", 1, "doubt"),
    ("runner_after_go", "sendqd", 1, "doubt"),
    ("runner_before_verdict", "sendqd", 1, "doubt"),
    ("runner_after_verdict", "sendqd", 1, None),
    ("agent_before_terminator", "sendq-smtp", 1, "doubt"),
    ("agent_content", "sendq-smtp", 1, "doubt"),
    ("agent_after_terminator", "sendq-smtp", 1, "doubt"),
    ("agent_after_reply", "sendq-smtp", 1, "doubt"),
    ("agent_after_verdict", "sendq-smtp", 1, None),
]


class Scene:
    def __init__(self):
        self.folder = process.temp_folder("crash-window")
        self.sink = links.Sink(self.folder)
        self._n = 0

    def proved(self):
        self._n += 1
        q = sendq.Sendq(self.folder, [sendq.route("smtp://127.0.0.1:%d" % self.sink.port, tls="none")], name="q%d" % self._n)
        for _ in range(4):
            for n in range(2):
                q.submit(message("p%d@example.test" % n, "proving"))
            equal(q.flush(), 0)
        true(q.sql("SELECT value FROM learned WHERE key = 'window'")[0][0].startswith("clean 3"), "proved")
        return q

    def stop(self):
        self.sink.stop()


def killed(point, program, hit, want):
    def run(scene):
        q = scene.proved()
        users = ["w%d-%d@example.test" % (scene._n, n) for n in range(SIZE)]
        numbers = [q.submit(message(user, "window")) for user in users]
        daemon = q.daemon(SENDQ_FAULT="%s:%d=kill" % (point, hit), SENDQ_FAULT_PROGRAM=program)
        if program == "sendqd":
            until(lambda: not daemon.alive(), 30, "sendqd passes %s" % point)
        else:
            until(lambda: all(q.attempts(n) and q.attempts(n)[-1]["ended_ms"] for n in numbers[:1]), 30, "the agent's death is noticed", pause=0.1)
        q.stop_daemon()
        code = q.flush()
        states = {user: q.states()[user] for user in users}
        equal(code, 75 if "doubt" in states.values() else 0)
        got = [r["to"][0] for r in scene.sink.records() if r["to"][0] in users]
        note("%s; accepted %d" % (sorted(states.values()), len(got)))
        equal(len(got), len(set(got)), "copies")
        for user, state in states.items():
            true(state in ("sent", "doubt"), "%s is %s" % (user, state))
            true(state == "doubt" or user in got, "%s is sent, and nobody has it" % user)
        if want:
            equal(set(states.values()), {want})
        # Nothing moves by itself, and a copy that is asked for is the second one at most.
        equal(q.flush(), code)
        equal({user: q.states()[user] for user in users}, states)
        for number, user in zip(numbers, users):
            if states[user] == "doubt":
                equal(q.status("resend", number).code, 0)
        equal(q.flush(), 0)
        got = [r["to"][0] for r in scene.sink.records() if r["to"][0] in users]
        true(set(got) == set(users), "lost: %r" % (set(users) - set(got)))
        for user in users:
            true(got.count(user) <= (2 if states[user] == "doubt" else 1), "%s has %d copies" % (user, got.count(user)))
    return run


for point_, program_, hit_, want_ in POINTS:
    add("%s killed at %s of a window" % (program_, point_), killed(point_, program_, hit_, want_))

if __name__ == "__main__":
    main(Scene, Scene.stop)
