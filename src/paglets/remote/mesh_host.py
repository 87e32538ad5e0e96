"""What the mesh needs of the host it works for."""

from __future__ import annotations

from typing import Any, Protocol


class MeshClient(Protocol):
    """The client for requests to other hosts."""

    def get_json(self, url: str, *, timeout: float | None = None) -> Any:
        """Return the decoded reply to a GET."""
        ...

    def post_json(self, url: str, payload: dict[str, Any], *, timeout: float | None = None) -> Any:
        """Return the decoded reply to a POST."""
        ...


class MeshHost(Protocol):
    """The host itself; it may also offer `request_peer_git_update`.

    Everything here is read and called from threads of the mesh and of its callers.
    """

    @property
    def name(self) -> str:
        """The name in the mesh."""

    @property
    def address(self) -> str:
        """The URL at which others reach the host."""

    @property
    def client(self) -> MeshClient:
        """The client for requests to others."""

    @property
    def tags(self) -> tuple[str, ...]:
        """The advertised tags."""

    @property
    def host_properties(self) -> dict[str, str]:
        """The advertised properties."""

    @property
    def relay_mode(self) -> bool:
        """Whether the host is a relay hub or connected to one."""

    def agent_counts(self) -> tuple[int, int]:
        """Return how many paglets are active and inactive."""
        ...
