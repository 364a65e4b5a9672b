"""Browser of the tests that look at pages: a real Chromium, over its DevTools protocol."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest


@pytest.fixture(scope="session")
def chromium():
    """The command of a Chromium."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None or sys.platform != "linux" or os.environ.get("ATELIER_NO_BROWSER"):
        pytest.skip("there is no Chromium on this machine")
    return found


PATIENCE_SECONDS = 120
TEXT = "document.body.innerText"  # of a page, as a person sees it
KEYS = {"ArrowLeft": 37, "ArrowRight": 39, " ": 32, "1": 49, "2": 50, "3": 51}  # their codes


class Browser:
    """A real Chromium, driven over its DevTools protocol; ``flags`` may give it WebGL."""

    def __init__(self, command, profile, *flags):
        flags = flags or ["--disable-gpu"]
        flags = ["--headless=new", "--no-sandbox", "--remote-debugging-port=0", *flags]
        quiet = ["--no-first-run", "--disable-background-networking", "--disable-sync"]
        self._process = subprocess.Popen(
            [command, *flags, *quiet, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port = eventually(lambda: (profile / "DevToolsActivePort").read_text().split()[0])
        self._listed = f"http://127.0.0.1:{port}/json/list"
        self._sent = 0
        self.complaints, self.asked = [], []
        self._attach(next(iter(self._pages())))

    def _pages(self):
        """The tabs by their address in the protocol, with the address that each shows."""
        found = httpx.get(self._listed, trust_env=False, timeout=PATIENCE_SECONDS).json()
        return {
            one["webSocketDebuggerUrl"]: one["url"] for one in found if one["type"] == "page"
        }

    def _attach(self, page):
        from websockets.sync.client import connect

        # No pings: while a test waits for something else, no code reads the answers to them.
        self._socket = connect(page, max_size=None, proxy=None, ping_interval=None)
        self._page = page
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self._sent += 1
        self._socket.send(json.dumps({"id": self._sent, "method": method, "params": params}))
        while True:
            said = json.loads(self._socket.recv(timeout=PATIENCE_SECONDS))
            if said.get("id") == self._sent:
                assert "error" not in said, said
                return said["result"]
            self._note(said)

    def _note(self, said):
        """Keep what the page complains of, and every address that it asks for."""
        if said["method"] == "Log.entryAdded":
            entry = said["params"]["entry"]
            self.complaints.append(f"{entry['text']} {entry.get('url')}")
        elif said["method"] == "Runtime.exceptionThrown":
            self.complaints.append(said["params"]["exceptionDetails"]["text"])
        elif said["method"] == "Network.requestWillBeSent":
            self.asked.append(said["params"]["request"]["url"])

    def value(self, script):
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def go(self, address):
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def follow(self, words):
        """Click the link of these words, and go on in the tab in which its page opens."""
        before, there = self._pages(), self.value("location.href")
        link = f"[...document.links].find(one => one.innerText.trim() === {words!r})"
        self.until(f"Boolean({link})")
        self.value(f"{link}.scrollIntoView({{block: 'center'}})")
        x, y = self.value(
            f"(box => [box.x + box.width / 2, box.y + box.height / 2])"
            f"({link}.getClientRects()[0])"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1
            )

        def opened():
            now = self._pages()
            new = [page for page in now if page not in before]
            return (new or [self._page] * (now[self._page] != there) or [None])[0]

        page = eventually(opened)
        if page != self._page:
            self._socket.close()
            self._attach(page)

    def until(self, script):
        eventually(lambda: self.value(script) or None)

    def press(self, key):
        code = KEYS[key]
        text = {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            more = text if kind == "keyDown" else {}
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=code,
                **more,
            )

    def screen(self, width, height, *, touch=False, dark=False):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=touch,
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch)
        colours = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[colours])

    def picture(self, file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self):
        self._socket.close()
        self._process.terminate()
        self._process.wait(30)


def seen(browser, page, *words):
    """Go to a page; its text once it shows these words. ATELIER_SHOTS keeps a picture of it."""
    browser.screen(1600, 1200)
    browser.go(page)
    return shown(browser, *words)


def shown(browser, *words):
    """The text of the page that is open, once it shows these words."""
    try:
        for word in words:
            browser.until(f"{TEXT}.includes({word!r})")
    finally:
        if folder := os.environ.get("ATELIER_SHOTS"):
            name = os.environ["PYTEST_CURRENT_TEST"].rpartition("::")[2].split(" ")[0]
            browser.picture(Path(folder) / f"{name}-{len(list(Path(folder).glob('*')))}.png")
    return browser.value(TEXT)


def eventually(ask):
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError, IndexError, AssertionError):
            found = ask()
            if found is not None:
                return found
        time.sleep(0.05)
    raise AssertionError(f"it did not come to be in {PATIENCE_SECONDS} seconds")


@pytest.fixture
def browser(chromium, tmp_path_factory):
    """A Chromium with a profile of its own."""
    one = Browser(chromium, tmp_path_factory.mktemp("chromium"))
    yield one
    one.close()
