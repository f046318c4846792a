"""Connections that are held: what they take, and whether they are served."""

import contextlib
import math
import resource
import socket

from processes import (Failed, Hold, Server, load, read, tree, tree_memory)
from tables import SERVERS, Workload, ours

WARM = Workload("", "connect", 1)
SPARE_FILES = 500    # of a process, for other things than connections
KERNEL_BYTES = 12000  # for both ends of a connection, at least


# ---- memory ------------------------------------------------------------------


def judge(found, goal):
    return goal is None or found <= goal


def measure_memory(row, options, progress):
    """Before the first byte, and after an echo."""
    n = max(100, row.connections // 10) if options.quick else row.connections
    with Server(row.server, cpu=options.cpu) as server:
        load(server, WARM, 0.05, 0, cpu=options.other_cpu)
        server.settle()
        base = tree_memory(server.pid)
        progress(f"{n} connections")
        with Hold(server, n, cpu=options.other_cpu) as hold:
            hold.tell("hold")
            hold.answer()
            server.settle()
            before = tree_memory(server.pid) - base
            hold.tell("echo")
            hold.answer()
            server.settle()
            between = tree_memory(server.pid) - base
        server.settle()
    met = (judge(before / n, row.before_goal) and
           judge(between / n, row.between_goal))
    return {
        "kind": row.kind, "server": row.server, "connections": n,
        "before": before / n, "between": between / n,
        "before_goal": row.before_goal, "between_goal": row.between_goal,
        "verdict": "-" if row.goal is None else "met" if met else "not met",
    }


# ---- fairness ----------------------------------------------------------------


def measure_fairness(row, options, _progress):
    """All clients at once, each as active as can be."""
    workload = Workload("", "pingpong", row.clients)
    with Server(row.server, cpu=options.cpu) as server:
        found = load(server, workload, row.seconds, 0.1,
                     cpu=options.other_cpu)
    if found["errors"]:
        raise Failed(f"{row.server}: {found['error']}")
    met = found["served_in_time"] == row.clients
    return {
        "kind": row.kind, "server": row.server, "clients": row.clients,
        "seconds": row.seconds, "served": found["served_in_time"],
        "slowest_ms": found["slowest_first_ms"],
        "verdict": "-" if not row.goal else "met" if met else "not met",
    }


# ---- scale -------------------------------------------------------------------


def number(path):
    words = read(path).split()
    return int(words[0]) if words else 0


def meminfo(name):
    """Bytes, of the whole machine."""
    for line in read("/proc/meminfo").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0


def tracked():
    """Whether the firewall keeps a record of each loopback connection."""
    path = "/proc/sys/net/netfilter/nf_conntrack_count"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        before = number(path)
        with socket.create_connection(listener.getsockname()):
            return number(path) > before


def obstacle(n):
    """Why this machine cannot hold so many; or nothing."""
    files = number("/proc/sys/fs/file-max") - number("/proc/sys/fs/file-nr")
    if files < 2 * n + 10000:
        return (f"{2 * n} sockets, but fs.file-max leaves {files}")
    available = meminfo("MemAvailable")
    if available < n * KERNEL_BYTES:
        return (f"about {n * KERNEL_BYTES >> 20} MiB are needed, "
                f"{available >> 20} MiB are available")
    tracks = number("/proc/sys/net/netfilter/nf_conntrack_max")
    if tracks and tracks < n + 1000 and tracked():
        return f"net.netfilter.nf_conntrack_max is {tracks}"
    if per_process() < 1000:
        return "a process may not even open 1000 files (ulimit -Hn)"
    return None


def per_process():
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE_FILES


def per_source():
    """Connections from one address, far from the end of its ports."""
    words = read("/proc/sys/net/ipv4/ip_local_port_range").split()
    low, high = map(int, words) if words else (32768, 60999)
    return max(1, min(2000, (high - low) // 4))


def server_for(n):
    """One process as long as it may open as many files; else workers, with
    room to spare since they do not share evenly."""
    if n <= per_process():
        return "fiber", SERVERS["fiber"]
    workers = math.ceil(n / per_process() * 1.25)
    return "prefork-fiber", ours("prefork:fiber", "-w", str(workers),
                                 "-x", str(per_process()))


def together(holds, text=None):
    """All of them at the same time; what they answer, added up."""
    for hold in holds:
        if text:
            hold.tell(text)
    answers = [hold.answer(seconds=600) for hold in holds]
    return {
        **{key: sum(a[key] for a in answers) for key in ("alive", "messages")},
        **{key: max(a[key] for a in answers)
           for key in ("seconds", "p50_us", "p99_us", "max_us")},
    }


def soak(server, holds, n, progress):
    """Makes them and uses them; what that took, per connection in bytes (the
    kernel's for both ends)."""
    base, slab = tree_memory(server.pid), meminfo("Slab")
    progress(f"{n} connections: making them")
    held = together(holds, "hold")
    server.settle(120)
    user = tree_memory(server.pid) - base
    kernel = meminfo("Slab") - slab
    progress(f"{n} connections: some active")
    active = together(holds, f"active {max(1, 100 // len(holds))} 3")
    progress(f"{n} connections: an echo on each")
    echoed = together(holds, "echo")
    server.settle(120)
    return {
        "alive": echoed["alive"], "echoed": echoed["messages"],
        "connect_seconds": held["seconds"], "echo_seconds": echoed["seconds"],
        "user": user / n,
        "user_between": (tree_memory(server.pid) - base) / n,
        "kernel": kernel / n,
        "active_rate": active["messages"] / active["seconds"],
        "active_p99_us": active["p99_us"],
        "processes": len(tree(server.pid)) + len(holds),
    }


def measure_soak(row, options, progress):
    n = row.connections // 5 if options.quick else row.connections
    if why := obstacle(n):
        raise Failed(f"this machine cannot hold {n} connections: {why}")
    name, command = server_for(n)
    loads = math.ceil(n / per_process())
    shares = [n // loads + (i < n % loads) for i in range(loads)]
    sources = math.ceil(max(shares) / per_source())
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(name, command=command))
        holds = [stack.enter_context(
            Hold(server, share, sources, i * sources))
            for i, share in enumerate(shares)]
        found = soak(server, holds, n, progress)
        # Nobody wants to see each connection end.
        for hold in holds:
            hold.process.kill()
        server.settle(120)
    met = found["alive"] == n == found["echoed"]
    return {"kind": row.kind, "server": name, "connections": n, **found,
            "verdict": "met" if met else "not met"}
