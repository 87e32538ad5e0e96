"""The documented routes of a host, grouped by topic; each one turns a request into one operation of the node."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import msgspec

from paglets.core.allowance import NO_LIMITS
from paglets.core.errors import HostError
from paglets.core.policies import DeactivationRequest
from paglets.core.runtime_values import ArrivalMode, ServiceScope, enum_from_wire
from paglets.remote.transfer import TransferTicket
from paglets.runtime.http import allowances, artifacts, blobs, bodies, draining, hot, leases, letters, replies, tracks
from paglets.runtime.http.answers import answer, encoded
from paglets.runtime.http.documented import MOVEMENT, AgentId, caller_of, node_of, served_by
from paglets.runtime.http.followers import MAX_WAIT_SECONDS
from paglets.runtime.http.movements import import_envelope
from paglets.runtime.http.routing import Answer, Request, Route, get, post

MAX_EVENTS = 1000


# --- the host --------------------------------------------------------------------------------------------------------


@get("/health", summary="Who this host is and how it does", reply=replies.HealthReply)
async def health(request: Request) -> Answer:
    """Return name, address, counts, version, capabilities, tags and properties."""
    return encoded(hot.health(node_of(request)))


@get("/hosts", summary="The hosts this host knows", reply=replies.HostsReply)
async def hosts(request: Request) -> Answer:
    """Return every known host, this one and offline ones included."""
    return answer({"hosts": [ref.to_wire() for ref in node_of(request).ports.mesh.hosts()]})


@post("/hosts/join", summary="Join the mesh", reply=replies.JoinReply)
async def join(request: Request, data: bodies.JoinBody) -> Answer:
    """Register the calling host and return every known host, or what its gossip lacks."""
    return answer(node_of(request).ports.mesh.receive(msgspec.to_builtins(data)))


@post(
    "/admin/git-update",
    summary="Update from version control",
    reply=replies.UpdateReply,
)
async def git_update(request: Request, data: bodies.GitUpdateBody) -> Answer:
    """Update the program of this host, where that is enabled, and return what became of it."""
    return answer(node_of(request).ports.git_update(msgspec.to_builtins(data)))


@get("/events", summary="What happened on this host", reply=replies.EventsReply)
async def events(
    request: Request,
    since: Annotated[int, msgspec.Meta(ge=0, le=2**53, description="Only events with a greater id.")] = 0,
    limit: Annotated[int, msgspec.Meta(ge=0, le=MAX_EVENTS, description="At most so many, oldest first.")] = 100,
    wait: Annotated[
        float,
        msgspec.Meta(ge=0, le=MAX_WAIT_SECONDS, description="Seconds to wait for an event while there is none."),
    ] = 0,
) -> Answer:
    """Return events, oldest first; with ``wait`` as soon as there is one."""
    found = await served_by(request).followers.events(since, limit=limit, wait=wait, gone=partial(hung_up, request))
    return answer({"events": [event.to_wire() for event in found]})


async def hung_up(request: Request) -> None:
    """Return when whoever asked has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        continue


# --- paglets ---------------------------------------------------------------------------------------------------------


@get("/agents", summary="The paglets of this host", reply=replies.AgentsReply)
async def agents(
    request: Request,
    state: Annotated[str, msgspec.Meta(pattern="^(active|inactive|all)$", description="Which ones.")] = "active",
    include_state: Annotated[
        str, msgspec.Meta(description="1, true or yes adds each one's state.", max_length=10)
    ] = "",
) -> Answer:
    """Return summaries."""
    found = await node_of(request).views.list_agents(
        active=state in ("active", "all"),
        inactive=state in ("inactive", "all"),
        include_state=include_state.lower() in ("1", "true", "yes"),
    )
    return answer({"agents": found})


@post(
    "/agents",
    summary="Create a paglet, or import one from an envelope",
    body=MOVEMENT,
    reply=replies.MovementReply,
)
async def create(request: Request, data: bodies.CreateBody) -> Answer:
    """Create a paglet by class name; a body of type application/x-paglets-movement moves one here instead."""
    node = node_of(request)
    if data.envelope is not None:
        return answer({"proxy": await import_envelope(node, data.envelope, caller_of(request))})
    if not data.agent_class_name:
        raise HostError("agent_class_name is missing")
    proxy = await node.create(
        data.agent_class_name,
        data.state_class_name or "",
        data.state,
        init=data.init,
        agent_id=data.agent_id,
        by=caller_of(request),
        allowance=None if data.allowance is None else data.allowance.allowance(),
        cap=NO_LIMITS if data.allowance_cap is None else data.allowance_cap.allowance(),
    )
    return answer({"proxy": proxy})


