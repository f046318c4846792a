"""An SVG: rate, CPU per message and memory of each server, at a glance."""

import collections
import html
import math
import statistics

import figures
from tables import OURS, label

ORDER = ["fiber", "fiber-loop", "prefork-fiber", "threading", "forking",
         "pool", "epoll", "libevent", "bufferevent", "libuv", "asio", "thread",
         "fork", "glib", "python-thread"]
NAMES, PANEL, GAP, ROW, TOP = 200, 190, 34, 24, 58
INK, SOFT, GRID = "#1f2328", "#59636e", "#d1d9e0"
OWN, OTHER = "#0969da", "#8c959f"
FONT = 'font-family="system-ui, sans-serif"'


def costs(last):
    """CPU per message and rate of each server in ping-pong, 64 x 64 B; the
    median where it stands in several rows."""
    us, rates = collections.defaultdict(list), collections.defaultdict(list)
    for series in last.values():
        if series["kind"] != "ratio" or series["workload"] != "64":
            continue
        for role in ("against", "server"):
            name = series[role]
            us[name].append(series[f"{role}_us"])
            if role in series["rates"]:
                rates[name].append(series["rates"][role]["rate"] / 1e3)
    return [{name: statistics.median(values) for name, values in d.items()}
            for d in (us, rates)]


def memories(last):
    return {s["server"]: max(s["between"], 1) for s in last.values()
            if s["kind"] == "memory"}


def text(x, y, words, color=INK, size=12, anchor="start", weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}" font-size="{size}" '
            f'text-anchor="{anchor}" font-weight="{weight}">'
            f"{html.escape(words)}</text>")


def nice(top):
    """A round number at or above it, and a step that divides it."""
    power = 10 ** math.floor(math.log10(top))
    for factor, step in ((1, 0.5), (1.5, 0.5), (2, 1), (3, 1), (4, 2),
                         (6, 2), (8, 4), (10, 5)):
        if top <= factor * power:
            return factor * power, step * power
    return 10 * power, 5 * power


class Linear:
    def __init__(self, values):
        self.top, self.step = nice(max(values))

    def at(self, value):
        return value / self.top

    def ticks(self):
        return [(i * self.step, f"{i * self.step:g}")
                for i in range(round(self.top / self.step) + 1)]

    @staticmethod
    def show(value):
        return f"{value:.3g}"


class Logarithmic:
    """Bytes, from 16 on, a tick each factor of 16."""

    def __init__(self, values):
        self.powers = max(1, math.ceil(math.log(max(values) / 16, 16)))

    def at(self, value):
        return max(0, math.log(value / 16, 16)) / self.powers

    def ticks(self):
        return [(16 ** (i + 1), figures.size(16 ** (i + 1)).replace(".0", ""))
                for i in range(self.powers + 1)]

    show = staticmethod(figures.size)


def panel(x, names, title, values, scale):
    """Bars of one measure, its axis below; a bar says its number itself."""
    bottom = TOP + len(names) * ROW
    out = [text(x, TOP - 14, title, weight="600")]
    for value, name in scale.ticks():
        at = x + scale.at(value) * PANEL
        out.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" '
                   f'y2="{bottom}" stroke="{GRID}"/>')
        out.append(text(at, bottom + 16, name, SOFT, 10, "middle"))
    for i, name in enumerate(names):
        y = TOP + i * ROW
        if name not in values:
            out.append(text(x + 4, y + 16, "–", SOFT, 11))
            continue
        width = max(1, scale.at(values[name]) * PANEL)
        out.append(f'<rect x="{x}" y="{y + 4}" width="{width:.1f}" '
                   f'height="{ROW - 8}" fill="'
                   f'{OWN if name in OURS else OTHER}"/>')
        inside = width > PANEL * 0.6
        out.append(text(x + width + (-4 if inside else 4), y + 16,
                        scale.show(values[name]),
                        "#ffffff" if inside else INK, 11,
                        "end" if inside else "start"))
    return out


def draw(last):
    us, rates = costs(last)
    memory = memories(last)
    names = [n for n in ORDER if n in us or n in memory]
    panels = [("thousand messages a second", rates, Linear),
              ("server CPU per message, µs", us, Linear),
              ("memory per idle connection", memory, Logarithmic)]
    width = NAMES + 3 * (PANEL + GAP)
    height = TOP + len(names) * ROW + 46
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
           f'height="{height}" viewBox="0 0 {width} {height}" {FONT}>',
           f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
           text(12, 22, "Echo of 64 bytes over TCP, 64 connections", size=14,
                weight="600")]
    for i, name in enumerate(names):
        out.append(text(NAMES - 10, TOP + i * ROW + 16, label(name),
                        OWN if name in OURS else INK, 12, "end"))
    for i, (title, values, scale) in enumerate(panels):
        shown = {n: v for n, v in values.items() if n in names}
        if shown:
            out += panel(NAMES + i * (PANEL + GAP), names, title, shown,
                         scale(shown.values()))
    out.append(text(12, height - 10, "Rates: server and load on a CPU each.  "
                    "CPU: both on the same one.  Memory: user memory after "
                    "one echo; logarithmic.  Blue: this library.", SOFT, 10))
    return "\n".join(out) + "\n</svg>\n"
