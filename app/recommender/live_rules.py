"""The crowd's newest behaviour: the live model's rules carried on with the event log, by every worker for itself.

The log and the histories are all that is read, so workers need not know of each other, a restart begins again where the
log begins, and what is erased of a user is gone from both. A model that goes live has its rules carried on from the
moment when it was exported.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol

import orjson
import structlog

from app.artifacts.registry import LiveModel
from app.background import BackgroundTask
from app.errors import StoreUnavailable
from app.ranking.approximate import ApproximateRanker
from app.ranking.exact import ExactRanker
from app.ranking.rules import KnownRules, NewRules, Tables
from app.recommender.sequences import enters_sequence
from app.recommender.sources import Catalogues, Histories, Models
from app.state.catalogue import CatalogueView
from app.state.event_log import LogEntry
from app.state.history import HistoryEvent, Owner

REFRESH_SECONDS = 5.0
BEHIND_SECONDS = 0.5
"""How long a worker rests that has not read all of the log yet."""
EVENTS_PER_SHARD = 100
"""Read of each shard at most, before other work has its turn."""
WORK_SECONDS = 0.5
"""Rows are made anew for so long at a refresh, a tenth of the time; others wait for the next one."""
BEHIND_WORK_SECONDS = 0.05
OWNERS_PER_TURN = 5
"""Their histories are read at once, which takes about a turn."""
TURN_SECONDS = 0.001
"""Then requests have theirs, for `REST` times as long. Not a thread: it would compete for the interpreter, and a
request that loses it waits for five milliseconds each time."""
REST = 4
MAX_ITEMS = 300_000
"""In a larger catalogue the rules stay as the model has them: every refresh copies the tables."""

_log = structlog.get_logger(__name__)


class Log(Protocol):
    @property
    def num_shards(self) -> int: ...

    async def read(self, shard: int, after: str, upto: str, count: int) -> list[LogEntry]: ...


@dataclass(frozen=True, eq=False)
class _Made:
    """Tables, and the numbering of items that they are in."""

    tables: Tables
    numbering: object


class LiveRules:
    """Follows the log while it is entered (`async with`). What was read counts for every request a moment later."""

    def __init__(self, log: Log, histories: Histories, models: Models, catalogue: Catalogues) -> None:
        self._event_log = log
        self._histories = histories
        self._models = models
        self._catalogue = catalogue
        self._live: LiveModel | None = None
        self._rules = NewRules()
        self._positions: list[str] = []
        self._made: _Made | None = None
        self._applied: tuple[LiveModel, _Made, LiveModel] | None = None
        self._follower = BackgroundTask()

    def applied(self, model: LiveModel, view: CatalogueView) -> LiveModel:
        """A model that has a row for every item of the view, with the rules as they are now."""
        made, ranker = self._made, _with_rules(model)
        if made is None or made.numbering is not view.numbering or ranker is None:
            return model
        if self._applied is None or self._applied[0] is not model or self._applied[1] is not made:
            items_VN, weights_VN = made.tables
            tables = {**ranker.tables, "rule_items": items_VN, "rule_weights": weights_VN}
            self._applied = model, made, model.with_ranker(ranker.with_tables(tables))
        return self._applied[2]

    async def refresh(self) -> bool:
        """Take in what the log has since the last time; whether the log may have more.

        Raises:
            StoreUnavailable: the rules stay as they are, and nothing is counted twice.
        """
        live = self._models.live
        ranker = _with_rules(live)
        if live is None or ranker is None:
            self._live = self._made = self._applied = None
            return False
        if live is not self._live:
            exported_ms = round(datetime.fromisoformat(live.manifest.created_at).timestamp() * 1000)
            self._live, self._made, self._applied, self._rules = live, None, None, NewRules()
            self._positions = [f"{exported_ms}-0"] * self._event_log.num_shards
        is_behind = False
        num_added = 0
        for shard, position in enumerate(self._positions):
            entries = await self._event_log.read(shard, position, "+", EVENTS_PER_SHARD)
            num_added += await self._add([orjson.loads(entry.data) for entry in entries if entry.kind == "event"])
            if entries:
                self._positions[shard] = entries[-1].position
            is_behind = is_behind or len(entries) == EVENTS_PER_SHARD
        view = self._catalogue.view(live)
        made = self._made if self._made is not None and self._made.numbering is view.numbering else None
        if view.num_items <= MAX_ITEMS and (num_added or self._rules.num_waiting or made is not self._made):
            known = KnownRules(
                ranker.tables["rule_items"],
                ranker.tables["rule_weights"],
                live.popularity,
                view.num_items,
                view.index_of,
            )
            since = made.tables if made is not None else None
            if since is None:
                self._rules.change_all()
            tables = await asyncio.to_thread(known.tables, since)  # copies, for which numpy lets go of the interpreter
            await self._make_rows(tables, known, BEHIND_WORK_SECONDS if is_behind else WORK_SECONDS)
            self._made = _Made(tables, view.numbering)
        return is_behind

    async def _make_rows(self, tables: Tables, known: KnownRules, work_seconds: float) -> None:
        """One at least. A worker that is short of time wakes up late, which counts as work: it makes fewer rows."""
        worked = 0.0
        while self._rules.num_waiting:
            begin = time.perf_counter()
            self._rules.write(tables, known, at_most=1)
            while self._rules.num_waiting and time.perf_counter() - begin < TURN_SECONDS:
                self._rules.write(tables, known, at_most=1)
            end = time.perf_counter()
            worked += end - begin
            if worked >= work_seconds:
                return
            rest = REST * (end - begin)
            await asyncio.sleep(rest)
            worked += time.perf_counter() - end - rest

    async def _add(self, events: Sequence[Mapping[str, Any]]) -> int:
        """Count those that stand in their owners' histories, each with what stands before it; how many they were."""
        event_types = self._models.event_types
        of_owner: dict[Owner, list[Mapping[str, Any]]] = {}
        for event in events:
            if ("user_id" in event or "session_id" in event) and enters_sequence(event["event_type"], event_types):
                of_owner.setdefault(Owner.of_caller(event.get("user_id"), event.get("session_id")), []).append(event)
        # All are read before one is counted: a store that fails half-way would have some events counted twice.
        histories: list[Sequence[HistoryEvent]] = []
        owners = list(of_owner)
        for first in range(0, len(owners), OWNERS_PER_TURN):
            some = owners[first : first + OWNERS_PER_TURN]
            histories += await asyncio.gather(*(self._histories.read(owner) for owner in some))
            await asyncio.sleep(REST * TURN_SECONDS)
        num_added = 0
        for news, history in zip(of_owner.values(), histories, strict=True):
            sequence = [event for event in history if enters_sequence(event.event_type, event_types)]
            place_of = {(event.item_id, event.timestamp_us): place for place, event in enumerate(sequence)}
            item_ids = [event.item_id for event in sequence]
            for event in news:
                place = place_of.get((event["item_id"], event["timestamp_us"]))
                if place is not None:  # not one that is only counted, nor erased, nor older than all that is kept
                    self._rules.add(event["item_id"], item_ids[:place])
                    num_added += 1
        return num_added

    async def __aenter__(self) -> "LiveRules":
        self._follower.start(self._follow(), "live-rules")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._follower.stop()

    async def _follow(self) -> None:
        while True:
            is_behind = False
            try:
                is_behind = await self.refresh()
            except StoreUnavailable:
                pass  # other parts say so; the next refresh goes on where this one stopped
            except Exception:  # a task that ended would leave the rules as they are for ever, and nobody would know
                _log.exception("rules_not_followed")
            await asyncio.sleep(BEHIND_SECONDS if is_behind else REFRESH_SECONDS)


def _with_rules(live: LiveModel | None) -> ExactRanker | ApproximateRanker | None:
    """The ranker of a model that is mixed with rules, from tables that can be replaced."""
    if live is None or not isinstance(live.ranker, ExactRanker | ApproximateRanker):
        return None
    return live.ranker if "rule_items" in live.ranker.tables else None
