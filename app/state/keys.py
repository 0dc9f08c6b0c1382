"""Where everything lies in the store: key names and the shard of an owner."""

from dataclasses import dataclass
from typing import Literal
from zlib import crc32


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose history it is: a user's or a guest's. A user and a guest of the same id never meet."""

    kind: Literal["user", "session"]
    id: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}"


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
        return f"{self.namespace}:{{{self.shard_of(owner)}}}:history:{owner}"

    def counted(self, owner: Owner) -> str:
        return f"{self.namespace}:{{{self.shard_of(owner)}}}:counted:{owner}"

    def events(self, shard: int) -> str:
        return f"{self.namespace}:{{{shard}}}:events"

    def popularity(self, shard: int) -> str:
        return f"{self.namespace}:{{{shard}}}:popularity"

    @property
    def meta(self) -> str:
        return f"{self.namespace}:meta"
