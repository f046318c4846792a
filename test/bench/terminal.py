"""The table as it goes to the terminal."""

import sys

import figures

HEADS = {
    "ratio": ("server CPU per message, µs; rates with the load on another CPU",
              ("", "µs", "against", "ratio", "interval", "control", "goal",
               "k/s", "against", "p99 µs", "")),
    "memory": ("user memory of the server for each idle connection",
               ("", "at", "before", "between", "", "", "goal", "", "", "",
                "")),
    "fairness": ("clients served in time, all of them active",
                 ("", "of", "served", "slowest", "", "", "goal", "", "", "",
                  "")),
    "soak": ("connections held, some of them active, an echo on each at the end",
             ("", "held", "user", "kernel", "", "", "", "k/s", "", "p99 µs",
              "")),
}
LINE = "{:22}{:>9}{:>10}{:>10}  {:10}{:10}{:>5}{:>8}{:>8}{:>8}  {}"


def between(summary):
    return f"{summary['low']:.2f}-{summary['high']:.2f}" if summary else ""


def ratio(s):
    rates = s["rates"] or {role: {"rate": 0, "p99_us": 0}
                           for role in ("server", "against")}
    return (f"{s['server_us']:.2f}", f"{s['against_us']:.2f}",
            f"{s['ratio']['median']:.3f}", between(s["ratio"]),
            between(s["control"]), s["goal"] or "",
            f"{rates['server']['rate'] / 1e3:.1f}",
            f"{rates['against']['rate'] / 1e3:.1f}",
            f"{rates['server']['p99_us']:.0f}")


def memory(s):
    goals = [str(s[g]) for g in ("before_goal", "between_goal") if s[g]]
    return (s["connections"], figures.size(s["before"]),
            figures.size(s["between"]), "", "", goals[-1] if goals else "",
            "", "", "")


def fairness(s):
    return (s["clients"], s["served"], f"{s['slowest_ms']:.0f} ms", "", "",
            "all" if s["goal"] else "", "", "", "")


def soak(s):
    return (s["alive"], figures.size(s["user"]), figures.size(s["kernel"]),
            "", "", "", f"{s['active_rate'] / 1e3:.1f}", "",
            f"{s['active_p99_us']:.0f}")


CELLS = {"ratio": ratio, "memory": memory, "fairness": fairness, "soak": soak}


class Terminal:
    def __init__(self):
        self.kind = None

    def progress(self, text):
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    def head(self, kind):
        if kind == self.kind:
            return
        self.kind = kind
        title, columns = HEADS[kind]
        print(f"\n{title}")
        print(LINE.format(*columns).rstrip())

    def row(self, series):
        self.progress("")
        self.head(series["kind"])
        said = series["verdict"]
        if series.get("others", 0) > 0.05:
            said += f" (others had {series['others']:.0%} of the CPU)"
        cells = CELLS[series["kind"]](series)
        if len(cells) == 8:
            cells = (*cells, "")
        print(LINE.format(series["name"], *cells, said), flush=True)

    def note(self, row, text):
        self.progress("")
        self.head(row.kind)
        print(f"{row.name:22} {'; '.join(text.split(chr(10)))}", flush=True)
