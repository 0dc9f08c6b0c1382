"""Segue's HTTP API for Python, typed: copy this file into your project. It needs httpx and nothing else.

Made from docs/openapi.json by `python -m tests.contract.test_openapi`; docs/examples/shop.py shows how it is used.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict
from urllib.parse import quote

import httpx


class Refused(Exception):
    """The service answered with a problem; `problem["code"]` says which."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem['code']}: {problem['detail']}")
        self.problem = problem


def _part(item_or_user_id: str) -> str:
    return quote(item_or_user_id, safe="")


def _call(client: httpx.Client, method: str, path: str, body: object = None, **parameters: str | int | None) -> Any:
    given = {name: value for name, value in parameters.items() if value is not None}
    answer = client.request(method, path, json=body, params=given)
    if answer.is_error:
        raise Refused(answer.json())
    return answer.json() if answer.content else None


def post_recommend(client: httpx.Client, body: RecommendBody) -> RecommendAnswer:
    """Rank items for a user, a guest or a given history."""
    answer: RecommendAnswer = _call(client, "POST", "/recommend", body)
    return answer


def post_recommend_batch(client: httpx.Client, body: RecommendBatchBody) -> RecommendBatchAnswer:
    """Rank items for many users, guests or histories at once."""
    answer: RecommendBatchAnswer = _call(client, "POST", "/recommend/batch", body)
    return answer


def post_similar(client: httpx.Client, body: SimilarBody) -> SimilarAnswer:
    """Find items like one or several others."""
    answer: SimilarAnswer = _call(client, "POST", "/similar", body)
    return answer


def post_events(client: httpx.Client, body: EventBody | list[EventBody] | EventBatch) -> EventsAnswer:
    """Store one event or many."""
    answer: EventsAnswer = _call(client, "POST", "/events", body)
    return answer


def post_users_merge(client: httpx.Client, body: MergeBody) -> MergeAnswer:
    """Make a guest's events a user's."""
    answer: MergeAnswer = _call(client, "POST", "/users/merge", body)
    return answer


def get_user(client: httpx.Client, user_id: str, *, limit: int | None = None) -> UserAnswer:
    """Read a user's history."""
    answer: UserAnswer = _call(client, "GET", f"/users/{_part(user_id)}", limit=limit)
    return answer


def delete_user(client: httpx.Client, user_id: str) -> UserErasedAnswer:
    """Erase a user."""
    answer: UserErasedAnswer = _call(client, "DELETE", f"/users/{_part(user_id)}")
    return answer


def get_session(client: httpx.Client, session_id: str, *, limit: int | None = None) -> SessionAnswer:
    """Read a guest's history."""
    answer: SessionAnswer = _call(client, "GET", f"/sessions/{_part(session_id)}", limit=limit)
    return answer


def delete_session(client: httpx.Client, session_id: str) -> SessionErasedAnswer:
    """Erase a guest."""
    answer: SessionErasedAnswer = _call(client, "DELETE", f"/sessions/{_part(session_id)}")
    return answer


def get_items(
    client: httpx.Client, *, title_prefix: str | None = None, limit: int | None = None, cursor: str | None = None
) -> ItemsAnswer:
    """List items, or find them by title."""
    answer: ItemsAnswer = _call(client, "GET", "/items", title_prefix=title_prefix, limit=limit, cursor=cursor)
    return answer


def post_items(client: httpx.Client, body: BulkItemBody | list[BulkItemBody] | ItemBatch) -> ItemsPutAnswer:
    """Put many items."""
    answer: ItemsPutAnswer = _call(client, "POST", "/items", body)
    return answer


def get_item(client: httpx.Client, item_id: str) -> ItemAnswer:
    """Read one item."""
    answer: ItemAnswer = _call(client, "GET", f"/items/{_part(item_id)}")
    return answer


def put_item(client: httpx.Client, item_id: str, body: ItemBody) -> ItemAnswer:
    """Add an item, or replace what is known of it."""
    answer: ItemAnswer = _call(client, "PUT", f"/items/{_part(item_id)}", body)
    return answer


def patch_item(client: httpx.Client, item_id: str, body: ItemPatchBody) -> ItemAnswer:
    """Change some attributes of an item, or its availability."""
    answer: ItemAnswer = _call(client, "PATCH", f"/items/{_part(item_id)}", body)
    return answer


