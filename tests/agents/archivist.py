"""A paglet that stores, fetches and deletes artifacts, and one that is sent some."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from paglets.artifacts import ArtifactRef
from paglets.core.agent import NOT_HANDLED, Paglet, PagletState
from paglets.core.messages import Message


@dataclass
class ArchivistState(PagletState):
    received: list[dict[str, Any]] = field(default_factory=list)


class Archivist(Paglet[ArchivistState]):
    State = ArchivistState

    def handle_message(self, message: Message) -> Any:
        match message.kind:
            case "store":
                path = self.work_dir() / "made.txt"
                path.write_text(message.args["text"])
                return self.upload_artifact(path, host_url=message.args.get("host_url")).to_wire()
            case "store relative":
                return self.upload_artifact(message.args["path"]).to_wire()
            case "store from a coroutine":
                return asyncio.run(self._stored_beside(message.args["text"])).to_wire()
            case "fetch":
                target = self.work_dir() / "deep" / "fetched"
                self.download_artifact(_ref(message), target, move=message.args.get("move", False))
                return target.read_text()
            case "read":
                return self.read_artifact(_ref(message), start=message.args["start"], length=message.args["length"])
            case "describe":
                ref = _ref(message)
                found = self.context.host.client.artifact_metadata(ref.host_url, ref.artifact_id)
                listed = self.context.host.client.list_artifacts(ref.host_url, owner_agent_id=ref.owner_agent_id)
                return [found.to_wire(), [each.to_wire() for each in listed]]
            case "delete":
                self.delete_artifact(_ref(message))
                return None
            case "pass on":
                proxy = self.context.get_proxy(message.args["to"])
                assert proxy is not None
                path = self.work_dir() / "passed.txt"
                path.write_text("passed on")
                return proxy.send_artifact(Message("take"), path, move=True), path.exists()
            case "take":
                self.state.received.append(message.args["artifact"])
                return message.args["artifact"]["size_bytes"]
            case _:
                return NOT_HANDLED

    async def _stored_beside(self, text: str) -> ArtifactRef:
        path = self.work_dir() / "beside.txt"
        path.write_text(text)
        return await asyncio.to_thread(self.upload_artifact, path)


def _ref(message: Message) -> ArtifactRef:
    return ArtifactRef.from_wire(message.args["artifact"])
