"""From a run to a version folder: python -m scripts.export --run runs/NAME --artifacts model_artifacts

Takes the weights trained on everything where the run was refitted, the best ones otherwise. Evaluate first: the figures
travel along.
"""

import argparse
import sys
from pathlib import Path

from app.errors import SegueError
from scripts.training.export import export_run
from scripts.training.graph import ExportError
from scripts.training.interactions import DataError
from scripts.training.run_folder import EVALUATION_FILE, RunError, is_refitted, load_run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.export", description="Write a run as a version folder.")
    parser.add_argument("--run", type=Path, required=True, help="folder that train wrote")
    parser.add_argument("--artifacts", type=Path, default=Path("model_artifacts"), help="default: %(default)s")
    arguments = parser.parse_args()
    try:
        run = load_run(arguments.run, refit=is_refitted(arguments.run))
        folder = export_run(run, arguments.artifacts)
    except (SegueError, ExportError, RunError, DataError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    weights = "trained on everything" if run.refit else "best by validation"
    print(f"{run.data.num_items} items, weights {weights}; the graph ranks as the model does")
    if not (arguments.run / EVALUATION_FILE).is_file():
        print(
            f"export: {arguments.run} was not evaluated, so the version carries no metrics and promote cannot compare "
            "it",
            file=sys.stderr,
        )
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
