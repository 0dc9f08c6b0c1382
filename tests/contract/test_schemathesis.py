"""Requests that no one thought of, generated from the schema: never a 500, and every answer as the schema says."""

import json
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.contract.test_openapi import FILE
from tests.distance_model import write_live_distance_artifact
from tests.service import Client, serving


@schemathesis.serializer("application/x-ndjson")
def ndjson(_context: schemathesis.SerializationContext, value: object) -> bytes:
    return value.encode(errors="replace") if isinstance(value, str) else json.dumps(value).encode()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("generated")
    write_live_distance_artifact(folder / "artifacts")
    with serving(folder) as client:
        yield client


# Not those about valid and invalid: "exactly one of three fields" and "a cursor we gave out" are beyond a schema.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]
schema = schemathesis.openapi.from_path(FILE)


@schema.parametrize()
@hypothesis.settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_no_request_breaks_the_service(case: Case[Any], service: Client) -> None:
    case.call_and_validate(base_url=str(service.base_url), checks=CHECKS)
