"""The figures of the report, as inline SVG that takes its colours from the page.

Matplotlib draws with stand-in colours; each is replaced by a CSS variable, so one figure serves light and dark pages.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scripts.training.comparison import ASKED_FOR_TYPE, MODEL, Comparison
from scripts.training.evaluation import EvaluationResult, Group, Interval
from scripts.training.run_folder import WATCHED_METRIC

INK, MUTED, GRID, ACCENT = "#010101", "#020202", "#030303", "#040404"
SERIES = ("#050505", "#060606", "#070707", "#080808", "#090909", "#0a0a0a", "#0b0b0b", "#0c0c0c")
"""One for each line but the model's: three of its parts at most, and five baselines."""
NOT_DRAWN = (ASKED_FOR_TYPE, "first_member_alone", "without_returns", "without_reranker")
"""Rows of the tables that answer another question, or whose lines would lie on the model's or on that of attention."""
CSS_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    ACCENT: "--accent",
    **{color: f"--series-{number}" for number, color in enumerate(SERIES, start=1)},
}
LABELS = {
    MODEL: "Segue",
    ASKED_FOR_TYPE: "Asked for the type",
    "first_member_alone": "One attention model",
    "attention_alone": "Attention alone",
    "rules_alone": "Rules alone",
    "without_returns": "Without returns",
    "without_reranker": "Without the re-ranker",
    "without_discount": "Without the discount",
    "popularity": "Popularity",
    "personal_popularity": "Personal popularity",
    "markov": "Markov chain",
    "item_knn": "Item-kNN",
    "sequential_rules": "Sequential rules",
}
CASES_DRAWN = 30
"""Smaller groups would only show their noise."""
LINE_OF_TEXT = 0.085
"""As a share of the height of a figure of groups."""
METRIC_LABELS = {"hit_rate": "HR", "ndcg": "NDCG", "mrr": "MRR", "coverage": "Coverage"}
Z_95 = 1.96


def metric_label(metric: str) -> str:
    """`hit_rate@10` → HR@10."""
    kind, _, cutoff = metric.partition("@")
    return f"{METRIC_LABELS[kind]}@{cutoff}"


def scorer_label(name: str) -> str:
    return LABELS.get(name, name)


def comparison_figure(intervals: Mapping[str, Mapping[str, Interval]]) -> str:
    """One bar per scorer and headline metric, the best on top, with its interval."""
    metrics = list(intervals[MODEL])
    with _style():
        figure = Figure(figsize=(9.2, 0.42 * len(intervals) + 1.0), layout="constrained")
        axes = figure.subplots(1, len(metrics), squeeze=False)[0]
        for ax, metric in zip(axes, metrics, strict=True):
            names = sorted(intervals, key=lambda name: intervals[name][metric].mean)
            means = np.array([intervals[name][metric].mean for name in names])
            below = means - [intervals[name][metric].low for name in names]
            above = np.array([intervals[name][metric].high for name in names]) - means
            colors = [ACCENT if name == MODEL else SERIES[0] for name in names]
            ax.barh(range(len(names)), means, height=0.62, color=colors)
            ax.errorbar(means, range(len(names)), xerr=[below, above], fmt="none", ecolor=INK, elinewidth=1, capsize=3)
            for place, (mean, extent) in enumerate(zip(means, above, strict=True)):
                ax.annotate(
                    f"{mean:.3f}", (mean + extent, place), (6, 0), textcoords="offset points", va="center", color=INK
                )
            ax.set_yticks(range(len(names)), [scorer_label(name) for name in names], color=INK)
            ax.set_xlim(0, float((means + above).max()) * 1.18)
            ax.set_title(metric_label(metric), loc="left", color=INK)
            ax.grid(axis="y", visible=False)
        return _svg(figure, "comparison")


def training_figure(history: Sequence[Mapping[str, Any]]) -> str:
    """Loss and validation metric by epoch, the best epoch marked."""
    epochs = [int(record["epoch"]) for record in history]
    with _style():
        figure = Figure(figsize=(9.2, 2.7), layout="constrained")
        loss_ax, metric_ax = figure.subplots(1, 2)
        loss_ax.plot(epochs, [record["loss"] for record in history], color=MUTED, marker=_marker(epochs))
        loss_ax.set_title("Training loss", loc="left", color=INK)
        validated = [record for record in history if WATCHED_METRIC in record]
        if validated:
            values = [float(record[WATCHED_METRIC]) for record in validated]
            places = [int(record["epoch"]) for record in validated]
            best = int(np.argmax(values))
            metric_ax.plot(places, values, color=ACCENT, marker=_marker(epochs))
            metric_ax.plot(places[best], values[best], "o", color=ACCENT, markersize=8)
            metric_ax.annotate(
                f"best {values[best]:.4f}, epoch {places[best]}", (0.99, 0.05), xycoords="axes fraction",
                ha="right", color=INK,
            )  # fmt: skip
        metric_ax.set_title(f"Validation {metric_label(WATCHED_METRIC)}", loc="left", color=INK)
        for ax in (loss_ax, metric_ax):
            ax.set_xlabel("epoch")
            ax.xaxis.get_major_locator().set_params(integer=True)
        return _svg(figure, "training")


