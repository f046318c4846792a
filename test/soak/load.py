"""Clients of an echo server, good and bad ones."""

import os
import socket
import struct
import time

WAIT = 20      # seconds for an answer
TRIES = 40     # a datagram may be lost where a socket has no room
RESET = struct.pack("ii", 1, 0)


class Lost(Exception):
    """A client was not served as it may count on."""


class Ended(Lost):
    """Not a byte of the answer has come."""


class Clients:
    """Of one server; each method is a client, or several at once."""

    def __init__(self, url, directory, dice, forgiving):
        scheme, _, rest = url.partition(":")
        self.stream = scheme in ("tcp", "unix")
        self.inet = scheme in ("tcp", "udp")
        self.path = rest
        if self.inet:
            host, _, port = rest[2:].rpartition(":")
            self.path = (host, int(port))
        self.directory, self.dice = directory, dice
        self.forgiving = forgiving  # workers are killed: connections break
        self.restarting = False  # conversations end, between two messages
        self.served = self.broken = self.unique = 0
        self.kinds = ((self.talk, self.come_and_go, self.slow, self.reset,
                       self.storm, self.half) if self.stream else
                      (self.ask, self.say_and_go, self.empty, self.burst))

    def open(self):
        family = socket.AF_INET if self.inet else socket.AF_UNIX
        kind = socket.SOCK_STREAM if self.stream else socket.SOCK_DGRAM
        s = socket.socket(family, kind)
        s.settimeout(WAIT)
        if not self.inet and not self.stream:
            self.unique += 1
            s.bind("%s/client%d" % (self.directory, self.unique))
        s.connect(self.path)
        return s

    def close(self, s):
        name = b"" if self.inet else s.getsockname()
        s.close()
        if name and not self.stream:
            os.unlink(name)

    def some(self):
        """One of them; what breaks is forgiven where that is expected."""
        try:
            self.dice.choice(self.kinds)()
        except (ConnectionResetError, BrokenPipeError, Lost) as error:
            if not self.forgiving:
                raise Lost("%s: %r" % (self.path, error)) from error
            self.broken += 1
        except OSError as error:
            raise Lost("%s: %r" % (self.path, error)) from error

    # ---- streams ------------------------------------------------------------

    def expect(self, s, text):
        got = b""
        while len(got) < len(text):
            part = s.recv(len(text) - len(got))
            if not part:
                raise (Lost if got else Ended)(
                    "end of file after %d of %d bytes" % (
                        len(got), len(text)))
            got += part
        if got != text:
            raise Lost("%r instead of %r" % (got[:40], text[:40]))

    def talk(self):
        s, said = self.open(), 0
        try:
            for said in range(self.dice.randint(1, 8)):
                text = self.dice.randbytes(self.dice.choice(
                    (1, 64, 64, 1000, 20000)))
                s.sendall(text)
                self.expect(s, text)
            s.shutdown(socket.SHUT_WR)
            if s.recv(1):
                raise Lost("more than was sent")
        except (ConnectionResetError, BrokenPipeError, Ended):
            if not (self.restarting and said):
                raise
        finally:
            s.close()
        self.served += 1

    def come_and_go(self):
        for _ in range(10):
            self.open().close()

    def slow(self):
        s = self.open()
        try:
            for byte in (b"s", b"l", b"o", b"w"):
                s.sendall(byte)
                time.sleep(0.01)
            self.expect(s, b"slow")
        except (ConnectionResetError, BrokenPipeError, Lost):
            if not self.restarting:  # each byte is a message
                raise
        finally:
            s.close()

    def reset(self):
        s = self.open()
        s.sendall(b"x" * self.dice.randint(0, 5000))
        if self.inet:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        s.close()

    def storm(self):
        """All there at once, some with something to say, then all gone."""
        clients = [self.open() for _ in range(20)]
        for s in clients[::2]:
            s.sendall(b"hello")
        for s in clients:
            if self.inet:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            s.close()

    def half(self):
        s = self.open()
        try:
            s.sendall(b"the end")
            s.shutdown(socket.SHUT_WR)
            self.expect(s, b"the end")
        finally:
            s.close()

    # ---- datagrams ----------------------------------------------------------

    def ask(self):
        s = self.open()
        s.settimeout(WAIT / TRIES)
        try:
            for _ in range(TRIES):
                text = self.dice.randbytes(self.dice.choice((4, 64, 1000)))
                s.send(text)
                try:
                    while s.recv(65536) != text:
                        pass  # an answer to an earlier try
                    self.served += 1
                    return
                except socket.timeout:
                    continue
            raise Lost("no answer to a datagram")
        finally:
            self.close(s)

    def say_and_go(self):
        s = self.open()
        s.send(b"nobody listens")
        self.close(s)

    def empty(self):
        s = self.open()
        s.send(b"")
        self.close(s)

    def burst(self):
        s = self.open()
        for _ in range(30):
            s.send(b"burst")
        self.close(s)
