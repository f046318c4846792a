"""The book of all series ever made here: a JSON file."""

import datetime
import json
import os
import platform
import subprocess

from tables import BUILD, HERE

PATH = os.path.join(os.path.dirname(BUILD), "bench", "results.json")


def commit():
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=HERE,
                          capture_output=True, text=True, check=False)
    return done.stdout.strip()


def processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except FileNotFoundError:
        pass
    return platform.machine()


def machine():
    return {"kernel": platform.release(), "cpus": os.cpu_count(),
            "arch": platform.machine(), "processor": processor()}


class Book:
    def __init__(self, path=PATH):
        self.path = path
        try:
            with open(path, encoding="utf-8") as file:
                self.series = json.load(file)["series"]
        except FileNotFoundError:
            self.series = []

    def add(self, series, options):
        """Appends; the file is written whole or not at all."""
        now = datetime.datetime.now(datetime.timezone.utc)
        self.series.append({
            "when": now.isoformat(timespec="seconds"), "commit": commit(),
            "machine": machine(), "options": options, **series})
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        with open(self.path + ".new", "w", encoding="utf-8") as file:
            json.dump({"series": self.series}, file)
        os.replace(self.path + ".new", self.path)

    def last(self, quick=False):
        """The last series of each row, by name; quick ones do not count."""
        return {s["name"]: s for s in self.series
                if quick or not s["options"].get("quick")}
