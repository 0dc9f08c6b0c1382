"""`python -m scripts.benchmark ablation`: rows, their gains, and noise that touches only what is taught."""

import re
from pathlib import Path

import numpy as np
import pytest

from scripts.benchmark import main
from scripts.benchmarks import ablation
from scripts.benchmarks.ablation import (
    AUTOMATIC,
    ROWS_FILE,
    Row,
    RowResult,
    ablation_table,
    commands,
    configurations,
    measure_rows,
    read_rows,
)
from scripts.benchmarks.experiments import Evaluated, Measured
from scripts.benchmarks.noise import with_noise
from scripts.train import ProgressBar
from scripts.training.config import ConfigError, TrainingConfig
from scripts.training.evaluation import POPULARITY_SHARES
from scripts.training.interactions import DataError, PreparedData
from scripts.training.recipe import DataStatistics
from scripts.training.synthetic import markov_sequences, write_sequences
from tests.unit.test_interactions import prepared
from tests.walk_set import settings, write_walk_set

ROWS = """
[[row]]
part = "loss"
name = "gBCE"
values = { loss = "gbce", num_negatives = 8, followers = 0 }

[[row]]
part = "noise"
name = "noisy"
noise = 0.5

[[row]]
part = "position and time"
name = "bias of time"
values = { time_bias = true }
needs = "clock"

[[row]]
name = "elsewhere"
needs = "attributes"
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


def test_rows_of_a_temporal_split_have_a_clock_and_no_noise(tmp_path: Path) -> None:
    data_folder, page = write_walk_set(tmp_path, has_clock=True), tmp_path / "page.md"
    (tmp_path / "rows.toml").write_text(ROWS)
    folders = ["--data-folder", str(data_folder), "--output", str(tmp_path / "runs"), "--page", str(page)]
    words = ["--rows-file", str(tmp_path / "rows.toml"), "--sets", "walk", "--split", "temporal"]
    assert main(["ablation", *folders, *words, *settings()]) == 0
    names = re.findall(r"^\| ([^|]+) \|", page.read_text(), re.MULTILINE)
    assert names == ["walk-temporal", "automatic recipe", "*loss*", "gBCE", "*position and time*", "bias of time"]
    assert "--sets walk --split temporal --rows-file rows.toml --set dim=16" in page.read_text()


def test_a_gain_on_one_user_alone_is_no_gain() -> None:
    """A hundred cases of one user, all ahead, and three users without a difference: whoever draws users may miss the
    one, whoever draws cases may not."""
    automatic, tried = (
        RowResult(Row(name), [measured(*[rank] * 100, 11, 11, 11)]) for name, rank in (("", 11), ("x", 1))
    )
    assert tried.gain(automatic).low > 0.9
    assert tried.gain(automatic, np.array([0] * 100 + [1, 2, 3])).low == 0


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


def measured(*ranks: int) -> Measured:
    """A training after which the targets had these ranks; only NDCG@10 differs between such trainings."""
    array = np.array(ranks)
    ndcg = float(np.mean(np.where(array <= 10, 1 / np.log2(array + 1), 0)))
    metrics = {"hit_rate@10": 0.5, "ndcg@10": ndcg, "coverage@10": 0.5}
    evaluated = Evaluated(metrics, dict.fromkeys(POPULARITY_SHARES, 0.25), array)
    return Measured({"validation": evaluated, "test": evaluated}, 2, 3.0, "a machine")


def test_a_row_is_compared_over_the_seeds_that_both_have() -> None:
    """NDCG@10 of the recipe's three seeds 1/2, 1 and 1. One seed that finds both targets gains 1/2 over the first of
    them; three with 1/2, 1/2 and 1 gain 0, −1/2 and 0."""
    automatic = RowResult(Row(AUTOMATIC), [measured(1, 11), measured(1, 1), measured(1, 1)])
    tried = RowResult(Row("tried"), [measured(1, 1)])
    finalist = RowResult(Row("finalist"), [measured(1, 11), measured(1, 11), measured(1, 1)])
    assert tried.gain(automatic).mean == pytest.approx(1 / 2)
    assert finalist.gain(automatic).mean == pytest.approx(-1 / 6)
    lines = ablation_table([automatic, tried, finalist], "walk").splitlines()[2:]
    rows = {cells[0]: cells for cells in (re.split(r" *\| *", line)[1:] for line in lines)}
    # The variance of 1/2, 1 and 1, and of 1/2, 1/2 and 1: (1/9 + 1/36 + 1/36) / 2 = 1/12.
    assert rows["automatic recipe, 3 seeds"][3] == ".8333 ± .2887"
    assert rows["finalist, 3 seeds"][3] == ".6667 ± .2887"
    assert rows["tried"][3] == "1.0000"
    assert rows["tried"][4].startswith("+.5000 [")
    assert rows["finalist, 3 seeds"][4].startswith("−.1667 [")
    assert [row[-2] for row in rows.values()] == ["3/3/3", "3", "3/3/3"]


def test_the_finalists_have_three_seeds_in_the_table_of_all_with_one(
    walk: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training stands for itself by its configuration; none takes place."""
    kept: dict[TrainingConfig, Measured] = {}
    trained: list[int] = []

    def train_it(_data: PreparedData, config: TrainingConfig, _output: Path, **_: object) -> Measured:
        if config not in kept:
            trained.append(config.seed)
        return kept.setdefault(config, measured(1, 11))

    monkeypatch.setattr(ablation, "kept_training", lambda _data, config, _output, **_: kept.get(config))
    monkeypatch.setattr(ablation, "measure_training", train_it)
    rows = [Row(AUTOMATIC), Row("wide", {"dim": 256}), Row("deep", {"num_blocks": 3})]

    configs = configurations(rows, walk, {})

    def seeds_by_row(chosen: list[Row], num_seeds: int) -> list[dict[str, int]]:
        tables = measure_rows(
            walk, rows, tmp_path, chosen=chosen, num_seeds=num_seeds, configs=configs, progress=ProgressBar
        )
        return [{result.row.name: len(result.runs) for result in table} for table in tables]

    assert seeds_by_row(rows, 1)[-1] == {AUTOMATIC: 1, "wide": 1, "deep": 1}
    assert seeds_by_row([rows[0], rows[2]], 3) == [
        {AUTOMATIC: 3, "wide": 1, "deep": 1},
        {AUTOMATIC: 3, "wide": 1, "deep": 3},
    ]
    assert seeds_by_row(rows, 1) == [{AUTOMATIC: 3, "wide": 1, "deep": 3}], "fewer seeds take none away"
    assert trained == [1, 1, 1, 2, 3, 2, 3]


