"""Bring the files of a paglet to the host it moves to: ask what is missing there, send that, and go on after breaks."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from paglets.artifacts import PagletFileRef, paglet_file_ref_from_path
from paglets.artifacts.blobs import BlobStore
from paglets.artifacts.errors import FileChangedError
from paglets.core.errors import (
    ConnectionLostError,
    HostUnreachableError,
    PagletError,
    RemoteHostError,
    RemoteTimeoutError,
    TransferError,
)
from paglets.runtime import faults
from paglets.runtime.agents import AgentEntry
from paglets.runtime.content_threads import ContentThreads
from paglets.runtime.kernel import Kernel
from paglets.runtime.shipment import HOLD_SECONDS, Large, Shipment, content_of, look, ship
from paglets.runtime.transfer_wire import TransferLink

#: Contents that a target is asked about at once.
_ASKED_AT_ONCE: Final = 4096
#: How often a target is told to go on holding contents.
_RENEW_SECONDS: Final = HOLD_SECONDS / 4
#: Seconds that a target may stall while it takes a large content.
_STALL_SECONDS: Final = 60.0
_PROGRESS_SECONDS: Final = 0.5

# A connection that breaks is not the end of a large content, as long as there is progress in between.
_BROKEN: Final = (ConnectionLostError, RemoteTimeoutError, HostUnreachableError)
_MOST_BREAKS: Final = 32
_MOST_IN_VAIN: Final = 4
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 5.0


@dataclass(slots=True)
class Meter:
    """Say how far a transfer is, but not more than twice a second. It knows no clock: time is passed in."""

    total: int
    began: float
    told: float | None = None
    """When it was told last."""

    def due(self, done: int, now: float) -> bool:
        """Tell whether to say now that so many bytes are done, and take note of it."""
        last = self.began if self.told is None else self.told
        complete = done >= self.total and self.told is None
        if not complete and now - last < _PROGRESS_SECONDS:
            return False
        self.told = now
        return True


@dataclass(slots=True)
class Voyage:
    """What is sent for one paglet, to where, and in which words it is reported."""

    transfer_id: str
    holder: str
    """Under which name contents are held for it, at both hosts."""
    link: TransferLink
    entry: AgentEntry
    target: str
    timeout: float
    sending: asyncio.Task[Any] | None = None
    """What brings large contents at the moment."""
    done: dict[str, int] = field(default_factory=dict)
    """Bytes of each large content that the target has."""

    def cancel(self) -> None:
        """Call off the bringing of large contents, if that is under way."""
        if self.sending is not None:
            self.sending.cancel()


class Carriage:
    """Read registered files and bring them to other hosts.

    :param store: has the checksums of this host's files.
    :param threads: where files are read and made, apart from the short work of the host's disk.
    """

    def __init__(self, kernel: Kernel, store: BlobStore, threads: ContentThreads) -> None:
        self._kernel = kernel
        self.store = store
        self.threads = threads

    def release(self, holder: str) -> None:
        """Hold no contents for a transfer any more; nobody waits for that."""
        if not self._kernel.closing:
            self._kernel.background(self.threads.look(self.store.release, holder))

    async def describe(self, path: Path, *, name: str | None, mode: str) -> PagletFileRef:
        """Read a file or directory of this host and describe it as registered here.

        :raises TransferError: there is neither, it cannot travel, or name or mode are none.
        """

        def work() -> PagletFileRef:
            return paglet_file_ref_from_path(
                path,
                name=name,
                mode=mode,
                host_name=self._kernel.config.name,
                host_url=self._kernel.address(),
                directories=True,
                content_of=partial(content_of, store=self.store),
            )

        return await self.threads.carry(work)

    async def load(self, entry: AgentEntry, *, contents: bool = True) -> Shipment:
        """Read what is registered with a paglet, as it is now.

        :param contents: False only to look whether it is there.
        :raises TransferError: a file is missing, cannot be read, or changes all the time.
        """
        refs = [*entry.files.values()]
        return await (self.threads.carry(ship, refs, self.store) if contents else self.threads.carry(look, refs))

    async def bring(self, voyage: Voyage, shipment: Shipment) -> None:
        """Have every large content at the target.

        :raises FileChangedError: a file is not as it was when it was read.
        :raises PagletError: the target does not take it, or cannot be reached; or this was called off.
        """
        if not shipment.large:
            return
        loop = self._kernel.loop
        voyage.sending, renewing = loop.create_task(self._bring(voyage, shipment)), loop.create_task(_renew(voyage))
        for task in (voyage.sending, renewing):
            self._kernel.keep(task)
        try:
            await asyncio.wait((voyage.sending,))
            if voyage.sending.cancelled():
                raise TransferError("the sending of files was called off")
            await voyage.sending
        finally:
            voyage.sending.cancel()
            renewing.cancel()
            voyage.sending = None
            self.release(voyage.holder)

    async def _bring(self, voyage: Voyage, shipment: Shipment) -> None:
        meter = Meter(shipment.large_bytes, self._kernel.loop.time())
        breaks = in_vain = furthest = 0
        while True:
            try:
                for sha256, offset in await self._missing(voyage, shipment):
                    await self._send(voyage, shipment.large[sha256], offset, meter)
            except _BROKEN as exc:
                breaks += 1
                done = sum(voyage.done.values())
                in_vain = 0 if done > furthest else in_vain + 1
                furthest = max(furthest, done)
                # A host that is silent is given less patience than one that is away: every silence takes its time.
                patience = 1 if isinstance(exc, RemoteTimeoutError) else _MOST_IN_VAIN
                if breaks > _MOST_BREAKS or in_vain > patience or not voyage.done:
                    raise
                await asyncio.sleep(min(_FIRST_PAUSE_SECONDS * 2**in_vain, _LONGEST_PAUSE_SECONDS))
            else:
                return

    async def _missing(self, voyage: Voyage, shipment: Shipment) -> list[tuple[str, int]]:
        """Ask the target what it lacks, and have it hold the rest; take note of what it has."""
        wanted = [(large.sha256, large.size) for large in shipment.large.values()]
        missing: list[tuple[str, int]] = []
        for start in range(0, len(wanted), _ASKED_AT_ONCE):
            asked = dict(wanted[start : start + _ASKED_AT_ONCE])
            answer = await voyage.link.missing(voyage.holder, list(asked.items()), seconds=HOLD_SECONDS)
            for sha256, offset in answer:
                if sha256 not in asked or not 0 <= offset <= asked[sha256]:
                    raise RemoteHostError(f"{voyage.target} answered with contents that it was not asked about")
            missing += answer
        voyage.done = dict(wanted) | dict(missing)
        return missing

    async def _send(self, voyage: Voyage, large: Large, offset: int, meter: Meter) -> None:
        try:
            path = await self.threads.carry(large.file, self.store, voyage.holder)

            def progress(done: int, total: int) -> None:
                del total
                voyage.done[large.sha256] = done
                self._report(voyage, meter)
                if faults.ARMED:
                    faults.reached("source.blob-sending")

            await voyage.link.put(
                voyage.holder,
                large.sha256,
                path,
                large.size,
                offset=offset,
                progress=progress,
                timeout=max(voyage.timeout, _STALL_SECONDS),
            )
        except (PagletError, OSError) as exc:
            try:
                # Whatever went wrong: if the file is not what it was, that is why.
                await self.threads.carry(large.ensure_unchanged)
            except FileChangedError as change:
                raise FileChangedError(f"registered file {large.name!r} changes while it is sent: {change}") from exc
            raise
        voyage.done[large.sha256] = large.size
        if faults.ARMED:
            faults.reached("source.blob-sent")

    def _report(self, voyage: Voyage, meter: Meter) -> None:
        done = sum(voyage.done.values())
        if meter.due(done, self._kernel.loop.time()):
            self._kernel.emit(
                "transfer-progress",
                voyage.entry,
                data={
                    "destination": voyage.target,
                    "transfer_id": voyage.transfer_id,
                    "bytes_done": done,
                    "bytes_total": meter.total,
                },
            )


async def _renew(voyage: Voyage) -> None:
    """Have the target go on holding what it has while the rest takes its time."""
    while True:
        await asyncio.sleep(_RENEW_SECONDS)
        with suppress(PagletError, OSError):  # whoever sends hears of it as well
            await voyage.link.missing(voyage.holder, [], seconds=HOLD_SECONDS)
