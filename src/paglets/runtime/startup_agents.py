"""The paglets that a launch configuration starts with a host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paglets.config.startup import ResolvedStartupAgent, StartupAgentConfig, resolve_startup_agent
from paglets.core.errors import PagletError
from paglets.runtime.attachment import Attachment
from paglets.runtime.node import Node
from paglets.serialization.blob import encode_blob
from paglets.serialization.names import qualified_name

_SOURCE = {"source": "launch-config"}


async def start_agents(node: Node, configs: Sequence[StartupAgentConfig]) -> None:
    """Start each, in the order of the file; one that cannot be is told by an event and keeps nothing else from it."""
    for config in configs:
        data = {"use": config.use or "", "class": config.class_name or ""}
        if not config.enabled:
            node.kernel.emit("startup-agent-skip", data={"reason": "disabled", **data})
            continue
        try:
            # Beside the loop, because it imports the class.
            agent = await node.kernel.loop.run_in_executor(None, resolve_startup_agent, config)
            await _start(node, agent, data)
        except PagletError as exc:
            node.kernel.emit("startup-agent-failed", data=data, error=str(exc))


async def _start(node: Node, agent: ResolvedStartupAgent, data: dict[str, Any]) -> None:
    agent_id, kernel = agent.agent_id, node.kernel
    if agent_id and agent.singleton:
        entry = kernel.agents.get(agent_id)
        if entry is not None and not entry.crashed:
            kernel.emit("startup-agent-skip", agent_id=agent_id, data={"reason": "already-active", **data})
            return
        if (entry is not None and entry.durable) or agent_id in node.dormitory:
            await node.activate(agent_id)
            kernel.emit("startup-agent-activate", agent_id=agent_id, data=_SOURCE)
            return
        if entry is None and await node.lives_elsewhere(agent_id):
            # It went there from here; a second one would be another paglet with the same name.
            kernel.emit("startup-agent-skip", agent_id=agent_id, data={"reason": "elsewhere", **data})
            return
    proxy = await node.create(
        qualified_name(agent.agent_cls),
        qualified_name(agent.state),
        Attachment.of(encode_blob(agent.state).segments),
        init=agent.init,
        agent_id=agent_id,
        trusted=True,
        allowance=agent.allowance,
    )
    kernel.emit("startup-agent-create", agent_id=proxy["agent_id"], data=_SOURCE)
