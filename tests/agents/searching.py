"""Search paglets that do not wait long for those who have forgotten them."""

from __future__ import annotations

from typing import ClassVar

from paglets.examples.search.agent import MeshSearchAgent


class ImpatientSearch(MeshSearchAgent):
    """Ends when nobody has asked for anything for a moment."""

    child_lingers_seconds: ClassVar[float] = 0.5
    parent_lingers_seconds: ClassVar[float] = 1.0


class PatientSearch(ImpatientSearch):
    """Has clones that are a little impatient."""

    child_lingers_seconds: ClassVar[float] = 3.0
    parent_lingers_seconds: ClassVar[float] = 60.0
