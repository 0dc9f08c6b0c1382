"""Pages of one list: in a real Valkey server, and through the service while users go on clicking."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from app.state.connection import Store
from app.state.kept_lists import KEPT_SECONDS, MAX_LISTS, KeptList, KeptLists
from app.state.keys import Keys, Owner
from tests.distance_model import write_distance_artifact
from tests.service import Client, eventually, serving

ANN, BOB = Owner("user", "ann"), Owner("user", "bob")
IDS = tuple(f"ü\n{number}" for number in range(500))
LIST = KeptList("rec_1", "model", ("unknown_candidates",), "v1", 7, 10, IDS, np.linspace(3, -9, 500, dtype=np.float32))
NOW = 1_790_000_000.0


def lists(redis: Store, now: float = NOW) -> KeptLists:
    return KeptLists(redis, namespace="default", shards=16, clock=lambda: now)


def same(one: KeptList, other: KeptList) -> bool:
    nothing = np.zeros(0, np.float32)
    return replace(one, scores=nothing) == replace(other, scores=nothing) and bool((one.scores == other.scores).all())


@pytest.mark.parametrize("owner", [ANN, None], ids=["a user's", "nobody's"])
async def test_list_comes_back_as_it_was_for_half_an_hour(redis: Store, owner: Owner | None) -> None:
    place = await lists(redis).keep(owner, LIST)
    found = await lists(redis, NOW + KEPT_SECONDS - 1).read(owner, place.name)
    assert found is not None
    assert same(found[0], LIST)
    assert found[1] == place
    assert await lists(redis, NOW + KEPT_SECONDS).read(owner, place.name) is None
    assert await lists(redis).read(BOB, place.name) is None
    assert 0 < await redis.pttl(Keys("default", 16).lists(owner or place.name.hex())) <= KEPT_SECONDS * 1000


async def test_newest_lists_of_an_owner_stay(redis: Store) -> None:
    places = [await lists(redis, NOW + second).keep(ANN, LIST) for second in range(MAX_LISTS + 2)]
    there = [await lists(redis, NOW + 60).read(ANN, place.name) is not None for place in places]
    assert there == [False, False, *[True] * MAX_LISTS]
    last = await lists(redis, NOW + KEPT_SECONDS + MAX_LISTS).keep(ANN, LIST)
    names = await redis.hkeys(Keys("default", 16).lists(ANN))
    assert sorted(names) == [places[-1].name.hex().encode(), last.name.hex().encode()]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Two workers; sixty items, nearest to the newest first."""
    folder = tmp_path_factory.mktemp("paging")
    write_distance_artifact(folder / "artifacts", num_items=60)
    (folder / "artifacts" / "CURRENT").write_text("distance-1\n")
    with serving(folder, workers=2) as client:
        yield client


