"""Requests for one base URL that go another way, and those that do not."""

from __future__ import annotations

import pytest

from paglets.remote.idle import Origin
from paglets.remote.shortcut import Shortcut

PUBLIC = Origin("https", "hub.example", 443)
SHORTCUT = Shortcut(PUBLIC, "/paglets", Origin("http", "127.0.0.1", 8765))


@pytest.mark.parametrize(
    ("origin", "target", "covered"),
    [
        (PUBLIC, "/paglets", True),
        (PUBLIC, "/paglets/health", True),
        (PUBLIC, "/paglets?x=1", True),
        (PUBLIC, "/paglets2/health", False),
        (PUBLIC, "/", False),
        (Origin("http", "hub.example", 443), "/paglets/health", False),
        (Origin("https", "hub.example", 8443), "/paglets/health", False),
    ],
)
def test_what_a_shortcut_covers(origin: Origin, target: str, covered: bool) -> None:
    assert SHORTCUT.covers(origin, target) is covered


def test_a_url_without_a_path_covers_its_whole_server() -> None:
    assert Shortcut(PUBLIC, "", SHORTCUT.way).covers(PUBLIC, "/anything")
