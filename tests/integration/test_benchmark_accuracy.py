"""`python -m scripts.benchmark accuracy` on a set that trains in seconds."""

import json
import re
import statistics
from pathlib import Path

import numpy as np
import pytest

from scripts.benchmark import main
from scripts.benchmarks import experiments
from scripts.benchmarks.accuracy import SetAccuracy, published_table
from scripts.benchmarks.experiments import Evaluated, Measured
from scripts.benchmarks.pages import write_section
from tests.walk_set import settings, write_walk_set

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks" / "accuracy.md"


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    return write_walk_set(tmp_path)


def run(data_folder: Path, *words: str) -> int:
    output = data_folder.parent
    folders = ["--data-folder", str(data_folder), "--output", str(output / "runs"), "--page", str(output / "page.md")]
    return main(["accuracy", *folders, "--sets", "walk", *settings(), *words])


def test_mean_and_deviation_are_those_of_the_seeds_runs(data_folder: Path) -> None:
    write_section(data_folder.parent / "page.md", "accuracy on another", "Of an earlier call.")
    assert run(data_folder, "--seeds", "3") == 0
    page = (data_folder.parent / "page.md").read_text()
    assert "Of an earlier call." in page
    assert "<!-- accuracy on walk: written by the command below -->\n## walk: leave-one-out" in page
    kept = sorted((data_folder.parent / "runs").glob("walk-*/*-[123]/measured.json"))
    values = [json.loads(path.read_text())["evaluated"]["test"]["metrics"]["ndcg@10"] for path in kept]
    assert len(set(values)) == 3, "three seeds, three models"
    expected = [f"{value:.4f}".removeprefix("0") for value in (statistics.mean(values), statistics.stdev(values))]
    (row,) = re.findall(r"^\| \*\*Segue\*\*, 3 seeds \|(.*)\|$", page, re.MULTILINE)
    assert row.split("|")[1].strip() == f"**{expected[0]}** ± {expected[1]}"
    assert "walk: 60 users, 30 items, 60 cases" in page
    assert str(data_folder) not in page, "a page does not tell where the data lay"
    assert "HR@10 / NDCG@10 on exactly these files" not in page, "nothing is published of this set"


def test_a_finished_seed_is_not_trained_again(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(data_folder, "--seeds", "1") == 0
    (row,) = re.findall(
        r"^\| \*\*Segue\*\*, one seed \|(.*)\|$", (data_folder.parent / "page.md").read_text(), re.MULTILINE
    )
    assert "±" not in row, "one seed has no deviation"
    trained = []
    real = experiments.train
    monkeypatch.setattr(
        experiments,
        "train",
        lambda data, config, *rest, **more: (trained.append(config.seed), real(data, config, *rest, **more)),
    )
    assert run(data_folder, "--seeds", "2") == 0
    assert trained == [2]
    assert run(data_folder, "--seeds", "2", "--set", "dropout=0.3") == 0
    assert trained == [2, 1, 2], "another recipe is another experiment"


def test_a_set_that_is_nowhere_is_one_line_and_exit_code_1(
    data_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["--data-folder", str(data_folder), "--output", str(data_folder.parent / "runs")]
    assert main(["accuracy", *folders, "--sets", "nowhere"]) == 1
    assert "no public data set is named nowhere" in capsys.readouterr().err


def accuracy(name: str, ranks: list[list[int]], baseline: list[int]) -> SetAccuracy:
    def evaluated(values: list[int]) -> Evaluated:
        array = np.array(values)
        hits = float((array <= 10).mean())
        return Evaluated({"hit_rate@10": hits, "ndcg@10": hits / 2, "coverage@10": 0.5}, {}, array)

    runs = [Measured({"test": evaluated(each)}, 1, 1.0, "a machine") for each in ranks]
    return SetAccuracy(name, 4, 5, 4, runs, {"markov": evaluated(baseline)})


def test_the_lead_is_paired_by_case_over_the_mean_of_the_seeds() -> None:
    """Hits of two seeds: 1, 1, 0, 0 and 1, 0, 0, 0; of the baseline 1, 0, 0, 0: ahead by (0 + ½ + 0 + 0) / 4."""
    found = accuracy("beauty", [[1, 2, 11, 11], [3, 12, 11, 11]], [1, 11, 11, 11])
    lead = found.lead("hit_rate@10")
    assert lead.mean == pytest.approx(1 / 8)
    assert (lead.low, lead.high) == (0, pytest.approx(3 / 8)), "drawn 0 to 3 times, in 95 of 100 samples"


def test_published_figures_stand_beside_ours_with_what_is_not_quite_the_same_file() -> None:
    lines = published_table(accuracy("ml-1m", [[1, 1, 11, 11]], [1, 1, 1, 1])).splitlines()
    assert "| SASRec, sampled softmax, 256 negatives | near .2929 / .1684 |" in lines
    assert "| **Segue**, chosen by itself | **.5000 / .2500** |" in lines
    assert not any(line.startswith("| BSARec") for line in lines), "it has published nothing of this set"
    assert "| BSARec | .1008 / .0611 |" in published_table(accuracy("beauty", [[1]], [1])).splitlines()


def test_each_table_of_the_page_stands_in_the_section_that_its_command_writes() -> None:
    page = PAGE.read_text()
    section = re.compile(
        r"<!-- (accuracy on|temporal split of|peers on) (\S+): written by .*?-->\n(.*?)<!-- end of \1 \2 -->", re.S
    )
    found = [(name, text) for _, name, text in section.findall(page)]
    assert [re.findall(r"scripts\.benchmark .* --sets (.+?) --", text) for _, text in found] == [[n] for n, _ in found]
    assert len(found) == page.count("scripts.benchmark ") > 0
