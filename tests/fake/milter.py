"""A filter as Postfix asks it (the milter protocol of sendmail 8, version 6): it lets everything pass and keeps what it saw."""
import socketserver
import struct
import threading


class _Session(socketserver.StreamRequestHandler):
    def handle(self):
        body = None
        while True:
            head = self.rfile.read(4)
            if len(head) < 4:
                break
            packet = self.rfile.read(struct.unpack(">I", head)[0])
            command, data = packet[:1], packet[1:]
            if command == b"O":
                self.answer(b"O" + struct.pack(">III", 6, 0, 0))
            elif command == b"E":
                self.server.whole.append((body or b"") + data)
                body = None
                self.answer(b"a")
            elif command in b"AQK":  # abort, quit, quit and begin anew
                break_off, body = body, None
                if break_off is not None:
                    self.server.broken.append(break_off)
                if command == b"Q":
                    return
            elif command != b"D":  # macros want no answer
                if command == b"B":
                    body = (body or b"") + data
                self.answer(b"c")
        if body is not None:
            self.server.broken.append(body)

    def answer(self, packet):
        self.wfile.write(struct.pack(">I", len(packet)) + packet)


class Milter(socketserver.ThreadingTCPServer):
    """`whole`: bodies whose end was seen; `broken`: those that began and broke off."""
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Session)
        self.port, self.whole, self.broken = self.server_address[1], [], []
        threading.Thread(target=self.serve_forever, daemon=True).start()
