"""docs/training.md is made from TrainingConfig. To write it anew: python -m tests.contract.test_training_documented"""

import dataclasses
import re
from pathlib import Path
from typing import get_args, get_type_hints

from scripts.training.config import RANGES, TrainingConfig

FILE = Path(__file__).parent.parent.parent / "docs" / "training.md"
HEAD = """# What `train` can be told

`python -m scripts.train --data DATA --output RUN` chooses a recipe from the data and prints each choice with its
reason. `--set key=value` changes one key of it, as often as given; `--config FILE` (TOML, the same keys) takes the
place of the recipe, and what the file leaves out has the default below. A key that does not exist, a value out of range
and two values that do not go together stop the command at once, with all faults in one message. `tune` searches around
the recipe and writes such a file. What the recipe chooses for six public sets: [recipes](benchmarks/recipes.md). What
each part is worth: [ablation](benchmarks/ablation.md), [event types](benchmarks/event-types.md) and
[experiments](experiments.md); what it reaches: [accuracy](benchmarks/accuracy.md). Models of the literature to begin
with, for `--config`, are in `scripts/configs`.

`--resume` goes on where an interrupted run stopped, from its last whole epoch, and ends with the weights of a run that
was never interrupted. `--refit` trains once more on everything, the validation and test items included, for as many
epochs as were best before: `export` then ships those weights with the figures of the measured ones. `--tracker` writes
TensorBoard files (default) or an MLflow database, or `none`.

| key | default | values | meaning |
|---|---|---|---|
"""
ENTRY = re.compile(r"^    (\w+)  +(\S.*(?:\n {8,}\S.*)*)", re.MULTILINE)


def meanings() -> dict[str, str]:
    """By key, from the docstring: a name, two spaces or more, and a text that may go on indented."""
    return {name: " ".join(text.split()) for name, text in ENTRY.findall(TrainingConfig.__doc__ or "")}


def text() -> str:
    said, types = meanings(), get_type_hints(TrainingConfig)
    rows = []
    for field in dataclasses.fields(TrainingConfig):
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        choices = ", ".join(f"`{value}`" for value in get_args(types[field.name]) if isinstance(value, str))
        if types[field.name] is bool:
            choices = "`true`, `false`"
        elif types[field.name] in (int, float):
            choices = RANGES[field.name][0]
        elif types[field.name] == tuple[int, ...]:
            choices = "each at least 1"
        rows.append(f"| `{field.name}` | `{str(default).lower()}` | {choices} | {said.get(field.name, '')} |\n")
    return HEAD + "".join(rows)


def test_page_lists_every_key_as_it_is() -> None:
    assert FILE.read_text() == text(), f"run: python -m {__name__}"


def test_every_key_says_what_it_means() -> None:
    assert [field.name for field in dataclasses.fields(TrainingConfig) if not meanings().get(field.name)] == []


if __name__ == "__main__":
    FILE.write_text(text())
    print(FILE)
