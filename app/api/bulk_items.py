"""POST /items: many items at once, each judged alone."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from app.api.many import UnreadableLine, read_many
from app.api.problems import faults_of, pointer_part
from app.api.schemas.items import BulkItemBody
from app.artifacts.registry import LiveModel
from app.errors import CatalogueFull, Fault, InvalidRequest, PayloadTooLarge, ProblemCode
from app.state.catalogue import Catalogue, FieldKinds, ItemRecord, PutOutcome
from app.telemetry import Telemetry

TURN = 200
"""After so many items of a large batch other requests have their turn."""
NOT_IN_MODEL = "The live model has not learnt these items; they are in the catalogue all the same."


@dataclass(slots=True)
class Batch:
    """The items of one request: those to put, with their places in it, and the faults of the others by place."""

    records: list[tuple[str, ItemRecord]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    rejected: dict[int, Fault] = field(default_factory=dict)


async def put_many(
    catalogue: Catalogue, live: LiveModel | None, telemetry: Telemetry, media_type: str, raw: bytes, *, max_items: int
) -> dict[str, Any]:
    """`ItemsPutAnswer` as a dictionary.

    Raises:
        InvalidRequest: the body has another shape, or all of its items are bad.
        PayloadTooLarge: there are more than `max_items`.
        StoreUnavailable: some may have been put.
    """
    found, base = read_many(media_type, raw, "items")
    if len(found) > max_items:
        raise PayloadTooLarge(f"The batch has {len(found)} items, at most {max_items} are taken; send it in parts.")
    batch = await check(found, base, FieldKinds(catalogue.view(live)))
    outcomes = await catalogue.put(batch.records) if batch.records else []
    for place, outcome in zip(batch.places, outcomes, strict=True):
        if outcome is PutOutcome.FULL:
            full = CatalogueFull()
            batch.rejected[place] = Fault(full.detail, base.format(place), code=full.code)
    for outcome in PutOutcome:
        telemetry.items(outcome, outcomes.count(outcome))
    telemetry.items("rejected", len(found) - len(outcomes))
    if batch.rejected and len(batch.rejected) == len(found):
        faults = [batch.rejected[place] for place in sorted(batch.rejected)]
        detail = f"All {len(faults)} items were rejected; errors holds the first fault of each."
        raise InvalidRequest(detail, faults=faults, code=ProblemCode.ALL_ITEMS_REJECTED)
    new = [
        place
        for place, (item_id, _) in zip(batch.places, batch.records, strict=True)
        if live is not None and item_id not in live.vocabulary and place not in batch.rejected
    ]
    return {
        "accepted": outcomes.count(PutOutcome.PUT),
        "unchanged": outcomes.count(PutOutcome.UNCHANGED),
        "rejected": [
            {"index": place, "code": fault.code, "detail": fault.detail, "pointer": fault.pointer}
            for place, fault in sorted(batch.rejected.items())
        ],
        "warnings": [{"code": "not_in_model", "detail": NOT_IN_MODEL, "indices": new}] if new else [],
    }


async def check(found: list[object], base: str, kinds: FieldKinds) -> Batch:
    """Sort the good items from the bad. `base` is the pointer of an item, with {} for its place."""
    batch = Batch()
    for place, value in enumerate(found):
        if place % TURN == TURN - 1:
            await asyncio.sleep(0)
        result = check_one(value, base.format(place), kinds)
        if isinstance(result, Fault):
            batch.rejected[place] = result
        else:
            batch.records.append(result)
            batch.places.append(place)
    return batch


def check_one(value: object, pointer: str, kinds: FieldKinds) -> tuple[str, ItemRecord] | Fault:
    if isinstance(value, UnreadableLine):
        return Fault(value.detail, pointer, code=ProblemCode.INVALID_JSON)
    try:
        body = BulkItemBody.model_validate(value)
    except ValidationError as error:
        fault = faults_of(error.errors(include_url=False, include_input=False)[:1], value, pointer)[0]
        return Fault(fault.detail, fault.pointer, code=ProblemCode.INVALID_REQUEST)
    for name, detail in kinds.misfits(body.item_id, body.attributes).items():
        return Fault(detail, f"{pointer}/attributes/{pointer_part(name)}", code=ProblemCode.INVALID_REQUEST)
    return body.item_id, ItemRecord(body.attributes, body.available, replaces=True)
