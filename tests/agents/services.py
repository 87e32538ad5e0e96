"""A service with a typed contract, and paglets that use it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from paglets.core.agent import Paglet, PagletState, handler
from paglets.core.errors import PagletError
from paglets.core.messages import Message
from paglets.core.runtime_values import ServiceScope
from paglets.remote.references import PagletProxyRef
from paglets.services.contracts import EmptyPayload, ServiceContract, ServiceOperation


class Shade(Enum):
    LIGHT = "light"
    DARK = "dark"


@dataclass(frozen=True)
class Order:
    text: str
    shade: Shade = Shade.LIGHT
    data: bytes = b""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Receipt:
    text: str
    shade: Shade
    data: bytes
    host: str
    extra: dict[str, Any] = field(default_factory=dict)


PAINT = ServiceOperation("paint", Order, Receipt)
PING = ServiceOperation("ping")
CONTRACT = ServiceContract("tests.painter", (PAINT, PING))
NEWER = ServiceContract("tests.painter", (PAINT, PING), version="2")


@dataclass
class PainterState(PagletState):
    scope: str = "local"
    """Empty to advertise nothing."""
    lie: bool = False
    pings: int = 0
    plain: str = ""
    """Name of a service without a contract."""


class Painter(Paglet[PainterState]):
    State = PainterState

    def on_creation(self, event: Any) -> None:
        if self.state.scope:
            self.advertise_contract(CONTRACT, scope=ServiceScope(self.state.scope), metadata={"colours": 3})
        if self.state.plain:
            self.advertise_service(self.state.plain, capabilities=["a", "b"], metadata={"m": 1})

    def _paint(self, order: Order) -> Receipt:
        return Receipt(order.text.upper(), order.shade, order.data[::-1], self.context.name, order.extra)

    def _ping(self, _: EmptyPayload) -> EmptyPayload:
        self.state.pings += 1
        return EmptyPayload()

    def handle_message(self, message: Message) -> Any:
        if self.state.lie and message.kind == "paint":
            return {"text": 3}
        default = object()
        reply = CONTRACT.route(message, {PAINT: self._paint, PING: self._ping}, default=default)
        return super().handle_message(message) if reply is default else reply

    @handler
    def withdraw(self, name: str) -> int:
        return len(self.unadvertise_service(name))

    @handler
    def offer(self, name: str, ttl: float | None = None) -> float | None:
        return self.advertise_service(name, ttl=ttl).expires_at


@dataclass
class CustomerState(PagletState):
    friend: PagletProxyRef | None = None


class Customer(Paglet[CustomerState]):
    """Find services and call them, from inside a paglet."""

    State = CustomerState

    @handler
    def buy(self, text: str, scope: str = "mesh") -> dict[str, Any]:
        handle = self.require_contract(CONTRACT, operation=PAINT, scope=ServiceScope(scope))
        receipt = handle.call(PAINT, Order(text, Shade.DARK, b"\x00\xff", {"deep": [b"\x01", {"b": b"\x02"}]}))
        handle.send_oneway(PING)
        return {
            "text": receipt.text,
            "shade": receipt.shade.value,
            "data": receipt.data,
            "host": receipt.host,
            "extra": receipt.extra,
            "metadata": handle.record.metadata["colours"],
        }

    @handler
    def find(
        self, name: str | None = None, capability: str | None = None, scope: str = "local"
    ) -> list[dict[str, Any]]:
        records = self.lookup_services(name, capability=capability, scope=ServiceScope(scope))
        return [record.to_wire() for record in records]

    @handler
    def find_one(self, name: str, scope: str = "local") -> dict[str, str] | None:
        ref = self.lookup_service(name, scope=ServiceScope(scope))
        return None if ref is None else ref.to_wire()

    @handler
    def find_contract(self, newer: bool = False, scope: str = "mesh") -> list[Any]:
        contract = NEWER if newer else CONTRACT
        found = self.lookup_contract(contract, scope=ServiceScope(scope))
        everything = self.lookup_contracts(contract, scope=ServiceScope(scope))
        try:
            self.require_contract(contract, scope=ServiceScope(scope))
            required = "found"
        except PagletError as exc:
            required = type(exc).__name__
        return [None if found is None else found.record.host_name, len(everything), required]

    @handler
    def lease(self) -> str:
        try:
            self.lease_contract(CONTRACT, scope=ServiceScope.LOCAL)
        except PagletError as exc:
            return type(exc).__name__
        return "leased"

    @handler
    def befriend(self, friend: PagletProxyRef) -> None:
        self.state.friend = friend

    @handler
    def ask_friend(self) -> bool:
        assert self.state.friend is not None
        return bool(self.state.friend.resolve(self.context).is_active())
