"""What a request may ask, through HTTP: the distance model ranks i1…i9 by their distance from the newest item."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.distance_model import write_live_distance_artifact
from tests.service import Client, serving


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One worker and a store of its own; every test takes users of its own and leaves the items as they were."""
    folder = tmp_path_factory.mktemp("recommending")
    write_live_distance_artifact(folder / "artifacts")
    with serving(folder) as client:
        yield client


def recommend(client: httpx.Client, **body: object) -> dict[str, Any]:
    answer = client.post("/recommend", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def eq(field: str, value: object) -> dict[str, object]:
    return {"field": field, "op": "eq", "value": value}


def test_filter_sees_a_live_change_at_once(client: Client) -> None:
    cheap = {"field": "price", "op": "lt", "value": 5}
    for item_id, price in (("i2", 3), ("i8", 9), ("i9", 4)):
        assert client.patch(f"/items/{item_id}", json={"attributes": {"price": price}}).status_code == 200
    assert ids(recommend(client, history=["i5"], filter=cheap)) == ["i2", "i9"]
    client.patch("/items/i8", json={"attributes": {"price": 1}})
    assert ids(recommend(client, history=["i5"], filter=cheap)) == ["i2", "i8", "i9"]
    client.patch("/items/i8", json={"available": False})
    assert ids(recommend(client, history=["i5"], filter=cheap)) == ["i2", "i9"]
    pinned = recommend(client, history=["i5"], k=1, pins=[{"item_id": "i8", "position": 1}])
    assert (ids(pinned), pinned["reasons"]) == (["i4"], ["pin_left_out"])
    client.patch("/items/i8", json={"available": True})


def test_everything_that_can_be_asked_at_once(client: Client) -> None:
    answer = recommend(
        client,
        history=["i5"],
        k=4,
        candidates=["i1", "i2", "i4", "i6", "i8", "i9", "nothing"],
        filter={"not": eq("item_id", "i6")},
        exclude_items=["i4"],
        boosts=[{"filter": eq("item_id", "i9"), "factor": 20}],
        pins=[{"item_id": "i1", "position": 2}],
        include=["attributes"],
    )
    # i9 is 4 away and gains ln 20 = 3.0; i2 and i8 are 3 away; i1 is pinned.
    assert ids(answer) == ["i9", "i1", "i2", "i8"]
    assert answer["reasons"] == ["unknown_candidates"]
    assert answer["items"][1]["attributes"]["title"] == "Film i1"


@pytest.mark.parametrize(
    ("body", "pointer", "detail"),
    [
        ({"target_event_type": "buy"}, "/target_event_type", "The live model does not tell event types apart"),
        ({"target_event_type": "buy", "strategy": "popular"}, "", "Target_event_type is for the model"),
        ({"filter": eq("yaer", 1990)}, "/filter/field", "No item has a field 'yaer'"),
        ({"filter": {"field": "year", "op": "is", "value": 1}}, "/filter/op", "Input should be"),
        ({"boosts": [{"filter": eq("year", "x"), "factor": 2}]}, "/boosts/0/filter/value", "Field 'year' holds"),
        ({"boosts": [{"filter": eq("year", 1990), "factor": 0}]}, "/boosts/0/factor", "greater than"),
        ({"pins": [{"item_id": "i1", "position": 0}]}, "/pins/0/position", "greater than"),
        (
            {"pins": [{"item_id": "i1", "position": 1}, {"item_id": "i2", "position": 1}]},
            "",
            "Two pins have the same position",
        ),
        ({"candidates": []}, "/candidates", "at least 1"),
        ({"candidates": ["i1"] * 10_001}, "/candidates", "at most 10000"),
        ({"diversity": 1.5}, "/diversity", "less than or equal to 1"),
    ],
)
def test_fault_of_the_caller_is_named_with_its_place(
    client: Client, body: dict[str, object], pointer: str, detail: str
) -> None:
    answer = client.post("/recommend", json={"history": ["i5"], **body})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    (fault,) = answer.json()["errors"]
    assert (fault["pointer"], detail in fault["detail"]) == (pointer, True), fault


def test_batch_answers_each_request_alone(client: Client) -> None:
    client.post("/events", json=[{"user_id": "b1", "item_id": "i3"}, {"user_id": "b2", "item_id": "i9"}])
    requests: list[Any] = [
        {"user_id": "b1", "k": 2},
        {"user_id": "b2", "k": 0},
        {"user_id": "b2", "k": 3, "filter": {"not": eq("item_id", "i8")}},
        {"history": ["i5"], "k": 1, "boosts": [{"filter": eq("yaer", 1), "factor": 2}]},
        {"session_id": "nobody", "k": 1},
        "what?",
    ]
    answer = client.post("/recommend/batch", json={"requests": requests})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [ids(result) if "items" in result else result["errors"][0]["pointer"] for result in results] == [
        ["i2", "i4"],
        "/requests/1/k",
        ["i7", "i6", "i5"],
        "/requests/3/boosts/0/filter/field",
        ["i9"],
        "/requests/5",
    ]
    assert [result["status"] for result in results if "status" in result] == [422, 422, 422]
    assert recommend(client, user_id="b1", k=2)["items"] == results[0]["items"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ('{"requests": []}', 422, "invalid_request"),
        ('{"requests": [{}], "k": 1}', 422, "invalid_request"),
        ("[]", 422, "invalid_request"),
        ("{", 400, "invalid_json"),
        (f'{{"requests": [{",".join(["{}"] * 257)}]}}', 413, "payload_too_large"),
    ],
)
def test_batch_of_another_shape_is_refused_as_a_whole(client: Client, body: str, status: int, code: str) -> None:
    answer = client.post("/recommend/batch", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_batch_of_256_is_answered_in_its_order(client: Client) -> None:
    requests = [{"history": [f"i{1 + number % 250}"], "k": 1} for number in range(256)]
    results = client.post("/recommend/batch", json={"requests": requests}).json()["results"]
    assert len(results) == 256
    for number in (0, 9, 100, 255):
        assert results[number]["items"] == recommend(client, **requests[number])["items"]


@pytest.mark.parametrize(
    "what", [{"paginate": True, "explain": True}, {"paginate": True, "probability": True}, {"explain": True, "k": 51}]
)
def test_what_is_said_of_short_single_lists_alone_is_asked_for_no_other(
    client: Client, what: dict[str, object]
) -> None:
    answer = client.post("/recommend", json={"history": ["i5"], **what})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_ten_thousand_candidates_are_taken(client: Client) -> None:
    assert ids(recommend(client, history=["i5"], candidates=[f"i{n}" for n in range(3, 10_003)], k=3)) == [
        "i4",
        "i6",
        "i3",
    ]


def test_item_put_into_the_catalogue_is_recommended_at_once_and_on_every_page_where_it_was(client: Client) -> None:
    """The default keeps the tenth place of ten; here every second one or every fourth is asked for."""
    assert client.put("/items/novelty", json={"attributes": {"year": 2026}}).status_code == 200
    try:
        answer = recommend(client, history=["i5"], k=4, new_item_share=0.5, exclude_seen=True)
        assert ids(answer) == ["i4", "novelty", "i6", "i3"]
        assert (answer["reasons"], answer["items"][1]["score"]) == (["new_items"], None)
        assert "novelty" in ids(recommend(client, history=[], k=10))
        assert "novelty" not in ids(recommend(client, history=["i5"], k=9, exclude_seen=False))
        client.post("/events", json={"user_id": "pages", "item_id": "i5"})
        first = recommend(client, user_id="pages", k=3, new_item_share=0.25, paginate=True)
        client.post("/events", json={"user_id": "pages", "item_id": "novelty"})
        second = recommend(client, user_id="pages", cursor=first["next_cursor"])
        assert ids(first) + ids(second) == ["i4", "i6", "i3", "novelty", "i7", "i2"]
        assert second["reasons"] == ["new_items"]
        for body in ({"filter": {"not": eq("item_id", "novelty")}}, {"exclude_items": ["novelty"]}):
            assert "novelty" not in ids(recommend(client, history=["i5"], k=4, new_item_share=0.5, **body))
        assert client.post("/similar", json={"item_id": "i5", "new_item_share": 0.5}).status_code == 422
    finally:
        client.delete("/items/novelty")
    assert "novelty" not in ids(recommend(client, history=["i5"], k=4, new_item_share=0.5))
