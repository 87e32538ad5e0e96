"""The routes of a host, grouped by topic; each one turns a request into one operation of the node."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody, PathParameter, QueryParameter

from paglets.core.errors import HostError
from paglets.core.policies import DeactivationRequest
from paglets.core.runtime_values import ArrivalMode, ServiceScope, enum_from_wire
from paglets.persistence.envelope import PagletEnvelope
from paglets.remote.transfer import TransferTicket
from paglets.remote.transport import restore_json_safe
from paglets.runtime.http import bodies
from paglets.runtime.http.answers import answer
from paglets.runtime.node import Node
from paglets.runtime.post import Posting
from paglets.serialization.values import unpack

AnyRequest = Request[Any, Any, Any]
Answer = Response[bytes]

MAX_EVENTS = 1000
_BINARY_MARK = b'"__paglets_binary__"'

_ERRORS = {
    400: "malformed, or refused by the paglet or the host",
    401: "the bearer key is missing or wrong",
    403: "not allowed: a class, a page of another site, an unknown host name",
    404: "no such route or paglet",
    408: "the request did not come in time",
    409: "the id is taken, or another operation is in progress",
    413: "the body is too large",
    415: "the body is neither JSON nor a movement",
    422: "the paglet does not handle this message",
    429: "the mailbox or the host is full",
}
RESPONSES = {
    status: ResponseSpec(bodies.ErrorBody, description=text, generate_examples=False)
    for status, text in _ERRORS.items()
}
AgentId = Annotated[str, PathParameter(description="Id of a paglet.", max_length=1024)]


def node_of(request: AnyRequest) -> Node:
    """Return the node that serves a request."""
    node: Node = request.app.state.node
    return node


def restored(body: bytes, value: Any) -> Any:
    """Return a decoded value with tagged binary data restored, where the body has any."""
    return restore_json_safe(value) if _BINARY_MARK in body else value


# --- the host --------------------------------------------------------------------------------------------------------------


@get("/health", summary="Who this host is and how it does", responses=RESPONSES)
async def health(request: AnyRequest) -> Answer:
    """Return name, address, counts, version, capabilities, tags and properties."""
    return answer(node_of(request).ports.health())


@get("/hosts", summary="The hosts this host knows", responses=RESPONSES)
async def hosts(request: AnyRequest) -> Answer:
    """Return every known host, this one and offline ones included."""
    return answer({"hosts": [ref.to_wire() for ref in node_of(request).ports.mesh.hosts()]})


@post("/hosts/join", status_code=200, summary="Join the mesh", responses=RESPONSES)
async def join(request: AnyRequest, data: JSONBody[dict[str, Any]]) -> Answer:
    """Register the calling host and return every known host."""
    mesh = node_of(request).ports.mesh
    try:
        mesh.register_wire(data)
    except (KeyError, TypeError, ValueError) as exc:
        raise HostError(f"malformed host record: {exc}") from None
    return answer({"hosts": [ref.to_wire() for ref in mesh.hosts()]})


@get("/events", summary="What happened on this host", responses=RESPONSES)
async def events(
    request: AnyRequest,
    since: Annotated[int, QueryParameter(ge=0, le=2**53, description="Only events with a greater id.")] = 0,
    limit: Annotated[int, QueryParameter(ge=0, le=MAX_EVENTS, description="At most so many, oldest first.")] = 100,
) -> Answer:
    """Return events, oldest first."""
    found = node_of(request).kernel.events.events_since(since, limit=limit)
    return answer({"events": [event.to_wire() for event in found]})


# --- paglets ---------------------------------------------------------------------------------------------------------------


@get("/agents", summary="The paglets of this host", responses=RESPONSES)
async def agents(
    request: AnyRequest,
    state_filter: Annotated[
        str, QueryParameter(name="state", pattern="^(active|inactive|all)$", description="Which ones.")
    ] = "active",
    include_state: Annotated[
        str, QueryParameter(description="1, true or yes adds each one's state.", max_length=10)
    ] = "",
) -> Answer:
    """Return summaries."""
    found = await node_of(request).list_agents(
        active=state_filter in ("active", "all"),
        inactive=state_filter in ("inactive", "all"),
        include_state=include_state.lower() in ("1", "true", "yes"),
    )
    return answer({"agents": found})


@post("/agents", status_code=200, summary="Create a paglet, or import one from an envelope", responses=RESPONSES)
async def create(request: AnyRequest, data: JSONBody[bodies.CreateBody]) -> Answer:
    """Create a paglet by class name; a body of type application/x-paglets-movement moves one here instead."""
    body = await request.body()
    node = node_of(request)
    if data.envelope is not None:
        return answer({"proxy": await import_envelope(node, restored(body, data.envelope))})
    if not data.agent_class_name:
        raise HostError("agent_class_name is missing")
    proxy = await node.create(
        data.agent_class_name,
        data.state_class_name or "",
        restored(body, data.state),
        init=restored(body, data.init),
        agent_id=data.agent_id,
    )
    return answer({"proxy": proxy})


async def import_envelope(node: Node, wire: dict[str, Any]) -> dict[str, str]:
    """Take a paglet from an envelope with its state in plain values, all in one step.

    :raises HostError: the envelope is malformed.
    """
    try:
        envelope = PagletEnvelope.from_wire(wire)
    except (KeyError, TypeError, ValueError) as exc:
        raise HostError(f"malformed envelope: {exc}") from None
    return await node.import_envelope(envelope)


@get("/agents/{agent_id:str}", summary="One paglet", responses=RESPONSES)
async def agent(request: AnyRequest, agent_id: AgentId) -> Answer:
    """Return its summary."""
    return answer(node_of(request).summary(agent_id))


@get("/agents/{agent_id:str}/state", summary="A paglet's state", responses=RESPONSES)
async def agent_state(request: AnyRequest, agent_id: AgentId) -> Answer:
    """Return its summary and its state in plain values."""
    return answer(await node_of(request).state_payload(agent_id))


@post("/agents/{agent_id:str}/messages", status_code=200, summary="Send a message", responses=RESPONSES)
async def deliver(request: AnyRequest, agent_id: AgentId, data: JSONBody[bodies.DeliverBody]) -> Answer:
    """Deliver a message and return the handler's reply."""
    message = data.message.message()
    body = await request.body()
    if _BINARY_MARK in body:
        message.args = restore_json_safe(message.args)
        message.arg = restore_json_safe(message.arg)
    posting = Posting.of(
        message, oneway=data.oneway, activate_if_inactive=data.activate_if_inactive, no_delay=data.no_delay
    )
    reply = await node_of(request).post.send(agent_id, posting)
    if reply is None:
        return answer({"result": None})
    try:
        return answer({"result": unpack(reply.view())})
    finally:
        reply.close()


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


