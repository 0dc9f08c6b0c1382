"""docs/examples: the typed functions are those of the OpenAPI file, the example keeps to them, and it runs."""

import subprocess
import sys
from pathlib import Path

from tests.contract.client_source import FILE, formatted_client
from tests.distance_model import write_live_distance_artifact
from tests.service import serving

EXAMPLES = FILE.parent


def test_functions_are_those_of_the_openapi_file() -> None:
    assert FILE.read_text() == formatted_client(), "run: python -m tests.contract.test_openapi"


def test_example_keeps_to_the_types() -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", "/dev/null", "shop.py"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=EXAMPLES, timeout=300)
    assert result.returncode == 0, result.stdout


def test_types_catch_a_misspelt_field(tmp_path: Path) -> None:
    (tmp_path / "segue.py").write_text(FILE.read_text())
    shop = (EXAMPLES / "shop.py").read_text()
    (tmp_path / "shop.py").write_text(shop.replace('"position": chosen', '"positon": chosen'))
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", "/dev/null", "shop.py"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300)
    assert result.returncode == 1
    assert 'Argument 2 to "post_events" has incompatible type' in result.stdout


def test_example_runs(tmp_path: Path) -> None:
    write_live_distance_artifact(tmp_path / "artifacts")
    with serving(tmp_path) as client:
        command = [sys.executable, str(EXAMPLES / "shop.py"), str(client.base_url)]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert result.returncode == 0, result.stderr
        lines = result.stdout.splitlines()
        assert lines[0] == "3 events stored, 0 known already"
        # i8 is the newest and has been seen: nearest to it are i9 and i6, i7 has been seen too.
        assert [line.split()[:2] for line in lines[1:5]] == [["1", "i9"], ["2", "i6"], ["3", "i5"], ["4", "i4"]]
        assert lines[5:] == ["4 events are stored of Ann", "a misspelt field is refused: invalid_request"]
        assert client.get("/users/ann").json()["history_length"] == 0
        page = client.get("/metrics").text
        attributed = page.partition("segue_attributed_events_total{")[2].partition("}")[0]
        assert 'model_version="distance-1",namespace="default",position="1",strategy="model"' in attributed
