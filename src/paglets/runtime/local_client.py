"""The client of a host for its own program: calls to the host itself take no network."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paglets.artifacts import ArtifactRef
from paglets.core.error_wire import HTTP_ERRORS, error_from_wire, error_to_wire
from paglets.core.errors import PagletError, RemoteHostError
from paglets.remote.artifact_requests import locate_artifact
from paglets.remote.client import HostClient
from paglets.remote.content import Progress, local_path, told
from paglets.remote.fabric import Fabric
from paglets.remote.requests import Parcel, terms_of
from paglets.remote.uploads import Compress
from paglets.runtime.artifact_desk import export, read_part, served
from paglets.runtime.posting import unanswered
from paglets.services.leases import given_back

if TYPE_CHECKING:
    import ssl

    from paglets.runtime.host import Host


class LocalHostClient(HostClient):
    """Reach one host of this process directly, and every other over its fabric.

    What a call returns or raises is the same either way, and a paglet that is elsewhere by now is followed either way.
    """

    def __init__(
        self,
        host: Host,
        *,
        api_key: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        fabric: Fabric | None = None,
    ) -> None:
        super().__init__(api_key=api_key, ssl_context=ssl_context, fabric=fabric)
        self._host = host

    def _is_here(self, host_url: str) -> bool:
        return self._host.running and self._host.own_url.is_own(host_url)

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
            raise unanswered(agent_id, seconds) from None
        except Exception as exc:
            raise as_over_http(exc) from exc
        return {"result": result, **found}

    def _lasting(self, place: str) -> bool:
        # The host of this program does not come back while the program waits for it.
        return self._host.running or not self._host.own_url.is_own(place)

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

    def post_json(self, url: str, payload: dict[str, Any], *, timeout: float | None = None) -> Any:
        """Post a dict as JSON and return the decoded answer."""
        lease = given_back(url)
        if lease is None or not self._is_here(lease.host_url):
            return super().post_json(url, payload, timeout=timeout)
        return self._host.release_resident_service_lease(lease.lease_id)

    # --- artifacts ----------------------------------------------------------------------------------------------------

    def upload_artifact(
        self,
        host_url: str,
        path: str | Path,
        *,
        owner_agent_id: str = "",
        name: str | None = None,
        compression: str = "",
        expires_at: float = 0.0,
        expected_sha256: str | None = None,
        timeout: float | None = None,
        progress: Progress | None = None,
        compress: Compress = "auto",
    ) -> ArtifactRef:
        """Store a file on a host; on this one ``progress`` is called once, at the end."""
        if not self._is_here(host_url):
            return super().upload_artifact(
                host_url,
                path,
                owner_agent_id=owner_agent_id,
                name=name,
                compression=compression,
                expires_at=expires_at,
                expected_sha256=expected_sha256,
                timeout=timeout,
                progress=progress,
                compress=compress,
            )
        with _over_http():
            source = local_path(path)
            stored = self._host.artifacts.create_from_path(
                source,
                owner_agent_id=owner_agent_id,
                name=source.name if name is None else name,
                compression=compression,
                expires_at=expires_at,
                expected_sha256=expected_sha256,
            )
        return told(stored.ref, progress)

    def download_artifact(
        self,
        artifact: ArtifactRef | str,
        target: str | Path,
        artifact_id: str | None = None,
        *,
        move: bool = False,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> ArtifactRef:
        """Write an artifact to a file; of this host ``progress`` is called once, at the end."""
        ref = locate_artifact(artifact, artifact_id, "download_artifact")
        if not self._is_here(ref.host_url):
            return super().download_artifact(ref, target, move=move, timeout=timeout, progress=progress)
        with _over_http():
            found = export(self._host.artifacts, ref, local_path(target))
            if move:
                self._host.artifacts.delete(ref.artifact_id)
        return told(found, progress)

    def read_artifact(
        self,
        artifact: ArtifactRef | str,
        artifact_id: str | None = None,
        *,
        start: int = 0,
        length: int | None = None,
        timeout: float | None = None,
    ) -> bytes:
        """Return a part of an artifact, less where it ends earlier."""
        ref = locate_artifact(artifact, artifact_id, "read_artifact")
        if not self._is_here(ref.host_url):
            return super().read_artifact(ref, start=start, length=length, timeout=timeout)
        with _over_http():
            return read_part(self._host.artifacts, ref.artifact_id, start, length, self.max_response_bytes)

    def artifact_metadata(self, host_url: str, artifact_id: str, *, timeout: float | None = None) -> ArtifactRef:
        """Return what a host knows about an artifact."""
        if not self._is_here(host_url):
            return super().artifact_metadata(host_url, artifact_id, timeout=timeout)
        with _over_http():
            return served(self._host.artifacts, artifact_id)

    def list_artifacts(
        self, host_url: str, *, owner_agent_id: str | None = None, timeout: float | None = None
    ) -> list[ArtifactRef]:
        """Return the artifacts of a host, or those of one owner."""
        if not self._is_here(host_url):
            return super().list_artifacts(host_url, owner_agent_id=owner_agent_id, timeout=timeout)
        return self._host.artifacts.list(owner_agent_id=owner_agent_id)

    def delete_artifact(
        self, artifact: ArtifactRef | str, artifact_id: str | None = None, *, timeout: float | None = None
    ) -> None:
        """Delete an artifact; one that is gone already is no error."""
        ref = locate_artifact(artifact, artifact_id, "delete_artifact")
        if not self._is_here(ref.host_url):
            super().delete_artifact(ref, timeout=timeout)
            return
        with _over_http():
            self._host.artifacts.delete(ref.artifact_id)


@contextmanager
def _over_http() -> Iterator[None]:
    """Have what goes wrong raised as a caller over HTTP gets it."""
    try:
        yield
    except (PagletError, OSError) as exc:
        raise as_over_http(exc) from exc


def as_over_http(exc: Exception) -> Exception:
    """Return the error that a caller over HTTP would get, so that a proxy means the same near and far."""
    wire = error_to_wire(exc, table=HTTP_ERRORS)
    if isinstance(exc, PagletError) and wire["error_type"] == type(exc).__name__:
        return exc
    return error_from_wire(wire, unknown=RemoteHostError, table=HTTP_ERRORS)
