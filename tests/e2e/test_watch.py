#!/usr/bin/python3
"""sendq watch in a real terminal (tmux), read as a person would; and what it says to a pipe."""
import json
import os
import re
import select
import shutil
import signal
import subprocess
import time

from harness import gateway, links, process, sendq
from harness.sendq import message
from harness.tap import Skip, equal, holds, main, note, test, true, until

ANN = "ann@example.test"


class Terminal:
    """A tmux server of its own with one window; everything its program writes is kept too."""

    def __init__(self, folder, env, columns=80, rows=24):
        self.socket = os.path.join(folder, "tmux.%d" % os.getpid())
        self.raw = os.path.join(folder, "tmux.raw")
        self.env = {**env, "TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
        self.env.pop("TMUX", None)
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows), "env", "PS1=prompt> ", "sh")
        until(lambda: "prompt>" in self.screen(), 20, "a shell in the terminal")

    def tmux(self, *args):
        return subprocess.run(["tmux", "-S", self.socket, *args], env=self.env, check=True, stdout=subprocess.PIPE).stdout.decode()

    def screen(self, colours=False):
        return self.tmux("capture-pane", "-p", *(("-e",) if colours else ()))

    def lines(self):
        return self.screen().split("\n")

    def type(self, *keys):
        self.tmux("send-keys", *keys)

    def record(self):
        """From now on, what is written to the terminal."""
        self.tmux("pipe-pane", "-O", "cat >>" + self.raw)

    def written(self):
        try:
            with open(self.raw, "rb") as f:
                return f.read()
        except OSError:
            return b""

    def stop(self):
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], env=self.env, check=False, stderr=subprocess.DEVNULL)


class Scene:
    def __init__(self):
        if not shutil.which("tmux"):
            raise Skip("tmux is missing")
        self.folder = process.temp_folder("watch")
        self.n = 0
        self.open = []
        self.gateway = gateway.Gateway(self.folder, listen=("smtp",))
        self.open.append(self.gateway)

    def place(self):
        self.n += 1
        folder = "%s/t%d" % (self.folder, self.n)
        os.mkdir(folder)
        return folder

    def sendq(self, rules, resume=False, **settings):
        folder = self.place()
        if resume:
            port, login = self.gateway.port, {"user": ANN, "password": gateway.USERS[ANN]}
        else:
            self.open.append(links.Sink(folder))
            port, login = self.open[-1].port, {}
        link = links.BadLink(folder, port, rules)
        self.open.append(link)
        return sendq.Sendq(folder, [sendq.route("smtp://127.0.0.1:%d" % link.port, tls="none", **login)], **settings), link

    def terminal(self, q, columns=80, rows=24):
        self.open.append(Terminal(self.place(), q.env(), columns, rows))
        return self.open[-1]

    def stop(self):
        for thing in self.open:
            thing.stop()


