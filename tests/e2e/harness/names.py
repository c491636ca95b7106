"""A name server of the tests' own, and a place where the machine asks nobody else."""
import ctypes
import os
import socket
import struct
import subprocess
import threading

from .tap import Skip

CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000
A, MX, AAAA, SRV = 1, 15, 28, 33


def own_network(folder):
    """From here on this process and its children have a network and an /etc/resolv.conf of their own: every port is free, and
    the name server is whoever listens on 127.0.0.1:53. Root only."""
    if os.geteuid() != 0 or ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS | CLONE_NEWNET) != 0:
        raise Skip("no network namespace can be made")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "route", "add", "192.0.2.0/24", "dev", "lo"], check=True)  # a way out, as far as anybody looks
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    for name, text in (("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"), ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")):
        path = os.path.join(folder, name)
        with open(path, "w") as f:
            f.write(text)
        subprocess.run(["mount", "--bind", path, os.path.realpath("/etc/" + name)], check=True)


class Names:
    """Answers by (name, type), in wire format; a name without any record does not exist."""

    def __init__(self, port=0):
        self.records = {}
        self.asked = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", port))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    @staticmethod
    def name(text):
        return b"".join(bytes([len(p)]) + p.encode() for p in text.split(".") if p) + b"\0"

    def add(self, name, kind, data):
        self.records.setdefault((name, kind), []).append(data)

    def srv(self, name, host, port):
        self.add(name, SRV, struct.pack(">HHH", 0, 1, port) + self.name(host))

    def mx(self, name, host, preference=10):
        self.add(name, MX, struct.pack(">H", preference) + self.name(host))

    def a(self, name, address):
        self.add(name, A, socket.inet_aton(address))

    def serve(self):
        while True:
            q, peer = self.socket.recvfrom(4096)
            at, labels = 12, []
            while q[at]:
                labels.append(q[at + 1:at + 1 + q[at]].decode())
                at += 1 + q[at]
            end = at + 5
            key = (".".join(labels).lower(), struct.unpack(">H", q[at + 1:at + 3])[0])
            self.asked.append(key)
            data = self.records.get(key, [])
            known = any(name == key[0] for name, _ in self.records)
            head = q[:2] + struct.pack(">HHHHH", 0x8180 if known else 0x8183, 1, len(data), 0, 0)
            answers = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", key[1], 1, 60, len(d)) + d for d in data)
            self.socket.sendto(head + q[12:end] + answers, peer)
