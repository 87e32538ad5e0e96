"""A stand-in for a paglet, for `async` code: `PagletProxy` with every call to the host a coroutine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

from paglets.core.errors import PagletError
from paglets.core.messages import FUTURE, ONEWAY, Message
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.remote import requests
from paglets.remote.calls import CallOptions, prepare_call
from paglets.remote.client import HostClient
from paglets.remote.content import local_path
from paglets.remote.proxy import PagletProxy
from paglets.remote.references import PagletProxyRef
from paglets.remote.transfer import TransferTicket

if TYPE_CHECKING:
    from paglets.remote.aio import AsyncHostClient

__all__ = ["AsyncPagletCalls", "AsyncPagletProxy"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AsyncPagletProxy:
    """Stand for one paglet, wherever it is; the methods are those of `PagletProxy`."""

    host_url: str
    """Where the paglet was when the proxy was made."""
    agent_id: str
    """Its identity."""
    client: AsyncHostClient
    """What talks to the host."""

    # --- identity --------------------------------------------------------------------------------------------------

    def to_wire(self) -> dict[str, str]:
        """Return the location as plain values."""
        return {"host_url": self.host_url, "agent_id": self.agent_id}

    def ref(self) -> PagletProxyRef:
        """Return a reference that can be stored and sent."""
        return PagletProxyRef(self.host_url, self.agent_id)

    @classmethod
    def from_wire(cls, payload: dict[str, str], client: AsyncHostClient) -> AsyncPagletProxy:
        """Restore a proxy from a location; raise `SerializationError` if host URL or agent id is missing."""
        ref = PagletProxyRef.from_wire(payload)
        return cls(ref.host_url, ref.agent_id, client)

    def sync(self, client: HostClient | None = None) -> PagletProxy:
        """Return the same proxy for threads.

        :param client: by default a fresh one with the timeout and key of this proxy's.
        """
        if client is None:
            client = HostClient(self.client.timeout, api_key=self.client.api_key, ssl_context=self.client.ssl_context)
        return PagletProxy(self.host_url, self.agent_id, client)

    def get_address(self) -> str:
        """Return the URL of the host that the paglet was on when the proxy was made."""
        return self.host_url

    def get_agent_id(self) -> str:
        """Return the paglet's identity."""
        return self.agent_id

    def is_remote(self, local_host_url: str | None = None) -> bool:
        """Tell whether the paglet is on another host than the given one; without one it always is."""
        return local_host_url is None or self.host_url.rstrip("/") != local_host_url.rstrip("/")

    # --- condition -------------------------------------------------------------------------------------------------

    async def info(self) -> dict[str, Any]:
        """Return the summary that the host gives of the paglet."""
        return await self.client.agent_info(self.host_url, self.agent_id)

    async def is_valid(self) -> bool:
        """Tell whether the host knows the paglet; False if it cannot be asked."""
        return await self._active() is not None

    async def is_active(self) -> bool:
        """Tell whether the paglet runs; False if its host cannot be asked."""
        return await self._active() is True

    async def is_state(self, state: int | bool) -> bool:
        """Tell whether the paglet is in one of the states of a mask; see `PagletProxy.is_state`."""
        return requests.matches_state(await self._active(), state)

    async def get_agent_class_name(self) -> str:
        """Return the name of the paglet's class as `module:qualname`."""
        return str(requests.field_of(await self.info(), "class_name", self.host_url))

    async def _active(self) -> bool | None:
        try:
            return bool((await self.info()).get("active"))
        except PagletError:
            return None

    # --- messages --------------------------------------------------------------------------------------------------

    async def send(
        self,
        message: Message,
        *,
        activate_if_inactive: bool = True,
        no_delay: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Send a message and return the reply of the handler; see `PagletProxy.send`.

        Cancelling it withdraws the message, unless the handler has begun.
        """
        return await self.client.deliver(
            self.host_url,
            self.agent_id,
            requests.with_reply(message),
            activate_if_inactive=activate_if_inactive,
            no_delay=no_delay,
            timeout=timeout,
        )

    async def send_oneway(
        self,
        message: Message,
        *,
        activate_if_inactive: bool = True,
        no_delay: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Send a message and return as soon as the host accepted it."""
        await self.client.deliver(
            self.host_url,
            self.agent_id,
            replace(message, message_type=ONEWAY),
            oneway=True,
            activate_if_inactive=activate_if_inactive,
            no_delay=no_delay,
            timeout=timeout,
        )

    def send_future(
        self, message: Message, *, activate_if_inactive: bool = True, no_delay: bool = False
    ) -> asyncio.Task[Any]:
        """Send a message from a task of its own and return that task; its result is the reply.

        Cancelling the task withdraws the message, unless the handler has begun.
        """
        copy = replace(message, message_type=FUTURE)
        return asyncio.create_task(
            self.send(copy, activate_if_inactive=activate_if_inactive, no_delay=no_delay),
            name=f"paglets-send-{message.message_id}",
        )

    async def send_artifact(
        self,
        message: Message,
        path: str | Path,
        *,
        arg_name: str = "artifact",
        move: bool = False,
        name: str | None = None,
        compression: str = "",
        timeout: float | None = None,
    ) -> Any:
        """Upload a file, send a message that refers to it, and return the reply; see `PagletProxy.send_artifact`."""
        source = local_path(path)
        artifact = await self.client.upload_artifact(
            self.client.routes.best(self.agent_id, self.host_url)[0],
            source,
            owner_agent_id=self.agent_id,
            name=name,
            compression=compression,
            timeout=timeout,
        )
        try:
            reply = await self.send(requests.with_artifact(message, arg_name, artifact), timeout=timeout)
        except BaseException:
            with suppress(PagletError):
                await self.client.delete_artifact(artifact)
            raise
        if move:
            await asyncio.to_thread(source.unlink)
        return reply

    # --- typed calls -----------------------------------------------------------------------------------------------

    @overload
    async def call(
        self, method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...

    @overload
    async def call(self, method: Callable[Concatenate[Any, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    async def call(self, method: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a handler of the paglet, like `await proxy.call(Counter.increment, by=2)`; see `PagletProxy.call`."""
        return await self._call(CallOptions(), method, args, kwargs)

    async def call_oneway(
        self, method: Callable[Concatenate[Any, P], Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Call a handler of the paglet and return as soon as the host accepted the call."""
        await self._call_oneway(CallOptions(), method, args, kwargs)

    def with_options(self, options: CallOptions) -> AsyncPagletCalls:
        """Return what makes calls with other options; see `PagletProxy.with_options`."""
        return AsyncPagletCalls(self, options)

    async def _call(
        self, options: CallOptions, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        pending = prepare_call(method, args, kwargs)
        reply = await self.send(
            pending.message,
            activate_if_inactive=options.activate_if_inactive,
            # A stored message is answered with a receipt, which is nothing that the handler returned.
            no_delay=True,
            timeout=options.timeout,
        )
        return pending.result(reply, self.agent_id)

    async def _call_oneway(
        self, options: CallOptions, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        await self.send_oneway(
            prepare_call(method, args, kwargs).message,
            activate_if_inactive=options.activate_if_inactive,
            no_delay=options.no_delay,
            timeout=options.timeout,
        )

    # --- life ------------------------------------------------------------------------------------------------------

    async def dispatch(self, target: str | TransferTicket) -> AsyncPagletProxy:
        """Move the paglet to another host and return a proxy for it there; see `PagletProxy.dispatch`."""
        return await self._operate("dispatch", requests.move_payload(target))

    async def clone(self, target: str | TransferTicket | None = None) -> AsyncPagletProxy:
        """Copy the paglet, to another host or on its own, and return a proxy for the copy."""
        return await self._operate("clone", requests.move_payload(target))

    async def deactivate(
        self,
        *,
        reason: str = "deactivate",
        policy: DeactivationPolicy | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> AsyncPagletProxy:
        """Store the paglet and end its process; see `PagletProxy.deactivate`."""
        request = DeactivationRequest(reason=reason, source="external", policy=policy, metadata=metadata or {})
        return await self._operate("deactivate", {"request": request.to_wire()})

    async def activate(self) -> AsyncPagletProxy:
        """Wake the paglet and return when it runs and has handled what was stored for it."""
        return await self._operate("activate", {})

    async def dispose(self) -> None:
        """End the paglet for good."""
        await self.client.operate(self.host_url, self.agent_id, "dispose", {})

    async def _operate(self, operation: str, payload: dict[str, Any]) -> AsyncPagletProxy:
        reply = await self.client.operate(self.host_url, self.agent_id, operation, payload)
        ref = requests.location_of(reply, self.host_url)
        return AsyncPagletProxy(ref.host_url, ref.agent_id, self.client)


@dataclass(frozen=True, slots=True)
class AsyncPagletCalls:
    """Make typed calls to a paglet with the same options each."""

    proxy: AsyncPagletProxy
    options: CallOptions

    @overload
    async def call(
        self, method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...

    @overload
    async def call(self, method: Callable[Concatenate[Any, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    async def call(self, method: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a handler of the paglet; see `PagletProxy.call`."""
        return await self.proxy._call(self.options, method, args, kwargs)

    async def call_oneway(
        self, method: Callable[Concatenate[Any, P], Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Call a handler of the paglet and return as soon as the host accepted the call."""
        await self.proxy._call_oneway(self.options, method, args, kwargs)
