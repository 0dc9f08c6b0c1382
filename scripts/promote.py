"""Make a version live: python -m scripts.promote 20261124T091502-1a2b3c4d --artifacts model_artifacts

A version that is worse than the live one is refused, except one that was live before (a rollback). Workers notice by
themselves.
"""

import argparse
import sys
from pathlib import Path

from app.errors import SegueError
from scripts.training.interactions import DataError, PreparedData
from scripts.training.promotion import PromotionRefused, promote


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.promote", description="Make a version the live one.")
    parser.add_argument("version", help="name of a folder under --artifacts")
    parser.add_argument("--artifacts", type=Path, default=Path("model_artifacts"), help="default: %(default)s")
    parser.add_argument("--data", type=Path, help="prepared data whose test cases both versions are measured on")
    parser.add_argument("--force", action="store_true", help="promote without comparing")
    arguments = parser.parse_args()
    try:
        data = PreparedData.load(arguments.data) if arguments.data else None
        done = promote(arguments.version, arguments.artifacts, data=data, force=arguments.force)
    except (SegueError, PromotionRefused, DataError) as error:
        print(f"promote: {error}", file=sys.stderr)
        return 1
    print(f"{done.version} is live (before: {done.previous or 'none'}): {done.grounds}")
    print(arguments.artifacts / done.version)
    return 0


if __name__ == "__main__":
    sys.exit(main())
