"""How much a service of yours can take: requests that come ever faster, whether or not it keeps up.

python -m scripts.load_test --url http://127.0.0.1:8000

A quarter of the users makes most of the requests. Their ids begin with `load-test-`, and what they post is written to
the store and its event log like any other event: run it against a namespace of its own, or with --share-of-events 0.
"""

import argparse
import ipaddress
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from scripts.benchmarks.open_loop import ramp_moments, run_open_loop
from scripts.benchmarks.ramp import plot, seconds_of, sustained_rate
from scripts.benchmarks.traffic import Traffic

MAX_RATE = 10_000
MAX_SECONDS = 600
MAX_UNANSWERED = 500
"""So far behind, a service has shown what it cannot do."""
MAX_ITEMS = 1000
MAX_LAG_MS = 10
"""A client that comes so much later to a request than it should is itself what is slow."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 when the whole ramp was answered, 1 when not, 2 where it cannot run."""
    options = _parser().parse_args(arguments)
    try:
        _require_permission(options.url, options.remote)
        headers = dict(options.header)
        item_ids = _item_ids(options.url, headers)
        users = [f"load-test-{number}" for number in range(options.users)]
        traffic = Traffic(users, item_ids, options.share_of_events, options.k)
        samples = run_open_loop(
            options.url,
            traffic.calls(),
            ramp_moments(options.rate, options.seconds),
            headers=headers,
            max_unanswered=MAX_UNANSWERED,
        )
    except (OSError, ValueError) as error:
        print(f"load_test: {error}", file=sys.stderr)
        return 2
    seconds = seconds_of(samples)
    print(f"{'second':>6}{'requests':>10}{'p50 ms':>9}{'p90 ms':>9}{'p99 ms':>9}{'failed':>8}")
    for second in seconds:
        print(
            f"{second.number:6}{second.num_requests:10,}{second.p50_ms:9.1f}{second.p90_ms:9.1f}"
            f"{second.p99_ms:9.1f}{second.num_failed:8,}"
        )
    if samples.lag_p99_ms > MAX_LAG_MS:
        print(f"This client was up to {samples.lag_p99_ms:.0f} ms late itself: run it on another machine.")
    is_whole = seconds[-1].number >= options.seconds - 1
    if not is_whole:
        print(f"Stopped: {MAX_UNANSWERED} requests were without an answer.")
    rate = sustained_rate(seconds, options.p90_ms)
    print(f"Sustained within a p90 of {options.p90_ms:g} ms: {rate:,.0f} requests/s")
    if options.plot is not None:
        plot(seconds, options.p90_ms, options.plot)
        print(options.plot)
    return 0 if is_whole and not samples.num_failed else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.load_test",
        description="Requests that come ever faster, from users of whom few do much.",
        epilog="Posts events of users load-test-…; they stay in the store of that namespace.",
    )
    parser.add_argument("--url", required=True, help="http(s)://host:port of a running service")
    parser.add_argument("--rate", type=_bounded(MAX_RATE), default=200, metavar="N",
                        help=f"requests/s at the end, at most {MAX_RATE} (default %(default)s)")  # fmt: skip
    parser.add_argument("--seconds", type=_bounded(MAX_SECONDS), default=30, metavar="N",
                        help=f"length of the ramp, at most {MAX_SECONDS} (default %(default)s)")  # fmt: skip
    parser.add_argument("--users", type=_bounded(1_000_000), default=1000, metavar="N", help="default %(default)s")
    parser.add_argument("--share-of-events", type=float, default=0.2, metavar="S", help="0 to 1, default %(default)s")
    parser.add_argument("--k", type=_bounded(500), default=10, metavar="N", help="items asked for, default %(default)s")
    parser.add_argument("--p90-ms", type=float, default=50.0, metavar="MS",
                        help="a second within this, without failures, is sustained (default %(default)s)")  # fmt: skip
    parser.add_argument("--header", type=_header, action="append", default=[], metavar="'NAME: VALUE'",
                        help="goes with every request, say an Authorization; repeatable")  # fmt: skip
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a picture: FILE.svg, .png or .pdf")
    parser.add_argument("--remote", action="store_true",
                        help="the host is not this machine, and I may load it: without this it is refused")  # fmt: skip
    return parser


def _bounded(largest: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if not 1 <= value <= largest:
            raise argparse.ArgumentTypeError(f"must be 1 to {largest}, found {value}")
        return value

    return number


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or "\n" in text:
        raise argparse.ArgumentTypeError(f"must be NAME: VALUE, found {text!r}")
    return name.strip(), value.strip()


def _require_permission(url: str, is_remote_allowed: bool) -> None:
    """Raises ValueError for a host that is not this machine, unless the caller may load it."""
    host = urlsplit(url).hostname or ""
    try:
        is_here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = host == "localhost"
    if not is_here and not is_remote_allowed:
        raise ValueError(f"{host or url!r} is not this machine; if it is yours to load, say --remote")


def _item_ids(url: str, headers: Mapping[str, str]) -> list[str]:
    """The first items of the service's catalogue.

    Raises:
        ValueError: it has none.
    """
    item_ids: list[str] = []
    cursor = None
    while len(item_ids) < MAX_ITEMS:
        query = urlencode({"limit": 100} | ({"cursor": cursor} if cursor else {}))
        request = urllib.request.Request(f"{url.rstrip('/')}/items?{query}", headers=dict(headers))  # noqa: S310  the caller's own URL
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  as above
                page = json.load(answer)
        except urllib.error.HTTPError as error:
            raise ValueError(f"GET /items answered {error.code}") from error
        item_ids += [item["item_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    if not item_ids:
        raise ValueError("the service has no items to ask for; promote a version first")
    return item_ids


if __name__ == "__main__":
    sys.exit(main())
