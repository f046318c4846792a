#!/usr/bin/env python3
"""What a server costs, against others that do the same.

For each row, two servers echo for the same load: CPU time of the server, its
threads and children included, per message.  A pair is one measurement of each,
made of slices in the order ours, peer, twin, twin, peer, ours, and so on (every
second pair the other way round), so that what drifts on the machine weighs on
all of them alike.  The twin is the peer once more: how far its ratio to the peer
is from 1 is the control, and no verdict is finer than that.

The median ratio of all pairs stands with an interval that holds the true median
with at least 95 % (order statistics).  Every series is appended to bench.json.
"""

import argparse
import dataclasses
import datetime
import json
import math
import os
import platform
import re
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.abspath(os.environ.get("SS_BUILD", "build/release"))
LOAD = f"{BUILD}/bench/load"
RESULTS = os.path.join(os.path.dirname(BUILD), "bench.json")
START_SECONDS = 10  # until a server must have said where it listens
STOP_SECONDS = 15   # until it must have ended after SIGTERM


def ours(model, *options):
    return (f"{BUILD}/demos/echo_server", "-m", model, *options)


def peer(name):
    return (f"{BUILD}/bench/peer_{name}",)


def python(name):
    return (sys.executable, f"{HERE}/peer_python.py", name)


# What runs, by name; the address comes last.
SERVERS = {
    "sync": ours("sync"),
    "threading": ours("threading"),
    "threading --loop": ours("threading", "--loop"),
    "forking": ours("forking"),
    "hand-written sync": peer("sync"),
    "hand-written threads": peer("thread"),
    "hand-written forks": peer("fork"),
    "hand-written epoll": peer("epoll"),
    "hand-written udp": peer("udp"),
    "Python TCPServer": python("TCPServer"),
    "Python ThreadingTCPServer": python("ThreadingTCPServer"),
    "Python ForkingTCPServer": python("ForkingTCPServer"),
    "Python UDPServer": python("UDPServer"),
}


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    ours: str  # in SERVERS, as is peer
    peer: str
    mode: str  # of the load: pingpong, connect
    clients: int
    goal: float = None  # for the ratio of ours to the peer
    size: int = 64
    transport: str = "tcp"
    # Children that are reaped show in the kernel's sums in ticks of 10 ms until
    # their parent is reaped too: then account for all of its life.
    whole_life: bool = False


ROWS = [
    Row("threading, ping-pong", "threading", "hand-written threads",
        "pingpong", 64, goal=1.03),
    Row("threading, connect", "threading", "hand-written threads",
        "connect", 64, goal=1.03),
    Row("forking, connect", "forking", "hand-written forks",
        "connect", 16, goal=1.03, whole_life=True),
    Row("framework, ping-pong", "sync", "hand-written sync",
        "pingpong", 1, goal=1.03),
    Row("framework, connect", "sync", "hand-written sync",
        "connect", 1, goal=1.03),
    Row("Python threading, ping-pong", "threading",
        "Python ThreadingTCPServer", "pingpong", 64),
    Row("Python threading, connect", "threading",
        "Python ThreadingTCPServer", "connect", 64),
    Row("Python forking, connect", "forking",
        "Python ForkingTCPServer", "connect", 16, whole_life=True),
]

ADDRESSES = {
    "tcp": "tcp://127.0.0.1:0",
    "udp": "udp://127.0.0.1:0",
    "unix": "unix:@ss-bench-{unique}",
}


class Failed(Exception):
    """The row cannot be measured."""


class Skipped(Exception):
    """Its peer is not on this machine."""


# ---- one server, one slice of load ------------------------------------------


def process_cpu(pid):
    """Seconds, to the ns, without children: MAKE_PROCESS_CPUCLOCK of Linux."""
    return time.clock_gettime(~pid << 3 | 2)


