"""Things a paglet holds open that must be released before it moves, sleeps or ends."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from paglets.core.errors import LifecycleError

logger = logging.getLogger(__name__)

Cleanup: TypeAlias = Callable[[], None]


@dataclass(slots=True)
class ResourceRegistration:
    """One resource: its name, what releases it, and whether a failure of that is ignored."""

    name: str
    cleanup: Cleanup
    suppress: bool = False


class ResourceCleanupError(LifecycleError):
    """One or more resources could not be released.

    :ivar failures: what each failing clean-up raised, by resource name.
    """

    def __init__(self, failures: dict[str, Exception]) -> None:
        self.failures = dict(failures)
        pairs = "; ".join(f"{name}: {str(error) or type(error).__name__}" for name, error in self.failures.items())
        super().__init__(f"could not release resources: {pairs}")


class ResourceRegistry:
    """Hold the resources of one paglet and release them in reverse order of registration.

    All methods may be called from any thread, also from inside a clean-up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Two clean-ups at once would release a resource twice; the second waits and finds what the first left.
        self._cleaning = threading.RLock()
        self._running: set[int] = set()
        self._registrations: dict[str, ResourceRegistration] = {}

    def register(self, name: str, cleanup: Cleanup, *, suppress: bool = False) -> None:
        """Remember how to release a resource.

        An earlier registration of the same name is forgotten without being called.

        :param suppress: a failure of this clean-up is ignored.
        :raises ValueError: the name is empty.
        """
        if not name:
            raise ValueError("a resource needs a name")
        registration = ResourceRegistration(name, cleanup, suppress)
        with self._lock:
            # A dict keeps the place of a key it already has; the new resource is the youngest.
            self._registrations.pop(name, None)
            self._registrations[name] = registration

    def track_closeable(self, name: str, obj: object, *, method: str = "close", suppress: bool = False) -> None:
        """Remember an object that is released by calling one of its methods.

        :raises TypeError: the object has no callable of that name.
        :raises ValueError: the name is empty.
        """
        cleanup = getattr(obj, method, None)
        if not callable(cleanup):
            raise TypeError(f"resource {name!r}: {type(obj).__name__}.{method} is not callable")
        self.register(name, cleanup, suppress=suppress)

    def remove(self, name: str) -> None:
        """Forget a resource without releasing it; an unknown name is ignored."""
        with self._lock:
            self._registrations.pop(name, None)

    def cleanup(self, *, reason: str = "lifecycle") -> None:
        """Release every resource, youngest first.

        Released resources and those whose failure is suppressed are forgotten; the others stay registered.

        :param reason: the lifecycle step that asks, for the log.
        :raises ResourceCleanupError: after all were tried, when one or more failed.
        """
        failures: dict[str, Exception] = {}
        with self._cleaning:
            with self._lock:
                pending = list(reversed(self._registrations.values()))
            for registration in pending:
                error = self._release(registration, reason)
                if error is not None:
                    failures[registration.name] = error
        if failures:
            raise ResourceCleanupError(failures)

    def clear(self) -> None:
        """Forget every resource without releasing any."""
        with self._lock:
            self._registrations.clear()

    def status(self) -> dict[str, bool]:
        """Return the suppress flag of every resource by name, oldest first."""
        with self._lock:
            return {name: registration.suppress for name, registration in self._registrations.items()}

    def _release(self, registration: ResourceRegistration, reason: str) -> Exception | None:
        with self._lock:
            # A clean-up before this one may have removed or replaced it, or may be this very one and ask again.
            if self._registrations.get(registration.name) is not registration or id(registration) in self._running:
                return None
            self._running.add(id(registration))
        try:
            registration.cleanup()
        except Exception as error:
            logger.debug("resource %r was not released (%s)", registration.name, reason, exc_info=True)
            if not registration.suppress:
                return error
        finally:
            self._running.discard(id(registration))
        with self._lock:
            if self._registrations.get(registration.name) is registration:
                del self._registrations[registration.name]
        return None
