"""Fusion: the model's distribution of the next item mixed with that of item-to-item rules, in one graph.

    p(b | history) = (1 − share) · exp(attention score_b) / Z + share · rules_b / Σ rules

where Z sums over the 128 items that attention likes best, so that p is a probability up to a small factor. Where people
come back to the same items, these may come from the history itself as well:

    p'(b | history) = (1 − returns) · p(b | history) + returns · Σ j^−¼ over the places j of b / Σ j^−¼ over all

with j = 1 for the newest event, of as many as `RETURNS_READ`: what people take up again they may have had long ago, and
to read it costs next to nothing. Attention generalises, rules remember what went together; on
small and sparse data each knows what the other does not. The rules (see `rules`) are learnt from the same events as the
model, in seconds; `share` and `returns` are chosen on validation, whose targets no part has seen. Scores are logarithms
of p, so a difference of scores means the same for every history.

A learned re-ranker may then reorder the best of the mixture (see `reranker`).

Shapes: B batch, L length, R newest items that the rules read, N followers kept per item, X = R · N, C candidates,
V catalogue with padding.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scripts.training.ensemble import Attention, Ensemble
from scripts.training.model import NO_CONTEXT, Context
from scripts.training.model_config import ModelConfig
from scripts.training.reranker import CANDIDATES, LEAST_SHARE, LOWEST_LOGARITHM, Candidates, Reranker
from scripts.training.rules import RuleTable

RETURN_EXPONENT = 0.25
"""How much sooner something newer is taken up again; chosen on the validation part of a year of grocery baskets."""
RETURNS_READ = 500
"""As many events of a history, where attention reads fewer: on that year the history alone reaches .0569 of NDCG@10
with 200 and .0625 with 500 or 1,000."""
RULES_READ = 20
"""R: as many items of the history do the rules look at; the j-th newest counts 1/j."""
NORMALISER_ITEMS = 128
NEARLY_ALL = 1 - 1e-6
"""A share of the rules that leaves attention to order what no rule names."""


class RuleTensors(NamedTuple):
    """What the mixture knows by item index: a `RuleTable` in torch, int32 (V, N) and float32 (V, N), and for a
    re-ranker `item_statistics`, float32 (V, 2 or 3)."""

    items_VN: Tensor
    weights_VN: Tensor
    statistics_VS: Tensor | None = None


class _Evidence(NamedTuple):
    """What the parts say about each item, (B, V): log p of attention, shares of the rules, log p of the mixture; and
    what follows the newest R items with which weights, (B, X), those of the newest item first."""

    attention_BV: Tensor
    rules_BV: Tensor
    mixed_BV: Tensor
    followers_BX: Tensor
    weights_BX: Tensor


class FusedModel(nn.Module):
    """A trained attention model and the rules it is mixed with; without rules, the attention model alone."""

    items_VN: Tensor
    weights_VN: Tensor
    statistics_VS: Tensor
    decay_R: Tensor

    def __init__(
        self,
        attention: Attention,
        rules: RuleTable | None,
        share: float,
        reranker: Reranker | None = None,
        statistics_VS: NDArray[np.float32] | None = None,
        *,
        returns: float = 0.0,
    ) -> None:
        """share: what the rules contribute, above 0 and below 1; 0 without rules.

        returns: what the items of the history themselves contribute to a mixture with rules, below 1.

        reranker: of a mixture, with the `item_statistics` that it reads.
        """
        super().__init__()
        if not (0 < share < 1 if rules is not None else share == 0):
            raise ValueError(f"a share in (0, 1) belongs to rules and 0 to none, found {share}")
        if reranker is not None and (rules is None or statistics_VS is None):
            raise ValueError("a re-ranker belongs to rules and item statistics")
        if not (0 <= returns < 1 if rules is not None else returns == 0):
            raise ValueError(f"returns in [0, 1) belong to rules and 0 to none, found {returns}")
        self.attention = attention
        self.share = share
        self.returns = returns
        self.reranker = reranker
        if rules is not None:
            self.register_buffer("items_VN", torch.from_numpy(rules.items_VN))
            self.register_buffer("weights_VN", torch.from_numpy(rules.weights_VN))
            self.register_buffer("decay_R", 1 / torch.arange(1, RULES_READ + 1, dtype=torch.float32))
        if statistics_VS is not None:
            self.register_buffer("statistics_VS", torch.from_numpy(statistics_VS))
        # What attention is mixed with works where attention does.
        self.to(next(attention.parameters()).device)

    @property
    def config(self) -> ModelConfig:
        return self.attention.config

    @property
    def max_length(self) -> int:
        """See `model.NextItemModel`."""
        return max(self.config.max_length, RETURNS_READ) if self.returns else self.config.max_length

    def parts(self) -> dict[str, "FusedModel"]:
        """What is left of the model without some of its parts, by name; none where one attention model is all."""
        parts = {}
        if isinstance(self.attention, Ensemble):
            parts["first_member_alone"] = FusedModel(self.attention.models[0], None, 0.0)
        if self.share:
            rules = RuleTable(self.items_VN.cpu().numpy(), self.weights_VN.cpu().numpy())
            parts["attention_alone"] = FusedModel(self.attention, None, 0.0)
            parts["rules_alone"] = FusedModel(self.attention, rules, NEARLY_ALL)
            if self.returns:
                parts["without_returns"] = FusedModel(self.attention, rules, self.share)
            if self.reranker is not None:
                parts["without_reranker"] = FusedModel(self.attention, rules, self.share, returns=self.returns)
        return parts

    @property
    def rules(self) -> RuleTensors | None:
        if self.share == 0:
            return None
        return RuleTensors(self.items_VN, self.weights_VN, None if self.reranker is None else self.statistics_VS)

    def item_vectors(self) -> Tensor:
        """See `model.NextItemModel`."""
        return self.attention.item_vectors()

    def next_scores(self, items_BL: Tensor, item_vectors_VD: Tensor, context: Context = NO_CONTEXT) -> Tensor:
        """(B, V): with rules the logarithm of p; column 0 is −inf."""
        states_BD = self.states(items_BL, item_vectors_VD, context)
        return self.fused_scores(states_BD, items_BL, item_vectors_VD, self.rules)

    def next_scores_of_full_pass(
        self, items_BL: Tensor, item_vectors_VD: Tensor, context: Context = NO_CONTEXT
    ) -> Tensor:
        """The same with the attention as training computes it and the mixture as it is written down."""
        read_BL, read_context = self._read_by_attention(items_BL, context)
        logits_BV = self.attention.next_scores_of_full_pass(read_BL, item_vectors_VD, read_context)
        rules = self.rules
        if rules is None:
            return logits_BV
        attention_BV = logits_BV - self._log_normaliser(logits_BV)
        followers_BX, weights_BX = self._followers(items_BL, rules)
        rules_BV = _rule_shares(logits_BV, followers_BX, weights_BX)
        mixed_BV = torch.logaddexp(attention_BV + math.log(1 - self.share), torch.log(self.share * rules_BV))
        if self.returns:
            own_BV = self.returns * _rule_shares(logits_BV, items_BL, _return_weights(items_BL))
            mixed_BV = torch.logaddexp(mixed_BV + math.log(1 - self.returns), torch.log(own_BV))
        evidence = _Evidence(attention_BV, rules_BV, mixed_BV, followers_BX, weights_BX)
        return self._reranked(evidence, items_BL, rules)

    def states(self, items_BL: Tensor, item_vectors_VD: Tensor, context: Context) -> Tensor:
        """(B, D): the attention's state at the newest item, which the item vectors are multiplied with."""
        read_BL, read_context = self._read_by_attention(items_BL, context)
        return self.attention.last_state(read_BL, item_vectors_VD, read_context)

    def _read_by_attention(self, items_BL: Tensor, context: Context) -> tuple[Tensor, Context]:
        """The newest events of longer histories."""
        if self.max_length == self.config.max_length:
            return items_BL, context
        # Not min(…): the exporter would decide it once and for all, by its example.
        width = torch.sym_min(items_BL.shape[1], self.config.max_length)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        first_B1 = ((items_BL != 0).sum(dim=1, keepdim=True) - self.config.max_length).clamp(min=0)
        column_BW = first_B1 + torch.arange(width, device=items_BL.device)
        times_ms_BL, event_types_BL = context.timestamps_ms_BL, context.event_types_BL
        return (
            items_BL.gather(1, column_BW),
            Context(
                None if times_ms_BL is None else times_ms_BL.gather(1, column_BW),
                None if event_types_BL is None else event_types_BL.gather(1, column_BW),
                context.target_types,
            ),
        )

    def fused_scores(
        self, states_BD: Tensor, items_BL: Tensor, item_vectors_VD: Tensor, rules: RuleTensors | None
    ) -> Tensor:
        """(B, V): what `next_scores` gives, from the attention's states and any tables."""
        if rules is None:
            return self.attention.scores(states_BD, item_vectors_VD)
        return self._reranked(self._evidence(states_BD, items_BL, item_vectors_VD, rules), items_BL, rules)

    def candidates(
        self, items_BL: Tensor, item_vectors_VD: Tensor, context: Context, *, excludes_seen: bool
    ) -> Candidates:
        """What a re-ranker of this mixture learns from, or has to reorder."""
        rules = self.rules
        if rules is None:
            raise ValueError("a model without rules has no candidates to reorder")
        states_BD = self.states(items_BL, item_vectors_VD, context)
        evidence = self._evidence(states_BD, items_BL, item_vectors_VD, rules)
        return self._candidates(evidence, items_BL, self.statistics_VS, excludes_seen)

    def _evidence(self, states_BD: Tensor, items_BL: Tensor, item_vectors_VD: Tensor, rules: RuleTensors) -> _Evidence:
        """Only what the rules name is mixed: everywhere else log p is the attention's, shifted."""
        logits_BV = self.attention.scores(states_BD, item_vectors_VD)
        attention_BV = logits_BV - self._log_normaliser(logits_BV)
        followers_BX, weights_BX = self._followers(items_BL, rules)
        rules_BV = _rule_shares(logits_BV, followers_BX, weights_BX)
        # One item may follow several of the history: its share is summed before it is gathered.
        of_attention = (1 - self.share) * (1 - self.returns)
        named_BX = torch.cat([followers_BX, items_BL], dim=1) if self.returns else followers_BX
        odds_BX = rules_BV.gather(1, named_BX) * (self.share / (1 - self.share))
        if self.returns:
            own_BV = _rule_shares(logits_BV, items_BL, _return_weights(items_BL))
            odds_BX = odds_BX + own_BV.gather(1, named_BX) * (self.returns / of_attention)
        # Where there is no follower, both terms are 0 and the padding keeps its −inf.
        mixed_BX = torch.log(attention_BV.gather(1, named_BX).exp() + odds_BX)
        mixed_BV = attention_BV.scatter(1, named_BX, mixed_BX) + math.log(of_attention)
        return _Evidence(attention_BV, rules_BV, mixed_BV, followers_BX, weights_BX)

    def _reranked(self, evidence: _Evidence, items_BL: Tensor, rules: RuleTensors) -> Tensor:
        if self.reranker is None or rules.statistics_VS is None:
            return evidence.mixed_BV
        candidates = self._candidates(evidence, items_BL, rules.statistics_VS, self.reranker.excludes_seen)
        moved_BC = self.reranker(candidates)
        kept_BC = evidence.mixed_BV.gather(1, candidates.items_BC)
        # What is hidden or no item keeps its place: it was no candidate.
        moved_BC = torch.where(candidates.scores_BC > -math.inf, moved_BC, kept_BC)
        return evidence.mixed_BV.scatter(1, candidates.items_BC, moved_BC)

    def _candidates(
        self, evidence: _Evidence, items_BL: Tensor, statistics_VS: Tensor, excludes_seen: bool
    ) -> Candidates:
        scores_BV = evidence.mixed_BV
        if excludes_seen:
            scores_BV = scores_BV.scatter(1, items_BL, -math.inf)
        scores_BC, items_BC = torch.topk(scores_BV, min(CANDIDATES, self.config.num_items), dim=1)
        of_newest = evidence.weights_BX.shape[1] // RULES_READ
        newest_BV = _rule_shares(scores_BV, evidence.followers_BX[:, :of_newest], evidence.weights_BX[:, :of_newest])
        last_B1 = ((items_BL != 0).sum(dim=1, keepdim=True) - 1).clamp(min=0)
        # Items behind the statistics were added since: they have no events.
        known_BC, newest_B1 = (
            torch.where(each < statistics_VS.shape[0], each, 0) for each in (items_BC, items_BL.gather(1, last_B1))
        )

        def share(part_BV: Tensor) -> Tensor:
            return part_BV.gather(1, items_BC).clamp(min=LEAST_SHARE).log()

        attention_BC = evidence.attention_BV.gather(1, items_BC).clamp(min=LOWEST_LOGARITHM)
        of_candidates = [
            attention_BC,
            share(evidence.rules_BV),
            share(newest_BV),
            scores_BC.clamp(min=LOWEST_LOGARITHM),
            *statistics_VS[known_BC].unbind(dim=2),
        ]
        if self.returns:
            of_candidates += _return_features(items_BC, items_BL)
        of_histories = [
            evidence.attention_BV.amax(dim=1, keepdim=True),
            evidence.rules_BV.amax(dim=1, keepdim=True),
            statistics_VS[newest_B1, 0],
            torch.log1p((items_BL != 0).sum(dim=1, keepdim=True).float()),
        ]
        features_BCF = torch.stack([*of_candidates, *(each_B1.expand_as(scores_BC) for each_B1 in of_histories)], dim=2)
        return Candidates(items_BC, scores_BC, features_BCF)

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


