"""Spread work over the hosts of a mesh with clones, and hand events on piece by piece."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, cast

from paglets.core.agent import PagletState
from paglets.core.errors import HostError, InvalidAgentError
from paglets.patterns.mixing import PagletMixin
from paglets.protocol.membership import HostRef, normalize_host_url

if TYPE_CHECKING:
    from paglets.core.agent import Paglet
    from paglets.remote.proxy import PagletProxy

PARENT_ROLE: Final = "parent"
CHILD_ROLE: Final = "child"


@dataclass
class ChildRoleState(PagletState):
    """Whether a paglet is the one that spread the work or one of those that do it, and where the former is."""

    role: str = PARENT_ROLE
    parent_host_url: str = ""
    parent_agent_id: str = ""
    target_host_name: str = ""
    """The host that a child is for."""
    target_host_url: str = ""


@dataclass
class MeshFanoutState(ChildRoleState):
    """What a parent knows of its children, by name of their hosts."""

    deadline: float = 0.0
    """On the monotonic clock of the parent's machine, so it means nothing elsewhere. Children get 0."""
    pending_hosts: list[str] = field(default_factory=list)
    """Hosts that have not answered."""
    done_hosts: list[str] = field(default_factory=list)
    child_proxies: dict[str, dict[str, str]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    cleanup_errors: dict[str, str] = field(default_factory=dict)


class MeshFanoutMixin(PagletMixin):
    """Lets a paglet send clones to other hosts and keep the books; mix it in before `Paglet`.

    Its state extends `MeshFanoutState`. Every change of the books wakes those who wait for the state. A parent that
    has moved, or came back after its host had died, has to call `fanout_reset` again: its deadline is gone.
    """

    #: The deadline while the state is that of a child: it must not travel.
    _fanout_deadline: float = 0.0

    # --- the parent ---------------------------------------------------------------------------------------------------

    def fanout_reset(self, *, timeout: float) -> None:
        """Become the parent of a new round that ends in `timeout` seconds."""
        with self._paglet.locked_state() as state:
            state.role = PARENT_ROLE
            state.parent_host_url = self._paglet.context.address
            state.parent_agent_id = self._paglet.context.agent_id or ""
            state.target_host_name = state.target_host_url = ""
            state.deadline = time.monotonic() + timeout
            state.pending_hosts, state.done_hosts = [], []
            state.child_proxies, state.errors, state.cleanup_errors = {}, {}, {}
            self._paglet.notify_all_state_changed()

    def fanout_available_hosts(self, *, include_self: bool = True) -> list[HostRef]:
        """Return the hosts of the mesh that are online."""
        return self._paglet.context.available_hosts(online_only=True, include_self=include_self)

    def fanout_select_hosts(self, targets: list[str] | tuple[str, ...], *, include_self: bool = True) -> list[HostRef]:
        """Return the online hosts that are meant, each once, in the order given.

        :param targets: names or URLs; none for all hosts.
        :raises HostError: one of them is not online, or not known.
        """
        available = self.fanout_available_hosts(include_self=include_self)
        if not targets:
            return available
        chosen: dict[str, HostRef] = {}
        for target in targets:
            found = next((host for host in available if _is_meant(host, target)), None)
            if found is None:
                raise HostError(f"target host is not online or not visible in the mesh: {target}")
            chosen.setdefault(found.url, found)
        return list(chosen.values())

    # --- sending children ---------------------------------------------------------------------------------------------

    def clone_to(self, name_or_url: str | HostRef, *, state_overrides: Mapping[str, Any] | None = None) -> PagletProxy:
        """Send a clone to a host; what is given overrides fields in the clone's state alone.

        For a `HostRef` the clone is a child in this round: it has the role, the host in `target_host_*`, no deadline
        and empty books, and its host is pending here until `fanout_record_done` or `fanout_record_error`. The state
        lock is held until the clone lives, so nobody else sees the state of the clone here; whoever wants the state
        waits so long. What `on_cloning` writes to overridden fields goes to the clone alone.

        :param state_overrides: fields of the clone's state by name.
        :raises TransferError: the clone could not be made. A host that was to get a child is in `errors` then.
        :raises TypeError: there is no such field.
        """
        if not isinstance(name_or_url, HostRef):
            return self._clone_with(dict(state_overrides or {}), name_or_url)
        host = name_or_url
        with self._paglet.locked():
            self._note_pending(host.name)
            child = {
                "role": CHILD_ROLE,
                "target_host_name": host.name,
                "target_host_url": host.url,
                "deadline": 0.0,
                "pending_hosts": [],
                "done_hosts": [],
                "child_proxies": {},
                "errors": {},
                "cleanup_errors": {},
                **(state_overrides or {}),
            }
            try:
                proxy = self._clone_with(child, host.url)
            except Exception as exc:
                self.fanout_record_error(host.name, str(exc) or type(exc).__name__)
                raise
            self.fanout_record_child_proxy(host.name, proxy)
            return proxy

    def _clone_with(self, overrides: dict[str, Any], target: str) -> PagletProxy:
        with self._paglet.locked():
            mine = self._paglet.state
            before = {each.name: getattr(mine, each.name) for each in fields(mine) if each.name not in overrides}
            shown = replace(mine, **overrides)
            self._paglet.state = shown
            try:
                return cast("Paglet[Any]", super()).clone_to(target)
            finally:
                self._paglet.state = mine
                for name, value in before.items():  # what on_cloning and on_cloned have written
                    if getattr(shown, name) is not value:
                        setattr(mine, name, getattr(shown, name))

    def fanout_prepare_clone(self, host: HostRef) -> None:
        """Make the present state that of a child for a host, until `fanout_finish_clone_prepare`.

        `clone_to` with a `HostRef` does the same without showing anybody a state in between.
        """
        with self._paglet.locked_state() as state:
            self._note_pending(host.name)
            if state.role != CHILD_ROLE:
                self._fanout_deadline = float(state.deadline)
            state.role = CHILD_ROLE
            state.target_host_name, state.target_host_url = host.name, host.url
            state.deadline = 0.0
            self._paglet.notify_all_state_changed()

    def fanout_finish_clone_prepare(self) -> None:
        """Be the parent again, after `fanout_prepare_clone`."""
        with self._paglet.locked_state() as state:
            if state.role == CHILD_ROLE:
                state.deadline = self._fanout_deadline
            state.role = PARENT_ROLE
            state.target_host_name = state.target_host_url = ""
            self._paglet.notify_all_state_changed()

    # --- the books ----------------------------------------------------------------------------------------------------

    def fanout_record_child_proxy(self, host_name: str, proxy: PagletProxy) -> None:
        """Write down where the child for a host is; the host stays pending until its child has answered."""
        with self._paglet.locked_state() as state:
            state.child_proxies[host_name] = proxy.to_wire()
            self._paglet.notify_all_state_changed()

    def fanout_record_error(self, host_name: str, error: str) -> None:
        """Write down why nothing comes from a host; it is no longer pending."""
        with self._paglet.locked_state() as state:
            state.errors[host_name] = error
            self._note_answered(host_name)
            self._paglet.notify_all_state_changed()

    def fanout_record_done(self, host_name: str) -> None:
        """Write down that a host has answered; it is no longer pending. An empty name says nothing."""
        if not host_name:
            return
        with self._paglet.locked_state() as state:
            if host_name not in state.done_hosts:
                state.done_hosts.append(host_name)
            self._note_answered(host_name)
            self._paglet.notify_all_state_changed()

    def fanout_expire_pending(self, error: str) -> None:
        """Once the deadline is over, give up the hosts that are pending: `error` is written down for each."""
        with self._paglet.locked_state() as state:
            if not state.pending_hosts or time.monotonic() < state.deadline:
                return
            for host_name in state.pending_hosts:
                state.errors[host_name] = error
            state.pending_hosts = []
            self._paglet.notify_all_state_changed()

    def fanout_wait_for(self, ready: Callable[[Any], bool], *, wait_timeout: float) -> None:
        """Wait until `ready(state)` holds, for `wait_timeout` seconds and not beyond the deadline."""
        left = self._paglet.state.deadline - time.monotonic()
        self._paglet.wait_state(ready, max(0.0, min(wait_timeout, left)))

    def fanout_cleanup_children(self) -> None:
        """End all children; why one could not be ended is in `cleanup_errors`. The others are forgotten.

        One that has ended by itself is no error.
        """
        with self._paglet.locked_state() as state:
            children = dict(state.child_proxies)
        failed: dict[str, str] = {}
        for host_name, wire in children.items():
            try:
                proxy = self._paglet.context.get_proxy(wire["agent_id"], wire["host_url"])
                if proxy is not None:  # one on this host may have ended by itself
                    proxy.dispose()
            except InvalidAgentError:  # and so may one elsewhere
                continue
            except Exception as exc:  # the other children are to end whatever became of this one
                failed[host_name] = str(exc) or type(exc).__name__
        with self._paglet.locked_state() as state:
            for host_name in children:
                if host_name in failed:
                    state.cleanup_errors[host_name] = failed[host_name]
                else:
                    state.child_proxies.pop(host_name, None)
            self._paglet.notify_all_state_changed()

    def _note_pending(self, host_name: str) -> None:
        if host_name not in self._paglet.state.pending_hosts:
            self._paglet.state.pending_hosts.append(host_name)

    def _note_answered(self, host_name: str) -> None:
        if host_name in self._paglet.state.pending_hosts:
            self._paglet.state.pending_hosts.remove(host_name)


class CursorDrainMixin(PagletMixin):
    """Keeps events in the state that others fetch piece by piece; mix it in before `Paglet`.

    The state has `events: list` and `next_cursor: int`, which begins at 1.
    """

    def cursor_append_events(self, events: list[dict[str, Any]]) -> int:
        """Add events, each with the next `cursor`; return the last one given out so far."""
        with self._paglet.locked_state() as state:
            for event in events:
                state.events.append({**event, "cursor": state.next_cursor})
                state.next_cursor += 1
            if events:
                self._paglet.notify_all_state_changed()
            return int(state.next_cursor - 1)

    def cursor_drain_events(self, *, after_cursor: int, limit: int) -> tuple[list[dict[str, Any]], int, bool]:
        """Return events behind a cursor, the last cursor among them, and whether there are more.

        :param limit: at most so many, at least one.
        """
        with self._paglet.locked_state() as state:
            behind = [event for event in state.events if event["cursor"] > after_cursor]
        given = behind[: max(1, limit)]
        return given, given[-1]["cursor"] if given else after_cursor, len(behind) > len(given)


def _is_meant(host: HostRef, target: str) -> bool:
    return host.name == target or normalize_host_url(host.url) == _url(target)


def _url(target: str) -> str:
    try:
        return normalize_host_url(target)
    except ValueError:
        return ""
