"""Directories as trees: what was read is put in place, and nothing that a stranger writes leads anywhere else."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import stat
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from paglets.artifacts.errors import FileChangedError
from paglets.artifacts.tree import Entry, Kind, Tree, duplicate, scan, unpack
from paglets.artifacts.tree import manifest as manifest_module
from paglets.artifacts.tree.manifest import FORMAT, MAX_DEPTH, PACK_BYTES, SMALL_FILE_BYTES, check, layout
from paglets.artifacts.tree.removal import remove_tree
from paglets.core.errors import TransferError

# What is created on a disk takes the time that the disk takes.
SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NOW = 1_700_000_000_123_456_789
posix_only = pytest.mark.skipif(os.name != "posix", reason="what only POSIX file systems have")


def file(path: bytes, size: int = 0, **fields: Any) -> Entry:
    return Entry(path, Kind.FILE, fields.get("mode", 0o600), fields.get("mtime_ns", NOW), size)


def directory(path: bytes, **fields: Any) -> Entry:
    return Entry(path, Kind.DIRECTORY, fields.get("mode", 0o700), fields.get("mtime_ns", NOW))


def link(path: bytes, target: bytes) -> Entry:
    return Entry(path, Kind.LINK, 0o777, NOW, 0, target)


def contents_of(root: Path) -> dict[str, tuple[Any, ...]]:
    """Return everything that can be seen of a directory, by path."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        what: Any = None
        if path.is_symlink():
            what = str(path.readlink())
        elif path.is_file():
            what = path.read_bytes()
        mode = None if path.is_symlink() else stat.S_IMODE(status.st_mode)
        found[str(path.relative_to(root))] = (stat.S_IFMT(status.st_mode), mode, status.st_mtime_ns, what)
    return found


def carry(source: Path, target: Path) -> Tree:
    """Take a directory through everything that it goes through on its way to another host."""
    survey = scan(source)
    tree = survey.tree()
    blobs = {number: b"".join(survey.pieces(number)) for number in range(len(survey.chunks))}
    for number, blob in blobs.items():
        assert hashlib.sha256(blob).hexdigest() == tree.digests[number]
    arrived = Tree.from_bytes(tree.to_bytes())
    assert arrived == tree
    unpack(arrived, lambda number: in_pieces(blobs[number], 300_000), target)
    return tree


def in_pieces(blob: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(blob), size):
        yield blob[start : start + size]


# --- what is carried ---------------------------------------------------------------------------------------------


def sample(root: Path) -> Path:
    (root / "empty").mkdir(parents=True)
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "script.sh").write_bytes(b"#!/bin/sh\n")
    (root / "deep" / "er" / "script.sh").chmod(0o754)
    (root / "nothing").touch()
    (root / "zeta.bin").write_bytes(bytes(range(256)) * 9)
    (root / "ümläut und mehr").write_text("ja")
    os.utime(root / "zeta.bin", ns=(NOW, NOW))
    os.utime(root / "empty", ns=(NOW - 10**9, NOW - 10**9))
    return root


