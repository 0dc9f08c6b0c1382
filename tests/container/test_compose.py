"""The images and the compose file with a real engine: built, started, asked, stopped.

CONTAINER_OVERRIDE may name one more compose file, for engines that need other build options.
"""

import json
import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.service import ROOT

pytestmark = pytest.mark.container

BASE = "python:3.11-slim"
MAX_ADDED_BYTES = 300_000_000
"""What `serve` may add to its base: python:3.11-slim takes less than 150 MB, and 450 MB in all is the promise."""
BUILD_SECONDS = 1200
UP_SECONDS = 1200


class Compose:
    """The project's compose file under a name and a port of its own."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._project = f"segue-test-{uuid.uuid4().hex[:8]}"
        self._environment = {**os.environ, "SEGUE_PORT": str(port)}
        override = os.environ.get("CONTAINER_OVERRIDE")
        self._files = ["--file", str(ROOT / "docker-compose.yml"), *(["--file", override] if override else [])]

    def __call__(self, *arguments: str, seconds: float = 120) -> str:
        command = ["docker", "compose", *self._files, "--project-name", self._project, *arguments]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=seconds)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def compose() -> Iterator[Compose]:
    """Built and up; down with its volumes afterwards."""
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("no container engine answers here (`docker info`)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    compose = Compose(port)
    compose("build", seconds=BUILD_SECONDS)
    try:
        compose("up", "--detach", "--wait", seconds=UP_SECONDS)
        yield compose
    finally:
        compose("down", "--volumes", "--timeout", "20")


def post(url: str, body: object) -> dict[str, Any]:
    return dict(httpx.post(url, json=body, timeout=20).raise_for_status().json())


def inspect(what: str, template: str) -> Any:
    done = subprocess.run(["docker", "inspect", "--format", template, what], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_up_ends_with_a_real_user_ranked_by_the_model(compose: Compose) -> None:
    before = post(f"{compose.url}/recommend", {"user_id": "1", "k": 10})
    assert (before["strategy"], before["reasons"], len(before["items"])) == ("model", [], 10)
    assert before["history_length"] > 100  # user 1 of ML-100K rated 272 films
    film = before["items"][0]["item_id"]
    assert post(f"{compose.url}/events", {"user_id": "1", "item_id": film, "event_id": "e1"})["accepted"] == 1
    after = post(f"{compose.url}/recommend", {"user_id": "1", "k": 10})
    assert film not in [item["item_id"] for item in after["items"]]
    assert after["items"] != before["items"]


def test_page_is_served(compose: Compose) -> None:
    assert "<title>Segue</title>" in httpx.get(f"{compose.url}/", timeout=20).raise_for_status().text


def test_second_start_trains_nothing_and_keeps_what_was_stored(compose: Compose) -> None:
    user = f"guest-{uuid.uuid4().hex[:8]}"
    post(f"{compose.url}/events", {"user_id": user, "item_id": "50", "event_id": "e2"})
    compose("stop", "--timeout", "20")
    compose("up", "--detach", "--wait", seconds=UP_SECONDS)
    answer = post(f"{compose.url}/recommend", {"user_id": user, "k": 5})
    assert (answer["strategy"], answer["history_length"]) == ("model", 1)
    assert "is live already" in compose("logs", "trainer")


def test_service_runs_without_privileges(compose: Compose) -> None:
    container = compose("ps", "--quiet", "api").strip()
    assert inspect(container, "{{json .Config.User}}") == "10001:10001"
    host = inspect(container, "{{json .HostConfig}}")
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["CapAdd"] is None
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert compose("exec", "api", "id", "--user").strip() == "10001"


def test_serving_image_is_small_and_holds_no_torch(compose: Compose) -> None:
    added = inspect("segue:serve", "{{json .Size}}") - inspect(BASE, "{{json .Size}}")
    assert added < MAX_ADDED_BYTES, f"{added / 1e6:.0f} MB"
    script = "import importlib.util as u; print([n for n in ('torch', 'onnx', 'polars') if u.find_spec(n)])"
    assert compose("exec", "api", "python", "-c", script).strip() == "[]"
