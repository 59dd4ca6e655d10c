"""Pages in Debian's Chromium, as a reader sees them."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import optional

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--disable-quic", "--no-first-run"),
)


@dataclass
class Reader:
    """A page in a browser.

    Attributes:
        page: of Playwright.
        errors: what the console and the scripts of the page complained of.
        requests: addresses that the page asked for, other than its own file.
    """

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def chromium() -> str:
    """Path of the browser; without it the test is skipped, or fails where everything is required."""
    path = shutil.which("chromium")
    if path is None:
        assert os.environ.get("SEMPRIOR_REQUIRE_ALL") != "1", "chromium is not installed: apt-get install chromium"
        pytest.skip("chromium is not installed: apt-get install chromium")
    return path


@contextmanager
def browser(profile: Path) -> Iterator[Callable[[Path], Reader]]:
    """A browser, as a function that opens a page in a new tab and waits until its charts are drawn.

    A process can have one at a time.

    Args:
        profile: a new folder for what the browser keeps.
    """
    program = chromium()
    optional("playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            profile,
            executable_path=program,
            headless=True,
            args=list(FLAGS),
            color_scheme="light",
            viewport={"width": 1280, "height": 900},
        )

        def open_page(file: Path) -> Reader:
            reader = Reader(context.new_page())
            page = reader.page
            page.on("console", lambda message: reader.errors.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: reader.errors.append(str(error)))
            page.on("request", lambda request: _note(reader, request.url, file))
            page.goto(file.resolve().as_uri())
            wait_until_drawn(page)
            return reader

        try:
            yield open_page
        finally:
            context.close()


def wait_until_drawn(page: Any) -> None:
    """Wait until the charts of a page are drawn."""
    page.wait_for_selector("html[data-ready=yes]", timeout=120_000)


def _note(reader: Reader, address: str, file: Path) -> None:
    if not address.startswith(("data:", "blob:")) and address.partition("#")[0] != file.resolve().as_uri():
        reader.requests.append(address)