def ask(client: httpx.Client, **body: object) -> dict[str, Any]:
    answer = client.post("/recommend", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def click(client: httpx.Client, user: str, *items: str) -> None:
    for item in items:
        assert client.post("/events", json={"user_id": user, "item_id": item}).status_code == 200


def walk(client: httpx.Client, sizes: Sequence[int], **body: object) -> list[dict[str, Any]]:
    """The pages, with an event before each that would change the ranking."""
    pages = [ask(client, k=sizes[0], paginate=True, **body)]
    for number, size in enumerate(sizes[1:], start=1):
        click(client, "walker", f"i{50 - number}")
        caller = {name: body[name] for name in ("user_id",) if name in body}
        pages.append(ask(client, cursor=pages[-1]["next_cursor"], k=size, **caller))
    return pages


@pytest.mark.parametrize("what", [{"user_id": "walker"}, {"history": ["i30"]}], ids=["user", "given history"])
def test_pages_joined_are_one_long_page_whatever_happens_meanwhile(client: Client, what: dict[str, object]) -> None:
    asked = what | {
        "exclude_items": ["i28"],
        "exclude_seen": True,
        "pins": [{"item_id": "i5", "position": 17}],
        "boosts": [{"filter": {"field": "year", "op": "gt", "value": 2000}, "factor": 7.5}],
    }
    click(client, "walker", "i30")
    whole = ask(client, k=60, **asked)
    pages = walk(client, [10, 10, 7, 33], **asked)
    joined = [item for page in pages for item in page["items"]]
    assert joined == whole["items"]
    assert len(joined) < 60
    assert [page["next_cursor"] is None for page in pages] == [False, False, False, True]
    assert "short_catalogue" in pages[-1]["reasons"]
    assert {page["recommendation_id"] for page in pages} == {pages[0]["recommendation_id"]}
    assert [page["history_length"] for page in pages] == [pages[0]["history_length"]] * 4


def test_page_is_as_long_as_the_first_unless_said_and_has_attributes_if_asked(client: Client) -> None:
    first = ask(client, history=["i30"], k=4, paginate=True)
    second = ask(client, cursor=first["next_cursor"], paginate=True, include=["attributes"])
    assert [item["rank"] for item in second["items"]] == [5, 6, 7, 8]
    assert "title" in second["items"][0]["attributes"]
    assert ask(client, cursor=first["next_cursor"])["next_cursor"] == second["next_cursor"]


def test_item_that_may_not_be_shown_any_more_comes_on_no_further_page(client: Client) -> None:
    whole = ask(client, history=["i30"], k=12)
    first = ask(client, history=["i30"], k=4, paginate=True)
    gone, unavailable = whole["items"][4]["item_id"], whole["items"][6]["item_id"]
    try:
        assert client.delete(f"/items/{gone}").status_code == 204
        assert client.patch(f"/items/{unavailable}", json={"available": False}).status_code == 200
        expected = [whole["items"][place] for place in (5, 7, 8, 9, 10, 11)]

        def is_passed_over() -> bool:
            second = ask(client, cursor=first["next_cursor"])
            third = ask(client, cursor=second["next_cursor"], k=2)
            return bool(second["items"] + third["items"] == expected)

        eventually(is_passed_over)  # the other worker hears of it within a second
    finally:
        assert client.put(f"/items/{gone}", json={}).status_code in (200, 201)
        assert client.patch(f"/items/{unavailable}", json={"available": True}).status_code == 200


def test_list_that_fits_one_page_has_no_next_one_and_others_do_not_mention_it(client: Client) -> None:
    answer = ask(client, history=["i30"], candidates=["i1", "i2"], k=2, paginate=True)
    assert answer["next_cursor"] is None
    assert "next_cursor" not in ask(client, history=["i30"])


def test_cursor_belongs_to_its_caller_and_cannot_be_changed(client: Client) -> None:
    click(client, "owner", "i30")
    cursor = str(ask(client, user_id="owner", k=3, paginate=True)["next_cursor"])
    for caller in ({"user_id": "other"}, {"session_id": "owner"}, {}):
        answer = client.post("/recommend", json={"cursor": cursor, **caller})
        assert (answer.status_code, answer.json()["code"]) == (410, "cursor_expired")
    for place in range(len(cursor)):
        changed = cursor[:place] + ("A" if cursor[place] != "A" else "B") + cursor[place + 1 :]
        answer = client.post("/recommend", json={"user_id": "owner", "cursor": changed})
        assert answer.status_code in (410, 422), place
    for wrong in ("x", "ü", cursor + "A", cursor[:-1], cursor + "="):
        answer = client.post("/recommend", json={"user_id": "owner", "cursor": wrong})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/cursor")
    assert ask(client, user_id="owner", cursor=cursor)["items"]


def test_cursor_takes_no_other_field_and_a_batch_takes_no_cursor(client: Client) -> None:
    answer = client.post("/recommend", json={"user_id": "owner", "cursor": "x", "filter": None, "diversity": 0.5})
    assert answer.status_code == 422
    assert "leave out diversity, filter" in answer.json()["errors"][0]["detail"]
    batch = client.post("/recommend/batch", json={"requests": [{"user_id": "owner", "paginate": True}]})
    assert batch.json()["results"][0]["errors"][0]["pointer"] == "/requests/0/paginate"


def test_erased_user_has_no_list(client: Client) -> None:
    click(client, "gone", "i30")
    cursor = ask(client, user_id="gone", k=3, paginate=True)["next_cursor"]
    assert client.delete("/users/gone").status_code == 200
    answer = client.post("/recommend", json={"user_id": "gone", "cursor": cursor})
    assert answer.status_code == 410
