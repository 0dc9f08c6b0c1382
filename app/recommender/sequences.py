"""From stored events to what a model reads."""

import time
from collections.abc import Mapping, Sequence

from app.artifacts.manifest import EventType
from app.artifacts.registry import LiveModel
from app.ranking.ranker import ItemSequence
from app.state.catalogue import CatalogueView
from app.state.history import HistoryEvent

DAY_US = 86_400_000_000


def enters_sequence(event_type: str, event_types: Mapping[str, EventType]) -> bool:
    """A type that the map does not name enters the sequence."""
    declared = event_types.get(event_type)
    return declared is None or declared.enters_sequence


def relevant(history: Sequence[HistoryEvent], event_types: Mapping[str, EventType]) -> list[HistoryEvent]:
    """Of a history that came with the request, the events that a store would hold."""
    return [
        event
        for event in history
        if enters_sequence(event.event_type, event_types) or event_types[event.event_type].hides_days > 0
    ]


def gone_items(
    events: Sequence[HistoryEvent],
    event_types: Mapping[str, EventType],
    *,
    exclude_seen: bool,
    now_us: int | None = None,
) -> set[str]:
    """Items that the user's own events keep from coming: the seen ones, where asked for, and the dismissed ones.

    An item is dismissed by a negative event that is not too old, until a later event of another kind on it. Events come
    oldest first; those without a time (0) are of this moment, which `now_us` says where it is not the clock's.
    """
    now_us = time.time_ns() // 1000 if now_us is None else now_us
    hides_us = {name: declared.hides_days * DAY_US for name, declared in event_types.items() if declared.hides_days}
    seen: set[str] = set()
    dismissed: set[str] = set()
    for item_id, event_type, timestamp_us in events:
        if event_type not in hides_us:
            seen.add(item_id)
            dismissed.discard(item_id)
        elif timestamp_us == 0 or now_us - timestamp_us < hides_us[event_type]:
            dismissed.add(item_id)
    return seen | dismissed if exclude_seen else dismissed


def encode(events: Sequence[HistoryEvent], live: LiveModel, view: CatalogueView) -> ItemSequence:
    """The newest `max_length` events whose item the ranker has a row for, oldest first."""
    index_of, num_items, event_types = view.index_of, live.ranker.num_items, live.manifest.event_types
    # Many events are of few types: what the map says of each is looked up once.
    type_indices = {
        name: event_types[name].index if name in event_types else 0
        for name in {event.event_type for event in events}
        if enters_sequence(name, event_types)
    }
    read = [
        (index, timestamp_us // 1000, type_indices[event_type])
        for item_id, event_type, timestamp_us in events
        if event_type in type_indices and (index := index_of(item_id)) is not None and index <= num_items
    ]
    items, timestamps_ms, types = zip(*read[-live.manifest.max_length :], strict=True) if read else ((), (), ())
    return ItemSequence(items, timestamps_ms, types)
