"""How the calls of a handle reach a provider: straight, or through the providers that are there now."""

from __future__ import annotations

import asyncio
import contextvars
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

from paglets.core.errors import PagletError
from paglets.core.messages import ONEWAY, Message
from paglets.remote import senders
from paglets.remote.aio_following import AsyncFollowing
from paglets.remote.calls import CallOptions
from paglets.remote.client import HostClient
from paglets.remote.pursuit import Patience
from paglets.remote.references import PagletProxyRef
from paglets.services.attempts import Attempts, Look, RetryPolicy, Send
from paglets.services.providers import Providers
from paglets.services.records import ServiceRecord

if TYPE_CHECKING:
    from paglets.services.contracts import ServiceContract

__all__ = ["Answer", "Caller", "DirectCaller", "Finder", "RoutedCaller", "in_thread"]

T = TypeVar("T")

LOOK_SECONDS: Final = 2.0
"""How long it may take to find out whether a provider runs."""

Answer = tuple[PagletProxyRef, Any]
"""Who answered, and the answer."""


class Finder(Protocol):
    """Look up providers where the first ones were found."""

    def find(self) -> list[ServiceRecord]:
        """Return the records of the service, also those of other contracts; blocks."""

    async def afind(self) -> list[ServiceRecord]:
        """Return the same to a coroutine."""

    def loads(self) -> Mapping[str, int]:
        """Return how many paglets the known hosts have, by base URL; asks no other host."""

    def over(self, client: Any) -> Finder:
        """Return what looks in the same place with another client, itself where clients have no part in that."""


class Caller(ABC):
    """Send the messages of one handle or pool."""

    @abstractmethod
    def ask(self, message: Message, options: CallOptions, *, idempotent: bool = False, oneway: bool = False) -> Answer:
        """Send a message to a provider and return its answer."""

    @abstractmethod
    async def aask(
        self, message: Message, options: CallOptions, *, idempotent: bool = False, oneway: bool = False
    ) -> Answer:
        """Send a message to a provider from a coroutine and return its answer."""

    @abstractmethod
    def ask_at(self, ref: PagletProxyRef, message: Message, options: CallOptions, patience: Patience) -> Any:
        """Send a message to the provider that answered before."""

    @abstractmethod
    async def aask_at(self, ref: PagletProxyRef, message: Message, options: CallOptions, patience: Patience) -> Any:
        """Send a message to the provider that answered before, from a coroutine."""


async def in_thread(call: Callable[[], T]) -> T:
    """Return what a blocking call returns; it is made on behalf of the handler whose coroutine waits."""
    context = contextvars.copy_context()
    return cast("T", await asyncio.wrap_future(senders.submit(lambda: context.run(call))))


class _Channel:
    """Deliver to a named paglet, over whichever client there is."""

    def __init__(self, context_or_client: Any) -> None:
        self._source = context_or_client
        self._made: HostClient | None = None

    @property
    def is_async(self) -> bool:
        """Whether there is a client for coroutines alone."""
        return isinstance(self._source, AsyncFollowing)

    @property
    def seconds(self) -> float:
        """How long a call takes at most, unless told otherwise."""
        return float(self._source.timeout if isinstance(self._source, AsyncFollowing) else self.client().timeout)

    def client(self) -> HostClient:
        """Return the client for threads.

        :raises TypeError: there is only one for coroutines.
        """
        if isinstance(self._source, AsyncFollowing):
            raise TypeError("this handle has an asynchronous client: use acall(), asend_oneway() and astream()")
        client = getattr(getattr(self._source, "host", None), "client", None)
        if client is None:
            client = self._source
        if isinstance(client, HostClient):
            return client
        if self._made is None:
            self._made = HostClient()
        return self._made

    def deliver(self, ref: PagletProxyRef, message: Message, options: CallOptions, patience: Patience | None) -> Any:
        return self.client().deliver(
            ref.host_url,
            ref.agent_id,
            message,
            oneway=message.message_type == ONEWAY,
            patience=patience,
            **_keywords(options),
        )

    async def adeliver(
        self, ref: PagletProxyRef, message: Message, options: CallOptions, patience: Patience | None
    ) -> Any:
        if not isinstance(self._source, AsyncFollowing):
            return await in_thread(lambda: self.deliver(ref, message, options, patience))
        return await self._source.deliver(
            ref.host_url,
            ref.agent_id,
            message,
            oneway=message.message_type == ONEWAY,
            patience=patience,
            **_keywords(options),
        )

    def look(self, ref: PagletProxyRef) -> Any:
        return self.client().agent_info(ref.host_url, ref.agent_id, timeout=LOOK_SECONDS)

    async def alook(self, ref: PagletProxyRef) -> Any:
        if not isinstance(self._source, AsyncFollowing):
            return await in_thread(lambda: self.look(ref))
        return await self._source.agent_info(ref.host_url, ref.agent_id, timeout=LOOK_SECONDS)


