"""What is announced on the local network, and what is believed of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.remote.announcement import Announcement

ALPHA = Announcement("alpha", "http://192.0.2.7:8765", "1.0")
names = st.text(min_size=1, max_size=20)
keys = st.none() | st.text(min_size=1, max_size=60)


def on_the_wire(texts: dict[str, str]) -> dict[bytes, bytes | None]:
    """Return texts as a record has them."""
    return {key.encode(): text.encode() for key, text in texts.items()}


def is_text(text: str) -> bool:
    """Return whether it can be encoded at all."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


@given(names.filter(is_text), names.filter(is_text), keys.filter(lambda key: key is None or is_text(key)))
def test_who_has_the_key_gets_what_was_announced(name: str, version: str, key: str | None) -> None:
    told = Announcement(name, ALPHA.url, version)
    believed = Announcement.believed(on_the_wire(told.texts(key)), key)
    assert believed == told
    assert believed is not None and believed.signed is (key is not None)


@given(st.sampled_from(["name", "url", "version", "sig"]), st.binary(max_size=80))
def test_nothing_that_was_changed_is_believed_by_who_has_a_key(part: str, forged: bytes) -> None:
    texts = on_the_wire(ALPHA.texts("a key"))
    changed = texts[part.encode()] != forged
    texts[part.encode()] = forged
    believed = Announcement.believed(texts, "a key")
    # A slash at the end of a URL is none of its meaning.
    assert believed in (None, ALPHA)
    assert believed is None or not changed or part == "url"


@pytest.mark.parametrize("key", ["another key", ""])
def test_another_key_is_not_believed(key: str) -> None:
    assert Announcement.believed(on_the_wire(ALPHA.texts("a key")), key) is None
    assert Announcement.believed(on_the_wire(ALPHA.texts(None)), "a key") is None


def test_parts_cannot_be_shifted_between_fields() -> None:
    signed = on_the_wire(Announcement("ab", "http://c", "d").texts("a key"))
    signed[b"name"], signed[b"version"] = b"a", b"bd"
    assert Announcement.believed(signed, "a key") is None


@given(
    st.dictionaries(st.sampled_from([b"name", b"url", b"version", b"sig", b"x"]), st.none() | st.binary(max_size=90))
)
def test_whatever_is_announced_is_read_or_dropped(texts: dict[bytes, bytes | None]) -> None:
    found = Announcement.believed(texts, None)
    assert found is None or found.url.startswith(("http://", "https://"))
    assert Announcement.believed(texts, "a key") is None


@pytest.mark.parametrize(
    "url", ["ftp://x", "http://", "http://user@x", "javascript:alert(1)", "", "http://[", "file:///x"]
)
def test_a_url_that_no_host_has_is_dropped(url: str) -> None:
    texts = on_the_wire(ALPHA.texts(None)) | {b"url": url.encode()}
    assert Announcement.believed(texts, None) is None


def test_what_is_too_long_is_not_announced() -> None:
    with pytest.raises(ValueError, match="too long"):
        Announcement("n" * 251, ALPHA.url, "1").texts(None)


def test_hosts_of_one_machine_and_of_the_network_do_not_mix() -> None:
    local = Announcement("beta", "http://127.0.0.1:1", "1.0")
    assert local.concerns("http://localhost:2") and ALPHA.concerns("https://192.0.2.9")
    assert not local.concerns(ALPHA.url) and not ALPHA.concerns(local.url)
