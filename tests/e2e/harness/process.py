"""Child processes that end with the test, temporary folders, free ports."""
import atexit
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

_libc = ctypes.CDLL(None)
_folders = []


def running():
    """(process id, its command line) of everything there is."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/cmdline" % name, "rb") as f:
                    yield int(name), f.read().decode("utf-8", "replace").split("\0")[:-1]
            except OSError:
                pass


def _belongs(pid, words):
    """It was given one of our folders, stands in one or holds a file of one open."""
    if any(folder in word for word in words for folder in _folders):
        return True
    links = ["/proc/%d/cwd" % pid]
    try:
        links += ["/proc/%d/fd/%s" % (pid, fd) for fd in os.listdir("/proc/%d/fd" % pid)]
    except OSError:
        pass
    for link in links:
        try:
            if os.readlink(link).startswith(tuple(folder + "/" for folder in _folders)):
                return True
        except OSError:
            pass
    return False


def _left_behind():
    """The very last thing a test program does: whatever it started is gone, or it fails and ends it."""
    if os.getpid() != _our_pid:
        return

    def still():
        return [(pid, words) for pid, words in running() if pid != os.getpid() and _folders and _belongs(pid, words)]
    end = time.monotonic() + 10
    while (left := still()) and time.monotonic() < end:
        time.sleep(0.05)
    for pid, words in left:
        print("# left behind: %d %s" % (pid, " ".join(words)[:300]))
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
    sys.stdout.flush()
    if left:
        os._exit(1)


_our_pid = os.getpid()
atexit.register(_left_behind)  # first, so it is called last


def die_with_parent():
    """In the child: be ended when the test program dies, however it dies."""
    _libc.prctl(1, signal.SIGTERM)
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):  # by whoever started the tests in the background
        signal.signal(ignored, signal.SIG_DFL)


def temp_folder(name):
    """A folder that is removed at the end; readable by the servers' own users."""
    path = tempfile.mkdtemp(prefix="sendq-%s-" % name)
    os.chmod(path, 0o755)
    _folders.append(path)
    if os.environ.get("SENDQ_KEEP") != "1":
        atexit.register(shutil.rmtree, path, True)
    return path


def free_port():
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
    s.close()
    return port


def listeners(port):
    """The processes that hold a socket which listens there, on 127.0.0.1."""
    with open("/proc/net/tcp") as f:
        rows = [line.split() for line in f.readlines()[1:]]
    held = {"socket:[%s]" % row[9] for row in rows if row[3] == "0A" and int(row[1].rsplit(":", 1)[1], 16) == port}
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")) if held else ():
        try:
            if any(os.readlink(f.path) in held for f in os.scandir("/proc/%s/fd" % pid)):
                found.append(int(pid))
        except OSError:
            pass  # it has ended
    return found


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
