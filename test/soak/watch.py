"""The processes of a server, and what they use."""

import os
import time

FIGURES = ("memory", "descriptors", "threads", "processes")
SETTLED = 0.05  # seconds between two looks that must agree
PATIENCE = 10   # seconds until they must


def read(*path):
    try:
        with open(os.path.join("/proc", *map(str, path)), "rb") as file:
            return file.read()
    except OSError:
        return b""


def processes(tag):
    """Whose command line has the tag, parents first: a restarted server's are
    nobody's children that we know of."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and tag in read(name, "cmdline"):
            stat = read(name, "stat").rpartition(b")")[2].split()
            if stat and stat[0] != b"Z":
                found[int(name)] = int(stat[1])
    return sorted(found, key=lambda pid: (found[pid] in found, pid))


def memory(pid):
    """Bytes of its own and its share of what is shared; of the heap and other
    memory that is no file's, which the page cache does not change."""
    for line in read(pid, "smaps_rollup").splitlines():
        if line.startswith(b"Pss_Anon:"):
            return int(line.split()[1]) << 10
    return 0


def counts(pids):
    descriptors = threads = 0
    for pid in pids:
        try:
            descriptors += len(os.listdir("/proc/%d/fd" % pid))
            threads += len(os.listdir("/proc/%d/task" % pid))
        except OSError:
            pass
    return descriptors, threads, len(pids)


def sample(tag):
    """A dictionary of FIGURES, at rest: as soon as two looks agree."""
    until = time.monotonic() + PATIENCE
    last = None
    while time.monotonic() < until:
        pids = processes(tag)
        now = counts(pids)
        if now == last:
            break
        last = now
        time.sleep(SETTLED)
    return dict(zip(FIGURES, (sum(map(memory, pids)),) + now))
