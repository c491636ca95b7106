"""A system bus of its own with stand-ins for NetworkManager and login1 on it (python3-dbusmock's, not ours)."""
import os
import signal

from . import process
from .tap import Skip, until

try:
    import dbus
    import dbus.bus
    import dbus.lowlevel
    import dbusmock  # noqa: F401
    MISSING = None
except ImportError as e:
    MISSING = str(e)

CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="signal"/>
    <allow send_destination="*"/>
    <allow receive_type="*"/>
  </policy>
</busconfig>
"""

NM, NM_PATH = "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager"
LOGIN, LOGIN_PATH, LOGIN_MANAGER = "org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager"
MOCK = "org.freedesktop.DBus.Mock"
UNKNOWN, NONE, PORTAL, LIMITED, FULL = range(5)


class Bus:
    def __init__(self, folder):
        if MISSING or not os.path.exists("/usr/bin/dbus-daemon"):
            raise Skip("the packages dbus and python3-dbusmock are needed: %s" % MISSING)
        self.folder = folder
        self.path = os.path.join(folder, "bus")
        self.address = "unix:path=" + self.path
        self.daemon = self.network = self.login = self.connection = None
        with open(os.path.join(folder, "bus.conf"), "w") as f:
            f.write(CONFIG % self.path)

    def start(self, connectivity=FULL):
        """The bus with both services; a socket that is there already is a dead bus's."""
        self.daemon = process.Process(["/usr/bin/dbus-daemon", "--nofork", "--nopidfile", "--config-file=%s/bus.conf" % self.folder],
                                      os.path.join(self.folder, "bus.log"))
        process.wait_for(self._connect, self.daemon)
        self.start_network(connectivity)
        self.login = self._mock("logind")
        self._owned(LOGIN)
        return self

    def _connect(self):
        try:
            self.connection = dbus.bus.BusConnection(self.address)
            return True
        except dbus.DBusException:
            return False

    def _mock(self, template, *args):
        return process.Process(["/usr/bin/python3", "-m", "dbusmock", "--system", "-t", template] + list(args),
                               os.path.join(self.folder, template + ".log"), env=dict(os.environ, DBUS_SYSTEM_BUS_ADDRESS=self.address))

    def _owned(self, name):
        until(lambda: self.connection.name_has_owner(name), 30, name + " is on the bus")

    def start_network(self, connectivity=FULL):
        self.network = self._mock("networkmanager")
        self._owned(NM)
        if connectivity != FULL:
            self.connectivity(connectivity)

    def stop_network(self):
        self.network.stop()
        self.network = None
        until(lambda: not self.connection.name_has_owner(NM), 20, "NetworkManager is gone")

    def connectivity(self, value):
        dbus.Interface(self.connection.get_object(NM, NM_PATH), MOCK).SetConnectivity(dbus.UInt32(value))

    def sleep(self, going):
        """What login1 says before it suspends the machine, and after."""
        mock = dbus.Interface(self.connection.get_object(LOGIN, LOGIN_PATH), MOCK)
        mock.EmitSignal(LOGIN_MANAGER, "PrepareForSleep", "b", [dbus.Boolean(going)])

    def refuse_delays(self):
        """From now on another login1, which lets nobody delay sleep. Returns a function that counts who asked it to."""
        self.login.stop()
        self.login = process.Process(["/usr/bin/python3", "-m", "dbusmock", "--system", LOGIN, LOGIN_PATH, LOGIN_MANAGER],
                                     os.path.join(self.folder, "refuses.log"), env=dict(os.environ, DBUS_SYSTEM_BUS_ADDRESS=self.address))
        self._owned(LOGIN)
        mock = dbus.Interface(self.connection.get_object(LOGIN, LOGIN_PATH), MOCK)
        mock.AddMethod(LOGIN_MANAGER, "Inhibit", "ssss", "h", 'raise dbus.exceptions.DBusException("no", name="org.freedesktop.DBus.Error.AccessDenied")')
        return lambda: len(mock.GetMethodCalls("Inhibit"))

    def inhibitors(self):
        """What delays sleep now: (what, who, why, mode)."""
        login = dbus.Interface(self.connection.get_object(LOGIN, LOGIN_PATH), LOGIN_MANAGER)
        return [tuple(str(word) for word in i[:4]) for i in login.ListInhibitors()]

    def name_of(self, pid):
        """The connection of a process; None: it has none."""
        for name in [n for n in self.connection.list_names() if n.startswith(":")]:
            try:
                if pid == self.connection.call_blocking("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
                                                        "GetConnectionUnixProcessID", "s", (name,)):
                    return name
            except dbus.DBusException:
                pass
        return None

    def forge(self, to, path, interface, name, signature, *args):
        """A signal to one connection from somebody who owns neither name: those to all are sorted out by the bus."""
        m = dbus.lowlevel.SignalMessage(path, interface, name)
        m.set_destination(to)
        m.append(signature=signature, *args)
        self.connection.send_message(m)
        self.connection.flush()

    def stop(self, sig=signal.SIGTERM):
        """With SIGKILL the socket stays in its folder, with nobody behind it."""
        if self.connection:
            self.connection.set_exit_on_disconnect(False)
            self.connection.close()
        for p in (self.daemon, self.network, self.login):
            if p:
                p.stop(sig if p is self.daemon else signal.SIGTERM)
        self.daemon = self.network = self.login = self.connection = None
