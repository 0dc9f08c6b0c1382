"""The recommender: causal self-attention over a sequence of item indices, scored against the item embeddings.

    items ─ item vectors + positions ─ blocks ─ temporal module ─ head ─ · item vectors ─ scores

Shapes: B batch, L length, D embedding, H heads, V catalogue with padding (row or column = item index).

Item vectors are one table (V, D) that is read at the input and scored against at the output. It is an argument
everywhere: the exported graph gets it as an input, so that rows for items that training never saw can be appended.

Sequences are padded on the right: items oldest first, 0 after the newest. A position is the distance from the newest
item, so a sequence reads the same however far it is padded, and causal attention alone keeps the padding out.
"""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.training.attribute_embedding import AttributeEmbedding, AttributeTable
from scripts.training.blocks import Block, at_column
from scripts.training.event_heads import NUM_EVENT_TYPES, TargetHead
from scripts.training.model_config import ModelConfig
from scripts.training.prediction_head import PredictionHead, prediction_head
from scripts.training.relative_bias import Relations, RelativeBias, time_buckets
from scripts.training.temporal import temporal_module


class Context(NamedTuple):
    """What may be known of histories besides their items; a model reads what it was built for.

    timestamps_ms_BL  int64 epoch milliseconds, 0 where there is no item
    event_types_BL    int64 type indices of the event-type map, 0 where there is no item
    target_types      int64 (B,), the type of the event to predict, 0: any; or (B, L), one for every position
    """

    timestamps_ms_BL: Tensor | None = None
    event_types_BL: Tensor | None = None
    target_types: Tensor | None = None


NO_CONTEXT = Context()


