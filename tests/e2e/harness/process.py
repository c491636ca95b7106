"""Child processes that end with the test, temporary folders, free ports."""
import atexit
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

_libc = ctypes.CDLL(None)


def die_with_parent():
    """In the child: be ended when the test program dies, however it dies."""
    _libc.prctl(1, signal.SIGTERM)
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):  # by whoever started the tests in the background
        signal.signal(ignored, signal.SIG_DFL)


def temp_folder(name):
    """A folder that is removed at the end; readable by the servers' own users."""
    path = tempfile.mkdtemp(prefix="sendq-%s-" % name)
    os.chmod(path, 0o755)
    if os.environ.get("SENDQ_KEEP") != "1":
        atexit.register(shutil.rmtree, path, True)
    return path


def free_port():
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
    s.close()
    return port


def answers(port, greeting=True):
    """Somebody listens there (and, with `greeting`, speaks first)."""
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as s:
            s.settimeout(5)
            return bool(s.recv(4)) if greeting else True
    except OSError:
        return False


class Process:
    """A child with its output in a file; stopped by its id, never by name."""

    def __init__(self, args, log, env=None, stdout=None, cwd=None):
        self.args = args
        self.log = log
        self._file = open(log, "ab")
        self.p = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=stdout or self._file, stderr=self._file,
                                  env=env, cwd=cwd, preexec_fn=die_with_parent)
        atexit.register(self.stop)

    def alive(self):
        return self.p.poll() is None

    def stop(self, sig=signal.SIGTERM, seconds=15):
        if self.p.poll() is None:
            self.p.send_signal(sig)
            try:
                self.p.wait(seconds)
            except subprocess.TimeoutExpired:
                self.p.kill()
                self.p.wait()
        atexit.unregister(self.stop)
        self._file.close()
        return self.p.returncode

    def output(self):
        with open(self.log, "rb") as f:
            return f.read().decode("utf-8", "replace")


def wait_for(what, process, seconds=30):
    """Until `what()`; a process that ended meanwhile fails at once, with its last words."""
    end = time.monotonic() + seconds
    while not what():
        if not process.alive() or time.monotonic() > end:
            raise AssertionError("%s did not get ready:\n%s" % (process.args[0], process.output()[-3000:]))
        time.sleep(0.02)
