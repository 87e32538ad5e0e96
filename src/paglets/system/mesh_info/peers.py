"""Where the services of other hosts are, remembered between two conversations."""

from __future__ import annotations

import threading
from urllib.parse import quote

from paglets.core.context import PagletContext
from paglets.core.errors import ServiceNotFoundError
from paglets.core.runtime_values import ServiceScope
from paglets.remote.proxy import PagletProxy
from paglets.services.contracts import ServiceContract
from paglets.services.records import ServiceRecord


class PeerServices:
    """The provider of one contract on each of several hosts.

    Only the host in question is asked, and only once: a lookup over the mesh by every host would ask all hosts of all.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, PagletProxy] = {}

    def find(self, context: PagletContext, host_url: str, contract: ServiceContract, *, timeout: float) -> PagletProxy:
        """Return the provider on a host.

        :param timeout: seconds that the host may take.
        :raises ServiceNotFoundError: it offers none to the mesh.
        :raises PagletError: the host does not answer.
        """
        with self._lock:
            known = self._known.get(host_url)
        if known is not None:
            return known
        client = context.host.client
        query = f"name={quote(contract.name, safe='')}&scope={ServiceScope.MESH.value}"
        reply = client.get_json(f"{host_url.rstrip('/')}/services?{query}", timeout=timeout)
        records = [ServiceRecord.from_wire(wire) for wire in reply["services"]]
        fitting = next((record for record in records if contract.matches_record(record)), None)
        if fitting is None:
            raise ServiceNotFoundError(f"no {contract.name} service of version {contract.version} is offered")
        # At the address by which the host was reached, whatever it calls itself.
        found = context.host.proxy_for(host_url, fitting.proxy.agent_id)
        with self._lock:
            self._known[host_url] = found
        return found

    def forget(self, host_url: str) -> None:
        """Look for the provider on a host again the next time."""
        with self._lock:
            self._known.pop(host_url, None)

    def keep(self, host_urls: set[str]) -> None:
        """Forget the providers on all other hosts."""
        with self._lock:
            self._known = {url: known for url, known in self._known.items() if url in host_urls}
