from __future__ import annotations

import pytest

from paglets.config.env import DEFAULT_API_KEY_ENV, resolve_api_key


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DEFAULT_API_KEY_ENV, raising=False)
    monkeypatch.delenv("OTHER_KEY", raising=False)


def test_the_default_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert DEFAULT_API_KEY_ENV == "PAGLETS_API_KEY"
    assert resolve_api_key() is None
    monkeypatch.setenv(DEFAULT_API_KEY_ENV, "")
    assert resolve_api_key() is None
    monkeypatch.setenv(DEFAULT_API_KEY_ENV, "secret")
    assert resolve_api_key() == resolve_api_key(None) == "secret"


def test_a_named_variable_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEFAULT_API_KEY_ENV, "secret")
    monkeypatch.setenv("OTHER_KEY", "other")
    assert resolve_api_key("OTHER_KEY") == "other"


@pytest.mark.parametrize("value", [None, ""])
def test_a_named_variable_must_hold_a_key(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.setenv(DEFAULT_API_KEY_ENV, "secret")
    if value is not None:
        monkeypatch.setenv("OTHER_KEY", value)
    with pytest.raises(ValueError, match="--api-key-env 'OTHER_KEY' is not set or is empty"):
        resolve_api_key("OTHER_KEY")
