"""Which list an event goes back to: a recommendation id says what made it, so that nothing need be remembered."""

import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from app.recommender.requests import Strategy

PREFIX = "rec_"
_LETTERS: dict[Strategy, str] = {"model": "m", "popular": "p", "trending": "t", "similar": "s"}
_STRATEGIES = {letter: strategy for strategy, letter in _LETTERS.items()}
_TAG_LENGTH = 4
_LENGTH = len(PREFIX) + 1 + _TAG_LENGTH + 16
READ_AGAIN_SECONDS = 60.0


class Origin(NamedTuple):
    """What made a list. `model_version` is empty where no model was live."""

    strategy: str
    model_version: str


UNKNOWN = Origin("unknown", "unknown")


def new_recommendation_id(strategy: Strategy, model_version: str | None) -> str:
    """`rec_`, a letter for the strategy, 4 characters that stand for the version, and 16 random ones."""
    return PREFIX + _LETTERS[strategy] + _tag(model_version or "") + secrets.token_urlsafe(12)


@lru_cache
def _tag(model_version: str) -> str:
    return urlsafe_b64encode(blake2b(model_version.encode(), digest_size=3).digest()).decode()


class Origins:
    """Reads the ids of lists that these model versions have made, and of those that were made without one.

    What it answers comes from a closed list, whatever callers send: it is fit for the labels of a metric.
    """

    def __init__(self, versions: Callable[[], Iterable[str]], *, clock: Callable[[], float] = time.monotonic) -> None:
        """versions: the names of those at hand; asked for a version that is not known, once a minute at most."""
        self._versions = versions
        self._clock = clock
        self._by_tag = {_tag(""): ""}
        self._read_at: float | None = None

    def of(self, recommendation_id: str) -> Origin:
        """`UNKNOWN` for an id that is not one of ours, or is of a version that is gone."""
        strategy = _STRATEGIES.get(recommendation_id[len(PREFIX) : len(PREFIX) + 1])
        if strategy is None or not recommendation_id.startswith(PREFIX) or len(recommendation_id) != _LENGTH:
            return UNKNOWN
        tag = recommendation_id[len(PREFIX) + 1 :][:_TAG_LENGTH]
        if tag not in self._by_tag and (self._read_at is None or self._clock() >= self._read_at + READ_AGAIN_SECONDS):
            self._by_tag |= {_tag(version): version for version in self._versions()}
            self._read_at = self._clock()
        return Origin(strategy, self._by_tag[tag]) if tag in self._by_tag else UNKNOWN
