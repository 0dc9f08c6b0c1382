"""Rules follow a log in memory: each event once, only what stands in a history, the same after a restart."""

from typing import Any

import numpy as np
import onnxruntime as ort
import orjson
import pytest

from app.artifacts.manifest import DEFAULT_EVENT_TYPES
from app.artifacts.registry import LiveModel, load_model
from app.errors import StoreUnavailable
from app.ranking import rules as definition
from app.ranking.exact import ExactRanker
from app.ranking.ranker import ItemSequence
from app.recommender.cold_items import ColdItems
from app.recommender.live_rules import LiveRules
from app.state.event_log import LogEntry
from app.state.history import HistoryEvent, Owner
from app.state.items.masks import MaskCache
from app.state.items.records import ItemRecord
from app.state.items.view import CatalogueView
from tests.make_tiny_artifact import ARTIFACTS, NUM_ITEMS

NEW = NUM_ITEMS + 1
AT_MS = 1_900_000_000_000


class Shop:
    """Log, histories, models and catalogue of one shop; item `new` was added live."""

    num_shards = 2
    event_types = DEFAULT_EVENT_TYPES

    def __init__(self) -> None:
        version = (ARTIFACTS / "CURRENT").read_text().strip()
        self.live: LiveModel | None = load_model(ARTIFACTS / version, history_cap=200)
        self.entries: list[list[LogEntry]] = [[], []]
        self.histories: dict[Owner, list[HistoryEvent]] = {}
        self.is_down = False
        view = CatalogueView.of_model(self.live, MaskCache())
        self.current = view.with_records({"new": ItemRecord({"title": "New"}).encode()})

    def event(self, user_id: str, item_id: str, event_type: str = "view", *, at_ms: int = AT_MS) -> None:
        shard = len(user_id) % 2
        history = self.histories.setdefault(Owner("user", user_id), [])
        at_us = (at_ms + len(history)) * 1000
        if event_type != "impression":
            history.append(HistoryEvent(item_id, event_type, at_us))
        data = {"user_id": user_id, "item_id": item_id, "event_type": event_type, "timestamp_us": at_us}
        self.entries[shard].append(LogEntry(f"{at_ms}-{len(self.entries[shard]) + 1}", "event", orjson.dumps(data)))

    async def read(self, *arguments: Any) -> Any:
        """Of the log (shard, after, upto, count), or of a history (owner)."""
        if self.is_down:
            raise StoreUnavailable("down")
        if len(arguments) == 1:
            return self.histories.get(arguments[0], [])
        shard, after, _, count = arguments
        behind = [each for each in self.entries[shard] if _order(each.position) > _order(after)]
        return behind[:count]

    def view(self, model: LiveModel | None) -> CatalogueView:
        return self.current


def _order(position: str) -> tuple[int, int]:
    milliseconds, number = position.split("-")
    return int(milliseconds), int(number)


def follower(shop: Shop) -> LiveRules:
    return LiveRules(shop, shop, shop, shop)


def weight(rules: LiveRules, shop: Shop, item: int, follower: int) -> float:
    assert shop.live is not None
    model = rules.applied(ColdItems().lengthened(shop.live, shop.current), shop.current)
    assert isinstance(model.ranker, ExactRanker)
    items_VN, weights_VN = model.ranker.tables["rule_items"], model.ranker.tables["rule_weights"]
    return float(weights_VN[item][items_VN[item] == follower].sum()) if item < len(items_VN) else 0.0


async def test_events_count_once_and_by_the_definition() -> None:
    shop = Shop()
    assert shop.live is not None
    shop.event("u1", "i3")
    shop.event("u1", "new")
    rules = follower(shop)
    assert weight(rules, shop, 3, NEW) == 0
    for _ in range(3):
        assert not await rules.refresh()
    rare = (1 + 1 / 100) ** -0.25
    expected = rare / (int(shop.live.popularity[3]) + 1 + definition.SHRINKAGE)
    assert weight(rules, shop, 3, NEW) == pytest.approx(expected, rel=1e-5)
    assert weight(rules, shop, NEW, 3) > 0, "what came before a new item is evidence too"
    shop.event("u22", "i3")
    shop.event("u22", "new")
    await rules.refresh()
    assert weight(rules, shop, 3, NEW) > 1.8 * expected
    restarted = follower(shop)
    await restarted.refresh()
    assert weight(restarted, shop, 3, NEW) == pytest.approx(weight(rules, shop, 3, NEW), rel=1e-6)


async def test_what_does_not_stand_in_a_history_is_no_evidence() -> None:
    shop = Shop()
    shop.event("u1", "i3")
    shop.event("u1", "new", "impression")
    shop.event("u2", "i3")
    shop.event("u2", "new")
    shop.histories[Owner("user", "u2")].clear()  # erased
    shop.event("u3", "i3", at_ms=1_000)
    shop.event("u3", "new", at_ms=1_000)  # logged before the model was exported
    rules = follower(shop)
    await rules.refresh()
    assert weight(rules, shop, 3, NEW) == 0