def groups_figure(groups: Mapping[str, Sequence[Group]], metric: str, label: str, name: str) -> str:
    """One line per scorer over the groups of `CASES_DRAWN` or more (all that have any, where there are no such groups);
    bars of ±1.96 standard errors at the model."""
    counts = [group.num_cases for group in groups[MODEL]]
    enough = CASES_DRAWN if max(counts) >= CASES_DRAWN else 1
    shown = [place for place, count in enumerate(counts) if count >= enough]
    with _style():
        figure = Figure(figsize=(9.2, 3.1), layout="constrained")
        ax = figure.subplots()
        others = [each for each in groups if each != MODEL]
        colors = dict(zip(others, SERIES[: len(others)], strict=True))
        for scorer, members in reversed(list(groups.items())):
            values = [members[place].metrics[metric] for place in shown]
            if scorer == MODEL:
                errors = [Z_95 * members[place].standard_errors[metric] for place in shown]
                ax.errorbar(
                    range(len(shown)), values, yerr=errors, color=ACCENT, marker="o", linewidth=2.4, capsize=3, zorder=3
                )
            else:
                ax.plot(range(len(shown)), values, color=colors[scorer], marker="o", markersize=4, linewidth=1.4)
        ax.set_ylim(bottom=0)
        _name_lines(ax, groups, metric, shown, colors)
        ticks = [f"{groups[MODEL][place].name}\n{groups[MODEL][place].num_cases:,} cases" for place in shown]
        ax.set_xticks(range(len(shown)), ticks)
        ax.set_xlim(-0.3, len(shown) - 1 + 0.3)
        ax.set_xlabel(label)
        ax.set_title(metric_label(metric), loc="left", color=INK)
        ax.grid(axis="x", visible=False)
        return _svg(figure, name)


def length_figure(comparison: Comparison) -> str:
    groups = {name: result.by_history_length for name, result in _drawn(comparison)}
    return groups_figure(groups, "ndcg@10", "events in the history", "length")


def popularity_figure(comparison: Comparison) -> str:
    groups = {name: result.by_popularity for name, result in _drawn(comparison)}
    return groups_figure(groups, "ndcg@10", "popularity of the item that came next", "popularity")


def _drawn(comparison: Comparison) -> Iterator[tuple[str, EvaluationResult]]:
    return ((name, result) for name, result in comparison.results.items() if name not in NOT_DRAWN)


def _name_lines(
    ax: Axes, groups: Mapping[str, Sequence[Group]], metric: str, shown: Sequence[int], colors: Mapping[str, str]
) -> None:
    """Names at the right end of the lines, pushed apart where they would overlap."""
    ends = sorted((members[shown[-1]].metrics[metric], scorer) for scorer, members in groups.items())
    distance = LINE_OF_TEXT * ax.get_ylim()[1]
    height = -np.inf
    for value, scorer in ends:
        height = max(value, height + distance)
        color = ACCENT if scorer == MODEL else colors[scorer]
        weight = "bold" if scorer == MODEL else "normal"
        ax.annotate(
            scorer_label(scorer),
            (1.0, height),
            (6, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            color=color,
            fontweight=weight,
            annotation_clip=False,
        )


def _marker(epochs: Sequence[int]) -> str:
    return "o" if len(epochs) <= 30 else ""


def _style() -> Any:
    return mpl.rc_context(
        {
            "svg.fonttype": "none",
            "font.size": 10,
            "axes.titlesize": 10.5,
            "axes.titleweight": "bold",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.spines.left": False,
            "axes.edgecolor": GRID,
            "axes.labelcolor": MUTED,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": GRID,
            "grid.linewidth": 0.8,
            "xtick.color": MUTED,
            "ytick.color": MUTED,
            "xtick.major.size": 0,
            "ytick.major.size": 0,
            "lines.markersize": 5,
            "lines.linewidth": 1.8,
        }
    )


def _svg(figure: Figure, name: str) -> str:
    """The figure's <svg> element. The figures of a page share one space of ids: the name salts those that are used."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    # The page's own font, and nothing that only an image file needs.
    svg = re.sub(r"font-family: [^;\"]*;", "", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'width="[^"]*pt" height="[^"]*pt"', 'role="img"', svg, count=1)
    for color, variable in CSS_VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    return svg