@get("/agents/{agent_id}", summary="One paglet", reply=replies.AgentReply)
async def agent(request: Request, agent_id: AgentId) -> Answer:
    """Return its summary."""
    return answer(node_of(request).views.summary(agent_id))


@get("/agents/{agent_id}/state", summary="A paglet's state", reply=replies.StateReply)
async def agent_state(request: Request, agent_id: AgentId) -> Answer:
    """Return its summary and its state in plain values."""
    return answer(await node_of(request).views.state_payload(agent_id))


@post(
    "/agents/{agent_id}/messages",
    summary="Send a message",
    reply=replies.ResultReply,
)
async def deliver(request: Request, agent_id: AgentId, data: bodies.DeliverBody) -> Answer:
    """Deliver a message and return the handler's reply."""
    return encoded(await hot.deliver(node_of(request), agent_id, data))


def ticket_of(data: bodies.MoveBody) -> TransferTicket | None:
    """Return the ticket of a move, None where neither ticket nor target is given."""
    if data.ticket is None:
        return TransferTicket(data.target) if data.target else None
    ticket = data.ticket
    return TransferTicket(
        ticket.destination,
        ticket.timeout,
        ticket.retries,
        ticket.retry_interval,
        tuple(ticket.required_capabilities),
        ticket.expected_code_version,
        enum_from_wire(ticket.arrival_mode, ArrivalMode, "arrival_mode"),
    )


@post(
    "/agents/{agent_id}/dispatch",
    summary="Move a paglet",
    reply=replies.ProxyReply,
)
async def dispatch(request: Request, agent_id: AgentId, data: bodies.MoveBody) -> Answer:
    """Move it to another host and return its proxy there."""
    ticket = ticket_of(data)
    if ticket is None:
        raise HostError("ticket or target is missing")
    return answer({"proxy": await node_of(request).dispatch(agent_id, ticket)})


@post("/agents/{agent_id}/clone", summary="Copy a paglet", reply=replies.ProxyReply)
async def clone(request: Request, agent_id: AgentId, data: bodies.MoveBody | None = None) -> Answer:
    """Copy it, here when no target is given, and return the copy's proxy."""
    ticket = None if data is None else ticket_of(data)
    return answer({"proxy": await node_of(request).clone(agent_id, ticket)})


@post("/agents/{agent_id}/retract", summary="Pull a paglet", reply=replies.ProxyReply)
async def retract(request: Request, agent_id: AgentId, data: bodies.RetractBody) -> Answer:
    """Send it to the host that asks for it."""
    return answer({"proxy": await node_of(request).retract_to(agent_id, data.target)})


@post(
    "/agents/{agent_id}/deactivate",
    summary="Store a paglet",
    reply=replies.DeactivateReply,
)
async def deactivate(request: Request, agent_id: AgentId, data: bodies.DeactivateBody | None = None) -> Answer:
    """Store it on disk and end its process."""
    wire = None if data is None else data.request
    stored = None if wire is None else DeactivationRequest.from_wire(wire)
    return answer({"proxy": await node_of(request).deactivate(agent_id, stored), "ok": True})


@post(
    "/agents/{agent_id}/activate",
    summary="Wake a paglet",
    reply=replies.ProxyReply,
)
async def activate(request: Request, agent_id: AgentId) -> Answer:
    """Bring an inactive paglet back."""
    return answer({"proxy": await node_of(request).activate(agent_id)})


@post("/agents/{agent_id}/dispose", summary="End a paglet", reply=replies.OkReply)
async def dispose(request: Request, agent_id: AgentId) -> Answer:
    """End it for good."""
    await node_of(request).dispose(agent_id)
    return answer({"ok": True})


# --- services --------------------------------------------------------------------------------------------------------