def test_a_directory_arrives_as_it_left(tmp_path: Path) -> None:
    source = sample(tmp_path / "source")
    carry(source, tmp_path / "target")
    assert contents_of(tmp_path / "target") == contents_of(source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


@posix_only
def test_links_inside_arrive_and_what_has_no_text_for_a_name(tmp_path: Path) -> None:
    source = sample(tmp_path / "source")
    (source / "to-file").symlink_to("deep/er/script.sh")
    (source / "deep" / "up").symlink_to("../zeta.bin")
    (source / "to-nowhere").symlink_to("not/there")
    (source / "through").symlink_to("deep/../to-file")
    (source / os.fsdecode(b"\xff\xfe")).write_bytes(b"named by bytes")
    carry(source, tmp_path / "target")
    assert contents_of(tmp_path / "target") == contents_of(source)


def test_an_empty_directory_arrives(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    tree = carry(tmp_path / "source", tmp_path / "target")
    assert tree.chunks == []
    assert tree.content_bytes == 0
    assert list((tmp_path / "target").iterdir()) == []


@posix_only
def test_bits_that_give_somebody_elses_rights_do_not_travel(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir(mode=0o755)
    (source / "program").touch()
    (source / "program").chmod(0o6755)
    source.chmod(0o1777)
    carry(source, tmp_path / "target")
    assert stat.S_IMODE((tmp_path / "target" / "program").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0o777


def test_the_checksum_is_that_of_everything(tmp_path: Path) -> None:
    """What is the same gives the same one, whatever is different another one."""
    first = sample(tmp_path / "first")
    shutil.copytree(first, tmp_path / "second", symlinks=True)
    one, other = scan(first), scan(tmp_path / "second")
    assert one.tree().sha256() == other.tree().sha256()
    assert one.fingerprint() != other.fingerprint()  # other files, though equal
    assert one.fingerprint() == scan(first).fingerprint()
    seen = {one.tree().sha256()}

    def changed(change: Callable[[], object]) -> None:
        change()
        checksum = scan(first).tree().sha256()
        assert checksum not in seen
        seen.add(checksum)

    changed(lambda: (first / "zeta.bin").write_bytes(b"other"))
    changed(lambda: os.utime(first / "zeta.bin", ns=(NOW, NOW + 1)))
    changed(lambda: (first / "empty").rmdir())
    changed(lambda: (first / "nothing").rename(first / "nothing at all"))
    if os.name == "posix":
        changed(lambda: (first / "zeta.bin").chmod(0o444))


def test_small_files_share_a_pack_and_large_ones_have_a_blob_of_their_own() -> None:
    large = SMALL_FILE_BYTES + 1
    entries = [file(b"a", 10), file(b"b", large), file(b"c"), file(b"d", SMALL_FILE_BYTES)]
    chunks = layout(entries)
    assert [(list(chunk.members), chunk.size) for chunk in chunks] == [([0, 3], 10 + SMALL_FILE_BYTES), ([1], large)]
    many = [file(b"%06d" % number, SMALL_FILE_BYTES) for number in range(40)]
    assert [chunk.size for chunk in layout(many)] == [PACK_BYTES, PACK_BYTES, 8 * SMALL_FILE_BYTES]


def test_large_files_travel_by_themselves(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    content = os.urandom(1024) * 5000
    (source / "large").write_bytes(content)
    (source / "small").write_bytes(b"small")
    survey = scan(source)
    asked: list[Path] = []

    def known(path: Path, _: object) -> str:
        asked.append(path)
        return hashlib.sha256(content).hexdigest()

    tree = survey.tree(known)
    assert asked == [source / "large"]
    assert tree.digests[0] == hashlib.sha256(content).hexdigest()
    assert b"".join(survey.pieces(0, 1_500_000)) == content[1_500_000:]
    placed: list[tuple[int, str]] = []

    def place(number: int, path: Path) -> bool:
        path.write_bytes(content)
        placed.append((number, path.name))
        return True

    unpack(Tree.from_bytes(tree.to_bytes()), survey.pieces, tmp_path / "target", place=place)
    assert placed == [(0, "large")]
    assert contents_of(tmp_path / "target") == contents_of(source)
    unpack(tree, survey.pieces, tmp_path / "again", place=lambda *_: False)
    assert contents_of(tmp_path / "again") == contents_of(source)


def test_a_chunk_can_be_read_from_anywhere(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(20):
        (source / f"{number:02}").write_bytes(bytes([number]) * (number * 7))
    survey = scan(source)
    whole = b"".join(survey.pieces(0))
    for offset in range(0, len(whole) + 1, 13):
        assert b"".join(survey.pieces(0, offset)) == whole[offset:]


@posix_only
def test_holes_stay_holes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    size = 3 * 1024 * 1024
    with (source / "sparse").open("wb") as stream:
        stream.seek(1024 * 1024)
        stream.write(b"in the middle")
        stream.truncate(size)
    carry(source, tmp_path / "target")
    arrived = tmp_path / "target" / "sparse"
    assert contents_of(tmp_path / "target") == contents_of(source)
    assert arrived.stat().st_size == size
    assert arrived.stat().st_blocks * 512 < size / 2


def test_a_copy_on_the_same_host(tmp_path: Path) -> None:
    source = sample(tmp_path / "source")
    duplicate(scan(source), lambda here, there: shutil.copyfile(here, there) and None, tmp_path / "target")
    assert contents_of(tmp_path / "target") == contents_of(source)


def test_many_files_arrive(tmp_path: Path) -> None:
    """So many that they are synced together."""
    source = tmp_path / "source"
    for number in range(300):
        (source / f"d{number % 7}").mkdir(parents=True, exist_ok=True)
        (source / f"d{number % 7}" / f"f{number}").write_bytes(b"%d" % number)
    carry(source, tmp_path / "target")
    assert contents_of(tmp_path / "target") == contents_of(source)


NAMES = st.one_of(
    st.sampled_from(["a", "A", "aux", "con.txt", "x" * 100, ".hidden", "back\\slash", "a:b", " ", "ä", "a\u0308"]),
    st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=12).filter(
        lambda name: name not in (".", "..")
    ),
)
LEAVES = st.one_of(st.binary(max_size=40), st.integers(0, 200_000), st.sampled_from(["link"]))
DIRECTORIES = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=5),
    lambda inner: st.dictionaries(NAMES, st.one_of(LEAVES, inner), max_size=5),
    max_leaves=15,
)


def build(root: Path, what: dict[str, Any]) -> None:
    root.mkdir()
    for name, content in what.items():
        path = root / name
        if isinstance(content, dict):
            build(path, content)
        elif content == "link":
            path.symlink_to(f"./{name}-target")
        else:
            path.write_bytes(content if isinstance(content, bytes) else bytes(content))
            path.chmod(0o400 | len(name) % 0o400)


@posix_only
@settings(SETTINGS, max_examples=40)
@given(DIRECTORIES)
def test_any_directory_arrives_as_it_left(what: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as made:
        build(Path(made, "source"), what)
        carry(Path(made, "source"), Path(made, "target"))
        assert contents_of(Path(made, "target")) == contents_of(Path(made, "source"))
        assert len(list(Path(made).iterdir())) == 2


# --- what does not travel ----------------------------------------------------------------------------------------


@posix_only
@pytest.mark.parametrize(
    "target", ["/etc/passwd", "..", "../outside", "inner/../../outside", "hop/../..", "hop/../../source"]
)
def test_a_link_out_of_the_directory_is_refused(tmp_path: Path, target: str) -> None:
    source = tmp_path / "source"
    (source / "inner" / "deep").mkdir(parents=True)
    (source / "hop").symlink_to("inner")
    (source / "wrong").symlink_to(target)
    with pytest.raises(TransferError, match=r"'wrong'.*out of the directory"):
        scan(source)


@posix_only
def test_a_link_that_stays_inside_only_if_another_is_followed(tmp_path: Path) -> None:
    """`hop` leads two directories down, so that going up twice from there stays inside."""
    source = tmp_path / "source"
    (source / "inner" / "deep").mkdir(parents=True)
    (source / "hop").symlink_to("inner/deep")
    (source / "fine").symlink_to("hop/../..")
    assert [entry.target for entry in scan(source).entries if entry.kind is Kind.LINK] == [b"hop/../..", b"inner/deep"]
    (source / "hop").unlink()
    (source / "hop").mkdir()
    with pytest.raises(TransferError, match="out of the directory"):
        scan(source)


@posix_only
def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").symlink_to("b")
    (source / "b").symlink_to("a")
    with pytest.raises(TransferError, match="circle"):
        scan(source)


@posix_only
def test_what_is_neither_file_nor_directory_is_refused(tmp_path: Path) -> None:
    piped = tmp_path / "piped"
    piped.mkdir()
    os.mkfifo(piped / "pipe")
    with pytest.raises(TransferError, match="is a pipe"):
        scan(piped)
    with tempfile.TemporaryDirectory(dir="/tmp") as short, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{short}/socket")
        with pytest.raises(TransferError, match="is a socket"):
            scan(short)
    with pytest.raises(TransferError, match="Not a directory"):
        scan(tmp_path / "not there")


def test_a_directory_that_is_too_deep_or_has_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path
    for _ in range(MAX_DEPTH + 1):
        deep = deep / "d"
    deep.mkdir(parents=True)
    with pytest.raises(TransferError, match="too deep"):
        scan(tmp_path)
    scan(tmp_path / "d" / "d")
    shutil.rmtree(tmp_path / "d")
    for number in range(4):
        (tmp_path / str(number)).touch()
    monkeypatch.setattr("paglets.artifacts.tree.reading.MAX_ENTRIES", 3)
    with pytest.raises(TransferError, match="more than the 3 entries"):
        scan(tmp_path)


# --- what changes meanwhile --------------------------------------------------------------------------------------


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def _touched(path: Path) -> None:
    os.utime(path, ns=(NOW, NOW))


def _replaced(path: Path) -> None:
    content = path.read_bytes()
    status = path.stat()
    path.rename(path.with_name("elsewhere"))
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", [_longer, _touched, _replaced, Path.unlink], ids=lambda change: change.__name__)
def test_a_file_that_was_changed_is_noticed(tmp_path: Path, change: Callable[[Path], None]) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_bytes(b"content")
    survey = scan(tmp_path)
    change(tmp_path / "inner" / "file")
    with pytest.raises(FileChangedError):
        survey.tree()
    with pytest.raises(FileChangedError):
        list(survey.pieces(0))
    with pytest.raises(FileChangedError):
        survey.ensure_same(1)


def test_a_file_that_is_changed_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 3_000_000)
    pieces = scan(tmp_path).pieces(0)
    next(pieces)
    with (tmp_path / "file").open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(FileChangedError, match=r"file.* was changed"):
        list(pieces)


@posix_only
def test_a_directory_that_becomes_a_link_leads_nowhere(tmp_path: Path) -> None:
    """Whoever reads what was seen reads that, not what is at the same path elsewhere."""
    (tmp_path / "source" / "inner").mkdir(parents=True)
    (tmp_path / "source" / "inner" / "file").write_bytes(b"mine")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").write_bytes(b"them")
    survey = scan(tmp_path / "source")
    (tmp_path / "source" / "inner").rename(tmp_path / "aside")
    (tmp_path / "source" / "inner").symlink_to(tmp_path / "secret")
    with pytest.raises(FileChangedError):
        list(survey.pieces(0))


@posix_only
def test_a_file_that_becomes_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    survey = scan(tmp_path)
    (tmp_path / "file").unlink()
    os.mkfifo(tmp_path / "file")
    with pytest.raises(FileChangedError):
        list(survey.pieces(0))


# --- what a stranger sends ---------------------------------------------------------------------------------------


def forged(entries: list[Entry] | list[Any], blobs: int | list[bytes] = 0, **fields: Any) -> bytes:
    """Return a manifest without asking whether it is allowed."""
    digests = [bytes(32)] * blobs if isinstance(blobs, int) else blobs
    wire = [fields.get("format", FORMAT), fields.get("mode", 0o700), fields.get("mtime_ns", NOW), entries, digests]
    return msgspec.msgpack.encode(wire)


HOSTILE: dict[str, list[Entry]] = {
    "up": [file(b"..")],
    "up and away": [file(b"../escaped")],
    "through a directory": [directory(b"a"), file(b"a/../../escaped")],
    "here": [file(b".")],
    "absolute": [file(b"/escaped")],
    "absolute directory": [directory(b"/tmp"), file(b"/tmp/escaped")],
    "empty": [file(b"")],
    "empty component": [directory(b"a"), file(b"a//b")],
    "trailing slash": [directory(b"a/")],
    "nul": [file(b"a\0b")],
    "twice": [file(b"a"), file(b"a")],
    "twice, in different roles": [directory(b"a"), link(b"a", b"b")],
    "directory listed twice": [directory(b"a"), file(b"a/x"), directory(b"a"), file(b"a/x")],
    "not in order": [file(b"b"), file(b"a")],
    "orphan": [file(b"a/b")],
    "below a file": [file(b"a"), file(b"a/b")],
    "below a link": [link(b"a", b"b"), file(b"a/x"), directory(b"b")],
    "after its directory has ended": [directory(b"a"), directory(b"b"), file(b"a/x")],
    "long name": [file(b"n" * 256)],
    "setuid": [file(b"a", mode=0o4755)],
    "negative mode": [file(b"a", mode=-1)],
    "directory with a size": [Entry(b"a", Kind.DIRECTORY, 0o700, NOW, 5)],
    "file with a target": [Entry(b"a", Kind.FILE, 0o600, NOW, 0, b"b")],
    "negative size": [file(b"a", -1)],
    "larger than any disk": [file(b"a", 1 << 61)],
    "larger than any disk together": [file(b"%03d" % number, (1 << 60) - 1) for number in range(2)],
    "time": [file(b"a", mtime_ns=1 << 62)],
    "absolute link": [link(b"a", b"/etc/passwd")],
    "link out": [link(b"a", b"../b")],
    "link out through another": [link(b"a", b"b/../.."), directory(b"b")],
    "link out through a chain": [link(b"a", b"b/x"), link(b"b", b"c"), link(b"c", b"..")],
    "link without target": [link(b"a", b"")],
    "link with a long target": [link(b"a", b"b/" * 3000)],
    "link with a nul": [link(b"a", b"b\0c")],
    "circle": [link(b"a", b"b"), link(b"b", b"a")],
    "link to itself": [link(b"a", b"a/x")],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_manifest_is_refused(name: str) -> None:
    entries = HOSTILE[name]
    count = sum(1 for entry in entries if entry.size > 0)
    with pytest.raises(TransferError):
        Tree.from_bytes(forged(entries, count))


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xc0",
        b"\x95",
        msgspec.msgpack.encode({}),
        forged([], format="paglets-tree-2"),
        forged([], mode=0o7777),
        forged([], mtime_ns=1 << 70 - 8),
        forged([], 1),
        forged([file(b"a", 1)], 0),
        forged([file(b"a", 1)], [b"short"]),
        forged([["a", 1, 0o600, NOW]]),
        forged([[b"a", 7, 0o600, NOW]]),
        forged([[b"a", 1, 0.5, NOW]]),
        forged([[b"a", 1, 0o600, NOW, None]]),
        forged([[b"a"]]),
        # Announced, but not there: nothing is made for it.
        b"\x95\xae" + FORMAT.encode() + b"\xcd\x01\xc0\x00\xdd\xff\xff\xff\xff",
        forged([]) + b"x",
    ],
)
def test_a_malformed_manifest_is_refused(packed: bytes) -> None:
    with pytest.raises(TransferError):
        Tree.from_bytes(packed)


def test_a_manifest_beyond_its_bounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = [directory(b"/".join([b"d"] * (depth + 1))) for depth in range(MAX_DEPTH + 1)]
    check(deep[:MAX_DEPTH], mode=0o700, mtime_ns=NOW)
    with pytest.raises(TransferError, match="deep"):
        check(deep, mode=0o700, mtime_ns=NOW)
    long = [directory(b"/".join([b"n" * 250] * (depth + 1))) for depth in range(17)]
    with pytest.raises(TransferError, match="path"):
        check(long, mode=0o700, mtime_ns=NOW)
    tree = Tree(0o700, NOW, [file(b"a")], [], [])
    packed = tree.to_bytes()
    monkeypatch.setattr(manifest_module, "MAX_MANIFEST_BYTES", len(packed) - 1)
    with pytest.raises(TransferError, match="bytes"):
        tree.to_bytes()
    with pytest.raises(TransferError, match="bytes"):
        Tree.from_bytes(packed)


def test_links_made_to_take_long_are_refused() -> None:
    """Each leads through others, which lead through others."""
    entries = [link(b"%02d" % number, b"/".join([b"%02d" % (number + 1), b"x"] * 600)) for number in range(30)]
    with pytest.raises(TransferError, match="longer than any"):
        Tree.from_bytes(forged(entries))
    entries = [link(b"%02d" % number, b"%02d/x" % (number + 1)) for number in range(50)]
    with pytest.raises(TransferError, match="too many others"):
        Tree.from_bytes(forged(entries))
    entries = [link(b"%05d" % number, b"./" * 2000) for number in range(1000)]
    with pytest.raises(TransferError, match="entangled"):
        Tree.from_bytes(forged(entries))


@pytest.mark.parametrize("contents", [[], [b"abc"], [b"abcd", b"e"], [b"abcde"], [b"", b"abcd"]])
def test_contents_of_another_length_are_refused(tmp_path: Path, contents: list[bytes]) -> None:
    tree = Tree.from_bytes(forged([directory(b"d"), file(b"d/a", 2), file(b"d/b", 2)], 1))
    with pytest.raises(TransferError, match="contents of a directory"):
        unpack(tree, lambda _: iter(contents), tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_taken_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "mine").touch()
    with pytest.raises(TransferError, match="cannot be written"):
        unpack(Tree.from_bytes(forged([file(b"a")])), lambda _: iter(()), tmp_path / "target")
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["target", "target/mine"]


def test_names_that_are_one_on_this_disk_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that knows no upper and lower case the second one meets the first, which is as if it were there."""
    tree = Tree.from_bytes(forged([file(b"A", 1), file(b"a", 1)], 1))
    opened = os.open
    monkeypatch.setattr(
        os,
        "open",
        lambda path, flags, *rest, **more: opened(os.fsencode(path).replace(b"/a", b"/A"), flags, *rest, **more),
    )
    with pytest.raises(TransferError, match="one on this disk"):
        unpack(tree, lambda _: iter([b"12"]), tmp_path / "target")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    unpack(tree, lambda _: iter([b"12"]), tmp_path / "target")
    if len(list((tmp_path / "target").iterdir())) == 2:
        assert (tmp_path / "target" / "A").read_bytes() == b"1"


@posix_only
def test_a_directory_that_forbids_to_be_removed_is_removed() -> None:
    entries = [directory(b"d", mode=0o555), file(b"d/a", mode=0o444), directory(b"e", mode=0), link(b"l", b"d")]
    tree = Tree.from_bytes(forged(entries, mode=0o500))
    with tempfile.TemporaryDirectory() as made:
        if os.getuid() == 0:  # who may do everything
            os.chown(made, 65534, 65534)
        process = os.fork()
        if process == 0:
            try:
                if os.getuid() == 0:
                    os.setuid(65534)
                unpack(tree, lambda _: iter(()), Path(made, "target"))
                remove_tree(Path(made, "target"))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        assert os.waitpid(process, 0)[1] == 0
        assert list(Path(made).iterdir()) == []
        remove_tree(Path(made, "target"))


WIRE_ENTRIES = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from([b"a", b"a/b", b"a/b/c", b"b", b"..", b"/a", b"a/..", b"a/../..", b"c"]),
            st.binary(max_size=8),
        ),
        st.sampled_from([0, 1, 2]),
        st.sampled_from([0o600, 0o755, 0o4755]),
        st.sampled_from([NOW, -1, 1 << 63]),
        st.sampled_from([0, 0, 1, 5]),
        st.sampled_from([b"", b"", b"a", b"../a", b"b/c", b"/", b".."]),
    ),
    max_size=6,
)


@posix_only
@settings(SETTINGS)
@given(WIRE_ENTRIES)
@example([(b"a", 0, 0o755, NOW, 0, b""), (b"a/b", 2, 0o777, NOW, 0, b"../a"), (b"b", 1, 0o600, NOW, 5, b"")])
def test_whatever_is_accepted_stays_in_its_directory(entries: list[tuple[Any, ...]]) -> None:
    chunks = layout([Entry(*entry) for entry in entries])
    try:
        tree = Tree.from_bytes(forged([list(entry) for entry in entries], len(chunks)))
    except TransferError:
        return
    assert Tree.from_bytes(tree.to_bytes()) == tree
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        unpack(tree, lambda number: iter([b"x" * tree.chunks[number].size]), root / "target")
        assert [path.name for path in root.iterdir()] == ["target"]
        found = {os.fsencode(path.relative_to(root / "target")) for path in (root / "target").rglob("*")}
        assert found == {entry[0] for entry in entries}
        for path in (root / "target").rglob("*"):
            assert path.resolve().is_relative_to((root / "target").resolve())


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(packed: bytes) -> None:
    with pytest.raises(TransferError):
        Tree.from_bytes(packed)
