"""The documented routes of a host, grouped by topic; each one turns a request into one operation of the node."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final

import msgspec
from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody, PathParameter, QueryParameter

from paglets.core.allowance import NO_LIMITS
from paglets.core.errors import HostError, SerializationError
from paglets.core.policies import DeactivationRequest
from paglets.core.runtime_values import ArrivalMode, ServiceScope, enum_from_wire
from paglets.remote.transfer import TransferTicket
from paglets.runtime.http import allowances, artifacts, blobs, bodies, draining, hot, leases, letters, replies, tracks
from paglets.runtime.http.answers import Answer, answer, encoded, listing
from paglets.runtime.http.documented import (
    AgentId,
    JsonRequest,
    MovementOperation,
    caller_of,
    documented,
    node_of,
    served_by,
)
from paglets.runtime.http.followers import MAX_WAIT_SECONDS
from paglets.runtime.http.movements import import_envelope

MAX_EVENTS = 1000

# The first one is the default.
_STATES: Final = ("active", "inactive", "all")
_SCOPES: Final = (ServiceScope.LOCAL.value, ServiceScope.MESH.value)


def chosen(name: str, value: str, choices: tuple[str, ...]) -> str:
    """Return which of some values a query parameter has; a blank one counts as the first.

    It is checked here because Litestar calls some parameters by another name than whoever asks.

    :raises SerializationError: it has another value.
    """
    if value and value not in choices:
        raise SerializationError(f"{name}: {value[:100]!r} is none of {', '.join(choices)}")
    return value or choices[0]


# --- the host --------------------------------------------------------------------------------------------------------


@get("/health", summary="Who this host is and how it does", responses=documented(replies.HealthReply))
async def health(request: JsonRequest) -> Answer:
    """Return name, address, counts, version, capabilities, tags and properties."""
    return encoded(hot.health(node_of(request)))


@get("/hosts", summary="The hosts this host knows", responses=documented(replies.HostsReply))
async def hosts(request: JsonRequest) -> Answer:
    """Return every known host, this one and offline ones included."""
    return answer({"hosts": [ref.to_wire() for ref in node_of(request).ports.mesh.hosts()]})


@post("/hosts/join", status_code=200, summary="Join the mesh", responses=documented(replies.JoinReply))
async def join(request: JsonRequest, data: JSONBody[bodies.JoinBody]) -> Answer:
    """Register the calling host and return every known host, or what its gossip lacks."""
    return encoded(hot.join(node_of(request), data))


@post(
    "/admin/git-update",
    status_code=200,
    summary="Update from version control",
    responses=documented(replies.UpdateReply),
)
async def git_update(request: JsonRequest, data: JSONBody[bodies.GitUpdateBody]) -> Answer:
    """Update the program of this host, where that is enabled, and return what became of it."""
    return answer(node_of(request).ports.git_update(msgspec.to_builtins(data)))


@get("/events", summary="What happened on this host", responses=documented(replies.EventsReply))
async def events(
    request: JsonRequest,
    since: Annotated[int, QueryParameter(ge=0, le=2**53, description="Only events with a greater id.")] = 0,
    limit: Annotated[int, QueryParameter(ge=0, le=MAX_EVENTS, description="At most so many, oldest first.")] = 100,
    wait: Annotated[
        float,
        QueryParameter(ge=0, le=MAX_WAIT_SECONDS, description="Seconds to wait for an event while there is none."),
    ] = 0,
) -> Answer:
    """Return events, oldest first; with ``wait`` as soon as there is one."""
    found = await served_by(request).followers.events(since, limit=limit, wait=wait, gone=partial(hung_up, request))
    return answer({"events": [event.to_wire() for event in found]})


async def hung_up(request: JsonRequest) -> None:
    """Return when whoever asked has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        continue


# --- paglets ---------------------------------------------------------------------------------------------------------


