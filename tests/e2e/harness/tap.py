"""Test functions in, TAP out.

    @test("what must hold")
    def name(env): ...

`main()` runs them in the order of the file. SENDQ_TEST=word runs only those
whose name or title holds the word. A test that raises Skip is a skip with its
reason; any other exception is a failure and is printed as a comment.
"""
import os
import signal
import sys
import time
import traceback

_tests = []


class Skip(Exception):
    pass


class TimeUp(Exception):
    pass


def test(title, seconds=120, long=False):
    """Register a test. `long` ones run only with SENDQ_LONG=1 and are not counted otherwise."""
    def register(function):
        _tests.append((title, function, seconds, long))
        return function
    return register


def note(text):
    for line in str(text).splitlines():
        print("#", line)
    sys.stdout.flush()


def until(what, seconds=20.0, message="", pause=0.02):
    """Ask `what` until it answers something true; that answer, or a failure when the time is up."""
    end = time.monotonic() + seconds
    while True:
        answer = what()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError("%s within %g s" % (message or "never came true: %s" % what, seconds))
        time.sleep(pause)


def equal(got, want, what=""):
    if got != want:
        raise AssertionError("%s: got %r, want %r" % (what or "not equal", got, want))


def true(condition, what):
    if not condition:
        raise AssertionError(what)


def holds(text, part, what=""):
    if part not in text:
        raise AssertionError("%s: %r is not in %r" % (what or "text", part, text))


def _alarm(signum, frame):
    raise TimeUp("the test took too long")


def add(title, function, seconds=120):
    """Register one row of a table."""
    _tests.append((title, function, seconds, False))


def main(setup=None, teardown=None):
    """Run everything; exit 1 when anything failed. `setup()` gives what each test gets."""
    word = os.environ.get("SENDQ_TEST", "")
    long = os.environ.get("SENDQ_LONG") == "1"
    chosen = [t for t in _tests if (long or not t[3]) and (word in t[0] or word in t[1].__name__)]
    failed = 0
    signal.signal(signal.SIGALRM, _alarm)
    signal.signal(signal.SIGTERM, lambda s, f: sys.exit(143))
    print("1..%d" % len(chosen))
    sys.stdout.flush()
    env, broken = None, None
    try:
        try:
            signal.alarm(120)
            env = setup() if setup else None
        except Skip as reason:
            broken = "SKIP"
            note(reason)
        except Exception:
            broken = "setup failed"
            note(traceback.format_exc())
        for number, (title, function, seconds, _) in enumerate(chosen, 1):
            began = time.monotonic()
            try:
                if broken:
                    raise Skip("servers are missing") if broken == "SKIP" else AssertionError(broken)
                signal.alarm(seconds)
                function(env)
                result, mark = "ok", ""
            except Skip as reason:
                result, mark = "ok", " # SKIP %s" % reason
            except Exception:
                result, mark = "not ok", ""
                failed += 1
                if not broken:
                    note(traceback.format_exc())
            finally:
                signal.alarm(0)
            print("%s %d - %s%s" % (result, number, title, mark))
            if not mark:
                print("# %.1f s" % (time.monotonic() - began))
            sys.stdout.flush()
    finally:
        signal.alarm(60)
        if env is not None and teardown:
            teardown(env)
        signal.alarm(0)
    sys.exit(1 if failed else 0)