def _return_weights(items_BL: Tensor) -> Tensor:
    """(B, L): j^−¼ of the j-th newest item, 0 for padding."""
    is_item_BL = items_BL != 0
    place_BL = is_item_BL.sum(dim=1, keepdim=True) - torch.arange(items_BL.shape[1], device=items_BL.device)
    return torch.where(is_item_BL, place_BL.clamp(min=1).float() ** -RETURN_EXPONENT, 0.0)


def _return_features(items_BC: Tensor, items_BL: Tensor) -> list[Tensor]:
    """Of each candidate, (B, C): its share of the history, how often it is in it and how long ago it was last."""
    is_same_BCL = ((items_BC[:, :, None] == items_BL[:, None, :]) & (items_BL != 0)[:, None, :]).float()
    weights_BL = _return_weights(items_BL)
    shares_BL = weights_BL / weights_BL.sum(dim=1, keepdim=True).clamp(min=1e-6)
    shares_BC = (is_same_BCL * shares_BL[:, None, :]).sum(dim=2)
    place_L = torch.arange(1, items_BL.shape[1] + 1, device=items_BL.device, dtype=torch.float32)
    # One that is not in the history was last there before it began.
    age_BC = (items_BL != 0).sum(dim=1, keepdim=True) - (is_same_BCL * place_L).amax(dim=2)
    return [shares_BC.clamp(min=LEAST_SHARE).log(), torch.log1p(is_same_BCL.sum(dim=2)), torch.log1p(age_BC)]


def _rule_shares(like_BV: Tensor, followers_BX: Tensor, weights_BX: Tensor) -> Tensor:
    """(B, V), of the size and type of `like_BV`: the weights by item, rows that sum to 1, or to 0 without rules."""
    # Not + ε: the exporter drops a small addend. A history without rules keeps the order of its attention.
    shares_BX = weights_BX / weights_BX.sum(dim=1, keepdim=True).clamp(min=1e-6)
    return torch.zeros_like(like_BV).scatter_add(1, followers_BX, shares_BX)
