"""What `evaluate` promises is what users get: held-out histories through the live service give the offline figures."""

import json
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.training.interactions import PreparedData
from tests.service import ROOT, serving

NUM_USERS, NUM_ITEMS, HISTORY_CAP, MAX_LENGTH, K = 120, 60, 20, 12, 10


def run(command: str, *options: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"scripts.{command}", *map(str, options)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_interactions(path: Path) -> None:
    """Users walk a ring of items. A third of the steps share the time of the one before; a fifth of the users are
    longer than the cap, so that what they saw first is no longer known to be seen."""
    generator = random.Random(3)
    lines = ["user_id,item_id,timestamp"]
    for user in range(NUM_USERS):
        item, time_s = generator.randrange(NUM_ITEMS), 1_600_000_000 + user
        for _ in range(generator.randint(25, 40) if user % 5 == 0 else generator.randint(4, 15)):
            lines.append(f"u{user},i{item},{time_s}")
            item = (item + generator.choice((1, 1, 1, 2, 7))) % NUM_ITEMS
            time_s += 0 if generator.random() < 1 / 3 else 60
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data, run, artifacts and evaluation.json of a small model, made by the commands that a user runs."""
    folder = tmp_path_factory.mktemp("offline")
    write_interactions(folder / "interactions.csv")
    data, model_run, artifacts = folder / "prepared", folder / "run", folder / "artifacts"
    run("prepare", "--interactions", folder / "interactions.csv", "--output", data, "--exclude-seen", "yes", "--quiet")
    settings = {"max_length": MAX_LENGTH, "dim": 16, "max_epochs": 4, "batch_tokens": 256, "temporal": "conv"}
    options = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    run("train", "--data", data, "--output", model_run, *options)
    printed = run("evaluate", "--run", model_run, "--history-cap", HISTORY_CAP, "--json")
    (folder / "printed.json").write_text(printed)
    version = Path(run("export", "--run", model_run, "--artifacts", artifacts).splitlines()[-1]).name
    run("promote", version, "--artifacts", artifacts)
    return folder


def test_replayed_histories_give_the_offline_figures_as_served_to_the_digit(folder: Path) -> None:
    evaluation = json.loads((folder / "printed.json").read_text())
    expected = evaluation["as_served"]
    assert expected["history_cap"] == HISTORY_CAP
    prepared = PreparedData.load(folder / "prepared")
    cases = prepared.cases("test")
    ranks: list[int | None] = []
    with serving(folder, history_cap=HISTORY_CAP) as client:
        for number, user_index in enumerate(cases.user_indices.tolist()):
            user_id = prepared.user_ids[user_index]
            items, timestamps_ms, _ = cases.histories.sequence(number)
            events = [
                {
                    "user_id": user_id,
                    "item_id": prepared.item_ids[item - 1],
                    "timestamp": time_ms,
                    "sequence": sequence,
                }
                for sequence, (item, time_ms) in enumerate(zip(items.tolist(), timestamps_ms.tolist(), strict=True))
            ]
            # Late events fall into their place, so a shuffled half first must not matter.
            half = len(events) // 2
            for part in (events[half:], events[:half]):
                if part:
                    assert client.post("/events", json=part).status_code == 200
            answer = client.post("/recommend", json={"user_id": user_id, "k": K}).json()
            assert answer["strategy"] == "model"
            assert answer["history_length"] == min(len(events), HISTORY_CAP)
            ranked = [item["item_id"] for item in answer["items"]]
            target = prepared.item_ids[cases.targets[number] - 1]
            ranks.append(ranked.index(target) + 1 if target in ranked else None)
    assert len(ranks) == evaluation["protocol"]["num_cases"]
    hit_rate = sum(rank is not None for rank in ranks) / len(ranks)
    ndcg = sum(1 / math.log2(rank + 1) for rank in ranks if rank is not None) / len(ranks)
    assert hit_rate > 0.2  # a comparison of zeros would prove nothing
    assert hit_rate == pytest.approx(expected["model"]["hit_rate@10"], abs=1e-12)
    assert ndcg == pytest.approx(expected["model"]["ndcg@10"], abs=1e-12)


def test_data_hold_ties_and_users_beyond_the_cap(folder: Path) -> None:
    """What makes the test above hard is really there."""
    cases = PreparedData.load(folder / "prepared").cases("test")
    assert (cases.histories.lengths > HISTORY_CAP).sum() >= 20
    assert any(
        len(set(cases.histories.sequence(case)[1].tolist())) < cases.histories.lengths[case] for case in range(9)
    )
