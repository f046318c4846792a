"""Whether a figure grows with time.

The rule: the first third of the samples is left out.  Of the others, Kendall's
rank correlation with time is tested, one-sided, at 0.1 %; and the growth, which
is the median of the slopes of all pairs of samples (Theil, Sen) times the time
they span, must be more than an allowance; and it must go on: either half alone
rises at a quarter of that pace at least.  Only what is all three grows: what
goes up and down, rose once, or comes to its highest mark later, does not.
"""

import math
import statistics

WARM_UP = 1 / 3
LEAST = 8       # samples, below which nothing is said
SURE = 3.09     # standard deviations: one in a thousand, one-sided
GOES_ON = 1 / 4
MOST = 400      # samples that are compared in pairs


def thinned(samples):
    step = max(1, len(samples) // MOST)
    return samples[len(samples) % step::step]


def kendall(values):
    """Standard deviations by which more pairs rise than fall."""
    n, s = len(values), 0
    for i in range(n):
        for k in range(i):
            s += (values[i] > values[k]) - (values[i] < values[k])
    ties = sum(t * (t - 1) * (2 * t + 5)
               for t in (values.count(v) for v in set(values)))
    variance = (n * (n - 1) * (2 * n + 5) - ties) / 18
    if variance <= 0 or s == 0:
        return 0.0
    return (s - math.copysign(1, s)) / math.sqrt(variance)


def slope(samples):
    """Per second."""
    return statistics.median(
        (b[1] - a[1]) / (b[0] - a[0])
        for i, b in enumerate(samples) for a in samples[:i] if b[0] > a[0])


class Verdict:
    """Of samples (second, value)."""

    def __init__(self, samples, allowance):
        kept = thinned(samples[int(len(samples) * WARM_UP):])
        self.count = len(kept)
        self.enough = self.count >= LEAST
        self.growth = self.slope = 0.0
        if not self.enough:
            return
        self.slope = slope(kept)
        self.growth = self.slope * (kept[-1][0] - kept[0][0])
        half = self.count // 2
        self.grows = (
            kendall([v for _, v in kept]) > SURE and self.growth > allowance
            and min(slope(kept[:half]), slope(kept[half:]))
            >= GOES_ON * self.slope)

    def word(self):
        if not self.enough:
            return "too few"
        return "GROWS" if self.grows else "flat"


def selftest():
    import random
    dice = random.Random(1)
    line = [(t, 100.0) for t in range(60)]
    noise = [(t, 100 + dice.uniform(-50, 50)) for t in range(60)]
    warms = [(t, min(t, 15) * 100.0) for t in range(60)]
    steps = [(t, 100.0 + t // 10) for t in range(60)]
    marks = [(t, 100.0 + 50 * min(t, 38)) for t in range(60)]
    leaks = [(t, v + 3 * t) for t, v in noise]
    for samples, allowance, word in (
            (line, 0, "flat"), (noise, 0, "flat"), (warms, 0, "flat"),
            (line[:9], 0, "too few"), (steps, 0.5, "GROWS"), (marks, 0, "flat"),
            (leaks, 50, "GROWS"), (leaks, 500, "flat"),
            (line[:30] + [(t, 101.0) for t in range(30, 60)], 2, "flat")):
        got = Verdict(samples, allowance).word()
        assert got == word, (samples, allowance, got, word)
    wrong = sum(Verdict([(t, dice.random()) for t in range(40)], 0).grows
                for _ in range(1000))
    assert wrong <= 5, wrong


if __name__ == "__main__":
    selftest()