@get("/agents", summary="The paglets of this host", responses=documented(replies.AgentsReply))
async def agents(
    request: JsonRequest,
    state_filter: Annotated[
        str, QueryParameter(name="state", enum=("", *_STATES), description="Which ones; those that are active.")
    ] = "",
    include_state: Annotated[
        str, QueryParameter(description="1, true or yes adds each one's state.", max_length=10)
    ] = "",
) -> Answer:
    """Return summaries."""
    state = chosen("state", state_filter, _STATES)
    found = await node_of(request).views.list_agents(
        active=state in ("active", "all"),
        inactive=state in ("inactive", "all"),
        include_state=include_state.lower() in ("1", "true", "yes"),
    )
    return encoded(listing(found))


@post(
    "/agents",
    status_code=200,
    summary="Create a paglet, or import one from an envelope",
    operation_class=MovementOperation,
    responses=documented(replies.MovementReply),
)
async def create(request: JsonRequest, data: JSONBody[bodies.CreateBody]) -> Answer:
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


@get("/agents/{agent_id:str}", summary="One paglet", responses=documented(replies.AgentReply))
async def agent(request: JsonRequest, agent_id: AgentId) -> Answer:
    """Return its summary."""
    return answer(node_of(request).views.summary(agent_id))


@get("/agents/{agent_id:str}/state", summary="A paglet's state", responses=documented(replies.StateReply))
async def agent_state(request: JsonRequest, agent_id: AgentId) -> Answer:
    """Return its summary and its state in plain values."""
    return answer(await node_of(request).views.state_payload(agent_id))


@post(
    "/agents/{agent_id:str}/messages",
    status_code=200,
    summary="Send a message",
    responses=documented(replies.ResultReply),
)
async def deliver(request: JsonRequest, agent_id: AgentId, data: JSONBody[bodies.DeliverBody]) -> Answer:
    """Deliver a message and return the handler's reply."""
    return encoded(await hot.deliver(node_of(request), agent_id, hot.posting_of(data)))


def ticket_of(data: JSONBody[bodies.MoveBody]) -> TransferTicket | None:
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
    "/agents/{agent_id:str}/dispatch",
    status_code=200,
    summary="Move a paglet",
    responses=documented(replies.ProxyReply),
)
async def dispatch(request: JsonRequest, agent_id: AgentId, data: JSONBody[bodies.MoveBody]) -> Answer:
    """Move it to another host and return its proxy there."""
    ticket = ticket_of(data)
    if ticket is None:
        raise HostError("ticket or target is missing")
    return answer({"proxy": await node_of(request).dispatch(agent_id, ticket)})


@post(
    "/agents/{agent_id:str}/clone", status_code=200, summary="Copy a paglet", responses=documented(replies.ProxyReply)
)
async def clone(request: JsonRequest, agent_id: AgentId, data: JSONBody[bodies.MoveBody | None] = None) -> Answer:
    """Copy it, here when no target is given, and return the copy's proxy."""
    ticket = None if data is None else ticket_of(data)
    return answer({"proxy": await node_of(request).clone(agent_id, ticket)})


@post(
    "/agents/{agent_id:str}/retract", status_code=200, summary="Pull a paglet", responses=documented(replies.ProxyReply)
)
async def retract(request: JsonRequest, agent_id: AgentId, data: JSONBody[bodies.RetractBody]) -> Answer:
    """Send it to the host that asks for it."""
    return answer({"proxy": await node_of(request).retract_to(agent_id, data.target)})


@post(
    "/agents/{agent_id:str}/deactivate",
    status_code=200,
    summary="Store a paglet",
    responses=documented(replies.DeactivateReply),
)
async def deactivate(
    request: JsonRequest, agent_id: AgentId, data: JSONBody[bodies.DeactivateBody | None] = None
) -> Answer:
    """Store it on disk and end its process."""
    wire = None if data is None else data.request
    stored = None if wire is None else DeactivationRequest.from_wire(wire)
    return answer({"proxy": await node_of(request).deactivate(agent_id, stored), "ok": True})


@post(
    "/agents/{agent_id:str}/activate",
    status_code=200,
    summary="Wake a paglet",
    responses=documented(replies.ProxyReply),
)
async def activate(request: JsonRequest, agent_id: AgentId) -> Answer:
    """Bring an inactive paglet back."""
    return answer({"proxy": await node_of(request).activate(agent_id)})


