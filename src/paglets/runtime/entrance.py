"""Everything that decides who gets into a host: keys, certificates, limits, the audit log. It follows its files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from paglets.core.errors import HostError
from paglets.runtime.http.audit import AUDIT_NAME, AuditLog
from paglets.runtime.http.gate import Gate
from paglets.runtime.http.keyring import WATCH_SECONDS, Keyring, checked_keyring
from paglets.security.tls import ServerTls

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from paglets.security.tls import TlsOptions


class Entrance:
    """The keys and certificates of a host that is about to start.

    :param name: of the host.
    :param directory: where the audit log is; it exists.
    :param report: told in one line, with a kind of event, when a file cannot be used or was taken up; called from any
        thread.
    :raises HostError: a file cannot be used.
    """

    def __init__(
        self,
        name: str,
        *,
        api_key: str | None,
        key_files: Sequence[Path],
        tls: TlsOptions | None,
        directory: Path,
        report: Callable[[str, str], None],
    ) -> None:
        self._report = report
        self._tls = None if tls is None else ServerTls(tls)
        self.keyring = Keyring(api_key, key_files, certificates=tls is not None and tls.client_ca is not None)
        self._directory = directory
        # Of its own: a disk that takes its time must not hold up what else the host does beside its loop.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"paglets-entrance-{name}")
        self._audit: AuditLog | None = None
        self._told: dict[str, str] = {}

    @property
    def context(self) -> ssl.SSLContext | None:
        """The TLS context of the server, None for plain HTTP."""
        return None if self._tls is None else self._tls.context

    def check(self, beyond: Sequence[str], *, insecure: bool) -> bool:
        """Return whether strangers on other machines may do everything here.

        :param beyond: the addresses the host listens on that others can reach.
        :param insecure: somebody said that this is meant.
        :raises HostError: they may, and nobody said so.
        """
        return checked_keyring(self.keyring, beyond=beyond, insecure=insecure)

    def gate(self) -> Gate:
        """Return the gate of the host, whose audit log is open from now on.

        :raises HostError: the audit log cannot be written.
        """
        try:
            self._audit = AuditLog(self._directory / AUDIT_NAME, self._thread, on_fault=self._audit_failed)
        except OSError as exc:
            raise HostError(f"the audit log in {self._directory} cannot be written: {exc.strerror or exc}") from exc
        return Gate(self.keyring, audit=self._audit)

    def _audit_failed(self, text: str) -> None:
        self._report("audit-fault", text)

    async def watch(self) -> None:
        """Take up changes of the files, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            await loop.run_in_executor(self._thread, self.look)

    def look(self) -> None:
        """Take up changes of the files now; what is wrong with one is reported once and changes nothing."""
        self._try("keys", self.keyring.reload)
        if self._tls is not None:
            self._try("certificate", self._tls.reload)

    def _try(self, what: str, reload: Callable[[], bool]) -> None:
        try:
            if reload():
                self._told.pop(what, None)
                self._report(f"{what}-reload", "")
        except HostError as exc:
            if self._told.get(what) != str(exc):
                self._told[what] = str(exc)
                self._report(f"{what}-fault", str(exc))

    async def close(self) -> None:
        """Write what is left of the audit log."""
        if self._audit is not None:
            await self._audit.close()
        self._thread.shutdown(wait=False)
