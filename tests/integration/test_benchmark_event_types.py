"""`python -m scripts.benchmark event-types`, small."""

import re
from pathlib import Path

import pytest

from scripts.benchmark import main
from scripts.benchmarks import event_types

SETTINGS = ["dim=32", "num_blocks=1", "max_epochs=14", "device=cpu", "dropout=0.1", "followers=0", "learning_rate=0.01"]
SETTINGS += ["average_decay=0.9", "batch_tokens=256"]


def test_events_of_a_type_are_ranked_best_by_its_own_head(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who knows the type knows the item; who does not has three equally likely ones, (1 + 1/log₂3 + 1/2) / 3 = .71 at
    best."""
    monkeypatch.setattr(event_types, "NUM_USERS", 400)
    monkeypatch.setattr(event_types, "NUM_ITEMS", 60)
    page = tmp_path / "page.md"
    words = ["event-types", "--page", str(page), *(word for each in SETTINGS for word in ("--set", each))]
    assert main(words) == 0
    printed = capsys.readouterr().out
    table = printed.removesuffix(f"{page}\n").strip()
    assert table in page.read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert [re.sub(r" \(\d+\)", "", name) for name in rows[0]] == ["generated", "view", "cart", "purchase", "all"]
    values = {row[0]: [float(cell) for cell in row[1:]] for row in rows[2:]}
    own = values["each by its own head"]
    assert own[:3] == [values[f"head of {name}"][place] for place, name in enumerate(("view", "cart", "purchase"))]
    assert own[3] > 0.85
    assert values["types not read"][3] < 0.8
    assert values["head of any type"][3] < 0.8
    # Second places at best, 1/log₂3 = .63.
    assert max(values["head of purchase"][:2]) < 0.64
