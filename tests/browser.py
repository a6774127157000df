"""A headless Chromium for tests, driven through ChromeDriver's HTTP interface (W3C WebDriver), for which urllib will do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",  # CI runs as root
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def find() -> tuple[str, str] | None:
    """The paths of Chromium (or Chrome) and its ChromeDriver; None where one of them is missing."""
    folder = os.environ.get("CHROMEWEBDRIVER")  # on GitHub's runners, where it is Chrome's
    driver = shutil.which("chromedriver", path=folder)
    browser = next(filter(None, map(shutil.which, BROWSERS[::-1] if folder else BROWSERS)), None)
    return (browser, driver) if browser and driver else None


class Browser:
    """One browser window."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send a WebDriver command; return its value."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return json.load(reply)["value"]
        except urllib.error.HTTPError as err:
            raise RuntimeError(err.read().decode()) from err

    def open(self, page: Path) -> None:
        """Load a file."""
        self.send("POST", "/url", {"url": page.as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run the body of a JavaScript function in the page; return what it returns."""
        return self.send("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def devtools(self, command: str, **parameters: Any) -> Any:
        """Send a command of the DevTools protocol."""
        return self.send("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the size of the page in CSS pixels, as a phone would have it, and whether the user prefers dark."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.devtools("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])

    def messages(self) -> list[str]:
        """What has been written to the console (errors of scripts and of loading too) since the last call."""
        return [entry["message"] for entry in self.send("POST", "/se/log", {"type": "browser"})]

    def requests(self) -> list[str]:
        """The addresses asked for since the last call."""
        entries = [
            json.loads(entry["message"])["message"] for entry in self.send("POST", "/se/log", {"type": "performance"})
        ]
        return [e["params"]["request"]["url"] for e in entries if e["method"] == "Network.requestWillBeSent"]


@contextmanager
def start(folder: Path) -> Iterator[Browser]:
    """Start a browser with an empty profile in a folder; it ends with the context."""
    found = find()
    assert found is not None
    with (folder / "chromedriver.log").open("wb") as log:
        driver = subprocess.Popen([found[1], "--port=0"], stdout=subprocess.PIPE, stderr=log)
        try:
            browser = Browser(_port(driver))
            options = {"binary": found[0], "args": [*FLAGS, f"--user-data-dir={folder / 'profile'}"]}
            logging = {"browser": "ALL", "performance": "ALL"}
            wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": logging}
            session = browser.send("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            browser.url += f"/session/{session['sessionId']}"
            yield browser
            browser.send("DELETE", "")
        finally:
            driver.terminate()
            driver.wait(30)


def _port(driver: subprocess.Popen) -> int:
    """The port that a ChromeDriver says it listens on."""
    assert driver.stdout is not None
    end = time.monotonic() + 60
    while time.monotonic() < end:
        line = driver.stdout.readline().decode()
        if "on port " in line and "success" in line:
            return int(line.rsplit("on port ", 1)[1].strip(" .\n"))
        if not line and driver.poll() is not None:
            break
    raise RuntimeError("ChromeDriver does not start")
