"""Tell the user of the mesh something, where somebody has offered to pass it on."""

from __future__ import annotations

import logging
import time
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from paglets.core.messages import Message
from paglets.core.runtime_values import ServiceScope
from paglets.patterns.mixing import PagletMixin
from paglets.services.contracts import CONTRACT_METADATA_KEY

if TYPE_CHECKING:
    from paglets.services.records import ServiceRecord

_log = logging.getLogger(__name__)

# The contract is named instead of imported: `paglets.system` is beside this package, not below it.
_SERVICE: Final = "user-info"
_VERSION: Final = "1"
_OPERATION: Final = "notify"


class NotificationSeverity(Enum):
    """How much a notification matters."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class NotificationMixin(PagletMixin):
    """Lets a paglet notify the user; mix it in before `Paglet`."""

    def notify_user_info(
        self,
        severity: NotificationSeverity,
        title: str,
        message: str,
        *,
        job_id: str = "",
        timeout: float = 2.0,
        scope: ServiceScope = ServiceScope.MESH,
        metadata: dict[str, str] | None = None,
    ) -> bool:
        """Send a notification to the first provider of the user-info service that takes it; never raise.

        :param severity: programs without types may give its value, like `info`.
        :param job_id: what the notification is about.
        :param timeout: seconds that one provider may take.
        :param scope: where providers are looked for.
        :return: whether one has taken it. False where there is no provider, and on any problem.
        """
        try:
            request = {
                "severity": NotificationSeverity(severity).value,
                "title": title,
                "message": message,
                "source_agent_id": getattr(self, "agent_id", ""),
                "job_id": job_id,
                "timestamp": time.time(),
                "metadata": dict(metadata or {}),
            }
            records = self._paglet.context.lookup_services(_SERVICE, capability=_OPERATION, scope=scope)
        except Exception as exc:  # a notification must never be what stops a paglet
            _log.debug("nobody can be notified: %s", exc)
            return False
        return any(self._notified(record, request, timeout) for record in records if _fits(record))

    def _notified(self, record: ServiceRecord, request: dict[str, Any], timeout: float) -> bool:
        try:
            reply = record.proxy.resolve(self._paglet.context).send(Message(_OPERATION, request), timeout=timeout)
        except Exception as exc:  # likewise
            _log.debug("%s was not notified: %s", record.host_name, exc)
            return False
        return isinstance(reply, dict) and reply.get("ok", True) is True


def _fits(record: ServiceRecord) -> bool:
    contract = record.metadata.get(CONTRACT_METADATA_KEY)
    return isinstance(contract, dict) and contract.get("name") == _SERVICE and contract.get("version") == _VERSION