@post(
    "/agents/{agent_id}/services",
    summary="Advertise a service",
    reply=replies.ServiceReply,
)
async def advertise(request: Request, agent_id: AgentId, data: bodies.ServiceBody) -> Answer:
    """Make a paglet findable under a service name."""
    record = node_of(request).services.advertise(
        agent_id,
        data.name,
        capabilities=data.capabilities,
        metadata=data.metadata,
        scope=enum_from_wire(data.scope, ServiceScope, "scope"),
        ttl=data.ttl,
    )
    return answer({"service": record.to_wire()})


@post(
    "/agents/{agent_id}/unadvertise-service",
    summary="Withdraw a service",
    reply=replies.ServicesReply,
)
async def unadvertise(request: Request, agent_id: AgentId, data: bodies.ServiceNameBody) -> Answer:
    """Withdraw a paglet's record and return what was removed."""
    removed = node_of(request).services.unadvertise(data.name, agent_id)
    return answer({"services": [record.to_wire() for record in removed]})


@get("/services", summary="Services of this host", reply=replies.ServicesReply)
async def services(
    request: Request,
    name: Annotated[str, msgspec.Meta(max_length=1024, description="Only this service.")] | None = None,
    capability: Annotated[str, msgspec.Meta(max_length=1024, description="Only with this capability.")] | None = None,
    scope: Annotated[
        str, msgspec.Meta(pattern="^(local|mesh)$", description="mesh: only what is offered to it.")
    ] = "local",
) -> Answer:
    """Return the records of this host."""
    wanted = ServiceScope.MESH if scope == ServiceScope.MESH.value else None
    found = node_of(request).ports.services.lookup_all(name, capability, wanted)
    return answer({"services": [record.to_wire() for record in found]})


# --- transfers -------------------------------------------------------------------------------------------------------

TransferId = Annotated[str, msgspec.Meta(description="Id of a transfer.", max_length=256)]


@get(
    "/transfers/{transfer_id}",
    summary="What became of a transfer from here",
    reply=replies.OutcomeReply,
)
async def outcome(
    request: Request,
    transfer_id: TransferId,
    vote: Annotated[str, msgspec.Meta(max_length=256, description="The vote the target holds.")] = "",
) -> Answer:
    """Return committed, aborted or pending."""
    return answer({"outcome": node_of(request).departures.outcome(transfer_id, vote).value})


@post(
    "/transfers/{transfer_id}/commit",
    summary="Commit a transfer to here",
    reply=replies.CommitReply,
)
async def commit(request: Request, transfer_id: TransferId, data: bodies.VoteBody) -> Answer:
    """Let an arrived paglet live."""
    return encoded(await hot.commit(node_of(request), transfer_id, data.vote))


@post(
    "/transfers/{transfer_id}/abort",
    summary="Call a transfer to here off",
    reply=replies.OkReply,
)
async def abort(request: Request, transfer_id: TransferId) -> Answer:
    """Discard an arrived paglet."""
    node_of(request).arrivals.abort(transfer_id)
    return answer({"ok": True})


@post(
    "/transfers/{transfer_id}/settled",
    summary="Settle a transfer to here",
    reply=replies.OkReply,
)
async def settled(request: Request, transfer_id: TransferId, data: bodies.VoteBody) -> Answer:
    """Forget a transfer: the source will never ask again."""
    return encoded(hot.settle(node_of(request), transfer_id, data.vote))


@get(
    "/transfers/{transfer_id}/location",
    summary="Where an arrived paglet is",
    reply=replies.LocationReply,
)
async def location(request: Request, transfer_id: TransferId) -> Answer:
    """Wait until its ``run`` has settled and return its proxy."""
    return answer({"proxy": await node_of(request).arrivals.location(transfer_id)})


ROUTES: list[Route] = [
    health,
    hosts,
    join,
    git_update,
    events,
    agents,
    create,
    agent,
    agent_state,
    deliver,
    dispatch,
    clone,
    retract,
    deactivate,
    activate,
    dispose,
    advertise,
    unadvertise,
    services,
    outcome,
    commit,
    abort,
    settled,
    location,
    *allowances.ROUTES,
    *leases.ROUTES,
    *tracks.ROUTES,
    *letters.ROUTES,
    *artifacts.ROUTES,
    *blobs.ROUTES,
    *draining.ROUTES,
]
