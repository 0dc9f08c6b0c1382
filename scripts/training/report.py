"""report.html: one self-contained page about a run, for people; no script, nothing to load, light and dark."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from scripts.training.calibration import MAX_CASES, CalibrationReport
from scripts.training.comparison import ASKED_FOR_TYPE, CONFIDENCE, HEADLINE_METRICS, MODEL, Comparison
from scripts.training.evaluation import EvaluationResult, Interval
from scripts.training.interactions import PreparedData
from scripts.training.plots import (
    CASES_DRAWN,
    comparison_figure,
    length_figure,
    metric_label,
    popularity_figure,
    scorer_label,
    training_figure,
)
from scripts.training.trainer import FUSION_CASES, RERANKER_CASES

TABLE_METRICS = ("hit_rate@5", "hit_rate@10", "hit_rate@20", "ndcg@5", "ndcg@10", "ndcg@20", "mrr@10", "coverage@10")
STYLE = """
:root { color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #1b2430; --muted: #647084; --line: #e3e7ed; --accent: #0f766e;
  --series-1: #a3adbb; --series-2: #d08a2e; --series-3: #7c6fc4; --series-4: #3f7fbf;
  --series-5: #b0568f; --series-6: #5a8f3c; --series-7: #8a6d3b; --series-8: #9c2f2f;
  --good: #0f766e; --bad: #b4412f; }
@media (prefers-color-scheme: dark) { :root {
  --page: #11151b; --card: #191f28; --ink: #e6eaf0; --muted: #93a0b3; --line: #2b3440; --accent: #35c2b0;
  --series-1: #66748a; --series-2: #e0a552; --series-3: #a79bea; --series-4: #6caee8;
  --series-5: #dd8fc0; --series-6: #93c572; --series-7: #c9a66b; --series-8: #d9534f;
  --good: #35c2b0; --bad: #f08a76; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 40px 20px 64px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 17px; margin: 0 0 4px; }
p { margin: 0 0 12px; color: var(--muted); max-width: 76ch; }
strong { color: var(--ink); }
section, .figure { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
section { padding: 22px 24px; margin-top: 18px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 14px; margin-top: 22px; }
.figure { padding: 16px 18px; }
.figure b { display: block; font-size: 30px; line-height: 1.15; font-variant-numeric: tabular-nums; }
.figure b { color: var(--accent); }
.figure span { color: var(--muted); font-size: 13px; }
svg { display: block; width: 100%; height: auto; margin-top: 8px; overflow: visible; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; margin-top: 8px; }
th { font-weight: 600; color: var(--muted); text-align: right; font-size: 13px; }
th, td { padding: 6px 10px; border-bottom: 1px solid var(--line); white-space: nowrap; }
td { text-align: right; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr:last-child td { border-bottom: 0; }
tr.model td { font-weight: 650; color: var(--accent); }
td.wrap { white-space: normal; text-align: left; overflow-wrap: anywhere; }
.good { color: var(--good); } .bad { color: var(--bad); }
@media print { section, .figure { break-inside: avoid; } }
"""


ROW_TEXTS = {
    ASKED_FOR_TYPE: "The model has a head for each event type. In its own row it ranks for any; asked for the type, it "
    "was told which kind of event came next, as a request may tell it, and validation during training went by that.",
    "first_member_alone": "Attention is the mean of several models: what the others add is the distance from one of "
    "them to attention alone.",
    "attention_alone": "Segue mixes attention with sequential rules of its own, which read more than the baseline of "
    "that name, by a share that validation chose (below, under Experiment).",
    "rules_alone": "In the row of rules alone attention orders only what no rule names.",
    "without_returns": "The items of the history itself are mixed in as well, since people come back to them: what "
    "that adds to attention and rules is the distance from the row without returns to the next.",
    "without_reranker": "A small network then reorders the first of the mixture: what it contributes is the distance "
    "to the row without it.",
    "without_discount": "At last popular items lose a little of their score, for the long tail: what that costs is the "
    "distance to the row without it.",
}
"""What a row of the table says, by its name."""


def report_html(
    title: str,
    comparison: Comparison,
    data: PreparedData,
    history: Sequence[Mapping[str, Any]],
    training: Mapping[str, Any],
    calibration: CalibrationReport | None = None,
) -> str:
    """The page as text.

    Args:
        title: the run's name.
        comparison: what was measured.
        data: what it was measured on.
        history: one record per epoch, as in history.jsonl; may be empty.
        training: the resolved experiment.
        calibration: None where it was not fitted.
    """
    protocol = comparison.protocol
    sections = [
        _headline(comparison),
        _section(
            "Beside untrained baselines",
            " ".join(
                [
                    f"Bars end at the mean, whiskers hold it with {CONFIDENCE:.0%} confidence (bootstrap over cases).",
                    "Every baseline learnt from the same events and went through the same evaluation.",
                    *(ROW_TEXTS[name] for name in comparison.results if name in ROW_TEXTS),
                ]
            ),
            comparison_figure(comparison.intervals) + _differences(comparison),
        ),
    ]
    if history:
        sections.append(
            _section("Training", "The epoch with the best validation metric was kept.", training_figure(history))
        )
    sections += [
        _section(
            "By length of the history",
            "How much there was to read before the target. Whiskers: 95 % of the model's sampling error; groups of "
            f"fewer than {CASES_DRAWN} cases are left out where there are larger ones.",
            length_figure(comparison),
        ),
        _section(
            "By popularity of the target",
            "Head: the most popular items that together hold half of the training events; middle: the next 30 %; "
            "tail: all others.",
            popularity_figure(comparison),
        ),
        _section("All figures", "", _metrics_table(comparison.metrics)),
    ]
    if comparison.results[MODEL].by_repeat:
        sections.append(
            _section(
                "Repeats and new items",
                "Seen items stay eligible here. To foresee what comes again and what comes for the first time are "
                "different arts: targets that are in the history, and those that are not.",
                _repeats_table(comparison.results),
            )
        )
    if calibration is not None:
        sections.append(
            _section(
                "Probabilities",
                "Of the first ten items of every list: how far the stated probability is from how often the item came "
                "next, on average over ten bins of equally many items (expected calibration error). Fitted on "
                "validation, measured on test.",
                _pairs(
                    {
                        "expected calibration error": f"{calibration.calibration.expected_error:.4f}",
                        "of the scores' bare shares": f"{calibration.error_of_shares:.4f}",
                        "items looked at": f"{calibration.num_pairs:,}",
                    }
                ),
            )
        )
    if comparison.as_served is not None:
        sections.append(
            _section(
                "As served",
                f"The service keeps the newest {comparison.history_cap} events of a user, so scorers and mask see "
                "only those here. Longer histories than that occur in these data.",
                _metrics_table(comparison.as_served),
            )
        )
    sections += [
        _section("Data", "", _pairs({**_data_facts(data), **_cleaning_facts(data)})),
        _section(
            "What learnt from what",
            "The training part ends where validation begins, and validation where the test part does. Whatever weighs "
            "parts against one another was learnt from events that those parts had not seen.",
            _pairs(_learnt_from(training)),
        ),
        _section("Experiment", "", _pairs(training)),
    ]
    seen = "seen items are masked" if protocol["exclude_seen"] else "seen items stay eligible"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Segue · {escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{escape(title)}</h1>"
        f"<p>{escape(data.name)}, {protocol['split']}, {protocol['part']} part: {protocol['num_cases']:,} cases, "
        f"each ranked among all {protocol['num_items']:,} items; {seen}; ties count against the scorer.</p>"
        f"{''.join(sections)}</main></body></html>\n"
    )


def _headline(comparison: Comparison) -> str:
    result = comparison.results[MODEL]
    best = comparison.best_baseline
    cards = []
    for metric in HEADLINE_METRICS:
        gain = result.metrics[metric] / max(comparison.results[best].metrics[metric], 1e-12) - 1
        cards.append((metric, f"{gain:+.1%} against {scorer_label(best).lower()}"))
    cards.append(("mrr@10", "mean of 1/rank within 10"))
    cards.append(("coverage@10", "of the catalogue in some first 10"))
    return (
        '<div class="figures">'
        + "".join(
            f'<div class="figure"><span>{metric_label(metric)}</span><b>{result.metrics[metric]:.4f}</b>'
            f"<span>{escape(note)}</span></div>"
            for metric, note in cards
        )
        + "</div>"
    )


def _differences(comparison: Comparison) -> str:
    rows = [
        [scorer_label(name), *(_signed(entries[metric]) for metric in HEADLINE_METRICS)]
        for name, entries in comparison.differences.items()
    ]
    head = ["Segue minus …", *(f"{metric_label(metric)}, {CONFIDENCE:.0%} interval" for metric in HEADLINE_METRICS)]
    return _table(head, rows)


def _signed(interval: Interval) -> str:
    """Coloured only where the interval leaves out zero."""
    tone = "good" if interval.low > 0 else "bad" if interval.high < 0 else ""
    return f'<span class="{tone}">{interval.mean:+.4f}</span> [{interval.low:+.4f}, {interval.high:+.4f}]'


def _metrics_table(results: Mapping[str, Mapping[str, float]]) -> str:
    columns = [metric for metric in TABLE_METRICS if metric in results[MODEL]]
    rows = [
        [scorer_label(name), *(f"{metrics[metric]:.4f}" for metric in columns)] for name, metrics in results.items()
    ]
    return _table(["", *(metric_label(metric) for metric in columns)], rows, first_is_model=True)


def _repeats_table(results: Mapping[str, EvaluationResult]) -> str:
    head = [
        f"{metric_label(metric)} of {group.num_cases:,} {group.name}"
        for group in results[MODEL].by_repeat
        for metric in HEADLINE_METRICS
    ]
    rows = [
        [scorer_label(name)]
        + [
            f"{group.metrics[metric]:.4f}" if group.num_cases else "–"
            for group in result.by_repeat
            for metric in HEADLINE_METRICS
        ]
        for name, result in results.items()
    ]
    return _table(["", *head], rows, first_is_model=True)


def _learnt_from(training: Mapping[str, Any]) -> dict[str, str]:
    """Part of the model → the labels that it was learnt or chosen by."""
    is_mixed = bool(training.get("followers"))
    is_reranked = is_mixed and bool(training.get("rerank"))
    of_epochs, few, many, of_probabilities = (
        f"validation, {number:,} cases at most"
        for number in (training.get("validation_cases", 0), FUSION_CASES, RERANKER_CASES, MAX_CASES)
    )
    found = {"attention": "training part" + (" without the inner hold-out" if is_reranked else "")}
    if is_mixed:
        found |= {"rules": "training part", "share of the rules, and of returns": few}
    if is_reranked:
        found |= {
            "re-ranker": "inner hold-out: the newest training events of some users, with rules that had not seen them",
            "whether the re-ranker is kept": many,
        }
    return found | {
        "epochs, and a discount for the long tail": of_epochs,
        "probabilities": of_probabilities,
    }


def _data_facts(data: PreparedData) -> dict[str, str]:
    return {
        "users, items, interactions": f"{data.num_users:,} · {data.num_items:,} · {data.num_interactions:,}",
        "time": "epoch milliseconds" if data.has_clock else "an order without a clock",
        "seen items": f"{'excluded' if data.exclude_seen else 'eligible'} by default ({data.exclude_seen_reason})",
        "fingerprint": data.fingerprint[:16],
    }


def _cleaning_facts(data: PreparedData) -> dict[str, str]:
    return {f"dropped: {entry['reason']}": f"{entry['rows']:,} rows" for entry in data.cleaning if entry["rows"]}


def _section(title: str, text: str, content: str) -> str:
    paragraph = f"<p>{escape(text)}</p>" if text else ""
    return f"<section><h2>{escape(title)}</h2>{paragraph}{content}</section>"


def _pairs(facts: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><td>{escape(str(name))}</td><td class="wrap">{escape(str(value))}</td></tr>'
        for name, value in facts.items()
    )
    return f'<div class="scroll"><table>{rows}</table></div>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, first_is_model: bool = False) -> str:
    """`rows` hold HTML."""
    heads = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = ""
    for place, row in enumerate(rows):
        kind = ' class="model"' if first_is_model and place == 0 else ""
        body += f"<tr{kind}>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
    return f'<div class="scroll"><table><tr>{heads}</tr>{body}</table></div>'
