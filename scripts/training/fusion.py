"""Fusion: the model's distribution of the next item mixed with that of item-to-item rules, in one graph.

    p(b | history) = (1 − share) · exp(attention score_b) / Z + share · rules_b / Σ rules

where Z sums over the 128 items that attention likes best, so that p is a probability up to a small factor.
Attention generalises, rules remember what went together; on small and sparse data each knows what the other does not.
The rules (see `rules`) are learnt from the same events as the model, in seconds; `share` is chosen on validation, whose
targets neither part has seen. Scores are logarithms of p, so a difference of scores means the same for every history.

Shapes: B batch, L length, R newest items that the rules read, N followers kept per item, V catalogue with padding.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from scripts.training.interactions import Cases, PreparedData
from scripts.training.model import NO_CONTEXT, Context, SequenceModel
from scripts.training.model_config import ModelConfig
from scripts.training.rules import RuleTable
from scripts.training.scorer import validate

RULES_READ = 20
"""R: as many items of the history do the rules look at; the j-th newest counts 1/j."""
SHARES = tuple(round(0.1 * step, 1) for step in range(10))
NORMALISER_ITEMS = 128


class RuleTensors(NamedTuple):
    """A `RuleTable` in torch: int32 (V, N) and float32 (V, N)."""

    items_VN: Tensor
    weights_VN: Tensor


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

    @property
    def rules(self) -> RuleTensors | None:
        return RuleTensors(self.items_VN, self.weights_VN) if self.share else None

    def item_vectors(self) -> Tensor:
        """See `model.NextItemModel`."""
        return self.attention.item_vectors()

    def next_scores(self, items_BL: Tensor, item_vectors_VD: Tensor, context: Context = NO_CONTEXT) -> Tensor:
        """(B, V): with rules the logarithm of p; column 0 is −inf."""
        states_BD = self.attention.last_state(items_BL, item_vectors_VD, context)
        return self.fused_scores(states_BD, items_BL, item_vectors_VD, self.rules)

    def next_scores_of_full_pass(
        self, items_BL: Tensor, item_vectors_VD: Tensor, context: Context = NO_CONTEXT
    ) -> Tensor:
        """The same with the attention as training computes it and the mixture as it is written down."""
        logits_BV = self.attention.next_scores_of_full_pass(items_BL, item_vectors_VD, context)
        if self.share == 0:
            return logits_BV
        rules_BV = self.rule_scores(items_BL)
        shares_BV = rules_BV / rules_BV.sum(dim=1, keepdim=True).clamp(min=1e-6)
        attention_BV = logits_BV - self._log_normaliser(logits_BV) + math.log(1 - self.share)
        return torch.logaddexp(attention_BV, torch.log(self.share * shares_BV))

    def fused_scores(
        self, states_BD: Tensor, items_BL: Tensor, item_vectors_VD: Tensor, rules: RuleTensors | None
    ) -> Tensor:
        """(B, V): what `next_scores` gives, from the attention's states and any tables.

        Only what the rules name is computed anew: everywhere else log p is the attention's score, shifted.
        """
        logits_BV = self.attention.scores(states_BD, item_vectors_VD)
        if rules is None:
            return logits_BV
        log_normaliser_B1 = self._log_normaliser(logits_BV)
        followers_BX, weights_BX = self._followers(items_BL, rules)
        # Not + ε: the exporter drops a small addend. A history without rules keeps the order of its attention scores.
        odds_BX = weights_BX * (self.share / (1 - self.share) / weights_BX.sum(dim=1, keepdim=True).clamp(min=1e-6))
        # One item may follow several of the history.
        odds_BX = torch.zeros_like(logits_BV).scatter_add(1, followers_BX, odds_BX).gather(1, followers_BX)
        attention_BX = torch.exp(logits_BV.gather(1, followers_BX) - log_normaliser_B1)
        # Where there is no follower, both terms are 0 and the padding keeps its −inf.
        fused_BX = torch.log(attention_BX + odds_BX) + log_normaliser_B1
        return logits_BV.scatter(1, followers_BX, fused_BX) + (math.log(1 - self.share) - log_normaliser_B1)

    def rule_scores(self, items_BL: Tensor) -> Tensor:
        """(B, V): the weights of all rules from the newest R items, each divided by the item's age, summed by
        follower."""
        followers_BX, weights_BX = self._followers(items_BL, RuleTensors(self.items_VN, self.weights_VN))
        empty_BV = torch.zeros(items_BL.shape[0], len(self.items_VN), device=items_BL.device)
        return empty_BV.scatter_add(1, followers_BX, weights_BX)

    def _followers(self, items_BL: Tensor, rules: RuleTensors) -> tuple[Tensor, Tensor]:
        """What follows the newest R items, 0 where nothing does, and the weights of these rules, each (B, R · N)."""
        last_B1 = (items_BL != 0).sum(dim=1, keepdim=True) - 1
        column_BR = last_B1 - torch.arange(RULES_READ, device=items_BL.device)
        newest_BR = torch.where(column_BR >= 0, items_BL.gather(1, column_BR.clamp(min=0)), 0)
        # An item that was appended to the table of vectors alone has no rules.
        newest_BR = torch.where(newest_BR < rules.items_VN.shape[0], newest_BR, 0)
        size = (*newest_BR.shape, -1)
        weights_BRN = rules.weights_VN.index_select(0, newest_BR.flatten()).view(size) * self.decay_R[:, None]
        followers_BRN = rules.items_VN.index_select(0, newest_BR.flatten()).view(size)
        return followers_BRN.flatten(1).long(), weights_BRN.flatten(1)

    def _log_normaliser(self, logits_BV: Tensor) -> Tensor:
        """(B, 1): the logarithm of the sum of exponentials of the largest logits.

        The rest of a catalogue adds little to it, and an index that finds the largest without scoring all of them
        knows it as well.
        """
        largest = min(NORMALISER_ITEMS, self.config.num_items)
        values_BX = torch.topk(logits_BV, largest, dim=1).values
        return torch.logsumexp(values_BX, dim=1, keepdim=True)


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
