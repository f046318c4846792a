"""Servers and loads that run: their start, their end, and what they use."""

import json
import os
import re
import resource
import select
import signal
import subprocess
import tempfile
import time

from tables import LOAD, SERVERS

ADDRESSES = {
    "tcp": "tcp://127.0.0.1:0",
    "udp": "udp://127.0.0.1:0",
    "unix": "unix:@ss-bench-{unique}",
}
START_SECONDS = 10  # until a server must have said where it listens
STOP_SECONDS = 20   # until it must have ended after SIGTERM


class Failed(Exception):
    """The row cannot be measured: something is wrong."""


class Skipped(Exception):
    """The row cannot be measured here: something is missing."""


def raise_limits():
    """Descriptors for all that we start."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def check_there(*names):
    """That the programs are built."""
    for file in [LOAD] + [word for n in names for word in SERVERS[n]]:
        if file.startswith("/") and not os.path.exists(file):
            name = os.path.basename(file)
            raise Skipped(f"there is no {name} (make bench-packages?)")


# ---- what a tree of processes uses ------------------------------------------


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def tree(pid):
    """A process and its descendants."""
    found = [pid]
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return []
    for task in tasks:
        for child in read(f"/proc/{pid}/task/{task}/children").split():
            found += tree(int(child))
    return found


def process_cpu(pid):
    """Seconds, to the ns, without children: MAKE_PROCESS_CPUCLOCK of Linux."""
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0.0


def tree_cpu(pid):
    return sum(process_cpu(p) for p in tree(pid))


def tree_memory(pid):
    """Bytes that are the tree's own: pages that are shared count in shares."""
    total = 0
    for process in tree(pid):
        for line in read(f"/proc/{process}/smaps_rollup").splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                total += int(line.split()[1]) * 1024
    return total


def pin(cpu):
    """For preexec_fn; None: wherever the system likes."""
    return None if cpu is None else lambda: os.sched_setaffinity(0, {cpu})


# ---- servers -----------------------------------------------------------------


class Server:
    """A server that runs, within `with`; then `life` is its CPU in seconds."""

    serial = 0

    def __init__(self, name, transport="tcp", cpu=None, command=None):
        self.name = name
        Server.serial += 1
        address = ADDRESSES[transport].format(
            unique=f"{os.getpid()}-{Server.serial}")
        self.stderr = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [*(command or SERVERS[name]), address], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=self.stderr, start_new_session=True,
            preexec_fn=pin(cpu))
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
        if match:
            return match.group(1)
        said = self.said()
        unknown = re.search(r"unknown \w+ '[^']*'", said)
        if unknown:
            raise Skipped(unknown.group())
        raise Failed(f"{self.name} did not start: {line!r}{said}")

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
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        if self.process.returncode is None:
            self.process.wait()
        self.process.stdout.close()
        self.stderr.close()

    def said(self):
        self.stderr.seek(0)
        text = self.stderr.read()[-500:].decode(errors="replace").strip()
        return f"; it said: {text}" if text else ""

    def settle(self, seconds=30):
        """Until it has nothing to do any more."""
        end, used = time.monotonic() + seconds, tree_cpu(self.pid)
        while time.monotonic() < end:
            time.sleep(0.3)
            before, used = used, tree_cpu(self.pid)
            if used - before < 0.001:
                return
        raise Failed(f"{self.name} does not come to rest")


# ---- loads -------------------------------------------------------------------


def load(server, workload, seconds, warmup, seed=1, cpu=None):
    """A closed loop for some time; what the load generator found out."""
    command = [LOAD, "-m", workload.mode, "-c", str(workload.clients),
               "-s", str(workload.size), "-d", str(workload.depth),
               "-t", str(seconds), "-w", str(warmup), "-S", str(seed),
               "-p", str(server.pid), server.address]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False,
            timeout=seconds + warmup + 30, preexec_fn=pin(cpu))
        found = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{server.name}: the load hangs") from error
    except ValueError as error:
        raise Failed(f"{server.name}: {done.stderr.strip()}") from error
    found["right"] = (done.returncode == 0 and
                      found["lost"] <= found["messages"] / 1000)
    return found


def must_be_right(server, found):
    if not found["right"]:
        raise Failed(
            f"{server.name}: {found['messages']} messages, "
            f"{found['errors']} errors ({found['error']}), "
            f"{found['unanswered']} unanswered, {found['lost']} lost"
            f"{server.said()}")
    return found


class Hold:
    """A process that holds connections, within `with`, and does as told."""

    def __init__(self, server, connections, sources=254, first_source=0,
                 cpu=None):
        self.server = server
        self.process = subprocess.Popen(
            [LOAD, "-m", "hold", "-c", str(connections), "-a", str(sources),
             "-o", str(first_source), server.address],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, preexec_fn=pin(cpu))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def tell(self, text):
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def answer(self, seconds=120):
        """To the last that it was told."""
        readable, _, _ = select.select(
            [self.process.stdout], [], [], seconds)
        if not readable:
            raise Failed(f"{self.server.name}: no answer in {seconds} s")
        line = self.process.stdout.readline().decode()
        if not line:
            raise Failed(f"{self.server.name}: "
                         f"{self.process.stderr.read().decode().strip()}")
        found = json.loads(line)
        if found["errors"] or found["unanswered"]:
            raise Failed(
                f"{self.server.name}: {found['did']}: {found['errors']} errors "
                f"({found['error']}), {found['unanswered']} unanswered"
                f"{self.server.said()}")
        return found
