#!/usr/bin/env python3
"""Echo by Python's socketserver: peer_python.py CLASS ADDRESS, as in
peer_python.py ThreadingTCPServer tcp://127.0.0.1:0

The handler is the one that Python's manual shows, with a loop.  Two of the
defaults are changed in Python's favour: the backlog of 5, and threads that
shutdown would wait for."""

import os
import signal
import socket
import socketserver
import sys

BUFFER = 16384  # bench.h


class StreamEcho(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(BUFFER):
            self.request.sendall(data)


class DatagramEcho(socketserver.BaseRequestHandler):
    def handle(self):
        data, sock = self.request
        sock.sendto(data, self.client_address)


def bind_to(text):
    if text.startswith("unix:@"):
        return "\0" + text[6:]
    if text.startswith("unix:"):
        return text[5:]
    host, _, port = text[6:].rpartition(":")
    return host, int(port)


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: peer_python.py CLASS ADDRESS")
    base, address = getattr(socketserver, sys.argv[1]), sys.argv[2]
    datagrams = issubclass(base, socketserver.UDPServer)

    class Server(base):
        request_queue_size = socket.SOMAXCONN
        max_packet_size = 65536
        daemon_threads = True

    server = Server(bind_to(address), DatagramEcho if datagrams else StreamEcho)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if not address.startswith("unix:"):
        host, port = server.server_address
        address = f"{address[:6]}{host}:{port}"
    print("listening on", address, flush=True)
    server.serve_forever()


main()
