"""Who needs which blob, how many bytes that is, and which blob may go first. No input and output."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from paglets.artifacts.errors import NoRoomError
from paglets.artifacts.known import Stamp

#: Transfers that hold blobs at the same time, and blobs that one of them holds.
MOST_HOLDERS: Final = 10_000
MOST_HELD: Final = 200_000


@dataclass(slots=True)
class Entry:
    """One blob that lies in the store."""

    sha256: str
    stamp: Stamp
    """Of the file as it was when its bytes were last known to be right."""
    durable: bool
    verified: bool
    """Whether its bytes are known to be right; a blob of an earlier run that was not synced is not."""

    @property
    def size(self) -> int:
        """Return its length in bytes."""
        return self.stamp.size


@dataclass(slots=True)
class _Hold:
    expires_at: float
    wanted: set[str] = field(default_factory=set)


class Ledger:
    """Blobs in the store, the artifacts that keep them and the transfers that hold them.

    A blob may be wanted before it is here and after it has gone. What is here and wanted by nobody is *cache*. Not
    safe for threads by itself.
    """

    def __init__(self) -> None:
        self.used_bytes = 0
        """Bytes of all blobs here."""
        self.cached_bytes = 0
        """Bytes of those that nobody wants."""
        self._entries: dict[str, Entry] = {}
        self._owners: dict[str, set[str]] = {}
        self._holds: dict[str, _Hold] = {}
        self._held: dict[str, set[str]] = {}
        self._cache: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    # blobs

    def get(self, sha256: str) -> Entry | None:
        """Return a blob that is here."""
        return self._entries.get(sha256)

    def add(self, entry: Entry) -> None:
        """Take in a blob, in the place of one that is here already."""
        self.remove(entry.sha256)
        self._entries[entry.sha256] = entry
        self.used_bytes += entry.size
        self._settle(entry.sha256)

    def remove(self, sha256: str) -> None:
        """Know that a blob is here no longer; who wants it still does."""
        if (entry := self._entries.pop(sha256, None)) is None:
            return
        self.used_bytes -= entry.size
        if sha256 in self._cache:
            del self._cache[sha256]
            self.cached_bytes -= entry.size

    def restamp(self, entry: Entry, stamp: Stamp) -> None:
        """Take note that the file of a blob was touched, but not its bytes."""
        if stamp.size != entry.size:
            raise ValueError("the bytes of a blob never change")
        entry.stamp = stamp

    def touch(self, sha256: str) -> None:
        """Take note that a blob is used."""
        if sha256 in self._cache:
            self._cache.move_to_end(sha256)

    def coldest(self) -> Entry | None:
        """Return the blob of the cache that was not used for the longest time."""
        return self._entries[next(iter(self._cache))] if self._cache else None

    def unsynced(self) -> list[Entry]:
        """Return the blobs that artifacts keep and that are not known to be on disk."""
        return [entry for sha256 in self._owners if (entry := self._entries.get(sha256)) and not entry.durable]

    # who wants them

    def own(self, sha256: str, owner: str) -> None:
        """Keep a blob for an artifact."""
        self._owners.setdefault(sha256, set()).add(owner)
        self._settle(sha256)

    def disown(self, sha256: str, owner: str) -> None:
        """Keep a blob for an artifact no longer."""
        _discard(self._owners, sha256, owner)
        self._settle(sha256)

    def hold(self, holder: str, wanted: Iterable[str], expires_at: float) -> None:
        """Hold further blobs for a transfer, whether they are here or not, and all of its blobs until then.

        :raises NoRoomError: too many transfers hold blobs, or this one too many of them.
        """
        more = set(wanted)
        hold = self._holds.get(holder)
        if hold is None and len(self._holds) >= MOST_HOLDERS:
            raise NoRoomError(f"{MOST_HOLDERS:,} transfers hold files here already; try again when some have ended")
        if len(more | hold.wanted if hold else more) > MOST_HELD:
            raise NoRoomError(f"A transfer may hold {MOST_HELD:,} files; send small files together in packs")
        if hold is None:
            hold = self._holds[holder] = _Hold(expires_at)
        hold.expires_at = max(hold.expires_at, expires_at)
        hold.wanted |= more
        for sha256 in more:
            self._held.setdefault(sha256, set()).add(holder)
            self._settle(sha256)

    def release(self, holder: str) -> None:
        """Hold nothing for a transfer any more."""
        if (hold := self._holds.pop(holder, None)) is None:
            return
        for sha256 in hold.wanted:
            _discard(self._held, sha256, holder)
            self._settle(sha256)

    def expire(self, now: float) -> int:
        """Release the transfers whose time is over, and return how many there were."""
        over = [holder for holder, hold in self._holds.items() if hold.expires_at <= now]
        for holder in over:
            self.release(holder)
        return len(over)

    def idle(self, sha256: str) -> bool:
        """Return whether nobody wants a blob."""
        return sha256 not in self._owners and sha256 not in self._held

    def wanted_beside(self, sha256: str, holder: str) -> bool:
        """Return whether an artifact or another transfer than this one wants a blob.

        :param holder: without a name, it is taken to be the one that holds the blob.
        """
        holders = self._held.get(sha256, set())
        return sha256 in self._owners or (len(holders - {holder}) > 0 if holder else len(holders) > 1)

    def _settle(self, sha256: str) -> None:
        entry = self._entries.get(sha256)
        if entry is None:
            return
        idle = self.idle(sha256)
        if idle and sha256 not in self._cache:
            self._cache[sha256] = None
            self.cached_bytes += entry.size
        elif not idle and sha256 in self._cache:
            del self._cache[sha256]
            self.cached_bytes -= entry.size


def _discard(table: dict[str, set[str]], key: str, item: str) -> None:
    if (items := table.get(key)) is not None:
        items.discard(item)
        if not items:
            del table[key]
