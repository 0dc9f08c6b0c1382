"""Live items in a real store: every worker comes to the same catalogue, at once or soon, whatever was missed."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from app.errors import CatalogueFull, StoreUnavailable
from app.state import catalogue as module
from app.state.catalogue import Catalogue, CatalogueItem, ItemRecord, PutOutcome
from app.state.connection import Store, connect
from app.state.items import live
from app.state.items import store as store_module
from tests.integration.conftest import Server
from tests.unit.test_catalogue_view import FILMS, Model, model_of


def worker(redis: Store, *, namespace: str = "default", max_items: int = 1000) -> Catalogue:
    """Not entered: it follows when the test says `refresh`."""
    return Catalogue(redis, namespace=namespace, max_items=max_items)


def whole(**attributes: Any) -> ItemRecord:
    return ItemRecord(attributes, available=True, replaces=True)


def contents(catalogue: Catalogue, model: Model | None = None) -> dict[str, CatalogueItem]:
    view = catalogue.view(model)
    items = (view.item_at(index) for index in range(1, view.num_items + 1))
    return {item.item_id: item for item in items if item is not None}


@pytest.fixture
def films(tmp_path: Path) -> Model:
    return model_of(tmp_path, FILMS)


async def test_what_a_worker_puts_is_in_force_there_at_once_and_elsewhere_after_a_refresh(
    redis: Store, films: Model
) -> None:
    one, two = worker(redis), worker(redis)
    await two.refresh()
    assert await one.put([("new", whole(price=3)), ("a", ItemRecord({"price": 5}))]) == [PutOutcome.PUT] * 2
    assert one.view(films).attributes(6) == {"price": 3}
    assert contents(two, films).keys() == FILMS.keys()
    await two.refresh()
    for catalogue in (one, two):
        items = contents(catalogue, films)
        assert items["new"] == CatalogueItem("new", {"price": 3}, available=True, in_model=False)
        assert items["a"].attributes == {**FILMS["a"], "price": 5}


async def test_same_record_again_is_no_change(redis: Store) -> None:
    one, two = worker(redis), worker(redis)
    await one.put([("a", whole(x=1, y=2))])
    assert await two.put([("a", whole(y=2, x=1))]) == [PutOutcome.UNCHANGED]
    assert await one.delete("a") == PutOutcome.PUT
    assert await one.delete("a") == PutOutcome.UNCHANGED
    assert await redis.xlen("default:{items}:changes") == 2


async def test_of_two_records_in_one_call_the_later_stays(redis: Store) -> None:
    catalogue = worker(redis)
    await catalogue.put([("a", whole(x=1)), ("b", whole(x=7)), ("a", whole(x=2))])
    assert contents(catalogue)["a"].attributes == {"x": 2}
    again = worker(redis)
    await again.refresh()
    assert contents(again) == contents(catalogue)


async def test_patches_of_two_workers_at_once_are_both_kept(redis: Store, films: Model) -> None:
    workers = [worker(redis) for _ in range(8)]
    await asyncio.gather(
        *(catalogue.patch(films, "a", {f"field{number}": number}, None) for number, catalogue in enumerate(workers))
    )
    fresh = worker(redis)
    await fresh.refresh()
    assert contents(fresh, films)["a"].attributes == FILMS["a"] | {f"field{number}": number for number in range(8)}


async def test_patch_changes_what_it_names_and_removes_what_is_null(redis: Store, films: Model) -> None:
    catalogue = worker(redis)
    await catalogue.patch(films, "b", {"year": 1980, "sizes": None}, None)
    await catalogue.patch(films, "b", {"price": 2}, False)
    item = contents(catalogue, films)["b"]
    assert item.attributes == {"title": "Alien", "year": 1980, "genres": ["Horror"], "colour": True, "price": 2}
    assert not item.available
    await catalogue.put([("n", whole(x=1, y=2))])
    await catalogue.patch(films, "n", {"x": None}, None)
    assert contents(catalogue, films)["n"].attributes == {"y": 2}


async def test_what_does_not_exist_cannot_be_patched(redis: Store, films: Model) -> None:
    catalogue = worker(redis)
    assert await catalogue.patch(films, "nobody", {"x": 1}, None) is None
    await catalogue.delete("a")
    assert await catalogue.patch(films, "a", {"x": 1}, None) is None


async def test_deleted_item_is_gone_from_every_later_model_until_it_is_put_again(
    redis: Store, films: Model, tmp_path: Path
) -> None:
    catalogue = worker(redis)
    await catalogue.delete("a")
    await catalogue.delete("z")
    assert contents(catalogue, films).keys() == set("bcde")
    later = model_of(tmp_path, {"z": {}, "b": {"year": 1}, "a": {"year": 2}}, "v2")
    fresh = worker(redis)
    await fresh.refresh()
    for each in (catalogue, fresh):
        assert contents(each, later).keys() == {"b"}
        assert each.view(later).hidden.tolist() == [True, True, False, True]
    await catalogue.put([("a", whole(price=1))])
    assert contents(catalogue, later)["a"] == CatalogueItem("a", {"price": 1}, available=True, in_model=True)
    assert catalogue.view(later).index_of("a") == 3


async def test_live_items_stay_when_the_model_changes(redis: Store, films: Model, tmp_path: Path) -> None:
    catalogue = worker(redis)
    await catalogue.put([("n", whole(x=1)), ("b", ItemRecord({"x": 2}, available=False))])
    assert catalogue.view(films).index_of("n") == 6
    later = model_of(tmp_path, {"n": {"y": 1}, "q": {}}, "v2")
    catalogue.prepare(later)
    view = catalogue.view(later)
    assert [view.id_of(index) for index in range(1, view.num_items + 1)] == ["n", "q", "b"]
    assert [view.attributes(index) for index in (1, 2, 3)] == [{"x": 1}, {}, {"x": 2}]
    assert view.hidden.tolist() == [True, False, False, True]
    assert contents(catalogue, None).keys() == {"n", "b"}


async def test_changes_while_a_model_is_prepared_are_in_force_when_it_is_live(
    redis: Store, films: Model, tmp_path: Path
) -> None:
    catalogue = worker(redis)
    await catalogue.put([("n", whole(x=1)), ("b", whole(x=1)), ("e", whole(x=1))])
    catalogue.view(films)
    later = model_of(tmp_path, {"b": {}, "q": {}}, "v2")
    catalogue.prepare(later)
    await catalogue.put([("n", whole(x=2)), ("m", whole(x=3))])
    await catalogue.delete("b")
    view = catalogue.view(later)
    assert [view.id_of(index) for index in range(1, view.num_items + 1)] == ["b", "q", "e", "n", "m"]
    assert [view.attributes(index) for index in (1, 3, 4, 5)] == [{}, {"x": 1}, {"x": 2}, {"x": 3}]
    await catalogue.put([("q", whole(x=4))])
    assert contents(catalogue, later)["q"].attributes == {"x": 4}


async def test_item_as_patched_is_answered_even_where_nothing_changed(redis: Store, films: Model) -> None:
    one, two = worker(redis), worker(redis)
    await one.put([("a", ItemRecord({"price": 5}))])
    assert await two.patch(films, "a", {"price": 5}, None) == contents(one, films)["a"]
    full = worker(redis, max_items=1)
    with pytest.raises(CatalogueFull):
        await full.patch(films, "b", {"price": 5}, None)
    with pytest.raises(CatalogueFull):
        await full.delete("b")


async def test_worker_that_missed_too_much_reads_everything_anew(redis: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "CHANGES_KEPT", 100)
    one, two = worker(redis), worker(redis)
    await two.refresh()
    for number in range(600):  # the log is trimmed by whole nodes of about a hundred entries
        await one.put([(f"i{number % 50}", whole(n=number))])
    assert await redis.xlen("default:{items}:changes") < 600
    await two.refresh()
    assert contents(two) == contents(one)
    assert contents(two)["i7"].attributes == {"n": 557}


async def test_store_that_was_emptied_empties_the_catalogue(redis: Store) -> None:
    one, two = worker(redis), worker(redis)
    await one.put([("a", whole(x=1)), ("b", whole(x=1))])
    await two.refresh()
    await redis.flushall()
    await one.put([("c", whole(x=1))])
    await two.refresh()
    assert contents(two).keys() == {"c"}


async def test_full_catalogue_takes_changes_and_no_new_items(redis: Store) -> None:
    catalogue = worker(redis, max_items=2)
    records = [("a", whole(x=1)), ("b", whole(x=1)), ("c", whole(x=1)), ("a", whole(x=2))]
    assert await catalogue.put(records) == [PutOutcome.PUT, PutOutcome.PUT, PutOutcome.FULL, PutOutcome.PUT]
    assert {name: item.attributes for name, item in contents(catalogue).items()} == {"a": {"x": 2}, "b": {"x": 1}}


async def test_namespaces_do_not_meet(redis: Store) -> None:
    one, two = worker(redis), worker(redis, namespace="other")
    await one.put([("a", whole(x=1))])
    await two.refresh()
    assert contents(two) == {}


async def test_places_of_many_deleted_items_are_given_back(redis: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_DEAD_ROWS", 10)
    catalogue = worker(redis)
    await catalogue.put([(f"i{number}", whole(n=number)) for number in range(30)])
    for number in range(20):
        await catalogue.delete(f"i{number}")
    assert catalogue.view(None).num_items < 30
    assert contents(catalogue).keys() == {f"i{number}" for number in range(20, 30)}


async def test_workers_agree_after_random_writes_from_all_of_them(redis: Store, films: Model) -> None:
    draw = random.Random(11)
    workers = [worker(redis) for _ in range(3)]

    async def write(catalogue: Catalogue) -> None:
        item_id = draw.choice([*"abcde", "v", "w", "x", "y", "z"])
        match draw.choices(range(4), (1, 3, 3, 3))[0]:
            case 0:
                await catalogue.delete(item_id)
            case 1:
                await catalogue.put([(item_id, ItemRecord({"n": draw.random()}, draw.random() < 0.7, replaces=True))])
            case 2:
                await catalogue.patch(films, item_id, {draw.choice("pq"): draw.random()}, None)
            case _:
                await catalogue.refresh()

    for _ in range(40):
        await asyncio.gather(*(write(draw.choice(workers)) for _ in range(10)))
    fresh = worker(redis)
    expected: Sequence[Any] = ()
    for catalogue in (fresh, *workers):
        await catalogue.refresh()
        found = sorted(contents(catalogue, films).items())
        expected = expected or found
        assert found == expected
    assert len(expected) > 2


@pytest.fixture
async def lossy(own_valkey: Server) -> AsyncIterator[Store]:
    client = connect(own_valkey.url, timeout_ms=200, max_connections=8)
    yield client
    await client.aclose()


async def test_worker_starts_without_the_store_and_catches_up_when_it_is_there(
    own_valkey: Server, lossy: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    own_valkey.stop()
    async with worker(lossy) as catalogue:
        assert not catalogue.complete
        with pytest.raises(StoreUnavailable):
            await catalogue.put([("a", whole(x=1))])
        assert contents(catalogue) == {}
        own_valkey.start()
        other = worker(lossy)
        await other.put([("b", whole(x=1))])
        async with asyncio.timeout(10):
            while "b" not in contents(catalogue):
                await asyncio.sleep(0.02)  # another task decides when
        assert catalogue.complete


async def test_worker_that_is_entered_hears_of_changes_within_a_second(redis: Store) -> None:
    other = worker(redis)
    async with worker(redis) as catalogue:
        await other.put([("a", whole(x=1))])
        async with asyncio.timeout(1):
            while "a" not in contents(catalogue):
                await asyncio.sleep(0.01)  # another task decides when