def test_a_table_names_the_commands_that_made_it() -> None:
    rows = [Row(name, part=part) for name, part in (("wide", "size"), ("deep", "size"), ("GRU", ""))]
    start = "python -m scripts.benchmark ablation --sets walk --seeds"

    def shown(**seeds: int) -> list[str]:
        same = Row("one that repeats the recipe")
        table = [Row(AUTOMATIC), same, *(row for row in rows if row.name in seeds)]
        results = [RowResult(row, [measured(1)] * seeds.get(row.name, seeds[AUTOMATIC])) for row in table]
        return commands(results, rows, "--sets walk")

    recipe = {AUTOMATIC: 3}
    assert shown(**recipe, wide=1, deep=1, GRU=1) == [f"{start} 1", f"{start} 3 --rows '{AUTOMATIC}'"]
    assert shown(**recipe, wide=1, deep=3, GRU=1) == [f"{start} 1", f"{start} 3 --rows deep"]
    assert shown(**recipe, wide=3, deep=3, GRU=3) == [f"{start} 3"]
    assert shown(**recipe, wide=3, deep=3) == [f"{start} 3 --rows size"], "not all rows: they are named, by their part"
    assert shown(**recipe, deep=1, GRU=3) == [f"{start} 1 --rows deep GRU", f"{start} 3 --rows GRU"]


def test_the_rows_we_keep_fit_the_automatic_recipe(walk: PreparedData) -> None:
    assert len(configurations(read_rows(ROWS_FILE), walk, {})) > 10


def test_the_rows_we_keep_fit_the_recipe_of_a_large_catalogue(
    walk: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It samples, by popularity and with logQ, which other losses refuse."""
    large = DataStatistics(num_items=50_000, num_steps=1_000_000, long_history=50, events_per_item=20)
    monkeypatch.setattr(ablation, "count", lambda _: large)
    configs = configurations([Row(AUTOMATIC), *read_rows(ROWS_FILE)], walk, {})
    assert configs[AUTOMATIC].loss == "sampled_softmax"
    assert {config.loss for config in configs.values()} == {"sampled_softmax", "cross_entropy", "bce", "gbce"}
    uniform = configs["sampled softmax, 1,024 shared negatives"]
    assert (uniform.negatives, uniform.logq_correction) == ("uniform", False)


def test_a_row_that_does_not_fit_is_named_before_anything_is_trained(walk: PreparedData) -> None:
    with pytest.raises(ConfigError, match="row 'three heads': dim must be a multiple of num_heads"):
        configurations([Row("three heads", {"num_heads": 3})], walk, {"dim": 16})


def test_what_a_row_changes_comes_before_what_all_rows_change(walk: PreparedData) -> None:
    configs = configurations([Row(AUTOMATIC), Row("wide", {"dim": 256})], walk, {"dim": 16, "num_blocks": 1})
    assert [(config.dim, config.num_blocks) for config in configs.values()] == [(16, 1), (256, 1)]


def test_a_row_that_changes_no_rank_is_called_the_same() -> None:
    table = ablation_table([RowResult(Row(name), [measured(1, 3)]) for name in (AUTOMATIC, "two blocks")], "walk")
    assert re.findall(r"two blocks .*?\| (\D+) \|", table) == ["the same"]


def test_a_need_that_is_not_known_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.toml").write_text('[[row]]\nname = "x"\nneeds = "luck"\n')
    with pytest.raises(ConfigError, match="a row needs clock or attributes, found 'luck'"):
        read_rows(tmp_path / "rows.toml")


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
