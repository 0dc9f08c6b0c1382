"""Per-user sequences in the store: append and read."""

import math
from base64 import urlsafe_b64encode
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from hashlib import blake2b
from operator import attrgetter
from os import urandom
from typing import Any, NamedTuple

import orjson

from app.artifacts.manifest import EventUse
from app.state.connection import Store, store_errors
from app.state.keys import Keys, Owner
from app.state.script import Script, ScriptCall

__all__ = ["AppendOutcome", "Event", "History", "HistoryEvent", "Owner"]

SEPARATOR = "\x1f"
PREFIX_LENGTH = 10
MAX_POPULAR_ITEMS = 10_000
MAX_EVENTS_PER_CALL = 250
"""A script holds up every other client of the server: 250 events take it some 10 ms."""
MAX_EVENTS_PER_ROUND_TRIP = 1000
"""A round trip must end within the connection's timeout, sending included, which waits while the server works."""
DAY_MS = 86_400_000

_TIME = attrgetter("timestamp_us")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_SEQUENCES = tuple(high + low for high in _DIGITS for low in _DIGITS)


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it was received and checked.

    timestamp_us: epoch microseconds, below 2**53; `has_own_timestamp` is false where it is the time of arrival.
    sequence: 0–999, orders events of one time; None: the event's place in its batch.
    event_id: the caller's identity of the event; None: owner, item, type and time are, and where the event has no time
        of its own either, nothing is, so that every `append` stores it anew.
    use, weight: what the event-type map says. What enters the sequence counts for popularity, unless its weight is 0;
        a negative event is kept beside the sequence; any other is only logged.
    store: false keeps nothing of the event but its count in the items' popularity: no history, no log, no identity.
    """

    owner: Owner
    item_id: str
    event_type: str
    timestamp_us: int
    sequence: int | None = None
    event_id: str | None = None
    has_own_timestamp: bool = True
    use: EventUse = "sequence"
    weight: float = 1.0
    value: float | None = None
    recommendation_id: str | None = None
    position: int | None = None
    properties: Mapping[str, Any] | None = None
    store: bool = True


class HistoryEvent(NamedTuple):
    """One event of a history, as far as a ranking needs it. (A tuple: hundreds are made per request.)"""

    item_id: str
    event_type: str
    timestamp_us: int


_make = partial(tuple.__new__, HistoryEvent)
"""`HistoryEvent._make` without the function of Python that it is."""


class AppendOutcome(StrEnum):
    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    IGNORED = "ignored"
    """Older than everything that a full history keeps."""
    NOT_STORED = "not_stored"
    """As the event asks."""


_OUTCOMES = {
    ord("a"): AppendOutcome.ACCEPTED,
    ord("d"): AppendOutcome.DUPLICATE,
    ord("i"): AppendOutcome.IGNORED,
    ord("n"): AppendOutcome.NOT_STORED,
}


@dataclass(slots=True)
class _ShardCall:
    """What one shard is asked to append, and where its events stood in the batch."""

    keys: list[str]
    arguments: list[str | bytes]
    places: list[int] = field(default_factory=list)
    key_numbers: dict[str, str] = field(default_factory=dict)

    def number_of(self, key: str) -> str:
        number = self.key_numbers.get(key)
        if number is None:
            self.keys.append(key)
            number = self.key_numbers[key] = str(len(self.keys))
        return number


class History:
    """Histories of one namespace: sorted sets scored by event time, capped and expiring.

    A member is the sequence (2 characters, base 36), the identity's digest (8, base64url: 48 bits), the event type,
    U+001F and the item id. Short members matter: up to 64 bytes a set stays in its compact form.

    A negative event lies in the same set, so that one command reads both, at minus its time (and 1 µs, for the time 0):
    the newest come first there, and do not count against the cap of the others.
    """

    def __init__(
        self,
        redis: Store,
        *,
        namespace: str,
        shards: int,
        cap: int,
        ttl_days: int,
        log_max_entries: int,
        log_max_age_days: int,
        popularity_half_life_days: float,
        trending_half_life_hours: float = 24.0,
        writes_log: bool = True,
        on_log_dropped: Callable[[int], None] | None = None,
    ) -> None:
        """`on_log_dropped` hears how many entries a full or old event log lost before `collect` removed them."""
        self._redis = redis
        self._keys = Keys(namespace, shards)
        self._cap = cap
        self._half_life_s = popularity_half_life_days * 86_400
        self._header: list[str | bytes] = [
            str(cap),
            str(ttl_days * DAY_MS),
            str(log_max_entries),
            str(log_max_age_days * DAY_MS),
            repr(self._half_life_s),
            repr(trending_half_life_hours * 3600),
            str(MAX_POPULAR_ITEMS),
        ]
        self._script = Script(redis, "members", "append")
        self._writes_log = writes_log
        self._on_log_dropped = on_log_dropped

    async def append(self, events: Sequence[Event]) -> list[AppendOutcome]:
        """Store the events; the outcomes come in their order.

        One round trip up to 1,000 events, and in it one atomic script call per shard; more events go in several round
        trips, more than 250 of one shard in several calls.

        Events with an identity may be sent again, in any order and any division into batches: the histories come out
        the same. Of events with one identity the first wins. Without explicit `sequence`, events of one owner and one
        time keep the order of their batch (beyond 1,296 of them, the order of their digests). Where an answer was lost
        and the call repeated, an event that the first call stored counts as a duplicate.

        Raises:
            StoreUnavailable: not all is known to be stored. Each call's part is stored whole or not at all — so are a
                single event and a user's batch of up to 250 — but other shards of the batch may have stored theirs,
                and an answer that was lost on its way may belong to a write that happened. Sending the same batch
                again completes it.
            ValueError: an event type holds U+001F.
        """
        calls = self._encode(events)
        outcomes = [AppendOutcome.IGNORED] * len(events)
        num_dropped = 0
        for trip in _round_trips(calls):
            replies = await self._script.run(*[ScriptCall(call.keys, call.arguments) for call in trip])
            for call, (letters, dropped) in zip(trip, replies, strict=True):
                num_dropped += dropped
                for place, letter in zip(call.places, letters, strict=True):
                    outcomes[place] = _OUTCOMES[letter]
        if num_dropped and self._on_log_dropped is not None:
            self._on_log_dropped(num_dropped)
        return outcomes

    async def read(self, owner: Owner) -> list[HistoryEvent]:
        """The owner's newest `cap` events and newest negative ones, oldest first; none for an owner never seen.

        One round trip.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        with store_errors():
            reply = await self._redis.pipelined.call("ZRANGE", self._keys.history(owner), 0, -1, "WITHSCORES")
        return _parse(reply, self._cap)

    def _encode(self, events: Sequence[Event]) -> list[_ShardCall]:
        calls: list[_ShardCall] = []
        open_calls: dict[int, _ShardCall] = {}
        num_same_time: dict[tuple[Owner, int], int] = {}
        for place, event in enumerate(events):
            owner, at = event.owner, event.timestamp_us
            sequence = num_same_time.get((owner, at), 0)
            num_same_time[owner, at] = sequence + 1
            if event.sequence is not None:
                sequence = event.sequence
            digest = _digest(event)
            shard = self._keys.shard_of(owner)
            call = open_calls.get(shard)
            if call is None or len(call.places) == MAX_EVENTS_PER_CALL:
                keys = [self._keys.events(shard), self._keys.popularity(shard), self._keys.trending(shard)]
                call = open_calls[shard] = _ShardCall(keys, list(self._header))
                calls.append(call)
            member = _SEQUENCES[min(sequence, len(_SEQUENCES) - 1)] + digest
            popularity = ""
            score = at
            if event.use == "count":
                key = self._keys.counted(owner)
            else:
                if SEPARATOR in event.event_type:
                    raise ValueError(f"event type {event.event_type!r} holds U+001F, which ends the type in the store")
                member += event.event_type + SEPARATOR + event.item_id
                key = self._keys.history(owner)
                if event.use == "negative":
                    score = -1 - at
                elif event.weight > 0:
                    popularity = repr(at / 1_000_000 + self._half_life_s * math.log2(event.weight))
            if event.store:
                call.arguments += (
                    call.number_of(key),
                    str(score),
                    member,
                    popularity,
                    _log_data(event, sequence, digest) if self._writes_log else "",
                )
            else:
                call.arguments += ("0", str(score), member, popularity, "")
            call.places.append(place)
        return calls


