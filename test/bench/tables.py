"""What is measured: programs, workloads, rows.  Nothing here runs anything."""

import dataclasses
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.abspath(os.environ.get("SS_BUILD", "build/release"))
LOAD = f"{BUILD}/bench/load"


def ours(model, *options):
    return (f"{BUILD}/bench/server", "-m", model, *options)


def peer(name, *options):
    return (f"{BUILD}/bench/peer_{name}", *options)


def python(name):
    return (sys.executable, f"{HERE}/peers/python.py", name)


# What runs, by name; the address comes last.
SERVERS = {
    "fiber": ours("fiber", "-l", "1"),
    "fiber-loop": ours("fiber", "-l", "1", "-H", "loop"),
    "fiber-lend": ours("fiber", "-l", "1", "-H", "lend"),
    "prefork-fiber": ours("prefork:fiber", "-w", "2"),
    "sync": ours("sync"),
    "threading": ours("threading"),
    "threading-loop": ours("threading", "-H", "loop"),
    "forking": ours("forking"),
    "pool": ours("pool"),
    # With metrics, access lists, limits and the log at info.
    "fiber-guarded": ours("fiber", "-l", "1", "-g"),
    "threading-guarded": ours("threading", "-g"),
    "epoll": peer("epoll"),
    "epoll-2": peer("epoll", "-w", "2"),
    "raw-sync": peer("sync"),
    "thread": peer("thread"),
    "fork": peer("fork"),
    "raw-udp": peer("udp"),
    "libevent": peer("libevent"),
    "bufferevent": peer("libevent", "-b"),
    "libuv": peer("libuv"),
    "asio": peer("asio"),
    "glib": peer("glib"),
    "python-thread": python("ThreadingTCPServer"),
    "python-fork": python("ForkingTCPServer"),
    "python-udp": python("UDPServer"),
}

OURS = [name for name, command in SERVERS.items()
        if command[0].endswith("/server")]

# What they are called where there is room.
LABELS = {
    "fiber": "fiber",
    "fiber-loop": "fiber, straight loop",
    "fiber-lend": "fiber, lent buffer",
    "prefork-fiber": "prefork > fiber, 2 workers",
    "threading-loop": "threading, straight loop",
    "fiber-guarded": "fiber, all guards",
    "threading-guarded": "threading, all guards",
    "epoll": "raw epoll loop",
    "epoll-2": "raw epoll, 2 processes",
    "raw-sync": "sync by hand",
    "thread": "pthread per connection",
    "fork": "fork per connection",
    "raw-udp": "raw recvfrom, sendto",
    "libevent": "libevent, plain events",
    "bufferevent": "libevent, bufferevent",
    "asio": "Boost.Asio",
    "glib": "GLib GThreadedSocketService",
    "python-thread": "Python ThreadingTCPServer",
    "python-fork": "Python ForkingTCPServer",
    "python-udp": "Python UDPServer",
}


def label(name):
    return LABELS.get(name, name)


@dataclasses.dataclass(frozen=True)
class Workload:
    label: str
    mode: str  # of the load: pingpong, connect
    clients: int
    size: int = 64
    depth: int = 1
    transport: str = "tcp"


WORKLOADS = {
    "64": Workload("64 B, 64 connections", "pingpong", 64),
    "1000": Workload("64 B, 1000 connections", "pingpong", 1000),
    "16k": Workload("16 KiB, 64 connections", "pingpong", 64, size=16384),
    "pipelined": Workload("64 B, 64 connections, 16 under way", "pingpong",
                          64, depth=16),
    "connect": Workload("connect, echo, close", "connect", 64),
    "unix": Workload("Unix, 64 B, 64 connections", "pingpong", 64,
                     transport="unix"),
    "udp": Workload("UDP, 64 B, 64 sockets", "pingpong", 64,
                    transport="udp"),
    "few": Workload("connect, echo, close, 16 at a time", "connect", 16),
    "one": Workload("64 B, one connection", "pingpong", 1),
    "one-connect": Workload("connect, echo, close, one at a time", "connect",
                            1),
}


@dataclasses.dataclass(frozen=True)
class Ratio:
    """What a server costs per message, against another."""
    name: str
    server: str
    against: str
    workload: str
    goal: float = None
    # Children that are reaped show in the kernel's sums in ticks of 10 ms until
    # their parent is reaped too: then account for all of its life.
    whole_life: bool = False
    kind = "ratio"

    @property
    def careful(self):
        """Measured for as long as asked, not for less."""
        return self.goal is not None or self.server == self.against

    @property
    def servers(self):
        return (self.server, self.against)


@dataclasses.dataclass(frozen=True)
class Memory:
    """User memory of the server for each idle connection."""
    name: str
    server: str
    connections: int = 10000
    before_goal: int = None   # bytes, before the first byte
    between_goal: int = None  # bytes, after an echo
    kind = "memory"
    careful = True

    @property
    def servers(self):
        return (self.server,)

    @property
    def goal(self):
        return self.before_goal or self.between_goal


