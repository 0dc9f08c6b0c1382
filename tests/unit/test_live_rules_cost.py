"""What live rules cost is the median of rounds, written side by side."""

from scripts.benchmarks.live_rules_cost import cost_table
from scripts.benchmarks.serving.load import Load


def test_each_arm_is_the_median_of_its_rounds_and_failures_add_up() -> None:
    off = [Load(200, p50, 2 * p50, 4 * p50, 1, p50 / 10) for p50 in (1.0, 5.0, 2.0)]
    on = [Load(200, p50, 2 * p50, 4 * p50, 0, p50 / 10) for p50 in (3.0, 1.0, 9.0)]
    table = cost_table({"off": off, "on": on})
    assert "| live rules off | 200 | 2.00 | 4.00 | 8.00 | 3 | 0.200 |" in table
    assert "| live rules on | 200 | 3.00 | 6.00 | 12.00 | 0 | 0.300 |" in table
