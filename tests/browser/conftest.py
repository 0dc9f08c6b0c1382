"""A headless Chromium, and the real service with the small artifact behind it."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service as Driver

from tests.browser.page import Page
from tests.service import ROOT, Client, launch

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARTIFACTS = ROOT / "tests" / "fixtures" / "tiny_artifact"


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    binary = next((path for path in map(shutil.which, CHROMIUM) if path), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium with chromedriver on this machine (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (
        "--headless=new",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1280,900",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(flag)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium refuses to sandbox itself as root
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Driver(driver))
    yield browser
    browser.quit()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    service = launch(tmp_path, artifacts_dir=ARTIFACTS)
    try:
        with Client(service) as client:
            yield client
    finally:
        service.stop()


@pytest.fixture
def page(chromium: webdriver.Chrome, client: Client) -> Iterator[Page]:
    """The page with users ann (a history of three) and bob (none) on offer.

    Afterwards: nothing was asked of any other origin, whatever the test did.
    """
    history = ["i3", "i8", "i13"]
    events = [
        {"user_id": "ann", "item_id": item, "timestamp": 1_600_000_000_000 + 1000 * place}
        for place, item in enumerate(history)
    ]
    assert client.post("/events", json={"events": events}).json()["accepted"] == len(history)
    for kind in ("browser", "performance"):
        chromium.get_log(kind)  # reading empties it
    origin = str(client.base_url).rstrip("/")
    chromium.get(f"{origin}/?users=ann,bob")
    chromium.execute_script("localStorage.clear()")
    page = Page(chromium)
    page.wait_until_settled()
    yield page
    foreign = {url for url in requested_urls(chromium) if not url.startswith(origin + "/")}
    chromium.get("about:blank")
    assert foreign == set()


def requested_urls(chromium: webdriver.Chrome) -> list[str]:
    """What pages asked for over the network; data: and chrome: addresses stay inside the browser."""
    messages = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    urls = [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]
    return [url for url in urls if urlsplit(url).scheme in ("http", "https", "ws", "wss")]
