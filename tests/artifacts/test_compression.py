from __future__ import annotations

import io
import random
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paglets.artifacts import compression
from paglets.artifacts.compression import Compressor, Decompressor, encodings, sample_of, worth_compressing
from paglets.core.errors import TransferError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

KB, MB, GB = 1024, 1024**2, 1024**3


def packed(*pieces: bytes, level: int = 3) -> bytes:
    compressor = Compressor(level)
    return b"".join([*map(compressor.feed, pieces), compressor.finish()])


def restored(data: bytes, limit: int, cut: int = 64 * KB) -> bytes:
    decompressor = Decompressor(limit)
    source, target = io.BytesIO(data), io.BytesIO()
    while piece := source.read(cut):
        target.writelines(decompressor.feed(piece))
    assert decompressor.finish() == target.tell()
    return target.getvalue()


def frame(window_log: int, *blocks: bytes) -> bytes:
    """Write a frame by hand (RFC 8878) that asks for a window and does not say how long its content is."""
    return b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([(window_log - 10) << 3]) + b"".join(blocks)


def raw_block(content: bytes, *, last: bool = False) -> bytes:
    return (len(content) << 3 | last).to_bytes(3, "little") + content


def claiming(size: int) -> bytes:
    """Write the head of a frame that says how long its content is and asks for the smallest window."""
    return b"\x28\xb5\x2f\xfd" + b"\xc0" + b"\x00" + size.to_bytes(8, "little")


def test_zstd_is_offered_where_it_is_installed() -> None:
    assert encodings() == ["zstd"]


def test_without_the_library_nothing_is_offered_and_content_is_sent_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_library", lambda: None)
    assert encodings() == []
    assert not worth_compressing(bytes(256 * KB))
    with pytest.raises(TransferError, match=r"paglets\[zstd\]"):
        Compressor()
    with pytest.raises(TransferError, match=r"paglets\[zstd\]"):
        Decompressor(1)


