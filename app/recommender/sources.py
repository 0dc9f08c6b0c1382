"""What recommendations are made from, as this room sees it."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from app.artifacts.manifest import EventType
from app.artifacts.registry import LiveModel
from app.state.catalogue import CatalogueView
from app.state.history import HistoryEvent, Owner


class Histories(Protocol):
    """Where sequences live."""

    async def read(self, owner: Owner) -> Sequence[HistoryEvent]:
        """Oldest first. Raises StoreUnavailable."""
        ...


class Models(Protocol):
    """Which model is live, and which event types are in force whether or not one is."""

    @property
    def live(self) -> LiveModel | None: ...

    @property
    def event_types(self) -> Mapping[str, EventType]: ...


class Catalogues(Protocol):
    """Which items there are now."""

    def view(self, model: LiveModel | None) -> CatalogueView: ...