class NextItemModel(Protocol):
    """What can be evaluated and exported: this model, or one that mixes it with something else."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def max_length(self) -> int:
        """As many of a history's events does it read, the newest ones."""
        ...

    def item_vectors(self) -> Tensor:
        """(V, D): what `next_scores` reads and scores; row 0, the padding, is zero."""
        ...

    def next_scores(self, items_BL: Tensor, item_vectors_VD: Tensor, context: Context = NO_CONTEXT) -> Tensor:
        """(B, V): a score for every item after the newest one; column 0, the padding, is −inf."""
        ...

    def next_scores_of_full_pass(
        self, items_BL: Tensor, item_vectors_VD: Tensor, context: Context = NO_CONTEXT
    ) -> Tensor:
        """The same the way training computes it: every position through every layer, then the newest one picked."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """See `nn.Module`: they lie where the model does."""
        ...

    def eval(self) -> Self:
        """See `nn.Module`: without dropout from here on."""
        ...


class SequenceModel(nn.Module):
    def __init__(self, config: ModelConfig, attributes: AttributeTable | None = None) -> None:
        """attributes: what the items have in common; None where the configuration makes no use of it, or none is
        known."""
        super().__init__()
        self.config = config
        if attributes is not None and (config.attributes == "none" or attributes.num_items != config.num_items):
            raise ValueError(f"attributes of {attributes.num_items} items do not belong to {config}")
        self.item_embedding = nn.Embedding(config.num_items + 1, config.dim, padding_idx=0)
        self.position_embedding = nn.Embedding(config.max_length, config.dim) if config.position_embedding else None
        self.event_embedding = nn.Embedding(NUM_EVENT_TYPES, config.dim) if config.event_types else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(
                config.dim,
                config.num_heads,
                layer=config.layer,
                expansion=config.expansion,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                bias=_bias(config),
            )
            for _ in range(config.num_blocks)
        )
        self.temporal = temporal_module(
            config.temporal, dim=config.dim, kernel_sizes=config.kernel_sizes, dropout=config.dropout
        )
        self.norm = nn.LayerNorm(config.dim)
        self.head = prediction_head(config.head, config.dim)
        self.target = TargetHead(config.dim) if config.event_types else None
        self.attributes = None if attributes is None else AttributeEmbedding(attributes, config.dim)
        self.apply(_initialise)

    @classmethod
    def of_state(cls, config: ModelConfig, state: Mapping[str, Tensor]) -> "SequenceModel":
        """The model whose `state_dict` this is; the table of attributes is part of it."""
        table = None
        if "attributes.offsets" in state:
            num_values = len(state["attributes.vectors.weight"])
            table = AttributeTable(state["attributes.values_E"], state["attributes.offsets"], num_values)
        model = cls(config, table)
        model.load_state_dict(state)
        return model

    @property
    def max_length(self) -> int:
        """See `NextItemModel`."""
        return self.config.max_length

    def item_vectors(self) -> Tensor:
        """See `NextItemModel`."""
        if self.attributes is None:
            return self.item_embedding.weight
        return self.vectors_of(torch.arange(self.config.num_items + 1, device=self.item_embedding.weight.device))

    def vectors_of(self, items_X: Tensor) -> Tensor:
        """(X, D): the rows of `item_vectors` for some items, without the work for the others."""
        vectors_XD: Tensor = self.item_embedding(items_X)
        return vectors_XD if self.attributes is None else vectors_XD + self.attributes(items_X)

    def attribute_vectors(self) -> Tensor | None:
        """(A, D): what each attribute value adds to the vector of an item that has it, before the division by the root
        of their number; None where item vectors hold no attributes."""
        return None if self.attributes is None else self.attributes.vectors.weight

    def forward(self, items_BL: Tensor, item_vectors_VD: Tensor, context: Context = NO_CONTEXT) -> Tensor:
        """(B, L, D): for every column the state that is scored for the item after it.

        `items_BL` holds rows of `item_vectors_VD`, int64, at most `max_length` columns; columns of padding give finite
        numbers without meaning. The table may hold any items in any order as long as row 0 is the padding.
        """
        x_BLD = self._embedded(items_BL, F.embedding(items_BL, item_vectors_VD), context)
        relations = self._relations(items_BL, context)
        for block in self.blocks:
            x_BLD = block(x_BLD, relations)
        return self._headed(x_BLD, context)

    def last_state(self, items_BL: Tensor, item_vectors_VD: Tensor, context: Context = NO_CONTEXT) -> Tensor:
        """(B, D): what `forward` gives at the newest item, without the work for the other columns; of a row of padding,
        column 0."""
        return self.last_state_of(items_BL, F.embedding(items_BL, item_vectors_VD), context)

    def last_state_of(self, items_BL: Tensor, vectors_BLD: Tensor, context: Context = NO_CONTEXT) -> Tensor:
        """(B, D): what `last_state` gives, from vectors already looked up."""
        last_B = (items_BL != 0).sum(dim=1).sub(1).clamp(min=0)
        x_BLD = self._embedded(items_BL, vectors_BLD, context)
        relations = self._relations(items_BL, context)
        for block in self.blocks[:-1]:
            x_BLD = block(x_BLD, relations)
        if self.temporal is not None:
            # The temporal module reads the last block at every position.
            return at_column(self._headed(self.blocks[-1](x_BLD, relations), context), last_B).squeeze(1)
        column_L = torch.arange(items_BL.shape[1], device=items_BL.device)
        last_block = self.blocks[-1]
        assert isinstance(last_block, Block)  # noqa: S101 - ModuleList forgets the type of what it holds
        from_last = self._relations(items_BL, context, last_B)
        last_B1D = last_block.at_last(x_BLD, last_B, column_L <= last_B[:, None], from_last)
        return self._headed(last_B1D, context).squeeze(1)

    def next_scores(self, items_BL: Tensor, item_vectors_VD: Tensor, context: Context = NO_CONTEXT) -> Tensor:
        """See `NextItemModel`."""
        return self.scores(self.last_state(items_BL, item_vectors_VD, context), item_vectors_VD)

    def next_scores_of_full_pass(
        self, items_BL: Tensor, item_vectors_VD: Tensor, context: Context = NO_CONTEXT
    ) -> Tensor:
        """See `NextItemModel`."""
        newest_B = (items_BL != 0).sum(dim=1).sub(1).clamp(min=0)
        states_BLD = self(items_BL, item_vectors_VD, context)
        return self.scores(at_column(states_BLD, newest_B).squeeze(1), item_vectors_VD)

    def scores(self, states_XD: Tensor, item_vectors_VD: Tensor) -> Tensor:
        """(X, V): inner products with the item vectors; column 0, the padding, is −inf."""
        scores_XV = F.linear(states_XD, item_vectors_VD)
        return scores_XV.scatter(1, torch.zeros_like(states_XD[:, :1], dtype=torch.int64), -math.inf)

    def _embedded(self, items_BL: Tensor, vectors_BLD: Tensor, context: Context) -> Tensor:
        x_BLD = vectors_BLD * math.sqrt(self.config.dim)
        if self.position_embedding is not None:
            length_B1 = (items_BL != 0).sum(dim=1, keepdim=True)
            # Not arange(L - 1, -1, -1): that is exported quietly and breaks at other lengths.
            distance_BL = (length_B1 - 1 - torch.arange(items_BL.shape[1], device=items_BL.device)).clamp(min=0)
            x_BLD = x_BLD + self.position_embedding(distance_BL)
        if self.event_embedding is not None:
            if context.event_types_BL is None:
                raise ValueError("this model reads event types; the context has none")
            x_BLD = x_BLD + self.event_embedding(context.event_types_BL)
        embedded: Tensor = self.dropout(x_BLD)
        return embedded

    def _relations(self, items_BL: Tensor, context: Context, looking_B: Tensor | None = None) -> Relations | None:
        """Between all columns, or from one of each row to all; None where no block asks."""
        if not (self.config.position_bias or self.config.time_bias):
            return None
        column_L = torch.arange(items_BL.shape[1], device=items_BL.device)
        looking = column_L[None, :] if looking_B is None else looking_B[:, None]
        buckets = None
        if self.config.time_bias and context.timestamps_ms_BL is not None:
            times_ms_BL = context.timestamps_ms_BL
            looking_ms = times_ms_BL if looking_B is None else times_ms_BL.gather(1, looking_B[:, None])
            buckets = time_buckets(looking_ms, times_ms_BL)
        return Relations((looking[:, :, None] - column_L).clamp(min=0), buckets)

    def _headed(self, x_BLD: Tensor, context: Context) -> Tensor:
        if self.temporal is not None:
            x_BLD = self.temporal(x_BLD)
        x_BLD = self.norm(x_BLD)
        if self.target is not None:
            x_BLD = self.target(x_BLD, context.target_types)
        states: Tensor = self.head(x_BLD)
        return states


def _bias(config: ModelConfig) -> RelativeBias | None:
    if not (config.position_bias or config.time_bias):
        return None
    return RelativeBias(
        config.num_heads, config.max_length, with_steps=config.position_bias, with_times=config.time_bias
    )


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight)
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding):
        # Items enter the blocks with the scale of a normalised vector. The customary 0.02 costs several epochs.
        nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
        if module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])
    if isinstance(module, PredictionHead):
        nn.init.zeros_(module.last.weight)  # its bias is zero by now: children come first