class DirectCaller(Caller):
    """Ask one provider and nobody else, as its proxy does.

    :param context_or_client: a paglet context, a host client or an asynchronous one; otherwise a fresh client is made.
    """

    def __init__(self, ref: PagletProxyRef, context_or_client: Any) -> None:
        self._ref = ref
        self._source = context_or_client
        self._channel = _Channel(context_or_client)

    def ask(self, message: Message, options: CallOptions, *, idempotent: bool = False, oneway: bool = False) -> Answer:
        """Send a message to the provider and return its answer."""
        del idempotent
        if self._channel.is_async:
            self._channel.client()
        proxy = self._ref.resolve(self._source)
        if oneway:
            proxy.send_oneway(message, **_keywords(options))
            return self._ref, None
        return self._ref, proxy.send(message, **_keywords(options))

    async def aask(
        self, message: Message, options: CallOptions, *, idempotent: bool = False, oneway: bool = False
    ) -> Answer:
        """Send a message to the provider from a coroutine and return its answer."""
        if not self._channel.is_async:
            return await in_thread(lambda: self.ask(message, options, idempotent=idempotent, oneway=oneway))
        message.message_type = ONEWAY if oneway else message.message_type
        return self._ref, await self._channel.adeliver(self._ref, message, options, None)

    def ask_at(self, ref: PagletProxyRef, message: Message, options: CallOptions, patience: Patience) -> Any:
        """Send a message to the provider."""
        return self._channel.deliver(ref, message, options, patience)

    async def aask_at(self, ref: PagletProxyRef, message: Message, options: CallOptions, patience: Patience) -> Any:
        """Send a message to the provider from a coroutine."""
        return await self._channel.adeliver(ref, message, options, patience)


