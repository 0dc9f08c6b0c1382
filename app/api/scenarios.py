"""Bodies that ask for a scenario: what they leave out is filled in, then judged as if they had said it themselves."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from app.api.problems import faults_of, invalid_body
from app.api.schemas.recommend import RankingBody, RecommendBody
from app.errors import Fault, InvalidRequest

B = TypeVar("B", bound=RankingBody)


class Scenarios:
    """Those of one file; see `app.api.schemas.scenarios`."""

    def __init__(self, declared: Mapping[str, Mapping[str, Any]]) -> None:
        self._declared = declared

    def parse(self, model: type[B], raw: bytes) -> B:
        """Raises RequestError: the body breaks the contract, or asks for a scenario that there is not."""
        try:
            body = model.model_validate_json(raw)
        except ValidationError as error:
            raise invalid_body(error, raw) from None
        return body if body.scenario is None else self._filled(body, from_json(raw))

    def validate(self, model: type[B], value: object) -> B:
        """The same of a body that was read before."""
        try:
            body = model.model_validate(value)
        except ValidationError as error:
            raise _broken(error, value) from None
        return body if body.scenario is None else self._filled(body, value)

    def _filled(self, body: B, sent: Any) -> B:
        """`sent` is the JSON object that `body` was made of."""
        defaults = self._declared.get(body.scenario or "")
        if defaults is None:
            known = ", ".join(sorted(self._declared)) or "none"
            raise InvalidRequest(
                "The request asks for a scenario that is not declared.",
                faults=[Fault(f"No such scenario; declared: {known}", "/scenario")],
            )
        if isinstance(body, RecommendBody) and body.cursor is not None:
            return body  # its list was made already
        taken = {name: value for name, value in defaults.items() if name in type(body).model_fields}
        try:
            return type(body).model_validate({**taken, **sent})
        except ValidationError as error:
            raise _broken(error, sent) from None


def _broken(error: ValidationError, sent: object) -> InvalidRequest:
    faults = faults_of(error.errors(include_url=False, include_input=False), sent)
    return InvalidRequest("The request breaks the contract.", faults=faults)
