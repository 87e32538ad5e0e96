"""Which part of content a Range header asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.runtime.http.ranges import UnsatisfiableError, requested_part

SIZE = 1000


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-499", (0, 500)),
        ("bytes=500-", (500, SIZE)),
        ("bytes=500-5000", (500, SIZE)),
        ("bytes=999-999", (999, SIZE)),
        ("bytes=-1", (999, SIZE)),
        ("bytes=-5000", (0, SIZE)),
        ("BYTES = 1-2 ", (1, 3)),
        ("bytes=0-9999999999999999999", (0, SIZE)),
    ],
)
def test_a_single_range_is_a_part(header: str, part: tuple[int, int]) -> None:
    assert requested_part(header, SIZE) == part


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=1-0",
        "bytes=0-1,5-6",
        "bytes=0-1, ",
        "bytes=--1",
        "bytes=1--2",
        "bytes=+1-2",
        "bytes=1 -2",
        "bytes=0x1-0x2",
        "bytes=١-٢",
        "bytes=1.5-2",
        "bytes=99999999999999999999-",
        "lines=1-2",
        "1-2",
        "bytes=1-2\r\nx: y",
        "bytes=1-2\x00",
    ],
)
def test_anything_else_is_the_whole(header: str | None) -> None:
    assert requested_part(header, SIZE) is None


@pytest.mark.parametrize(
    ("header", "size"),
    [("bytes=1000-", SIZE), ("bytes=1000-2000", SIZE), ("bytes=-0", SIZE), ("bytes=0-", 0), ("bytes=-1", 0)],
)
def test_behind_the_end_there_is_nothing(header: str, size: int) -> None:
    with pytest.raises(UnsatisfiableError):
        requested_part(header, size)


@given(st.text(alphabet="bytes=-,0123456789 xÄ٣\t", max_size=30), st.integers(0, 2000))
def test_a_part_is_never_empty_and_never_beyond_the_content(header: str, size: int) -> None:
    try:
        part = requested_part(header, size)
    except UnsatisfiableError:
        return
    if part is not None:
        assert 0 <= part.start < part.end <= size


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(1, 2000))
def test_a_range_is_what_a_slice_would_be(first: int, last: int, size: int) -> None:
    content = range(size)
    try:
        part = requested_part(f"bytes={first}-{last}", size)
    except UnsatisfiableError:
        assert not content[first:]
        return
    if last < first:
        assert part is None
    else:
        assert part is not None
        assert content[part.start : part.end] == content[first : last + 1]
