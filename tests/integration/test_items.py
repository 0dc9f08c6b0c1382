"""/items of a running service: what is put is there at once, is there everywhere soon, and stays."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.distance_model import promote, write_distance_artifact, write_live_distance_artifact
from tests.integration.conftest import Server
from tests.make_tiny_artifact import ARTIFACTS as TINY
from tests.service import Client, eventually, serving

ANY = {"available": True, "in_model": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("items")
    write_live_distance_artifact(folder / "artifacts")
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Client]:
    """Items i1…i9 of the distance model; every test has items of its own."""
    with serving(folder) as client:
        yield client


def get(client: httpx.Client, item_id: str) -> object:
    answer = client.get("/items/" + quote(item_id, safe=""))
    return answer.json() if answer.status_code == 200 else answer.status_code


def listed(client: httpx.Client, **parameters: object) -> list[str]:
    """All pages."""
    found: list[str] = []
    cursor: dict[str, object] = {}
    while True:
        answer = client.get("/items", params={"limit": 3, **parameters, **cursor}).json()
        found += [item["item_id"] for item in answer["items"]]
        if answer["next_cursor"] is None:
            return found
        cursor = {"cursor": answer["next_cursor"]}


def test_item_that_is_put_is_there_and_the_same_again_changes_nothing(client: Client) -> None:
    body = {"attributes": {"title": "New", "price": 2.5, "tags": ["a", "b"], "since": "2026-01-01T00:00:00Z"}}
    for _ in range(2):
        answer = client.put("/items/p1", json=body)
        assert (answer.status_code, answer.json()) == (200, {"item_id": "p1", **body, **ANY})
        assert answer.headers["x-model-version"] == "distance-1"
    assert get(client, "p1") == {"item_id": "p1", **body, **ANY}
    assert "p1" in listed(client)


def test_put_replaces_and_patch_changes(client: Client) -> None:
    client.patch("/items/i2", json={"attributes": {"price": 5, "title": None}, "available": False})
    genres = {"genres": ["Drama"], "year": 1991}
    assert get(client, "i2") == {
        "item_id": "i2",
        "attributes": {**genres, "price": 5},
        "available": False,
        "in_model": True,
    }
    assert client.patch("/items/i2", json={"available": True}).json()["attributes"] == {**genres, "price": 5}
    client.put("/items/i2", json={"attributes": {"price": 6}})
    assert get(client, "i2") == {"item_id": "i2", "attributes": {"price": 6}, "available": True, "in_model": True}


def test_deleted_item_is_gone_until_it_is_put_again(client: Client) -> None:
    for _ in range(2):
        assert client.delete("/items/i3").status_code == 204
    assert get(client, "i3") == 404
    assert "i3" not in listed(client)
    assert client.patch("/items/i3", json={}).status_code == 404
    client.put("/items/i3", json={})
    assert get(client, "i3") == {"item_id": "i3", "attributes": {}, "available": True, "in_model": True}
    assert client.delete("/items/nobody").status_code == 204
    assert client.patch("/items/nobody", json={}).status_code == 404


def test_ids_may_hold_slashes_and_any_script(client: Client) -> None:
    item_id = "sku/ä %2F?#日本"
    client.put("/items/" + quote(item_id, safe=""), json={"attributes": {"title": "x"}})
    assert get(client, item_id) == {"item_id": item_id, "attributes": {"title": "x"}, **ANY}


def test_live_titles_are_found_and_pages_join_without_gap(client: Client) -> None:
    for number in range(5):
        client.put(f"/items/t{number}", json={"attributes": {"title": f"Zebra {number}"}})
    client.delete("/items/t2")
    assert listed(client, title_prefix="zebra", limit=2) == ["t0", "t1", "t3", "t4"]
    everything = listed(client)
    assert len(everything) == len(set(everything))
    models = [f"i{number}" for number in range(1, 10)]
    assert everything[:9] == models
    assert everything[-4:] == ["t0", "t1", "t3", "t4"]


GOOD = {"item_id": "b1", "attributes": {"price": 1}}


@pytest.mark.parametrize(
    ("content_type", "body", "pointer"),
    [
        ("application/json", [GOOD, {"attributes": {}}], "/1/item_id"),
        ("application/json", {"items": [GOOD, {"item_id": "b2", "attributes": {"a": None}}]}, "/items/1/attributes/a"),
        ("application/json", [GOOD, {"item_id": "b2", "attributes": {"item_id": "x"}}], "/1"),
        ("application/json", [GOOD, {"item_id": "b2", "attributes": {"a": {"b": 1}}}], "/1/attributes/a"),
        ("application/json", [GOOD, {"item_id": "b2", "attributes": {"a": ["x", True]}}], "/1/attributes/a"),
        ("application/json", [GOOD, {"item_id": "b2", "attributes": {"a": "x" * 4097}}], "/1/attributes/a"),
        ("application/json", [GOOD, {"item_id": "b2", "attributes": {"year": "1999"}}], "/1/attributes/year"),
        ("application/json", [GOOD, {"item_id": "b2", "attributes": {str(n): n for n in range(65)}}], "/1/attributes"),
        ("application/x-ndjson", f"{json.dumps(GOOD)}\n\n{{broken", "/1"),
    ],
)
def test_bad_item_rejects_itself_and_not_its_neighbour(
    client: Client, content_type: str, body: object, pointer: str
) -> None:
    content = body if isinstance(body, str) else json.dumps(body)
    answer = client.post("/items", content=content, headers={"Content-Type": content_type})
    assert answer.status_code == 200, answer.text
    assert answer.json()["accepted"] + answer.json()["unchanged"] == 1
    assert [(fault["index"], fault["pointer"]) for fault in answer.json()["rejected"]] == [(1, pointer)]
    assert get(client, "b1") == {**GOOD, **ANY}


def test_many_items_are_put_and_counted(client: Client) -> None:
    lines = "\n".join(
        json.dumps({"item_id": f"m{number}", "attributes": {"n": number}, "available": number % 2 == 0})
        for number in range(1200)
    )
    headers = {"Content-Type": "application/x-ndjson"}
    first = client.post("/items", content=lines, headers=headers).json()
    assert (first["accepted"], first["unchanged"], first["rejected"]) == (1200, 0, [])
    assert [(warning["code"], len(warning["indices"])) for warning in first["warnings"]] == [("not_in_model", 1200)]
    again = client.post("/items", content=lines, headers=headers).json()
    assert (again["accepted"], again["unchanged"]) == (0, 1200)
    assert get(client, "m777") == {"item_id": "m777", "attributes": {"n": 777}, "available": False, "in_model": False}


def test_slip_in_the_kind_of_a_value_is_refused_but_the_only_holder_may_change_it(client: Client) -> None:
    client.put("/items/k1", json={"attributes": {"colour": "red", "sizes": [1, 2]}})
    answer = client.put("/items/k2", json={"attributes": {"colour": 7}})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {
            "pointer": "/attributes/colour",
            "detail": "Field 'colour' holds strings in other items, not a number or a time",
        }
    ]
    assert client.put("/items/k1", json={"attributes": {"colour": 7}}).status_code == 200
    assert client.put("/items/k2", json={"attributes": {"colour": 8, "sizes": "XL"}}).status_code == 200
    # Of two in one request the first says what it is.
    batch = [{"item_id": name, "attributes": {"fresh": value}} for name, value in (("k3", "a"), ("k4", 1), ("k5", "b"))]
    assert [fault["index"] for fault in client.post("/items", json=batch).json()["rejected"]] == [1]


def test_batch_of_bad_items_is_refused_as_a_whole(client: Client) -> None:
    answer = client.post("/items", json=[{"item_id": ""}, 3])
    assert (answer.status_code, answer.json()["code"]) == (422, "all_items_rejected")
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/0/item_id", "/1"]


def test_every_worker_has_a_change_within_a_second(tmp_path: Path) -> None:
    write_live_distance_artifact(tmp_path / "artifacts")
    with serving(tmp_path, workers=2) as client:
        url = str(client.base_url)
        client.put("/items/w", json={"attributes": {"price": 1}})
        at = time.monotonic()
        # A new connection each: the workers share one socket, and either may take it.
        while time.monotonic() < at + 1:
            time.sleep(0.1)  # nothing tells when the other worker has heard
        for _ in range(40):
            assert httpx.get(url + "/items/w").json()["attributes"] == {"price": 1}


def test_live_items_survive_restart_and_reload(tmp_path: Path, own_valkey: Server) -> None:
    artifacts = tmp_path / "artifacts"
    write_live_distance_artifact(artifacts)
    with serving(tmp_path, redis_url=own_valkey.url) as client:
        client.put("/items/new", json={"attributes": {"price": 1}})
        client.patch("/items/i1", json={"attributes": {"price": 2}})
        client.delete("/items/i2")
    with serving(tmp_path, redis_url=own_valkey.url) as client:
        for version in ("distance-1", "distance-2"):
            if version == "distance-2":
                write_distance_artifact(artifacts, version, item_ids=["i2", "new", *(f"j{n}" for n in range(7))])
                promote(artifacts, version)
                eventually(lambda: client.get("/models").json()["live"]["model_version"] == "distance-2")
            new = client.get("/items/new").json()
            assert (new["attributes"], new["in_model"]) == ({"price": 1}, version == "distance-2")
            assert client.get("/items/i1").json()["attributes"]["price"] == 2
            assert client.get("/items/i2").status_code == 404


def test_item_that_no_model_has_seen_is_recommended_by_its_attributes(tmp_path: Path) -> None:
    """Both workers rank it within a second, and a change of what it is changes its rank."""
    folder = tmp_path / "tiny"
    shutil.copytree(TINY, folder / "artifacts")
    body = {"history": ["i3"], "k": 2, "candidates": ["cold", "i4"]}
    with serving(folder, workers=2) as client:
        url = str(client.base_url) + "/recommend"

        def scores() -> set[float | None]:
            """Of ten answers; a new connection each, so that either worker may take it."""
            answers = [httpx.post(url, json=body).json()["items"] for _ in range(10)]
            return {next((item["score"] for item in items if item["item_id"] == "cold"), None) for items in answers}

        assert scores() == {None}
        client.put("/items/cold", json={"attributes": {"genres": ["Comedy"], "year": 1974}})
        eventually(lambda: len(found := scores()) == 1 and found != {None})
        as_comedy = scores()
        client.put("/items/cold", json={"attributes": {"genres": ["Romance"], "year": 1999}})
        eventually(lambda: len(found := scores()) == 1 and found != as_comedy)
        answer = client.post("/recommend", json={"history": ["cold"], "k": 31, "exclude_seen": False}).json()
        assert (answer["strategy"], len(answer["items"])) == ("model", 31)


def test_item_of_which_nothing_is_known_reaches_those_whose_like_chose_it(tmp_path: Path) -> None:
    """Twenty users go from i3 to it; within a minute every worker ranks it high for whoever was at i3."""
    folder = tmp_path / "tiny"
    shutil.copytree(TINY, folder / "artifacts")
    with serving(folder, workers=2, live_rules=True) as client:
        url = str(client.base_url) + "/recommend"

        def worst_rank() -> int:
            """Of ten answers; a new connection each, so that either worker may take it."""
            answers = [
                httpx.post(url, json={"history": ["i3"], "k": 31, "new_item_share": 0}).json()["items"]
                for _ in range(10)
            ]
            return max(next((item["rank"] for item in items if item["item_id"] == "n"), 32) for items in answers)

        client.put("/items/n", json={"attributes": {"title": "New"}})
        eventually(lambda: worst_rank() <= 31)
        assert worst_rank() > 10
        for number in range(20):
            events = [{"user_id": f"u{number}", "item_id": item, "event_type": "view"} for item in ("i3", "n")]
            assert client.post("/events", json=events).json()["accepted"] == 2
        eventually(lambda: worst_rank() <= 5, seconds=60)
