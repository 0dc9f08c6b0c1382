"""A recommendation id gives back what made the list, and nothing else does."""

import re

import pytest

from app.recommender.attribution import UNKNOWN, Origin, Origins, new_recommendation_id
from app.recommender.requests import Strategy


@pytest.mark.parametrize("strategy", ["model", "popular", "trending", "similar"])
@pytest.mark.parametrize("version", ["20260101T000000-2496b70f", None])
def test_id_gives_back_strategy_and_version(strategy: Strategy, version: str | None) -> None:
    made = new_recommendation_id(strategy, version)
    assert re.fullmatch(r"rec_[\w-]{21}", made)
    assert made != new_recommendation_id(strategy, version)
    assert Origins(lambda: ["other", "20260101T000000-2496b70f"]).of(made) == Origin(strategy, version or "")


def test_other_ids_and_other_versions_are_unknown() -> None:
    made = new_recommendation_id("model", "v1")
    origins = Origins(lambda: ["v2"])
    for given in (made, "", "rec_", "rec_x" + made[5:], made + "x", made.replace("rec_", "REC_"), "ré" + made[2:]):
        assert origins.of(given) == UNKNOWN


def test_new_version_is_looked_up_once_a_minute() -> None:
    now, names, asked = [0.0], ["v1"], [0]

    def versions() -> list[str]:
        asked[0] += 1
        return names

    origins = Origins(versions, clock=lambda: now[0])
    first, second = new_recommendation_id("model", "v1"), new_recommendation_id("model", "v2")
    assert [origins.of(first).model_version, origins.of(second).model_version, asked[0]] == ["v1", "unknown", 1]
    names.append("v2")
    assert [origins.of(second).model_version, asked[0]] == ["unknown", 1]
    now[0] = 60.0
    assert [origins.of(second).model_version, origins.of(first).model_version, asked[0]] == ["v2", "v1", 2]
    names.clear()
    assert origins.of(first).model_version == "v1"
