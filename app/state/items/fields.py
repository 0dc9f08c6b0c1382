"""Which kinds of values the attributes of a catalogue hold, so that a slip does not make a second kind of one."""

from collections.abc import Mapping
from typing import Any

from app.state.filters import Kind, Scalar, element_of
from app.state.items.masks import ARTICLES, listed
from app.state.items.view import CatalogueView

MAX_FIELDS = 256
"""Attributes of different names in the whole catalogue; every one has its columns in every worker's memory."""


class FieldKinds:
    """The kinds as they are, and as they become by the items that were found to fit."""

    def __init__(self, view: CatalogueView) -> None:
        self._view = view
        self._counts: dict[str, dict[Kind, int]] = {}
        self._num_fields = len(view.num_elements)

    def misfits(self, item_id: str, attributes: Mapping[str, Any]) -> dict[str, str]:
        """What is wrong with which attribute. An item none of whose attributes is in it is counted from here on.

        A text that is a time fits in among strings as well as in among numbers. What the item itself holds now counts
        for nothing: the only item with an attribute may give it another kind.
        """
        index = self._view.index_of(item_id)
        own = self._view.attributes(index) if index is not None else {}
        found = {}
        new: list[tuple[str, dict[Kind, int]]] = []
        num_new_fields = 0
        for field, value in attributes.items():
            if value is None:
                continue
            counts = self._counts.get(field) or dict(self._view.num_elements.get(field, dict.fromkeys(Kind, 0)))
            if field not in self._view.num_elements and field not in self._counts:
                num_new_fields += 1
            held = {kind for kind, count in counts.items() if count > _count(own.get(field))[kind]}
            detail = _misfit(value, held)
            if detail is not None:
                found[field] = f"Field {field!r} {detail}"
            elif self._num_fields + num_new_fields > MAX_FIELDS:
                found[field] = f"Field {field!r} is one too many: the catalogue holds {MAX_FIELDS} different ones"
            else:
                more = _count(value)
                new.append((field, {kind: counts[kind] + more[kind] for kind in Kind}))
        if not found:
            self._counts.update(new)
            self._num_fields += num_new_fields
        return found


def _misfit(value: Any, held: set[Kind]) -> str | None:
    for part in _scalars(value):
        kind = element_of(part).kind
        if held and kind not in held and not (isinstance(part, str) and Kind.STRING in held):
            return f"holds {listed(held)} in other items, not {ARTICLES[kind]}"
    return None


def _count(value: Any) -> dict[Kind, int]:
    counts = dict.fromkeys(Kind, 0)
    for part in _scalars(value):
        counts[element_of(part).kind] += 1
    return counts


def _scalars(value: Any) -> list[Scalar]:
    return [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, str | int | float)]
