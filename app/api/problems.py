"""Exception → `application/problem+json` (RFC 9457), in one place."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.errors import Fault, InvalidRequest, Overloaded, ProblemCode, RequestError, SegueError, StoreUnavailable
from app.telemetry import Telemetry, current_request_id

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1
MAX_FAULTS = 100
"""An answer names so many faults at most; a batch can have ten thousand of the same."""

STATUS = {
    ProblemCode.INVALID_JSON: 400,
    ProblemCode.NOT_FOUND: 404,
    ProblemCode.METHOD_NOT_ALLOWED: 405,
    ProblemCode.CURSOR_EXPIRED: 410,
    ProblemCode.PAYLOAD_TOO_LARGE: 413,
    ProblemCode.UNSUPPORTED_MEDIA_TYPE: 415,
    ProblemCode.INVALID_REQUEST: 422,
    ProblemCode.ALL_EVENTS_REJECTED: 422,
    ProblemCode.ALL_ITEMS_REJECTED: 422,
    ProblemCode.CATALOGUE_FULL: 422,
    ProblemCode.INTERNAL_ERROR: 500,
    ProblemCode.STORE_UNAVAILABLE: 503,
    ProblemCode.OVERLOADED: 503,
}
_CODE_OF_STATUS = {404: ProblemCode.NOT_FOUND, 405: ProblemCode.METHOD_NOT_ALLOWED, 413: ProblemCode.PAYLOAD_TOO_LARGE}


def problem(
    status: int,
    code: ProblemCode,
    detail: str,
    *,
    faults: Sequence[Fault] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    body = problem_body(status, code, detail, faults)
    return Response(orjson.dumps(body), status, headers=headers, media_type=MEDIA_TYPE)


def problem_body(status: int, code: ProblemCode, detail: str, faults: Sequence[Fault] = ()) -> dict[str, Any]:
    """`Problem` as a dictionary."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": current_request_id(),
    }
    if faults:
        body["errors"] = [_fault_body(fault) for fault in faults[:MAX_FAULTS]]
    return body


def internal_error() -> Response:
    """Says nothing of the cause: that is in the log, under the request id."""
    return problem(500, ProblemCode.INTERNAL_ERROR, "The service failed to answer; the log has the cause.")


def answer(error: Exception) -> Response:
    """The one mapping. What it does not know is re-raised and ends as `internal_error`."""
    match error:
        case RequestError():
            # The rest of a body that is too large is not worth reading: close the connection.
            headers = {"Connection": "close"} if error.code is ProblemCode.PAYLOAD_TOO_LARGE else None
            return problem(STATUS[error.code], error.code, error.detail, faults=error.faults, headers=headers)
        case StoreUnavailable():
            return _try_again(
                ProblemCode.STORE_UNAVAILABLE, "The store does not answer; nothing was written. Try again."
            )
        case Overloaded():
            return _try_again(
                ProblemCode.OVERLOADED,
                "As many requests are under way as the service takes at once; this one was not begun. Try again.",
            )
        case RequestValidationError():
            return problem(
                422,
                ProblemCode.INVALID_REQUEST,
                "A parameter breaks the contract.",
                faults=[
                    Fault(_message(fault), parameter=str(fault["loc"][-1]) if len(fault["loc"]) > 1 else None)
                    for fault in error.errors()
                ],
            )
        case HTTPException():
            code = _CODE_OF_STATUS.get(error.status_code, ProblemCode.INVALID_REQUEST)
            return problem(error.status_code, code, error.detail, headers=error.headers)
    raise error


def _try_again(code: ProblemCode, detail: str) -> Response:
    return problem(STATUS[code], code, detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


def install(app: FastAPI, telemetry: Telemetry) -> None:
    async def handle(_request: Request, error: Exception) -> Response:
        if isinstance(error, StoreUnavailable):
            telemetry.store_error()
        return answer(error)

    for kind in (SegueError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, handle)


def invalid_body(error: ValidationError, raw: bytes) -> RequestError:
    """What pydantic found in a JSON body, as pointers into that body."""
    found = error.errors(include_url=False, include_input=False)
    if found[0]["type"] == "json_invalid":
        return InvalidRequest(f"The body is not JSON: {found[0]['msg']}", code=ProblemCode.INVALID_JSON)
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as second:  # pydantic's parser is the more lenient one at the edges of Unicode
        return InvalidRequest(f"The body is not JSON: {second}", code=ProblemCode.INVALID_JSON)
    return InvalidRequest("The body breaks the contract.", faults=faults_of(found, body))


def faults_of(found: Sequence[ErrorDetails], body: object, base: str = "") -> list[Fault]:
    """Pydantic's errors about `body`, a JSON value at pointer `base`."""
    return [Fault(_message(fault), pointer=base + _pointer(fault, body)) for fault in found]


def _pointer(fault: ErrorDetails, body: object) -> str:
    """Pydantic's places also hold the tags of unions, which are in no body: follow only what is there.

    A missing field is the exception: the pointer leads to where it should be.
    """
    pointer = ""
    missing = len(fault["loc"]) - 1 if fault["type"] == "missing" else -1
    for depth, part in enumerate(fault["loc"]):
        if isinstance(body, dict) and (part in body or depth == missing):
            body = body.get(part)
        elif isinstance(body, list) and isinstance(part, int):
            body = body[part]
        else:
            continue
        pointer += "/" + pointer_part(part)
    return pointer


def pointer_part(name: object) -> str:
    """A name, or a place, as it stands in a JSON pointer.

    >>> pointer_part("a/b~c")
    'a~1b~0c'
    """
    return str(name).replace("~", "~0").replace("/", "~1")


def _message(fault: Mapping[str, Any]) -> str:
    """Pydantic's sentence; never the value that it was about."""
    message = str(fault["msg"]).removeprefix("Value error, ")
    return message[:1].upper() + message[1:]


def _fault_body(fault: Fault) -> dict[str, str]:
    parts = {
        "pointer": fault.pointer,
        "parameter": fault.parameter,
        "code": fault.code and str(fault.code),
        "detail": fault.detail,
    }
    return {name: part for name, part in parts.items() if part is not None}
