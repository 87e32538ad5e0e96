"""The threads on which a host reads and writes the content of artifacts and blobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

from paglets.artifacts.store import ArtifactStore
from paglets.core.errors import HostUnreachableError

T = TypeVar("T")

#: Transfers that move bytes at the same moment; others wait for a slice of time.
MOVING_THREADS: Final = 4
#: What looks into the store, and is not to wait for those.
LOOKING_THREADS: Final = 2
#: What waits for storage elsewhere, which may be slow or dead, and is not to keep the others waiting.
FAR_THREADS: Final = 8
#: What reads or makes the files of a paglet, each as a whole.
CARRYING_THREADS: Final = 4


class ContentThreads:
    """The threads on which a host reads and writes content."""

    def __init__(self, name: str) -> None:
        self.moving = ThreadPoolExecutor(MOVING_THREADS, thread_name_prefix=f"paglets-content-{name}")
        self._looking = ThreadPoolExecutor(LOOKING_THREADS, thread_name_prefix=f"paglets-store-{name}")
        self._far = ThreadPoolExecutor(FAR_THREADS, thread_name_prefix=f"paglets-far-{name}")
        self._carrying = ThreadPoolExecutor(CARRYING_THREADS, thread_name_prefix=f"paglets-files-{name}")
        # One at a time: nobody waits for it, and it is not to keep the disk from what somebody waits for.
        self._cleaning = ThreadPoolExecutor(1, thread_name_prefix=f"paglets-cleanup-{name}")
        self._closed = False

    async def look(self, work: Callable[..., T], *args: object, **keywords: object) -> T:
        """Do something short that blocks on the disk, to its end even when the caller is called off.

        :raises HostUnreachableError: the host has stopped; nothing was begun.
        """
        return await self._run(self._looking, partial(work, *args, **keywords))

    async def move(self, work: Callable[..., T], *args: object, **keywords: object) -> T:
        """Do something that may take as long as a large content; otherwise like :meth:`look`."""
        return await self._run(self.moving, partial(work, *args, **keywords))

    async def reach(self, work: Callable[..., T], *args: object, **keywords: object) -> T:
        """Do something that waits for storage on another machine; otherwise like :meth:`look`."""
        return await self._run(self._far, partial(work, *args, **keywords))

    async def with_store(self, store: ArtifactStore, work: Callable[..., T], *args: object, **keywords: object) -> T:
        """Do something with the contents of a store, which are far away or on this disk."""
        run = self.reach if store.remote else self.move
        return await run(work, *args, **keywords)

    async def carry(self, work: Callable[..., T], *args: object, **keywords: object) -> T:
        """Read, copy or make the files of a paglet, in one piece; otherwise like :meth:`look`."""
        return await self._run(self._carrying, partial(work, *args, **keywords))

    def later(self, work: Callable[[], None]) -> None:
        """Do something some time, for which nobody waits; nothing where the host stops before."""
        with suppress(RuntimeError):  # the threads have just ended
            self._cleaning.submit(work)

    async def _run(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        if self._closed:
            raise HostUnreachableError("the host is shutting down; nothing was begun")
        running = asyncio.get_running_loop().run_in_executor(threads, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            # Whatever follows must find it done.
            await asyncio.wait((running,))
            running.exception()
            raise

    async def close(self) -> None:
        """Wait for what is under way, and end the threads."""
        self._closed = True
        self._cleaning.shutdown(wait=False, cancel_futures=True)
        for threads in (self.moving, self._looking, self._far, self._carrying, self._cleaning):
            try:
                ending = asyncio.get_running_loop().run_in_executor(None, threads.shutdown)
            except RuntimeError:
                threads.shutdown()  # the interpreter is ending, and has waited for these threads already
            else:
                await ending

    def abandon(self) -> None:
        """End the threads as the end of their process would; only what is being done this moment is waited for."""
        self._closed = True
        for threads in (self.moving, self._looking, self._far, self._carrying, self._cleaning):
            threads.shutdown(cancel_futures=True)
