"""The proofs: speed, memory and accuracy, measured where this runs.

python -m scripts.benchmark SUBJECT …, python -m scripts.benchmark SUBJECT --help
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

SUBJECTS = {
    "prepare": "preparation",
    "evaluation": "evaluation",
    "recipes": "recipes",
    "accuracy": "accuracy",
    "quantization": "quantization",
    "item-product": "item_product",
    "temporal": "temporal",
    "ablation": "ablation",
    "event-types": "event_types",
    "cold-items": "cold_items",
    "live-rules": "live_rules",
    "live-rules-cost": "live_rules_cost",
    "training-speed": "training_speed",
    "peer-accuracy": "peer_accuracy",
    "training-cost": "training_cost",
    "store": "store",
    "backfill": "backfill",
    "filters": "filters",
    "devices": "devices",
    "serving": "serving.command",
}
"""Subject → module in `scripts.benchmarks`, whose `register` adds its options and what it runs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0; 1 where something that is needed is missing; 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m scripts.benchmark", description="Measure one part of Segue.")
    subjects = parser.add_subparsers(required=True, metavar="SUBJECT")
    # Only the one asked for: PyTorch in this process would be counted in the peak memory of its children.
    chosen = arguments[0] if arguments and arguments[0] in SUBJECTS else None
    for name, module in SUBJECTS.items():
        if chosen in (None, name):
            importlib.import_module(f"scripts.benchmarks.{module}").register(subjects)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except _refusals() as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmark: interrupted; one that trains goes on when it is called again", file=sys.stderr)
        return 130
    return 0


def _refusals() -> tuple[type[Exception], ...]:
    """What a benchmark says when it cannot run; evaluated only once something was raised."""
    from scripts.benchmarks.errors import BenchmarkError
    from scripts.training.config import ConfigError
    from scripts.training.interactions import DataError
    from scripts.training.run_folder import RunError

    return BenchmarkError, ConfigError, DataError, RunError


if __name__ == "__main__":
    sys.exit(main())
