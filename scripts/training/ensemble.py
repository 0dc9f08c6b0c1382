"""Several attention models as one: trained alike from different seeds, their scores averaged.

Each has a little noise of its own, which the mean has less of (Lakshminarayanan et al., "Simple and scalable predictive
uncertainty estimation using deep ensembles", 2017). The mean of inner products is one inner product of longer vectors:

    1/M · Σ ⟨state_m, vector_m⟩ = ⟨[state_1 … state_M] / M, [vector_1 … vector_M]⟩

so an ensemble is exported, indexed and served like one model of M times the width.

Shapes: M members, B batch, L length, D embedding of a member, E = M · D, V catalogue with padding.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.training.model import NO_CONTEXT, Context, SequenceModel
from scripts.training.model_config import ModelConfig


class Ensemble(nn.Module):
    """Models of one configuration over one catalogue, at least one."""

    def __init__(self, members: Sequence[SequenceModel]) -> None:
        """Raises ValueError for models of different configurations."""
        super().__init__()
        self.config: ModelConfig = members[0].config
        if any(member.config != self.config for member in members):
            raise ValueError("an ensemble needs models of one configuration")
        self.members = nn.ModuleList(members)

    @property
    def models(self) -> list[SequenceModel]:
        return [member for member in self.members if isinstance(member, SequenceModel)]

    @property
    def max_length(self) -> int:
        """See `model.NextItemModel`."""
        return self.config.max_length

    def item_vectors(self) -> Tensor:
        """(V, E): see `model.NextItemModel`."""
        return torch.cat([model.item_vectors() for model in self.models], dim=1)

    def attribute_vectors(self) -> Tensor | None:
        """(A, E): see `SequenceModel.attribute_vectors`."""
        parts = [vectors_AD for model in self.models if (vectors_AD := model.attribute_vectors()) is not None]
        return torch.cat(parts, dim=1) if parts else None

    def last_state(self, items_BL: Tensor, item_vectors_VE: Tensor, context: Context = NO_CONTEXT) -> Tensor:
        """(B, E): see `SequenceModel.last_state`."""
        # Looked up before it is divided: a part of the whole table would be a copy of it.
        read_BLE = F.embedding(items_BL, item_vectors_VE)
        parts = torch.split(read_BLE, self.config.dim, dim=-1)
        states = [
            model.last_state_of(items_BL, read_BLD, context) for model, read_BLD in zip(self.models, parts, strict=True)
        ]
        return torch.cat(states, dim=1) / len(states)

    def scores(self, states_XE: Tensor, item_vectors_VE: Tensor) -> Tensor:
        """(X, V): see `SequenceModel.scores`."""
        return self.models[0].scores(states_XE, item_vectors_VE)

    def next_scores(self, items_BL: Tensor, item_vectors_VE: Tensor, context: Context = NO_CONTEXT) -> Tensor:
        """See `model.NextItemModel`."""
        return self.scores(self.last_state(items_BL, item_vectors_VE, context), item_vectors_VE)

    def next_scores_of_full_pass(
        self, items_BL: Tensor, item_vectors_VE: Tensor, context: Context = NO_CONTEXT
    ) -> Tensor:
        """The mean of what each member computes alone."""
        tables = torch.split(item_vectors_VE, self.config.dim, dim=1)
        scores = [
            model.next_scores_of_full_pass(items_BL, table_VD, context)
            for model, table_VD in zip(self.models, tables, strict=True)
        ]
        return torch.stack(scores).mean(dim=0)


Attention = SequenceModel | Ensemble
