"""Connected hosts that know nothing but the address of an nginx with TLS, and a hub behind it that dies under a move.

Set ``PAGLETS_RELAY_FILE_MB`` for a larger file.
"""

from __future__ import annotations

import hashlib
import os
import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from paglets.core.errors import ConnectionLostError
from paglets.core.messages import Message
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.remote.senders import submit
from paglets.remote.transfer import TransferTicket
from tests.faults import nginx
from tests.faults.cluster import Cluster, HostProcess
from tests.support import eventually, free_port

pytestmark = pytest.mark.skipif(nginx.BINARY is None, reason="there is no nginx on this machine")

MEGABYTES = int(os.environ.get("PAGLETS_RELAY_FILE_MB", "12"))
HAULER = "tests.agents.hauler:Hauler"
KEY = "nginx-key"


@dataclass(slots=True)
class Behind:
    """A hub behind nginx and two hosts that know only that."""

    proxy: nginx.Nginx
    hub: HostProcess
    near: HostProcess
    far: HostProcess
    client: HostClient

    def restart_hub(self) -> None:
        self.hub.kill()
        self.hub.start(SSL_CERT_FILE=str(self.proxy.authority))

    def online(self) -> set[str]:
        nodes = self.client.get_json(f"{self.proxy.url}/relay/diagnostics")["nodes"]
        return {node["name"] for node in nodes if node["online"]}

    def owners(self, agent_id: str) -> list[str]:
        return [
            host.name
            for host in (self.near, self.far)
            if agent_id
            in [
                summary["agent_id"]
                for summary in self.client.get_json(f"{host.url}/agents?state=all", timeout=20.0)["agents"]
            ]
        ]


@pytest.fixture
def behind(cluster: Cluster, tmp_path: Path) -> Iterator[Behind]:
    port = free_port()
    proxy = nginx.Nginx(tmp_path / "nginx", port)
    proxy.start()
    try:
        authority = str(proxy.authority)
        hub = cluster.add("hub", public_url=proxy.url, api_key=KEY)
        hub.port = port
        hub.start(SSL_CERT_FILE=authority)
        near, far = (cluster.add(name, connect_to=proxy.url, api_key=KEY) for name in ("near", "far"))
        for host in (near, far):
            host.start(SSL_CERT_FILE=authority)
        context = ssl.create_default_context(cafile=authority)
        with HostClient(30.0, api_key=KEY, ssl_context=context) as client:
            behind = Behind(proxy, hub, near, far, client)
            eventually(lambda: behind.online() == {near.name, far.name}, "both to be connected")
            yield behind
    finally:
        proxy.stop()


def test_a_move_with_a_file_survives_the_hub(behind: Behind, tmp_path: Path) -> None:
    freight = tmp_path / "freight.bin"
    with freight.open("wb") as stream:
        for _ in range(MEGABYTES):
            stream.write(os.urandom(1024 * 1024))
    with freight.open("rb") as stream:
        expected = [freight.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()]
    made = behind.client.post_json(f"{behind.near.url}/agents", {"agent_class_name": HAULER})
    agent_id = made["proxy"]["agent_id"]
    proxy = PagletProxy(behind.near.url, agent_id, behind.client)
    proxy.send(Message("pick_up", {"path": str(freight)}))
    ticket = TransferTicket(behind.far.url, timeout=20.0, retries=20, retry_interval=0.2)
    moving = submit(lambda: proxy.dispatch(ticket))

    def arriving() -> bool:
        # Some of the file has reached the other host's disk.
        arrived = [path for path in behind.far.directory.rglob("*") if path.is_file() and path.suffix != ".db"]
        return moving.done() or sum(path.stat().st_size for path in arrived) > 1024 * 1024

    eventually(arriving, "the file to be on its way")
    behind.restart_hub()
    # The answer is lost with the hub, unless it was on its way; what was asked goes on.
    with suppress(ConnectionLostError):
        moving.result(300)
    eventually(lambda: behind.online() == {behind.near.name, behind.far.name}, "both to be connected again", 60.0)
    eventually(lambda: behind.owners(agent_id) == [behind.far.name], "the far host to be the only owner", 300.0)
    there = PagletProxy(behind.far.url, agent_id, behind.client)
    assert there.send(Message("digest"), timeout=60.0) == expected
    eventually(lambda: not freight.exists(), "the moved file to have left its place")


def test_a_link_through_nginx_carries_messages_in_both_directions(behind: Behind) -> None:
    for host in (behind.near, behind.far):
        made = behind.client.post_json(f"{host.url}/agents", {"agent_class_name": "tests.agents.actor:Actor"})
        assert made["proxy"]["host_url"] == host.url
        assert PagletProxy(host.url, made["proxy"]["agent_id"], behind.client).send(Message("add")) == 1


def test_a_certificate_that_nobody_vouches_for_is_not_accepted(behind: Behind, cluster: Cluster) -> None:
    stranger = cluster.add("stranger", connect_to=behind.proxy.url, api_key=KEY)
    stranger.start()  # without the authority
    assert behind.online() == {behind.near.name, behind.far.name}
