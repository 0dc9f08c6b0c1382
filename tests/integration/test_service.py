"""The whole service as a process: real uvicorn, real store, real onnxruntime over the model that is ranked by eye."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from redis import Redis

from tests.distance_model import promote, write_distance_artifact, write_live_distance_artifact
from tests.integration.conftest import Server
from tests.service import Client, eventually, launch, serving


def post_event(client: httpx.Client, user_id: str, item_id: str, **more: object) -> httpx.Response:
    return client.post("/events", json={"user_id": user_id, "item_id": item_id, "event_type": "view", **more})


def ranked(client: httpx.Client, **body: object) -> list[str]:
    answer = client.post("/recommend", json=body)
    assert answer.status_code == 200, answer.text
    return [item["item_id"] for item in answer.json()["items"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("service")
    write_live_distance_artifact(folder / "artifacts")
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Client]:
    """One worker with the distance model (items i1…i9) and a store of its own; every test takes users of its own."""
    with serving(folder) as client:
        yield client


def test_posted_event_changes_the_next_ranking(client: Client) -> None:
    assert post_event(client, "u1", "i3").json()["accepted"] == 1
    assert ranked(client, user_id="u1", k=3) == ["i2", "i4", "i1"]  # by distance from 3, which is seen
    post_event(client, "u1", "i8")
    assert ranked(client, user_id="u1", k=3) == ["i7", "i9", "i6"]
    history = client.get("/users/u1").json()["history"]
    assert [step["item_id"] for step in history] == ["i3", "i8"]


def test_answer_names_model_and_request(client: Client) -> None:
    answer = client.post(
        "/recommend", json={"history": ["i5"], "k": 1, "include": ["attributes"]}, headers={"X-Request-ID": "shop-17"}
    )
    assert answer.headers["x-request-id"] == "shop-17"
    assert answer.headers["x-model-version"] == "distance-1"
    body = answer.json()
    assert body.pop("recommendation_id").startswith("rec_")
    assert body == {
        "strategy": "model",
        "degraded": False,
        "reasons": [],
        "model_version": "distance-1",
        "history_length": 1,
        "items": [
            {
                "item_id": "i4",
                "rank": 1,
                "score": -1.0,
                "attributes": {"title": "Film i4", "year": 1993, "genres": ["Drama"]},
            }
        ],
    }


def test_strange_request_id_is_replaced(client: Client) -> None:
    sent = "x" * 129
    assert client.get("/livez", headers={"X-Request-ID": sent}).headers["x-request-id"] != sent


def test_given_history_is_ordered_by_its_times(client: Client) -> None:
    steps = [{"item_id": "i8", "timestamp": "2026-01-02T00:00:00+01:00"}, {"item_id": "i2", "timestamp": 1_000}]
    assert ranked(client, history=steps, k=2) == ["i7", "i9"]
    assert ranked(client, history=["i8", "i2"], k=2) == ["i1", "i3"]


def test_history_as_read_ranks_like_the_user(client: Client) -> None:
    post_event(client, "u2", "i3", timestamp="2026-01-01T00:00:00Z")
    post_event(client, "u2", "i5", timestamp="2026-01-01T00:00:00.000001Z")
    history = client.get("/users/u2").json()["history"]
    assert [step["timestamp"] for step in history] == ["2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:00.000001Z"]
    assert ranked(client, history=history) == ranked(client, user_id="u2")


def test_unknown_user_gets_what_is_popular(client: Client) -> None:
    body = client.post("/recommend", json={"user_id": "nobody", "k": 2}).json()
    assert (body["strategy"], body["reasons"]) == ("popular", ["unknown_user"])
    assert [item["item_id"] for item in body["items"]] == ["i9", "i8"]


def test_events_are_counted_by_version_strategy_and_position_of_the_list_they_go_back_to(
    folder: Path, valkey_url: str
) -> None:
    with serving(folder, redis_url=valkey_url, workers=2) as client:
        post_event(client, "u", "i5")
        by_model = client.post("/recommend", json={"user_id": "u", "k": 7}).json()
        by_count = client.post("/recommend", json={"user_id": "nobody", "k": 1}).json()
        click = {"user_id": "u", "item_id": by_model["items"][1]["item_id"], "event_type": "view", "position": 2}
        events = [
            {**click, "recommendation_id": by_model["recommendation_id"], "event_id": "1"},
            {**click, "recommendation_id": by_count["recommendation_id"], "event_id": "2", "event_type": "impression"},
            {**click, "recommendation_id": by_model["recommendation_id"], "event_id": "3", "event_type": "made_up"},
            {**click, "recommendation_id": "somebody's own", "event_id": "4"},
            {**click, "event_id": "5"},
        ]
        for _ in range(2):  # the second time they are duplicates
            assert client.post("/events", json=events).status_code == 200
        version = client.get("/models").json()["live"]["model_version"]
        page = client.get("/metrics").text
        counted = sorted(line for line in page.splitlines() if line.startswith("segue_attributed_events_total"))
        assert counted == [
            f'segue_attributed_events_total{{event_type="{event_type}",model_version="{of}",'
            f'namespace="default",position="2",strategy="{strategy}"}} 1.0'
            for event_type, of, strategy in (
                ("impression", version, "popular"),
                ("other", version, "model"),
                ("view", version, "model"),
                ("view", "unknown", "unknown"),
            )
        ]
        labels = f'model_version="{version}",namespace="default"'
        for position, strategy, number in (("2", "model", "1.0"), ("6-10", "model", "2.0"), ("1", "popular", "1.0")):
            place = f'{labels},position="{position}",strategy="{strategy}"'
            assert f"segue_recommended_items_total{{{place}}} {number}" in page


def test_what_trends_now_is_shown_to_new_users_who_leave_it_with_their_first_event(
    folder: Path, valkey_url: str
) -> None:
    with serving(folder, redis_url=valkey_url) as client:
        burst = [{"user_id": f"crowd{number}", "item_id": "i3", "event_id": "1"} for number in range(20)]
        long_ago = [{**event, "item_id": "i6", "event_id": "2", "timestamp": "2026-01-01T00:00:00Z"} for event in burst]
        assert client.post("/events", json=burst + long_ago).json()["accepted"] == 40

        def recommend(**asked: object) -> Any:
            return client.post("/recommend", json={"user_id": "new", "k": 2, **asked}).json()

        trending = recommend(strategy="trending")
        assert (trending["strategy"], trending["reasons"]) == ("trending", [])
        assert [item["item_id"] for item in trending["items"]] == ["i3", "i9"]
        assert trending["items"][0]["score"] > 1 > trending["items"][1]["score"]
        without = recommend(strategy="trending", filter={"field": "item_id", "op": "in", "value": ["i6", "i9"]})
        assert [item["item_id"] for item in without["items"]] == ["i9", "i6"]
        cold = recommend()
        assert (cold["strategy"], cold["reasons"]) == ("popular", ["unknown_user"])
        assert [item["item_id"] for item in cold["items"]] == ["i3", "i9"]  # 20 events and 20/3, beside 20
        post_event(client, "new", "i5")
        assert (recommend()["strategy"], ranked(client, user_id="new", k=2)) == ("model", ["i4", "i6"])


def test_guest_and_user_of_one_id_do_not_meet(client: Client) -> None:
    client.post("/events", json={"session_id": "u3", "item_id": "i5", "event_type": "view"})
    assert client.get("/users/u3").json()["history_length"] == 0
    assert ranked(client, session_id="u3", k=1) == ["i4"]


def test_ids_may_hold_slashes_and_any_script(client: Client) -> None:
    user_id = "kunde/ä %2F?#日本"
    post_event(client, user_id, "i5")
    answer = client.get("/users/" + quote(user_id, safe=""))
    assert answer.json()["user_id"] == user_id
    assert answer.json()["history_length"] == 1


GOOD = '{"user_id": "n", "item_id": "i1"}'


@pytest.mark.parametrize(
    ("content_type", "body", "pointer"),
    [
        ("application/json", f'[{GOOD}, {{"user_id": "n"}}]', "/1/item_id"),
        ("application/json", f'{{"events": [{GOOD}, {{"user_id": 7, "item_id": "i1"}}]}}', "/events/1/user_id"),
        ("application/x-ndjson", f'{GOOD}\n\n{{"user_id": "n", "item_id": "i1", "colour": 1}}\n', "/1/colour"),
        ("application/x-ndjson", f"{GOOD}\n{{broken", "/1"),
    ],
)
def test_bad_event_rejects_itself_and_not_its_neighbour(
    client: Client, content_type: str, body: str, pointer: str
) -> None:
    answer = client.post("/events", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 200, answer.text
    assert answer.json()["accepted"] == 1
    assert [(fault["index"], fault["pointer"]) for fault in answer.json()["rejected"]] == [(1, pointer)]


def test_batch_of_bad_events_is_refused_as_a_whole(client: Client) -> None:
    ahead = int(time.time() * 1000) + 3_600_000
    events = [
        {"user_id": "u4", "item_id": "i1", "timestamp": ahead},
        {"user_id": "u4", "item_id": "i1", "timestamp": -1},
    ]
    answer = client.post("/events", json=events)
    assert (answer.status_code, answer.json()["code"]) == (422, "all_events_rejected")
    assert [(fault["code"], fault["pointer"]) for fault in answer.json()["errors"]] == [
        ("timestamp_in_future", "/0/timestamp"),
        ("timestamp_out_of_range", "/1/timestamp"),
    ]
    assert client.get("/users/u4").json()["history_length"] == 0


def test_retried_batch_is_stored_once_and_says_what_cannot_be(client: Client) -> None:
    batch = [
        {"user_id": "u5", "item_id": "i1", "event_id": "e1"},
        {"user_id": "u5", "item_id": "i2", "timestamp": "2026-01-01T00:00:00Z"},
        {"user_id": "u5", "item_id": "from-tomorrow", "timestamp": "2026-01-01T00:00:00Z"},
        {"user_id": "u5", "item_id": "i3"},
    ]
    first, second = (client.post("/events", json=batch).json() for _ in range(2))
    assert (first["accepted"], first["duplicates"]) == (4, 0)
    assert (second["accepted"], second["duplicates"]) == (1, 3)
    warnings = {warning["code"]: warning["indices"] for warning in first["warnings"]}
    assert warnings == {"not_idempotent": [3], "unknown_item": [2]}


def test_event_older_than_a_full_history_is_ignored(folder: Path, valkey_url: str) -> None:
    with serving(folder, redis_url=valkey_url, history_cap=5) as client:
        for day in range(2, 7):
            post_event(client, "u", f"i{day}", timestamp=f"2026-01-0{day}T00:00:00Z")
        answer = post_event(client, "u", "i1", timestamp="2026-01-01T00:00:00Z").json()
        assert (answer["accepted"], answer["ignored"]) == (0, 1)
        assert [(w["code"], w["indices"]) for w in answer["warnings"]] == [("older_than_history", [0])]


def test_items_are_listed_page_by_page_and_found_by_title(client: Client) -> None:
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = client.get("/items", params={"limit": 4, **cursor}).json()
        found += [item["item_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert found == [f"i{index}" for index in range(1, 10)]
    by_title = client.get("/items", params={"title_prefix": "film I7"}).json()
    assert [item["attributes"]["title"] for item in by_title["items"]] == ["Film i7"]
    expected = {"item_id": "i7", "attributes": by_title["items"][0]["attributes"], "available": True, "in_model": True}
    assert client.get("/items/i7").json() == expected
    assert client.get("/items/i99").status_code == 404


def test_new_version_goes_live_and_a_damaged_one_does_not(folder: Path, tmp_path: Path, valkey_url: str) -> None:
    artifacts = tmp_path / "artifacts"
    write_distance_artifact(artifacts, "a", num_items=9)
    write_distance_artifact(artifacts, "b", num_items=12)
    write_distance_artifact(artifacts, "c", expected_shift=1.0)
    with serving(tmp_path, redis_url=valkey_url) as client:
        assert client.get("/readyz").json()["reasons"][0].startswith("no_model")
        for version in ("a", "b"):
            promote(artifacts, version)
            eventually(lambda version=version: client.get("/readyz").json()["model_version"] == version)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        assert client.get("/readyz").json() == {"status": "ready", "model_version": "b", "reasons": []}
        promote(artifacts, "c")
        eventually(lambda: client.get("/readyz").json()["status"] == "degraded")
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["model_version"]) == (200, "b")
        assert "reference case" in ready.json()["reasons"][0]
        models = client.get("/models").json()
        assert (models["live"]["model_version"], models["versions"]) == ("b", ["a", "b", "c"])
        assert models["problem"] in ready.json()["reasons"][0]
        metrics = client.get("/metrics").text
        assert 'segue_model_reloads_total{namespace="default",outcome="failed"} 1.0' in metrics
        assert 'segue_model_live_workers{model_version="b",namespace="default"} 1.0' in metrics


def test_store_that_stops_degrades_and_its_return_heals(folder: Path, own_valkey: Server) -> None:
    with serving(folder, redis_url=own_valkey.url, redis_timeout_ms=200) as client:
        post_event(client, "u", "i5")
        own_valkey.stop()
        event = post_event(client, "u", "i6")
        assert (event.status_code, event.json()["code"]) == (503, "store_unavailable")
        assert int(event.headers["retry-after"]) >= 1
        body = client.post("/recommend", json={"user_id": "u", "k": 2}).json()
        assert (body["degraded"], body["strategy"], body["reasons"]) == (True, "popular", ["store_unavailable"])
        assert ranked(client, history=["i5"], k=1) == ["i4"]  # needs no store
        assert client.get("/readyz").status_code == 503
        assert client.get("/livez").status_code == 200
        assert 'segue_store_errors_total{namespace="default"} 2.0' in client.get("/metrics").text
        own_valkey.start()
        eventually(lambda: client.get("/readyz").status_code == 200)
        assert post_event(client, "u", "i6").json()["accepted"] == 1
        assert ranked(client, user_id="u", k=1) == ["i5"]


def test_service_starts_before_its_store(folder: Path, own_valkey: Server) -> None:
    own_valkey.stop()
    with serving(folder, redis_url=own_valkey.url, redis_timeout_ms=200) as client:
        assert client.get("/readyz").json()["status"] == "unavailable"
        own_valkey.start()
        eventually(lambda: client.get("/readyz").json()["status"] == "ready")


def test_embedded_store_keeps_its_events_over_a_restart(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "kept"
    with serving(folder, data_dir=data) as client:
        post_event(client, "u", "i5")
    with serving(folder, data_dir=data) as client:
        assert ranked(client, user_id="u", k=1) == ["i4"]


def test_dead_worker_is_replaced_and_its_counts_are_kept(folder: Path, valkey_url: str) -> None:
    with serving(folder, redis_url=valkey_url) as client:
        post_event(client, "u", "i5")
        children = Path(f"/proc/{client.service.process.pid}/task/{client.service.process.pid}/children").read_text()
        workers = [int(pid) for pid in children.split() if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(workers[0], signal.SIGKILL)
        eventually(lambda: "worker_died" in client.service.log)
        with httpx.Client(base_url=client.base_url, timeout=20) as fresh:  # the old connection went with the worker
            assert ranked(fresh, user_id="u", k=1) == ["i4"]
            metrics = fresh.get("/metrics").text
        assert 'segue_events_total{namespace="default",outcome="accepted"} 1.0' in metrics
        assert 'segue_model_live_workers{model_version="distance-1",namespace="default"} 1.0' in metrics


def test_workers_end_with_a_parent_that_is_killed(folder: Path, valkey_url: str) -> None:
    service = launch(folder, redis_url=valkey_url)
    address = service.wait_for_address()
    service.process.kill()

    def refused() -> bool:
        try:
            httpx.get(f"{address}/livez", timeout=5)
        except httpx.TransportError:
            return True
        return False

    eventually(refused)
    assert service.wait() == -signal.SIGKILL


def test_request_under_way_is_answered_before_the_end(folder: Path, valkey_url: str) -> None:
    service = launch(folder, redis_url=valkey_url)
    url = httpx.URL(service.wait_for_address())
    body = b'{"history": ["i5"], "k": 1}'
    head = (
        f"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((url.host, url.port or 0), timeout=20) as connection:
        connection.sendall(head.encode() + body[:5])
        time.sleep(0.3)  # nothing outside shows that the worker has begun to read
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)  # nor that the signal has reached it
        connection.sendall(body[5:])
        assert b'"item_id":"i4"' in b"".join(iter(lambda: connection.recv(4096), b""))
    assert service.wait() == 0


def test_ctrl_c_ends_cleanly(folder: Path, valkey_url: str) -> None:
    service = launch(folder, redis_url=valkey_url)
    service.wait_for_address()
    assert service.stop(signal.SIGINT) == 0
    assert "Traceback" not in service.log


def test_wrong_settings_stop_the_start_with_every_fault(tmp_path: Path) -> None:
    service = launch(tmp_path, workres=2, port=99999, redis_url="http://user:secret@host")
    assert service.wait() == 2
    assert "SEGUE_WORKRES: no such setting; did you mean SEGUE_WORKERS?" in service.log
    assert "SEGUE_PORT" in service.log
    assert "SEGUE_REDIS_URL: Value error, must begin with redis://" in service.log
    assert "secret" not in service.log
    assert "Traceback" not in service.log


def test_other_number_of_shards_stops_the_start(tmp_path: Path, valkey_url: str) -> None:
    with serving(tmp_path, redis_url=valkey_url, shards=4):
        pass
    service = launch(tmp_path, redis_url=valkey_url, shards=8)
    assert service.wait() == 1
    assert "set SEGUE_SHARDS=4" in service.log
    assert "Traceback" not in service.log


def test_missing_device_is_refused_with_those_available(tmp_path: Path) -> None:
    service = launch(tmp_path, device="cuda")
    assert service.wait() == 2
    assert "CPUExecutionProvider" in service.log


def test_application_that_cannot_be_imported_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "fastapi.py").write_text("raise ImportError('half an installation')")
    service = launch(tmp_path, environment={"PYTHONPATH": str(tmp_path)})
    assert service.wait() == 1
    assert "half an installation" in service.log
    assert service.log.count("Traceback") == 1, "no worker is started again"


def test_taken_port_is_named(tmp_path: Path, client: Client) -> None:
    service = launch(tmp_path, port=client.base_url.port)
    assert service.wait() == 1
    assert f"127.0.0.1:{client.base_url.port}: Address already in use" in service.log


def test_password_of_the_store_is_never_logged(folder: Path) -> None:
    service = launch(folder, redis_url="redis://user:hunter2@127.0.0.1:1/0", log_level="debug", redis_timeout_ms=50)
    with Client(service) as client:
        assert post_event(client, "u", "i1").status_code == 503
    service.stop()
    lines = [json.loads(line) for line in service.log.splitlines()]
    assert any(line["event"] == "store_unavailable" and line["request_id"] for line in lines if "request_id" in line)
    assert "hunter2" not in service.log


@pytest.mark.parametrize("path", ["/", "/docs", "/console/docs.js", "/console/vendor/swagger-ui/swagger-ui-bundle.js"])
def test_pages_come_from_this_service_alone(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    if answer.headers["content-type"].startswith("text/html"):
        assert "://" not in answer.text


def test_guest_who_signs_in_is_ranked_as_the_user(client: Client) -> None:
    client.post("/events", json={"session_id": "s7", "item_id": "i8", "event_type": "view"})
    post_event(client, "u7", "i3", timestamp="2026-01-01T00:00:00Z")
    merge = {"from": {"session_id": "s7"}, "to": {"user_id": "u7"}}
    answer = client.post("/users/merge", json=merge).json()
    assert answer == {"user_id": "u7", "merged": 1, "history_length": 2}
    assert ranked(client, user_id="u7", k=2) == ["i7", "i9"]  # by distance from i8, the newest of both
    assert client.post("/recommend", json={"session_id": "s7", "k": 2}).json()["reasons"] == ["unknown_user"]
    assert client.post("/users/merge", json=merge).json() == {"user_id": "u7", "merged": 0, "history_length": 2}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"from": {"user_id": "a"}, "to": {"user_id": "a"}}, ""),
        ({"from": {}, "to": {"user_id": "a"}}, "/from"),
        ({"from": {"session_id": "s"}, "to": {"session_id": "t"}}, "/to/user_id"),
        ({"to": {"user_id": "a"}}, "/from"),
    ],
)
def test_merge_that_says_not_who_is_refused(client: Client, body: object, pointer: str) -> None:
    problem = client.post("/users/merge", json=body)
    assert problem.status_code == 422
    assert pointer in [fault["pointer"] for fault in problem.json()["errors"]]


def test_erased_user_is_unknown_at_once_and_leaves_no_byte(folder: Path, valkey_url: str) -> None:
    with serving(folder, redis_url=valkey_url) as client:
        post_event(client, "erased-user", "i3")
        ranked(client, user_id="erased-user", k=2)  # the list is written to the log a moment later
        answer = client.delete("/users/erased-user").json()
        assert answer == {"user_id": "erased-user", "erased_events": 1, "erased_log_entries": 2}
        assert client.get("/users/erased-user").json()["history_length"] == 0
        assert client.post("/recommend", json={"user_id": "other", "k": 2}).json()["reasons"] == ["unknown_user"]
        client.post("/events", json={"session_id": "s1", "item_id": "i5", "event_type": "view"})
        assert client.get("/sessions/s1").json()["history"][0]["item_id"] == "i5"
        assert client.delete("/sessions/s1").json()["erased_events"] == 1
        assert client.get("/sessions/s1").json() == {"session_id": "s1", "history_length": 0, "history": []}
    with Redis.from_url(valkey_url) as redis:
        streams = [repr(redis.xrange(key)) for key in redis.keys("*:events")]
        assert len(streams) >= 2
        assert not [text for text in streams if "erased-user" in text or '"s1"' in text]


def test_event_without_consent_is_accepted_and_forgotten(client: Client) -> None:
    answer = client.post("/events", json={"user_id": "shy", "item_id": "i5", "event_type": "view", "store": False})
    assert answer.json() == {"accepted": 1, "duplicates": 0, "ignored": 0, "rejected": [], "warnings": []}
    assert client.get("/users/shy").json()["history_length"] == 0
    assert 'segue_events_total{namespace="default",outcome="not_stored"} 1.0' in client.get("/metrics").text


def test_dismissed_item_is_hidden_at_once_and_an_event_on_it_brings_it_back(client: Client) -> None:
    post_event(client, "u8", "i5")
    assert ranked(client, user_id="u8", k=2) == ["i4", "i6"]
    client.post("/events", json={"user_id": "u8", "item_id": "i4", "event_type": "dismiss"})
    assert ranked(client, user_id="u8", k=2, exclude_seen=False) == ["i5", "i6"]
    history = client.get("/users/u8").json()["history"]
    assert [(step["item_id"], step["event_type"]) for step in history] == [("i5", "view"), ("i4", "dismiss")]
    post_event(client, "u8", "i4")
    assert ranked(client, user_id="u8", k=2, exclude_seen=False) == ["i4", "i3"]


def test_file_of_event_types_stands_above_the_artifact(folder: Path, tmp_path: Path, valkey_url: str) -> None:
    file = tmp_path / "types.toml"
    file.write_text('[watch]\nthreshold = 0.5\n[view]\nuse = "negative"\n')
    with serving(folder, redis_url=valkey_url, event_types_file=file) as client:
        for item_id, value in (("i3", 0.9), ("i8", 0.1), ("i9", None)):
            client.post("/events", json={"user_id": "u", "item_id": item_id, "event_type": "watch", "value": value})
        post_event(client, "u", "i2")
        assert ranked(client, user_id="u", k=2, exclude_seen=False) == ["i3", "i4"]
        declared = client.get("/models").json()["live"]["event_types"]
        assert (declared["watch"]["threshold"], declared["view"]["hides_days"], declared["cart"]["weight"]) == (
            0.5,
            30,
            2,
        )


def test_scenario_of_the_file_is_filled_in_and_a_faulty_file_stops_the_start(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "scenarios.toml"
    file.write_text("[home]\nk = 2\nexclude_seen = false\n")
    with serving(folder, data_dir=tmp_path / "data", scenarios_file=file) as client:
        assert ranked(client, history=["i5"], scenario="home") == ["i5", "i4"]
        assert ranked(client, history=["i5"], scenario="home", k=1, exclude_seen=True) == ["i4"]
        answer = client.post("/recommend/batch", json={"requests": [{"history": ["i5"], "scenario": "hmoe"}]})
        assert answer.json()["results"][0]["errors"][0]["pointer"] == "/requests/0/scenario"
    file.write_text("[home]\nkk = 2\n")
    service = launch(tmp_path, scenarios_file=file)
    assert service.wait() == 2
    assert "SEGUE_SCENARIOS_FILE" in service.log
    assert "home.kk" in service.log
    assert "Traceback" not in service.log


def test_faulty_file_of_event_types_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "types.toml"
    file.write_text("[view]\nwieght = 2\n")
    service = launch(tmp_path, event_types_file=file)
    assert service.wait() == 2
    assert "SEGUE_EVENT_TYPES_FILE" in service.log
    assert "view.wieght" in service.log
    assert "Traceback" not in service.log
