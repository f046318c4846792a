"""Medians, their intervals, and verdicts."""

import math
import statistics


def interval(values):
    """The narrowest pair of order statistics that holds the median with 95 %,
    and what it holds it with; all values where there are too few.  Of 11 it is
    the second and the tenth (98.8 %)."""
    n, values = len(values), sorted(values)

    def holds(k):
        return 1 - 2 * sum(math.comb(n, i) for i in range(k)) / 2 ** n

    k = max((k for k in range(1, n // 2 + 1) if holds(k) >= 0.95), default=1)
    return values[k - 1], values[n - k], holds(k)


def summary(values):
    low, high, holds = interval(values)
    return {"median": statistics.median(values), "low": low, "high": high,
            "confidence": holds, "values": values}


def noise(control):
    """How far the same server is from itself: nothing is known more finely."""
    return max(abs(control["low"] - 1), abs(control["high"] - 1))


def verdict(goal, ratio, control):
    if goal is None:
        return "-"
    said = "met" if ratio["median"] <= goal else "not met"
    if control and abs(ratio["median"] - goal) < noise(control):
        said += ", within noise"
    return said


def size(count):
    """Bytes, for people."""
    if abs(count) < 1000:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if abs(count) < 1000:
            break
    return f"{count:.1f} {unit}"
