"""A sensible experiment for data that no one tuned it for, chosen from what can be counted."""

from dataclasses import dataclass

import numpy as np

from scripts.training.attributes import learn_attribute_values
from scripts.training.config import TrainingConfig
from scripts.training.interactions import PreparedData

FULL_CATALOGUE_LIMIT = 20_000
"""Items up to which the loss is taken over all of them; beyond, the product of states and catalogue is most of the
work."""
RARE_ITEMS = 30
"""Events per item below which the mean of two models is taken: on Beauty (13) .0846 of NDCG@10 on validation where one
has .0835, and .0688 ± .0005 on test where one has .0685 ± .0010."""
RULES_LIMIT = 100_000
"""Items up to which 100 rules each, 8 bytes a rule, stay below 80 MB of the artifact."""
MANY_EVENTS = 30
"""Events that a model reads from which on it is told how far apart two of them are: that helps on MovieLens 100K by
time and on 1M, where it reads 40 and 200, and not on Beauty, where it reads 20."""
STEPS_PER_POSITION = 2_000
"""Steps to learn from for each position that the model reads: MovieLens 100K does better with 50 positions than with
100."""
MAX_EPOCHS = 100
STEPS_BUDGET = 30_000_000
"""Steps from item to item that the training of one model may take: about an hour of one core (MovieLens 1M, beside
another training), more is left to --config."""

REASONS_OF_SAMPLING = {
    "negatives": "by number of events: attention alone finds an eighth more on Complete Journey than with uniform ones",
    "logq_correction": "popular items are drawn often: without it they would be pushed down",
}
"""What only a sampled loss has to say."""


@dataclass(frozen=True)
class DataStatistics:
    """What the recipe looks at, counted over the training part.

    `num_steps` is the number of steps from one item of a user to the next; `median_history` and `long_history` are the
    lengths that half and nine of ten users (of those with two events or more) do not exceed, `events_per_item` a mean,
    `share_of_repeats` that of events whose item the user had before; `has_clock` is false where times are only an
    order; `num_attribute_values` are those that several items share.
    """

    num_items: int
    num_steps: int
    long_history: int
    events_per_item: float
    median_history: int = 2
    share_of_repeats: float = 0.0
    has_clock: bool = False
    num_attribute_values: int = 0

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.num_items:,} items of {self.events_per_item:.1f} events each, histories of {self.median_history} "
            f"events (median) and {self.long_history} (nine of ten), {self.share_of_repeats:.1%} repeats, times are "
            f"{'a clock' if self.has_clock else 'an order without a clock'}, {self.num_attribute_values:,} attribute "
            "values that several items share"
        )


def count(data: PreparedData) -> DataStatistics:
    lengths = data.train.lengths[data.train.lengths >= 2]
    median, long = np.quantile(lengths, [0.5, 0.9]) if len(lengths) else (2, 2)
    owners = np.repeat(np.arange(data.train.num_users), data.train.lengths)
    num_pairs = len(np.unique(owners * (data.num_items + 1) + data.train.items))
    return DataStatistics(
        num_items=data.num_items,
        num_steps=int((lengths - 1).sum()),
        long_history=int(long),
        events_per_item=len(data.train) / data.num_items,
        median_history=int(median),
        share_of_repeats=1 - num_pairs / max(len(data.train), 1),
        has_clock=data.has_clock,
        num_attribute_values=len(learn_attribute_values(data.attributes)),
    )


