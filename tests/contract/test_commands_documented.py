"""Every command that a page shows on a line of its own is understood by the program it names, down to the ablation's
rows and the keys of --set. docs/experiments.md is a log: its commands belong to the commits of their time.
"""

import argparse
import dataclasses
import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest

from scripts.benchmarks.ablation import choose_rows, read_rows
from scripts.training.config import TrainingConfig, parse_assignments
from tests.service import ROOT

PAGES = sorted(
    {ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")} - {ROOT / "docs/experiments.md"}
)
COMMAND = re.compile(r"^ *python -m (scripts\.\w+)(.*)$", re.MULTILINE)

KEYS = {key.name for key in dataclasses.fields(TrainingConfig)}


class Understood(Exception):
    """Instead of the command's work."""


def parsed(module: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """What the command understands; it ends where its work would begin.

    Raises:
        SystemExit: it refuses the words.
    """
    understood: list[argparse.Namespace] = []
    parse = argparse.ArgumentParser.parse_args

    def parse_and_end(parser: argparse.ArgumentParser, arguments: list[str] | None = None) -> None:
        understood.append(parse(parser, arguments))
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_end)
    monkeypatch.setattr(sys, "argv", [module, *words])
    with pytest.raises(Understood):
        importlib.import_module(module).main()
    monkeypatch.undo()
    return understood[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_of_a_page_are_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, rest in COMMAND.findall(page.read_text(encoding="utf-8")):
        options = parsed(module, shlex.split(rest.replace("SEED", "1"), comments=True), monkeypatch)
        assert parse_assignments(getattr(options, "set", None) or []).keys() <= KEYS
        if hasattr(options, "rows_file"):
            choose_rows(read_rows(options.rows_file), options.rows)


def test_a_command_of_yesterday_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        parsed("scripts.benchmark", ["ablation", "--sets", "beauty", "--no-such-option"], monkeypatch)
