"""The one shape of an error: problem details."""

from pydantic import BaseModel


class ProblemError(BaseModel):
    """One fault: a JSON pointer into the body, or the name of a path or query parameter."""

    detail: str
    pointer: str | None = None
    parameter: str | None = None
    code: str | None = None


class Problem(BaseModel):
    """RFC 9457. `code` is from a closed list and does not change; `detail` is for people."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[ProblemError] | None = None
