"""Everything that can go wrong, as one tree.

    SegueError
    ├── RequestError              the caller can mend it → 4xx
    │   ├── InvalidRequest
    │   ├── PayloadTooLarge
    │   ├── UnsupportedMediaType
    │   ├── NotFound
    │   ├── CursorExpired
    │   └── CatalogueFull
    ├── StoreUnavailable          the store does not answer → 503, or a degraded recommendation
    ├── Overloaded                too many requests at once → 503
    ├── StoreMismatch             the store was set up with other settings → the service does not start
    ├── ArtifactError             a model version that cannot be served → the live one stays
    └── DeviceUnavailable         the runtime lacks the device that was asked for → the service does not start

`api/problems.py` alone turns these into HTTP.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class ProblemCode(StrEnum):
    """The closed list of codes that an error answer or a rejected event can carry."""

    INVALID_REQUEST = "invalid_request"
    INVALID_JSON = "invalid_json"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    NOT_FOUND = "not_found"
    CURSOR_EXPIRED = "cursor_expired"
    CATALOGUE_FULL = "catalogue_full"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    ALL_EVENTS_REJECTED = "all_events_rejected"
    ALL_ITEMS_REJECTED = "all_items_rejected"
    TIMESTAMP_IN_FUTURE = "timestamp_in_future"
    TIMESTAMP_OUT_OF_RANGE = "timestamp_out_of_range"
    STORE_UNAVAILABLE = "store_unavailable"
    OVERLOADED = "overloaded"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: at a JSON pointer into the body, or in a path or query parameter."""

    detail: str
    pointer: str | None = None
    parameter: str | None = None
    code: ProblemCode | None = None


class SegueError(Exception):
    """Root of the tree."""


class RequestError(SegueError):
    """A request that cannot be carried out as it stands; `faults` says where, as far as one place can be named."""

    code = ProblemCode.INVALID_REQUEST

    def __init__(self, detail: str, *, faults: Sequence[Fault] = (), code: ProblemCode | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = tuple(faults)
        if code is not None:
            self.code = code


class InvalidRequest(RequestError):
    """The body or a parameter breaks the contract."""


class PayloadTooLarge(RequestError):
    """The body or the batch exceeds a limit."""

    code = ProblemCode.PAYLOAD_TOO_LARGE


class UnsupportedMediaType(RequestError):
    """The body is of a type that the route does not read."""

    code = ProblemCode.UNSUPPORTED_MEDIA_TYPE


class NotFound(RequestError):
    """The resource does not exist."""

    code = ProblemCode.NOT_FOUND


class CursorExpired(RequestError):
    """The list that a cursor leads to is not this caller's, or is kept no longer."""

    code = ProblemCode.CURSOR_EXPIRED

    def __init__(self) -> None:
        super().__init__(
            "This caller has no such list, or has it no longer: lists are kept for 30 minutes, the newest 8 of each "
            "user or guest. Begin again with paginate."
        )


class CatalogueFull(RequestError):
    """As many items as the service may keep have a record of their own, deleted ones included."""

    code = ProblemCode.CATALOGUE_FULL

    def __init__(self) -> None:
        super().__init__("The catalogue keeps no more live items; raise SEGUE_MAX_LIVE_ITEMS.")


class StoreUnavailable(SegueError):
    """Redis did not answer in time or refused. What was to be written may be sent again: it is then stored once."""


class Overloaded(SegueError):
    """As many requests are under way as the worker takes at once."""


class StoreMismatch(SegueError):
    """The store was first used with another number of shards."""


class ArtifactError(SegueError):
    """An artifact is damaged, of an unknown format, or does not fit the service's settings."""


class DeviceUnavailable(SegueError):
    """onnxruntime has no provider for the configured device."""
