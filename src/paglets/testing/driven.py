"""What a test holds of a mesh: using it lets the mesh go on until there is an answer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from paglets.testing.scheduler import this_thread

if TYPE_CHECKING:
    from paglets.testing.hosts import MeshHost

_LONGEST_WAIT_SECONDS: Final = 3600.0


class DrivenFuture(Future[Any]):
    """A future that lets the mesh go on while the test waits for it."""

    def __init__(self, until: Callable[[Callable[[], bool], float], object]) -> None:
        super().__init__()
        self._until = until

    def _wait(self, timeout: float | None) -> None:
        if this_thread() is None and not self.done():
            with suppress(TimeoutError):
                self._until(self.done, _LONGEST_WAIT_SECONDS if timeout is None else timeout)

    def result(self, timeout: float | None = None) -> Any:
        """Return the result."""
        self._wait(timeout)
        return super().result(0 if this_thread() is None else timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error."""
        self._wait(timeout)
        return super().exception(0 if this_thread() is None else timeout)


class DrivenHost:
    """A host whose methods may be called by the test."""

    def __init__(self, host: MeshHost, call: Callable[[Callable[[], Any]], Any]) -> None:
        self._host = host
        self._call = call

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._host, name)
        if not callable(value):
            return value

        def driven(*args: Any, **options: Any) -> Any:
            return self._call(lambda: value(*args, **options))

        return driven