def choose_recipe(statistics: DataStatistics) -> tuple[TrainingConfig, dict[str, str]]:
    """A configuration and, for each value that the data decided or that is not the default, the reason; differences in
    it are of NDCG@10 on validation."""
    max_length = min(200, statistics.long_history, max(10, statistics.num_steps // STEPS_PER_POSITION))
    max_length = max(10, -(-max_length // 10) * 10)
    reads_many = max_length >= MANY_EVENTS
    # About 100 steps of the optimizer per epoch, more where data are large: fewer leave short trainings unfinished.
    batch_tokens = min(8192, max(512, 2 ** round(np.log2(max(statistics.num_steps / 100, 1)))))
    dropout = 0.5 if statistics.events_per_item < 100 else 0.2
    is_sparse = statistics.events_per_item < RARE_ITEMS
    is_small = statistics.num_items <= FULL_CATALOGUE_LIMIT
    max_epochs = min(MAX_EPOCHS, max(5, STEPS_BUDGET // max(statistics.num_steps, 1)))
    is_large = max_epochs < MAX_EPOCHS
    config = TrainingConfig(
        max_length=max_length,
        dim=128 if is_small else 64,
        batch_tokens=batch_tokens,
        dropout=dropout,
        position_bias=reads_many,
        attention_dropout=0.2 if reads_many else 0.0,
        temporal="conv",
        attributes="embedding" if statistics.num_attribute_values else "none",
        head="residual",
        loss="cross_entropy" if is_small else "sampled_softmax",
        num_negatives=1024,
        negatives="uniform" if is_small else "popularity",
        logq_correction=not is_small,
        learning_rate=3e-3,
        weight_decay=0.3,
        average_decay=0.998,
        max_epochs=max_epochs,
        patience=10 if is_large else 5,
        followers=100 if statistics.num_items <= RULES_LIMIT else 20,
        members=2 if is_sparse and is_small else 1,
        rerank=statistics.num_items <= RULES_LIMIT,
    )
    return config, {
        "max_length": f"9 of 10 histories have at most {statistics.long_history} events; at most 200, "
        f"and one position for every {STEPS_PER_POSITION:,} steps to learn from",
        "dim": "what the catalogue's size leaves time for",
        "batch_tokens": f"about {max(1, round(statistics.num_steps / batch_tokens)):,} batches of the "
        f"{statistics.num_steps:,} steps per epoch",
        "dropout": f"{statistics.events_per_item:.1f} events per item: the fewer, the more dropout",
        "num_negatives": "of sampled losses: this one is taken over every item"
        if is_small
        else "shared by all of a batch",
        "position_bias": "how many steps lie between two of many events: .0014 better on MovieLens 100K by time"
        if reads_many
        else "few events are read: on Beauty the same with and without",
        "attention_dropout": "many events to mix: attention alone .0014 better on MovieLens 100K by time, all .0005"
        if reads_many
        else "few events to mix: on Beauty the same with and without",
        "time_bias": "for .0008 (MovieLens 100K by time) a service would need the time of every event"
        if statistics.has_clock
        else "times are an order: there is no interval to learn from",
        "temporal": "the last few items as a pattern: as good or better wherever it was tried",
        "attributes": f"{statistics.num_attribute_values:,} values that several items share"
        if statistics.num_attribute_values
        else "no value that several items share",
        "loss": f"{statistics.num_items:,} items: {'all' if is_small else 'a sample'} of them against each target",
        "learning_rate": "for all data: a third of it came to the same on Beauty in twice the epochs",
        "weight_decay": "for all data: from .01 to 1 nothing is told apart",
        "average_decay": "for all data: some 500 steps; no average lost .0036 on MovieLens 1M, a shorter one nothing",
        "patience": f"of {max_epochs} epochs at most: waiting costs little, and 5 ended Complete Journey half-way"
        if is_large
        else "to save time: on small data what came after four epochs or five was better by .0004 at most",
        "followers": f"rules for {statistics.num_items:,} items; validation decides their share",
        "members": "rare items: the mean of two models ranks them a hundredth better on validation"
        if is_sparse and is_small
        else "one model: a second costs as much again",
        "rerank": f"{statistics.num_items:,} items: the best of them are found without an index; validation decides"
        if statistics.num_items <= RULES_LIMIT
        else f"left out above {RULES_LIMIT:,} items, not far from where an index ranks without it (200,000)",
        "max_epochs": f"at most {STEPS_BUDGET:,} steps in all, of each model",
        **({} if is_small else REASONS_OF_SAMPLING),
    }
