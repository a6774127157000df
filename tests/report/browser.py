"""A headless Chromium for tests, driven by Selenium."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver

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
    """Return the paths of Chromium (or Chrome) and its ChromeDriver; None where one of them is missing."""
    folder = os.environ.get("CHROMEWEBDRIVER")  # on GitHub's runners, where it is Chrome's
    driver = shutil.which("chromedriver", path=folder)
    browser = next(filter(None, map(shutil.which, BROWSERS[::-1] if folder else BROWSERS)), None)
    return (browser, driver) if browser and driver else None


@contextmanager
def start(folder: Path) -> Iterator[Browser]:
    """Start a browser with an empty profile in a folder; it is closed when the context ends."""
    paths = find()
    assert paths is not None
    options = webdriver.ChromeOptions()
    options.binary_location, executable = paths
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(executable))  # given both, Selenium downloads nothing
    try:
        yield Browser(driver)
    finally:
        driver.quit()


class Browser:
    """One browser window."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, page: Path) -> None:
        """Load a file."""
        self.driver.get(page.as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        """Run the body of a JavaScript function in the page; return its result."""
        return self.driver.execute_script(script, *arguments)

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the size of the page in CSS pixels, as on a phone, and whether the user prefers a dark scheme."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def messages(self) -> list[str]:
        """Return what was written to the console, errors included, since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Return the addresses requested since the last call."""
        entries = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [e["params"]["request"]["url"] for e in entries if e["method"] == "Network.requestWillBeSent"]
