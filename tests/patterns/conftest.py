"""Fixtures of the tests in which hosts die."""

from __future__ import annotations

from tests.faults.conftest import cluster, nursery

__all__ = ["cluster", "nursery"]
