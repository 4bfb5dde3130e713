"""Opens a page in a real Chromium without network, at desk and at phone width; screenshots stay in ``artifacts/``."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

ARTIFACTS = Path(__file__).parent.parent / "artifacts"
WIDTHS = {"desk": 1000, "phone": 390}


@dataclass(frozen=True)
class Seen:
    """What the browser saw of a page at one width."""

    errors: list[str]
    requests: list[str]
    width: int
    window: int
    images: list[int]
    smallest_text: float
    clipped: int
    screenshot: Path


def chromium():
    """Path of the browser; without one the test is skipped with a reason, and fails on CI, which installs it."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        reason = "no Chromium on this machine: `make browser` installs it where apt-get is allowed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def look(page_file, width, name, ready="true"):
    """Open a file at one of :data:`WIDTHS` and note errors, requests, overflow, images, text sizes, cut code."""
    from playwright.sync_api import sync_playwright

    path = chromium()
    ARTIFACTS.mkdir(exist_ok=True)
    errors, requests = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            phone = width == "phone"
            context = browser.new_context(
                viewport={"width": WIDTHS[width], "height": 844}, is_mobile=phone, offline=True, device_scale_factor=1.5
            )
            page = context.new_page()
            page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("request", lambda request: requests.append(request.url))
            page.goto(Path(page_file).absolute().as_uri())
            page.wait_for_function(ready)
            screenshot = ARTIFACTS / f"{name}-{width}.png"
            page.screenshot(path=screenshot, full_page=True)
            return Seen(
                errors,
                [url for url in requests if not url.startswith(("data:", "file:"))],
                page.evaluate("document.documentElement.scrollWidth"),
                page.evaluate("document.documentElement.clientWidth"),
                page.evaluate("[...document.images].map(image => image.naturalWidth)"),
                page.evaluate(
                    "Math.min(...[...(document.querySelector('article[role=main]') || document)"
                    ".querySelectorAll('p,li,td,dd,dt,figcaption')].filter(e => e.innerText)"
                    ".map(e => parseFloat(getComputedStyle(e).fontSize)))"
                ),
                page.evaluate(
                    "[...document.querySelectorAll('.highlight pre')].filter(e => e.scrollWidth > e.clientWidth).length"
                ),
                screenshot,
            )
        finally:
            browser.close()
