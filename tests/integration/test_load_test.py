"""The load test as its users run it, bounded and on loopback."""

from pathlib import Path

import pytest

from scripts import load_test
from tests.distance_model import promote, write_distance_artifact
from tests.service import serving

pytestmark = pytest.mark.load


def test_ramp_is_reported_second_by_second_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_distance_artifact(tmp_path / "artifacts")
    promote(tmp_path / "artifacts", "distance-1")
    picture = tmp_path / "ramp.svg"
    with serving(tmp_path) as client:
        command = ["--url", str(client.base_url), "--rate", "60", "--seconds", "2", "--users", "20", "--p90-ms", "2000"]
        assert load_test.main([*command, "--plot", str(picture)]) == 0
        metrics = client.get("/metrics").text
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["second", "requests", "p50", "ms", "p90", "ms", "p99", "ms", "failed"]
    # From 0 to 60 requests/s in two seconds: 60 requests, a quarter of them in the first.
    assert [line.split()[:2] for line in out[1:3]] == [["0", "15"], ["1", "45"]]
    assert [line.split()[-1] for line in out[1:3]] == ["0", "0"]
    assert "Sustained within a p90 of 2000 ms: 45 requests/s" in out
    assert picture.read_text().startswith("<?xml")
    asked = [line for line in metrics.splitlines() if line.startswith("segue_request_seconds_count")]
    counts = {route: sum(float(line.split()[-1]) for line in asked if f'route="{route}"' in line)
              for route in ("/recommend", "/events")}  # fmt: skip
    assert sum(counts.values()) == 60
    assert 0 < counts["/events"] < 30  # a fifth of sixty


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://example.org", "is not this machine"),
        ("http://10.0.0.7:8000", "is not this machine"),
        ("http://127.0.0.1:9", "refused"),
    ],
)
def test_other_machines_and_silent_ones_are_refused(url: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_test.main(["--url", url]) == 2
    assert message in capsys.readouterr().err


def test_rate_and_length_are_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load_test.main(["--url", "http://127.0.0.1:9", "--rate", "20000"])
    assert "must be 1 to 10000" in capsys.readouterr().err
