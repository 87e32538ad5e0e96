"""Notifications reach somebody where there is somebody, and never trouble the paglet where there is nobody."""

from __future__ import annotations

from typing import Any

import pytest

from paglets.patterns.notifications import NotificationMixin, NotificationSeverity
from paglets.runtime.host import Host
from tests.agents.notices import Bellman, Crier

Pair = tuple[Host, Host]


def test_nobody_is_notified_without_a_context() -> None:
    class Bare(NotificationMixin):
        pass

    for paglet in (Crier(), Bare()):
        assert paglet.notify_user_info(NotificationSeverity.INFO, "title", "text") is False
    assert [each.value for each in NotificationSeverity] == ["info", "warning", "error"]


@pytest.mark.parametrize(
    "wrong", [{"severity": "loud"}, {"severity": None}, {"metadata": 5}, {"timeout": "soon"}, {"scope": "far"}]
)
def test_arguments_that_make_no_sense_notify_nobody_and_raise_nothing(wrong: dict[str, Any]) -> None:
    given: dict[str, Any] = {"severity": NotificationSeverity.INFO, "title": "title", "message": "text", **wrong}
    assert Crier().notify_user_info(**given) is False


def test_nobody_is_notified_where_nobody_offers_it(pair: Pair) -> None:
    assert pair[0].create(Crier).call(Crier.cry, "warning", "title", "text") is False


def test_a_provider_gets_the_notification(pair: Pair) -> None:
    alpha, _ = pair
    bellman, crier = alpha.create(Bellman), alpha.create(Crier)
    bellman.call(Bellman.offer, "1")
    assert crier.call(Crier.cry, "warning", "title", "text", "job-1") is True
    (notice,) = bellman.call(Bellman.heard)
    assert notice.pop("timestamp") > 0
    assert notice == {
        "severity": "warning",
        "title": "title",
        "message": "text",
        "source_agent_id": crier.agent_id,
        "job_id": "job-1",
        "metadata": {"k": "v"},
    }


@pytest.mark.parametrize("answer", ["refuse", "raise", "odd"])
def test_a_provider_that_does_not_take_it(pair: Pair, answer: str) -> None:
    alpha, _ = pair
    bellman, crier = alpha.create(Bellman), alpha.create(Crier)
    bellman.call(Bellman.offer, "1", answer)
    assert crier.call(Crier.cry, "error", "title", "text") is False
    # Another one is tried after it.
    second = alpha.create(Bellman)
    second.call(Bellman.offer, "1")
    assert crier.call(Crier.cry, "error", "title", "text") is True


def test_a_severity_may_be_given_as_text(pair: Pair) -> None:
    alpha, _ = pair
    bellman, crier = alpha.create(Bellman), alpha.create(Crier)
    bellman.call(Bellman.offer, "1")
    assert crier.call(Crier.cry_plainly, "error") is True
    assert [notice["severity"] for notice in bellman.call(Bellman.heard)] == ["error"]
    assert crier.call(Crier.cry_plainly, "loud") is False


def test_a_service_of_another_version_is_left_alone(pair: Pair) -> None:
    alpha, _ = pair
    bellman, crier = alpha.create(Bellman), alpha.create(Crier)
    bellman.call(Bellman.offer, "2")
    assert crier.call(Crier.cry, "info", "title", "text") is False
    assert bellman.call(Bellman.heard) == []
