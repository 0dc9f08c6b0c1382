"""What the store keeps of one item that was changed live, and how that lies over what the artifact says of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from app.state.filters import AVAILABLE


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """The live half of an item.

    attributes: over those of the artifact; null hides the artifact's.
    replaces: nothing of the artifact's attributes shows through.
    available: None: what the artifact says, and it is available where that says nothing.
    deleted: there is no such item, whatever an artifact knows.
    """

    attributes: Mapping[str, Any] = field(default_factory=dict)
    available: bool | None = None
    replaces: bool = False
    deleted: bool = False

    def encode(self) -> bytes:
        """JSON; equal records are equal bytes."""
        parts: dict[str, Any] = {"attributes": self.attributes} if self.attributes else {}
        if self.available is not None:
            parts["available"] = self.available
        if self.replaces:
            parts["replaces"] = True
        if self.deleted:
            parts["deleted"] = True
        return orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)

    @classmethod
    def decode(cls, data: bytes) -> "ItemRecord":
        return cls(**orjson.loads(data))

    def over(self, base: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """The attributes in force and whether the item is available; `base` is what the artifact says."""
        if self.deleted:
            return {}, False
        if self.replaces:
            return dict(self.attributes), self.available is not False
        attributes = {name: value for name, value in {**base, **self.attributes}.items() if value is not None}
        base_available = attributes.pop(AVAILABLE, None)
        return attributes, base_available is not False if self.available is None else self.available

    def patched(self, attributes: Mapping[str, Any], available: bool | None) -> "ItemRecord":
        """With the named attributes changed; null removes one."""
        changed = {**self.attributes, **attributes}
        if self.replaces:
            changed = {name: value for name, value in changed.items() if value is not None}
        return ItemRecord(changed, self.available if available is None else available, self.replaces)


UNCHANGED = ItemRecord()
DELETED = ItemRecord(deleted=True)
