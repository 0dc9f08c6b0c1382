"""The items that can be recommended: what the live artifact knows, and what was changed since."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import structlog

from app.background import BackgroundTask
from app.errors import CatalogueFull, StoreUnavailable
from app.state.connection import Store
from app.state.items.fields import FieldKinds
from app.state.items.live import LiveItems
from app.state.items.masks import MaskCache
from app.state.items.records import DELETED, UNCHANGED, ItemRecord
from app.state.items.store import Change, ChangesLost, ItemStore, PutOutcome
from app.state.items.view import CatalogueItem, CatalogueModel, CatalogueView

__all__ = ["Catalogue", "CatalogueItem", "CatalogueView", "FieldKinds", "ItemRecord", "PutOutcome"]

FOLLOW_SECONDS = 0.25
"""So often a worker asks for the changes of others."""
RETRY_SECONDS = 1.0
TURN = 500
"""After so many changes other requests have their turn."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """The live items in the order of a model that is about to go live, and what changed since they were put into it."""

    items: LiveItems
    since: dict[str, bytes]


class Catalogue:
    """A worker's copy of the live items, which follows the store while it is entered (`async with`).

    What this worker writes is in force at once; what others write, within half a second of their answer. While the
    store is down the copy stays as it is.
    """

    def __init__(self, redis: Store, *, namespace: str, max_items: int) -> None:
        self._store = ItemStore(redis, namespace=namespace, max_items=max_items)
        self._masks = MaskCache()
        self._items = LiveItems(CatalogueView.of_model(None, self._masks))
        self._prepared: _Prepared | None = None
        self._since: dict[str, bytes] | None = None
        """Records of what changed since `prepare` was called, until its model is live."""
        self._revision = 0
        """Every change up to it is in the copy."""
        self._ahead: dict[str, Change] = {}
        """Changes beyond it that are in the copy too: this worker's own, until the log comes to them."""
        self._complete = False
        self._follower = BackgroundTask()

    @property
    def complete(self) -> bool:
        """Whether the live items were read at least once."""
        return self._complete

    def prepare(self, model: CatalogueModel) -> None:
        """Bring the items into the order of a model that is about to go live: seconds at a million of them, in any
        thread."""
        since: dict[str, bytes] = {}
        self._since = since  # before the records are read: what comes in between is in both, and that does no harm
        items = LiveItems(CatalogueView.of_model(model, self._masks), self._items.records())
        for block in items.view.blocks:
            _ = block.columns
        self._prepared = _Prepared(items, since)

    def view(self, model: CatalogueModel | None) -> CatalogueView:
        """The catalogue now, in the item indices of this model; None: there are only items that were added live.

        Take it in the same moment as the model, once per request.
        """
        if self._items.view.model is not model:
            self._switch(model)
        return self._items.view

    async def put(self, records: Sequence[tuple[str, ItemRecord]]) -> list[PutOutcome]:
        """Put the records in the place of the items' earlier ones; the outcomes come in their order. Of two records of
        one item the later one stays.

        Raises:
            StoreUnavailable: some may have been put. Putting all of them again completes it.
        """
        encoded = [(item_id, record.encode()) for item_id, record in records]
        replies = await self._store.put(encoded)
        self._apply_own(
            Change(item_id, reply.revision, record)
            for (item_id, record), reply in zip(encoded, replies, strict=True)
            if reply.outcome is PutOutcome.PUT
        )
        return [reply.outcome for reply in replies]

    async def patch(
        self, model: CatalogueModel | None, item_id: str, attributes: Mapping[str, Any], available: bool | None
    ) -> CatalogueItem | None:
        """Change the named attributes and leave the others; the item as it is then. None: there is no such item.

        Raises:
            CatalogueFull: the item is one of the model's, and there is no room for a record of its own.
            StoreUnavailable: it may have been changed all the same; doing it again changes nothing then.
        """
        index = model.vocabulary.index_of(item_id) if model is not None else None
        while True:  # until nobody else changed the item between our reading and our writing
            stored = await self._store.read(item_id)
            before = ItemRecord.decode(stored[1]) if stored is not None else UNCHANGED
            if before.deleted or (stored is None and index is None):
                return None
            record = before.patched(attributes, available)
            expected = stored[0] if stored is not None else None
            (reply,) = await self._store.put([(item_id, record.encode())], expected_revision=expected)
            match reply.outcome:
                case PutOutcome.CONFLICT:
                    continue
                case PutOutcome.FULL:
                    raise CatalogueFull
                case PutOutcome.PUT:
                    self._apply_own([Change(item_id, reply.revision, record.encode())])
            base = model.attributes[index] if model is not None and index is not None else {}
            return CatalogueItem(item_id, *record.over(base), in_model=index is not None)

    async def delete(self, item_id: str) -> PutOutcome:
        """From now on there is no such item, whatever this model or a later one knows, until it is put again.

        Raises:
            CatalogueFull: the item has no record, and there is no room for one.
            StoreUnavailable: it may have been deleted all the same.
        """
        (outcome,) = await self.put([(item_id, DELETED)])
        if outcome is PutOutcome.FULL:
            raise CatalogueFull
        return outcome

    async def refresh(self) -> None:
        """Take in what others have changed since the last time.

        Raises:
            StoreUnavailable: the copy stays as it is.
        """
        if not self._complete:
            await self._read_all()
        while True:
            try:
                changes = await self._store.changes_after(self._revision, TURN)
            except ChangesLost as reason:
                _log.warning("items_read_anew", reason=str(reason))
                await self._read_all()
                continue
            self._apply([change for change in changes if not self._has(change)])
            if changes:
                self._revision = max(self._revision, changes[-1].revision)
                self._ahead = {name: own for name, own in self._ahead.items() if own.revision > self._revision}
            if len(changes) < TURN:
                return
            await asyncio.sleep(0)

    async def __aenter__(self) -> "Catalogue":
        """Reads all live items. A store that does not answer is no reason not to start: they are read when it does."""
        try:
            await self.refresh()
        except StoreUnavailable:
            _log.warning("items_not_read")
        self._follower.start(self._follow(), "catalogue")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._follower.stop()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            try:
                await self.refresh()
            except StoreUnavailable:
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:  # a task that ended would leave this worker's copy behind for ever, and nobody would know
                _log.exception("catalogue_not_followed")
                await asyncio.sleep(RETRY_SECONDS)

    async def _read_all(self) -> None:
        revision = await self._store.last_revision()
        found: dict[str, Change] = {}
        async for page in self._store.read_all():
            found.update((change.item_id, change) for change in page)
        own = {name: change for name, change in self._ahead.items() if change.revision > revision}
        for name, change in own.items():
            if name not in found or found[name].revision < change.revision:
                found[name] = change
        self._ahead = {name: change for name, change in found.items() if change.revision > revision}
        self._revision = revision
        self._complete = True
        self._prepared = self._since = None
        self._begin(self._items.view.model, ((change.item_id, change.record) for change in found.values()))

    def _has(self, change: Change) -> bool:
        ahead = self._ahead.get(change.item_id)
        return change.revision <= self._revision or (ahead is not None and change.revision <= ahead.revision)

    def _apply_own(self, changes: Iterable[Change]) -> None:
        """Answers may come in another order than the changes were made in."""
        new = [change for change in changes if not self._has(change)]
        self._ahead.update((change.item_id, change) for change in new)
        self._apply(new)

    def _apply(self, changes: Sequence[Change]) -> None:
        if changes:
            self._items.place((change.item_id, change.record) for change in changes)
            if self._since is not None:  # asked behind the line before: see `prepare`
                self._since.update((change.item_id, change.record) for change in changes)
            if self._items.is_crowded:
                self._begin(self._items.view.model, self._items.records())

    def _switch(self, model: CatalogueModel | None) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared.items.view.model is model and prepared.since is self._since:
            self._items = prepared.items
            self._items.place(prepared.since.items())
        else:
            self._begin(model, self._items.records())
        self._since = None

    def _begin(self, model: CatalogueModel | None, records: Iterable[tuple[str, bytes]]) -> None:
        self._items = LiveItems(CatalogueView.of_model(model, self._masks), records)
