"""The calls that a paglet makes of its host from inside its process: a table of names, each with what it does.

Only what is in the table can be asked for, and everything that changes a paglet changes the one that asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from paglets.core.allowance import Allowance
from paglets.core.error_wire import CALL_ERRORS, error_to_wire, forget_frames
from paglets.core.errors import ForbiddenError, HostError, OverloadedError
from paglets.core.runtime_values import ServiceScope, enum_from_wire
from paglets.core.terms import FIRST_ATTEMPT, DeliveryTerms
from paglets.remote.pursuit import Patience
from paglets.remote.transfer import TransferTicket
from paglets.runtime.agents import AgentEntry, Phase, SelfCall
from paglets.runtime.attachment import EMPTY, Attachment
from paglets.runtime.checkpoints import check_keeps_checkpoints
from paglets.runtime.frames import Frame
from paglets.runtime.kernel import Kernel
from paglets.runtime.local_client import as_over_http
from paglets.runtime.node import Node, new_agent_id, proxy_of
from paglets.runtime.place import Place, packed
from paglets.runtime.posting import Posting, unanswered
from paglets.runtime.views import mailbox_counts
from paglets.serialization.values import pack, unpack
from paglets.services.contracts import ServiceRecord
from paglets.services.leases import given_back

Arguments = dict[str, Any]
Call = Callable[[AgentEntry, Arguments], Awaitable[Any]]

MOST_DEFERRED_CALLS = 16
#: Calls that one paglet may wait for at the same time.
MOST_CALLS_IN_PROGRESS = 1000
_NOTHING = packed(None)
LIFECYCLE = frozenset({"dispatch", "clone", "deactivate", "dispose"})
#: The calls behind the methods of a proxy.
THROUGH_PROXIES = frozenset({"deliver", "operate", "agent_info"})
#: The calls whose errors are those of a client, wherever the host is that is asked.
THROUGH_CLIENTS = THROUGH_PROXIES | {"upload_artifact", "download_artifact", "read_artifact", "delete_artifact"}


class CallDesk:
    """Answer the calls of the paglets of one host."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._kernel: Kernel = node.kernel
        self._table: dict[str, Call] = {
            name.removeprefix("call_"): getattr(self, name) for name in dir(self) if name.startswith("call_")
        }
        self._kernel.call_handler = self.receive

    def receive(self, entry: AgentEntry, place: Place, frame: Frame) -> None:
        """Perform one call, now or in the background, and answer it; a failure is answered as its error."""
        method = frame.payload.decode(errors="replace")
        try:
            if place.left_for is not None or entry.phase in (Phase.GONE, Phase.CRASHED):
                raise HostError("this paglet has left; its old process can ask for nothing any more")
            if method.startswith("checkpoint:"):
                number = int(method.partition(":")[2])
                self._kernel.background(self._checkpoint(entry, place, frame, number, frame.attachment))
                frame.attachment = EMPTY
                return
            arguments = unpack(frame.attachment.view())
            if method == "deliver" and self._is_near(arguments):
                # The most frequent call by far, and one that needs no task of its own.
                waiting = _LocalDelivery(self._kernel.loop, place, frame, arguments)
                self._node.post.post(arguments["agent_id"], _posting(arguments), waiting.done)
                return
        except Exception as exc:
            _fail(place, frame, exc)
            return
        finally:
            frame.attachment.close()
        if entry.calls_in_progress >= MOST_CALLS_IN_PROGRESS:
            _fail(place, frame, OverloadedError(f"paglet {entry.agent_id} waits for {entry.calls_in_progress} calls"))
            return
        # It fails with an answer, so nothing has to be around it.
        self._kernel.keep(self._kernel.loop.create_task(self._answer(entry, place, frame, method, arguments)))

    def _is_near(self, arguments: Arguments) -> bool:
        """Tell whether a message is for a paglet that is here; one that is not is followed by the client."""
        agent_id = arguments["agent_id"]
        node = self._node
        here = agent_id in self._kernel.agents or agent_id in node.dormitory or node.residents.manages(agent_id)
        return here and self._kernel.address.is_own(arguments["host_url"])

    async def _answer(self, entry: AgentEntry, place: Place, frame: Frame, method: str, arguments: Arguments) -> None:
        entry.calls_in_progress += 1
        try:
            if method in LIFECYCLE:
                reply = await self._lifecycle(entry, frame.id, method, arguments)
            else:
                call = self._table.get(method)
                if call is None:
                    raise HostError(f"a host has no call {method!r}")
                reply = await call(entry, arguments)
            attachment = packed(reply)
        except Exception as exc:
            # What a proxy raises does not depend on where its paglet is.
            _fail(place, frame, as_over_http(exc) if method in THROUGH_CLIENTS else exc)
            return
        finally:
            entry.calls_in_progress -= 1
        place.reply(frame, attachment)
        attachment.close()

    async def _checkpoint(self, entry: AgentEntry, place: Place, frame: Frame, number: int, state: Attachment) -> None:
        """Have the state that a paglet sends on disk."""
        try:
            check_keeps_checkpoints(entry)
            # Of a paglet that still starts the state is stored when its hook has ended, before anybody hears of it.
            if entry.phase is Phase.ACTIVE and entry.place is place:
                await self._node.checkpoints.keep(entry, place, number, state)
            else:
                state.close()
            place.reply(frame, _NOTHING)
        except Exception as exc:
            _fail(place, frame, exc)

    async def _lifecycle(self, entry: AgentEntry, call_id: int, operation: str, arguments: Arguments) -> Any:
        in_handler = bool(arguments.pop("in_handler", False))
        if operation == "clone":
            arguments["clone_id"] = new_agent_id()
        call = SelfCall(operation, arguments)
        if entry.phase is Phase.STARTING or self._node.arrivals.arriving(entry):
            return self._defer(entry, call)
        return await self._node.perform_self_call(entry, call, parent=call_id, in_handler=in_handler)

    def _defer(self, entry: AgentEntry, call: SelfCall) -> dict[str, str] | None:
        """Keep the call until the paglet is active, and answer with what will be true then."""
        if not self._node.arrivals.defer(entry, call):
            if len(entry.deferred) >= MOST_DEFERRED_CALLS:
                raise HostError("too many lifecycle calls before the paglet has started")
            entry.deferred.append(call)
        here = self._kernel.proxy_wire(entry.agent_id)
        match call.operation:
            case "dispatch":
                target = TransferTicket.from_wire(call.arguments["ticket"]).destination
                return here | {"host_url": self._node.ports.mesh.resolve_url(target)}
            case "clone":
                wire = call.arguments.get("ticket")
                target = here["host_url"] if wire is None else TransferTicket.from_wire(wire).destination
                url = self._node.ports.mesh.resolve_url(target)
                return {"host_url": url, "agent_id": call.arguments["clone_id"]}
            case "deactivate":
                return here
        return None

    # --- messages and paglets anywhere --------------------------------------------------------------------------------

    async def call_deliver(self, entry: AgentEntry, arguments: Arguments) -> Any:
        """Deliver a message to a paglet on another host."""
        del entry
        posting = _posting(arguments)
        patience = arguments.get("patience")
        answer = await self._node.ports.words.deliver_parcel(
            arguments["host_url"],
            arguments["agent_id"],
            posting.parcel(),
            posting.terms,
            timeout=arguments["timeout"],
            patience=None if patience is None else Patience(*patience),
        )
        return answer["result"]

    async def call_operate(self, entry: AgentEntry, arguments: Arguments) -> Any:
        """Perform a lifecycle operation on a paglet through its proxy."""
        del entry
        url, agent_id, payload = arguments["host_url"], arguments["agent_id"], arguments["payload"]
        if self._kernel.address.is_own(url):
            return await self._node.operate(agent_id, arguments["operation"], payload)
        return await self._node.ports.words.operate(
            url, agent_id, arguments["operation"], payload, timeout=arguments["timeout"]
        )

    async def call_agent_info(self, entry: AgentEntry, arguments: Arguments) -> Any:
        """Return the summary of a paglet on any host."""
        del entry
        if self._kernel.address.is_own(arguments["host_url"]):
            return self._node.views.summary(arguments["agent_id"])
        return await self._node.ports.words.agent_info(arguments["host_url"], arguments["agent_id"])

    async def call_http(self, entry: AgentEntry, arguments: Arguments) -> Any:
        """Make a JSON request with this host's client."""
        del entry
        if arguments["method"] != "GET" and _is_grant(arguments["url"]):
            # The host's own key would do it.
            raise ForbiddenError("a paglet grants no allowance, neither to itself nor to others")
        words = self._node.ports.words
        lease = given_back(arguments["url"]) if arguments["method"] == "POST" else None
        if lease is not None:
            if self._kernel.address.is_own(lease.host_url):
                return {"released": self._node.leases.release(lease.lease_id)}
            self._node.leases.forget(lease.lease_id)
        if arguments["method"] == "GET":
            return await words.get_json(arguments["url"], timeout=arguments["timeout"])
        return await words.post_json(arguments["url"], arguments["payload"], timeout=arguments["timeout"])

    async def call_upload_artifact(self, entry: AgentEntry, arguments: Arguments) -> Any:
        """Store a file on this or another host."""
        del entry
        return await self._node.artifact_desk.upload(arguments)

    async def call_download_artifact(self, entry: AgentEntry, arguments: Arguments) -> Any:
        """Fetch an artifact of this or another host into a file."""
        del entry
        return await self._node.artifact_desk.download(arguments)

    async def call_read_artifact(self, entry: AgentEntry, arguments: Arguments) -> Any:
        """Return a part of an artifact of this or another host."""
        del entry
        return await self._node.artifact_desk.read(arguments)

    async def call_delete_artifact(self, entry: AgentEntry, arguments: Arguments) -> None:
        """Delete an artifact of this or another host."""
        del entry
        await self._node.artifact_desk.delete(arguments)

    async def call_create(self, entry: AgentEntry, arguments: Arguments) -> Any:
        """Create a paglet here or on another host; it gets no more than the one that asks has left."""
        target = arguments["target"]
        url = self._node.ports.mesh.resolve_url(target) if target else ""
        here = not url or self._kernel.address.is_own(url)
        wire = arguments.get("allowance")
        allowance = None if wire is None else Allowance.from_wire(wire)
        self._kernel.starter.open_balance(entry, arguments.get("own"))
        async with self._node.allowances.funding(entry, self._kernel.address() if here else url) as cap:
            if not here:
                return await create_elsewhere(
                    self._node,
                    url,
                    arguments["agent_class_name"],
                    arguments["state_class_name"],
                    arguments["state"],
                    init=arguments["init"],
                    agent_id=arguments["agent_id"],
                    allowance=allowance,
                    cap=cap,
                )
            return await self._node.create(
                arguments["agent_class_name"],
                arguments["state_class_name"],
                Attachment.of([arguments["state"]]),
                init=arguments["init"],
                agent_id=arguments["agent_id"],
                trusted=True,
                allowance=allowance,
                cap=cap,
            )

    async def call_allowance(self, entry: AgentEntry, arguments: Arguments) -> Any:
        """Return what the paglet has left of its allowance."""
        return self._kernel.starter.open_balance(entry, arguments.get("own")).to_wire()

    # --- what is here -------------------------------------------------------------------------------------------------

    async def call_has_agent(self, entry: AgentEntry, arguments: Arguments) -> bool:
        """Tell whether a paglet is here."""
        del entry
        known = self._kernel.agents.get(arguments["agent_id"])
        if known is not None and known.phase in (Phase.ACTIVE, Phase.STARTING):
            return True
        return bool(arguments["include_inactive"]) and arguments["agent_id"] in self._node.dormitory

    async def call_agent_ids(self, entry: AgentEntry, arguments: Arguments) -> list[str]:
        """Return ids by state."""
        del entry
        return self._kernel.agent_ids(arguments["state"], self._node.dormitory.agent_ids)

    async def call_list_agents(self, entry: AgentEntry, arguments: Arguments) -> Any:
        """Return summaries."""
        del entry
        return await self._node.views.list_agents(**arguments)

    async def call_health(self, entry: AgentEntry, arguments: Arguments) -> Any:
        """Return the host's health."""
        del entry, arguments
        return self._node.ports.health()

    async def call_mailbox_status(self, entry: AgentEntry, arguments: Arguments) -> Any:
        """Return mailbox counters."""
        del entry
        return mailbox_counts(self._kernel.agents.require(arguments["agent_id"]))

    async def call_get_property(self, entry: AgentEntry, arguments: Arguments) -> Any:
        """Return a property of the host."""
        del entry
        return self._kernel.properties.get(arguments["key"], arguments["default"])

    async def call_set_property(self, entry: AgentEntry, arguments: Arguments) -> None:
        """Set or remove a property of the host."""
        del entry
        if arguments["value"] is None:
            self._kernel.properties.pop(arguments["key"], None)
        else:
            self._kernel.properties[arguments["key"]] = arguments["value"]

    async def call_wait_message(self, entry: AgentEntry, arguments: Arguments) -> bool:
        """Wait for a notification."""
        return await self._node.wait_message(entry.agent_id, arguments["timeout"])

    async def call_notify_message(self, entry: AgentEntry, arguments: Arguments) -> None:
        """Wake who waits for a notification."""
        self._node.notify(entry.agent_id, everyone=arguments["everyone"])

    # --- mesh ---------------------------------------------------------------------------------------------------------

    async def call_code_version(self, entry: AgentEntry, arguments: Arguments) -> str:
        """Return the code version."""
        del entry, arguments
        return self._node.ports.mesh.code_version

    async def call_list_hosts(self, entry: AgentEntry, arguments: Arguments) -> Any:
        """Return the known hosts."""
        del entry
        return [ref.to_wire() for ref in self._node.ports.mesh.hosts(**arguments)]

    async def call_lookup_host(self, entry: AgentEntry, arguments: Arguments) -> Any:
        """Return one known host."""
        del entry
        ref = self._node.ports.mesh.lookup(arguments["name_or_url"])
        return None if ref is None else ref.to_wire()

    async def call_is_host_online(self, entry: AgentEntry, arguments: Arguments) -> bool:
        """Tell whether a host is online."""
        del entry
        return self._node.ports.mesh.is_online(arguments["name_or_url"])

    async def call_resolve_url(self, entry: AgentEntry, arguments: Arguments) -> str:
        """Return the URL of a host."""
        del entry
        return self._node.ports.mesh.resolve_url(arguments["name_or_url"])

    async def call_wait_for_host(self, entry: AgentEntry, arguments: Arguments) -> Any:
        """Wait for a host to be online."""
        del entry
        mesh = self._node.ports.mesh

        def wait() -> Any:
            return mesh.wait_for_host(
                arguments["name_or_url"], timeout=arguments["timeout"], interval=arguments["interval"]
            )

        return (await self._kernel.loop.run_in_executor(None, wait)).to_wire()

    # --- files and storage --------------------------------------------------------------------------------------------

    async def call_work_dir(self, entry: AgentEntry, arguments: Arguments) -> str:
        """Return the paglet's work directory."""
        if not arguments["create"]:
            return str(self._node.files.work_dir(entry.agent_id))
        return str(await self._kernel.on_disk(self._node.files.make_work_dir, entry.agent_id))

    async def call_storage(self, entry: AgentEntry, arguments: Arguments) -> Any:
        """Return where the storage of the paglet's class is."""
        del arguments
        return self._node.storage(entry.agent_id)

    async def call_register_file(self, entry: AgentEntry, arguments: Arguments) -> Any:
        """Have a file or directory travel along."""
        path = Path(arguments["path"])
        ref = await self._node.carriage.describe(path, name=arguments["name"], mode=arguments["mode"])
        entry.files[ref.name] = ref
        await self._kernel.vault.files_changed(entry)
        return ref.to_wire()

    async def call_registered_files(self, entry: AgentEntry, arguments: Arguments) -> Any:
        """Return the files that travel along."""
        del arguments
        return [ref.to_wire() for ref in entry.files.values()]

    async def call_unregister_file(self, entry: AgentEntry, arguments: Arguments) -> None:
        """Leave a file behind."""
        if entry.files.pop(arguments["name"], None) is not None:
            await self._kernel.vault.files_changed(entry)

    # --- checkpoints and timers ---------------------------------------------------------------------------------------

    async def call_checkpoint_between_handlers(self, entry: AgentEntry, arguments: Arguments) -> None:
        """Have the state on disk as it is when no handler runs."""
        del arguments
        if entry.phase is Phase.ACTIVE:
            await self._node.checkpoints.take(entry)

    async def call_remind(self, entry: AgentEntry, arguments: Arguments) -> None:
        """Set a reminder."""
        await self._node.timers.remind(entry.agent_id, **arguments)

    async def call_forget(self, entry: AgentEntry, arguments: Arguments) -> bool:
        """Remove a reminder."""
        return await self._node.timers.forget(entry.agent_id, arguments["name"])

    # --- services -----------------------------------------------------------------------------------------------------

    async def call_advertise_service(self, entry: AgentEntry, arguments: Arguments) -> Any:
        """Advertise the paglet."""
        scope = enum_from_wire(arguments.pop("scope"), ServiceScope, "scope")
        return self._node.services.advertise(entry.agent_id, arguments.pop("name"), scope=scope, **arguments).to_wire()

    async def call_unadvertise_service(self, entry: AgentEntry, arguments: Arguments) -> Any:
        """Withdraw the paglet's record."""
        return [record.to_wire() for record in self._node.services.unadvertise(arguments["name"], entry.agent_id)]

    async def call_lease_service(self, entry: AgentEntry, arguments: Arguments) -> Any:
        """Have a managed service up."""
        record = ServiceRecord.from_wire(arguments["record"])
        return await self._node.leases.take(record, arguments["ttl"], holder=entry.agent_id)

    async def call_lookup_services(self, entry: AgentEntry, arguments: Arguments) -> Any:
        """Return service records."""
        del entry
        scope = enum_from_wire(arguments["scope"], ServiceScope, "scope")
        records = await self._node.services.lookup_services(
            arguments["name"], capability=arguments["capability"], scope=scope
        )
        return [record.to_wire() for record in records]


