"""A real nginx with TLS in front of a hub, set up as ``docs/relay.md`` says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import trustme

from tests.support import eventually, free_port

BINARY = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "relay.md"
_FRAME = """
worker_processes 1;
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
{server}
}}
"""


def configuration(directory: Path, port: int, backend: int) -> str:
    """Return what the documentation says, with the names and numbers of a test."""
    server = _PAGE.read_text().partition("```nginx\n")[2].partition("```")[0]
    for documented, here in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("server_name hub.example;", ""),
        ("/etc/ssl/hub.example.pem", f"{directory}/server.pem"),
        ("/etc/ssl/hub.example.key", f"{directory}/server.pem"),
        ("http://127.0.0.1:8765;", f"http://127.0.0.1:{backend};"),
    ):
        assert documented in server, f"{_PAGE} does not say {documented}"
        server = server.replace(documented, here)
    return _FRAME.format(directory=directory, server=server)


class Nginx:
    """An nginx of one test.

    :param backend: port of the hub.
    """

    def __init__(self, directory: Path, backend: int) -> None:
        directory.mkdir()
        self._directory = directory
        self.port = free_port()
        self.authority = directory / "ca.pem"
        """The certificate that its own one is signed with."""
        ca = trustme.CA()
        ca.cert_pem.write_to_path(str(self.authority))
        ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(directory / "server.pem"))
        (directory / "nginx.conf").write_text(configuration(directory, self.port, backend))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The public URL of the hub."""
        return f"https://127.0.0.1:{self.port}/paglets"

    def start(self) -> None:
        """Start it and return when it listens."""
        assert BINARY is not None
        command = [BINARY, "-p", str(self._directory), "-c", str(self._directory / "nginx.conf")]
        errors = (self._directory / "stderr").open("wb")
        with errors:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=errors)
        eventually(lambda: (self._directory / "nginx.pid").exists() or self._process.poll() is not None, "nginx")
        assert self._process.poll() is None, (self._directory / "stderr").read_text()

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
