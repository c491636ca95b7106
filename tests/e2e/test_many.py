#!/usr/bin/python3
"""Large and many: memory stays flat, and a large message holds up nobody's submission.

The programs as released (SENDQ_RELEASE): a sanitizer has its own idea of memory.
"""
import os
import subprocess
import time

from harness import links, process, sendq
from harness.sendq import message
from harness.tap import Skip, equal, main, note, test, true

LIMIT_KB = 16 * 1024


class Scene:
    def __init__(self):
        release = os.environ.get("SENDQ_RELEASE")
        if not release:
            raise Skip("SENDQ_RELEASE names no release build")
        self.folder = process.temp_folder("many")
        self.sink = links.Sink(self.folder)
        os.environ["SENDQ_PROGRAMS"] = release
        self.q = sendq.Sendq(self.folder, [sendq.route("smtp://127.0.0.1:%d" % self.sink.port, tls="none")],
                             message_size_max="500M")

    def stop(self):
        self.sink.stop()


def peak_kb(pid):
    with open("/proc/%d/status" % pid) as f:
        return int([line for line in f if line.startswith("VmHWM")][0].split()[1])


def agents_of(pid):
    out = subprocess.run(["ps", "-o", "pid=,comm=", "--ppid", str(pid)], stdout=subprocess.PIPE).stdout.decode()
    return [int(line.split()[0]) for line in out.splitlines() if "sendq-smtp" in line]


@test("200 MB through sendmail, sendqd and sendq-smtp with under 16 MB each, other submissions not held up", 300, long=True)
def two_hundred(scene):
    q = scene.q
    line = b"x" * 75 + b"\n"
    child = subprocess.Popen([q.bin + "/sendmail", "-t", "-oi"], stdin=subprocess.PIPE, env=q.env())
    child.stdin.write(message())
    peak, slowest = 0, 0.0
    for n in range(200):
        child.stdin.write(line * 14000)
        if n % 10 == 5:
            peak = max(peak, peak_kb(child.pid))
            began = time.monotonic()
            equal(q.sendmail(message("bob@example.test", "small %d" % n)).code, 0)
            slowest = max(slowest, time.monotonic() - began)
    child.stdin.close()
    equal(child.wait(120), 0, "sendmail")
    note("sendmail: %d KB at most; the slowest small submission beside it %.0f ms" % (peak, slowest * 1000))
    true(peak < LIMIT_KB, "sendmail used %d KB" % peak)
    true(slowest < 2.0, "a small submission took %.1f s" % slowest)
    daemon = q.daemon()
    peaks = {"sendqd": 0, "sendq-smtp": 0}
    large = q.list()[-1]["id"]
    end = time.monotonic() + 120
    while any(m["id"] == large for m in q.list()) and time.monotonic() < end:
        peaks["sendqd"] = max(peaks["sendqd"], peak_kb(daemon.p.pid))
        for pid in agents_of(daemon.p.pid):
            try:
                peaks["sendq-smtp"] = max(peaks["sendq-smtp"], peak_kb(pid))
            except OSError:
                continue
    note(peaks)
    equal(q.flush(), 0)
    q.stop_daemon()
    for program, kb in peaks.items():
        true(kb > 0, "%s was never seen" % program)
        true(kb < LIMIT_KB, "%s used %d KB" % (program, kb))


@test("300 small messages over one connection at most a few, none lost, none twice", 200)
def three_hundred(scene):
    q = scene.q
    before = len(scene.sink.records())
    for n in range(300):
        equal(q.sendmail(message("u%d@example.test" % n, "small %d" % n)).code, 0)
    equal(q.flush(), 0)
    got = scene.sink.records()[before:]
    equal(sorted(r["to"][0] for r in got), sorted("u%d@example.test" % n for n in range(300)))
    true(len({r["conn"] for r in got}) <= 5, "connections: %d" % len({r["conn"] for r in got}))


@test("without a daemon the queue's log stays small, however many are submitted")
def log_stays_small(scene):
    q = sendq.Sendq(scene.folder, [sendq.route("smtp://127.0.0.1:1", tls="none")], name="log")
    largest = 0
    for i in range(120):
        q.submit(message("u001@example.test", "log %d" % i))
        largest = max(largest, os.path.getsize(q.queue + "-wal"))
    # A checkpoint that only copies would let it grow by 36 kB a message for ever.
    true(largest < 1024 * 1024, "%d octets of log" % largest)


if __name__ == "__main__":
    main(Scene, Scene.stop)
