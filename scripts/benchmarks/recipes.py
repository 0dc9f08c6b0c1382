"""What the automatic recipe chooses for data sets of different kinds, and why; nothing is trained."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from scripts.benchmarks.accuracy import add_data_arguments
from scripts.benchmarks.experiments import PUBLISHED_SETS, benchmark_data, leave_one_out
from scripts.benchmarks.pages import markdown_table, write_section
from scripts.training.recipe import DataStatistics, choose_recipe, count

DEFAULT_SETS = (*PUBLISHED_SETS, "ml-100k", "ml-latest-small", "completejourney")


def recipes_table(names: Sequence[str], counted: Sequence[DataStatistics]) -> str:
    """Markdown: what was counted of each set, then what the recipe chose for it."""
    configs, reasons = zip(*(choose_recipe(each) for each in counted), strict=True)
    given = {key for each in reasons for key in each}
    rows = [["*counted over the training part*", *[""] * len(names)]]
    rows += [[key.replace("_", " "), *(_shown(getattr(each, key)) for each in counted)] for key in asdict(counted[0])]
    rows.append(["*chosen*", *[""] * len(names)])
    rows += [
        [f"`{key}`", *(_shown(getattr(each, key)) for each in configs)] for key in asdict(configs[0]) if key in given
    ]
    return markdown_table(["", *names], rows)


def reasons_sections(names: Sequence[str], counted: Sequence[DataStatistics]) -> str:
    """Markdown: the reasons that `train` prints, first what all sets have alike, then a section for each."""
    of_sets = []
    for statistics in counted:
        config, reasons = choose_recipe(statistics)
        of_sets.append([f"- `{key}` {_shown(getattr(config, key))}: {reason}" for key, reason in reasons.items()])
    alike = set.intersection(*map(set, of_sets)) if len(names) > 1 else set()
    sections = {"All of these sets": [line for line in of_sets[0] if line in alike]} if alike else {}
    sections |= {
        name: [line for line in lines if line not in alike] for name, lines in zip(names, of_sets, strict=True)
    }
    return "\n\n".join("\n".join([f"## {heading}", "", *lines]) for heading, lines in sections.items())


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def register(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subjects.add_parser("recipes", help="what the recipe chooses for data of different kinds, and why")
    add_data_arguments(parser, Path("docs/benchmarks/recipes.md"), DEFAULT_SETS)
    parser.set_defaults(run=_main)


def _main(options: argparse.Namespace) -> None:
    counted = [
        count(benchmark_data(name, options.data_folder, options.output, leave_one_out(name))) for name in options.sets
    ]
    table = recipes_table(options.sets, counted)
    print(table, end="\n\n")
    command = f"    python -m scripts.benchmark recipes --data-folder DATA --sets {' '.join(options.sets)}"
    write_section(options.page, "recipes", "\n\n".join([command, table, reasons_sections(options.sets, counted)]))
    print(options.page)
