"""A body with many objects of one kind, each of which is judged alone."""

from dataclasses import dataclass

import orjson

from app.api.problems import pointer_part
from app.api.security import NDJSON
from app.errors import Fault, InvalidRequest, ProblemCode


@dataclass(frozen=True, slots=True)
class UnreadableLine:
    """A line of NDJSON that is not JSON; it rejects itself, not its neighbours."""

    detail: str


def read_many(media_type: str, raw: bytes, name: str) -> tuple[list[object], str]:
    """The objects, and the pointer under which they stand: `/{name}/{}`, `/{}`, or nothing for a single one.

    The body is an array, an object with the array under `name`, one object, or NDJSON with one a line; there blank
    lines are skipped and not counted.

    Raises:
        InvalidRequest: the body is not JSON, or of another shape.
    """
    return _read_lines(raw) if media_type == NDJSON else _read_json(raw, name)


def _read_json(raw: bytes, name: str) -> tuple[list[object], str]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not JSON: {error}", code=ProblemCode.INVALID_JSON) from None
    if isinstance(body, list):
        return body, "/{}"
    if not isinstance(body, dict):
        raise InvalidRequest(f"The body must be an object, an array of objects or an object with {name}.")
    if name not in body:
        return [body], ""
    faults = [Fault("Extra inputs are not permitted", f"/{pointer_part(other)}") for other in body if other != name]
    if not isinstance(body[name], list):
        faults.append(Fault("Must be an array", f"/{name}"))
    if faults:
        raise InvalidRequest("The body breaks the contract.", faults=faults)
    return body[name], f"/{name}/{{}}"


def _read_lines(raw: bytes) -> tuple[list[object], str]:
    found: list[object] = []
    for line in raw.split(b"\n"):
        if not line.strip():
            continue
        try:
            found.append(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            found.append(UnreadableLine(f"The line is not JSON: {error}"))
    return found, "/{}"