def body(octets):
    return ("x" * 75 + "\n") * (octets // 76)


def percent(screen):
    found = re.search(r"(\d+) %", screen)
    return int(found.group(1)) if found else -1


@test("a bar for what is under way, with acknowledged and kept octets, rate, time left; routes; what is next; q restores the terminal", 90)
def live(scene):
    q, link = scene.sendq("* rate=250000", resume=True)
    large = q.submit(message("bob@example.test", "large", body(3000000)))
    t = scene.terminal(q)
    before = t.screen()
    t.type(q.bin + "/sendq watch", "Enter")
    until(lambda: "sendq: 1 queued; no daemon runs" in t.screen(), 20, "the screen")
    holds(t.screen(), large + "   bob@example.test", "what is next")
    q.daemon()
    until(lambda: percent(t.screen()) > 5 and " left" in t.screen(), 30, "it moves", pause=0.1)
    screen = t.screen()
    note(screen.rstrip())
    for line in screen.split("\n"):
        true(len(line) <= 80, "%d columns: %r" % (len(line), line))
    holds(screen, "1 sending")
    holds(screen, "home ")
    bar = re.search(r"\[(#*)(=*)(\.*)\] +(\d+) %  ([\d.]+ .B) of 3.\d MB(, [\d.]+ .B kept)?  [\d.]+ [KM]B/s  \d+ s left", screen)
    true(bar, "no bar, figures, rate and time in:\n" + screen)
    true(abs(len(bar.group(1) + bar.group(2)) / len(bar.group(1) + bar.group(2) + bar.group(3)) - int(bar.group(4)) / 100) < 0.05, bar.group(0))
    # What the server keeps shows as such.
    until(lambda: re.search(r"\[#+=*\.*\].*kept", t.screen()), 30, "kept octets", pause=0.1)
    first = percent(t.screen())
    until(lambda: percent(t.screen()) > first + 5, 30, "it goes on", pause=0.1)
    # The same queue, new mail, seen without a key.
    q.submit(message("carol@example.test", "small"), "-O", "NotBefore=2h", "-t")
    until(lambda: "carol@example.test" in t.screen(), 10, "new mail")
    q.wait(large, "sent", 40)
    until(lambda: "1 queued" in t.screen() and "sending" not in t.screen(), 10, "it is over")
    t.type("q")
    until(lambda: t.screen().count("prompt>") == 2, 10, "the old screen, and a shell")
    holds(t.screen(), before.strip().split("\n")[0], "what was there before")
    t.type("stty -a | tr ' ' '\\n' | grep -x -e echo -e icanon", "Enter")
    until(lambda: t.screen().count("prompt>") == 3, 10, "the answer of stty")
    holds(t.screen(), "\nicanon\necho\n", "the modes of the terminal")
    equal(t.tmux("display-message", "-p", "#{cursor_flag} #{alternate_on}").strip(), "1 0", "cursor and screen")
    q.stop_daemon()


@test("no flicker: only lines that changed are written, the screen is never cleared; narrow, wide and small terminals are followed", 90)
def redraws(scene):
    q, link = scene.sendq("* rate=120000")
    q.submit(message("bob@example.test", "large", body(3000000)))
    for n in range(4):
        q.submit(message("later%d@example.test" % n, "small"), "-O", "NotBefore=2h", "-t")
    q.daemon()
    t = scene.terminal(q)
    t.type(q.bin + "/sendq watch", "Enter")
    until(lambda: percent(t.screen()) > 2, 30, "it moves", pause=0.1)
    t.record()
    first = percent(t.screen())
    until(lambda: percent(t.screen()) > first + 5, 30, "it goes on", pause=0.1)
    octets = t.written()
    true(octets, "nothing was recorded")
    true(b"\x1b[2J" not in octets and b"\x1b[J" not in octets, "the screen was cleared")
    true(b"later0" not in octets, "a line that stayed was written again")
    # Every size fits, and the bar stays as long as there is room.
    for columns, rows, seen in ((50, 24, "["), (30, 12, "%"), (20, 5, "%"), (132, 40, "["), (80, 24, "[")):
        t.tmux("resize-window", "-x", str(columns), "-y", str(rows))
        until(lambda: seen in t.screen() and t.lines()[0].startswith("sendq: ") and
              [l for l in t.lines() if l.startswith("q ends")] and all(len(l) <= columns for l in t.lines()), 10,
              "%dx%d: %s" % (columns, rows, t.screen()), pause=0.1)
    # Ctrl-C ends it as well.
    t.type("C-c")
    until(lambda: "sendq: " not in t.screen(), 10, "the old screen")
    equal(t.tmux("display-message", "-p", "#{cursor_flag} #{alternate_on}").strip(), "1 0", "cursor and screen")
    q.stop_daemon()


@test("NO_COLOR, and states in colour without it", 60)
def colours(scene):
    q = sendq.Sendq(scene.place(), [sendq.route("smtp://127.0.0.1:1", tls="none")])
    q.submit(message("bob@example.test", "down"))
    q.flush()
    for prefix, wanted in (("", True), ("NO_COLOR=1 ", False)):
        t = scene.terminal(q)
        t.type(prefix + q.bin + "/sendq watch", "Enter")
        until(lambda: " down" in t.screen(), 10, "the route")
        equal("\x1b[31mdown" in t.screen(True), wanted, prefix)
        t.type("q")
        t.stop()


@test("a pipe gets lines, and --json one object a change; nothing is looked at while nothing happens", 60)
def piped(scene):
    q, link = scene.sendq("* rate=400000")
    q.submit(message("later@example.test", "later"), "-O", "NotBefore=2h", "-t")
    found = {}
    for name, args in (("json", ["watch", "--json"]), ("lines", ["watch"])):
        p = subprocess.Popen([q.bin + "/sendq"] + args, env=q.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=process.die_with_parent)
        os.set_blocking(p.stdout.fileno(), False)
        found[name] = [p, b""]

    def read():
        for name, pair in found.items():
            while select.select([pair[0].stdout], [], [], 0)[0]:
                more = pair[0].stdout.read()
                if not more:
                    break
                pair[1] += more
        return found

    until(lambda: b"later@example.test" in read()["json"][1] and b"later@example.test" in read()["lines"][1], 10, "the first state")

    def switches():
        with open("/proc/%d/status" % found["json"][0].pid) as f:
            return [line for line in f if "ctxt_switches" in line]
    # It sleeps: the same counts three times in a row, a second apart.
    seen = []
    until(lambda: seen.append(switches()) or (len(seen) > 2 and seen[-1] == seen[-2] == seen[-3]), 20, "it sleeps", pause=1)
    q.daemon()
    number = q.submit(message("bob@example.test", "piped", body(1500000)))
    q.wait(number, "sent", 30)
    until(lambda: read()["json"][1].endswith(b"\n") and json.loads(read()["json"][1].split(b"\n")[-2])["recipients"]["sending"] == 0 and
          b"being sent" in read()["lines"][1], 10, "the end of it")
    rows = [json.loads(line) for line in found["json"][1].splitlines()]
    moving = [r["under_way"][0] for r in rows if r["under_way"]]
    true(len(moving) >= 2, "%d rows of it under way" % len(moving))
    equal({m["id"] for m in moving}, {number})
    true(moving[-1]["acked_octets"] > moving[0]["acked_octets"], "it does not move")
    for a, b in zip(rows, rows[1:]):
        true({k: v for k, v in a.items() if k != "at_ms"} != {k: v for k, v in b.items() if k != "at_ms"}, "a line without a change")
    text = found["lines"][1].decode()
    note(text)
    true(re.search(number + r" +bob@example.test  being sent +\d+ %", text), text)
    true("\x1b" not in text, "escape sequences in a pipe")
    for name, sig in (("json", signal.SIGTERM), ("lines", signal.SIGINT)):
        found[name][0].send_signal(sig)
        err = found[name][0].communicate(timeout=10)[1].decode()
        equal(found[name][0].returncode, 0, err)
        equal("no terminal" in err, name == "lines", err)
    q.stop_daemon()


if __name__ == "__main__":
    main(Scene, Scene.stop)
