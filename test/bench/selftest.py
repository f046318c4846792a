#!/usr/bin/env python3
"""Whether the benchmark's own arithmetic and tables are right."""

import collections
import json
import os
import random
import socket
import statistics
import subprocess
import tempfile
import threading
import unittest
import xml.dom.minidom

import book
import figures
import plot
import readme
import tables


def ratio(median, low=None, high=None):
    return {"median": median, "low": low or median, "high": high or median}


class Figures(unittest.TestCase):
    def test_interval_of_eleven_is_second_and_tenth(self):
        low, high, holds = figures.interval(list(range(1, 12)))
        self.assertEqual((low, high), (2, 10))
        self.assertAlmostEqual(holds, 1 - 24 / 2048)

    def test_interval_of_few_is_all(self):
        self.assertEqual(figures.interval([3, 1, 2])[:2], (1, 3))
        self.assertLess(figures.interval([3, 1, 2])[2], 0.95)
        self.assertEqual(figures.interval([1])[:2], (1, 1))

    def test_interval_holds_the_median_as_often_as_it_says(self):
        rng, held, rounds = random.Random(1), 0, 4000
        for _ in range(rounds):
            low, high, holds = figures.interval(
                [rng.expovariate(1) for _ in range(11)])
            held += low <= 0.6931 <= high
        self.assertAlmostEqual(held / rounds, holds, delta=0.01)

    def test_summary_keeps_the_values(self):
        values = [3.0, 1.0, 2.0]
        self.assertEqual(figures.summary(values)["values"], values)
        self.assertEqual(figures.summary(values)["median"],
                         statistics.median(values))

    def test_verdicts(self):
        quiet, loud = ratio(1, 0.99, 1.01), ratio(1, 0.9, 1.1)
        self.assertEqual(figures.verdict(None, ratio(9), quiet), "-")
        self.assertEqual(figures.verdict(1.1, ratio(1.1), None), "met")
        self.assertEqual(figures.verdict(1.1, ratio(1.05), quiet), "met")
        self.assertEqual(figures.verdict(1.1, ratio(1.15), quiet), "not met")
        self.assertEqual(figures.verdict(1.1, ratio(1.15), loud),
                         "not met, within noise")


class Tables(unittest.TestCase):
    def test_names_are_single_and_known(self):
        names = collections.Counter(row.name for row in tables.ROWS)
        self.assertEqual([n for n, count in names.items() if count > 1], [])
        for row in tables.ROWS:
            for server in row.servers:
                self.assertIn(server, tables.SERVERS)
            if isinstance(row, tables.Ratio):
                self.assertIn(row.workload, tables.WORKLOADS)


def echo(sock, spoil):
    """One client, each message of which is spoilt on its way back."""
    with sock:
        while data := sock.recv(65536):
            sock.sendall(spoil(data))


def flip(data):
    return data[:-1] + bytes([data[-1] ^ 1])


