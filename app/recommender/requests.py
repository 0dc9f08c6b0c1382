"""What is asked of the recommender, and what it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from app.artifacts.manifest import EventType
from app.state.filters import Filter
from app.state.history import HistoryEvent, Owner

Popular = Literal["popular", "trending"]
"""What many users choose: over the last weeks, or of late more than it used to be."""
Strategy = Literal["model", "similar"] | Popular


class Reason(StrEnum):
    """Why an answer is not what a model makes of a full history, or not all that was asked for."""

    UNKNOWN_USER = "unknown_user"
    NO_KNOWN_ITEM = "no_known_item"
    NO_MODEL = "no_model"
    STORE_UNAVAILABLE = "store_unavailable"
    UNKNOWN_CANDIDATES = "unknown_candidates"
    PIN_LEFT_OUT = "pin_left_out"
    NEW_ITEMS = "new_items"
    NO_VECTOR = "no_vector"
    SHORT_CATALOGUE = "short_catalogue"


@dataclass(frozen=True, slots=True)
class Boost:
    """Multiplies the probability of the items for which the filter holds by `factor`, above 0, before top-k."""

    filter: Filter
    factor: float


@dataclass(frozen=True, slots=True)
class Pin:
    """An item for a position, counted from 1, whatever the model thinks of it."""

    item_id: str
    position: int


@dataclass(frozen=True, slots=True)
class RecommendationRequest:
    """Exactly one of `owner` and `history` is given. `exclude_seen` None means what the live model's manifest says.

    Before top-k: an item comes only if it is available, the filter holds for it, it is one of the candidates (None: all
    items are) and it is not excluded. `boosts` change the scores of those that come.
    After top-k: `diversity` 0…1 (see `app.ranking.rerank.diversify`), then places for new items, then `pins`, of
    different items and positions. A pin passes over seen items and over the ranking, and over nothing else.

    strategy: None is the model, and what is popular for a user of whom it knows no item.
    new_item_share: of the list, for items that the model has not learnt (see `app.ranking.rerank.keep_places`); None:
        what the service is set to. Not with a `strategy`.
    target_event_type: the type of event for which the model ranks; None: any. It must have a head for it.
    """

    owner: Owner | None
    history: Sequence[HistoryEvent] | None
    k: int
    candidates: Sequence[str] | None = None
    filter: Filter | None = None
    exclude_seen: bool | None = None
    exclude_items: frozenset[str] = frozenset()
    boosts: tuple[Boost, ...] = ()
    pins: tuple[Pin, ...] = ()
    diversity: float = 0.0
    include_attributes: bool = False
    explain: bool = False
    include_probability: bool = False
    strategy: Popular | None = None
    target_event_type: str | None = None
    new_item_share: float | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A request and what the store holds of its owner, oldest first; nothing where the store did not answer.

    event_types: the map in force while no model is live, whose own it is otherwise.
    """

    request: RecommendationRequest
    events: Sequence[HistoryEvent]
    event_types: Mapping[str, EventType]
    store_failed: bool = False


@dataclass(frozen=True, slots=True)
class Contribution:
    """What an event of the history did for a recommendation; see `app.ranking.explanation`.

    timestamp_ms: None where the history came without times.
    """

    item_id: str
    timestamp_ms: int | None
    contribution: float


@dataclass(frozen=True, slots=True)
class RankedList:
    """Item ids with their scores in the order in which they are shown, and how they came about.

    probabilities: of each item, that it is the next one; None where the model cannot say.
    because: of each item, the events that the model read, by falling contribution; None unless that was asked for.
    """

    request: RecommendationRequest
    strategy: Strategy
    reasons: tuple[Reason, ...]
    history_length: int
    items: list[tuple[str, float]]
    because: Sequence[tuple[Contribution, ...]] | None = None
    probabilities: Sequence[float | None] | None = None


@dataclass(frozen=True, slots=True)
class RankedItem:
    """`rank` counts from 1; `score` falls with it, except where diversity or a pin moved items.

    `score` is NaN for a pinned item that the model has not learnt and for one that was brought in as new. `attributes`,
    `because` and `probability` are None unless they were asked for, `probability` also where it is not known.
    """

    item_id: str
    rank: int
    score: float
    attributes: dict[str, Any] | None
    because: tuple[Contribution, ...] | None = None
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`history_length` counts the stored (or given) events, known to the model or not. `next_cursor` leads to the next
    page of a list that is shown page by page."""

    recommendation_id: str
    strategy: Strategy
    degraded: bool
    reasons: tuple[Reason, ...]
    model_version: str | None
    history_length: int
    items: tuple[RankedItem, ...]
    next_cursor: str | None = None
