#!/usr/bin/env python3
"""table.py BUILD [FILE...]: which lines and branches of lib/ the tests reached.

Reads what a build with coverage left below BUILD, by gcov's JSON.  A line that
no test reaches needs a reason in test/coverage/reasons:

    FILE: PATTERN: why not

FILE is below lib/; PATTERN a regular expression that is found in the line, or,
where it ends in (), is the name of its function.  A reason that begins with "at
times" is for what some runs reach.  Unreached lines without a reason, and others' reasons without
such a line, are shown, and the exit status is 1.  With --told, what each reason
is for.  With FILEs, these alone, and the branches not taken.
"""

import collections
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))


class Source:
    def __init__(self, name):
        self.name = name
        self.lines = collections.Counter()
        self.functions = {}
        self.branches = {}
        with open(os.path.join(TOP, name), encoding="utf-8") as file:
            self.text = [""] + file.read().split("\n")

    def add(self, line):
        number = line["line_number"]
        self.lines[number] += line["count"]
        self.functions[number] = line.get("function_name")
        # Nothing else than a bug takes these.
        if "assert(" in self.text[number]:
            return
        taken = [branch["count"] for branch in line["branches"]
                 if not branch["throw"]]
        known = self.branches.setdefault(number, taken)
        if known is not taken and len(known) == len(taken):
            self.branches[number] = [a + b for a, b in zip(known, taken)]

    def unreached(self):
        return [number for number in sorted(self.lines)
                if not self.lines[number]]

    def counts(self):
        """Lines reached, all lines, branches taken, all branches."""
        taken = [c for branches in self.branches.values() for c in branches]
        return (sum(1 for c in self.lines.values() if c), len(self.lines),
                sum(1 for c in taken if c), len(taken))


def read(build):
    """All sources of lib/ by name."""
    sources = {}
    notes = [os.path.join(place, name)
             for place, _, names in os.walk(os.path.join(build, "obj/lib"))
             for name in sorted(names) if name.endswith(".gcno")]
    if not notes:
        sys.exit("no coverage below %s: make coverage" % build)
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(
            ["gcov", "--json-format", "--branch-probabilities",
             "--preserve-paths", "--hash-filenames"]
            + [os.path.abspath(note) for note in notes],
            cwd=scratch, check=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        for name in sorted(os.listdir(scratch)):
            with gzip.open(os.path.join(scratch, name)) as file:
                for part in json.load(file)["files"]:
                    where = os.path.relpath(
                        os.path.join(TOP, part["file"]), TOP)
                    if not where.startswith("lib/"):
                        continue
                    source = sources.setdefault(where, Source(where))
                    for line in part["lines"]:
                        source.add(line)
    return sources


class Reason:
    def __init__(self, number, file, pattern, why):
        self.number, self.file, self.pattern = number, file, pattern
        self.whole = pattern.endswith("()")
        self.found = re.compile(pattern[:-2] if self.whole else pattern)
        self.at_times = why.startswith("at times")
        self.lines = []

    def explains(self, source, number):
        if self.file != source.name[len("lib/"):]:
            return False
        if self.whole:
            return self.found.fullmatch(source.functions[number] or "")
        return self.found.search(source.text[number])


def read_reasons():
    reasons = []
    with open(os.path.join(HERE, "reasons"), encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip() or line.startswith("#"):
                continue
            parts = re.split(r":\s+", line.strip(), maxsplit=2)
            if len(parts) != 3:
                sys.exit("reasons:%d: FILE: PATTERN: why" % number)
            reasons.append(Reason(number, *parts))
    return reasons


def explain(reasons, source, number):
    for reason in reasons:
        if reason.explains(source, number):
            reason.lines.append("%s:%d: %s" % (
                source.name, number, source.text[number].strip()))
            return True
    return False


def percent(part, whole):
    return "%5.1f %%" % (100 * part / whole) if whole else "      -"


def row(name, counts, explained):
    print("%-28s %5d %s %5s %6d %s" % (
        name, counts[1], percent(counts[0], counts[1]), explained or "",
        counts[3], percent(counts[2], counts[3])))


def show_branches(source):
    for number, branches in sorted(source.branches.items()):
        if source.lines[number] and not all(branches):
            print("%s:%d: %s: %s" % (
                source.name, number,
                "".join("-+"[bool(c)] for c in branches),
                source.text[number].strip()))


def main():
    told = "--told" in sys.argv
    build, *wanted = [word for word in sys.argv[1:] if word != "--told"]
    sources, reasons = read(build), read_reasons()
    total, wrong = [0] * 4, []
    total_explained = 0
    print("%-28s %5s %7s %5s %6s %7s" % (
        "", "lines", "reached", "told", "branch", "taken"))
    for name, source in sorted(sources.items()):
        if wanted and name not in wanted:
            continue
        explained = 0
        for number in source.unreached():
            if explain(reasons, source, number):
                explained += 1
            else:
                wrong.append("%s:%d: not reached: %s" % (
                    name, number, source.text[number].strip()))
        counts = source.counts()
        row(name, counts, explained)
        total = [a + b for a, b in zip(total, counts)]
        total_explained += explained
    row("all", total, total_explained)
    if wanted:
        for name in wanted:
            show_branches(sources[name])
    else:
        wrong += ["reasons:%d: no unreached line of %s has: %s" % (
            reason.number, reason.file, reason.pattern)
            for reason in reasons
            if not reason.lines and not reason.at_times]
    for reason in reasons if told else []:
        print("reasons:%d: %s" % (reason.number, reason.pattern))
        print("\n".join("\t" + line for line in reason.lines))
    for line in wrong:
        print(line)
    if wrong:
        sys.exit("coverage: %d lines are neither reached nor explained"
                 % len(wrong))

main()
