"""A stand-in for a paglet on some host: everything a caller can do with it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

from paglets.core.errors import PagletError
from paglets.core.messages import FUTURE, ONEWAY, FutureReply, Message
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.remote import requests, senders
from paglets.remote.calls import CallOptions, prepare_call
from paglets.remote.client import HostClient
from paglets.remote.content import local_path
from paglets.remote.references import PagletProxyRef
from paglets.remote.transfer import TransferTicket

if TYPE_CHECKING:
    from paglets.remote.aio import AsyncHostClient, AsyncPagletProxy

__all__ = ["CallOptions", "PagletCalls", "PagletProxy"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PagletProxy:
    """Stand for one paglet, wherever it is: calls follow it to where it has gone."""

    host_url: str
    """Where the paglet was when the proxy was made."""
    agent_id: str
    """Its identity."""
    client: HostClient
    """What talks to the host."""

    # --- identity --------------------------------------------------------------------------------------------------

    def to_wire(self) -> dict[str, str]:
        """Return the location as plain values."""
        return {"host_url": self.host_url, "agent_id": self.agent_id}

    def ref(self) -> PagletProxyRef:
        """Return a reference that can be stored and sent."""
        return PagletProxyRef(self.host_url, self.agent_id)

    @classmethod
    def from_wire(cls, payload: dict[str, str], client: HostClient | None = None) -> PagletProxy:
        """Restore a proxy from a location.

        :param client: a fresh one by default.
        :raises SerializationError: host URL or agent id is missing.
        """
        ref = PagletProxyRef.from_wire(payload)
        return cls(ref.host_url, ref.agent_id, HostClient() if client is None else client)

    def aio(self, client: AsyncHostClient) -> AsyncPagletProxy:
        """Return the same proxy for use in `async` code, over the given client."""
        # Imported here: programs without a loop need not load an asynchronous HTTP client.
        from paglets.remote.aio import AsyncPagletProxy

        return AsyncPagletProxy(self.host_url, self.agent_id, client)

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

    def info(self) -> dict[str, Any]:
        """Return the summary that the host gives of the paglet.

        :raises PagletError: the host does not know it, or cannot be asked.
        """
        return self.client.agent_info(self.host_url, self.agent_id)

    def is_valid(self) -> bool:
        """Tell whether the host knows the paglet; False if it cannot be asked."""
        return self._active() is not None

    def is_active(self) -> bool:
        """Tell whether the paglet runs; False if its host cannot be asked."""
        return self._active() is True

    def is_state(self, state: int | bool) -> bool:
        """Tell whether the paglet is in one of the states of a mask of `ACTIVE` and `INACTIVE`.

        A bool asks whether `is_active` is just that. False if the host cannot be asked.
        """
        return requests.matches_state(self._active(), state)

    def get_agent_class_name(self) -> str:
        """Return the name of the paglet's class as `module:qualname`.

        :raises PagletError: the host does not know the paglet, or cannot be asked.
        """
        return str(requests.field_of(self.info(), "class_name", self.host_url))

    def _active(self) -> bool | None:
        try:
            return bool(self.info().get("active"))
        except PagletError:
            return None

    # --- messages --------------------------------------------------------------------------------------------------

    def send(
        self,
        message: Message,
        *,
        activate_if_inactive: bool = True,
        no_delay: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Send a message and return the reply of the handler.

        The reply to a message on which the paglet moved itself is its new location, as plain values. To one that is
        stored for a paglet that stays inactive it is ``{"queued": True, "message_id": ...}``.

        :param activate_if_inactive: wake an inactive paglet, if its policy lets messages wake it.
        :param no_delay: fail instead of storing the message for a paglet that stays inactive.
        :param timeout: seconds to wait, the client's by default.
        :raises NotHandledError: the paglet declined the message.
        :raises RemoteTimeoutError: there was no answer in time; the message may be handled all the same.
        :raises PagletError: what the handler or the delivery ended in.
        """
        return self.client.deliver(
            self.host_url,
            self.agent_id,
            requests.with_reply(message),
            oneway=False,
            activate_if_inactive=activate_if_inactive,
            no_delay=no_delay,
            timeout=timeout,
        )

    def send_oneway(
        self,
        message: Message,
        *,
        activate_if_inactive: bool = True,
        no_delay: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Send a message and return as soon as the host accepted it; takes what `send` takes."""
        self.client.deliver(
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
    ) -> FutureReply:
        """Send a message from a thread of its own and return what will hold the reply, and can withdraw the message."""
        copy = replace(message, message_type=FUTURE)
        return FutureReply(
            senders.submit(
                lambda: self.send(copy, activate_if_inactive=activate_if_inactive, no_delay=no_delay),
            ),
            lambda: self.client.withdraw(self.host_url, self.agent_id, copy.message_id),
        )

    def send_artifact(
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
        """Upload a file to where the paglet was found last, send a message that refers to it, and return the reply.

        The artifact belongs to the paglet. Whatever fails, it is deleted again.

        :param arg_name: argument of the message that receives the reference.
        :param move: delete the file after success.
        :param name: name of the artifact, the file name by default.
        :param compression: label that is only stored.
        :raises PagletError: what the upload, the handler or the delivery ended in.
        """
        source = local_path(path)
        artifact = self.client.upload_artifact(
            self.client.routes.best(self.agent_id, self.host_url)[0],
            source,
            owner_agent_id=self.agent_id,
            name=name,
            compression=compression,
            timeout=timeout,
        )
        try:
            reply = self.send(requests.with_artifact(message, arg_name, artifact), timeout=timeout)
        except BaseException:
            with suppress(PagletError):
                self.client.delete_artifact(artifact)
            raise
        if move:
            source.unlink()
        return reply

    # --- typed calls -----------------------------------------------------------------------------------------------

    @overload
    def call(
        self, method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...

    @overload
    def call(self, method: Callable[Concatenate[Any, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    def call(self, method: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a handler of the paglet, like `proxy.call(Counter.increment, by=2)`, and return what it returns.

        :raises TypeError: the method is no handler, or does not take these arguments.
        :raises SerializationError: an argument or the result does not have its declared type.
        :raises PagletInactiveError: it sleeps and the call may not wake it; nothing is stored.
        :raises PagletError: what the handler or the delivery ended in.
        """
        return self._call(CallOptions(), method, args, kwargs)

    def call_oneway(self, method: Callable[Concatenate[Any, P], Any], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call a handler of the paglet and return as soon as the host accepted the call."""
        self._call_oneway(CallOptions(), method, args, kwargs)

    def with_options(self, options: CallOptions) -> PagletCalls:
        """Return what makes calls with other options, like `proxy.with_options(CallOptions(timeout=60)).call(…)`."""
        return PagletCalls(self, options)

    def _call(
        self, options: CallOptions, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        pending = prepare_call(method, args, kwargs)
        reply = self.send(
            pending.message,
            activate_if_inactive=options.activate_if_inactive,
            # A stored message is answered with a receipt, which is nothing that the handler returned.
            no_delay=True,
            timeout=options.timeout,
        )
        return pending.result(reply, self.agent_id)

    def _call_oneway(
        self, options: CallOptions, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.send_oneway(
            prepare_call(method, args, kwargs).message,
            activate_if_inactive=options.activate_if_inactive,
            no_delay=options.no_delay,
            timeout=options.timeout,
        )

    # --- life ------------------------------------------------------------------------------------------------------

    def dispatch(self, target: str | TransferTicket) -> PagletProxy:
        """Move the paglet to another host and return a proxy for it there.

        :param target: mesh name or URL of the host, or a ticket with the terms of the move.
        :raises TransferError: the move failed; the paglet is where it was.
        """
        return self._operate("dispatch", requests.move_payload(target))

    def clone(self, target: str | TransferTicket | None = None) -> PagletProxy:
        """Copy the paglet, to another host or on its own, and return a proxy for the copy."""
        return self._operate("clone", requests.move_payload(target))

    def deactivate(
        self,
        *,
        reason: str = "deactivate",
        policy: DeactivationPolicy | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> PagletProxy:
        """Store the paglet and end its process.

        :param policy: what wakes it; the paglet itself decides by default.
        :param metadata: plain values that go along with the request.
        """
        request = DeactivationRequest(reason=reason, source="external", policy=policy, metadata=metadata or {})
        return self._operate("deactivate", {"request": request.to_wire()})

    def activate(self) -> PagletProxy:
        """Wake the paglet and return when it runs and has handled what was stored for it."""
        return self._operate("activate", {})

    def dispose(self) -> None:
        """End the paglet for good."""
        self.client.operate(self.host_url, self.agent_id, "dispose", {})

    def _operate(self, operation: str, payload: dict[str, Any]) -> PagletProxy:
        reply = self.client.operate(self.host_url, self.agent_id, operation, payload)
        ref = requests.location_of(reply, self.host_url)
        return PagletProxy(ref.host_url, ref.agent_id, self.client)


@dataclass(frozen=True, slots=True)
class PagletCalls:
    """Make typed calls to a paglet with the same options each."""

    proxy: PagletProxy
    options: CallOptions

    @overload
    def call(
        self, method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...

    @overload
    def call(self, method: Callable[Concatenate[Any, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    def call(self, method: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a handler of the paglet; see `PagletProxy.call`."""
        return self.proxy._call(self.options, method, args, kwargs)

    def call_oneway(self, method: Callable[Concatenate[Any, P], Any], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call a handler of the paglet and return as soon as the host accepted the call."""
        self.proxy._call_oneway(self.options, method, args, kwargs)
