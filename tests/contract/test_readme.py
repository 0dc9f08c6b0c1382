"""What the README tells a newcomer to type works, and answers look as it says.

To write the answers anew, with the demo running on port 8000: python -m tests.contract.test_readme
"""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.contract.test_api_documented import SAMPLE, pretty, run
from tests.distance_model import promote, write_distance_artifact
from tests.service import ROOT, serving

FILE = ROOT / "README.md"


def block(containing: str) -> str:
    """The one sh block that holds the words."""
    (found,) = [text for text in re.findall(r"```sh\n(.*?)```", FILE.read_text(), re.DOTALL) if containing in text]
    return str(found)


def outline(value: Any) -> Any:
    """Names, order and types, a list by its first element: one film has one genre, another three."""
    if isinstance(value, dict):
        return {name: outline(part) for name, part in value.items()}
    return [outline(part) for part in value[:1]] if isinstance(value, list) else type(value).__name__


def test_curl_commands_run_and_answer_as_shown(tmp_path: Path) -> None:
    item_ids = ["50", "172", "181", *(str(number) for number in range(300, 306))]
    write_distance_artifact(tmp_path / "artifacts", item_ids=item_ids)
    promote(tmp_path / "artifacts", "distance-1")
    samples = SAMPLE.findall(FILE.read_text())
    assert len(samples) >= 3
    with serving(tmp_path) as client:
        # The demo's user has a history.
        assert client.post("/events", json={"user_id": "196", "item_id": "181"}).json()["accepted"] == 1
        for command, shown in samples:
            answer = run(client, command)
            assert answer.status_code == 200, command
            assert outline(answer.json()) == outline(json.loads(shown)), command


def test_pipeline_runs_as_shown_on_events_of_ones_own(tmp_path: Path) -> None:
    generator = random.Random(5)
    rows = [
        f"{user},p{(start + step) % 20},{1_700_000_000 + 60 * step}"
        for user in range(60)
        for start in [generator.randrange(20)]
        for step in range(generator.randint(4, 9))
    ]
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(rows) + "\n")
    (tmp_path / "items.csv").write_text(
        "item_id,title,price\n" + "".join(f"p{item},Product {item},{item}.5\n" for item in range(20))
    )
    version = ""
    for command in block("scripts.promote").strip().splitlines():
        words = command.replace("VERSION", version).split()
        assert words[0] == "python"
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, *words[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        last_line = done.stdout.splitlines()[-1]
        assert (tmp_path / last_line).exists(), f"{command} ended with {last_line!r}"
        if "scripts.export" in command:
            version = Path(last_line).name
    assert (tmp_path / "runs/shop/report.html").stat().st_size > 10_000
    assert (tmp_path / "model_artifacts/CURRENT").read_text() == version + "\n"


def test_every_make_target_named_exists() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", FILE.read_text(), re.MULTILINE))
    assert {"demo", "test"} <= named <= set(targets)


def test_every_file_linked_or_drawn_exists() -> None:
    text = FILE.read_text()
    linked = re.findall(r"\]\(([^)#:]+)\)", text)
    assert len(linked) >= 5
    assert [link for link in linked if not (ROOT / link).exists()] == []
    tree = text[text.index("## The tree") :]
    folder, missing = "", []
    for line in re.findall(r"^( *)(\S+)  ", tree, re.MULTILINE):
        indent, name = line
        folder = name if not indent and name.endswith("/") else folder
        path = ROOT / (folder + name if indent else name)
        if not path.exists():
            missing.append(str(path))
    assert missing == []


def write_answers() -> None:
    with httpx.Client(base_url="http://127.0.0.1:8000") as client:

        def answered(match: re.Match[str]) -> str:
            return f"```sh\n{match[1]}\n```\n```json\n{pretty(run(client, match[1]))}```\n"

        FILE.write_text(SAMPLE.sub(answered, FILE.read_text()))


if __name__ == "__main__":
    write_answers()
    print(FILE)