def delete_item(client: httpx.Client, item_id: str) -> None:
    """Take an item out."""
    _call(client, "DELETE", f"/items/{_part(item_id)}")


def get_models(client: httpx.Client) -> ModelsAnswer:
    """Read the live version and those on disk."""
    answer: ModelsAnswer = _call(client, "GET", "/models")
    return answer


def get_livez(client: httpx.Client) -> LiveAnswer:
    """Is the process alive?."""
    answer: LiveAnswer = _call(client, "GET", "/livez")
    return answer


def get_readyz(client: httpx.Client) -> ReadyAnswer:
    """Can it do its work?."""
    answer: ReadyAnswer = _call(client, "GET", "/readyz")
    return answer


def get_metrics(client: httpx.Client) -> None:
    """Metrics of all workers in the Prometheus text format."""
    _call(client, "GET", "/metrics")


class AllBody(TypedDict):
    """Every one of them holds."""

    all: list[AllBody | AnyBody | NotBody | ConditionBody]


class AnyBody(TypedDict):
    """At least one of them holds."""

    any: list[AllBody | AnyBody | NotBody | ConditionBody]


class BatchedBody(TypedDict):
    """Exactly one of `user_id`, `session_id` and `history`."""

    scenario: NotRequired[str | None]
    k: NotRequired[int]
    candidates: NotRequired[list[str] | None]
    filter: NotRequired[AllBody | AnyBody | NotBody | ConditionBody | None]
    exclude_items: NotRequired[list[str]]
    boosts: NotRequired[list[BoostBody]]
    pins: NotRequired[list[PinBody]]
    diversity: NotRequired[float]
    include: NotRequired[list[Literal["attributes"]]]
    user_id: NotRequired[str | None]
    session_id: NotRequired[str | None]
    history: NotRequired[list[str | HistoryItem] | None]
    exclude_seen: NotRequired[bool | None]
    strategy: NotRequired[Literal["popular", "trending"] | None]
    target_event_type: NotRequired[str | None]
    new_item_share: NotRequired[float | None]


class BoostBody(TypedDict):
    """Items for which the filter holds become `factor` times as probable before the best `k` are taken."""

    filter: AllBody | AnyBody | NotBody | ConditionBody
    factor: float


class BulkItemBody(TypedDict):
    """One of many whole items."""

    attributes: NotRequired[dict[str, str | float | bool | list[str | float]]]
    available: NotRequired[bool]
    item_id: str


class ConditionBody(TypedDict):
    """One comparison. A list attribute is a set of elements, any other value the only element of its set.  `eq`, `in`
    and `any_of` ask whether some element is the value, or one of the values; `ne` is the opposite of `eq`; `all_of`
    whether every value is among the elements; `lt`, `lte`, `gt`, `gte` whether some element, a number or a time, is
    less or greater; `exists` whether the attribute is there. On an attribute that an item lacks all are false but
    `ne` and `exists` false.
    """

    field: str
    op: Literal["eq", "ne", "lt", "lte", "gt", "gte", "in", "any_of", "all_of", "exists"]
    value: str | float | bool | list[str | float | bool]


class ContributionAnswer(TypedDict):
    """An event that the model read; `timestamp` is null where the history came without times. `contribution` is by how
    much the logarithm of the item's probability falls without the event.
    """

    item_id: str
    timestamp: str | None
    contribution: float


class EventBatch(TypedDict):
    """One way to send many. (The route reads them one by one, so that each can be rejected alone.)"""

    events: list[EventBody]


class EventBody(TypedDict):
    """One thing that one user or guest did with one item."""

    item_id: str
    user_id: NotRequired[str | None]
    session_id: NotRequired[str | None]
    event_id: NotRequired[str | None]
    event_type: NotRequired[str]
    timestamp: NotRequired[str | int | None]
    sequence: NotRequired[int | None]
    value: NotRequired[float | None]
    recommendation_id: NotRequired[str | None]
    position: NotRequired[int | None]
    properties: NotRequired[dict[str, str | float | bool] | None]
    store: NotRequired[bool]


class EventWarning(TypedDict):
    """Something about stored events that the sender will want to know; `indices` count the events from 0."""

    code: Literal["not_idempotent", "unknown_item", "older_than_history"]
    detail: str
    indices: list[int]


