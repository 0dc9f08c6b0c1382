"""Several workers, several processes: one truth. Counters add up, and what one worker took the other knows at once."""

from pathlib import Path

import httpx
import pytest

from tests.distance_model import write_live_distance_artifact
from tests.service import serving

NUM_WRITES = 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_live_distance_artifact(tmp_path / "artifacts")
    return tmp_path


def test_counters_of_two_workers_add_up(folder: Path, valkey_url: str) -> None:
    with serving(folder, redis_url=valkey_url, workers=2) as client:
        for number in range(100):  # a connection each, so that the kernel spreads them over the workers
            answer = httpx.post(f"{client.base_url}/events", json={"user_id": f"u{number}", "item_id": "i1"})
            assert answer.json()["accepted"] == 1
        page = client.get("/metrics").text
        assert 'segue_events_total{namespace="default",outcome="accepted"} 100.0' in page
        count = 'segue_request_seconds_count{method="POST",namespace="default",route="/events",status="200"} 100.0'
        assert count in page
        assert 'segue_model_live_workers{model_version="distance-1",namespace="default"} 2.0' in page
        files = list((folder / "data" / "metrics").glob("*/counter_*.db"))
        assert len(files) == 2, "each worker counts in a file of its own"
    assert list((folder / "data" / "metrics").iterdir()) == []


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
