"""Named defaults: what a file may declare, and that a request has the last word."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.api.scenarios import Scenarios
from app.api.schemas.recommend import BatchedBody, RecommendBody, SimilarBody
from app.api.schemas.scenarios import read_scenarios
from app.errors import InvalidRequest

FILE = """
[home]
k = 20
diversity = 0.3
exclude_seen = true
include = ["attributes"]
filter = { field = "in_stock", op = "eq", value = true }
[[home.boosts]]
filter = { any = [{ field = "genres", op = "eq", value = "Drama" }] }
factor = 1.5
[basket]
k = 4
strategy = "trending"
[empty]
"""


@pytest.fixture
def scenarios(tmp_path: Path) -> Scenarios:
    file = tmp_path / "scenarios.toml"
    file.write_text(FILE)
    return Scenarios(read_scenarios(file))


def test_scenario_fills_what_the_request_leaves_out(scenarios: Scenarios) -> None:
    same = b"""{"user_id": "u", "k": 20, "diversity": 0.3, "exclude_seen": true, "include": ["attributes"],
                "filter": {"field": "in_stock", "op": "eq", "value": true}, "scenario": "empty",
                "boosts": [{"filter": {"any": [{"field": "genres", "op": "eq", "value": "Drama"}]}, "factor": 1.5}]}"""
    filled = scenarios.parse(RecommendBody, b'{"user_id": "u", "scenario": "home"}')
    assert filled.model_copy(update={"scenario": "empty"}) == scenarios.parse(RecommendBody, same)
    batched = scenarios.validate(BatchedBody, {"user_id": "u", "scenario": "basket"})
    assert (batched.k, batched.strategy, batched.filter) == (4, "trending", None)


@pytest.mark.parametrize(("sent", "name", "expected"), [
    ('"k": 3', "k", 3), ('"diversity": 0.0', "diversity", 0.0), ('"filter": null', "filter", None),
    ('"boosts": []', "boosts", []), ('"exclude_seen": null', "exclude_seen", None), ('"include": []', "include", []),
])  # fmt: skip
def test_request_has_the_last_word(scenarios: Scenarios, sent: str, name: str, expected: Any) -> None:
    """Also where it says what the field would be without a scenario."""
    body = scenarios.parse(RecommendBody, f'{{"user_id": "u", "scenario": "home", {sent}}}'.encode())
    assert getattr(body, name) == expected


def test_similar_takes_what_it_knows(scenarios: Scenarios) -> None:
    body = scenarios.parse(SimilarBody, b'{"item_id": "i1", "scenario": "home"}')
    assert (body.k, body.diversity, len(body.boosts)) == (20, 0.3, 1)


@pytest.mark.parametrize(("sent", "pointer", "message"), [
    ('"scenario": "hmoe"', "/scenario", "No such scenario; declared: basket, empty, home"),
    ('"scenario": "home", "k": 0', "/k", "greater than"),
    ('"scenario": "basket", "target_event_type": "cart"', "", "leave out strategy"),
])  # fmt: skip
def test_error_says_where_in_what_was_sent(scenarios: Scenarios, sent: str, pointer: str, message: str) -> None:
    for parse in (
        lambda: scenarios.parse(RecommendBody, f'{{"user_id": "u", {sent}}}'.encode()),
        lambda: scenarios.validate(BatchedBody, {"user_id": "u", **json.loads(f"{{{sent}}}")}),
    ):
        with pytest.raises(InvalidRequest) as caught:
            parse()
        assert caught.value.faults[0].pointer == pointer
        assert message in caught.value.faults[0].detail


def test_cursor_goes_on_with_the_list_of_the_scenario(scenarios: Scenarios) -> None:
    body = scenarios.parse(RecommendBody, b'{"user_id": "u", "scenario": "home", "cursor": "abc"}')
    assert "k" not in body.model_fields_set


@pytest.mark.parametrize(("text", "message"), [
    ("[home\n", "no readable TOML"),
    ("k = 3\n", "k: "),
    ("[Home]\nk = 3\n", "Home"),
    ("[home]\nk = 0\n", "home.k: Input should be greater"),
    ("[home]\nkk = 3\n", "home.kk: no default of a request"),
    ('[home]\nuser_id = "u"\n', "home.user_id: no default of a request"),
    ('[home]\nfilter = { field = "a", op = "equals", value = 1 }\n', "home.filter.op: "),
    ('[home]\npins = [{ item_id = "a", position = 1 }, { item_id = "b", position = 1 }]\n', "two pins have the same"),
    ("[home]\n[[home.boosts]]\nfactor = 2.0\n", "home.boosts.0.filter: Field required"),
])  # fmt: skip
def test_faulty_file_is_refused_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "scenarios.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"scenarios\.toml") as caught:
        read_scenarios(file)
    assert not isinstance(caught.value, ValidationError)
    assert message in str(caught.value)
