"""Ids, indices, attributes and titles as an artifact carries them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.artifacts.vocabulary import ItemAttributes, ItemVocabulary
from app.errors import ArtifactError


@given(st.lists(st.text(min_size=1, max_size=20), unique=True, max_size=50))
def test_ids_and_indices_are_a_bijection_from_one(ids: list[str]) -> None:
    vocabulary = ItemVocabulary(ids)
    assert [vocabulary.index_of(item_id) for item_id in ids] == list(range(1, len(ids) + 1))
    assert [vocabulary.id_of(index) for index in range(1, len(ids) + 1)] == ids


def test_padding_and_unknown_items_have_no_counterpart() -> None:
    vocabulary = ItemVocabulary(["a", "b"])
    assert vocabulary.index_of("c") is None
    for index in (0, 3, -1):
        with pytest.raises(IndexError):
            vocabulary.id_of(index)


def test_repeated_id_is_refused() -> None:
    with pytest.raises(ArtifactError, match="repeats 1 item ids"):
        ItemVocabulary(["a", "b", "a"])


def test_vocabulary_survives_its_file(tmp_path: Path) -> None:
    ids = ["a\nb", "ü", '"', "plain"]
    ItemVocabulary(ids).write(tmp_path / "vocabulary.json")
    assert list(ItemVocabulary.read(tmp_path / "vocabulary.json")) == ids


def test_vocabulary_file_of_another_shape_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocabulary.json").write_text('{"a": 1}')
    with pytest.raises(ArtifactError, match="JSON array"):
        ItemVocabulary.read(tmp_path / "vocabulary.json")


def test_attributes_are_read_by_item_index(tmp_path: Path) -> None:
    items = [{"title": "Ä\nB"}, {}, {"genres": ["x", "y"], "year": 1999}]
    ItemAttributes.write(tmp_path / "attributes.jsonl", items)
    attributes = ItemAttributes(tmp_path / "attributes.jsonl")
    assert [attributes[index] for index in (1, 2, 3)] == items
    for index in (0, 4):
        with pytest.raises(IndexError):
            attributes[index]


def test_empty_attribute_file_holds_no_items(tmp_path: Path) -> None:
    (tmp_path / "attributes.jsonl").touch()
    assert len(ItemAttributes(tmp_path / "attributes.jsonl")) == 0


def test_titles_are_found_by_prefix_in_any_case_and_in_order(tmp_path: Path) -> None:
    titles = ["Star Wars", "Alien", "star trek", "Starman", "Straße", "Start"]
    ItemAttributes.write(tmp_path / "a.jsonl", [*({"title": title} for title in titles), {"name": "no title"}])
    attributes = ItemAttributes(tmp_path / "a.jsonl")
    assert [titles[index - 1] for index in attributes.find_title("STAR")] == [
        "star trek",
        "Star Wars",
        "Starman",
        "Start",
    ]
    assert [titles[index - 1] for index in attributes.find_title("strass")] == ["Straße"]
    assert list(attributes.find_title("zzz")) == []
    assert len(list(attributes.find_title(""))) == 6
