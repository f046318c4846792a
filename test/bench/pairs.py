"""What servers cost per message: pairs of measurements, and their ratios.

A pair is one measurement of each of two servers, made of slices in the order
server, against, twin, twin, against, server, and so on (every second pair the
other way round), so that what drifts on the machine weighs on all alike.  The
twin, where there is a goal, is the other server once more: how far its ratio
is from 1 is the control.
"""

import contextlib
import statistics

import figures
from processes import Server, load, must_be_right
from tables import WORKLOADS


def slices_of(row, number, options):
    roles = ["server", "against"] + ["twin"] * (row.goal is not None)
    there, back = roles, roles[::-1]
    return (back + there if number % 2 else there + back) * options.turns


def microseconds(row, server, slices):
    """CPU per message."""
    if row.whole_life:
        return server.life * 1e6 / sum(s["all_messages"] for s in slices)
    cpu = sum(s["server_cpu_s"] for s in slices)
    return cpu * 1e6 / sum(s["messages"] for s in slices)


def measure_pair(row, number, options):
    """CPU per message of each role, and what others had of the CPU."""
    order = slices_of(row, number, options)
    names = {"server": row.server, "against": row.against,
             "twin": row.against}
    workload = WORKLOADS[row.workload]
    seconds = options.seconds / (2 * options.turns)
    slices = {role: [] for role in order}
    with contextlib.ExitStack() as stack:
        servers = {role: stack.enter_context(
            Server(names[role], workload.transport, options.cpu))
            for role in dict.fromkeys(order)}
        for i, role in enumerate(order):
            slices[role].append(must_be_right(servers[role], load(
                servers[role], workload, seconds, options.warmup,
                1 + number * len(order) + i, options.cpu)))
    pair = {role: microseconds(row, servers[role], s)
            for role, s in slices.items()}
    every = [s for role in slices.values() for s in role]
    pair["others"] = max(0, 1 - sum(
        s["server_cpu_s"] + s["load_cpu_s"] for s in every) / sum(
            s["seconds"] for s in every))
    return pair


def measure_rates(row, options):
    """With the load on another CPU, by turns; nothing is judged by it."""
    if options.other_cpu is None:
        return {}
    workload = WORKLOADS[row.workload]
    roles = {"server": row.server, "against": row.against}
    found = {role: [] for role in roles}
    with contextlib.ExitStack() as stack:
        servers = {role: stack.enter_context(
            Server(name, workload.transport, options.cpu))
            for role, name in roles.items()}
        for role in ["server", "against", "against", "server"]:
            found[role].append(must_be_right(servers[role], load(
                servers[role], workload, options.seconds / 2, options.warmup,
                cpu=options.other_cpu)))
    return {role: {
        "rate": statistics.mean(s["rate"] for s in slices),
        **{key: statistics.mean(s[key] for s in slices)
           for key in ("p50_us", "p99_us", "p999_us")}}
        for role, slices in found.items()}


def measure(row, options, progress):
    pairs = []
    for number in range(options.pairs):
        progress(f"pair {number + 1} of {options.pairs}")
        pairs.append(measure_pair(row, number, options))
    progress("rates")
    rates = measure_rates(row, options)
    ratio = figures.summary([p["server"] / p["against"] for p in pairs])
    control = (figures.summary([p["twin"] / p["against"] for p in pairs])
               if row.goal is not None else None)
    return {
        "kind": row.kind, "server": row.server, "against": row.against,
        "workload": row.workload,
        "server_us": statistics.median(p["server"] for p in pairs),
        "against_us": statistics.median(p["against"] for p in pairs),
        "ratio": ratio, "control": control, "rates": rates,
        "others": statistics.median(p["others"] for p in pairs),
        "verdict": figures.verdict(row.goal, ratio, control), "pairs": pairs,
    }
