"""From docs/openapi.json to docs/examples/segue.py: a TypedDict for each schema, a function for each route."""

import json
import keyword
import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.service import ROOT

FILE = ROOT / "docs" / "examples" / "segue.py"

HEAD = '''"""Segue's HTTP API for Python, typed: copy this file into your project. It needs httpx and nothing else.

Made from docs/openapi.json by `python -m tests.contract.test_openapi`; docs/examples/shop.py shows how it is used.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict
from urllib.parse import quote

import httpx


class Refused(Exception):
    """The service answered with a problem; `problem["code"]` says which."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem['code']}: {problem['detail']}")
        self.problem = problem


def _part(item_or_user_id: str) -> str:
    return quote(item_or_user_id, safe="")


def _call(client: httpx.Client, method: str, path: str, body: object = None, **parameters: str | int | None) -> Any:
    given = {name: value for name, value in parameters.items() if value is not None}
    answer = client.request(method, path, json=body, params=given)
    if answer.is_error:
        raise Refused(answer.json())
    return answer.json() if answer.content else None
'''
JSON = "application/json"
PRIMITIVES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}


def formatted_client() -> str:
    """What `ruff format` makes of the source."""
    source = client_source(json.loads((ROOT / "docs" / "openapi.json").read_text()))
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(FILE), "-"]
    return subprocess.run(command, input=source, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def write_client() -> Path:
    FILE.write_text(formatted_client())
    return FILE


def client_source(document: Mapping[str, Any]) -> str:
    parts = [HEAD]
    for path, methods in document["paths"].items():
        parts += [
            _function(path, method, operation) for method, operation in methods.items() if _speaks_json(operation)
        ]
    parts += [_typed_dict(name, schema) for name, schema in document["components"]["schemas"].items()]
    return "\n\n".join(part.rstrip("\n") + "\n" for part in parts)


def type_of(schema: Mapping[str, Any]) -> str:
    """
    >>> type_of({"anyOf": [{"type": "array", "items": {"$ref": "#/components/schemas/Pin"}}, {"type": "null"}]})
    'list[Pin] | None'
    >>> type_of({"enum": ["a", "b"]}), type_of({"type": ["string", "number"]}), type_of({})
    ("Literal['a', 'b']", 'str | float', 'Any')
    """
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema or "enum" in schema:
        return f"Literal[{', '.join(repr(value) for value in schema.get('enum', [schema.get('const')]))}]"
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return " | ".join(dict.fromkeys(type_of(part) for part in schema[word]))
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(PRIMITIVES[each] for each in kind)
    if kind == "array":
        return f"list[{type_of(schema.get('items', {}))}]"
    if kind == "object":
        values = schema.get("additionalProperties", True)
        return f"dict[str, {type_of(values) if isinstance(values, dict) else 'Any'}]"
    return PRIMITIVES[kind] if kind is not None else "Any"


def _typed_dict(name: str, schema: Mapping[str, Any]) -> str:
    required = schema.get("required", [])
    fields = {
        field: type_of(part) if field in required else f"NotRequired[{type_of(part)}]"
        for field, part in schema.get("properties", {}).items()
    }
    if any(keyword.iskeyword(field) for field in fields):
        # No field of a class can be called `not`; in a call the names of types still to come stand in quotes.
        return f"{name} = TypedDict({name!r}, {fields!r})\n"
    lines = [f"class {name}(TypedDict):", *_docstring(schema.get("description"))]
    lines += [f"    {field}: {kind}" for field, kind in fields.items()]
    return "\n".join(lines if len(lines) > 1 else [*lines, "    pass"]) + "\n"


def _function(path: str, method: str, operation: Mapping[str, Any]) -> str:
    parameters = operation.get("parameters", [])
    in_path = [each["name"] for each in parameters if each["in"] == "path"]
    in_query = {each["name"]: type_of(each["schema"]) for each in parameters if each["in"] == "query"}
    signature, passed = ["client: httpx.Client", *(f"{name}: str" for name in in_path)], []
    if "requestBody" in operation:
        signature.append(f"body: {type_of(operation['requestBody']['content'][JSON]['schema'])}")
        passed.append("body")
    if in_query:
        signature += [
            "*",
            *(f"{name}: {kind.removesuffix(' | None')} | None = None" for name, kind in in_query.items()),
        ]
        passed += [f"{name}={name}" for name in in_query]
    answer = next(answer for status, answer in operation["responses"].items() if status.startswith("2"))
    result = type_of(answer["content"][JSON]["schema"]) if "content" in answer else "None"
    filled = re.sub(r"{(\w+)}", r"{_part(\1)}", path)
    target = f'f"{filled}"' if in_path else f'"{path}"'
    call = f"_call({', '.join(['client', repr(method.upper()), target, *passed])})"
    lines = [f"def {_name(path, method)}({', '.join(signature)}) -> {result}:", *_docstring(operation["summary"] + ".")]
    lines += [f"    {call}"] if result == "None" else [f"    answer: {result} = {call}", "    return answer"]
    return "\n".join(lines) + "\n"


def _speaks_json(operation: Mapping[str, Any]) -> bool:
    answers = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
    return all("content" not in answer or JSON in answer["content"] for answer in answers)


def _name(path: str, method: str) -> str:
    """
    >>> _name("/users/{user_id}", "get"), _name("/recommend/batch", "post")
    ('get_user', 'post_recommend_batch')
    """
    words = path.strip("/").split("/")
    if words[-1].startswith("{"):
        words = [*words[:-2], words[-2].removesuffix("s")]
    return "_".join([method, *words])


def _docstring(text: str | None) -> list[str]:
    if not text:
        return []
    lines = textwrap.wrap(text.replace("\n", " "), 112)
    return (
        [f'    """{lines[0]}"""']
        if len(lines) == 1
        else [f'    """{lines[0]}', *(f"    {x}" for x in lines[1:]), '    """']
    )
