"""What each type of event is used for: as the artifact declares it, and as a file of the operator's says otherwise.

[view]                  # the name of the type
use = "sequence"        # enters the history that the model reads: the default
weight = 1.0            # in popularity; 0 leaves it alone

[watch]
threshold = 0.5         # enters only with a `value` of at least this, and is only counted with less or without one

[impression]
use = "count"           # is logged, and that is all

[dismiss]
use = "negative"        # takes the item out of the user's recommendations …
hides_days = 30         # … for so long, or until an event of another type on the same item
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from app.artifacts.manifest import EventType, EventUse

DEFAULT_HIDES_DAYS = 30.0
MAX_TYPES = 256
TypeName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


class DeclaredUse(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    use: EventUse = "sequence"
    weight: float = Field(1.0, ge=0, le=1000, allow_inf_nan=False)
    threshold: float | None = Field(None, allow_inf_nan=False)
    hides_days: float | None = Field(None, gt=0, le=3650)

    @model_validator(mode="after")
    def _belongs_to_its_use(self) -> Self:
        if self.use != "negative" and self.hides_days is not None:
            raise ValueError("hides_days belongs to use = 'negative'")
        if self.use != "sequence" and (self.threshold is not None or self.weight != 1.0):
            raise ValueError("threshold and weight belong to use = 'sequence'")
        return self

    def at_index(self, index: int) -> EventType:
        """As the manifest would declare it."""
        if self.use == "negative":
            return EventType(index=index, enters_sequence=False, hides_days=self.hides_days or DEFAULT_HIDES_DAYS)
        return EventType(
            index=index, enters_sequence=self.use == "sequence", weight=self.weight, threshold=self.threshold
        )


_FILE = TypeAdapter(dict[TypeName, DeclaredUse])


def read_event_uses(path: Path) -> dict[str, DeclaredUse]:
    """The tables of a TOML file, by event type.

    Raises:
        ValueError: the file cannot be read or says something that is not above; the message names the place.
    """
    try:
        found = _FILE.validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path} is no readable TOML file: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{path}: {place}: {first['msg']}") from error
    if len(found) > MAX_TYPES:
        raise ValueError(f"{path} declares {len(found)} event types, at most {MAX_TYPES} are possible")
    return found


def with_uses(event_types: Mapping[str, EventType], uses: Mapping[str, DeclaredUse]) -> dict[str, EventType]:
    """The map with the uses in the place of what it says of the same types.

    A type keeps its index, which the model has learnt; one that is new here has the index 0 of all unknown types.
    """
    changed = {name: use.at_index(event_types[name].index if name in event_types else 0) for name, use in uses.items()}
    return dict(event_types) | changed
