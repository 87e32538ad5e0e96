"""Fixtures of the tests of a host that need one that can be killed."""

from __future__ import annotations

from tests.faults.conftest import cluster, nursery

__all__ = ["cluster", "nursery"]
