"""The commands of docs/api.md run, and their answers look as the page says.

To write the answers anew: python -m tests.contract.test_api_documented
"""

import json
import re
import shlex
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.errors import ProblemCode
from app.recommender.requests import Reason
from tests.service import ROOT, Client, serving

FILE = ROOT / "docs" / "api.md"
TINY = ROOT / "tests" / "fixtures" / "tiny_artifact"
SAMPLE = re.compile(r"```sh\n(curl .*?)\n```\n(?:```json\n(.*?)```\n)?", re.DOTALL)


OF_EACH_RUN = {"recommendation_id", "request_id", "next_cursor", "timestamp", "created_at"}
SCENARIOS = re.compile(r"```toml\n(\[home\].*?)```", re.DOTALL)


def documented_service(folder: Path) -> AbstractContextManager[Client]:
    """The small model, and the scenarios of the page."""
    file = folder / "scenarios.toml"
    file.write_text(SCENARIOS.findall(FILE.read_text())[0])
    return serving(folder, artifacts_dir=TINY, scenarios_file=file)


def run(client: httpx.Client, command: str, last: dict[str, Any] | None = None) -> httpx.Response:
    """NEXT_CURSOR stands for that of the `last` answer that had one.

    >>> shlex.split("curl -X POST localhost:8000/x -H 'a: b' -d '{}'")
    ['curl', '-X', 'POST', 'localhost:8000/x', '-H', 'a: b', '-d', '{}']
    """
    words = iter(shlex.split(command)[1:])
    method, url, headers, body = "GET", "", {}, None
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = next(words).replace("NEXT_CURSOR", (last or {}).get("next_cursor", ""))
        else:
            url = word.removeprefix("localhost:8000")
    answer = client.request(method, url, headers=headers, content=body)
    if last is not None and "next_cursor" in answer.text:
        last["next_cursor"] = answer.json()["next_cursor"] or ""
    return answer


def same(documented: Any, found: Any, name: str = "") -> bool:
    """Names, their order and values; of what differs in each run only the type.

    >>> same({"k": [1.0], "request_id": "a"}, {"k": [1.0002], "request_id": "b"})
    True
    >>> same({"k": 1, "code": "a"}, {"k": 1, "code": "b"})
    False
    """
    if type(documented) is not type(found):
        return False
    if name in OF_EACH_RUN:
        return True
    if isinstance(documented, dict):
        return list(documented) == list(found) and all(same(documented[key], found[key], key) for key in documented)
    if isinstance(documented, list):
        return len(documented) == len(found) and all(map(same, documented, found))
    return found == pytest.approx(documented, rel=0.01, abs=0.001) if isinstance(found, float) else documented == found


def pretty(answer: httpx.Response) -> str:
    """One line per member, as far as a line goes."""
    lines = [f' "{name}": {json.dumps(part, ensure_ascii=False)}' for name, part in answer.json().items()]
    return "{" + ",\n".join(lines)[1:] + "}\n"


def test_commands_run_and_answer_as_documented(tmp_path: Path) -> None:
    with documented_service(tmp_path) as client:
        samples = SAMPLE.findall(FILE.read_text())
        assert len(samples) >= 30
        last: dict[str, Any] = {}
        for command, documented in samples:
            answer = run(client, command, last)
            if documented:
                assert same(json.loads(documented), answer.json()), f"{command}\n{pretty(answer)}"
            else:
                assert answer.is_success, f"{command}\n{answer.text}"


def test_page_names_every_route_code_and_reason() -> None:
    page = FILE.read_text()
    schema = json.loads((ROOT / "docs" / "openapi.json").read_text())
    assert [path for path in schema["paths"] if path not in page] == []
    assert [code for code in ProblemCode if f"`{code}`" not in page] == []
    assert [reason for reason in Reason if f"`{reason}`" not in page] == []


def write_answers() -> None:
    with tempfile.TemporaryDirectory() as folder, documented_service(Path(folder)) as client:
        last: dict[str, Any] = {}

        def answered(match: re.Match[str]) -> str:
            answer = run(client, match[1], last)
            if match[2] is not None and same(json.loads(match[2]), answer.json()):
                return match[0]  # ids and times differ in every run: no reason for a new page
            sample = f"```sh\n{match[1]}\n```\n"
            return sample if match[2] is None else f"{sample}```json\n{pretty(answer)}```\n"

        FILE.write_text(SAMPLE.sub(answered, FILE.read_text()))


if __name__ == "__main__":
    write_answers()
    print(FILE)
