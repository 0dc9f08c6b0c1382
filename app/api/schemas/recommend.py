"""Bodies and answers of `/recommend`, `/recommend/batch` and `/similar`."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Discriminator, Field, Tag, model_validator

from app.api.schemas.common import MAX_HISTORY, Body, EventTypeName, Id, ScenarioName, Timestamp
from app.api.schemas.filters import FilterField
from app.api.schemas.problems import Problem

MAX_CANDIDATES = 10_000
MAX_EXCLUDED = 1000
MAX_BOOSTS = 20
MAX_PINS = 50
MAX_K = 500
MAX_EXPLAINED = 50
MAX_REQUESTS = 256
BESIDE_CURSOR = frozenset({"cursor", "paginate", "scenario", "user_id", "session_id", "k", "include"})
MAX_ANCHORS = 50


Cursor = Annotated[str, Field(min_length=1, max_length=64)]


class HistoryItem(Body):
    """One step of a history that the caller sends along."""

    item_id: Id
    timestamp: Timestamp | None = None
    event_type: EventTypeName = "interaction"


def _kind_of_step(value: object) -> str:
    return "item_id" if isinstance(value, str) else "step"


HistoryStepBody = Annotated[
    Annotated[Id, Tag("item_id")] | Annotated[HistoryItem, Tag("step")], Discriminator(_kind_of_step)
]
"""An item id or an object; the discriminator names the faults of the one that was meant."""


class BoostBody(Body):
    """Items for which the filter holds become `factor` times as probable before the best `k` are taken."""

    filter: FilterField
    factor: float = Field(ge=0.001, le=1000, description="Above 1 promotes, below 1 demotes.")


class PinBody(Body):
    """The item stands at this position, whatever the model thinks of it."""

    item_id: Id
    position: int = Field(ge=1, le=MAX_K)


class RankingBody(Body):
    """What every ranking takes."""

    scenario: ScenarioName | None = Field(
        None, description="Fill what this body leaves out with the defaults that the service declares under this name."
    )
    k: int = Field(10, ge=1, le=MAX_K)
    candidates: list[Id] | None = Field(
        None,
        min_length=1,
        max_length=MAX_CANDIDATES,
        description="Rank these items alone; those that the catalogue does not know are left out.",
    )
    filter: FilterField | None = Field(None, description="Rank only items for which it holds.")
    exclude_items: list[Id] = Field(default_factory=list, max_length=MAX_EXCLUDED)
    boosts: list[BoostBody] = Field(default_factory=list, max_length=MAX_BOOSTS)
    pins: list[PinBody] = Field(default_factory=list, max_length=MAX_PINS)
    diversity: float = Field(
        0.0, ge=0, le=1, description="0 keeps the ranking, 1 spreads it as far as its best items allow."
    )
    include: list[Literal["attributes"]] = Field(default_factory=list, max_length=1)

    @model_validator(mode="after")
    def _pins_do_not_meet(self) -> Self:
        for name in ("item_id", "position"):
            if len({getattr(pin, name) for pin in self.pins}) < len(self.pins):
                raise ValueError(f"two pins have the same {name}")
        return self


def _require_one_caller(*callers: object) -> None:
    if callers.count(None) != 2:
        raise ValueError("needs exactly one of user_id, session_id and history")


class BatchedBody(RankingBody):
    """Exactly one of `user_id`, `session_id` and `history`."""

    user_id: Id | None = None
    session_id: Id | None = None
    history: list[HistoryStepBody] | None = Field(
        None,
        max_length=MAX_HISTORY,
        description="Oldest first; nothing is stored. With timestamps on every step they decide the order.",
    )
    exclude_seen: bool | None = Field(None, description="Hide items of the history; the model's own default if null.")
    strategy: Literal["popular", "trending"] | None = Field(
        None, description="Rank by what many choose; null is the model, and what is popular where it knows no item."
    )
    target_event_type: EventTypeName | None = Field(
        None, description="Rank for events of this type, which the model must have a head for; null is any type."
    )
    new_item_share: float | None = Field(
        None,
        ge=0,
        le=0.5,
        description="Share of the places for items that the model has not learnt; null is what the service is set to.",
    )

    @model_validator(mode="after")
    def _target_is_the_models(self) -> Self:
        if self.strategy is not None and self.target_event_type is not None:
            raise ValueError("target_event_type is for the model; leave out strategy")
        return self

    @model_validator(mode="after")
    def _has_one_caller(self) -> Self:
        _require_one_caller(self.user_id, self.session_id, self.history)
        return self

    @model_validator(mode="after")
    def _history_has_all_times_or_none(self) -> Self:
        timed = sum(isinstance(step, HistoryItem) and step.timestamp is not None for step in self.history or ())
        if timed not in (0, len(self.history or ())):
            raise ValueError("history needs a timestamp on every step or on none")
        return self


class RecommendBody(BatchedBody):
    """Exactly one of `user_id`, `session_id` and `history`; with a `cursor` the `history` is not repeated."""

    explain: bool = Field(False, description="Say which events of the history carry each item; k is at most 50 then.")
    probability: bool = Field(
        False, description="Say of each item how likely it is to come next, where the model's artifact is calibrated."
    )
    paginate: bool = Field(False, description="Answer with a next_cursor, by which the list goes on.")
    cursor: Cursor | None = Field(
        None, description="The next_cursor of the page before. Beside it only the caller, k and include have a say."
    )

    @model_validator(mode="after")
    def _has_one_caller(self) -> Self:
        if self.cursor is None:
            _require_one_caller(self.user_id, self.session_id, self.history)
        elif self.user_id is not None and self.session_id is not None:
            raise ValueError("needs at most one of user_id and session_id")
        return self

    @model_validator(mode="after")
    def _explains_a_short_list_and_no_pages(self) -> Self:
        if self.explain and self.k > MAX_EXPLAINED:
            raise ValueError(f"explain takes a k of at most {MAX_EXPLAINED}")
        if self.paginate and (self.explain or self.probability):
            raise ValueError("paginate excludes explain and probability")
        return self

    @model_validator(mode="after")
    def _cursor_goes_on_with_a_list_as_it_is(self) -> Self:
        others = sorted(self.model_fields_set - BESIDE_CURSOR)
        if self.cursor is not None and others:
            raise ValueError(f"a cursor goes on with a list as it is; leave out {', '.join(others)}")
        return self


class SimilarBody(RankingBody):
    """Exactly one of `item_id` and `item_ids`."""

    item_id: Id | None = None
    item_ids: list[Id] | None = Field(None, min_length=1, max_length=MAX_ANCHORS)

    @model_validator(mode="after")
    def _has_one_kind(self) -> Self:
        if (self.item_id is None) == (self.item_ids is None):
            raise ValueError("needs exactly one of item_id and item_ids")
        return self


class ContributionAnswer(BaseModel):
    """An event that the model read; `timestamp` is null where the history came without times. `contribution` is by how
    much the logarithm of the item's probability falls without the event."""

    item_id: str
    timestamp: str | None
    contribution: float


