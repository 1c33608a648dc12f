"""A real browser for pages that are files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@contextmanager
def file_pages() -> Iterator:
    """Yield `open_page(path, **options)`, which opens a file; anything a page asks elsewhere, or complains of, fails."""
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        strangers, complaints = [], []

        def open_page(path: Path, **options) -> Page:
            page = browser.new_page(**options)
            page.set_default_timeout(5000)
            page.on("request", lambda request: strangers.append(request.url))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda message: complaints.append(message.text))
            page.goto(path.as_uri())
            return page

        yield open_page
        browser.close()
    assert [url for url in strangers if not url.startswith(("file:", "blob:", "data:"))] == []
    # a video that cannot be loaded is the one thing that a page may complain of
    assert [text for text in complaints if "ERR_FILE_NOT_FOUND" not in text] == []
