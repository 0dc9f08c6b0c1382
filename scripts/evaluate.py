"""A run beside the baselines: evaluation.json and report.html in the run folder.

python -m scripts.evaluate --run runs/NAME [--split test] [--json]
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn, get_args

from tqdm import tqdm

from app.ranking.rerank import popularity_discount
from scripts.training.calibration import calibrate
from scripts.training.comparison import HEADLINE_METRICS, MODEL, Comparison, compare
from scripts.training.config import Device
from scripts.training.interactions import DataError
from scripts.training.learner import training_device
from scripts.training.plots import metric_label, scorer_label
from scripts.training.report import TABLE_METRICS, report_html
from scripts.training.run_folder import EVALUATION_FILE, REPORT_FILE, RunError, load_run, write_atomically
from scripts.training.scorer import ModelScorer

DEFAULT_HISTORY_CAP = 200
LEAD = "Segue minus …"


class ProgressBar:
    """One bar per scorer, one after the other, on stderr."""

    def __init__(self, *, is_silent: bool) -> None:
        self._is_silent = is_silent
        self._label = ""
        self._bar = self._new("", 0)

    def __call__(self, label: str, done: int, total: int) -> None:
        if label != self._label:
            self._bar.close()
            self._label = label
            self._bar = self._new(label, total)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        self._bar.close()

    def _new(self, label: str, total: int) -> "tqdm[NoReturn]":
        is_silent = self._is_silent or not label
        return tqdm(total=total, desc=label, unit="case", file=sys.stderr, disable=is_silent, leave=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or 1 where the run or its data cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.evaluate", description="Evaluate a run beside untrained baselines."
    )
    parser.add_argument("--run", type=Path, required=True, metavar="FOLDER", help="runs/NAME")
    parser.add_argument("--split", choices=["validation", "test"], default="test", help="default %(default)s")
    parser.add_argument("--json", action="store_true", help="print evaluation.json instead of a table")
    parser.add_argument("--history-cap", type=int, default=DEFAULT_HISTORY_CAP, metavar="N",
                        help="events of a user that the service keeps (default %(default)s)")  # fmt: skip
    parser.add_argument("--exclude-seen", action=argparse.BooleanOptionalAction, help="default: what the data say")
    parser.add_argument("--device", choices=get_args(Device), default="cpu", help="default %(default)s")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args(arguments)
    if options.history_cap < 1:
        parser.error("--history-cap must be at least 1")
    progress = ProgressBar(is_silent=options.quiet)
    try:
        run = load_run(options.run)
        run.model.to(training_device(options.device))
        comparison = compare(
            run.scorer,
            run.data,
            options.split,
            parts=run.parts(),
            asks_type=run.model.config.event_types,
            history_cap=options.history_cap,
            exclude_seen=options.exclude_seen,
            progress=progress,
        )
        calibration = None
        if options.split == "test":  # fitted on validation: only test can say how far it is off
            masks_seen = comparison.protocol["exclude_seen"]
            counts_V = run.data.train.item_counts(run.data.num_items)
            discount_V = popularity_discount(counts_V, run.popularity_discount)
            calibration = calibrate(ModelScorer(run.model), run.data, exclude_seen=masks_seen, discount_V=discount_V)
    except (DataError, RunError, ValueError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    finally:
        progress.close()
    figures = comparison.as_json()
    if calibration is not None:
        figures["calibration"] = calibration.as_json()
    content = json.dumps(figures, indent=2, ensure_ascii=False) + "\n"
    experiment = {**asdict(run.config.training), "share_of_rules": run.model.share, "returns": run.model.returns}
    html = report_html(options.run.resolve().name, comparison, run.data, run.history, experiment, calibration)
    write_atomically(options.run / REPORT_FILE, html.encode())
    write_atomically(options.run / EVALUATION_FILE, content.encode())
    if options.json:
        print(content, end="")
    else:
        print(table(comparison))
        if calibration is not None:
            off = calibration.calibration.expected_error
            print(f"\nprobabilities of the first ten: expected calibration error {off:.4f}\n")
        print(options.run / REPORT_FILE)
    return 0


def table(comparison: Comparison) -> str:
    """Metrics of every scorer, and the model's lead over each baseline, as text."""
    protocol = comparison.protocol
    width = 2 + max(len(heading) for heading in (LEAD, *map(scorer_label, comparison.results)))
    seen = "masked" if protocol["exclude_seen"] else "eligible"
    lines = [f"{protocol['data']}, {protocol['part']}: {protocol['num_cases']:,} cases, seen items {seen}", ""]
    lines += _metric_rows(comparison.metrics, width)
    lines += ["", f"{LEAD:<{width}}" + "".join(f"{metric_label(metric):>30}" for metric in HEADLINE_METRICS)]
    for name, intervals in comparison.differences.items():
        cells = (intervals[metric] for metric in HEADLINE_METRICS)
        shown = [f"{cell.mean:+.4f} [{cell.low:+.4f}, {cell.high:+.4f}]" for cell in cells]
        lines.append(f"{scorer_label(name):<{width}}" + "".join(f"{cell:>30}" for cell in shown))
    if groups := comparison.results[MODEL].by_repeat:
        heads = [f"{group.name}: {group.num_cases:,} cases" for group in groups]
        lines += ["", " " * width + "".join(f"{head:>30}" for head in heads)]
        lines += [" " * width + "".join(f"{metric_label(metric):>15}" for _ in groups for metric in HEADLINE_METRICS)]
        for name, result in comparison.results.items():
            values = [
                f"{group.metrics[metric]:.4f}" if group.num_cases else "–"
                for group in result.by_repeat
                for metric in HEADLINE_METRICS
            ]
            lines.append(f"{scorer_label(name):<{width}}" + "".join(f"{value:>15}" for value in values))
    if comparison.as_served is not None:
        lines += [
            "",
            f"as served: the newest {comparison.history_cap} events",
            *_metric_rows(comparison.as_served, width),
        ]
    return "\n".join(lines)


def _metric_rows(results: Mapping[str, Mapping[str, float]], width: int) -> list[str]:
    columns = [metric for metric in TABLE_METRICS if metric in results[MODEL]]
    return [
        " " * width + "".join(f"{metric_label(metric):>13}" for metric in columns),
        *(
            f"{scorer_label(name):<{width}}" + "".join(f"{metrics[metric]:>13.4f}" for metric in columns)
            for name, metrics in results.items()
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