class Server:
    """A server that runs, within `with`; then `life` is its CPU in seconds."""

    serial = 0

    def __init__(self, name, transport, cpu):
        self.name = name
        Server.serial += 1
        address = ADDRESSES[transport].format(
            unique=f"{os.getpid()}-{Server.serial}")
        self.stderr = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [*SERVERS[name], address], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=self.stderr, start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {cpu}))
        self.pid = self.process.pid
        self.life = None

    def __enter__(self):
        try:
            self.address = self.announced()
            self.born = process_cpu(self.pid)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            self.end()
            return
        try:
            self.stop()
        finally:
            self.end()

    def announced(self):
        readable, _, _ = select.select(
            [self.process.stdout], [], [], START_SECONDS)
        line = self.process.stdout.readline().decode() if readable else ""
        match = re.match(r"listening on (\S+)", line)
        if not match:
            raise Failed(f"{self.name} did not start: {line!r}{self.said()}")
        return match.group(1)

    def stop(self):
        """By SIGTERM; keeps its whole CPU, reaped children included."""
        pidfd = os.pidfd_open(self.pid)
        try:
            os.kill(self.pid, signal.SIGTERM)
            ended, _, _ = select.select([pidfd], [], [], STOP_SECONDS)
        finally:
            os.close(pidfd)
        if not ended:
            raise Failed(f"{self.name} ignores SIGTERM{self.said()}")
        _, status, usage = os.wait4(self.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if self.process.returncode != 0:
            raise Failed(f"{self.name} ended with status "
                         f"{self.process.returncode}{self.said()}")
        self.life = usage.ru_utime + usage.ru_stime - self.born

    def end(self):
        """By force, with what children it may have left."""
        if self.process.returncode is None:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()
        self.process.stdout.close()
        self.stderr.close()

    def said(self):
        self.stderr.seek(0)
        text = self.stderr.read()[-500:].decode(errors="replace").strip()
        return f"; it said: {text}" if text else ""


def load(server, row, seconds, warmup, seed, cpu):
    """One slice; what the load generator found out."""
    command = [LOAD, "-m", row.mode, "-c", str(row.clients),
               "-s", str(row.size), "-t", str(seconds), "-w", str(warmup),
               "-S", str(seed), "-p", str(server.pid), server.address]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False,
            timeout=seconds + warmup + 30,
            preexec_fn=lambda: os.sched_setaffinity(0, {cpu}))
        found = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{server.name}: the load hangs") from error
    except ValueError as error:
        raise Failed(f"{server.name}: {done.stderr.strip()}") from error
    if done.returncode != 0 or found["lost"] > found["messages"] / 1000:
        raise Failed(
            f"{server.name}: {found['errors']} errors ({found['error']}), "
            f"{found['unanswered']} unanswered, {found['lost']} lost of "
            f"{found['messages']}{server.said()}")
    return found


# ---- pairs -------------------------------------------------------------------


def microseconds(row, server, slices):
    """CPU per message."""
    if row.whole_life:
        return server.life * 1e6 / sum(s["all_messages"] for s in slices)
    cpu = sum(s["server_cpu_s"] for s in slices)
    return cpu * 1e6 / sum(s["messages"] for s in slices)


def measure_pair(row, number, options):
    there, back = ["ours", "peer", "twin"], ["twin", "peer", "ours"]
    order = (back + there if number % 2 else there + back) * options.turns
    names = {"ours": row.ours, "peer": row.peer, "twin": row.peer}
    slices = {role: [] for role in names}
    seconds = options.seconds / (2 * options.turns)

    def start(role):
        return Server(names[role], row.transport, options.cpu)

    with start("ours") as a, start("peer") as b, start("twin") as c:
        servers = {"ours": a, "peer": b, "twin": c}
        for i, role in enumerate(order):
            slices[role].append(
                load(servers[role], row, seconds, options.warmup,
                     1 + number * len(order) + i, options.cpu))
    pair = {role: microseconds(row, servers[role], slices[role])
            for role in names}
    return {"us": pair, "order": order, "slices": slices}