async def test_store_that_fails_loses_and_doubles_nothing() -> None:
    shop = Shop()
    shop.event("u1", "i3")
    shop.event("u1", "new")
    rules = follower(shop)
    await rules.refresh()
    before = weight(rules, shop, 3, NEW)
    shop.event("u1", "i3")
    shop.event("u1", "new")
    shop.is_down = True
    with pytest.raises(StoreUnavailable):
        await rules.refresh()
    assert weight(rules, shop, 3, NEW) == before
    shop.is_down = False
    await rules.refresh()
    once = follower(shop)
    await once.refresh()
    assert weight(rules, shop, 3, NEW) == pytest.approx(weight(once, shop, 3, NEW)) != before


async def test_long_log_is_read_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.recommender.live_rules.EVENTS_PER_SHARD", 4)
    shop = Shop()
    for number in range(10):
        shop.event(f"u{number}", "i3")
        shop.event(f"u{number}", "new")
    rules = follower(shop)
    num_refreshes = 1
    while await rules.refresh():
        num_refreshes += 1
    assert num_refreshes > 4
    whole = follower(shop)
    monkeypatch.setattr("app.recommender.live_rules.EVENTS_PER_SHARD", 1000)
    await whole.refresh()
    assert weight(rules, shop, 3, NEW) == pytest.approx(weight(whole, shop, 3, NEW), rel=1e-6)


async def test_other_numbering_of_items_and_other_models_have_no_rules_of_before() -> None:
    shop = Shop()
    shop.event("u1", "i3")
    shop.event("u1", "new")
    rules = follower(shop)
    await rules.refresh()
    made = weight(rules, shop, 3, NEW)
    assert made > 0
    assert shop.live is not None
    other = CatalogueView.of_model(shop.live, MaskCache())
    shop.current = other.with_records({name: ItemRecord({}).encode() for name in ("first", "new")})
    assert weight(rules, shop, 3, NEW + 1) == 0
    await rules.refresh()
    assert weight(rules, shop, 3, NEW) == 0
    assert weight(rules, shop, 3, NEW + 1) == pytest.approx(made, rel=1e-6)
    shop.live = None
    assert not await rules.refresh()


async def test_new_item_reaches_those_whose_like_chose_it() -> None:
    """After twenty users went from i3 to an item of which nothing is known."""
    shop = Shop()
    assert shop.live is not None
    history = [ItemSequence([3], [AT_MS], [1])]

    def rank(rules: LiveRules) -> int:
        assert shop.live is not None
        model = rules.applied(ColdItems().lengthened(shop.live, shop.current), shop.current)
        return int(np.flatnonzero(model.ranker.rank(history, NEW)[0].item_indices == NEW)[0]) + 1

    rules = follower(shop)
    assert rank(rules) > 10
    for number in range(20):
        shop.event(f"u{number}", "i3")
        shop.event(f"u{number}", "new")
    await rules.refresh()
    assert rank(rules) <= 5


async def test_rows_that_wait_are_made_at_later_refreshes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.recommender.live_rules.WORK_SECONDS", 0.0)
    monkeypatch.setattr("app.recommender.live_rules.TURN_SECONDS", 0.0)
    shop = Shop()
    for item in ("i3", "i4", "new"):
        shop.event("u1", item)
    rules = follower(shop)
    for _ in range(3):  # rows in the order in which they changed last: i3, i4, new
        await rules.refresh()
    monkeypatch.undo()
    whole = follower(shop)
    await whole.refresh()
    for index in (3, 4, NEW):
        for other in (3, 4, NEW):
            assert weight(rules, shop, index, other) == pytest.approx(weight(whole, shop, index, other), rel=1e-6)


async def test_only_tables_that_changed_are_given_to_the_runtime_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the item vectors would be copied to it with every refresh."""
    shop = Shop()
    assert shop.live is not None
    shop.event("u1", "i3")
    shop.event("u1", "new")
    rules = follower(shop)
    await rules.refresh()
    model = ColdItems().lengthened(shop.live, shop.current)
    assert isinstance(model.ranker, ExactRanker)
    given: list[int] = []
    wrap = ort.OrtValue.ortvalue_from_numpy

    def counted(table: np.ndarray, *where: Any) -> ort.OrtValue:
        given.append(table.shape[1])
        return wrap(table, *where)

    monkeypatch.setattr(ort.OrtValue, "ortvalue_from_numpy", counted)
    assert rules.applied(model, shop.current) is not model
    assert given == [model.ranker.tables["rule_items"].shape[1]] * 2
