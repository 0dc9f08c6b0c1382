"""Item ids outside, item indices inside: the bijection and the attributes that travel with an artifact."""

import bisect
import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from app.errors import ArtifactError


class ItemVocabulary:
    """Item id ↔ item index, 1…num_items in the order of `ids`; 0 is padding and belongs to no item."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = tuple(ids)
        self._indices = {item_id: index for index, item_id in enumerate(self._ids, start=1)}
        if len(self._indices) != len(self._ids):
            raise ArtifactError(f"the vocabulary repeats {len(self._ids) - len(self._indices)} item ids")

    @classmethod
    def read(cls, path: Path) -> "ItemVocabulary":
        ids = orjson.loads(path.read_bytes())
        if not isinstance(ids, list) or not all(isinstance(item_id, str) for item_id in ids):
            raise ArtifactError(f"{path} must hold a JSON array of item ids")
        return cls(ids)

    def write(self, path: Path) -> None:
        path.write_bytes(orjson.dumps(self._ids))

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._indices

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def index_of(self, item_id: str) -> int | None:
        return self._indices.get(item_id)

    def id_of(self, item_index: int) -> str:
        """Raises IndexError for 0 and for anything above num_items."""
        if item_index < 1:
            raise IndexError(item_index)
        return self._ids[item_index - 1]


class ItemAttributes:
    """Attributes by item index, read from a memory-mapped file whose line i is the JSON object of item index i."""

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()[:0] if path.stat().st_size == 0 else _map(path)
        self._content = content
        newlines = (
            np.flatnonzero(np.frombuffer(content, dtype=np.uint8) == ord("\n"))
            if len(content)
            else np.empty(0, np.int64)
        )
        self._ends = newlines

    @staticmethod
    def write(path: Path, attributes: Iterable[Mapping[str, Any]]) -> None:
        with path.open("wb") as file:
            for item in attributes:
                file.write(orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, item_index: int) -> dict[str, Any]:
        """Raises IndexError for 0 and for anything above num_items."""
        if not 1 <= item_index <= len(self._ends):
            raise IndexError(item_index)
        start = int(self._ends[item_index - 2]) + 1 if item_index > 1 else 0
        item: dict[str, Any] = orjson.loads(self._content[start : int(self._ends[item_index - 1])])
        return item

    def of_range(self, start: int, stop: int) -> list[dict[str, Any]]:
        """The items of the indices `start` … `stop - 1`, read in one go. Raises IndexError like a single one."""
        if not 1 <= start <= stop <= len(self._ends) + 1:
            raise IndexError((start, stop))
        first = int(self._ends[start - 2]) + 1 if start > 1 else 0
        last = int(self._ends[stop - 2]) if stop > start else first
        items: list[dict[str, Any]] = orjson.loads(b"[" + self._content[first:last].replace(b"\n", b",") + b"]")
        return items

    @cached_property
    def _titles(self) -> list[tuple[str, int]]:
        titles = ((self[index].get("title"), index) for index in range(1, len(self) + 1))
        return sorted((title.casefold(), index) for title, index in titles if isinstance(title, str))

    def find_title(self, prefix: str) -> Iterator[int]:
        """Item indices whose `title` begins with `prefix`, whatever the case, by title and then by index."""
        prefix = prefix.casefold()
        start = bisect.bisect_left(self._titles, (prefix, 0))
        for title, index in self._titles[start:]:
            if not title.startswith(prefix):
                return
            yield index


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