def interval(values):
    """The narrowest pair of order statistics that holds the median with 95 %,
    and what it holds it with; all values where there are too few."""
    n, values = len(values), sorted(values)

    def holds(k):
        return 1 - 2 * sum(math.comb(n, i) for i in range(k)) / 2 ** n

    k = max((k for k in range(1, n // 2 + 1) if holds(k) >= 0.95), default=1)
    return values[k - 1], values[n - k], holds(k)


def summary(values):
    low, high, holds = interval(values)
    return {"median": statistics.median(values), "low": low, "high": high,
            "confidence": holds, "values": values}


def verdict(row, ratio, control):
    if row.goal is None:
        return "-"
    said = "met" if ratio["median"] <= row.goal else "not met"
    noise = max(abs(control["low"] - 1), abs(control["high"] - 1))
    if abs(ratio["median"] - row.goal) < noise:
        said += ", within noise"
    return said


def missing(*files):
    """Which of the files is not there, as a sentence."""
    for file in files:
        if file.startswith("/") and not os.path.exists(file):
            return f"there is no {os.path.relpath(file)}"
    return ""


def measure(row, options):
    if why := missing(LOAD, *SERVERS[row.ours]):
        raise Failed(why)
    if why := missing(*SERVERS[row.peer]):
        raise Skipped(why)
    pairs, version = [], commit()
    for number in range(options.pairs):
        progress(f"{row.name}: pair {number + 1} of {options.pairs}")
        pairs.append(measure_pair(row, number, options))
    ratio = summary([p["us"]["ours"] / p["us"]["peer"] for p in pairs])
    control = summary([p["us"]["twin"] / p["us"]["peer"] for p in pairs])
    return {
        "commit": version, "row": dataclasses.asdict(row),
        "ours_us": statistics.median(p["us"]["ours"] for p in pairs),
        "peer_us": statistics.median(p["us"]["peer"] for p in pairs),
        "ratio": ratio, "control": control,
        "verdict": verdict(row, ratio, control), "pairs": pairs,
    }


# ---- what it says ------------------------------------------------------------


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


LINE = "{:28}{:>9}{:>9}{:>8}  {:14}{:14}{:>5}  {}"


def print_head(options):
    holds = interval(range(options.pairs))[2]
    print("server CPU per message, ours / peer; intervals hold the median with "
          f"{holds:.0%}" + (", too few pairs for 95 %" if holds < 0.95 else ""))
    print(LINE.format("", "ours µs", "peer µs", "ratio", "interval", "control",
                      "goal", ""))


def print_row(row, series):
    def between(s):
        return f"{s['low']:.3f}-{s['high']:.3f}"

    progress("")
    print(LINE.format(
        row.name, f"{series['ours_us']:.2f}", f"{series['peer_us']:.2f}",
        f"{series['ratio']['median']:.3f}", between(series["ratio"]),
        between(series["control"]), row.goal or "", series["verdict"]),
        flush=True)


def commit():
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=HERE,
                          capture_output=True, text=True, check=False)
    return done.stdout.strip()


def save(series, options):
    """Appends to RESULTS, whole or not at all."""
    try:
        with open(RESULTS, encoding="utf-8") as file:
            book = json.load(file)
    except FileNotFoundError:
        book = {"series": []}
    now = datetime.datetime.now(datetime.timezone.utc)
    book["series"].append({
        "when": now.isoformat(timespec="seconds"),
        "machine": {"kernel": platform.release(), "cpus": os.cpu_count(),
                    "arch": platform.machine()},
        "options": {name: getattr(options, name) for name in
                    ("pairs", "turns", "seconds", "warmup", "cpu")},
        **series})
    with open(RESULTS + ".new", "w", encoding="utf-8") as file:
        json.dump(book, file)
    os.replace(RESULTS + ".new", RESULTS)


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help="by name, or by a part of it "
                        "if none has that name; all if none is given")
    parser.add_argument("--pairs", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=1,
                        help="of load for each server in each pair")
    parser.add_argument("--turns", type=int, default=2,
                        help="how often a pair goes there and back")
    parser.add_argument("--warmup", type=float, default=0.1,
                        help="seconds before each slice")
    parser.add_argument("--quick", action="store_true",
                        help="3 pairs of 0.2 s: does it work at all?")
    parser.add_argument("--cpu", type=int,
                        default=max(os.sched_getaffinity(0)),
                        help="where servers and load run")
    parser.add_argument("--list", action="store_true", help="the rows' names")
    parser.add_argument("--compare", nargs=2, metavar="SERVER", help="instead "
                        "of the rows' own servers: one as ours, one as peer")
    options = parser.parse_args()
    if options.quick:
        options.pairs, options.turns, options.seconds = 3, 1, 0.2
    if options.pairs < 1 or options.turns < 1 or options.seconds <= 0:
        parser.error("there must be something to measure")
    if options.compare and not set(options.compare) <= set(SERVERS):
        parser.error("the servers are " + ", ".join(SERVERS))
    return options


def chosen(options):
    rows = [row for row in ROWS
            if not options.rows or row.name in options.rows]
    rows = rows or [row for row in ROWS
                    if any(s in row.name for s in options.rows)]
    if options.compare:
        a, b = options.compare
        rows = [dataclasses.replace(row, ours=a, peer=b, goal=None)
                for row in rows]
    return rows


def main():
    options = parse()
    # SIGTERM ends us as Ctrl-C does: servers are stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rows = chosen(options)
    if options.list:
        print("\n".join(row.name for row in rows))
        return 0
    failed = not rows
    print_head(options)
    for row in rows:
        try:
            series = measure(row, options)
        except Skipped as why:
            progress("")
            print(f"{row.name:28}  skipped: {why}", flush=True)
            continue
        except Failed as why:
            progress("")
            print(f"{row.name:28}  FAILED: {why}", flush=True)
            failed = True
            continue
        print_row(row, series)
        save(series, options)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
