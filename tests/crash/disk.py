"""What recorder.c wrote down, and what a power loss would have left of it.

A file is its octets at its last sync, and the writes since: of those, any part
may have reached the disk, in any order, sector by sector. Names (created,
renamed, removed) are on disk when their folder was synced since; before that,
those up to some moment are.
"""
import os
import struct

HEADER = struct.Struct("=IIqi4s")
SECTOR = 512


class Record:
    def __init__(self, kind, path, offset, pid, octets):
        self.kind, self.path, self.offset, self.pid, self.octets = kind, path, offset, pid, octets


def read(log):
    out = []
    with open(log, "rb") as f:
        data = f.read()
    at = 0
    while at < len(data):
        path_n, octets_n, offset, pid, kind = HEADER.unpack_from(data, at)
        at += HEADER.size
        path, octets = data[at:at + path_n].decode(), data[at + path_n:at + path_n + octets_n]
        at += path_n + octets_n
        out.append(Record(chr(kind[0]), path, offset, pid, octets))
    return out


def mark(log, octets):
    """A record of the test itself: kind X."""
    with open(log, "ab", buffering=0) as f:
        f.write(HEADER.pack(0, len(octets), 0, 0, b"X\0\0\0") + octets)


def _apply(image, r):
    if r.kind == "T":
        del image[r.offset:]
        image.extend(bytes(max(0, r.offset - len(image))))
        return
    if len(image) < r.offset:
        image.extend(bytes(r.offset - len(image)))
    image[r.offset:r.offset + len(r.octets)] = r.octets


def _apply_part(image, r, random):
    """Some sectors of a write."""
    at = r.offset
    while at < r.offset + len(r.octets):
        end = min((at // SECTOR + 1) * SECTOR, r.offset + len(r.octets))
        if random.random() < 0.5:
            _apply(image, Record("W", r.path, at, 0, r.octets[at - r.offset:end - r.offset]))
        at = end


class File:
    def __init__(self):
        self.synced, self.pending, self.begun = bytearray(), [], {}

    def left(self, how, random):
        image = bytearray(self.synced)
        for r in self.pending if how != "synced" else ():
            fate = random.random() if how == "some" else 0
            if fate < 0.4:
                _apply(image, r)
            elif fate < 0.6 and r.kind == "W":
                _apply_part(image, r, random)
        return bytes(image)


class Disk:
    """Fed with records one by one; `left()` may be asked after each."""

    def __init__(self):
        self.now, self.durable, self.names = {}, {}, []
        self._names_begun = {}

    def feed(self, r):
        if r.kind == "W" or r.kind == "T":
            self.now.setdefault(r.path, File()).pending.append(r)
        elif r.kind in "BS" and r.path.endswith("/"):
            self._sync_folder(r)
        elif r.kind == "B" and r.path in self.now:
            self.now[r.path].begun[r.pid] = len(self.now[r.path].pending)
        elif r.kind == "S" and r.path in self.now:
            self._sync(self.now[r.path], r.pid)
        elif r.kind == "C":
            new = File()
            self._name(lambda names: names.__setitem__(r.path, new))
        elif r.kind == "U":
            self._name(lambda names: names.pop(r.path, None))
        elif r.kind == "R":
            moved = self.now[r.octets.decode()]

            def rename(names):
                names.pop(r.octets.decode(), None)
                names[r.path] = moved
            self._name(rename)

    def _name(self, change):
        change(self.now)
        self.names.append(change)

    def _sync(self, file, pid):
        n = file.begun.pop(pid, 0)
        for r in file.pending[:n]:
            _apply(file.synced, r)
        del file.pending[:n]
        for other in file.begun:
            file.begun[other] = max(0, file.begun[other] - n)

    def _sync_folder(self, r):
        if r.kind == "B":
            self._names_begun[r.pid] = len(self.names)
            return
        n = self._names_begun.pop(r.pid, 0)
        for change in self.names[:n]:
            change(self.durable)
        del self.names[:n]
        for other in self._names_begun:
            self._names_begun[other] = max(0, self._names_begun[other] - n)

    def left(self, how, random):
        """{path: octets} after a power loss now: "synced", "all" or "some" of what was not synced is there too."""
        names = dict(self.durable)
        n = {"synced": 0, "all": len(self.names)}.get(how)
        for change in self.names[:random.randint(0, len(self.names)) if n is None else n]:
            change(names)
        return {path: file.left(how, random) for path, file in names.items()}


def put_back(folder, files):
    """The folder as the power loss left it; a file that was there keeps its inode, for the queue knows its own."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if path not in files and os.path.isfile(path):
            os.unlink(path)
    for path, octets in files.items():
        with open(path, "r+b" if os.path.exists(path) else "w+b") as f:
            f.truncate(0)
            f.write(octets)
        os.chmod(path, 0o600)
