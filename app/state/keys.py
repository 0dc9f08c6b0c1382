"""Where everything lies in the store: key names and the shard of an owner."""

from dataclasses import dataclass
from hashlib import sha1
from typing import Literal
from zlib import crc32


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose history it is: a user's or a guest's. A user and a guest of the same id never meet."""

    kind: Literal["user", "session"]
    id: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> "Owner":
        """
        >>> Owner.parse("session:a:b")
        Owner(kind='session', id='a:b')
        """
        kind, _, owner_id = text.partition(":")
        if kind == "user":
            return cls("user", owner_id)
        if kind == "session":
            return cls("session", owner_id)
        raise ValueError(f"an owner is user:… or session:…, found {text!r}")

    @classmethod
    def of_caller(cls, user_id: str | None, session_id: str | None) -> "Owner":
        """Of the two ids that a request may give, the one that it gave.

        Raises:
            ValueError: it gave neither.
        """
        if user_id is not None:
            return cls("user", user_id)
        if session_id is not None:
            return cls("session", session_id)
        raise ValueError("an owner has a user_id or a session_id")

    def digest(self, store_id: str) -> str:
        """What stands for the owner where the store must not hold its name: 40 hex digits, other ones in each store.

        SHA-1, since scripts inside the store have no other; nobody gains from an owner of the same digest.
        """
        return sha1(f"{store_id} {self}".encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one namespace.

    All keys of a shard carry the shard's number as hash tag, so that one script may touch them on a cluster as well:

    >>> Keys("default", 16).history(Owner("user", "u42"))
    'default:{4}:history:user:u42'
    """

    namespace: str
    shards: int

    def shard_of(self, owner: object) -> int:
        """0…shards-1, from the CRC-32 of the owner's text, `user:u42`."""
        return crc32(str(owner).encode()) % self.shards

    def history(self, owner: Owner) -> str:
        return self._of_owner("history", owner)

    def counted(self, owner: Owner) -> str:
        """Identities of events that do not enter the history."""
        return self._of_owner("counted", owner)

    def merged(self, owner: Owner) -> str:
        """Which parts of other owners' log entries are this owner's since a merge; see `merging.py`."""
        return self._of_owner("merged", owner)

    def expected(self, owner: Owner) -> str:
        """Whose histories are on their way to this owner."""
        return self._of_owner("expected", owner)

    def last_merge(self, owner: Owner) -> str:
        """The log position up to which this owner's entries belong to others."""
        return self._of_owner("last_merge", owner)

    def detached(self, owner: Owner) -> tuple[str, str, str]:
        """Where `history`, `counted` and `merged` wait while they are merged into another owner's."""
        history, counted, merged = (
            self._of_owner(f"detached_{name}", owner) for name in ("history", "counted", "merged")
        )
        return history, counted, merged

    def erasing(self, owner: Owner) -> tuple[str, str]:
        """What `merged` and `expected` held when the owner's erasure began, until it is complete."""
        return self._of_owner("erasing_merged", owner), self._of_owner("erasing_expected", owner)

    def lists(self, owner: Owner | str) -> str:
        """Lists that the owner is shown page by page; one that was made for nobody goes by its name."""
        return self._of_owner("lists", owner)

    def under_way(self, shard: int) -> str:
        """The shard's unfinished merges, by source."""
        return f"{self.namespace}:{{{shard}}}:merges_under_way"

    def erased(self, shard: int) -> str:
        """Which log entries of the shard are erased, for `collect` to erase them from its files as well."""
        return f"{self.namespace}:{{{shard}}}:erased"

    def events(self, shard: int) -> str:
        return f"{self.namespace}:{{{shard}}}:events"

    def popularity(self, shard: int) -> str:
        return f"{self.namespace}:{{{shard}}}:popularity"

    def trending(self, shard: int) -> str:
        return f"{self.namespace}:{{{shard}}}:trending"

    @property
    def items(self) -> tuple[str, str, str]:
        """Of the catalogue: the records by item id, the log of their changes, the number of the last change."""
        records, changes, revision = (
            f"{self.namespace}:{{items}}:{name}" for name in ("records", "changes", "revision")
        )
        return records, changes, revision

    def bookmark(self, name: str) -> str:
        return f"{self.namespace}:bookmark:{name}"

    @property
    def meta(self) -> str:
        return f"{self.namespace}:meta"

    def _of_owner(self, name: str, owner: Owner | str) -> str:
        return f"{self.namespace}:{{{self.shard_of(owner)}}}:{name}:{owner}"