def test_a_missing_library_is_noticed_without_an_error() -> None:
    code = (
        "import sys; sys.modules['backports'] = sys.modules['compression.zstd'] = None\n"
        "from paglets.artifacts.compression import encodings, worth_compressing\n"
        "assert encodings() == [] and not worth_compressing(bytes(9999))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_library_is_imported_when_it_is_needed() -> None:
    code = (
        "import sys; from paglets.artifacts.compression import encodings\n"
        "assert not {'backports.zstd', 'compression.zstd'} & set(sys.modules)\n"
        "assert encodings() and {'backports.zstd', 'compression.zstd'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@given(st.lists(st.binary(max_size=3000), max_size=8), st.integers(1, 5000), st.integers(1, 9))
def test_content_comes_back_however_it_is_cut(pieces: list[bytes], cut: int, level: int) -> None:
    content = b"".join(pieces)
    assert restored(packed(*pieces, level=level), len(content), cut) == content


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 3 * MB), st.integers(0, 2**32), st.integers(1000, 3 * MB))
def test_large_content_comes_back(size: int, seed: int, cut: int) -> None:
    content = (random.Random(seed).randbytes(1009) * (size // 1009 + 1))[:size]
    assert restored(packed(content), size, cut) == content


@given(st.binary(max_size=4000), st.integers(1, 4000))
def test_content_over_the_limit_is_refused_without_a_byte_too_many(content: bytes, excess: int) -> None:
    limit = max(0, len(content) - excess)
    decompressor = Decompressor(limit)
    made = 0
    if limit == len(content):
        return
    with pytest.raises(TransferError, match=f"more than its declared {limit} bytes"):
        for piece in decompressor.feed(packed(content)):
            made += len(piece)
    assert made <= limit


@given(st.binary(max_size=2000), st.data())
def test_a_cut_content_is_never_complete(content: bytes, data: st.DataObject) -> None:
    whole = packed(content)
    cut = data.draw(st.integers(0, len(whole) - 1))
    decompressor = Decompressor(len(content))
    assert content.startswith(b"".join(decompressor.feed(whole[:cut])))
    with pytest.raises(TransferError, match="ends early"):
        decompressor.finish()


@given(st.binary(max_size=500), st.binary(min_size=1, max_size=500), st.booleans())
def test_nothing_may_follow(content: bytes, garbage: bytes, together: bool) -> None:
    whole = packed(content)
    decompressor = Decompressor(10_000)
    with pytest.raises(TransferError, match="followed by further bytes"):
        for data in [whole + garbage] if together else [whole, garbage]:
            list(decompressor.feed(data))


def test_a_second_frame_is_garbage() -> None:
    with pytest.raises(TransferError, match="followed by further bytes"):
        restored(packed(b"one") + packed(b"two"), 100)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_end_in_the_one_error_or_as_content_within_the_limit(data: bytes) -> None:
    with suppress(TransferError):
        assert len(restored(data, 1000, 7)) <= 1000


@given(st.binary(min_size=1, max_size=2000), st.data())
def test_a_damaged_content_gives_the_one_error_or_fits_the_limit(content: bytes, data: st.DataObject) -> None:
    whole = bytearray(packed(content))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(TransferError):
        assert len(restored(bytes(whole), len(content))) <= len(content)


def test_empty_content() -> None:
    assert restored(packed(), 0) == b""
    assert restored(packed(b"", b""), 0) == b""


def test_pieces_are_of_bounded_size() -> None:
    sizes = [len(piece) for piece in Decompressor(16 * MB).feed(packed(bytes(16 * MB)))]
    assert sum(sizes) == 16 * MB
    assert max(sizes) <= 256 * KB


def test_a_gigabyte_of_zeros_in_32_kb_ends_at_the_declared_size() -> None:
    compressor = Compressor()
    bomb = b"".join([compressor.feed(bytes(MB)) for _ in range(1024)] + [compressor.finish()])
    assert len(bomb) < 100 * KB

    decompressor = Decompressor(3 * MB)
    tracemalloc.start()
    try:
        made = 0
        with pytest.raises(TransferError, match=f"more than its declared {3 * MB} bytes"):
            for piece in decompressor.feed(bomb):
                made += len(piece)
        assert made <= 3 * MB
        assert tracemalloc.get_traced_memory()[1] < 2 * MB
    finally:
        tracemalloc.stop()


def test_a_bomb_in_a_bomb_is_opened_once() -> None:
    inner = packed(bytes(8 * MB))
    assert restored(packed(inner), len(inner)) == inner


@pytest.mark.parametrize("window_log", [24, 27, 30, 31, 41])
def test_a_window_above_8_mb_is_refused(window_log: int) -> None:
    with pytest.raises(TransferError, match="cannot be read"):
        list(Decompressor(GB).feed(frame(window_log, raw_block(b"x", last=True))))


def test_a_window_of_8_mb_is_read() -> None:
    assert restored(frame(23, raw_block(b"abc", last=True)), 3) == b"abc"


def test_long_distance_matching_beyond_the_window_is_refused() -> None:
    parameter = zstd.CompressionParameter
    compressor = zstd.ZstdCompressor(options={parameter.enable_long_distance_matching: 1, parameter.window_log: 27})
    with pytest.raises(TransferError, match="cannot be read"):
        list(Decompressor(GB).feed(compressor.compress(bytes(MB)) + compressor.flush()))


def test_a_claimed_length_costs_nothing() -> None:
    tracemalloc.start()
    try:
        decompressor = Decompressor(1000)
        with pytest.raises(TransferError):
            list(decompressor.feed(claiming(2**62) + raw_block(b"x" * 100)))
            decompressor.finish()
        assert tracemalloc.get_traced_memory()[1] < MB
    finally:
        tracemalloc.stop()


def test_a_content_that_needs_a_dictionary_is_refused() -> None:
    dictionary = zstd.ZstdDict(b"any words that are known to both ends" * 10, is_raw=True)
    compressor = zstd.ZstdCompressor(zstd_dict=dictionary)
    whole = compressor.compress(b"any words that are known to both ends") + compressor.flush()
    with pytest.raises(TransferError, match="cannot be read"):
        restored(whole, 1000)


def test_empty_blocks_without_end_are_cut() -> None:
    decompressor = Decompressor(1000)
    list(decompressor.feed(frame(20)))
    with pytest.raises(TransferError, match="larger than its declared 1000 bytes can need"):
        for _ in range(1000):
            list(decompressor.feed(raw_block(b"") * 1000))


def test_content_to_skip_without_end_is_cut() -> None:
    decompressor = Decompressor(1000)
    list(decompressor.feed(b"\x50\x2a\x4d\x18" + (2**32 - 1).to_bytes(4, "little")))
    with pytest.raises(TransferError, match="larger than its declared 1000 bytes can need"):
        for _ in range(1000):
            assert not list(decompressor.feed(bytes(KB)))


def test_content_that_cannot_be_compressed_passes_the_bound_of_the_input() -> None:
    noise = random.Random(1).randbytes(2 * MB)
    assert restored(packed(*(noise[at : at + 1000] for at in range(0, len(noise), 1000))), len(noise)) == noise


def test_what_is_worth_compressing() -> None:
    noise = random.Random(2)
    assert worth_compressing(b"the same words again and again, " * 1000)
    assert worth_compressing(bytes(256 * KB))
    assert not worth_compressing(noise.randbytes(256 * KB))
    assert not worth_compressing(packed(noise.randbytes(256 * KB)))
    assert not worth_compressing(b"")
    assert not worth_compressing(b"short" * 10)
    # By a third: 60 of 100 bytes are noise, then 75.
    assert worth_compressing(b"".join(noise.randbytes(600) + bytes(400) for _ in range(200)))
    assert not worth_compressing(b"".join(noise.randbytes(750) + bytes(250) for _ in range(200)))


def test_a_sample_is_bounded() -> None:
    noise = random.Random(3).randbytes(256 * KB)
    assert not worth_compressing(noise + bytes(8 * MB))


def test_a_sample_has_the_beginning_the_middle_and_the_end(tmp_path: Path) -> None:
    path = tmp_path / "content"
    third = 256 * KB // 3
    content = b"a" * third + bytes(MB) + b"m" * third + bytes(MB) + b"z" * third
    path.write_bytes(content)
    assert sample_of(path, len(content)) == b"a" * third + b"m" * third + b"z" * third


@pytest.mark.parametrize("size", [0, 1, 256 * KB - 1, 256 * KB])
def test_the_sample_of_a_small_file_is_the_file(tmp_path: Path, size: int) -> None:
    path = tmp_path / "content"
    content = random.Random(4).randbytes(size)
    path.write_bytes(content)
    assert sample_of(path, size) == content


def test_a_file_that_became_shorter_or_longer_gives_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "content"
    path.write_bytes(b"abc")
    assert sample_of(path, 10 * MB) == b"abc"
    path.write_bytes(bytes(MB))
    assert len(sample_of(path, 3)) == 256 * KB


def test_a_file_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="Could not read"):
        sample_of(tmp_path / "absent", 1)
    with pytest.raises(TransferError, match="Could not read"):
        sample_of(tmp_path, 1)
