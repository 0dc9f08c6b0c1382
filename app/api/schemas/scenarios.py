"""The file of scenarios: named defaults for the fields of a request, one place where a home page is what it is.

[home]                  # the name by which a request asks for it
k = 20
diversity = 0.3
filter = { field = "in_stock", op = "eq", value = true }

[[home.boosts]]
filter = { field = "genres", op = "eq", value = "Drama" }
factor = 1.5
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from app.api.schemas.common import ScenarioName
from app.api.schemas.recommend import BatchedBody

MAX_SCENARIOS = 256
FIELDS = BatchedBody.model_fields.keys() - {"user_id", "session_id", "history", "scenario"}
_FILE = TypeAdapter(dict[ScenarioName, dict[str, Any]])


def read_scenarios(path: Path) -> dict[str, Mapping[str, Any]]:
    """The tables of a TOML file, by scenario: fields of a request as JSON has them.

    Raises:
        ValueError: the file cannot be read, or says what no request could say; the message names the place.
    """
    try:
        found = _FILE.validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path} is no readable TOML file: {error}") from error
    except ValidationError as error:
        raise ValueError(f"{path}: {_first(error)}") from error
    if len(found) > MAX_SCENARIOS:
        raise ValueError(f"{path} declares {len(found)} scenarios, at most {MAX_SCENARIOS} are possible")
    for name, fields in found.items():
        unknown = sorted(fields.keys() - FIELDS)
        if unknown:
            raise ValueError(
                f"{path}: {name}.{unknown[0]}: no default of a request; there are {', '.join(sorted(FIELDS))}"
            )
        try:
            BatchedBody.model_validate({**fields, "history": []})
        except ValidationError as error:
            raise ValueError(f"{path}: {name}.{_first(error)}") from error
    return dict(found)


def _first(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in fault["loc"] if not str(part).endswith(" node"))
    return f"{place}: {fault['msg']}"
