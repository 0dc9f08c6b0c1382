"""What one process counts, what it keeps of dead ones, and what its log lines hold. (Several workers: integration.)"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from app.telemetry import Telemetry, configure_logging, forget_dead_workers, metrics_folder, request_id


@pytest.fixture
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_every_metric_carries_the_namespace() -> None:
    telemetry = Telemetry("shoes")
    telemetry.request("/recommend", "POST", 200, 0.0015)
    telemetry.events("accepted", 3)
    telemetry.events("rejected", 0)
    telemetry.recommendation("popular", ("unknown_user", "short_catalogue"), "v1")
    telemetry.log_dropped("log_full", 7)
    telemetry.store_error()
    lines = [line for line in telemetry.render().decode().splitlines() if not line.startswith("#")]
    assert all('namespace="shoes"' in line for line in lines)
    assert 'segue_events_total{namespace="shoes",outcome="accepted"} 3.0' in lines
    assert not [line for line in lines if "rejected" in line]
    labels = 'model_version="v1",namespace="shoes",reasons="unknown_user+short_catalogue",strategy="popular"'
    assert f"segue_recommendations_total{{{labels}}} 1.0" in lines
    bucket = (
        'segue_request_seconds_bucket{{le="{}",method="POST",namespace="shoes",route="/recommend",status="200"}} {}'
    )
    assert bucket.format("0.001", "0.0") in lines
    assert bucket.format("0.002", "1.0") in lines


def test_positions_of_answers_and_events_fall_into_the_same_ranges() -> None:
    telemetry = Telemetry("default")
    telemetry.recommended("model", "v1", 1, 12)
    telemetry.recommended("model", "v1", 13, 60)  # the next page
    for position in (1, 10, 11, 100_000, None):
        telemetry.attributed("model", "v1", "click", position)
    counted = {
        line.partition("{")[0]: {}  # type: ignore[var-annotated]
        for line in telemetry.render().decode().splitlines()
        if line.startswith(("segue_recommended", "segue_attributed"))
    }
    for line in telemetry.render().decode().splitlines():
        name = line.partition("{")[0]
        if name in counted:
            counted[name][line.split('position="')[1].partition('"')[0]] = float(line.rpartition(" ")[2])
    assert counted["segue_recommended_items_total"] == {
        "1": 1, "2": 1, "3": 1, "4": 1, "5": 1, "6-10": 5, "11-20": 10, "21-50": 30, "51+": 10,
    }  # fmt: skip
    assert counted["segue_attributed_events_total"] == {"1": 1, "6-10": 1, "11-20": 1, "51+": 1, "": 1}


def test_gauge_follows_the_live_version_and_stays_with_it_when_another_fails() -> None:
    telemetry = Telemetry("default")
    telemetry.reload("v1", None, 0.1)
    telemetry.reload("v2", None, 0.1)
    telemetry.reload("v3", "damaged", 0.1)
    page = telemetry.render().decode()
    for version, value in (("v1", "0.0"), ("v2", "1.0")):
        assert f'segue_model_live_workers{{model_version="{version}",namespace="default"}} {value}' in page
    assert 'model_version="v3"' not in page
    assert 'segue_model_reloads_total{namespace="default",outcome="failed"} 1.0' in page


def test_gauges_of_dead_workers_go_and_their_counters_stay(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (f"gauge_livesum_{dead.pid}.db", f"counter_{dead.pid}.db", f"gauge_livesum_{os.getpid()}.db"):
        (tmp_path / name).touch()
    forget_dead_workers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"counter_{dead.pid}.db", f"gauge_livesum_{os.getpid()}.db"}


def test_folder_of_a_killed_parent_is_removed_and_that_of_a_running_one_is_not(tmp_path: Path) -> None:
    left = tmp_path / "metrics" / "left"
    left.mkdir(parents=True)
    (left / "lock").touch()
    with metrics_folder(tmp_path) as running, metrics_folder(tmp_path) as second:
        assert set((tmp_path / "metrics").iterdir()) == {running, second}
    assert list((tmp_path / "metrics").iterdir()) == []


@pytest.mark.usefixtures("_logging_as_it_was")
def test_every_line_is_json_with_level_time_and_request(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    request_id.set("r-1")
    structlog.get_logger("ours").info("model_live", model_version="v1")
    structlog.get_logger("ours").debug("too quiet")
    logging.getLogger("theirs").warning("from a %s", "library")
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger("ours").exception("request_failed")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [
        ("model_live", "info"),
        ("from a library", "warning"),
        ("request_failed", "error"),
    ]
    assert all(line["request_id"] == "r-1" and line["timestamp"].endswith("Z") for line in lines)
    assert "ValueError: broken" in lines[2]["exception"]