class RoutedCaller(Caller):
    """Ask a provider that is there, and another one where `Attempts` says so.

    :param refresh_seconds: how old what is known of the providers may be; None to look them up again only when one
        fails.
    """

    def __init__(
        self,
        providers: Providers,
        finder: Finder,
        client: Any,
        *,
        policy: RetryPolicy | None = None,
        refresh_seconds: float | None = None,
    ) -> None:
        self.providers = providers
        self.policy = policy or RetryPolicy()
        self.origin = next(iter(providers.records), None)
        """The provider that it began with, None for one that looks for them first."""
        self._finder = finder
        self._client = client
        self._channel = _Channel(client)
        self._refresh_seconds = refresh_seconds
        self._refreshing = False

    def fitting(self, contract: ServiceContract, record: ServiceRecord, client: Any) -> RoutedCaller:
        """Return what calls that contract beginning with that provider over that client: itself where it does.

        One with another client alone knows the providers that this one knows.
        """
        same = contract == self.providers.contract and record == self.origin
        if same and client is self._client:
            return self
        providers = self.providers if same else self.providers.beginning_with(contract, record)
        routed = RoutedCaller(
            providers,
            self._finder if client is self._client else self._finder.over(client),
            client,
            policy=self.policy,
            refresh_seconds=self._refresh_seconds,
        )
        routed.origin = record
        return routed

    def refresh(self) -> None:
        """Look the providers up.

        :raises PagletError: the host that is asked does not answer.
        """
        self.providers.update(self._finder.find(), self._finder.loads())

    async def arefresh(self) -> None:
        """Look the providers up from a coroutine."""
        self.providers.update(await self._finder.afind(), self._finder.loads())

    def _stale(self) -> bool:
        return (
            self._refresh_seconds is not None
            and not self._refreshing
            and self.providers.age >= self._refresh_seconds
            and bool(self.providers.records)
        )

    def ask(self, message: Message, options: CallOptions, *, idempotent: bool = False, oneway: bool = False) -> Answer:
        """Send a message to a provider and return its answer; see `Attempts` for what happens when that fails."""
        end, options = self._terms(options)
        if self._stale():
            self._refreshing = True
            try:
                self.refresh()
            except PagletError:
                self.providers.keep()  # what is known has to do for now
            finally:
                self._refreshing = False
        message.message_type = ONEWAY if oneway else message.message_type
        steps = Attempts(self.providers, self.policy, end=end, idempotent=idempotent).steps()
        outcome: Any = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                record, answer = done.value
                return record.proxy, answer
            try:
                match step:
                    case Send():
                        terms = _within(options, step.seconds)
                        outcome = self._channel.deliver(step.record.proxy, message, terms, step.patience)
                    case Look():
                        outcome = self._channel.look(step.record.proxy)
                    case _:
                        outcome = self._finder.find()
            except PagletError as exc:
                outcome = exc

    async def aask(
        self, message: Message, options: CallOptions, *, idempotent: bool = False, oneway: bool = False
    ) -> Answer:
        """Send a message to a provider from a coroutine and return its answer."""
        if not self._channel.is_async:
            return await in_thread(lambda: self.ask(message, options, idempotent=idempotent, oneway=oneway))
        end, options = self._terms(options)
        if self._stale():
            self._refreshing = True
            try:
                await self.arefresh()
            except PagletError:
                self.providers.keep()
            finally:
                self._refreshing = False
        message.message_type = ONEWAY if oneway else message.message_type
        steps = Attempts(self.providers, self.policy, end=end, idempotent=idempotent).steps()
        outcome: Any = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                record, answer = done.value
                return record.proxy, answer
            try:
                match step:
                    case Send():
                        terms = _within(options, step.seconds)
                        outcome = await self._channel.adeliver(step.record.proxy, message, terms, step.patience)
                    case Look():
                        outcome = await self._channel.alook(step.record.proxy)
                    case _:
                        outcome = await self._finder.afind()
            except PagletError as exc:
                outcome = exc
            except BaseException:
                steps.close()
                raise

    def _terms(self, options: CallOptions) -> tuple[float, CallOptions]:
        seconds = self._channel.seconds if options.timeout is None else options.timeout
        return time.monotonic() + seconds, options

    def ask_at(self, ref: PagletProxyRef, message: Message, options: CallOptions, patience: Patience) -> Any:
        """Send a message to the provider that answered before."""
        return self._channel.deliver(ref, message, options, patience)

    async def aask_at(self, ref: PagletProxyRef, message: Message, options: CallOptions, patience: Patience) -> Any:
        """Send a message to the provider that answered before, from a coroutine."""
        return await self._channel.adeliver(ref, message, options, patience)


def _keywords(options: CallOptions) -> dict[str, Any]:
    return {
        "activate_if_inactive": options.activate_if_inactive,
        "no_delay": options.no_delay,
        "timeout": options.timeout,
    }


def _within(options: CallOptions, seconds: float) -> CallOptions:
    return CallOptions(options.activate_if_inactive, options.no_delay, seconds)
