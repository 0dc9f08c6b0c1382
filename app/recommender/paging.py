"""A ranked list page by page: cut from one list that is kept, whatever happens meanwhile."""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NoBase64
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import compress, islice
from typing import Protocol, cast

import numpy as np

from app.errors import CursorExpired, Fault, InvalidRequest, StoreUnavailable
from app.recommender.recommender import Recommender
from app.recommender.requests import RankedItem, Reason, Recommendation, RecommendationRequest, Strategy
from app.state.kept_lists import NAME_LENGTH, KeptList, Place
from app.state.keys import Owner

MAX_LISTED = 500
"""Items of a list that is kept."""
_OFFSET_LENGTH = 2
_SEAL_LENGTH = 8
CURSOR_BYTES = NAME_LENGTH + _OFFSET_LENGTH + _SEAL_LENGTH


class Lists(Protocol):
    """Where lists are kept. Both raise StoreUnavailable."""

    async def keep(self, owner: Owner | None, kept: KeptList) -> Place: ...

    async def read(self, owner: Owner | None, name: bytes) -> tuple[KeptList, Place] | None: ...


@dataclass(frozen=True, slots=True)
class NextPage:
    """What is asked of a list that was begun. `owner` is the one that it was made for, None for a given history.

    k: items of this page; None: as many as of the first one.
    """

    owner: Owner | None
    cursor: str
    k: int | None
    include_attributes: bool


class Paging:
    """Gives the pages of lists that a recommender makes."""

    def __init__(self, recommender: Recommender, lists: Lists) -> None:
        self._recommender = recommender
        self._lists = lists

    async def first(self, request: RecommendationRequest) -> Recommendation:
        """The first `k` of the best 500, and a cursor to the others where there are any.

        Always answers, like `Recommender.recommend`; without a cursor where the store cannot keep the list.

        Raises:
            InvalidRequest: a filter does not fit the catalogue.
        """
        whole = await self._recommender.rank(replace(request, k=MAX_LISTED, include_attributes=False))
        reasons = tuple(reason for reason in whole.reasons if reason is not Reason.SHORT_CATALOGUE)
        kept = KeptList(
            whole.recommendation_id,
            whole.strategy,
            reasons,
            whole.model_version,
            whole.history_length,
            request.k,
            tuple(item.item_id for item in whole.items),
            np.array([item.score for item in whole.items], dtype=np.float32),
        )
        place = None
        if len(kept.item_ids) > request.k:
            try:
                place = await self._lists.keep(request.owner, kept)
            except StoreUnavailable:
                if Reason.STORE_UNAVAILABLE not in reasons:
                    kept = replace(kept, reasons=(Reason.STORE_UNAVAILABLE, *reasons))
        return self._page(kept, place, 0, request.k, request.owner, request.include_attributes)

    async def next(self, asked: NextPage) -> Recommendation:
        """The page behind the one that the cursor came with.

        Raises:
            InvalidRequest: this is no cursor of ours, or it was changed.
            CursorExpired: this owner has no such list, or has it no longer.
            StoreUnavailable: the store does not answer.
        """
        name, offset, seal = _parse(asked.cursor)
        found = await self._lists.read(asked.owner, name)
        if found is None:
            raise CursorExpired
        kept, place = found
        if not hmac.compare_digest(seal, _seal(place, offset, asked.owner)):
            raise _no_cursor()
        return self._page(kept, place, offset, asked.k or kept.page_size, asked.owner, asked.include_attributes)

    def _page(
        self, kept: KeptList, kept_at: Place | None, offset: int, k: int, owner: Owner | None, include_attributes: bool
    ) -> Recommendation:
        """What was deleted or became unavailable since the list was made is passed over; others keep their ranks."""
        size = len(kept.item_ids)
        are_available = self._recommender.are_available(kept.item_ids[offset:])
        places = list(islice(compress(range(offset, size), are_available), k))
        end = places[-1] + 1 if len(places) == k else size
        reasons = tuple(Reason(reason) for reason in kept.reasons)
        if len(places) < k:
            reasons = (*reasons, Reason.SHORT_CATALOGUE)
        item_ids, scores = [kept.item_ids[place] for place in places], kept.scores[places].tolist()
        attributes = self._recommender.attributes(item_ids) if include_attributes else [None] * len(item_ids)
        ranks = [place + 1 for place in places]
        page = Recommendation(
            recommendation_id=kept.recommendation_id,
            strategy=cast(Strategy, kept.strategy),
            degraded=Reason.STORE_UNAVAILABLE in reasons,
            reasons=reasons,
            model_version=kept.model_version,
            history_length=kept.history_length,
            items=tuple(RankedItem(*item) for item in zip(item_ids, ranks, scores, attributes, strict=True)),
            next_cursor=_cursor(kept_at, end, owner) if kept_at is not None and end < size else None,
        )
        self._recommender.log(owner, page)
        return page


def _cursor(place: Place, offset: int, owner: Owner | None) -> str:
    """The list's name, where the next page begins, and a seal over both and the owner."""
    raw = place.name + offset.to_bytes(_OFFSET_LENGTH) + _seal(place, offset, owner)
    return urlsafe_b64encode(raw).decode().rstrip("=")


def _seal(place: Place, offset: int, owner: Owner | None) -> bytes:
    sealed = place.name + offset.to_bytes(_OFFSET_LENGTH) + str(owner or "").encode()
    return blake2b(sealed, key=place.secret, digest_size=_SEAL_LENGTH).digest()


def _parse(cursor: str) -> tuple[bytes, int, bytes]:
    try:
        raw = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
    except (UnicodeEncodeError, NoBase64):
        raise _no_cursor() from None
    if len(raw) != CURSOR_BYTES or urlsafe_b64encode(raw).decode().rstrip("=") != cursor:
        raise _no_cursor()
    name, rest = raw[:NAME_LENGTH], raw[NAME_LENGTH:]
    return name, int.from_bytes(rest[:_OFFSET_LENGTH]), rest[_OFFSET_LENGTH:]


def _no_cursor() -> InvalidRequest:
    fault = Fault("Must be a next_cursor as it was answered to the same caller", "/cursor")
    return InvalidRequest("The body breaks the contract.", faults=[fault])