@post("/agents/{agent_id:str}/dispatch", status_code=200, summary="Move a paglet", responses=RESPONSES)
async def dispatch(request: AnyRequest, agent_id: AgentId, data: JSONBody[bodies.MoveBody]) -> Answer:
    """Move it to another host and return its proxy there."""
    ticket = ticket_of(data)
    if ticket is None:
        raise HostError("ticket or target is missing")
    return answer({"proxy": await node_of(request).dispatch(agent_id, ticket)})


@post("/agents/{agent_id:str}/clone", status_code=200, summary="Copy a paglet", responses=RESPONSES)
async def clone(request: AnyRequest, agent_id: AgentId, data: JSONBody[bodies.MoveBody | None]) -> Answer:
    """Copy it, here when no target is given, and return the copy's proxy."""
    ticket = None if data is None else ticket_of(data)
    return answer({"proxy": await node_of(request).clone(agent_id, ticket)})


@post("/agents/{agent_id:str}/retract", status_code=200, summary="Pull a paglet", responses=RESPONSES)
async def retract(request: AnyRequest, agent_id: AgentId, data: JSONBody[bodies.RetractBody]) -> Answer:
    """Send it to the host that asks for it."""
    return answer({"proxy": await node_of(request).retract_to(agent_id, data.target)})


@post("/agents/{agent_id:str}/deactivate", status_code=200, summary="Store a paglet", responses=RESPONSES)
async def deactivate(request: AnyRequest, agent_id: AgentId, data: JSONBody[bodies.DeactivateBody | None]) -> Answer:
    """Store it on disk and end its process."""
    wire = None if data is None else data.request
    stored = None if wire is None else DeactivationRequest.from_wire(wire)
    return answer({"proxy": await node_of(request).deactivate(agent_id, stored), "ok": True})


