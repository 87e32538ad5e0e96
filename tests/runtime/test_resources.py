"""Resources are released youngest first, failures are collected, and nothing is released twice."""

from __future__ import annotations

import threading

import pytest

from paglets.core.errors import LifecycleError
from paglets.runtime.resources import ResourceCleanupError, ResourceRegistration, ResourceRegistry

LONG = 10.0


class Releases:
    """Hands out clean-ups that record their name, or fail."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def of(self, name: str, error: Exception | None = None) -> ResourceRegistration:
        def cleanup() -> None:
            self.names.append(name)
            if error is not None:
                raise error

        return ResourceRegistration(name, cleanup)


@pytest.fixture
def registry() -> ResourceRegistry:
    return ResourceRegistry()


@pytest.fixture
def releases() -> Releases:
    return Releases()


def test_cleanup_runs_in_reverse_order_and_forgets(registry: ResourceRegistry, releases: Releases) -> None:
    for name in ("db", "socket", "lock"):
        registry.register(name, releases.of(name).cleanup)
    registry.cleanup(reason="dispatch")
    assert releases.names == ["lock", "socket", "db"]
    registry.cleanup()
    assert len(releases.names) == 3


def test_a_registration_does_not_suppress_by_default() -> None:
    assert ResourceRegistration("db", lambda: None).suppress is False


def test_status_tells_the_suppress_flags(registry: ResourceRegistry, releases: Releases) -> None:
    registry.register("db", releases.of("db").cleanup)
    registry.register("cache", releases.of("cache").cleanup, suppress=True)
    assert registry.status() == {"db": False, "cache": True}


def test_failures_are_raised_together_after_all_were_tried(registry: ResourceRegistry, releases: Releases) -> None:
    disk, net = OSError("disk gone"), RuntimeError()
    registry.register("good", releases.of("good").cleanup)
    registry.register("disk", releases.of("disk", disk).cleanup)
    registry.register("net", releases.of("net", net).cleanup)
    with pytest.raises(ResourceCleanupError) as caught:
        registry.cleanup()
    assert isinstance(caught.value, LifecycleError)
    assert caught.value.failures == {"net": net, "disk": disk}
    assert "disk: disk gone" in str(caught.value)
    assert "net: RuntimeError" in str(caught.value)
    assert releases.names == ["net", "disk", "good"]
    assert set(registry.status()) == {"disk", "net"}


def test_a_suppressed_failure_is_ignored_and_forgotten(registry: ResourceRegistry, releases: Releases) -> None:
    registry.register("cache", releases.of("cache", OSError("full")).cleanup, suppress=True)
    registry.cleanup()
    assert releases.names == ["cache"]
    assert registry.status() == {}


def test_registering_a_name_again_replaces_it(registry: ResourceRegistry, releases: Releases) -> None:
    registry.register("db", releases.of("old").cleanup, suppress=True)
    registry.register("net", releases.of("net").cleanup)
    registry.register("db", releases.of("new").cleanup)
    assert registry.status() == {"net": False, "db": False}
    registry.cleanup()
    assert releases.names == ["new", "net"]


def test_remove_and_clear_forget_without_calling(registry: ResourceRegistry, releases: Releases) -> None:
    for name in ("a", "b", "c"):
        registry.register(name, releases.of(name).cleanup)
    registry.remove("a")
    registry.remove("unknown")
    assert set(registry.status()) == {"b", "c"}
    registry.clear()
    registry.cleanup()
    assert releases.names == []


def test_an_empty_name_is_refused(registry: ResourceRegistry) -> None:
    with pytest.raises(ValueError, match="name"):
        registry.register("", lambda: None)


def test_track_closeable_calls_the_named_method(registry: ResourceRegistry) -> None:
    class Connection:
        def __init__(self) -> None:
            self.ended: list[str] = []

        def close(self) -> None:
            self.ended.append("close")

        def quit(self) -> None:
            self.ended.append("quit")

    connection = Connection()
    registry.track_closeable("one", connection)
    registry.track_closeable("two", connection, method="quit", suppress=True)
    assert registry.status() == {"one": False, "two": True}
    registry.cleanup()
    assert connection.ended == ["quit", "close"]


@pytest.mark.parametrize("method", ["close", "__doc__"])
def test_track_closeable_needs_a_callable(registry: ResourceRegistry, method: str) -> None:
    with pytest.raises(TypeError, match=rf"object\.{method} is not callable"):
        registry.track_closeable("thing", object(), method=method)
    assert registry.status() == {}


def test_a_cleanup_may_use_the_registry(registry: ResourceRegistry, releases: Releases) -> None:
    def release_others() -> None:
        releases.names.append("last")
        registry.remove("dropped")
        registry.register("added", releases.of("added").cleanup)
        registry.cleanup()

    registry.register("first", releases.of("first").cleanup)
    registry.register("dropped", releases.of("dropped").cleanup)
    registry.register("last", release_others)
    registry.cleanup()
    assert releases.names == ["last", "added", "first"]
    assert registry.status() == {}


def test_a_cleanup_that_registers_its_own_name_again_leaves_the_new_one(
    registry: ResourceRegistry, releases: Releases
) -> None:
    registry.register("db", lambda: registry.register("db", releases.of("new").cleanup))
    registry.cleanup()
    assert (list(registry.status()), releases.names) == (["db"], [])
    registry.cleanup()
    assert (list(registry.status()), releases.names) == ([], ["new"])


def test_two_cleanups_at_once_release_once(registry: ResourceRegistry, releases: Releases) -> None:
    entered, proceed, asked = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        releases.names.append("slow")
        entered.set()
        proceed.wait(LONG)

    def second_cleanup() -> None:
        asked.set()
        registry.cleanup()

    registry.register("early", releases.of("early").cleanup)
    registry.register("slow", slow)
    first = threading.Thread(target=registry.cleanup)
    second = threading.Thread(target=second_cleanup)
    first.start()
    assert entered.wait(LONG)
    second.start()
    assert asked.wait(LONG)
    assert registry.status() == {"early": False, "slow": False}
    proceed.set()
    for thread in (first, second):
        thread.join(LONG)
        assert not thread.is_alive()
    assert releases.names == ["slow", "early"]
