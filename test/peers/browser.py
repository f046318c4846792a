"""Looks at a status page by a headless Chromium, over its debugging pipe.

    browser.py HOST:PORT PEER WAITS drain|none

Waits until the page shows the peer and what it waits for, and for the drain
button to be there or not; where it is, clicks it, and waits until the page has
heard of it.
"""
import json
import os
import subprocess
import sys
import tempfile
import time

SECONDS = 45


class Browser:
    """Messages end in NUL; Chromium reads them at 3 and writes them at 4."""

    def __init__(self, profile):
        to_read, self.to = os.pipe()
        self.source, from_write = os.pipe()
        self.rest, self.count = b"", 0

        def place():
            high = [os.dup(to_read), os.dup(from_write)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self.process = subprocess.Popen(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu",
             "--no-first-run", "--disable-dev-shm-usage",
             "--user-data-dir=" + profile, "--remote-debugging-pipe",
             "about:blank"],
            preexec_fn=place, close_fds=False, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(from_write)

    def message(self):
        while b"\0" not in self.rest:
            more = os.read(self.source, 65536)
            assert more, "the browser has gone"
            self.rest += more
        text, self.rest = self.rest.split(b"\0", 1)
        return json.loads(text)

    def ask(self, method, session=None, **params):
        self.count += 1
        call = {"id": self.count, "method": method, "params": params}
        if session:
            call["sessionId"] = session
        os.write(self.to, json.dumps(call).encode() + b"\0")
        while True:
            answer = self.message()
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]

    def close(self):
        self.ask("Browser.close")
        self.process.wait(10)


def open_page(browser, place):
    target = browser.ask("Target.createTarget", url="http://%s/" % place)
    return browser.ask("Target.attachToTarget", flatten=True,
                       targetId=target["targetId"])["sessionId"]


def await_true(browser, session, what):
    end = time.monotonic() + SECONDS
    while True:
        result = browser.ask("Runtime.evaluate", session, expression=what,
                             returnByValue=True)["result"]
        if result.get("value") is True:
            return
        assert time.monotonic() < end, "never: " + what
        time.sleep(0.05)


def look(browser, place, peer, waits, drain):
    session = open_page(browser, place)
    await_true(browser, session, """
        [...document.querySelectorAll("tr")].some(tr =>
            tr.textContent.includes(%s) &&
            tr.querySelector(".waits").textContent === %s)
        """ % (json.dumps(peer), json.dumps(waits)))
    hidden = "document.getElementById('drain').hidden"
    await_true(browser, session,
               hidden + (" === false" if drain == "drain" else " === true"))
    if drain == "drain":
        await_true(browser, session, """
            window.confirm = () => true;
            document.getElementById("drain").click();
            true""")
        await_true(browser, session, """
            /Draining|Stopped/.test(
                document.getElementById("state").textContent)""")
    browser.close()


def main():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        look(Browser(profile), *sys.argv[1:])
    print("well")


main()
