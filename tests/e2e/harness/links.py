"""badlink and sink (tests/fake), started and read back."""
import glob
import json
import os
import subprocess

from . import process


def program(name, build=None):
    """A program of the build folder (SENDQ_BUILD), wherever in it it was built."""
    build = build or os.environ["SENDQ_BUILD"]
    found = [p for p in glob.glob(os.path.join(build, "**", name), recursive=True)
             if os.path.isfile(p) and os.access(p, os.X_OK)]
    if not found:
        raise AssertionError("'%s' is not built in %s" % (name, build))
    return os.path.abspath(found[0])


def _lines(path):
    if not os.path.exists(path):
        return []
    with open(path) as f:
        return [json.loads(line) for line in f if line.endswith("\n")]


class Listener:
    """A program that prints its port as its first line."""

    def __init__(self, name, args, folder):
        self.log = os.path.join(folder, name + ".log")
        self.process = process.Process([program(name)] + args + ["--log", self.log],
                                       os.path.join(folder, name + ".err"), stdout=subprocess.PIPE)
        line = self.process.p.stdout.readline()
        if not line:
            raise AssertionError("%s did not start: %s" % (name, self.process.output()))
        self.port = int(line)

    def records(self):
        return _lines(self.log)

    def stop(self):
        self.process.stop()
        self.process.p.stdout.close()


class BadLink(Listener):
    def __init__(self, folder, to_port, rules="", listen=0, address="127.0.0.1"):
        self.control = os.path.join(folder, "badlink.rules")
        self.set(rules)
        super().__init__("badlink", ["--listen", str(listen), "--address", address, "--to", "127.0.0.1:%d" % to_port,
                                     "--control", self.control], folder)

    def set(self, rules):
        """Rules for the connections that come from now on; see badlink.c."""
        with open(self.control + ".new", "w") as f:
            f.write(rules + "\n")
        os.rename(self.control + ".new", self.control)


class Sink(Listener):
    def __init__(self, folder, *options):
        self.store = os.path.join(folder, "sink")
        os.makedirs(self.store, exist_ok=True)
        super().__init__("sink", ["--listen", "0", "--store", self.store] + list(options), folder)

    def messages(self):
        """The stored octets, in the order of acceptance."""
        out = []
        for name in sorted(n for n in os.listdir(self.store) if not n.startswith(".")):
            with open(os.path.join(self.store, name), "rb") as f:
                out.append(f.read())
        return out