class RankedItemAnswer(BaseModel):
    """`rank` counts from 1. `score` is null for a pinned item that the model has not learnt, and in a place kept for
    one. `attributes`,
    `because` and `probability` are there only when they were asked for, `probability` only where the artifact is
    calibrated and the model has learnt the item."""

    item_id: str
    rank: int
    score: float | None
    attributes: dict[str, Any] | None = None
    because: list[ContributionAnswer] | None = None
    probability: float | None = None


class RecommendAnswer(BaseModel):
    """`reasons` says why the answer is not a full ranking by the model; empty when it is. `next_cursor` is there only
    with `paginate` or `cursor`; null on the last page."""

    recommendation_id: str
    strategy: Literal["model", "popular", "trending"]
    degraded: bool
    reasons: list[str]
    model_version: str | None
    history_length: int
    items: list[RankedItemAnswer]
    next_cursor: str | None = None


class SimilarAnswer(BaseModel):
    """`strategy` is `similar`, or another one with a reason."""

    recommendation_id: str
    strategy: Literal["similar", "model", "popular"]
    degraded: bool
    reasons: list[str]
    model_version: str | None
    items: list[RankedItemAnswer]


class RecommendBatchBody(Body):
    """Up to 256 requests. (The route reads them one by one, so that each can fail alone.)"""

    requests: list[BatchedBody] = Field(min_length=1, max_length=MAX_REQUESTS)


class RecommendBatchAnswer(BaseModel):
    """To each request, in their order, what `/recommend` would have answered: a recommendation or a problem."""

    results: list[RecommendAnswer | Problem]
