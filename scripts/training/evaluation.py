"""How well any scoring function finds the next item, over the whole catalogue; needs only numpy.

The torch model, the exported graph and every baseline go through `evaluate`, so their numbers can be compared.

Shapes: B batch, V catalogue (num_items + 1 columns, column = item index, column 0 belongs to padding).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.ranking.ranker import ItemSequence

if TYPE_CHECKING:  # Keeps this file free of what interactions.py needs.
    from scripts.training.interactions import Cases

NOT_ELIGIBLE = 0
CUTOFFS = (5, 10, 20)
HISTORY_LENGTHS = (1, 6, 11, 21, 51, 101, 201)
"""First length of each group of cases."""
POPULARITY_SHARES = {"head": 0.5, "middle": 0.3, "tail": 0.2}
SCORES_PER_BATCH = 2**24


class Scorer(Protocol):
    """Anything that scores the catalogue for each of a batch of histories."""

    def __call__(self, histories: Sequence[ItemSequence]) -> NDArray[np.float32]:
        """Scores (B, V), greater is better, −inf allowed, never NaN; column 0 is ignored."""
        ...


@dataclass(frozen=True)
class Group:
    """Some of the cases and the metrics over them, with their standard errors; nothing where there are no cases."""

    name: str
    num_cases: int
    metrics: dict[str, float]
    standard_errors: dict[str, float]


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """One scorer on one set of cases."""

    ranks: NDArray[np.int64]
    """Rank of each case's target, 1 = first, in the order of the cases; 0 where the target was masked."""
    cutoffs: tuple[int, ...]
    metrics: dict[str, float]
    """`hit_rate@k`, `ndcg@k`, `mrr@k` and `coverage@k` (share of the catalogue that is in some case's first k)."""
    by_history_length: list[Group]
    by_popularity: list[Group]
    by_repeat: list[Group]
    """Cases whose target is in the history, and the others; none where seen items are masked."""
    protocol: dict[str, Any]

    def values(self, metric: str) -> NDArray[np.float64]:
        """What each case adds to the mean of `hit_rate@k`, `ndcg@k` or `mrr@k`."""
        kind, _, cutoff = metric.partition("@")
        return _METRICS[kind](self.ranks, int(cutoff))


@dataclass(frozen=True)
class Interval:
    """A mean and the bounds that hold it with the stated confidence."""

    mean: float
    low: float
    high: float


def evaluate(
    scorer: Scorer,
    cases: "Cases",
    *,
    num_items: int,
    item_counts: NDArray[np.int64],
    exclude_seen: bool,
    history_cap: int | None = None,
    cutoffs: Sequence[int] = CUTOFFS,
    batch_size: int | None = None,
    with_coverage: bool = True,
    progress: Callable[[int], object] = lambda _: None,
) -> EvaluationResult:
    """Rank every case's target among all items.

    The rank is 1 + the number of other eligible items whose score is at least the target's: ties count against the
    scorer. With `exclude_seen` the items of the history are not eligible, and a target among them has no hit.

    Args:
        scorer: called once per batch, with at least one history.
        cases: histories and targets; at least one.
        num_items: size of the catalogue.
        item_counts: events per item in the training data, int64 (num_items + 1,); decides head, middle and tail.
        exclude_seen: mask the items of each case's history.
        history_cap: "as served": only the newest `history_cap` events are history, for the scorer and for the mask.
        cutoffs: the k of every metric.
        batch_size: histories per call of the scorer; by default `histories_per_batch`. Histories of similar length
            come together.
        with_coverage: False saves the time that finding every case's first k items takes; no `coverage@k` then.
        progress: called with the number of cases done since the last call.

    Raises:
        ValueError: no cases, or scores of another shape or with NaN.
    """
    if len(cases) == 0:
        raise ValueError("there are no cases to evaluate; leave-one-out needs users with at least 3 events")
    cutoffs = tuple(sorted(cutoffs))
    ranks = np.empty(len(cases), np.int64)
    covered_at = np.full(num_items + 1, np.iinfo(np.int64).max)
    for chosen, histories in batches_of(cases, batch_size or histories_per_batch(num_items), history_cap):
        scores_BV = _eligible(scorer(histories), histories, num_items, exclude_seen=exclude_seen)
        ranks[chosen] = _ranks(scores_BV, cases.targets[chosen])
        if with_coverage:
            _note_coverage(covered_at, scores_BV, cutoffs[-1])
        del scores_BV  # or the next batch would be scored beside it
        progress(len(chosen))

    lengths = cases.histories.lengths if history_cap is None else np.minimum(cases.histories.lengths, history_cap)
    metrics = mean_metrics(ranks, cutoffs)
    if with_coverage:
        metrics |= {f"coverage@{k}": float((covered_at[1:] <= k).mean()) for k in cutoffs}
    return EvaluationResult(
        ranks=ranks,
        cutoffs=cutoffs,
        metrics=metrics,
        by_history_length=_groups(ranks, cutoffs, history_length_groups(lengths)),
        by_popularity=_groups(ranks, cutoffs, popularity_groups(item_counts, cases.targets)),
        by_repeat=[] if exclude_seen else _groups(ranks, cutoffs, repeat_groups(cases)),
        protocol={
            "ranking": "whole catalogue",
            "num_cases": len(cases),
            "num_items": num_items,
            "exclude_seen": exclude_seen,
            "history_cap": history_cap,
            "ties": "against the model",
        },
    )


