"""A paglet that uses everything its context offers, and tells what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paglets.core.agent import ACTIVE, INACTIVE, Paglet, PagletState, handler
from paglets.core.messages import Message
from paglets.core.policies import DeactivationRequest
from paglets.core.runtime_values import ServiceScope
from paglets.remote.proxy import PagletProxy
from paglets.remote.references import PagletProxyRef
from tests.agents.actor import Actor, ActorState
from tests.agents.services import CONTRACT, NEWER


def outcome(action: Any) -> Any:
    """Return what a call gives, or the name and text of its error."""
    try:
        return action()
    except Exception as exc:
        return f"{type(exc).__name__}: {exc}"


@dataclass
class InsiderState(PagletState):
    heard: list[Any] = field(default_factory=list)


class Insider(Paglet[InsiderState]):
    State = InsiderState

    @handler
    def hear(self, what: Any = None) -> int:
        with self.locked_state() as state:
            state.heard.append(what)
            return len(state.heard)

    def proxy(self, ref: PagletProxyRef) -> PagletProxy:
        return ref.resolve(self.context)

    # --- host and proxies

    @handler
    def who(self) -> dict[str, Any]:
        context = self.context
        return {
            "name": context.name,
            "address": context.address,
            "agent_id": context.agent_id,
            "health": context.host.health(),
            "code_version": context.host.mesh.code_version,
        }

    @handler
    def proxies(self, other: str, far: PagletProxyRef) -> dict[str, Any]:
        context = self.context

        def wire(proxy: PagletProxy | None) -> Any:
            return None if proxy is None else proxy.to_wire()

        return {
            "self": wire(context.get_proxy(self.agent_id)),
            "other": wire(context.get_proxy(other)),
            "other with address": wire(context.get_proxy(other, context.address + "/")),
            "other without inactive": wire(context.host.get_proxy(other)),
            "unknown": wire(context.get_proxy("unknown")),
            "far": wire(context.get_proxy(far.agent_id, far.host_url)),
            "unchecked": wire(context.get_proxy("unknown", far.host_url)),
            "active": [proxy.agent_id for proxy in context.get_proxies()],
            "inactive": [proxy.agent_id for proxy in context.get_proxies(INACTIVE)],
            "all": [proxy.agent_id for proxy in context.get_proxies(ACTIVE | INACTIVE)],
        }

    @handler
    def listings(self, other: str) -> dict[str, Any]:
        host = self.context.host
        return {
            "active": [summary["agent_id"] for summary in host.list_agents()],
            "inactive": [summary["agent_id"] for summary in host.list_agents(active=False, inactive=True)],
            "states": [summary["state"] for summary in host.list_agents(inactive=True, include_state=True)],
            "hosts": [ref.name for ref in host.list_hosts()],
            "others": [ref.name for ref in host.list_hosts(include_self=False)],
            "mailbox": host.mailbox_status(self.agent_id),
            "unknown": outcome(lambda: host.mailbox_status("unknown")),
            "other": outcome(lambda: host.mailbox_status(other)),
        }

    @handler
    def properties(self, key: str, value: Any) -> list[Any]:
        context = self.context
        before = context.get_property(key, "unset")
        context.set_property(key, value)
        return [before, context.get_property(key)]

    # --- other paglets

    @handler
    def create(self, count: int, url: str = "") -> dict[str, str]:
        return self.context.create_paglet(Actor, ActorState(count=count), init="i", host_url=url or None).to_wire()

    @handler
    def create_badly(self, url: str = "") -> list[str]:
        create = self.context.create_paglet
        state = ActorState(plan={"creation": ["fail bad start"]})
        return [
            outcome(lambda: create(Actor, state, host_url=url or None)),
            outcome(lambda: create(dict, host_url=url or None)),  # type: ignore[arg-type]
        ]

    @handler
    def talk(self, ref: PagletProxyRef) -> dict[str, Any]:
        """Use every way to speak with another paglet."""
        proxy = self.proxy(ref)
        future = proxy.send_future(Message("add", {"by": 10}))
        results: dict[str, Any] = {
            "future": future.get_reply(10),
            "send": proxy.send(Message("add", {"by": 1})),
            "call": proxy.call(Actor.add, by=2),
            "context": self.context.send(ref.agent_id, Message("add", {"by": 3}), host_url=ref.host_url),
            "self.send": self.send(ref.agent_id, Message("add", {"by": 4}), host_url=ref.host_url),
            "active": [proxy.is_valid(), proxy.is_active(), proxy.is_state(ACTIVE), proxy.is_state(False)],
            "class": proxy.get_agent_class_name(),
            "remote": proxy.is_remote(self.context.address),
            "unknown": outcome(lambda: self.send("unknown", Message("add"))),
        }
        proxy.send_oneway(Message("add", {"by": 100}))
        proxy.call_oneway(Actor.add, by=100)
        return results

    @handler
    def manage(self, ref: PagletProxyRef, target: str) -> list[Any]:
        """Move, copy, store, wake and end another paglet through its proxy."""
        proxy = self.proxy(ref)
        copy = proxy.clone()
        far_copy = proxy.clone(target)
        moved = proxy.dispatch(target)
        asleep = moved.deactivate(reason="told to")
        steps = [
            copy.to_wire()["host_url"],
            far_copy.to_wire()["host_url"],
            moved.to_wire(),
            asleep.is_state(INACTIVE),
            asleep.activate().is_active(),
        ]
        copy.dispose()
        far_copy.dispose()
        back = moved.dispatch(ref.host_url)
        return [*steps, copy.is_valid(), far_copy.is_valid(), back.to_wire()]

    @handler
    def manage_through_context(self, other: str, target: str) -> dict[str, str]:
        """Try to manage another paglet in ways that are for oneself only."""
        context = self.context
        actions = {
            "dispatch": lambda: context.dispatch(other, target),
            "dispatch_to": lambda: context.dispatch_to(other, target),
            "clone": lambda: context.clone(other),
            "clone_to": lambda: context.clone_to(other, target),
            "deactivate": lambda: context.deactivate(other, DeactivationRequest()),
            "dispose": lambda: context.host.dispose(other),
            "resources": lambda: context.resources(other),
            "work_dir": lambda: context.work_dir(agent_id=other),
            "storage": lambda: context.persistent_storage(agent_id=other),
            "register_file": lambda: context.register_file(__file__, agent_id=other),
            "registered_files": lambda: context.registered_files(agent_id=other),
            "unregister_file": lambda: context.unregister_file("x", agent_id=other),
            "file_path": lambda: context.file_path("x", agent_id=other),
            "advertise": lambda: context.advertise_service("x", agent_id=other),
            "unadvertise": lambda: context.unadvertise_service("x", agent_id=other),
            "wait": lambda: context.host.wait_message(other, timeout=0),
            "notify": lambda: context.host.notify_message(other),
            "notify all": lambda: context.host.notify_all_messages(other),
        }
        return {name: str(outcome(action)) for name, action in actions.items()}

    @handler
    def multicast_to_all(self, kind: str, exclude: list[str]) -> list[Any]:
        replies = self.context.multicast(kind, {"what": "all"}, exclude=set(exclude))
        everyone = self.multicast(kind, {"what": "more"}, include_self=False)
        assert replies.wait_for_all_replies(10)
        assert everyone.wait_for_all_replies(10)
        return [sorted(reply.get_reply() for reply in replies), len(list(everyone))]

    # --- oneself

    @handler
    def own_things(self, directory: str) -> dict[str, Any]:
        context = self.context
        path = Path(directory) / "file.txt"
        path.write_text("text")
        closed: list[str] = []
        context.resources().register("thing", lambda: closed.append("thing"))
        ref = context.register_file(path, name="f")
        storage = context.persistent_storage(quota_bytes=100)
        storage.write_text("a", "b")
        result = {
            "resources": context.resources().status(),
            "work_dir": str(context.work_dir()),
            "no work_dir yet": str(context.work_dir(create=False)),
            "files": [found.name for found in context.registered_files()],
            "path": str(context.file_path(ref)),
            "storage": [storage.read_bytes("a"), storage.status().quota_bytes],
        }
        context.unregister_file(ref)
        context.resources().cleanup()
        result["afterwards"] = [context.registered_files(), context.resources().status(), closed]
        return result

    @handler
    def services(self) -> dict[str, Any]:
        context = self.context
        record = context.advertise_service("s", capabilities=["c"], metadata={"m": 1}, scope=ServiceScope.MESH, ttl=60)
        contract = context.advertise_contract(CONTRACT, metadata={"x": 1})
        handle = context.require_contract(CONTRACT)
        result = {
            "record": record.to_wire(),
            "contract": contract.name,
            "handle": handle.record.proxy.to_wire(),
            "lookup": outcome(lambda: context.lookup_service("s", capability="c").to_wire()),  # type: ignore[union-attr]
            "all": [found.name for found in context.lookup_services()],
            "contracts": len(context.lookup_contracts(CONTRACT)),
            "newer": context.lookup_contract(NEWER),
            "required": outcome(lambda: context.require_contract(NEWER)).split(":")[0],
            "lease": outcome(lambda: context.lease_contract(CONTRACT)).split(":")[0],
            "scope": outcome(lambda: context.lookup_services(scope="mesh")),  # type: ignore[arg-type]
        }
        result["removed"] = [found.name for found in context.unadvertise_service("s")]
        return result

    @handler
    def mesh(self, name: str, url: str) -> dict[str, Any]:
        context = self.context
        return {
            "available": [ref.name for ref in context.available_hosts()],
            "others": [ref.name for ref in context.available_hosts(include_self=False)],
            "status": outcome(lambda: context.host_status(name).url),  # type: ignore[union-attr]
            "by url": outcome(lambda: context.host_status(url).name),  # type: ignore[union-attr]
            "unknown": context.host_status("unknown"),
            "online": context.is_host_online(name),
            "waited": outcome(lambda: context.wait_for_host(name, timeout=5).url),
            "in vain": outcome(lambda: context.wait_for_host("unknown", timeout=0.05, interval=0.01)),
        }

    @handler
    def online(self, name: str) -> list[Any]:
        waited = outcome(lambda: self.context.wait_for_host(name, timeout=0.1, interval=0.02).name)
        return [self.context.is_host_online(name), waited]

    @handler
    def clone_me(self, name: str) -> dict[str, str]:
        return self.clone_to(name).to_wire()

    @handler
    def move_me(self, name: str) -> dict[str, str]:
        return self.dispatch_to(name).to_wire()

    @handler
    def where(self) -> str:
        return self.context.name

    @handler
    def http(self, url: str) -> list[Any]:
        client = self.context.host.client
        return [
            client.get_json(f"{url}/health")["name"],
            outcome(lambda: client.get_json(f"{url}/nonsense")).split(":")[0],
        ]
