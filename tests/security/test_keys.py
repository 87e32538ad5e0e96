"""Keys and the file that knows them: what is accepted, what is kept, and that nothing gives a key away."""

from __future__ import annotations

import stat
import threading
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paglets.core.errors import AuthenticationError, HostError
from paglets.runtime.http.keyring import Keyring
from paglets.security.caller import ANYBODY
from paglets.security.key_file import KeyFile, change_key_file, key_file_text, load_key_file, parse_key_file
from paglets.security.keys import KeyLimits, KeyRecord, checked_key_name, new_key, split_key
from paglets.security.roles import ROLE_NAMES, Role, role_named
from tests.effort import thorough


def bearer(key: str) -> bytes:
    return f"Bearer {key}".encode()


def stored(path: Path, *records: KeyRecord, revoked: tuple[str, ...] = ()) -> Path:
    change_key_file(path, lambda _: KeyFile(records, revoked))
    return path


# --- keys -------------------------------------------------------------------------------------------------------------


def test_roles_grow() -> None:
    assert [role_named(name) for name in ROLE_NAMES] == sorted(Role)
    assert [str(role) for role in Role] == ["observe", "message", "operate", "admin"]
    for wrong in ("", "root", "ADMIN", None, 4, ["admin"]):
        with pytest.raises(ValueError, match="observe, message, operate, admin"):
            role_named(wrong)


def test_a_record_knows_its_key_and_does_not_have_it() -> None:
    key, record = new_key("laptop", Role.MESSAGE, now=1000.0)
    other, _ = new_key("laptop", Role.MESSAGE)
    parts = split_key(key.encode())
    assert parts is not None
    key_id, secret = parts
    assert key_id == record.key_id
    assert record.fits(secret)
    assert not record.fits(secret[:-1] + (b"A" if secret[-1:] != b"A" else b"B"))
    foreign = split_key(other.encode())
    assert foreign is not None
    assert not record.fits(foreign[1])
    assert secret.decode() not in "".join(str(getattr(record, each.name)) for each in fields(record))
    assert record.digest not in repr(record)
    assert record.salt not in repr(record)


def test_two_keys_with_the_same_secret_have_other_digests() -> None:
    _, one = new_key("a", Role.ADMIN)
    _, two = new_key("a", Role.ADMIN)
    assert one.salt != two.salt


def test_a_key_ends() -> None:
    _, record = new_key("laptop", Role.MESSAGE, now=1000.0, expires=2000.0)
    assert [record.state(now) for now in (1000.0, 1999.9, 2000.0)] == ["valid", "valid", "expired"]
    ended = record.ended(1500.0)
    assert (ended.state(1500.0), ended.ended(1600.0).revoked) == ("revoked", 1500.0)


@pytest.mark.parametrize("name", ["", " ", "a b", "a\n", "../a", "a/b", ".a", "-a", "a" * 65, "ä", "a\x00"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 64"):
        checked_key_name(name)
    with pytest.raises(ValueError, match="1 to 64"):
        new_key(name, Role.ADMIN)


@pytest.mark.parametrize(
    "limits",
    [{"requests_per_second": 0}, {"requests_per_second": float("nan")}, {"connections": 0}, {"bytes_in_flight": -1}],
)
def test_limits_that_are_none(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(limits))):
        KeyLimits(**limits)  # type: ignore[arg-type]


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_file_gives_back_what_was_put_in(tmp_path: Path) -> None:
    limits = KeyLimits(2.5, 3, 1024, 7)
    _, first = new_key("laptop", Role.MESSAGE, now=1000.5, expires=2000.0, limits=limits, hosts=("http://10.*",))
    _, second = new_key("beta", Role.OPERATE, now=1001.0)
    path = stored(tmp_path / "deep" / "keys.toml", first, second.ended(1002.0), revoked=("0aff",))
    assert load_key_file(path) == KeyFile((first, second.ended(1002.0)), ("0aff",))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key_file(tmp_path / "absent.toml") == KeyFile()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o666])
def test_a_file_that_others_may_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = stored(tmp_path / "keys.toml")
    path.chmod(mode)
    with pytest.raises(HostError, match=f"chmod 600 {path}"):
        load_key_file(path)
    with pytest.raises(HostError, match="chmod 600"):
        Keyring(None, [path])


def test_programs_that_change_the_file_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"

    def add(number: int) -> None:
        record = new_key(f"k{number}", Role.OBSERVE)[1]
        change_key_file(path, lambda content: replace(content, keys=(*content.keys, record)))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.name for each in load_key_file(path).keys) == [f"k{number}" for number in range(8)]
    assert sorted(each.name for each in tmp_path.iterdir()) == [".keys.toml.lock", "keys.toml"]


SECRET = "pgl_0123456789ab_SEcReT"
GOOD = key_file_text(KeyFile((new_key("laptop", Role.ADMIN, now=1.0)[1],)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"keys = {SECRET}", "no valid TOML"),
        (f"'{SECRET}' = 1", "unknown name"),
        (f"keys = '{SECRET}'", "list"),
        (f"keys = ['{SECRET}']", "number 1 must be a table"),
        (f"[[keys]]\nid = '{SECRET}'", "12 hexadecimal digits"),
        (f"[[keys]]\nsecret = '{SECRET}'", "unknown name"),
        (GOOD.replace("admin", "root"), "role"),
        (GOOD.replace('"laptop"', "5"), "'name' must be a text"),
        (GOOD.replace("created = ", "created = 5 #"), "date and time"),
        (GOOD + "expires = 1979-05-27", "date and time with a zone"),
        (GOOD + "connections = 1.5", "'connections' must be a number"),
        (GOOD + "connections = 0", "above 0"),
        (GOOD + "requests_per_second = nan", "must be a number"),
        (GOOD + "hosts = 'http://x'", "list of addresses"),
        (GOOD + GOOD, "same id"),
        ("revoked_certificates = 'aa'", "list of serial numbers"),
    ],
)
def test_mistakes_are_named_and_values_are_not(text: str, words: str) -> None:
    with pytest.raises(HostError, match=words) as caught:
        parse_key_file(text.encode(), "keys.toml")
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@settings(max_examples=thorough(50, 150), deadline=None)
@given(st.binary(max_size=400) | st.text(max_size=300).map(lambda text: (GOOD + text).encode(errors="replace")))
def test_whatever_is_in_the_file_there_is_one_kind_of_error(content: bytes) -> None:
    try:
        found = parse_key_file(content, "keys.toml")
    except HostError as exc:
        assert str(exc).startswith("the key file keys.toml")
    else:
        assert parse_key_file(key_file_text(found).encode(), "again") == found


