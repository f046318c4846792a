#!/usr/bin/env python3
"""What a server costs, against others that do the same.

Server CPU per message (threads and children included), server and load on the
same CPU: the median ratio of 11 adjacent pairs, with an interval that holds
the true median with at least 95 % (order statistics), against a goal, and as a
control a second copy of the other server against the first.  No verdict is
finer than that.  Rates, with a CPU for each, are printed and not judged.

Then the memory of idle connections, whether all active clients are served, and
how many connections can be held.  Every series is appended to
build/bench/results.json, and build/bench/results.svg shows the last of each.
"""

import argparse
import fnmatch
import os
import signal
import sys
import time
import unittest

import book
import holds
import pairs
import plot
import readme
from processes import Failed, Skipped, check_there, raise_limits
from tables import (Fairness, Memory, ROWS, Ratio, SERVERS, Soak, WORKLOADS)
from terminal import Terminal

MEASURE = {
    Ratio: pairs.measure,
    Memory: holds.measure_memory,
    Fairness: holds.measure_fairness,
    Soak: holds.measure_soak,
}
UNJUDGED = 0.5  # of the time, where there is no goal


def parser():
    p = argparse.ArgumentParser(
        prog="make bench BENCH_ARGS=...", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("rows", nargs="*", metavar="ROW",
                   help="by name or pattern (fiber-*); all if none is given")
    p.add_argument("--row", action="append", default=[], help="the same")
    p.add_argument("--goals", action="store_true",
                   help="only rows that have one")
    p.add_argument("--pairs", type=int, default=11)
    p.add_argument("--seconds", type=float, default=0.8, help="of load for "
                   "each server in each pair; less without a goal")
    p.add_argument("--turns", type=int, default=1,
                   help="how often a pair goes there and back")
    p.add_argument("--warmup", type=float, default=0.05,
                   help="seconds before each slice, at least")
    p.add_argument("--quick", action="store_true", help="does it work at all? "
                   "3 pairs of 0.2 s; kept, but not shown anywhere")
    p.add_argument("--cpu", type=int, default=max(os.sched_getaffinity(0)),
                   help="where servers and load run")
    p.add_argument("--list", action="store_true", help="the rows' names")
    p.add_argument("--compare", nargs=2, metavar="SERVER", help="instead of "
                   "rows: two servers, the ROWs being workloads")
    p.add_argument("--soak", type=int, metavar="N",
                   help="instead of rows: holds N connections")
    p.add_argument("--selftest", action="store_true",
                   help="measures nothing, tests what measures")
    p.add_argument("--readme", action="store_true",
                   help="measures nothing, writes README.md's figures")
    return p


def parse():
    p = parser()
    options = p.parse_args()
    options.rows += options.row
    if options.quick:
        options.pairs, options.turns, options.seconds = 3, 1, 0.2
        options.warmup = 0.01
    if options.pairs < 1 or options.turns < 1 or options.seconds <= 0:
        p.error("there must be something to measure")
    if options.compare and not set(options.compare) <= set(SERVERS):
        p.error("the servers are " + ", ".join(SERVERS))
    if options.soak is not None and options.soak < 100:
        p.error("a soak has a hundred connections at least")
    others = sorted(os.sched_getaffinity(0) - {options.cpu})
    options.other_cpu = others[0] if others else None
    return options


def matches(name, patterns):
    return not patterns or any(fnmatch.fnmatch(name, p) for p in patterns)


def chosen(options):
    if options.soak:
        return [Soak(f"soak-{options.soak}", options.soak)]
    if options.compare:
        a, b = options.compare
        return [Ratio(f"{a}-{b}-{name}", a, b, name) for name in WORKLOADS
                if matches(name, options.rows or ["64"])]
    return [row for row in ROWS if matches(row.name, options.rows)
            and (row.goal or not options.goals)]


def measure(row, options, progress):
    check_there(*row.servers)
    given = argparse.Namespace(**vars(options))
    given.seconds *= 1 if row.careful else UNJUDGED
    series = MEASURE[type(row)](row, given, progress)
    kept = ("pairs", "turns", "seconds", "warmup", "cpu", "quick")
    return ({"name": row.name, "goal": row.goal, **series},
            {name: getattr(given, name) for name in kept})


def run(rows, options, terminal, results):
    """How many rows failed."""
    failed, began = 0, time.monotonic()
    for i, row in enumerate(rows):
        def progress(text, at=f"{i + 1}/{len(rows)} {row.name}"):
            spent = time.monotonic() - began
            terminal.progress(f"{spent / 60:3.0f} min  {at}: {text}")
        try:
            results.add(*(found := measure(row, options, progress)))
            terminal.row(found[0])
        except Skipped as why:
            terminal.note(row, f"skipped: {why}")
        except Failed as why:
            terminal.note(row, f"FAILED: {why}")
            failed += 1
    return failed


def draw(results, path):
    with open(path, "w", encoding="utf-8") as file:
        file.write(plot.draw(results.last()))
    return path


def write_readme(results):
    if not results.last():
        sys.exit("bench: nothing was measured yet: make bench")
    try:
        readme.write(results.last())
    except readme.NoBlock as why:
        sys.exit(f"bench: {why}")
    draw(results, os.path.join(readme.HERE, "results.svg"))


def warn_of_load():
    busy = os.getloadavg()[0]
    if busy > 0.3:
        print(f"bench: the machine is not idle (load {busy:.2f}): "
              "figures will be off", file=sys.stderr)


def main():
    options = parse()
    # SIGTERM ends us as Ctrl-C does: servers are stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.selftest:
        unittest.main("selftest", argv=["selftest"])
    rows, results = chosen(options), book.Book()
    if options.readme:
        write_readme(results)
        return 0
    if options.list:
        print("\n".join(row.name for row in rows))
        return 0
    if not rows:
        sys.exit("bench: no such row; --list names them")
    raise_limits()
    warn_of_load()
    failed = run(rows, options, Terminal(), results)
    if results.last():
        path = draw(results, os.path.splitext(results.path)[0] + ".svg")
        print(f"\nall series: {results.path}\nplot: {path}")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
