"""The benchmark of backfill runs, and what it measures is what it says."""

from scripts.benchmarks.backfill import measure


def test_each_way_stores_the_events_and_the_log_is_what_differs() -> None:
    posted, with_log, without_log = measure(3000).values()
    for cost in (posted, with_log, without_log):
        assert min(cost.seconds, cost.client_microseconds, cost.server_microseconds) > 0
    # docs/benchmarks/store.md: 184 bytes per event in the log.
    assert 100 < with_log.store_bytes - without_log.store_bytes < 300
    assert abs(posted.store_bytes - with_log.store_bytes) < 50
