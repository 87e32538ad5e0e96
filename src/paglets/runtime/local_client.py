"""The client of a host for its own program: calls to the host itself take no network."""

from __future__ import annotations

import concurrent.futures
from typing import TYPE_CHECKING, Any

from paglets.core.context import same_url
from paglets.core.error_wire import HTTP_ERRORS, error_from_wire, error_to_wire
from paglets.core.errors import PagletError, RemoteHostError, RemoteTimeoutError
from paglets.core.messages import Message
from paglets.remote.client import HostClient

if TYPE_CHECKING:
    from paglets.runtime.host import Host


class LocalHostClient(HostClient):
    """Reach one host of this process directly, and every other over HTTP.

    What a call returns or raises is the same either way.
    """

    def __init__(self, host: Host, *, api_key: str | None = None) -> None:
        super().__init__(api_key=api_key)
        self._host = host

    def _is_here(self, host_url: str) -> bool:
        return self._host.running and same_url(host_url, self._host.address)

    def deliver(
        self,
        host_url: str,
        agent_id: str,
        message: Message,
        *,
        oneway: bool = False,
        activate_if_inactive: bool = True,
        no_delay: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Deliver a message and return the reply."""
        if not self._is_here(host_url):
            return super().deliver(
                host_url,
                agent_id,
                message,
                oneway=oneway,
                activate_if_inactive=activate_if_inactive,
                no_delay=no_delay,
                timeout=timeout,
            )
        limit = self.timeout if timeout is None else timeout
        try:
            return self._host.deliver_within(
                limit,
                agent_id,
                message,
                oneway=oneway,
                activate_if_inactive=activate_if_inactive,
                no_delay=no_delay,
            )
        except concurrent.futures.TimeoutError:
            raise RemoteTimeoutError(f"paglet {agent_id} did not answer within {limit:g} s") from None
        except Exception as exc:
            raise as_over_http(exc) from exc

    def operate(
        self,
        host_url: str,
        agent_id: str,
        operation: str,
        payload: dict[str, Any],
        *,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Perform a lifecycle operation on a paglet."""
        if not self._is_here(host_url):
            return super().operate(host_url, agent_id, operation, payload, timeout=timeout)
        try:
            return self._host.operate(agent_id, operation, payload)
        except Exception as exc:
            raise as_over_http(exc) from exc

    def agent_info(self, host_url: str, agent_id: str) -> dict[str, Any]:
        """Return the summary of a paglet."""
        if not self._is_here(host_url):
            return super().agent_info(host_url, agent_id)
        try:
            return self._host.agent_summary(agent_id)
        except Exception as exc:
            raise as_over_http(exc) from exc


def as_over_http(exc: Exception) -> Exception:
    """Return the error that a caller over HTTP would get, so that a proxy means the same near and far."""
    wire = error_to_wire(exc, table=HTTP_ERRORS)
    if isinstance(exc, PagletError) and wire["error_type"] == type(exc).__name__:
        return exc
    return error_from_wire(wire, unknown=RemoteHostError, table=HTTP_ERRORS)
