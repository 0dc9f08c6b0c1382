"""From a run to a version folder: python -m scripts.export --run runs/NAME --artifacts model_artifacts

Takes the weights trained on everything where the run was refitted, the best ones otherwise. Evaluate first: the figures
travel along. --quantize and --prune make the graph smaller, and are refused where that costs more accuracy than
--max-drop allows.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from app.artifacts.manifest import MANIFEST_FILE, Manifest
from app.errors import SegueError
from scripts.training.export import export_run
from scripts.training.graph import ExportError
from scripts.training.interactions import DataError
from scripts.training.run_folder import EVALUATION_FILE, WATCHED_METRIC, RunError, is_refitted, load_run
from scripts.training.smaller import QUANTIZE_CHOICES, Smaller


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0; 1 where nothing could be written, for a reason that is printed."""
    parser = argparse.ArgumentParser(prog="python -m scripts.export", description="Write a run as a version folder.")
    parser.add_argument("--run", type=Path, required=True, help="folder that train wrote")
    parser.add_argument("--artifacts", type=Path, default=Path("model_artifacts"), help="default: %(default)s")
    parser.add_argument("--quantize", choices=QUANTIZE_CHOICES, default="none",
                        help="weights of the graph in 8 bits (default %(default)s)")  # fmt: skip
    parser.add_argument("--prune", type=float, default=0.0, metavar="SHARE",
                        help="of the units of each feed-forward layer (default %(default)s)")  # fmt: skip
    parser.add_argument("--max-drop", type=float, default=Smaller.max_drop, metavar="SHARE",
                        help="of validation NDCG@10 that these may cost (default %(default)s)")  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        smaller = Smaller(options.quantize, options.prune, options.max_drop)
    except ValueError as error:
        parser.error(str(error))
    try:
        run = load_run(options.run, refit=is_refitted(options.run))
        folder = export_run(run, options.artifacts, smaller=smaller)
    except (SegueError, ExportError, RunError, DataError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    weights = "trained on everything" if run.refit else "best by validation"
    print(f"{run.data.num_items} items, weights {weights}; {_likeness(folder)}")
    if not (options.run / EVALUATION_FILE).is_file():
        print(
            f"export: {options.run} was not evaluated, so the version carries no metrics and promote cannot compare it",
            file=sys.stderr,
        )
    print(folder)
    return 0


def _likeness(folder: Path) -> str:
    facts = Manifest.model_validate_json((folder / MANIFEST_FILE).read_bytes()).training.get("smaller")
    if facts is None:
        return "the graph ranks as the model does"
    return f"validation {WATCHED_METRIC} {facts['before']:.4f} as trained, {facts['after']:.4f} of the smaller graph"


if __name__ == "__main__":
    sys.exit(main())
