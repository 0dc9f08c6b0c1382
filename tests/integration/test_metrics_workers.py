"""Several workers, several processes: one truth. Counters add up, and what one worker took the other knows at once."""

import os
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from app.workers import CAN_BALANCE
from tests.distance_model import write_live_distance_artifact
from tests.service import Client, eventually, launch, serving

NUM_WRITES = 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_live_distance_artifact(tmp_path / "artifacts")
    return tmp_path


def test_counters_of_two_workers_add_up(folder: Path, valkey_url: str) -> None:
    with serving(folder, redis_url=valkey_url, workers=2) as client:
        eventually(lambda: both_workers_are_live(client))
        for number in range(100):  # a connection each, so that the kernel spreads them over the workers
            answer = httpx.post(f"{client.base_url}/events", json={"user_id": f"u{number}", "item_id": "i1"})
            assert answer.json()["accepted"] == 1
        page = client.get("/metrics").text
        assert 'segue_events_total{namespace="default",outcome="accepted"} 100.0' in page
        count = 'segue_request_seconds_count{method="POST",namespace="default",route="/events",status="200"} 100.0'
        assert count in page
        files = list((folder / "data" / "metrics").glob("*/counter_*.db"))
        assert len(files) == 2, "each worker counts in a file of its own"
    assert list((folder / "data" / "metrics").iterdir()) == []


def both_workers_are_live(client: Client) -> bool:
    return 'segue_model_live_workers{model_version="distance-1",namespace="default"} 2.0' in client.get("/metrics").text


@pytest.mark.skipif(not CAN_BALANCE, reason="only Linux shares out connections among listening sockets")
def test_connections_that_stay_open_are_shared_out_evenly(folder: Path, valkey_url: str) -> None:
    """Forty, one after the other, on a service at rest: fewer than five on one side is one case in ten million."""
    with serving(folder, redis_url=valkey_url, workers=2) as client, ExitStack() as stack:
        eventually(lambda: both_workers_are_live(client))
        port = client.base_url.port
        assert port is not None
        for _ in range(40):
            caller = stack.enter_context(httpx.Client(base_url=client.base_url))
            assert caller.get("/livez").status_code == 200
        workers = [pid for pid in children(client.service.process.pid) if b"spawn_main" in command(pid)]
        counts = [len(sockets(pid) & established(port)) for pid in workers]
        assert len(counts) == 2
        assert min(counts) >= 5, counts
        assert sum(counts) >= 40


def test_port_of_workers_that_share_it_is_taken_for_a_second_service(folder: Path, tmp_path: Path) -> None:
    with serving(folder, workers=2) as client:
        for workers in (1, 2):
            second = launch(tmp_path / f"second-{workers}", port=client.base_url.port, workers=workers)
            assert second.wait() == 1
            assert f"127.0.0.1:{client.base_url.port}: Address already in use" in second.log


def test_port_is_free_again_when_a_service_of_several_workers_has_ended(folder: Path) -> None:
    with serving(folder, workers=2) as client:
        port = client.base_url.port
    with serving(folder, workers=2, port=port) as again:
        assert again.base_url.port == port


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def sockets(pid: int) -> set[str]:
    """Inodes of the sockets that a process has open."""
    links = {os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir() if file.is_symlink()}
    return {link[len("socket:[") : -1] for link in links if link.startswith("socket:")}


def established(port: int) -> set[str]:
    """Inodes of the connections that were made to a port of this machine."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[9] for row in rows if int(row[1].rpartition(":")[2], 16) == port and row[3] == "01"}


def test_event_taken_by_one_process_counts_in_another_at_once(folder: Path, valkey_url: str) -> None:
    """Two services on one store: the writer's answer is the moment from which the reader must know."""
    with (
        serving(folder, redis_url=valkey_url, data_dir=folder / "one") as writer,
        serving(folder, redis_url=valkey_url, data_dir=folder / "two") as reader,
    ):
        for number in range(NUM_WRITES):
            newest = number % 9 + 1
            writer.post("/events", json={"user_id": "u", "item_id": f"i{newest}", "event_id": f"e{number}"})
            answer = reader.post("/recommend", json={"user_id": "u", "k": 1, "exclude_seen": False}).json()
            # The nearest item to the newest one is that item itself; the history grows up to the cap.
            assert answer["items"][0]["item_id"] == f"i{newest}", f"write {number} was not seen"
            assert answer["history_length"] == min(number + 1, 200)


def test_event_counts_whichever_of_two_workers_answers(folder: Path, valkey_url: str) -> None:
    with serving(folder, redis_url=valkey_url, workers=2) as client:
        for number in range(100):
            newest = number % 9 + 1
            event = {"user_id": "u", "item_id": f"i{newest}", "event_id": f"e{number}"}
            httpx.post(f"{client.base_url}/events", json=event)
            body = {"user_id": "u", "k": 1, "exclude_seen": False}
            answer = httpx.post(f"{client.base_url}/recommend", json=body).json()
            assert answer["items"][0]["item_id"] == f"i{newest}", f"write {number} was not seen"
