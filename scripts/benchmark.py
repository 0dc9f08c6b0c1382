"""The proofs: speed and memory, measured where this runs. python -m scripts.benchmark prepare --rows 10000000"""

import argparse
import sys

from scripts.benchmarks import preparation


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.benchmark", description="Measure one part of Segue.")
    subjects = parser.add_subparsers(required=True)
    prepare = subjects.add_parser("prepare", help="time and peak memory of preparing a generated file")
    prepare.add_argument("--rows", type=int, default=10_000_000, help="default %(default)s")
    prepare.add_argument("--format", choices=["parquet", "csv"], default="parquet", help="default %(default)s")
    prepare.set_defaults(run=_prepare)
    options = parser.parse_args()
    options.run(options)
    return 0


def _prepare(options: argparse.Namespace) -> None:
    cost = preparation.measure(options.rows, f".{options.format}")
    print(cost.table)
    print(
        f"{cost.rows:,} rows ({cost.file_bytes / 1e6:,.0f} MB of {options.format}) prepared in {cost.seconds:.1f} s, "
        f"peak memory {cost.peak_bytes / 1e9:.2f} GB"
    )


if __name__ == "__main__":
    sys.exit(main())
