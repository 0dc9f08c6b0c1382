"""Fusion: the model's distribution of the next item mixed with that of item-to-item rules, in one graph.

    p(b | history) = (1 − share) · softmax(attention scores)_b + share · rules_b / Σ rules

Attention generalises, rules remember what went together; on small and sparse data each knows what the other does not.
The rules (see `rules`) are learnt from the same events as the model, in seconds; `share` is chosen on validation, whose
targets neither part has seen. Scores are logarithms of p, so a difference of scores means the same for every history.

Shapes: B batch, L length, R newest items that the rules read, N followers kept per item, V catalogue with padding.
"""

import torch
from torch import Tensor, nn

from scripts.training.interactions import Cases, PreparedData
from scripts.training.model import NO_CONTEXT, Context, SequenceModel, padding_bias
from scripts.training.model_config import ModelConfig
from scripts.training.rules import RuleTable
from scripts.training.scorer import validate

RULES_READ = 20
"""R: as many items of the history do the rules look at; the j-th newest counts 1/j."""
SHARES = tuple(round(0.1 * step, 1) for step in range(10))
LOWEST_LOGARITHM = -80.0
"""exp of it is still a float32; an item that far down is not told apart from others."""


class FusedModel(nn.Module):
    """A trained attention model and the rules it is mixed with; without rules, the attention model alone."""

    items_VN: Tensor
    weights_VN: Tensor
    decay_R: Tensor

    def __init__(self, attention: SequenceModel, rules: RuleTable | None, share: float) -> None:
        """share: what the rules contribute, above 0 and below 1; 0 without rules."""
        super().__init__()
        if not (0 < share < 1 if rules is not None else share == 0):
            raise ValueError(f"a share in (0, 1) belongs to rules and 0 to none, found {share}")
        self.attention = attention
        self.share = share
        if rules is not None:
            self.register_buffer("items_VN", torch.from_numpy(rules.items_VN))
            self.register_buffer("weights_VN", torch.from_numpy(rules.weights_VN))
            self.register_buffer("decay_R", 1 / torch.arange(1, RULES_READ + 1, dtype=torch.float32))

    @property
    def config(self) -> ModelConfig:
        return self.attention.config

    def item_vectors(self) -> Tensor:
        """See `model.NextItemModel`."""
        return self.attention.item_vectors()

    def next_scores(self, items_BL: Tensor, item_vectors_VD: Tensor, context: Context = NO_CONTEXT) -> Tensor:
        """(B, V): with rules the logarithm of p; column 0 is −inf."""
        scores_BV = self.attention.next_scores(items_BL, item_vectors_VD, context)
        return self._fused(scores_BV, items_BL, item_vectors_VD)

    def next_scores_of_full_pass(
        self, items_BL: Tensor, item_vectors_VD: Tensor, context: Context = NO_CONTEXT
    ) -> Tensor:
        """See `model.NextItemModel`."""
        scores_BV = self.attention.next_scores_of_full_pass(items_BL, item_vectors_VD, context)
        return self._fused(scores_BV, items_BL, item_vectors_VD)

    def _fused(self, scores_BV: Tensor, items_BL: Tensor, item_vectors_VD: Tensor) -> Tensor:
        if self.share == 0:
            return scores_BV
        rules_BV = self.rule_scores(items_BL)
        # Not + ε: the exporter drops a small addend. A history without rules keeps the order of its attention scores.
        rules_BV = rules_BV / rules_BV.sum(dim=1, keepdim=True).clamp(min=1e-6)
        logarithm_BV = torch.log_softmax(scores_BV, dim=1).clamp(min=LOWEST_LOGARITHM)
        mixed_BV = torch.log((1 - self.share) * logarithm_BV.exp() + self.share * rules_BV)
        return mixed_BV + padding_bias(item_vectors_VD)

    def rule_scores(self, items_BL: Tensor) -> Tensor:
        """(B, V): the weights of all rules from the newest R items, each with its decay, summed by follower."""
        last_B1 = (items_BL != 0).sum(dim=1, keepdim=True) - 1
        column_BR = last_B1 - torch.arange(RULES_READ, device=items_BL.device)
        newest_BR = torch.where(column_BR >= 0, items_BL.gather(1, column_BR.clamp(min=0)), 0)
        weights_BRN = self.weights_VN[newest_BR] * self.decay_R[:, None]
        empty_BV = torch.zeros(items_BL.shape[0], self.config.num_items + 1, device=items_BL.device)
        return empty_BV.scatter_add(1, self.items_VN[newest_BR].flatten(1).long(), weights_BRN.flatten(1))


def fuse(
    attention: SequenceModel, rules: RuleTable, data: PreparedData, cases: Cases
) -> tuple[FusedModel, dict[float, float]]:
    """The mixture with the best NDCG@10 on the cases (the smallest share of equal ones), and what each share reached.

    `cases` are validation cases; `attention` and `rules` have learnt from `data.train` alone.
    """
    reached: dict[float, float] = {}
    for share in SHARES:
        model = FusedModel(attention, rules if share else None, share)
        reached[share] = validate(model, data, cases)["ndcg@10"]
    share = max(SHARES, key=lambda each: reached[each])
    return FusedModel(attention, rules if share else None, share), reached
