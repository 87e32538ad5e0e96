"""For authors: typed operations and tasks, work spread over a mesh, notifications, files carried to other hosts."""

from paglets.patterns.coordination import ChildRoleState, CursorDrainMixin, MeshFanoutMixin, MeshFanoutState
from paglets.patterns.file_mobility import (
    FileMobilityMixin,
    FileTransferArrival,
    FileTransferEndpoint,
    FileTransferMode,
    FileTransferPlan,
    FileTransferRequest,
    FileTransferResult,
    FileTransferSource,
    FileTransferState,
    SingleFileTransferPaglet,
    format_bytes,
)
from paglets.patterns.notifications import NotificationMixin, NotificationSeverity
from paglets.patterns.operations import OperationClient, OperationPaglet
from paglets.patterns.tasks import TaskClient, TaskPaglet, TaskSnapshot, TaskState, TaskStatus

__all__ = [
    "ChildRoleState",
    "CursorDrainMixin",
    "FileMobilityMixin",
    "FileTransferArrival",
    "FileTransferEndpoint",
    "FileTransferMode",
    "FileTransferPlan",
    "FileTransferRequest",
    "FileTransferResult",
    "FileTransferSource",
    "FileTransferState",
    "MeshFanoutMixin",
    "MeshFanoutState",
    "NotificationMixin",
    "NotificationSeverity",
    "OperationClient",
    "OperationPaglet",
    "SingleFileTransferPaglet",
    "TaskClient",
    "TaskPaglet",
    "TaskSnapshot",
    "TaskState",
    "TaskStatus",
    "format_bytes",
]