@dataclasses.dataclass(frozen=True)
class Fairness:
    """How many active clients are served soon after they connected."""
    name: str
    server: str
    clients: int = 1000
    seconds: float = 2
    goal: bool = False
    kind = "fairness"
    careful = True

    @property
    def servers(self):
        return (self.server,)


@dataclasses.dataclass(frozen=True)
class Soak:
    """Connections held at once, and still served."""
    name: str
    connections: int
    goal: bool = True
    kind = "soak"
    careful = True
    servers = ()


def against_epoll(server, *workloads):
    return [Ratio(f"{server}-{w}", server, "epoll", w) for w in workloads]


ROWS = [
    Ratio("control-64", "epoll", "epoll", "64"),
    Ratio("control-1000", "epoll", "epoll", "1000"),

    Ratio("fiber-64", "fiber", "epoll", "64", 1.03),
    Ratio("fiber-pipelined", "fiber", "epoll", "pipelined", 1.03),
    Ratio("fiber-1000", "fiber", "epoll", "1000", 1.03),
    Ratio("fiber-1000-loop", "fiber-loop", "epoll", "1000", 1.10),
    Ratio("fiber-16k", "fiber", "epoll", "16k", 1.03),
    Ratio("fiber-connect", "fiber", "epoll", "connect", 1.03),
    Ratio("fiber-unix", "fiber", "epoll", "unix", 1.03),
    Ratio("fiber-udp", "fiber", "raw-udp", "udp", 1.05),
    Ratio("prefork-64", "prefork-fiber", "epoll-2", "64", 1.05),
    Ratio("threading-64", "threading", "thread", "64", 1.03),
    Ratio("threading-connect", "threading", "thread", "connect", 1.03),
    Ratio("forking-connect", "forking", "fork", "few", 1.03,
          whole_life=True),
    Ratio("pool-connect", "pool", "epoll", "connect", 1.3),
    Ratio("sync-64", "sync", "raw-sync", "one", 1.03),
    Ratio("sync-connect", "sync", "raw-sync", "one-connect", 1.03),
    Ratio("sync-udp", "sync", "raw-udp", "udp", 1.05),

    Ratio("guarded-fiber-64", "fiber-guarded", "fiber", "64", 1.05),
    Ratio("guarded-fiber-1000", "fiber-guarded", "fiber", "1000", 1.05),
    Ratio("guarded-fiber-udp", "fiber-guarded", "fiber", "udp", 1.05),
    Ratio("guarded-fiber-connect", "fiber-guarded", "fiber", "connect", 1.05),
    Ratio("guarded-threading-64", "threading-guarded", "threading", "64", 1.05),
    Ratio("guarded-threading-connect", "threading-guarded", "threading",
          "connect", 1.05),

    Ratio("fiber-64-loop", "fiber-loop", "epoll", "64"),
    Ratio("fiber-64-lend", "fiber-lend", "epoll", "64"),
    *against_epoll("libevent", "64", "1000", "16k", "connect"),
    *against_epoll("bufferevent", "64", "1000", "16k", "connect"),
    *against_epoll("libuv", "64", "pipelined", "1000", "16k", "connect",
                   "unix"),
    Ratio("libuv-udp", "libuv", "raw-udp", "udp"),
    *against_epoll("asio", "64", "pipelined", "1000", "16k", "connect",
                   "unix"),
    Ratio("asio-udp", "asio", "raw-udp", "udp"),
    *against_epoll("threading", "16k"),
    *against_epoll("thread", "64", "1000", "connect"),
    *against_epoll("fork", "64"),
    Ratio("fork-connect", "fork", "epoll", "few", whole_life=True),
    *against_epoll("glib", "64", "1000", "connect"),
    *against_epoll("python-thread", "64", "connect"),
    Ratio("python-fork-connect", "python-fork", "epoll", "few",
          whole_life=True),
    Ratio("python-udp", "python-udp", "raw-udp", "udp"),

    Memory("memory-fiber", "fiber", before_goal=400, between_goal=400),
    Memory("memory-fiber-loop", "fiber-loop", between_goal=4403),
    Memory("memory-threading", "threading", 1000),
    Memory("memory-threading-loop", "threading-loop", 1000),
    Memory("memory-forking", "forking", 200),
    Memory("memory-epoll", "epoll"),
    Memory("memory-libevent", "libevent"),
    Memory("memory-bufferevent", "bufferevent"),
    Memory("memory-libuv", "libuv"),
    Memory("memory-asio", "asio"),
    Memory("memory-thread", "thread", 1000),
    Memory("memory-fork", "fork", 200),
    Memory("memory-glib", "glib", 1000),
    Memory("memory-python-thread", "python-thread", 200),

    Fairness("fair-threading", "threading", goal=True),
    Fairness("fair-fiber", "fiber", goal=True),
    Fairness("fair-thread", "thread"),
    Fairness("fair-glib", "glib"),
    Fairness("fair-python-thread", "python-thread"),

    Soak("soak-10000", 10000),
]