def _round_trips(calls: Sequence[_ShardCall]) -> Iterator[list[_ShardCall]]:
    trip: list[_ShardCall] = []
    num_events = 0
    for call in calls:
        if trip and num_events + len(call.places) > MAX_EVENTS_PER_ROUND_TRIP:
            yield trip
            trip, num_events = [], 0
        trip.append(call)
        num_events += len(call.places)
    if trip:
        yield trip


def _digest(event: Event) -> str:
    if event.event_id is not None:
        identity = "id" + SEPARATOR + event.event_id
    elif event.has_own_timestamp:
        identity = f"{event.timestamp_us}{SEPARATOR}{event.event_type}{SEPARATOR}{event.item_id}"
    else:
        return urlsafe_b64encode(urandom(6)).decode()
    return urlsafe_b64encode(blake2b(identity.encode(), digest_size=6).digest()).decode()


def _log_data(event: Event, sequence: int, digest: str) -> bytes:
    """The JSON that the event log keeps: everything, since what is not logged cannot be collected later."""
    data: dict[str, Any] = {
        f"{event.owner.kind}_id": event.owner.id,
        "item_id": event.item_id,
        "event_type": event.event_type,
        "timestamp_us": event.timestamp_us,
        "sequence": sequence,
        "digest": digest,
    }
    if event.event_id is not None:
        data["event_id"] = event.event_id
    if event.value is not None:
        data["value"] = event.value
    if event.recommendation_id is not None:
        data["recommendation_id"] = event.recommendation_id
    if event.position is not None:
        data["position"] = event.position
    if event.properties:
        data["properties"] = event.properties
    return orjson.dumps(data)


def _parse(reply: Sequence[bytes], cap: int) -> list[HistoryEvent]:
    """Flat member, score, member, score … → events by time, of those that are not negative the newest `cap`.

    >>> _parse([b"00IjKlMnOpdismiss\\x1fi3", b"-2", b"00AbCdEfGhclick\\x1fi7", b"1700000000000000"], 200)[1]
    HistoryEvent(item_id='i7', event_type='click', timestamp_us=1700000000000000)
    """
    events = []
    for member, score in zip(reply[::2], reply[1::2], strict=True):
        event_type, _, item_id = member[PREFIX_LENGTH:].decode().partition(SEPARATOR)
        events.append(_make((item_id, event_type, int(score))))
    if events and events[0].timestamp_us < 0:
        num_negative = bisect_left(events, 0, key=_TIME)
        negative = [event._replace(timestamp_us=-1 - event.timestamp_us) for event in events[:num_negative]]
        first = max(num_negative, len(events) - cap)
        members = [*reply[: 2 * num_negative : 2], *reply[2 * first :: 2]]
        kept = zip(negative + events[first:], members, strict=True)
        # Of one time by their members, as the store has the others: so a batch without times keeps its order.
        return [event for event, _ in sorted(kept, key=lambda pair: (pair[0].timestamp_us, pair[1]))]
    return events[-cap:]
