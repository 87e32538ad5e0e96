"""The client of a host for its own program: calls to the host itself take no network."""

from __future__ import annotations

import concurrent.futures
from typing import TYPE_CHECKING, Any

from paglets.core.context import same_url
from paglets.core.error_wire import HTTP_ERRORS, error_from_wire, error_to_wire
from paglets.core.errors import PagletError, RemoteHostError, RemoteTimeoutError
from paglets.remote.client import HostClient
from paglets.remote.requests import Parcel, terms_of

if TYPE_CHECKING:
    import ssl

    from paglets.runtime.host import Host


class LocalHostClient(HostClient):
    """Reach one host of this process directly, and every other over HTTP.

    What a call returns or raises is the same either way, and a paglet that is elsewhere by now is followed either way.
    """

    def __init__(self, host: Host, *, api_key: str | None = None, ssl_context: ssl.SSLContext | None = None) -> None:
        super().__init__(api_key=api_key, ssl_context=ssl_context)
        self._host = host

    def _is_here(self, host_url: str) -> bool:
        return self._host.running and same_url(host_url, self._host.address)

    def _deliver_at(
        self,
        place: str,
        agent_id: str,
        parcel: Parcel,
        attempt: int,
        seconds: float,
        connecting: float | None,
    ) -> dict[str, Any]:
        if not self._is_here(place):
            return super()._deliver_at(place, agent_id, parcel, attempt, seconds, connecting)
        found: dict[str, str] = {}
        try:
            result = self._host.deliver_within(
                seconds,
                agent_id,
                parcel.message,
                oneway=parcel.oneway,
                activate_if_inactive=parcel.activate_if_inactive,
                no_delay=parcel.no_delay,
                terms=terms_of(parcel, seconds, attempt),
                found=found,
            )
        except concurrent.futures.TimeoutError:
            raise RemoteTimeoutError(f"paglet {agent_id} did not answer within {seconds:g} s") from None
        except Exception as exc:
            raise as_over_http(exc) from exc
        return {"result": result, **found}

    def _lasting(self, place: str) -> bool:
        # The host of this program does not come back while the program waits for it.
        return self._host.running or not same_url(place, self._host.address)

    def _operate_at(
        self,
        place: str,
        agent_id: str,
        operation: str,
        payload: dict[str, Any],
        seconds: float,
        connecting: float | None,
    ) -> dict[str, Any]:
        if not self._is_here(place):
            return super()._operate_at(place, agent_id, operation, payload, seconds, connecting)
        try:
            return self._host.operate(agent_id, operation, payload)
        except Exception as exc:
            raise as_over_http(exc) from exc

    def _info_at(self, place: str, agent_id: str, seconds: float, connecting: float | None) -> dict[str, Any]:
        if not self._is_here(place):
            return super()._info_at(place, agent_id, seconds, connecting)
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
