"""What guards the door: the type of a body, its size, and how many are let in at once."""

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import Overloaded, PayloadTooLarge, UnsupportedMediaType

JSON = "application/json"
NDJSON = "application/x-ndjson"


async def read_body(request: Request, *accepted: str) -> tuple[str, bytes]:
    """The media type, one of `accepted`, and the raw body.

    Raises:
        UnsupportedMediaType: another type, none at all, or a compressed body. (A page of another site can send a body
            without a type or as text without asking first; as JSON it cannot.)
        PayloadTooLarge, Overloaded: the limits of `Admission`.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in accepted:
        raise UnsupportedMediaType(f"Content-Type is {media_type or 'missing'!r}; send {' or '.join(accepted)}.")
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMediaType(f"Content-Encoding {encoding!r} is not read; send the body uncompressed.")
    return media_type, await _receive_all(request)


async def _receive_all(request: Request) -> bytes:
    """`request.body()` without the generator under it, which takes longer than the one message of most bodies."""
    message = await request.receive()
    chunks = [message.get("body", b"")]
    while message.get("more_body", False):
        message = await request.receive()
        chunks.append(message.get("body", b""))
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class Admission:
    """Refuses a body larger than `max_bytes` as soon as that is known: by its declared length, or at the byte too many.
    Refuses a request whose body is complete while `max_in_flight` others are at work: it would wait longer than its
    caller does, and so would those behind it. A body that comes slowly takes nobody's place.

    Pure ASGI, so that it sees the bytes as they come, chunked or not. The refusal is raised where the body is read, so
    that it takes the same way as every other error.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_in_flight: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_in_flight = max_in_flight
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        declared = next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)
        received = 0
        is_admitted = False

        async def limited() -> Message:
            nonlocal received, is_admitted
            if declared <= self._max_bytes:
                message = await receive()
                received += len(message.get("body", b""))
            if max(declared, received) > self._max_bytes:
                raise PayloadTooLarge(f"The body exceeds {self._max_bytes} bytes; send it in parts.")
            if not is_admitted and not message.get("more_body", False):
                if self._in_flight >= self._max_in_flight:
                    raise Overloaded
                self._in_flight += 1
                is_admitted = True
            return message

        try:
            await self._app(scope, limited, send)
        finally:
            self._in_flight -= is_admitted