def _is_grant(url: str) -> bool:
    """Tell whether a request would change the allowance of a paglet."""
    return unquote(urlsplit(url).path).rstrip("/").endswith("/allowance")


def _posting(arguments: Arguments) -> Posting:
    oneway = arguments["oneway"]
    chain, timeout = arguments.get("chain"), None if oneway else arguments["timeout"]
    terms = FIRST_ATTEMPT if oneway else DeliveryTerms(timeout=timeout, chain=tuple(chain or ()))
    return Posting.sent(arguments, terms, oneway=oneway)


class _LocalDelivery:
    """Answer a paglet's call with the reply of another paglet on the same host, or with a timeout."""

    __slots__ = ("_frame", "_place", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, place: Place, frame: Frame, arguments: Arguments) -> None:
        self._place = place
        self._frame = frame
        seconds = arguments["timeout"]
        self._timer = None if seconds is None else loop.call_later(seconds, self._late, arguments["agent_id"], seconds)

    def done(self, reply: Attachment | None, error: Exception | None) -> None:
        """Pass the outcome on, unless the caller has been told that it took too long."""
        if self._timer is not None:
            if self._timer.cancelled() or self._frame.id == 0:
                return
            self._timer.cancel()
        if error is not None:
            _fail(self._place, self._frame, as_over_http(error))
        else:
            self._place.reply(self._frame, _NOTHING if reply is None else reply)
            if reply is not None:
                reply.close()

    def _late(self, agent_id: str, seconds: float) -> None:
        _fail(
            self._place,
            self._frame,
            unanswered(agent_id, seconds),
        )
        self._frame.id = 0


def _fail(place: Place, frame: Frame, error: Exception) -> None:
    place.fail(frame, pack(error_to_wire(error, table=CALL_ERRORS)))
    forget_frames(error)


async def create_elsewhere(
    node: Node,
    target: str,
    agent_class_name: str,
    state_class_name: str,
    state_blob: bytes,
    *,
    init: Any,
    agent_id: str | None,
    allowance: Allowance | None,
    cap: Allowance,
) -> dict[str, str]:
    """Create a paglet on another host.

    :param target: its URL.
    :param cap: the most that the paglet gets.

    :raises PagletError: what that host answered.
    """
    payload: dict[str, Any] = {
        "agent_class_name": agent_class_name,
        "state_class_name": state_class_name,
        "state_blob": state_blob,
        "init": init,
        "agent_id": agent_id,
    }
    if allowance is not None:
        payload["allowance"] = allowance.to_wire()
    if cap.limits:
        payload["allowance_cap"] = cap.to_wire()
    reply = await node.ports.words.post_pickle(f"{target}/agents", payload)
    if not isinstance(reply, dict):
        raise HostError(f"{target} does not answer like a host")
    return proxy_of(reply)