# --- the ring ---------------------------------------------------------------------------------------------------------


def test_a_host_without_keys_asks_for_none_and_one_that_had_some_always_does(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    ring = Keyring(None, [path])
    assert (ring.locked, ring.caller(None)) == (False, ANYBODY)
    key, record = new_key("laptop", Role.OBSERVE)
    stored(path, record)
    assert ring.reload()
    assert not ring.reload()
    assert ring.caller(bearer(key)).name == "laptop"
    path.unlink()
    assert ring.reload()
    for shown in (None, bearer(key)):
        with pytest.raises(AuthenticationError):
            ring.caller(shown)


def test_keys_are_valid_side_by_side_until_they_end(tmp_path: Path) -> None:
    now = [1000.0]
    old, first = new_key("laptop", Role.MESSAGE, now=1.0)
    new, second = new_key("laptop", Role.OPERATE, now=1.0, expires=2000.0)
    path = stored(tmp_path / "keys.toml", first, second)
    ring = Keyring("classic", [path], clock=lambda: now[0])
    assert [ring.caller(bearer(key)).role for key in (old, new, "classic")] == [
        Role.MESSAGE,
        Role.OPERATE,
        Role.ADMIN,
    ]
    stored(path, first.ended(1000.0), second)
    ring.reload()
    with pytest.raises(AuthenticationError):
        ring.caller(bearer(old))
    now[0] = 2000.0
    with pytest.raises(AuthenticationError):
        ring.caller(bearer(new))
    assert ring.caller(bearer("classic")).role is Role.ADMIN


def test_the_file_decides_about_a_key_that_is_given_as_the_one_key_too(tmp_path: Path) -> None:
    key, record = new_key("beta", Role.OPERATE)
    path = stored(tmp_path / "keys.toml", record)
    ring = Keyring(key, [path])
    assert ring.caller(bearer(key)).role is Role.OPERATE
    stored(path, record.ended(1.0))
    ring.reload()
    with pytest.raises(AuthenticationError):
        ring.caller(bearer(key))
    # Without a file that knows it, it is the one key of old like any other text.
    assert Keyring(key).caller(bearer(key)).role is Role.ADMIN


def test_a_broken_file_changes_nothing_until_it_is_whole(tmp_path: Path) -> None:
    key, record = new_key("laptop", Role.MESSAGE)
    path = stored(tmp_path / "keys.toml", record)
    ring = Keyring(None, [path])
    path.write_text("[[keys]\n")
    for _ in range(2):
        with pytest.raises(HostError, match="no valid TOML"):
            ring.reload()
    assert ring.caller(bearer(key)).role is Role.MESSAGE
    stored(tmp_path / "next.toml").replace(path)
    assert ring.reload()
    with pytest.raises(AuthenticationError):
        ring.caller(bearer(key))


def test_several_files_are_one_ring(tmp_path: Path) -> None:
    one, first = new_key("one", Role.OBSERVE)
    two, second = new_key("two", Role.MESSAGE)
    ring = Keyring(None, [stored(tmp_path / "a.toml", first), stored(tmp_path / "b.toml", second)])
    assert [ring.caller(bearer(key)).name for key in (one, two)] == ["one", "two"]
    assert one not in repr(ring)


REAL, RECORD = new_key("laptop", Role.ADMIN)


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    path = stored(tmp_path_factory.mktemp("ring") / "keys.toml", RECORD)
    return Keyring("classic", [path], certificates=True)


@settings(max_examples=thorough(100, 300), deadline=None)
@given(
    st.none() | st.binary(max_size=200) | st.binary(max_size=80).map(lambda rest: b"Bearer " + rest),
    st.none()
    | st.dictionaries(st.sampled_from(["subject", "serialNumber", "subjectAltName"]), st.just(()), max_size=3),
)
def test_no_bytes_but_a_key_are_a_key(
    ring: Keyring, shown: bytes | None, certificate: dict[str, object] | None
) -> None:
    if shown is not None and shown.partition(b" ")[2].strip() in (REAL.encode(), b"classic"):
        return
    with pytest.raises(AuthenticationError, match=r"^Authentication required$"):
        ring.caller(shown, certificate)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(REAL) - 1), st.sampled_from("AZaz09_-"))
def test_a_key_with_one_other_character_is_none(ring: Keyring, place: int, character: str) -> None:
    changed = REAL[:place] + character + REAL[place + 1 :]
    if changed == REAL:
        assert ring.caller(bearer(REAL)).name == "laptop"
        return
    with pytest.raises(AuthenticationError):
        ring.caller(bearer(changed))
    for other in (REAL + character, REAL[:place], REAL[:place] + REAL[place + 1 :]):
        with pytest.raises(AuthenticationError):
            ring.caller(bearer(other))