@unittest.skipUnless(os.path.exists(tables.LOAD), "the load is not built")
class Load(unittest.TestCase):
    """What it must not overlook, by servers that do wrong."""

    def serve(self, spoil):
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.addCleanup(listener.close)
        # close(2) would not wake who is in accept(2).
        self.addCleanup(listener.shutdown, socket.SHUT_RDWR)

        def accept():
            try:
                while True:
                    threading.Thread(target=echo, daemon=True, args=(
                        listener.accept()[0], spoil)).start()
            except OSError:
                pass

        threading.Thread(target=accept, daemon=True).start()
        return f"tcp://127.0.0.1:{listener.getsockname()[1]}"

    def load(self, spoil, *options, size=64):
        done = subprocess.run(
            [tables.LOAD, "-c", "4", "-s", str(size), "-t", "0.1", "-w", "0.01",
             *options, self.serve(spoil)], capture_output=True, text=True,
            timeout=30, check=False)
        return done.returncode, json.loads(done.stdout)

    def test_right_bytes_are_right(self):
        for options in ((), ("-d", "16"), ("-m", "connect")):
            for size in (1, 64, 16384, 100000):
                code, found = self.load(lambda data: data, *options, size=size)
                self.assertEqual((code, found["errors"]), (0, 0), found)
                self.assertGreater(found["messages"], 0)
                self.assertEqual(found["served_in_time"], 4)

    def test_wrong_bytes_are_found(self):
        for options in ((), ("-d", "16"), ("-m", "connect")):
            code, found = self.load(flip, *options)
            self.assertEqual(code, 1)
            self.assertIn("wrong bytes", found["error"])
            self.assertEqual(found["errors"], 4)

    def test_more_bytes_are_found(self):
        _, found = self.load(lambda data: data + b"x")
        self.assertIn("where 64 were to come", found["error"])

    def test_lost_bytes_are_found(self):
        for options in ((), ("-m", "connect")):
            code, found = self.load(lambda data: data[1:], *options)
            self.assertEqual(code, 1)
            self.assertGreater(found["errors"] + found["unanswered"], 0)

    def test_who_is_not_served_is_counted(self):
        _, found = self.load(lambda data: b"")
        self.assertEqual((found["never_served"], found["unanswered"]), (4, 4))

    def test_a_refused_connection_is_an_error(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        done = subprocess.run([tables.LOAD, "-t", "0.1",
                               f"tcp://127.0.0.1:{port}"], text=True,
                              capture_output=True, timeout=30, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("refused", json.loads(done.stdout)["error"])


SERIES = [
    {"kind": "ratio", "name": "fiber-64", "server": "fiber",
     "against": "epoll", "workload": "64", "goal": 1.03, "server_us": 2.81,
     "against_us": 2.8, "ratio": ratio(1.003, 0.99, 1.01), "control": None,
     "verdict": "met", "rates": {"fiber": {"rate": 220000.0, "p99_us": 400.0},
                                 "epoll": {"rate": 226000.0, "p99_us": 390.0}}},
    {"kind": "memory", "name": "memory-fiber", "server": "fiber",
     "connections": 10000, "before": 32.0, "between": 61.0, "goal": 400,
     "verdict": "met"},
    {"kind": "memory", "name": "memory-thread", "server": "thread",
     "connections": 1000, "before": 12600.0, "between": 12900.0,
     "goal": None, "verdict": "-"},
    {"kind": "fairness", "name": "fair-fiber", "server": "fiber",
     "clients": 1000, "served": 1000, "seconds": 2, "slowest_ms": 44.0,
     "goal": True, "verdict": "met"},
    {"kind": "soak", "name": "soak-10000", "server": "fiber",
     "connections": 10000, "alive": 10000, "user": 64.0, "kernel": 10000.0,
     "active_rate": 90000.0, "active_p99_us": 700.0, "connect_seconds": 0.4,
     "goal": True, "verdict": "met"},
]


class Output(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.book = book.Book(self.directory.name + "/bench/results.json")
        for series in SERIES:
            self.book.add(dict(series), {"quick": False})

    def tearDown(self):
        self.directory.cleanup()

    def test_book_appends_and_finds_the_last(self):
        self.book.add(dict(SERIES[0], server_us=9.0), {"quick": False})
        self.book.add(dict(SERIES[0], server_us=7.0), {"quick": True})
        self.assertEqual(self.book.last()["fiber-64"]["server_us"], 9.0)
        self.assertEqual(self.book.last(quick=True)["fiber-64"]["server_us"],
                         7.0)

    def test_plot_is_well_formed(self):
        text = plot.draw(self.book.last())
        xml.dom.minidom.parseString(text)
        self.assertIn("raw epoll loop", text)

    def test_readme_block_is_replaced_and_nothing_else(self):
        text = f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n"
        new = readme.replace(text, readme.block(self.book.last()))
        self.assertTrue(new.startswith("before\n" + readme.BEGIN))
        self.assertTrue(new.endswith(readme.END + "\nafter\n"))
        self.assertNotIn("\nold\n", new)
        self.assertIn("1.00", new)
        with self.assertRaises(readme.NoBlock):
            readme.replace("nothing", "x")


if __name__ == "__main__":
    unittest.main()
