"""The serving benchmark's parts over a small simulated catalogue: real service, real wrk."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from app.artifacts.registry import load_model
from app.ranking.ranker import ItemSequence
from scripts import benchmark
from scripts.benchmarks.errors import BenchmarkError
from scripts.benchmarks.serving import peer, rows, simulated
from scripts.benchmarks.serving.command import HEAD, table
from scripts.benchmarks.serving.load import Load, closed_loop, open_loop
from scripts.benchmarks.serving.rows import (
    EVENTS_PER_USER,
    NUM_USERS,
    SMALL,
    USERS,
    Bench,
    Row,
    item_ids,
    recommend_bodies,
    recommend_calls,
    trained_model,
)
from scripts.benchmarks.serving.services import drawn_items, empty_route, fill_histories, post, service
from scripts.benchmarks.serving.simulated import NUM_CATEGORIES, promote, write_simulated_artifact

pytestmark = pytest.mark.load
NUM_ITEMS = 1500


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts")
    write_simulated_artifact(folder, NUM_ITEMS, version="one")
    promote(folder, "one")
    return folder


def test_simulated_histories_are_continued_near_their_newest_item(artifacts: Path) -> None:
    """Its neighbours and what its rules name: so the index is asked what a trained model would ask it."""
    ranker = load_model(artifacts / "one", history_cap=200).ranker
    vectors_VD = ranker.item_vectors
    assert vectors_VD is not None
    states_BD = ranker.states([_history(item) for item in range(1, 101)])  # type: ignore[attr-defined]  # of format 2
    cosines = np.sum(states_BD * vectors_VD[1:101], axis=1) / np.linalg.norm(states_BD, axis=1)
    assert np.median(cosines / np.linalg.norm(vectors_VD[1:101], axis=1)) > 0.8


def _history(item: int) -> ItemSequence:
    return ItemSequence([1 + item % 7, item], [0, 0], [1, 1])


def test_service_is_loaded_and_measured(artifacts: Path, tmp_path: Path) -> None:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    with service(artifacts, tmp_path / "data") as running:
        fill_histories(running.url, USERS[:40], item_ids(NUM_ITEMS), 5)
        answer = post(running.url, "/recommend", {"user_id": USERS[0], "k": 3})
        assert (answer["strategy"], answer["history_length"]) == ("model", 5)
        filtered = recommend_calls(filter={"field": "category", "op": "eq", "value": "category 7"})
        opened = open_loop(running, filtered, 20, 1)
        assert (opened.per_second, opened.num_failed) == (20, 0)
        closed = closed_loop(running, "/recommend", recommend_bodies(), 1, connections=2)
        assert closed.per_second > 1
        assert closed.num_failed == 0
        assert 0 < closed.p50_ms <= closed.p90_ms <= closed.p99_ms
        memory = running.memory()
        assert 10e6 < memory.worker < memory.whole < 2e9
        (tmp_path / "answer.json").write_text(json.dumps(answer))
        with empty_route(tmp_path / "answer.json") as empty:
            assert post(empty.url, "/recommend", {}) == answer


def test_a_version_of_ones_own_is_measured_beside_the_simulated_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    monkeypatch.setattr(simulated, "item_id", lambda index: f"own-{index}")
    write_simulated_artifact(tmp_path / "own", 300, version="one")
    promote(tmp_path / "own", "one")
    monkeypatch.undo()
    monkeypatch.setattr(rows, "SMALL", 2000)
    drawn_from: list[list[str]] = []
    monkeypatch.setattr(
        rows,
        "fill_histories",
        lambda url, users, ids, num: (drawn_from.append(ids), fill_histories(url, users, ids, num)),
    )
    found = list(trained_model(Bench(tmp_path, 1), tmp_path / "own"))
    assert drawn_from == [[f"own-{index}" for index in range(1, 301)], item_ids(2000)], "the popular ones first"
    assert [row.work.partition(" items")[0] for row in found] == ["trained, 300", "simulated, 2,000"] * 2
    assert all(row.load is not None and row.load.num_failed == 0 for row in found)
    assert re.match(r"\d\.\d\d × simulated", found[0].also)


def test_a_folder_without_a_live_version_is_not_measured(artifacts: Path, tmp_path: Path) -> None:
    shutil.copytree(artifacts / "one", tmp_path / "one")
    with pytest.raises(BenchmarkError, match=r"no version of .* is live; promote one"):
        list(trained_model(Bench(tmp_path, 1), tmp_path))


def test_what_lacks_its_option_is_refused_before_anything_is_measured(capfd: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["serving", "--only", "small", "trained"]) == 1
    out, error = capfd.readouterr()
    assert (out, error) == ("", "benchmark: --only trained needs --trained too; --help says what it names\n")


# Stands in for LibRecommender: knows the items that its data name, and which of them user 0 has seen.
PEER = """
import json, signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
import numpy as np
folder = Path(sys.argv[1])
data, settings = np.load(folder / "data.npz"), json.loads((folder / "settings.json").read_text())
class Answers(BaseHTTPRequestHandler):
    def do_POST(self):
        user = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["user"]
        unseen = np.setdiff1d(data["items"], data["items"][data["users"] == user])
        body = json.dumps({"num_items": len(set(data["items"].tolist())), "ranked": unseen[:10].tolist()}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
HTTPServer(("127.0.0.1", settings["port"]), Answers).serve_forever()
"""


def test_the_peer_is_given_every_item_and_the_histories_of_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "peer.py").write_text(PEER)
    monkeypatch.setattr(peer, "PEER_SCRIPT", tmp_path / "peer.py")
    seen = set(drawn_items(NUM_USERS, SMALL, EVENTS_PER_USER)[3])
    with peer.libserving(Path(sys.executable)) as running:
        answer = post(running.url, "/embed/recommend", {"user": 3, "n_rec": 10})
    first_unseen = [index for index in range(1, 100) if index not in seen][:10]
    assert answer == {"num_items": SMALL, "ranked": first_unseen}


def test_one_item_in_a_hundred_has_a_category(artifacts: Path) -> None:
    attributes = load_model(artifacts / "one", history_cap=200).attributes
    of_seven = [index for index in range(1, NUM_ITEMS + 1) if attributes[index] == {"category": "category 7"}]
    assert of_seven == list(range(7, NUM_ITEMS + 1, NUM_CATEGORIES))


def test_rows_become_lines_of_a_table() -> None:
    some = [
        Row("asked", "p50 < 5 ms", Load(1000.4, 1.234, 2, 3, 0, 0.5, "the client was late"), "2 × as fast"),
        Row("memory", "", None, "3 MB"),
    ]
    head, _, first, second = table(some).splitlines()
    assert head == f"| {' | '.join(HEAD)} |"
    assert first == "| asked | p50 < 5 ms | 1,000 | 1.23 | 2.00 | 3.00 | 0 | 0.50 | 2 × as fast, the client was late |"
    assert second == "| memory |  |  |  |  |  |  |  | 3 MB |"
