"""What becomes of an event of each type: the manifest's map, and the file that stands above it."""

from pathlib import Path

import pytest

from app.artifacts.event_types import read_event_uses, with_uses
from app.artifacts.manifest import DEFAULT_EVENT_TYPES, EventType

FILE = """
[view]

[watch]
threshold = 0.5

[purchase]
weight = 3.0

[impression]
use = "count"

[dislike]
use = "negative"
hides_days = 7.5

[not_interested]
use = "negative"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "types.toml"
    path.write_text(FILE)
    return path


def test_each_table_gives_its_use(path: Path) -> None:
    types = with_uses({}, read_event_uses(path))
    uses = {name: (entry.use_of(None), entry.weight, entry.hides_days) for name, entry in types.items()}
    assert uses == {
        "view": ("sequence", 1, 0),
        "watch": ("count", 1, 0),
        "purchase": ("sequence", 3, 0),
        "impression": ("count", 1, 0),
        "dislike": ("negative", 1, 7.5),
        "not_interested": ("negative", 1, 30),
    }


@pytest.mark.parametrize(("value", "use"), [(None, "count"), (0.49, "count"), (0.5, "sequence"), (1, "sequence")])
def test_watch_enters_from_the_threshold_on(path: Path, value: float | None, use: str) -> None:
    assert with_uses({}, read_event_uses(path))["watch"].use_of(value) == use


def test_file_stands_above_the_artifact_which_keeps_the_indices_and_the_rest(path: Path) -> None:
    artifact = {"purchase": EventType(index=7), "rate": EventType(index=8, weight=2)}
    types = with_uses(artifact, read_event_uses(path))
    assert types["purchase"] == EventType(index=7, weight=3)
    assert types["rate"] == artifact["rate"]
    assert types["dislike"].index == 0


def test_dismissed_items_are_hidden_where_nothing_says_otherwise() -> None:
    assert DEFAULT_EVENT_TYPES["dismiss"].use_of(None) == "negative"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[view", "no readable TOML"),
        ("[View]", "View"),
        ('[view]\nuse = "seq"', "view.use"),
        ("[view]\nwieght = 2", "view.wieght"),
        ("[view]\nweight = -1", "view.weight"),
        ("[view]\nhides_days = 3", "hides_days belongs to use = 'negative'"),
        ('[view]\nuse = "count"\nthreshold = 3', "belong to use = 'sequence'"),
        ("view = 3", "view"),
    ],
)
def test_fault_of_a_file_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "types.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"types\.toml") as error:
        read_event_uses(path)
    assert message in str(error.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing\.toml"):
        read_event_uses(tmp_path / "nothing.toml")
