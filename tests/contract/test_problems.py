"""Every error is `application/problem+json` with a code from the closed list, and says no more than it should."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.requests import Request

from app.errors import ProblemCode
from app.main import create_app
from app.settings import Settings

JSON = {"Content-Type": "application/json"}
MAX_BODY = 4096


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    """No store listens at this address, and no model is live: what is wrong must be found before either is asked."""
    return create_app(
        Settings(
            redis_url=SecretStr(f"unix://{tmp_path}/nobody.sock"),
            redis_timeout_ms=10,
            artifacts_dir=tmp_path,
            max_body_bytes=MAX_BODY,
            max_batch_events=3,
            max_in_flight=2,
        )
    )


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


def check(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["status"] == status
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["code"] in set(ProblemCode)
    return body


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/console/nothing.js", 404, "not_found"),
        ("GET", "/console/../main.py", 404, "not_found"),
        ("GET", "/items/i1", 404, "not_found"),
        ("DELETE", "/events", 405, "method_not_allowed"),
        ("POST", "/console/main.js", 405, "method_not_allowed"),
        ("POST", "/events", 415, "unsupported_media_type"),
        ("GET", "/users/u1", 503, "store_unavailable"),
    ],
)
async def test_error_of_each_kind(client: httpx.AsyncClient, method: str, path: str, status: int, code: str) -> None:
    check(await client.request(method, path), status, code)


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"user_id": "u", "exclude_sen": True}, ["/exclude_sen"]),
        ({"user_id": "u", "k": 0, "include": ["title"]}, ["/include/0", "/k"]),
        ({"user_id": "u", "k": "10"}, ["/k"]),
        ({"user_id": ""}, ["/user_id"]),
        ({"user_id": "u" * 257}, ["/user_id"]),
        ({"user_id": "u", "history": ["i1"]}, [""]),
        ({}, [""]),
        ({"history": ["i1", 7]}, ["/history/1"]),
        ({"history": [{"timestamp": 1}]}, ["/history/0/item_id"]),
        ({"history": [{"item_id": "i1", "a/b~c": 1}]}, ["/history/0/a~1b~0c"]),
        ({"history": [{"item_id": "i1", "timestamp": "2026-01-01"}]}, ["/history/0/timestamp"]),
        ({"history": [{"item_id": "i1", "timestamp": 1}, "i2"]}, [""]),
        ([], [""]),
    ],
)
async def test_fault_in_a_body_is_pointed_at(client: httpx.AsyncClient, body: object, pointers: list[str]) -> None:
    problem = check(await client.post("/recommend", json=body), 422, "invalid_request")
    assert sorted(fault["pointer"] for fault in problem["errors"]) == pointers


@pytest.mark.parametrize(
    ("event", "pointer"),
    [
        ({"item_id": "i1"}, "/0"),
        ({"item_id": "i1", "user_id": "u", "session_id": "s"}, "/0"),
        ({"item_id": "i1", "user_id": "u", "event_type": "Click"}, "/0/event_type"),
        ({"item_id": "i1", "user_id": "u", "sequence": 1000}, "/0/sequence"),
        ({"item_id": "i1", "user_id": "u", "properties": {"a": {"b": 1}}}, "/0/properties/a"),
        ({"item_id": "i1", "user_id": "u", "properties": {str(n): n for n in range(21)}}, "/0/properties"),
        ({"item_id": "i1", "user_id": "u", "properties": {"a": "x" * 2048}}, "/0"),
        ("i1", "/0"),
    ],
)
async def test_bad_event_is_pointed_at(client: httpx.AsyncClient, event: object, pointer: str) -> None:
    problem = check(await client.post("/events", json=[event]), 422, "all_events_rejected")
    assert [(fault["pointer"], fault["code"]) for fault in problem["errors"]] == [(pointer, "invalid_request")]


async def test_unknown_query_parameter_is_refused(client: httpx.AsyncClient) -> None:
    problem = check(await client.get("/items", params={"limt": 3}), 422, "invalid_request")
    assert [fault["parameter"] for fault in problem["errors"]] == ["limt"]


@pytest.mark.parametrize("path", ["/events", "/recommend"])
async def test_body_that_is_no_json_is_refused(client: httpx.AsyncClient, path: str) -> None:
    for body in (b"{", b"", b"\xff", b'{"user_id": "\\ud800"}', b'{"k": NaN}'):
        check(await client.post(path, content=body, headers=JSON), 400, "invalid_json")


async def test_compressed_body_is_refused(client: httpx.AsyncClient) -> None:
    headers = {**JSON, "Content-Encoding": "gzip"}
    check(await client.post("/events", content=b"{}", headers=headers), 415, "unsupported_media_type")


async def test_body_too_large_is_refused_whether_or_not_it_says_so(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY // 1000 + 1):
            yield b" " * 1000

    declared = await client.post("/recommend", content=b" " * (MAX_BODY + 1), headers=JSON)
    chunked = await client.post("/recommend", content=chunks(), headers=JSON)
    assert "content-length" not in chunked.request.headers
    for answer in (declared, chunked):
        check(answer, 413, "payload_too_large")
        assert answer.headers["connection"] == "close"


async def test_batch_of_too_many_events_is_refused(client: httpx.AsyncClient) -> None:
    event = {"user_id": "u", "item_id": "i"}
    check(await client.post("/events", json=[event] * 4), 413, "payload_too_large")


async def test_store_that_is_down_is_said_with_the_time_to_wait(client: httpx.AsyncClient) -> None:
    answer = await client.post("/events", json={"user_id": "u", "item_id": "i"})
    check(answer, 503, "store_unavailable")
    assert re.fullmatch("[1-9][0-9]*", answer.headers["retry-after"])


async def test_one_request_too_many_is_refused_at_once_and_a_body_under_way_takes_no_place(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    """Two at most, as `app` says."""
    is_under_way: asyncio.Queue[str] = asyncio.Queue()
    may_end, may_send = asyncio.Event(), asyncio.Event()

    @app.post("/slow")
    async def slow(request: Request) -> None:
        await request.body()
        is_under_way.put_nowait("work")
        await may_end.wait()

    async def body_that_comes_slowly() -> AsyncIterator[bytes]:
        yield b"{"
        is_under_way.put_nowait("body")
        await may_send.wait()
        yield b"}"

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        coming = tasks.create_task(client.put("/items/i1", content=body_that_comes_slowly(), headers=JSON))
        assert await is_under_way.get() == "body"
        for _ in range(2):
            # What fails gives its place back.
            assert (await client.post("/recommend", content=b"{", headers=JSON)).status_code == 400
            tasks.create_task(client.post("/slow", json={}))
            assert await is_under_way.get() == "work"
        refused = await client.post("/recommend", json={"history": ["i1"]})
        check(refused, 503, "overloaded")
        assert re.fullmatch("[1-9][0-9]*", refused.headers["retry-after"])
        assert (await client.get("/livez")).status_code == 200
        may_end.set()
        may_send.set()
    assert coming.result().json()["code"] != "overloaded"
    assert (await client.post("/recommend", json={"history": ["i1"]})).status_code == 200


async def test_unforeseen_error_is_logged_and_not_told(
    app: FastAPI, client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("the secret of the house")

    answer = await client.get("/broken")
    check(answer, 500, "internal_error")
    assert "secret" not in answer.text
    assert "the secret of the house" in capsys.readouterr().out  # structlog as it comes; the service sends it to stderr
