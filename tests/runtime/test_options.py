"""The options of a host that are raised to the least that makes sense."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from paglets.runtime.host import Host


def host(directory: Path, **options: Any) -> Host:
    return Host("alpha", mesh_version="v", persistence_dir=directory, **options)


@pytest.mark.parametrize(
    ("option", "given", "taken"),
    [
        ("relay_offline_after", 0.01, 0.1),
        ("relay_offline_after", 0, 0.1),
        ("relay_offline_after", -5.0, 0.1),
        ("relay_offline_after", 0.5, 0.5),
        ("relay_delivery_timeout", 0, 0.01),
        ("relay_delivery_timeout", -1, 0.01),
        ("relay_delivery_timeout", 0.02, 0.02),
        ("relay_delivery_timeout", None, None),
        ("relay_queue_limit", 0, 1),
        ("relay_queue_limit", -3, 1),
        ("relay_queue_limit", 7, 7),
    ],
)
def test_options_of_the_relay_have_a_least_value(tmp_path: Path, option: str, given: Any, taken: float | None) -> None:
    settings = host(tmp_path, **{option: given}).relay_settings
    assert getattr(settings, option.removeprefix("relay_")) == taken


@pytest.mark.parametrize("option", ["relay_offline_after", "relay_delivery_timeout", "relay_queue_limit"])
def test_what_is_no_finite_number_is_refused(tmp_path: Path, option: str) -> None:
    for nonsense in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match=f"{option} must be a finite number, not"):
            host(tmp_path, **{option: nonsense})
    with pytest.raises(TypeError):
        host(tmp_path, **{option: "10"})
