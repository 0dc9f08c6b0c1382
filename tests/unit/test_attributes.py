"""Which values get a vector, counted by hand; what an item gets from them, summed one by one."""

import doctest
import math

import pytest
import torch

from app.artifacts import attribute_values
from app.artifacts.attribute_values import AttributeValues
from scripts.training.attribute_embedding import AttributeEmbedding
from scripts.training.attributes import attribute_table, learn_attribute_values, shared_attributes
from scripts.training.model import SequenceModel
from scripts.training.model_config import Attributes, ModelConfig

FILMS = [
    {"title": "Ran", "genres": ["Drama", "War"], "in_stock": True, "year": 1985},
    {"title": "Ikiru", "genres": ["Drama"], "in_stock": False, "year": 1952},
    {"title": "Airplane!", "genres": ["Comedy", "Comedy"], "in_stock": True, "year": 1980, "nested": {"a": 1}},
    {"title": "Zulu", "genres": ["War"], "in_stock": True, "note": None},
    {},
]


def test_examples_hold() -> None:
    assert doctest.testmod(attribute_values).failed == 0


def test_values_that_several_items_share_count_and_titles_vanish() -> None:
    assert learn_attribute_values(FILMS).labels == ("genres=Drama", "genres=War", "in_stock=true")


def test_value_that_every_item_has_tells_nothing() -> None:
    assert len(learn_attribute_values([{"kind": "film"}] * 3)) == 0
    assert shared_attributes([{"kind": "film"}] * 3) is None
    assert shared_attributes([{}, {}]) is None


def test_few_numbers_are_values_and_many_fall_into_bins_of_equal_size() -> None:
    years = [{"year": 1990 + index % 3} for index in range(9)]
    assert learn_attribute_values(years).labels == ("year=1990", "year=1991", "year=1992")

    prices = [{"price": index / 2} for index in range(100)]
    values = learn_attribute_values(prices)
    assert {"price=[-inf,5)", "price=[5,10)", "price=[45,inf)"} <= set(values.labels)
    assert len(values) == 10
    sizes = [0] * 10
    for item in prices:
        [row] = values.rows_of(item)
        sizes[row] += 1
    assert sizes == [10] * 10


def test_number_below_all_and_above_all_falls_into_the_outer_bins() -> None:
    values = AttributeValues(["price=[-inf,5)", "price=[10,inf)", "price=[5,10)"])
    assert [values.rows_of({"price": price}) for price in (-3, 4.9, 5, 9.99, 10, 1e9)] == [[0], [0], [2], [2], [1], [1]]
    assert values.rows_of({"price": math.nan}) == []
    assert values.rows_of({"price": "cheap"}) == []


def test_skewed_numbers_give_fewer_bins_and_every_item_has_one() -> None:
    counts = [{"views": 0}] * 80 + [{"views": index} for index in range(1, 21)]
    values = learn_attribute_values(counts)
    assert values.labels == ("views=[-inf,1)", "views=[1,11)", "views=[11,inf)")
    assert all(len(values.rows_of(item)) == 1 for item in counts)


def test_item_gets_the_sum_of_its_values_over_the_root_of_their_number() -> None:
    table = attribute_table(AttributeValues(["genres=Drama", "genres=War", "in_stock=true"]), FILMS)
    embedding = AttributeEmbedding(table, dim=4)
    drama, war, in_stock = embedding.vectors.weight
    zero = torch.zeros(4)
    expected = [zero, (drama + war + in_stock) / 3**0.5, drama, in_stock, (war + in_stock) / 2**0.5, zero]
    order = torch.tensor([5, 1, 1, 0, 4, 2, 3])
    torch.testing.assert_close(embedding(order), torch.stack([expected[item] for item in order]))


def test_gradient_of_attribute_vectors_is_that_of_the_plain_sum() -> None:
    table = attribute_table(AttributeValues(["genres=Drama", "genres=War", "in_stock=true"]), FILMS)
    embedding = AttributeEmbedding(table, dim=4)
    weights = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    (embedding(torch.arange(6)) * weights).sum().backward()
    found = embedding.vectors.weight.grad
    has = torch.tensor([[0, 1, 1, 0, 0, 0], [0, 1, 0, 0, 1, 0], [0, 1, 0, 1, 1, 0]], dtype=torch.float32)
    has = has / has.sum(dim=0).clamp(min=1).sqrt()
    assert found is not None
    torch.testing.assert_close(found, has @ weights)


def test_item_vector_is_its_own_and_that_of_its_attributes() -> None:
    torch.manual_seed(0)
    config = ModelConfig(num_items=len(FILMS), max_length=5, dim=8, num_blocks=1, attributes="embedding")
    found = SequenceModel(config, shared_attributes(FILMS)).eval()
    assert found.attributes is not None
    vectors = found.attribute_vectors()
    assert vectors is not None
    drama, _, _ = vectors
    torch.testing.assert_close(found.item_vectors()[2], found.item_embedding.weight[2] + drama)
    torch.testing.assert_close(found.item_vectors()[5], found.item_embedding.weight[5])
    assert found.item_vectors()[0].abs().sum() == 0
    chosen = torch.tensor([0, 4, 1])
    torch.testing.assert_close(found.vectors_of(chosen), found.item_vectors()[chosen])


@pytest.mark.parametrize("attributes", ["none", "embedding"])
def test_weights_alone_give_the_model_back(attributes: Attributes) -> None:
    table = None if attributes == "none" else shared_attributes(FILMS)
    first = SequenceModel(
        ModelConfig(num_items=len(FILMS), max_length=5, dim=8, num_blocks=1, attributes=attributes), table
    )
    second = SequenceModel.of_state(first.config, first.state_dict())
    torch.testing.assert_close(second.item_vectors(), first.item_vectors())


def test_attributes_of_other_items_are_refused() -> None:
    with pytest.raises(ValueError, match="attributes of 5 items do not belong to"):
        SequenceModel(ModelConfig(num_items=7, max_length=5, dim=8, attributes="embedding"), shared_attributes(FILMS))
