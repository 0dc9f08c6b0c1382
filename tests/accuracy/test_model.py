"""Causality, padding, and the shortcut to the newest position."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from scripts.training.model import Context, SequenceModel
from scripts.training.model_config import ModelConfig

NUM_ITEMS, MAX_LENGTH = 50, 12
VARIANTS: list[dict[str, Any]] = [
    {},
    {"temporal": "conv"},
    {"temporal": "gru"},
    {"temporal": "conv", "kernel_sizes": (2, 7)},
    {"layer": "ligr", "expansion": 2},
    {"position_bias": True, "position_embedding": False},
    {"position_bias": True, "time_bias": True, "temporal": "conv"},
    {"time_bias": True},
    {"event_types": True, "temporal": "conv"},
    {"event_types": True, "time_bias": True},
    {"head": "none"},
]


@pytest.fixture(params=VARIANTS, ids=str)
def model(request: pytest.FixtureRequest) -> Iterator[SequenceModel]:
    torch.manual_seed(0)
    config = ModelConfig(
        num_items=NUM_ITEMS,
        max_length=MAX_LENGTH,
        **{"dim": 16, "num_blocks": 2, "kernel_sizes": (3,), **request.param},
    )
    model = SequenceModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)  # fresh weights are too small to show a leak
        model.item_embedding.weight[0] = 0
    with torch.inference_mode():
        yield model


def context(items: Tensor, *, moved_from: int = MAX_LENGTH) -> Context:
    """Ever longer intervals between events, minutes at first and then days; with `moved_from`, later events a week
    later and of another type."""
    column = torch.arange(items.shape[1])
    times_ms = 1_700_000_000_000 + 60_000 * column**4 + (column >= moved_from) * 604_800_000
    types = torch.where(items != 0, (items + (column >= moved_from)) % 3 + 1, 0)
    return Context(
        timestamps_ms_BL=torch.where(items != 0, times_ms, 0),
        event_types_BL=types,
        target_types=torch.full((len(items),), 2),
    )


def full_pass(model: SequenceModel, items: Tensor, moved_from: int = MAX_LENGTH) -> Tensor:
    states: Tensor = model(items, model.item_vectors(), context(items, moved_from=moved_from))
    return states


def shortcut(model: SequenceModel, items: Tensor) -> Tensor:
    return model.last_state(items, model.item_vectors(), context(items))


def next_scores(model: SequenceModel, items: Tensor, item_vectors: Tensor) -> Tensor:
    return model.next_scores(items, item_vectors, context(items))


def test_change_in_the_future_never_changes_a_past_position(model: SequenceModel) -> None:
    items = torch.randint(1, NUM_ITEMS + 1, (4, MAX_LENGTH))
    before = full_pass(model, items)
    for changed in range(1, MAX_LENGTH):
        other = items.clone()
        other[:, changed:] = torch.randint(1, NUM_ITEMS + 1, (4, MAX_LENGTH - changed))
        after = full_pass(model, other, moved_from=changed)
        torch.testing.assert_close(after[:, :changed], before[:, :changed])
        assert not torch.allclose(after[:, -1], before[:, -1])


def test_change_in_the_past_reaches_the_newest_position(model: SequenceModel) -> None:
    items = torch.randint(1, NUM_ITEMS + 1, (1, MAX_LENGTH))
    other = items.clone()
    other[0, 0] = items[0, 0] % NUM_ITEMS + 1
    assert not torch.allclose(full_pass(model, other)[:, -1], full_pass(model, items)[:, -1], atol=1e-7)


def test_time_and_type_of_events_reach_the_newest_position_only_where_it_is_read(model: SequenceModel) -> None:
    items = torch.randint(1, NUM_ITEMS + 1, (1, MAX_LENGTH))
    is_same = torch.equal(full_pass(model, items, moved_from=5)[:, -1], full_pass(model, items)[:, -1])
    assert is_same == (not model.config.context_inputs)


def test_date_alone_changes_nothing(model: SequenceModel) -> None:
    items = torch.randint(1, NUM_ITEMS + 1, (1, MAX_LENGTH))
    later = context(items)._replace(timestamps_ms_BL=context(items, moved_from=0).timestamps_ms_BL)
    torch.testing.assert_close(model(items, model.item_vectors(), later), full_pass(model, items))


def test_type_that_is_asked_for_changes_the_state_only_where_types_have_heads(model: SequenceModel) -> None:
    items = torch.randint(1, NUM_ITEMS + 1, (2, MAX_LENGTH))
    another = context(items)._replace(target_types=torch.tensor([2, 3]))
    state, other = shortcut(model, items), model.last_state(items, model.item_vectors(), another)
    assert torch.equal(state[0], other[0])
    assert torch.equal(state[1], other[1]) != model.config.event_types


def test_head_of_every_position_is_that_of_its_type(model: SequenceModel) -> None:
    items = torch.randint(1, NUM_ITEMS + 1, (2, MAX_LENGTH))
    by_position = context(items)._replace(target_types=torch.tensor([[2, 3] * (MAX_LENGTH // 2)] * 2))
    states = model(items, model.item_vectors(), by_position)
    for target_type in (2, 3):
        of_type = context(items)._replace(target_types=torch.full((2,), target_type))
        expected = model(items, model.item_vectors(), of_type)[:, target_type - 2 :: 2]
        torch.testing.assert_close(states[:, target_type - 2 :: 2], expected)


def test_padding_changes_nothing(model: SequenceModel) -> None:
    items = torch.randint(1, NUM_ITEMS + 1, (3, 5))
    for num_padding in range(1, MAX_LENGTH - 5 + 1):
        padded = torch.nn.functional.pad(items, (0, num_padding))
        torch.testing.assert_close(full_pass(model, padded)[:, :5], full_pass(model, items))
        torch.testing.assert_close(shortcut(model, padded), shortcut(model, items))


def test_newest_state_is_that_of_the_full_pass(model: SequenceModel) -> None:
    items = torch.randint(1, NUM_ITEMS + 1, (MAX_LENGTH + 1, MAX_LENGTH))
    for length in range(MAX_LENGTH + 1):
        items[length, length:] = 0
    newest = [max(length - 1, 0) for length in range(MAX_LENGTH + 1)]
    expected = full_pass(model, items)[range(MAX_LENGTH + 1), newest]
    torch.testing.assert_close(shortcut(model, items), expected)


def test_padding_is_never_recommended(model: SequenceModel) -> None:
    scores = next_scores(model, torch.zeros(1, 4, dtype=torch.int64), model.item_vectors())
    assert scores[0, 0] == -torch.inf
    assert torch.isfinite(scores[0, 1:]).all()


def test_rows_appended_to_the_table_are_scored_and_read(model: SequenceModel) -> None:
    """An item that training never saw, with the vector of item 7: wherever 7 stands, it may stand instead."""
    table = model.item_vectors()
    longer = torch.cat([table, table[7:8]])
    items = torch.tensor([[3, 7, 5, 7]])
    before = next_scores(model, items, table)
    torch.testing.assert_close(next_scores(model, items, longer)[:, -1], before[:, 7])
    read = model.next_scores(torch.tensor([[3, NUM_ITEMS + 1, 5, 7]]), longer, context(items))
    torch.testing.assert_close(read[:, :-1], before)


def test_a_part_of_attentions_weights_is_dropped_in_training_where_it_is_asked_for() -> None:
    config = ModelConfig(
        num_items=NUM_ITEMS, max_length=MAX_LENGTH, dim=16, dropout=0.0, position_bias=True, attention_dropout=0.5
    )
    model = SequenceModel(config)
    items = torch.randint(1, NUM_ITEMS + 1, (1, MAX_LENGTH))
    first, second = (model.train()(items, model.item_vectors()) for _ in range(2))
    assert not torch.allclose(first, second)
    first, second = (model.eval()(items, model.item_vectors()) for _ in range(2))
    assert torch.equal(first, second)


def test_prediction_head_begins_as_the_identity() -> None:
    torch.manual_seed(0)
    model = SequenceModel(ModelConfig(num_items=NUM_ITEMS, max_length=MAX_LENGTH, dim=16)).eval()
    items = torch.randint(1, NUM_ITEMS + 1, (4, MAX_LENGTH))
    states = model(items, model.item_vectors())
    model.head = torch.nn.Identity()
    assert torch.equal(model(items, model.item_vectors()), states)
