"""The benchmark of filters runs, and the shares of items that its filters keep are those it was made with."""

from scripts.benchmarks.filters import FILTERS, measure


def test_filters_keep_the_shares_that_they_are_named_after() -> None:
    costs = measure(20_000, repeats=1)
    kept = {name: cost.kept_items / 20_000 for name, cost in costs.filters.items()}
    assert kept.keys() == FILTERS.keys()
    # Expected share ± 5 standard deviations of a binomial of 20,000.
    for name, share in {"category is one of 50": 0.02, "price below 1 %": 0.01, "one of 1,000 brands": 0.5}.items():
        assert abs(kept[name] - share) < 5 * (share * (1 - share) / 20_000) ** 0.5, name
    assert kept["one of 1,000 ids"] == 0.05