class EventsAnswer(TypedDict):
    """accepted + duplicates + ignored + len(rejected) is the number of events sent; `accepted` counts those with
    `store: false` too.
    """

    accepted: int
    duplicates: int
    ignored: int
    rejected: list[RejectedEvent]
    warnings: list[EventWarning]


class HistoryItem(TypedDict):
    """One step of a history that the caller sends along."""

    item_id: str
    timestamp: NotRequired[str | int | None]
    event_type: NotRequired[str]


class HistoryStep(TypedDict):
    item_id: str
    event_type: str
    timestamp: str


class ItemAnswer(TypedDict):
    """`available`: may be recommended now. `in_model`: the live model has learnt the item from behaviour."""

    item_id: str
    attributes: dict[str, Any]
    available: bool
    in_model: bool


class ItemBatch(TypedDict):
    """One way to send many. (The route reads them one by one, so that each can be rejected alone.)"""

    items: list[BulkItemBody]


class ItemBody(TypedDict):
    """The whole item: attributes that it had before and that are not named are gone, the artifact's too.  A time is a
    string in RFC 3339 with an offset, or a number of milliseconds since the epoch.
    """

    attributes: NotRequired[dict[str, str | float | bool | list[str | float]]]
    available: NotRequired[bool]


class ItemPatchBody(TypedDict):
    """What changes: named attributes get a new value, or go where it is null; the others stay as they are."""

    attributes: NotRequired[dict[str, str | float | bool | list[str | float] | None]]
    available: NotRequired[bool | None]


class ItemWarning(TypedDict):
    """Something about stored items that the sender will want to know; `indices` count the items from 0."""

    code: Literal["not_in_model"]
    detail: str
    indices: list[int]


class ItemsAnswer(TypedDict):
    """`next_cursor` continues the list; null at its end."""

    model_version: str | None
    items: list[ItemAnswer]
    next_cursor: str | None


class ItemsPutAnswer(TypedDict):
    """accepted + unchanged + len(rejected) is the number of items sent."""

    accepted: int
    unchanged: int
    rejected: list[RejectedItem]
    warnings: list[ItemWarning]


class LiveAnswer(TypedDict):
    status: Literal["live"]


class MergeAnswer(TypedDict):
    """`merged` counts the events that the user's history gained, `history_length` all that it holds now."""

    user_id: str
    merged: int
    history_length: int


MergeBody = TypedDict("MergeBody", {"from": "MergeSource", "to": "MergeTarget"})


class MergeSource(TypedDict):
    """Exactly one of `session_id` and `user_id`."""

    session_id: NotRequired[str | None]
    user_id: NotRequired[str | None]


class MergeTarget(TypedDict):
    user_id: str


class ModelSummary(TypedDict):
    """What the manifest of the live version says, without its reference cases and file hashes."""

    model_version: str
    format_version: int
    created_at: str
    git_commit: str | None
    num_items: int
    max_length: int
    exclude_seen: bool
    time_use: str
    event_types: dict[str, Any]
    target_event_types: list[str]
    popularity_discount: float
    refit: bool
    data_fingerprint: str
    model: dict[str, Any]
    training: dict[str, Any]
    preprocessing: dict[str, Any]
    metrics: dict[str, Any] | None


class ModelsAnswer(TypedDict):
    """`problem` says why the version that was promoted last is not live; null when it is."""

    live: ModelSummary | None
    problem: str | None
    versions: list[str]


NotBody = TypedDict("NotBody", {"not": "AllBody | AnyBody | NotBody | ConditionBody"})


class PinBody(TypedDict):
    """The item stands at this position, whatever the model thinks of it."""

    item_id: str
    position: int


class Problem(TypedDict):
    """RFC 9457. `code` is from a closed list and does not change; `detail` is for people."""

    type: NotRequired[str]
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: NotRequired[list[ProblemError] | None]


class ProblemError(TypedDict):
    """One fault: a JSON pointer into the body, or the name of a path or query parameter."""

    detail: str
    pointer: NotRequired[str | None]
    parameter: NotRequired[str | None]
    code: NotRequired[str | None]


