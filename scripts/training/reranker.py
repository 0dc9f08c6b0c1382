"""A learned re-ranker: a small network that reorders the best candidates of the mixture by what else is known of them.

    log p'(c) = log p(c) + correction(features of c) + shift

for the C items with the largest p; the shift of each history keeps their probability together what it was, so the
rest of the catalogue stays where it is. Ten features of a candidate: what attention and the rules (all, and those of
the newest item alone) give to it and to their own favourites, how popular it is and how late in histories it comes,
how popular the newest item is and how long the history. Where the mixture counts on returns there are four more: the
candidate's share of the history, how often it is in it, how long ago it was last, and how readily people come back to
it. The correction is learnt with softmax cross-entropy over the
candidates (ListNet with one relevant item: Cao et al., "Learning to rank: from pairwise approach to listwise
approach", 2007) on an inner hold-out of the training part, which neither the attention model nor the rules that give
these features have seen.

Shapes: B batch, C candidates, F features, V catalogue with padding, H width.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.training.interactions import Interactions

CANDIDATES = 128
FEATURES = 10
WIDTH = 32
EPOCHS = 20
BATCH = 64
LEARNING_RATE = 8e-3
WEIGHT_DECAY = 0.01
LEAST_SHARE = 1e-5
LOWEST_LOGARITHM = -80.0
PRIOR_EVENTS = 2
"""In the middle of histories: what an item's lateness is mixed with, so that a single event says little."""


class Candidates(NamedTuple):
    """The best items of each history: indices int64, log p (−inf where there are fewer than C), features (B, C, F)."""

    items_BC: Tensor
    scores_BC: Tensor
    features_BCF: Tensor


class Reranker(nn.Module):
    """The correction of candidates from their features, which it standardises first."""

    def __init__(self, *, excludes_seen: bool, num_features: int = FEATURES) -> None:
        """excludes_seen: items of the history are no candidates, because they are not recommended again."""
        super().__init__()
        self.excludes_seen = excludes_seen
        self.mean_F: Tensor
        self.deviation_F: Tensor
        self.register_buffer("mean_F", torch.zeros(num_features))
        self.register_buffer("deviation_F", torch.ones(num_features))
        last = nn.Linear(WIDTH, 1)
        self.layers = nn.Sequential(nn.Linear(num_features, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.GELU(), last)
        # The mixture itself is where learning begins.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, candidates: Candidates) -> Tensor:
        """log p' (B, C); −inf where there is no candidate."""
        standard_BCF = (candidates.features_BCF - self.mean_F) / self.deviation_F
        correction_BC: Tensor = self.layers(standard_BCF).squeeze(-1)
        moved_BC = candidates.scores_BC + correction_BC
        return moved_BC + (_log_sum(candidates.scores_BC) - _log_sum(moved_BC))


def _log_sum(scores_BC: Tensor) -> Tensor:
    """(B, 1), finite even where no candidate is."""
    return torch.logsumexp(scores_BC, dim=1, keepdim=True).clamp(min=LOWEST_LOGARITHM)


def item_statistics(interactions: Interactions, num_items: int, *, with_returns: bool = False) -> NDArray[np.float32]:
    """float32 (V, 2), row = item index: log(1 + events), and how late in its users' histories the item comes on
    average, from −½ (always first) to ½ (always last); an item that nobody used has 0 and 0. With returns (V, 3): the
    share of its events that are not the first of their user as well.

    Where items come and go, what comes late is new, with a clock or without.
    """
    lengths = interactions.lengths
    places = np.arange(len(interactions)) - np.repeat(interactions.offsets[:-1], lengths)
    relative = places / np.repeat(np.maximum(lengths - 1, 1), lengths)
    counts_V = interactions.item_counts(num_items)
    sums_V = np.bincount(interactions.items, weights=relative - 0.5, minlength=num_items + 1)
    statistics = [np.log1p(counts_V), sums_V / (counts_V + PRIOR_EVENTS)]
    if with_returns:
        owners = np.repeat(np.arange(interactions.num_users), lengths)
        met = np.unique(owners * (num_items + 1) + interactions.items) % (num_items + 1)
        firsts_V = np.bincount(met, minlength=num_items + 1)
        statistics.append((counts_V - firsts_V) / (counts_V + PRIOR_EVENTS))
    return np.stack(statistics, axis=1).astype(np.float32)


def learn_reranker(candidates: Candidates, targets_B: Tensor, *, excludes_seen: bool, seed: int) -> Reranker | None:
    """A re-ranker from cases that the candidates' scores know nothing of; None where no target is a candidate.

    Args:
        candidates: of the cases' histories.
        targets_B: int64 (B,), item indices; a case whose target is no candidate teaches nothing.
        excludes_seen: whether the candidates are without the items of the histories.
        seed: of the initial weights and the order of cases.
    """
    is_target_BC = (candidates.items_BC == targets_B[:, None]) & candidates.scores_BC.isfinite()
    taught = is_target_BC.any(dim=1)
    if not taught.any():
        return None
    scores_BC, features_BCF = candidates.scores_BC[taught], candidates.features_BCF[taught]
    places_B = is_target_BC[taught].int().argmax(dim=1)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        reranker = Reranker(excludes_seen=excludes_seen, num_features=features_BCF.shape[2])
        of_items = features_BCF[scores_BC.isfinite()]
        reranker.mean_F.copy_(of_items.mean(dim=0))
        reranker.deviation_F.copy_(of_items.std(dim=0).clamp(min=1e-3))
        steps = EPOCHS * -(-len(places_B) // BATCH)
        optimizer = torch.optim.AdamW(reranker.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
        for _ in range(EPOCHS):
            for rows in torch.split(torch.randperm(len(places_B)), BATCH):
                batch = Candidates(candidates.items_BC[:0], scores_BC[rows], features_BCF[rows])
                loss = F.cross_entropy(reranker(batch), places_B[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
                optimizer.step()
                schedule.step()
    return reranker.eval()
