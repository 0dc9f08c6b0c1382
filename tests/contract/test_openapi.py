"""docs/openapi.json is what the service answers.

To write it anew, and docs/examples/segue.py with it: python -m tests.contract.test_openapi
"""

import json
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from app.main import create_app
from app.settings import Settings
from tests.contract.client_source import write_client

FILE = Path(__file__).parent.parent.parent / "docs" / "openapi.json"


def live_schema() -> dict[str, Any]:
    return create_app(Settings(redis_url=SecretStr("redis://127.0.0.1"))).openapi()


def text_of(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def test_file_equals_the_live_schema() -> None:
    assert FILE.read_text() == text_of(live_schema()), f"run: python -m {__name__}"


def test_every_reference_leads_somewhere() -> None:
    schema = live_schema()

    def references(value: object) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [found for part in value.values() for found in references(part)]
        return [found for part in value for found in references(part)] if isinstance(value, list) else []

    for reference in set(references(schema)):
        assert reference.removeprefix("#/components/schemas/") in schema["components"]["schemas"]


def test_every_route_is_described_and_documents_its_problems() -> None:
    for path, methods in live_schema()["paths"].items():
        assert ":" not in path
        for operation in methods.values():
            assert operation["summary"]
            for status, answer in operation["responses"].items():
                if status.startswith("4"):
                    assert list(answer["content"]) == ["application/problem+json"], f"{path} {status}"


if __name__ == "__main__":
    FILE.write_text(text_of(live_schema()))
    print(FILE)
    print(write_client())  # which is made from it
