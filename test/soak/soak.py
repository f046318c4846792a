#!/usr/bin/env python3
"""soak.py [OPTION]...: servers under mixed load for hours; does anything grow?

Every model serves every transport.  Clients talk, come and go, are slow, reset,
come in storms; servers are reloaded, some restarted again and again, and
workers of prefork killed.  Between rounds, when all clients have gone, memory,
descriptors, threads and processes are counted: none may grow (slopes.py has
the rule), no client may be lost, and every server must end well.
"""

import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time

import load
import slopes
import watch

MODELS = ("sync", "threading", "forking", "pool", "prefork", "fiber",
          "prefork,threading", "prefork,fiber")
TRANSPORTS = ("tcp", "udp", "unix", "unixgram")
ROUND = 3       # seconds of load between two samples, more in a long soak
ROUNDS = 600    # at most
SIGNALS = 4     # rounds from one signal to the next
START, STOP = 20, 40
WORKERS = 2     # of prefork
# What may come and go without being a leak: pages of allocators, by process.
ALLOWANCES = {"memory": 256 << 10, "descriptors": 0.9, "threads": 0.9,
              "processes": 0.9}


class Server(threading.Thread):
    def __init__(self, soak, model, transport, restarted=False):
        super().__init__(daemon=True)
        self.soak, self.model, self.transport = soak, model, transport
        self.restarted = restarted
        self.name = "%s %s%s" % (model, transport,
                                 ", restarted" if restarted else "")
        self.label = self.name.replace(" ", "-").replace(",", "+")
        self.directory = os.path.join(soak.scratch, self.label)
        os.mkdir(self.directory)
        self.tag = (self.directory + "/control").encode()
        self.dice = random.Random("%d %s" % (soak.seed, self.name))
        self.samples, self.wrong, self.rounds = [], [], 0
        self.process = self.clients = None

    def address(self):
        return {"tcp": "tcp://127.0.0.1:0", "udp": "udp://127.0.0.1:0",
                "unix": "unix:%s/s" % self.directory,
                "unixgram": "unixgram:%s/s" % self.directory}[self.transport]

    def begin(self):
        command = [self.soak.program, "-m", self.model, "--workers", str(WORKERS),
                   "--idle", "5", "--control", self.tag.decode(),
                   "--log", "warning", "--log-to",
                   "json:%s/log.json" % self.directory, self.address()]
        environment = dict(os.environ)
        if self.soak.leak:
            environment.update(LD_PRELOAD=self.soak.leak_library,
                               SOAK_LEAK=self.soak.leak)
        self.log = open(self.directory + "/log", "wb")
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=self.log, env=environment)
        words = self.process.stdout.readline().split()
        if words[:2] != [b"listening", b"on"]:
            raise load.Lost("it does not start: see %s/log" % self.directory)
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        self.clients = load.Clients(words[2].decode(), self.directory,
                                    self.dice, "prefork" in self.model)

    def run(self):
        try:
            self.begin()
            self.sample()
            while not self.soak.over():
                until = time.monotonic() + self.soak.round
                while time.monotonic() < until and not self.soak.over():
                    self.clients.some()
                self.rounds += 1
                self.trouble()
                self.sample()
            self.end()
        except (load.Lost, OSError, ValueError) as error:
            self.wrong.append(str(error))
        finally:
            self.kill()

    def sample(self):
        figures = watch.sample(self.tag)
        if not figures["processes"]:
            raise load.Lost("its processes are gone")
        self.samples.append((time.monotonic(), figures))

    def main(self):
        """The one that serves now, or supervises who does."""
        pids = watch.processes(self.tag)
        if not pids:
            raise load.Lost("its processes are gone")
        return pids[0]

    def trouble(self):
        if self.rounds % SIGNALS == 1:
            os.kill(self.main(), signal.SIGHUP)
        if self.rounds % SIGNALS == 2 and self.restarted:
            self.restart()
        if self.rounds % SIGNALS == 3 and "prefork" in self.model:
            workers = watch.processes(self.tag)[1:]
            os.kill(self.dice.choice(workers), signal.SIGKILL)
            self.settle()

    def settle(self):
        """Workers are all there, and nobody else."""
        count = 1 + (WORKERS if "prefork" in self.model else 0)
        until = time.monotonic() + START
        while len(watch.processes(self.tag)) != count:
            if time.monotonic() > until:
                raise load.Lost("%d processes, not %d" % (
                    len(watch.processes(self.tag)), count))
            time.sleep(0.02)

    def restart(self):
        """Clients go on meanwhile; none may be refused."""
        old = self.main()
        os.kill(old, signal.SIGUSR2)
        until = time.monotonic() + START
        self.clients.restarting = True
        while old in watch.processes(self.tag):
            self.clients.some()
            if time.monotonic() > until:
                raise load.Lost("the old one is still there")
        self.clients.restarting = False
        self.settle()

    def end(self):
        os.kill(self.main(), signal.SIGTERM)
        until = time.monotonic() + STOP
        while watch.processes(self.tag):
            if time.monotonic() > until:
                raise load.Lost("it does not end")
            time.sleep(0.05)
        status = self.process.wait(STOP)
        if status != 0:
            raise load.Lost("exit status %d" % status)
        if self.clients.served < self.rounds:
            raise load.Lost("served but %d clients" % self.clients.served)

    def kill(self):
        for pid in watch.processes(self.tag):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self.process:
            self.process.wait()

    def verdicts(self):
        most = max(figures["processes"] for _, figures in self.samples)
        for figure in watch.FIGURES:
            allowance = ALLOWANCES[figure] * (
                most if figure == "memory" else 1)
            yield figure, slopes.Verdict(
                [(t, f[figure]) for t, f in self.samples], allowance)


