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

from app.errors import ProblemCode
from app.recommender.requests import Reason
from tests.service import ROOT, Client, serving

FILE = ROOT / "docs" / "api.md"
TINY = ROOT / "tests" / "fixtures" / "tiny_artifact"
SAMPLE = re.compile(r"```sh\n(curl .*?)\n```\n(?:```json\n(.*?)```\n)?", re.DOTALL)


SCENARIOS = re.compile(r"```toml\n(\[home\].*?)```", re.DOTALL)


def documented_service(folder: Path) -> AbstractContextManager[Client]:
    """The small model, and the scenarios of the page."""
    file = folder / "scenarios.toml"
    file.write_text(SCENARIOS.findall(FILE.read_text())[0])
    return serving(folder, artifacts_dir=TINY, scenarios_file=file)


def run(client: httpx.Client, command: str) -> httpx.Response:
    """
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
            body = next(words)
        else:
            url = word.removeprefix("localhost:8000")
    return client.request(method, url, headers=headers, content=body)


def shape(value: Any) -> Any:
    """Names, order and types; numbers and texts change from run to run."""
    if isinstance(value, dict):
        return {name: shape(part) for name, part in value.items()}
    return [shape(part) for part in value] if isinstance(value, list) else type(value).__name__


def pretty(answer: httpx.Response) -> str:
    """One line per member, as far as a line goes."""
    lines = [f' "{name}": {json.dumps(part, ensure_ascii=False)}' for name, part in answer.json().items()]
    return "{" + ",\n".join(lines)[1:] + "}\n"


def test_commands_run_and_answer_as_documented(tmp_path: Path) -> None:
    with documented_service(tmp_path) as client:
        samples = SAMPLE.findall(FILE.read_text())
        assert len(samples) >= 9
        for command, documented in samples:
            answer = run(client, command)
            if documented:
                assert shape(answer.json()) == shape(json.loads(documented)), command


def test_page_names_every_route_code_and_reason() -> None:
    page = FILE.read_text()
    schema = json.loads((ROOT / "docs" / "openapi.json").read_text())
    assert [path for path in schema["paths"] if path not in page] == []
    assert [code for code in ProblemCode if f"`{code}`" not in page] == []
    assert [reason for reason in Reason if f"`{reason}`" not in page] == []


def write_answers() -> None:
    with tempfile.TemporaryDirectory() as folder, documented_service(Path(folder)) as client:

        def answered(match: re.Match[str]) -> str:
            answer = run(client, match[1])
            if match[2] is not None and shape(answer.json()) == shape(json.loads(match[2])):
                return match[0]  # ids and times differ in every run: no reason for a new page
            sample = f"```sh\n{match[1]}\n```\n"
            return sample if match[2] is None else f"{sample}```json\n{pretty(answer)}```\n"

        FILE.write_text(SAMPLE.sub(answered, FILE.read_text()))


if __name__ == "__main__":
    write_answers()
    print(FILE)