class RankedItemAnswer(TypedDict):
    """`rank` counts from 1. `score` is null for a pinned item that the model has not learnt, and in a place kept for
    one. `attributes`, `because` and `probability` are there only when they were asked for, `probability` only where
    the artifact is calibrated and the model has learnt the item.
    """

    item_id: str
    rank: int
    score: float | None
    attributes: NotRequired[dict[str, Any] | None]
    because: NotRequired[list[ContributionAnswer] | None]
    probability: NotRequired[float | None]


class ReadyAnswer(TypedDict):
    """`status` is `ready`, `degraded` (it answers, but not with the model that it should) or `unavailable` (503)."""

    status: Literal["ready", "degraded", "unavailable"]
    model_version: str | None
    reasons: list[str]


class RecommendAnswer(TypedDict):
    """`reasons` says why the answer is not a full ranking by the model; empty when it is. `next_cursor` is there only
    with `paginate` or `cursor`; null on the last page.
    """

    recommendation_id: str
    strategy: Literal["model", "popular", "trending"]
    degraded: bool
    reasons: list[str]
    model_version: str | None
    history_length: int
    items: list[RankedItemAnswer]
    next_cursor: NotRequired[str | None]


class RecommendBatchAnswer(TypedDict):
    """To each request, in their order, what `/recommend` would have answered: a recommendation or a problem."""

    results: list[RecommendAnswer | Problem]


class RecommendBatchBody(TypedDict):
    """Up to 256 requests. (The route reads them one by one, so that each can fail alone.)"""

    requests: list[BatchedBody]


class RecommendBody(TypedDict):
    """Exactly one of `user_id`, `session_id` and `history`; with a `cursor` the `history` is not repeated."""

    scenario: NotRequired[str | None]
    k: NotRequired[int]
    candidates: NotRequired[list[str] | None]
    filter: NotRequired[AllBody | AnyBody | NotBody | ConditionBody | None]
    exclude_items: NotRequired[list[str]]
    boosts: NotRequired[list[BoostBody]]
    pins: NotRequired[list[PinBody]]
    diversity: NotRequired[float]
    include: NotRequired[list[Literal["attributes"]]]
    user_id: NotRequired[str | None]
    session_id: NotRequired[str | None]
    history: NotRequired[list[str | HistoryItem] | None]
    exclude_seen: NotRequired[bool | None]
    strategy: NotRequired[Literal["popular", "trending"] | None]
    target_event_type: NotRequired[str | None]
    new_item_share: NotRequired[float | None]
    explain: NotRequired[bool]
    probability: NotRequired[bool]
    paginate: NotRequired[bool]
    cursor: NotRequired[str | None]


class RejectedEvent(TypedDict):
    """`index` counts the events of the request from 0; `pointer` leads to the fault in the body."""

    index: int
    code: str
    detail: str
    pointer: str


class RejectedItem(TypedDict):
    """`index` counts the items of the request from 0; `pointer` leads to the fault in the body."""

    index: int
    code: str
    detail: str
    pointer: str


class SessionAnswer(TypedDict):
    history_length: int
    history: list[HistoryStep]
    session_id: str


class SessionErasedAnswer(TypedDict):
    erased_events: int
    erased_log_entries: int
    session_id: str


class SimilarAnswer(TypedDict):
    """`strategy` is `similar`, or another one with a reason."""

    recommendation_id: str
    strategy: Literal["similar", "model", "popular"]
    degraded: bool
    reasons: list[str]
    model_version: str | None
    items: list[RankedItemAnswer]


class SimilarBody(TypedDict):
    """Exactly one of `item_id` and `item_ids`."""

    scenario: NotRequired[str | None]
    k: NotRequired[int]
    candidates: NotRequired[list[str] | None]
    filter: NotRequired[AllBody | AnyBody | NotBody | ConditionBody | None]
    exclude_items: NotRequired[list[str]]
    boosts: NotRequired[list[BoostBody]]
    pins: NotRequired[list[PinBody]]
    diversity: NotRequired[float]
    include: NotRequired[list[Literal["attributes"]]]
    item_id: NotRequired[str | None]
    item_ids: NotRequired[list[str] | None]


class UserAnswer(TypedDict):
    history_length: int
    history: list[HistoryStep]
    user_id: str


class UserErasedAnswer(TypedDict):
    erased_events: int
    erased_log_entries: int
    user_id: str