@post("/agents/{agent_id:str}/activate", status_code=200, summary="Wake a paglet", responses=RESPONSES)
async def activate(request: AnyRequest, agent_id: AgentId) -> Answer:
    """Bring an inactive paglet back."""
    return answer({"proxy": await node_of(request).activate(agent_id)})


@post("/agents/{agent_id:str}/dispose", status_code=200, summary="End a paglet", responses=RESPONSES)
async def dispose(request: AnyRequest, agent_id: AgentId) -> Answer:
    """End it for good."""
    await node_of(request).dispose(agent_id)
    return answer({"ok": True})


# --- services --------------------------------------------------------------------------------------------------------------


@post("/agents/{agent_id:str}/services", status_code=200, summary="Advertise a service", responses=RESPONSES)
async def advertise(request: AnyRequest, agent_id: AgentId, data: JSONBody[bodies.ServiceBody]) -> Answer:
    """Make a paglet findable under a service name."""
    record = node_of(request).advertise(
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
    responses=RESPONSES,
)
async def unadvertise(request: AnyRequest, agent_id: AgentId, data: JSONBody[bodies.ServiceNameBody]) -> Answer:
    """Withdraw a paglet's record and return what was removed."""
    removed = node_of(request).unadvertise(data.name, agent_id)
    return answer({"services": [record.to_wire() for record in removed]})


@get("/services", summary="Services of this host", responses=RESPONSES)
async def services(
    request: AnyRequest,
    name: Annotated[str | None, QueryParameter(max_length=1024, description="Only this service.")] = None,
    capability: Annotated[str | None, QueryParameter(max_length=1024, description="Only with this capability.")] = None,
    scope_filter: Annotated[
        str, QueryParameter(name="scope", pattern="^(local|mesh)$", description="mesh: only what is offered to it.")
    ] = "local",
) -> Answer:
    """Return the records of this host."""
    wanted = ServiceScope.MESH if scope_filter == ServiceScope.MESH.value else None
    found = node_of(request).ports.services.lookup_all(name, capability, wanted)
    return answer({"services": [record.to_wire() for record in found]})


# --- transfers -------------------------------------------------------------------------------------------------------------

TransferId = Annotated[str, PathParameter(description="Id of a transfer.", max_length=256)]


@get("/transfers/{transfer_id:str}", summary="What became of a transfer from here", responses=RESPONSES)
async def outcome(
    request: AnyRequest,
    transfer_id: TransferId,
    vote: Annotated[str, QueryParameter(max_length=256, description="The vote the target holds.")] = "",
) -> Answer:
    """Return committed, aborted or pending."""
    return answer({"outcome": node_of(request).departures.outcome(transfer_id, vote).value})


@post("/transfers/{transfer_id:str}/commit", status_code=200, summary="Commit a transfer to here", responses=RESPONSES)
async def commit(request: AnyRequest, transfer_id: TransferId, data: JSONBody[bodies.VoteBody]) -> Answer:
    """Let an arrived paglet live."""
    return answer(await node_of(request).arrivals.commit(transfer_id, data.vote))


@post("/transfers/{transfer_id:str}/abort", status_code=200, summary="Call a transfer to here off", responses=RESPONSES)
async def abort(request: AnyRequest, transfer_id: TransferId) -> Answer:
    """Discard an arrived paglet."""
    node_of(request).arrivals.abort(transfer_id)
    return answer({"ok": True})


@post("/transfers/{transfer_id:str}/settled", status_code=200, summary="Settle a transfer to here", responses=RESPONSES)
async def settled(request: AnyRequest, transfer_id: TransferId, data: JSONBody[bodies.VoteBody]) -> Answer:
    """Forget a transfer: the source will never ask again."""
    node_of(request).arrivals.settled(transfer_id, data.vote)
    return answer({"ok": True})


@get("/transfers/{transfer_id:str}/location", summary="Where an arrived paglet is", responses=RESPONSES)
async def location(request: AnyRequest, transfer_id: TransferId) -> Answer:
    """Wait until its ``run`` has settled and return its proxy."""
    return answer({"proxy": await node_of(request).arrivals.location(transfer_id)})


ROUTES: list[HTTPRouteHandler] = [
    health,
    hosts,
    join,
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
]
