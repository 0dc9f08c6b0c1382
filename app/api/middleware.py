"""Around every request: its id, its measurement, the headers of every answer, and the net under it."""

import random
import re
import time
from collections.abc import Iterable

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import internal_error
from app.telemetry import Telemetry, request_id

log = structlog.get_logger(__name__)

_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestContext:
    """Pure ASGI. An incoming X-Request-ID of 1–128 letters, digits and `._:-` is kept; any other is replaced."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        # No secret, only a name: an ordinary generator spares the system call.
        name = _incoming_id(scope["headers"]) or b"%016x" % random.getrandbits(64)
        request_id.set(name.decode())
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", name),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            status = status or 499  # the caller hung up before the body was there: no answer, no fault of ours
        except Exception:
            log.exception("request_failed", method=scope["method"], route=_route(scope))
            if status:
                raise  # half an answer is out; the server closes the connection
            await internal_error()(scope, receive, send_with_headers)
        finally:
            seconds = time.perf_counter() - started
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._telemetry.request(_route(scope), method, status, seconds)
            log.debug("request", method=method, route=_route(scope), status=status, seconds=round(seconds, 6))


def _incoming_id(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    for name, value in headers:
        if name == b"x-request-id":
            return value if _SANE_ID.fullmatch(value) else None
    return None


def _route(scope: Scope) -> str:
    """The template of the path, so that ids never become labels; files and the schema have no template of their own."""
    if "endpoint" not in scope:
        return "unmatched"
    template: str = getattr(scope.get("route"), "path", "file")
    return template.replace(":path", "")
