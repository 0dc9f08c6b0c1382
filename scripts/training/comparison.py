"""A model beside the baselines on the same cases: what `evaluate` writes down and the report shows."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from scripts.training.baselines import fit_baselines
from scripts.training.evaluation import (
    EvaluationResult,
    Interval,
    Scorer,
    bootstrap_interval,
    evaluate,
    mean_metrics,
    paired_bootstrap_interval,
)
from scripts.training.interactions import Cases, Part, PreparedData

MODEL = "model"
ASKED_FOR_TYPE = "asked_for_type"
HEADLINE_METRICS = ("hit_rate@10", "ndcg@10")
CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Comparison:
    """Results by the scorer's name: the model's first (and, asked for the event type of each target, that of
    `ASKED_FOR_TYPE`), then those of its parts alone, then the baselines'.

    `as_served` are the means over all cases (no coverage) with only the newest `history_cap` events of each history;
    None where no history is longer, because the two protocols are then one.
    """

    protocol: dict[str, Any]
    results: dict[str, EvaluationResult]
    intervals: dict[str, dict[str, Interval]]
    """Scorer → headline metric → interval of the metric."""
    differences: dict[str, dict[str, Interval]]
    """Part or baseline → headline metric → interval of the model minus it, paired by case."""
    as_served: dict[str, dict[str, float]] | None
    history_cap: int
    parts: tuple[str, ...] = ()
    """Names of the model's parts: what each contributes is the model's result minus what is left without it."""

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Of every scorer, over all cases."""
        return {name: result.metrics for name, result in self.results.items()}

    @property
    def baselines(self) -> list[str]:
        return [name for name in self.results if name not in (MODEL, ASKED_FOR_TYPE, *self.parts)]

    @property
    def best_baseline(self) -> str:
        """By NDCG@10."""
        return max(self.baselines, key=lambda name: self.results[name].metrics["ndcg@10"])

    def as_json(self) -> dict[str, Any]:
        """`protocol`, `model` and `baselines` are what a manifest takes over; the rest explains them."""
        return {
            "protocol": self.protocol,
            MODEL: self.results[MODEL].metrics,
            **({ASKED_FOR_TYPE: self.results[ASKED_FOR_TYPE].metrics} if ASKED_FOR_TYPE in self.results else {}),
            "parts": {name: self.results[name].metrics for name in self.parts},
            "baselines": {name: self.results[name].metrics for name in self.baselines},
            "intervals": _plain(self.intervals),
            "differences": _plain(self.differences),
            "as_served": self.as_served
            and {
                "history_cap": self.history_cap,
                MODEL: self.as_served[MODEL],
                "baselines": {name: self.as_served[name] for name in self.baselines},
            },
            "by_history_length": {
                name: [asdict(group) for group in result.by_history_length] for name, result in self.results.items()
            },
            "by_popularity": {
                name: [asdict(group) for group in result.by_popularity] for name, result in self.results.items()
            },
            "by_repeat": {name: [asdict(group) for group in result.by_repeat] for name, result in self.results.items()},
        }


def compare(
    scorer: Scorer,
    data: PreparedData,
    part: Part,
    *,
    parts: Mapping[str, Scorer] | None = None,
    asks_type: bool = False,
    history_cap: int,
    exclude_seen: bool | None = None,
    progress: Callable[[str, int, int], object] = lambda _name, _done, _total: None,
) -> Comparison:
    """Evaluate a scorer and all baselines, which learn from the same training part.

    Args:
        scorer: the model, which must have learnt from `data.train` alone.
        data: prepared data with cases in `part`.
        part: validation or test.
        parts: of the model, by name, evaluated alone.
        asks_type: evaluate the model once more, asked for the event type of each target: of one that has a head for
            each.
        history_cap: events of a user that the service keeps.
        exclude_seen: mask the items of the history; by default what the data say.
        progress: told what is being evaluated, how many cases are done and how many there are.
    """
    cases = data.cases(part)
    masks_seen = data.exclude_seen if exclude_seen is None else exclude_seen
    progress("fitting baselines", 0, len(cases))
    baselines = fit_baselines(data.train, data.num_items, exclude_seen=masks_seen)
    scorers = {MODEL: (scorer, cases)}
    if asks_type:
        scorers[ASKED_FOR_TYPE] = (scorer, replace(cases, asks_type=True))
    scorers |= {name: (each, cases) for name, each in {**(parts or {}), **baselines}.items()}

    results = {
        name: _evaluate(each, data, asked, masks_seen, None, name, progress) for name, (each, asked) in scorers.items()
    }
    as_served = None
    longer = np.flatnonzero(cases.histories.lengths > history_cap)
    if len(longer):
        as_served = {}
        for name, (each, asked) in scorers.items():
            ranks = results[name].ranks.copy()  # of shorter histories what they are anyway
            label = f"{name}, as served"
            ranks[longer] = _evaluate(each, data, asked.chosen(longer), masks_seen, history_cap, label, progress).ranks
            as_served[name] = mean_metrics(ranks, results[name].cutoffs)
    drawn = "users" if data.split == "temporal" else "cases"  # of leave-one-out, which has one a user, the same
    return Comparison(
        protocol={
            **results[MODEL].protocol,
            "data": data.name,
            "data_fingerprint": data.fingerprint,
            "split": data.split,
            "part": part,
            "refit": False,
            "median_history_length": float(np.median(cases.histories.lengths)),
            "intervals": f"{CONFIDENCE:.0%} percentile bootstrap over {drawn}",
        },
        results=results,
        intervals={
            name: {
                metric: bootstrap_interval(result.values(metric), clusters=cases.user_indices, confidence=CONFIDENCE)
                for metric in HEADLINE_METRICS
            }
            for name, result in results.items()
        },
        differences={
            name: {
                metric: paired_bootstrap_interval(
                    results[MODEL], result, metric, clusters=cases.user_indices, confidence=CONFIDENCE
                )
                for metric in HEADLINE_METRICS
            }
            for name, result in results.items()
            if name not in (MODEL, ASKED_FOR_TYPE)
        },
        as_served=as_served,
        history_cap=history_cap,
        parts=tuple(parts or {}),
    )


def _evaluate(
    scorer: Scorer,
    data: PreparedData,
    cases: Cases,
    exclude_seen: bool,
    history_cap: int | None,
    label: str,
    progress: Callable[[str, int, int], object],
) -> EvaluationResult:
    done = 0

    def count(number: int) -> None:
        nonlocal done
        done += number
        progress(label, done, len(cases))

    return evaluate(
        scorer,
        cases,
        num_items=data.num_items,
        item_counts=data.train.item_counts(data.num_items),
        exclude_seen=exclude_seen,
        history_cap=history_cap,
        with_coverage=history_cap is None,
        progress=count,
    )


def _plain(intervals: Mapping[str, Mapping[str, Interval]]) -> dict[str, dict[str, dict[str, float]]]:
    return {
        name: {metric: asdict(interval) for metric, interval in entries.items()} for name, entries in intervals.items()
    }
