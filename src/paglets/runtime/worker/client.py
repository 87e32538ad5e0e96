"""The HTTP client of a paglet process: every call goes through the host, which owns the connections and the key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from paglets.artifacts import ArtifactRef
from paglets.core.messages import Message
from paglets.remote.artifact_requests import locate_artifact
from paglets.remote.client import HostClient
from paglets.remote.content import Progress, local_path, told
from paglets.remote.pursuit import Patience
from paglets.remote.uploads import Compress
from paglets.runtime.attachment import Attachment
from paglets.runtime.worker.endpoint import Endpoint
from paglets.runtime.worker.exchange import Exchange
from paglets.serialization.values import pack, unpack


class WorkerClient(HostClient):
    """Reach this and other hosts by asking the own host.

    :param exchange: returns the message on whose behalf the caller runs, None outside of handlers.
    """

    def __init__(self, endpoint: Endpoint, *, exchange: Callable[[], Exchange | None]) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._exchange = exchange

    def call(self, method_name: str, /, **arguments: Any) -> Any:
        """Ask the host and return its answer as plain values."""
        answer = self._endpoint.call(method_name, Attachment.of([pack(arguments)]))
        try:
            return unpack(answer.view()) if answer.nbytes else None
        finally:
            answer.close()

    def get_json(self, url: str, *, timeout: float | None = None) -> Any:
        """Ask the host to GET ``url``."""
        return self.call("http", method="GET", url=url, payload=None, timeout=self._limit(timeout))

    def post_json(self, url: str, payload: dict[str, Any], *, timeout: float | None = None) -> Any:
        """Ask the host to POST ``payload`` to ``url``."""
        return self.call("http", method="POST", url=url, payload=payload, timeout=self._limit(timeout))

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
        patience: Patience | None = None,
    ) -> Any:
        """Deliver a message to a paglet on this or another host and return the reply.

        What a handler of a paglet with ``MESSAGE`` durability sends one-way leaves when the handler has ended and its
        effects are on disk.

        :raises CallCycleError: the reply could never come, because this handler is waited for.
        """
        exchange = self._exchange()
        terms: dict[str, Any] = {}
        if exchange is not None and not oneway:
            terms["chain"] = exchange.chain
            if exchange.durable:
                message = replace(message, message_id=exchange.call_id())
        delivery = {
            "host_url": host_url,
            "agent_id": agent_id,
            "message": pack(message.to_wire()),
            "kind": message.kind,
            "priority": message.priority,
            "message_id": message.message_id,
            "oneway": oneway,
            "activate_if_inactive": activate_if_inactive,
            "no_delay": no_delay,
            "timeout": self._limit(timeout),
            **({} if patience is None else {"patience": [patience.unsent, patience.lost]}),
            **terms,
        }
        if exchange is not None and oneway and exchange.durable:
            exchange.post(delivery)
            return None
        return self.call("deliver", **delivery)

    def operate(
        self,
        host_url: str,
        agent_id: str,
        operation: str,
        payload: dict[str, Any],
        *,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Ask for a lifecycle operation on a paglet of this or another host."""
        answer: dict[str, Any] = self.call(
            "operate", host_url=host_url, agent_id=agent_id, operation=operation, payload=payload, timeout=timeout
        )
        return answer

    def agent_info(self, host_url: str, agent_id: str, *, timeout: float | None = None) -> dict[str, Any]:
        """Return the summary of a paglet on this or another host."""
        answer: dict[str, Any] = self.call(
            "agent_info", host_url=host_url, agent_id=agent_id, timeout=self._limit(timeout)
        )
        return answer

    # --- artifacts: the host moves the content, which does not pass this process --------------------------------------

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
        """Have the host store a file on this or another host; ``progress`` is called once, at the end."""
        source = local_path(path)
        wire = self.call(
            "upload_artifact",
            host_url=host_url,
            path=str(source.absolute()),
            owner_agent_id=owner_agent_id,
            name=source.name if name is None else name,
            compression=compression,
            expires_at=expires_at,
            expected_sha256=expected_sha256,
            timeout=self._limit(timeout),
            compress=compress,
        )
        return told(ArtifactRef.from_wire(wire), progress)

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
        """Have the host fetch an artifact of this or another host; ``progress`` is called once, at the end."""
        ref = locate_artifact(artifact, artifact_id, "download_artifact")
        wire = self.call(
            "download_artifact",
            artifact=ref.to_wire(),
            target=str(local_path(target).absolute()),
            move=move,
            timeout=self._limit(timeout),
        )
        return told(ArtifactRef.from_wire(wire), progress)

    def read_artifact(
        self,
        artifact: ArtifactRef | str,
        artifact_id: str | None = None,
        *,
        start: int = 0,
        length: int | None = None,
        timeout: float | None = None,
    ) -> bytes:
        """Return a part of an artifact of this or another host."""
        ref = locate_artifact(artifact, artifact_id, "read_artifact")
        part: bytes = self.call(
            "read_artifact", artifact=ref.to_wire(), start=start, length=length, timeout=self._limit(timeout)
        )
        return part

    def delete_artifact(
        self, artifact: ArtifactRef | str, artifact_id: str | None = None, *, timeout: float | None = None
    ) -> None:
        """Delete an artifact of this or another host; one that is gone already is no error."""
        ref = locate_artifact(artifact, artifact_id, "delete_artifact")
        self.call("delete_artifact", artifact=ref.to_wire(), timeout=self._limit(timeout))

    def _limit(self, timeout: float | None) -> float:
        return self.timeout if timeout is None else timeout
