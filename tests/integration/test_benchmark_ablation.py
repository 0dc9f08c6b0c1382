"""`python -m scripts.benchmark ablation`: rows, their gains, and noise that touches only what is taught."""

import re
from pathlib import Path

import numpy as np
import pytest

from scripts.benchmark import main
from scripts.benchmarks.ablation import ROWS_FILE, Row, configurations, read_rows
from scripts.benchmarks.noise import with_noise
from scripts.training.config import ConfigError
from scripts.training.interactions import DataError, PreparedData
from scripts.training.synthetic import markov_sequences, write_sequences
from tests.unit.test_interactions import prepared
from tests.walk_set import settings, write_walk_set

ROWS = """
[[row]]
part = "loss"
name = "gBCE"
values = { loss = "gbce", num_negatives = 8 }

[[row]]
part = "noise"
name = "noisy"
noise = 0.5

[[row]]
name = "elsewhere"
sets = ["another"]
"""


@pytest.fixture
def walk(tmp_path: Path) -> PreparedData:
    sequences = markov_sequences(num_users=50, num_items=30, length=9, predictability=0.8, seed=2)
    return write_sequences(tmp_path / "walk", [*sequences, np.array([1, 2], np.int32)], name="walk", num_items=30)


def test_rows_stand_in_their_parts_with_their_gain(tmp_path: Path) -> None:
    data_folder, output = write_walk_set(tmp_path), tmp_path
    (output / "rows.toml").write_text(ROWS)
    folders = ["--data-folder", str(data_folder), "--output", str(output / "runs"), "--page", str(output / "page.md")]
    assert main(["ablation", *folders, "--rows-file", str(output / "rows.toml"), "--sets", "walk", *settings()]) == 0
    page = (output / "page.md").read_text()
    names = re.findall(r"^\| ([^|]+) \|", page, re.MULTILINE)
    assert names == ["walk", "automatic recipe", "*loss*", "gBCE", "*noise*", "noisy"]
    cells = [re.split(r" *\| *", line)[1:] for line in page.splitlines()]
    ndcg = {row[0]: float(row[3]) for row in cells if len(row) > 9 and row[3].startswith(".")}
    gains = dict(re.findall(r"^\| (gBCE|noisy) \|.*?([+−]\.\d{4}) \[", page, re.MULTILINE))
    for name, gain in gains.items():
        expected = ndcg[name] - ndcg["automatic recipe"]
        assert float(gain.replace("−", "-")) == pytest.approx(expected, abs=1.01e-4), "each is rounded to four places"
    assert gains.keys() == {"gBCE", "noisy"}


def test_a_table_grows_by_the_rows_that_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_folder, output = write_walk_set(tmp_path), tmp_path
    (output / "rows.toml").write_text(ROWS)
    folders = ["--data-folder", str(data_folder), "--output", str(output / "runs"), "--page", str(output / "page.md")]
    command = ["ablation", *folders, "--rows-file", str(output / "rows.toml"), "--sets", "walk", *settings()]
    seen = []
    for chosen in (["noise"], ["gBCE"], ["gBCE"]):
        assert main([*command, "--rows", *chosen]) == 0
        page = (output / "page.md").read_text()
        seen.append((re.findall(r"^\| (automatic recipe|gBCE|noisy) \|", page, re.MULTILINE), page))
    assert [names for names, _ in seen] == [
        ["automatic recipe", "noisy"],
        ["automatic recipe", "gBCE", "noisy"],
        ["automatic recipe", "gBCE", "noisy"],
    ]
    assert seen[1] == seen[2], "nothing is trained twice"
    assert main([*command, "--rows", "nois"]) == 1
    assert "no row and no part is named 'nois'; the parts are loss, noise" in capsys.readouterr().err


def test_the_rows_we_keep_fit_the_automatic_recipe(walk: PreparedData) -> None:
    assert len(configurations(read_rows(ROWS_FILE), walk, {})) > 10


def test_a_row_that_does_not_fit_is_named_before_anything_is_trained(walk: PreparedData) -> None:
    with pytest.raises(ConfigError, match="row 'three heads': dim must be a multiple of num_heads"):
        configurations([Row("three heads", {"num_heads": 3})], walk, {"dim": 16})


def test_two_rows_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.toml").write_text('[[row]]\nname = "x"\n[[row]]\nname = "x"\n')
    with pytest.raises(ConfigError, match="every row needs a name of its own"):
        read_rows(tmp_path / "rows.toml")


def test_noise_adds_events_to_the_training_part_alone(tmp_path: Path, walk: PreparedData) -> None:
    noisy = with_noise(walk, 0.2, tmp_path / "noisy")
    # 50 users with 7 training events each; the user of two events has no case and stays.
    assert len(noisy.train) == len(walk.train) + round(0.2 * 50 * 7)
    for part in ("validation", "test"):
        assert noisy.cases(part).targets.tolist() == walk.cases(part).targets.tolist()
    for user in range(walk.num_users):
        clean, mixed = walk.train.sequence(user)[0].tolist(), iter(noisy.train.sequence(user)[0].tolist())
        assert all(item in mixed for item in clean), "what was there stays, in its order"
    assert noisy.train.sequence(50)[0].tolist() == [1, 2]
    assert noisy.fingerprint == with_noise(walk, 0.2, tmp_path / "again").fingerprint


def test_noise_in_data_with_a_clock_takes_the_time_of_the_event_before(tmp_path: Path) -> None:
    data = prepared(tmp_path / "data", [[(1, 10), (2, 20), (3, 30), (4, 40)]])
    noisy = with_noise(data, 1.0, tmp_path / "noisy")
    assert len(noisy.train) == 4
    assert set(noisy.train.sequence(0)[1].tolist()) <= {10, 20}
    assert noisy.everything.sequence(0)[1].tolist()[-2:] == [30, 40]


def test_noise_needs_a_training_part_with_an_end_per_user(tmp_path: Path) -> None:
    data = prepared(tmp_path / "data", [[(1, 10), (2, 20), (3, 30)]], "temporal", validation=15, test=25)
    with pytest.raises(DataError, match="split leave-one-out"):
        with_noise(data, 0.1, tmp_path / "noisy")
