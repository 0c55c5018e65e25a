"""A headless Chromium, driven by its DevTools protocol."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import websocket

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--mute-audio"),
    *("--disable-background-networking", "--disable-extensions", "--remote-debugging-port=0"),
)
# Drawn, with its formulas, of which the last may come after the page is loaded, and in its last
# colours: the theme lets buttons fade from one to the next.
_SETTLED = """(async () => {
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  await Promise.allSettled(document.getAnimations().map(one => one.finished));
})()"""


class Browser:
    """One page of a browser."""

    def __init__(self, socket: websocket.WebSocket) -> None:
        self.socket, self.count, self.events = socket, 0, []

    def call(self, method: str, **params: object) -> dict:
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": params}))
        while (message := json.loads(self.socket.recv())).get("id") != self.count:
            self.events.append(message)
        assert "error" not in message, message
        return message["result"]

    def open(self, url: str, *, width: int = 1280, scheme: str = "light") -> list[dict]:
        """Open a page and wait for it; returns what happened meanwhile."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(json.loads(self.socket.recv()))
        self.run(_SETTLED)
        return list(self.events)

    def run(self, script: str) -> object:
        """What a script gives on the open page."""
        result = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def measure(self, name: str) -> dict:
        """What a script of this folder finds on the open page."""
        return self.run(Path(__file__).with_name(f"{name}.js").read_text(encoding="utf-8"))

    def wait_for(self, script: str) -> object:
        """What a script gives, once that is something."""
        deadline = time.monotonic() + 60
        while not (found := self.run(script)):
            assert time.monotonic() < deadline, script
            time.sleep(0.1)
        return found


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser with its files in a folder; the test skips where there is none."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    process = subprocess.Popen(
        [program, *_FLAGS, f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield _connect(process, folder / "DevToolsActivePort")
    finally:
        process.terminate()
        process.wait(timeout=30)


def _connect(process: subprocess.Popen, ports: Path) -> Browser:
    deadline = time.monotonic() + 60
    while not ports.is_file() or "\n" not in ports.read_text():
        assert process.poll() is None, "Chromium ended by itself"
        assert time.monotonic() < deadline, "Chromium did not start within a minute"
        time.sleep(0.05)
    port, path = ports.read_text().split("\n")[:2]
    root = Browser(
        websocket.create_connection(f"ws://127.0.0.1:{port}{path}", suppress_origin=True)
    )
    target = root.call("Target.createTarget", url="about:blank")["targetId"]
    page = f"ws://127.0.0.1:{port}/devtools/page/{target}"
    browser = Browser(websocket.create_connection(page, suppress_origin=True, timeout=120))
    for domain in ("Page", "Network", "Runtime", "Log"):
        browser.call(f"{domain}.enable")
    return browser


def complaints(events: list[dict]) -> list[object]:
    """Console errors and warnings, exceptions, failed requests, requests to a network."""
    found: list[object] = []
    for event in events:
        method, params = event.get("method"), event.get("params", {})
        level = params.get("entry", {}).get("level") or params.get("type")
        if method in ("Runtime.exceptionThrown", "Network.loadingFailed"):
            found.append(params)
        elif method in ("Log.entryAdded", "Runtime.consoleAPICalled"):
            found += [params] if level in ("error", "warning") else []
        elif method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            found += [] if url.startswith(("data:", "file:", "blob:")) else [url]
    return found