def histories_per_batch(num_items: int) -> int:
    """As many as keep a batch's scores below 64 MiB, and at most 512: long histories take memory as well.

    >>> histories_per_batch(1_682), histories_per_batch(100_000)
    (512, 167)
    """
    return max(1, min(512, SCORES_PER_BATCH // (num_items + 1)))


def batches_of(
    cases: "Cases", batch_size: int, history_cap: int | None = None
) -> Iterator[tuple[NDArray[np.int64], list[ItemSequence]]]:
    """Which cases, and their histories (with `history_cap` the newest events of each); those of similar length come
    together."""
    by_length = np.argsort(cases.histories.lengths, kind="stable")
    for start in range(0, len(cases), batch_size):
        chosen = by_length[start : start + batch_size]
        yield chosen, [cases.history(int(case), history_cap) for case in chosen]


def ranks_in(
    scores_BV: NDArray[np.float32],
    histories: Sequence[ItemSequence],
    targets_B: NDArray[np.int32],
    *,
    num_items: int,
    exclude_seen: bool,
) -> NDArray[np.int64]:
    """(B,): the rank of each target by one batch of scores; see `evaluate`."""
    return _ranks(_eligible(scores_BV, histories, num_items, exclude_seen=exclude_seen), targets_B)


def _eligible(
    scores_BV: NDArray[np.float32], histories: Sequence[ItemSequence], num_items: int, *, exclude_seen: bool
) -> NDArray[np.float32]:
    """A copy that may be overwritten, with NaN as the mark of what is not eligible: column 0 and, where they are
    masked, the items of the history."""
    if scores_BV.shape != (len(histories), num_items + 1):
        raise ValueError(f"scores have shape {scores_BV.shape}, expected {(len(histories), num_items + 1)}")
    scores_BV = np.array(scores_BV, dtype=np.float32)
    scores_BV[:, 0] = 0
    if np.isnan(scores_BV).any():
        raise ValueError("scores hold NaN, which has no rank; the model has diverged or a scorer divides by zero")
    scores_BV[:, 0] = np.nan
    if exclude_seen:
        rows = np.repeat(np.arange(len(histories)), [len(history.items) for history in histories])
        scores_BV[rows, np.concatenate([history.items for history in histories]).astype(np.int64)] = np.nan
    return scores_BV


def _ranks(scores_BV: NDArray[np.float32], targets: NDArray[np.int32]) -> NDArray[np.int64]:
    """A comparison with NaN is false: what is not eligible counts nowhere, and a masked target gets rank 0."""
    target_scores_B1 = scores_BV[np.arange(len(targets)), targets][:, np.newaxis]
    ranks: NDArray[np.int64] = np.count_nonzero(scores_BV >= target_scores_B1, axis=1).astype(np.int64)
    return ranks


def _note_coverage(covered_at: NDArray[np.int64], scores_BV: NDArray[np.float32], k: int) -> None:
    """Lower `covered_at[item]` to the best place (1…k) that the item has in any row; equal scores by rising index."""
    k = min(k, scores_BV.shape[1] - 1)
    for scores_V in scores_BV:  # a row at a time: copies of all rows would triple the memory
        falling_V = -scores_V
        # NaN sorts last, so the k-th best score is NaN exactly where fewer than k items are eligible.
        kth = np.partition(falling_V, k - 1)[k - 1]
        if np.isnan(kth):
            first = np.flatnonzero(~np.isnan(falling_V))
        else:
            first = np.flatnonzero(falling_V < kth)
            first = np.concatenate([first, np.flatnonzero(falling_V == kth)[: k - len(first)]])
        first = first[np.lexsort((first, falling_V[first]))]
        covered_at[first] = np.minimum(covered_at[first], np.arange(1, len(first) + 1))


def hit_rate(ranks: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """1 where the target is among the first k. With one target per case this is recall as well."""
    hits: NDArray[np.float64] = ((ranks != NOT_ELIGIBLE) & (ranks <= k)).astype(np.float64)
    return hits


def ndcg(ranks: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """1 / log2(rank + 1) where the target is among the first k; the ideal is 1."""
    gains: NDArray[np.float64] = 1 / np.log2(np.maximum(ranks, 1) + 1)
    return hit_rate(ranks, k) * gains


def mrr(ranks: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """1 / rank where the target is among the first k."""
    gains: NDArray[np.float64] = 1 / np.maximum(ranks, 1)
    return hit_rate(ranks, k) * gains


_METRICS: Mapping[str, Callable[[NDArray[np.int64], int], NDArray[np.float64]]] = {
    "hit_rate": hit_rate,
    "ndcg": ndcg,
    "mrr": mrr,
}


def mean_metrics(ranks: NDArray[np.int64], cutoffs: Sequence[int]) -> dict[str, float]:
    """Of `EvaluationResult.metrics` those that are means over the cases."""
    return {f"{name}@{k}": float(metric(ranks, k).mean()) for name, metric in _METRICS.items() for k in cutoffs}


def _standard_errors(ranks: NDArray[np.int64], cutoffs: Sequence[int]) -> dict[str, float]:
    """Of the means: the spread over cases, over the root of their number."""
    root = np.sqrt(len(ranks))
    return {f"{name}@{k}": float(metric(ranks, k).std() / root) for name, metric in _METRICS.items() for k in cutoffs}


def history_length_groups(lengths: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Group name → which cases are in it, shortest histories first."""
    groups: dict[str, NDArray[np.bool_]] = {}
    for first, following in zip(HISTORY_LENGTHS, [*HISTORY_LENGTHS[1:], None], strict=True):
        if following is None:
            groups[f"{first}+"] = lengths >= first
        else:
            groups[f"{first}–{following - 1}"] = (lengths >= first) & (lengths < following)
    return groups


def repeat_groups(cases: "Cases") -> dict[str, NDArray[np.bool_]]:
    """Group name → which cases are in it: those whose target is in the history, and those whose target is not."""
    histories = cases.histories
    owners = np.repeat(np.arange(len(cases)), histories.lengths)
    is_met = histories.items == cases.targets[owners]
    is_repeat = np.bincount(owners[is_met], minlength=len(cases)) > 0
    return {"repeats": is_repeat, "new items": ~is_repeat}


def popularity_groups(item_counts: NDArray[np.int64], targets: NDArray[np.int32]) -> dict[str, NDArray[np.bool_]]:
    """Group name → which targets are in it.

    Items by falling count (equal counts by rising index): the head are the first that together hold half of the
    training events, the middle those that hold the next 30 %, the tail the rest, items never trained on included.
    """
    by_count = 1 + np.argsort(-item_counts[1:], kind="stable")
    share_before = np.concatenate([[0], np.cumsum(item_counts[by_count])[:-1]]) / max(1, item_counts.sum())
    share_of_item = np.ones(len(item_counts))
    share_of_item[by_count] = share_before
    # An item without an event is tail even where all shares before it are zero.
    share_of_item[item_counts == 0] = 1
    shares = share_of_item[targets]
    bounds = np.cumsum([0.0, *POPULARITY_SHARES.values()])
    bounds[-1] = np.inf
    return {
        name: (shares >= bounds[place]) & (shares < bounds[place + 1]) for place, name in enumerate(POPULARITY_SHARES)
    }


def _groups(ranks: NDArray[np.int64], cutoffs: Sequence[int], members: Mapping[str, NDArray[np.bool_]]) -> list[Group]:
    return [
        Group(name, int(chosen.sum()), mean_metrics(ranks[chosen], cutoffs), _standard_errors(ranks[chosen], cutoffs))
        if chosen.any()
        else Group(name, 0, {}, {})
        for name, chosen in members.items()
    ]


def bootstrap_interval(
    values: NDArray[np.float64],
    *,
    clusters: NDArray[np.int64] | None = None,
    confidence: float = 0.95,
    num_samples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of the mean over cases; the same seed gives the same interval.

    clusters: of each case, int64 (num_cases,): cases of one cluster (a user's) are drawn together, because they are not
    independent. By default every case stands alone.
    """
    random = np.random.default_rng(seed)
    numbers = np.arange(len(values)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    sums, counts = np.bincount(numbers, weights=values), np.bincount(numbers)
    means = np.empty(num_samples)
    for sample in range(num_samples):
        drawn = random.integers(len(sums), size=len(sums))
        means[sample] = sums[drawn].sum() / counts[drawn].sum()
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def paired_bootstrap_interval(
    first: EvaluationResult,
    second: EvaluationResult,
    metric: str,
    *,
    clusters: NDArray[np.int64] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """first − second in a per-case metric, over the same cases: an interval above 0 means that the first is better.

    Raises:
        ValueError: results over different numbers of cases.
    """
    if len(first.ranks) != len(second.ranks):
        raise ValueError(f"results over {len(first.ranks)} and {len(second.ranks)} cases cannot be paired")
    differences = first.values(metric) - second.values(metric)
    return bootstrap_interval(differences, clusters=clusters, confidence=confidence, seed=seed)