class Soak:
    def __init__(self, arguments):
        self.seconds = arguments.seconds
        self.seed, self.leak = arguments.seed, arguments.leak
        self.program = os.path.abspath(
            os.path.join(arguments.build, "demos/echo_server"))
        self.leak_library = os.path.abspath(
            os.path.join(arguments.build, "soak/leak.so"))
        self.round = max(ROUND, self.seconds / ROUNDS)
        self.scratch = tempfile.mkdtemp(prefix="ss-soak-")
        self.until = None
        self.stopped = False
        self.servers = [Server(self, m, t) for m in MODELS for t in TRANSPORTS]
        self.servers += [Server(self, m, "tcp", True) for m in MODELS]
        if arguments.only:
            self.servers = [s for s in self.servers
                            if arguments.only in s.name]

    def over(self):
        return self.stopped or time.monotonic() >= self.until

    def run(self):
        self.until = time.monotonic() + self.seconds
        for server in self.servers:
            server.start()
        try:
            while any(server.is_alive() for server in self.servers):
                time.sleep(0.5)
                self.tell()
        except KeyboardInterrupt:
            self.stopped = True
            for server in self.servers:
                server.join()

    def tell(self):
        if not sys.stderr.isatty():
            return
        left = max(0, self.until - time.monotonic())
        sys.stderr.write("\r%d clients served, %d s left  " % (
            sum(s.clients.served for s in self.servers if s.clients), left))

    def table(self):
        """Whether all is well."""
        print("%-30s %7s %7s %6s  %s" % (
            "server", "clients", "samples", "broken",
            "growth: memory, descriptors, threads, processes"))
        good = bool(self.servers)
        for server in self.servers:
            words = []
            for figure, verdict in server.verdicts() if server.samples else ():
                unit = 1024 if figure == "memory" else 1
                words.append("%s %+.4g%s" % (
                    verdict.word(), verdict.growth / unit,
                    " KiB" if unit > 1 else ""))
                good = good and verdict.enough and not verdict.grows
            good = good and not server.wrong
            served = server.clients.served if server.clients else 0
            print("%-30s %7d %7d %6d  %s" % (
                server.name, served, len(server.samples),
                server.clients.broken if server.clients else 0,
                ", ".join(words)))
            for wrong in server.wrong:
                print("    WRONG: %s" % wrong)
        return good


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("build", help="where the servers are built")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", help="servers with this in their name")
    parser.add_argument("--leak", choices=("memory", "descriptors", "threads"),
                        help="plant one into each server")
    return parser.parse_args()


def main():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soak = Soak(arguments())
    # As an interrupt: nobody else ends the servers.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("seed %d, %d servers, %.0f s, in %s" % (
        soak.seed, len(soak.servers), soak.seconds, soak.scratch), flush=True)
    soak.run()
    good = soak.table()
    print("soak: %s" % ("all flat" if good else "NOT WELL"))
    if good:
        subprocess.run(["rm", "-rf", soak.scratch], check=False)
    sys.exit(not good)


main()
