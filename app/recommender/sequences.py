"""From stored events to what a model reads."""

from collections.abc import Sequence

from app.artifacts.manifest import DEFAULT_EVENT_TYPES, EventType
from app.artifacts.registry import LiveModel
from app.ranking.ranker import ItemSequence
from app.state.history import HistoryEvent


def enters_sequence(event_type: str, event_types: dict[str, EventType]) -> bool:
    """A type that the map does not name enters the sequence."""
    declared = event_types.get(event_type)
    return declared is None or declared.enters_sequence


def relevant(history: Sequence[HistoryEvent], live: LiveModel | None) -> list[HistoryEvent]:
    """Of a history that came with the request, the events that a store would hold."""
    event_types = live.manifest.event_types if live is not None else DEFAULT_EVENT_TYPES
    return [event for event in history if enters_sequence(event.event_type, event_types)]


def encode(events: Sequence[HistoryEvent], live: LiveModel) -> ItemSequence:
    """The newest `max_length` events whose item the model knows, oldest first."""
    index_of, event_types, max_length = live.vocabulary.index_of, live.manifest.event_types, live.manifest.max_length
    items: list[int] = []
    timestamps_ms: list[int] = []
    types: list[int] = []
    for item_id, event_type, timestamp_us in reversed(events):
        index = index_of(item_id)
        if index is None or not enters_sequence(event_type, event_types):
            continue
        items.append(index)
        timestamps_ms.append(timestamp_us // 1000)
        types.append(event_types[event_type].index if event_type in event_types else 0)
        if len(items) == max_length:
            break
    return ItemSequence(items[::-1], timestamps_ms[::-1], types[::-1])
