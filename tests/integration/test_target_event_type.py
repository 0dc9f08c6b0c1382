"""A model with a head for each event type, behind the service: the request says which one ranks."""

from collections.abc import Iterator
from typing import Any

import pytest

from scripts.training.export import export_run
from scripts.training.run_folder import RunConfig, load_run, start_run
from scripts.training.synthetic import BEHAVIOURS, behaviour_sequences, write_sequences
from scripts.training.trainer import train
from tests.accuracy.conftest import SMALL, SilentObserver
from tests.distance_model import promote
from tests.service import Client, serving

NUM_ITEMS = 30


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Items i1…i10 are viewed; after item i10 a cart is of i20 and a purchase of i30 (see `behaviour_sequences`)."""
    folder = tmp_path_factory.mktemp("heads")
    items, types = behaviour_sequences(num_users=300, num_items=NUM_ITEMS, length=14, seed=3)
    data = write_sequences(
        folder / "data", items, name="behaviours", num_items=NUM_ITEMS, types=types, event_types=BEHAVIOURS
    )
    config = SMALL.with_values({"event_types": True})
    start_run(folder / "run", RunConfig(config, str(data.folder), data.fingerprint, NUM_ITEMS, {}), resume=False)
    train(data, config, folder / "run", observer=SilentObserver())
    promote(folder / "artifacts", export_run(load_run(folder / "run"), folder / "artifacts").name)
    with serving(folder) as client:
        yield client


def viewed(item_id: str) -> list[dict[str, str]]:
    return [{"item_id": item_id, "event_type": "view"}]


def first(client: Client, **body: Any) -> str:
    answer = client.post("/recommend", json={"history": viewed("i4"), "k": 1, **body})
    assert answer.status_code == 200, answer.text
    assert answer.json()["strategy"] == "model"
    item_id: str = answer.json()["items"][0]["item_id"]
    return item_id


def test_request_says_which_head_ranks(client: Client) -> None:
    assert client.get("/models").json()["live"]["target_event_types"] == ["view", "cart", "purchase"]
    assert first(client, target_event_type="cart") == "i14"
    assert first(client, target_event_type="purchase") == "i24"
    assert first(client, history=viewed("i7"), target_event_type="purchase") == "i27"
    assert first(client, target_event_type="view") in {f"i{index}" for index in range(1, 11)}


def test_requests_of_one_batch_have_heads_of_their_own(client: Client) -> None:
    requests = [{"history": viewed("i4"), "k": 1, "target_event_type": name} for name in ("cart", "purchase", "cart")]
    answer = client.post("/recommend/batch", json={"requests": requests})
    assert [each["items"][0]["item_id"] for each in answer.json()["results"]] == ["i14", "i24", "i14"]


def test_type_without_a_head_is_refused_with_those_that_there_are(client: Client) -> None:
    answer = client.post("/recommend", json={"history": viewed("i4"), "target_event_type": "wish"})
    assert answer.status_code == 422
    [fault] = answer.json()["errors"]
    assert fault["pointer"] == "/target_event_type"
    assert fault["detail"] == "The live model ranks for view, cart, purchase, not for 'wish'"
