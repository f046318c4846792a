"""The README's figures, from the book: nothing in them is typed by hand."""

import os

import figures
from tables import HERE, ROWS, WORKLOADS, Ratio, label

BEGIN = "<!-- Written by `make bench-readme`; do not edit. -->"
END = "<!-- End of what it writes. -->"
README = os.path.join(HERE, "..", "..", "README.md")
PLOT = "test/bench/results.svg"
COLUMNS = ["64", "1000", "16k", "connect"]


class NoBlock(Exception):
    """The marks are not there."""


def lines_of(head, rows):
    """A table of Markdown; no rows, no table."""
    if not rows:
        return []
    return ["| " + " | ".join(head) + " |", "|---" * len(head) + "|",
            *("| " + " | ".join(row) + " |" for row in rows), ""]


def of_kind(last, kind):
    """In the order of the tables."""
    return [last[row.name] for row in ROWS
            if row.name in last and last[row.name]["kind"] == kind]


def where(last):
    newest = max(last.values(), key=lambda s: s["when"])
    m = newest["machine"]
    commits = sorted({s["commit"] for s in last.values()})
    return (f"On {m['cpus']} CPUs ({m['processor']}), Linux {m['kernel']}, "
            f"loopback; measured at {', '.join(commits)}.")


def goals(last):
    rows = [(label(s["server"]), WORKLOADS[s["workload"]].label,
             label(s["against"]), f"{s['server_us']:.2f} µs",
             f"{s['ratio']['median']:.2f} ({s['ratio']['low']:.2f}–"
             f"{s['ratio']['high']:.2f})", f"{s['goal']:.2f}", s["verdict"])
            for s in of_kind(last, "ratio") if s["goal"]]
    return lines_of(("server", "workload", "against", "CPU", "ratio", "goal",
                     ""), rows)


def comparison(last):
    """Each server's CPU as a multiple of raw epoll's."""
    found = {(s["server"], s["workload"]): s["ratio"]["median"]
             for s in of_kind(last, "ratio") if s["against"] == "epoll"}
    servers = list(dict.fromkeys(
        row.server for row in ROWS if isinstance(row, Ratio)))
    rows = []
    for server in servers:
        cells = [f"{found[server, w]:.2f}" if (server, w) in found else ""
                 for w in COLUMNS]
        if server != "epoll" and any(cells):
            rows.append((label(server), *cells))
    return lines_of(("× a raw epoll loop",
                     *(WORKLOADS[w].label for w in COLUMNS)), rows)


def memory(last):
    rows = [(label(s["server"]), figures.size(s["before"]),
             figures.size(s["between"])) for s in of_kind(last, "memory")]
    return lines_of(("memory per idle connection", "before the first byte",
                     "between messages"), rows)


def sentences(last):
    out = []
    for s in of_kind(last, "fairness"):
        if s["goal"]:
            out.append(f"* {label(s['server'])}: {s['served']} of "
                       f"{s['clients']} active clients served within "
                       f"{s['seconds']:g} s of connecting.")
    for s in last.values():
        if s["kind"] == "soak":
            out.append(
                f"* {s['alive']:,} connections held at once by "
                f"{label(s['server'])}, each still served: "
                f"{figures.size(s['user'])} of user memory each, "
                f"{figures.size(s['kernel'])} of the kernel's for both ends.")
    return out + [""] if out else []


def block(last):
    lines = [where(last), "", f"![rate, CPU, memory]({PLOT})", "",
             *goals(last), *comparison(last), *memory(last),
             *sentences(last)]
    return "\n".join(lines)


def replace(text, new):
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise NoBlock(f"README.md has no block between {BEGIN} and {END}")
    return f"{head}{BEGIN}\n{new}{END}{tail}"


def write(last):
    with open(README, encoding="utf-8") as file:
        text = file.read()
    text = replace(text, block(last))
    with open(README, "w", encoding="utf-8") as file:
        file.write(text)