@post("/agents/{agent_id:str}/dispose", status_code=200, summary="End a paglet", responses=documented(replies.OkReply))
async def dispose(request: JsonRequest, agent_id: AgentId) -> Answer:
    """End it for good."""
    await node_of(request).dispose(agent_id)
    return answer({"ok": True})


# --- services --------------------------------------------------------------------------------------------------------


@post(
    "/agents/{agent_id:str}/services",
    status_code=200,
    summary="Advertise a service",
    responses=documented(replies.ServiceReply),
)
async def advertise(request: JsonRequest, agent_id: AgentId, data: JSONBody[bodies.ServiceBody]) -> Answer:
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
    "/agents/{agent_id:str}/unadvertise-service",
    status_code=200,
    summary="Withdraw a service",
    responses=documented(replies.ServicesReply),
)
async def unadvertise(request: JsonRequest, agent_id: AgentId, data: JSONBody[bodies.ServiceNameBody]) -> Answer:
    """Withdraw a paglet's record and return what was removed."""
    removed = node_of(request).services.unadvertise(data.name, agent_id)
    return answer({"services": [record.to_wire() for record in removed]})


@get("/services", summary="Services of this host", responses=documented(replies.ServicesReply))
async def services(
    request: JsonRequest,
    name: Annotated[
        str | None, QueryParameter(max_length=hot.MAX_NAME_LENGTH, description="Only this service.")
    ] = None,
    capability: Annotated[
        str | None, QueryParameter(max_length=hot.MAX_NAME_LENGTH, description="Only with this capability.")
    ] = None,
    scope_filter: Annotated[
        str, QueryParameter(name="scope", enum=("", *_SCOPES), description="mesh: only what is offered to it.")
    ] = "",
) -> Answer:
    """Return the records of this host."""
    return encoded(hot.services(node_of(request), name, capability, chosen("scope", scope_filter, _SCOPES)))


# --- transfers -------------------------------------------------------------------------------------------------------

TransferId = Annotated[str, PathParameter(description="Id of a transfer.", max_length=hot.MAX_ID_LENGTH)]


@get(
    "/transfers/{transfer_id:str}",
    summary="What became of a transfer from here",
    responses=documented(replies.OutcomeReply),
)
async def outcome(
    request: JsonRequest,
    transfer_id: TransferId,
    vote: Annotated[str, QueryParameter(max_length=256, description="The vote the target holds.")] = "",
) -> Answer:
    """Return committed, aborted or pending."""
    return answer({"outcome": node_of(request).departures.outcome(transfer_id, vote).value})


@post(
    "/transfers/{transfer_id:str}/commit",
    status_code=200,
    summary="Commit a transfer to here",
    responses=documented(replies.CommitReply),
)
async def commit(request: JsonRequest, transfer_id: TransferId, data: JSONBody[bodies.VoteBody]) -> Answer:
    """Let an arrived paglet live."""
    return encoded(await hot.commit(node_of(request), transfer_id, data.vote))


@post(
    "/transfers/{transfer_id:str}/abort",
    status_code=200,
    summary="Call a transfer to here off",
    responses=documented(replies.OkReply),
)
async def abort(request: JsonRequest, transfer_id: TransferId) -> Answer:
    """Discard an arrived paglet."""
    node_of(request).arrivals.abort(transfer_id)
    return answer({"ok": True})


@post(
    "/transfers/{transfer_id:str}/settled",
    status_code=200,
    summary="Settle a transfer to here",
    responses=documented(replies.OkReply),
)
async def settled(request: JsonRequest, transfer_id: TransferId, data: JSONBody[bodies.VoteBody]) -> Answer:
    """Forget a transfer: the source will never ask again."""
    return encoded(hot.settle(node_of(request), transfer_id, data.vote))


@get(
    "/transfers/{transfer_id:str}/location",
    summary="Where an arrived paglet is",
    responses=documented(replies.LocationReply),
)
async def location(request: JsonRequest, transfer_id: TransferId) -> Answer:
    """Wait until its ``run`` has settled and return its proxy."""
    return answer({"proxy": await node_of(request).arrivals.location(transfer_id)})


ROUTES: list[HTTPRouteHandler] = [
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
