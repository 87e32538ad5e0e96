"""What matches in files: against `grep` where it can be compared, and by hand where not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paglets.examples.search import reading
from paglets.examples.search.matching import pattern_of
from paglets.examples.search.models import SearchEvent, SearchRequest
from paglets.examples.search.results import MAX_TEXT_CHARS
from tests.effort import thorough
from tests.examples.search.local import found, plant, search

needs_grep = pytest.mark.skipif(shutil.which("grep") is None, reason="there is no grep to compare with")
POEM = "one\ntwo\nneedle three\nfour\nfive\nneedle six\nseven\neight\nnine\nneedle ten\n"


def shown(events: list[SearchEvent]) -> list[tuple[str, int, str]]:
    return [(event.context or event.event, event.line_number, event.text) for event in events]


# --- lines and what is around them ------------------------------------------------------------------------------------


def test_a_match_says_where_it_is(tmp_path: Path) -> None:
    plant(tmp_path, {"a": "first\n  a needle, needle\n"})
    (event,), summary = search(tmp_path, "needle")
    assert event == SearchEvent(
        "match",
        "alpha",
        "http://alpha",
        f"{tmp_path}/a",
        line_number=2,
        column=5,
        text="  a needle, needle",
        match_text="needle",
        match_start=4,
        match_end=10,
        sequence=1,
    )
    assert (summary.files_seen, summary.files_searched, summary.files_matched, summary.matches) == (1, 1, 1, 1)
    assert (summary.truncated, summary.errors) == (False, [])


def test_context_comes_in_order_and_once(tmp_path: Path) -> None:
    plant(tmp_path, {"a": POEM})
    events, _ = search(tmp_path, "needle", before_context=1, after_context=1)
    assert shown(events) == [
        ("before", 2, "two"),
        ("match", 3, "needle three"),
        ("after", 4, "four"),
        ("before", 5, "five"),
        ("match", 6, "needle six"),
        ("after", 7, "seven"),
        ("before", 9, "nine"),
        ("match", 10, "needle ten"),
    ]
    assert [event.sequence for event in events] == list(range(1, 9))
    events, _ = search(tmp_path, "needle", before_context=5, after_context=2)
    assert [event.line_number for event in events] == list(range(1, 11))
    assert [event.context for event in events if event.event == "context"] == ["before"] * 2 + ["after"] * 4 + [
        "before"
    ]


def test_the_most_lines_of_a_file_leave_their_context(tmp_path: Path) -> None:
    plant(tmp_path, {"a": POEM, "b": POEM})
    events, summary = search(tmp_path, "needle", max_count=2, after_context=2)
    assert shown(events)[:6] == [
        ("match", 3, "needle three"),
        ("after", 4, "four"),
        ("after", 5, "five"),
        ("match", 6, "needle six"),
        ("after", 7, "seven"),
        ("after", 8, "eight"),
    ]
    assert (summary.matches, summary.files_matched, summary.truncated) == (4, 2, False)


def test_the_most_results_stop_the_search(tmp_path: Path) -> None:
    plant(tmp_path, {"a": POEM, "b": POEM})
    events, summary = search(tmp_path, "needle", max_results_per_host=2, after_context=1)
    assert [event.line_number for event in events] == [3, 4, 6, 7]
    assert (summary.truncated, summary.files_seen) == (True, 1)
    _, summary = search(tmp_path, "needle", max_results_per_host=7)
    assert (summary.truncated, summary.matches) == (False, 6)
    events, summary = search(tmp_path, "n", max_results_per_host=4, only_matching=True)
    assert (len(events), summary.truncated) == (4, True)
    events, summary = search(tmp_path, mode="find", max_results_per_host=1)
    assert (len(events), summary.truncated, summary.paths_matched) == (1, True, 1)


def test_only_what_matches(tmp_path: Path) -> None:
    plant(tmp_path, {"a": "x12 y345\n6\n"})
    events, summary = search(tmp_path, r"\d*", only_matching=True, before_context=2)
    assert [(event.line_number, event.column, event.match_text) for event in events] == [
        (1, 2, "12"),
        (1, 6, "345"),
        (2, 1, "6"),
    ]
    assert summary.matches == 2


def test_counts_and_names_of_files(tmp_path: Path) -> None:
    plant(tmp_path, {"a": POEM, "b": "nothing\n", "c": "needle\n"})
    events, _ = search(tmp_path, "needle", count=True)
    assert [(event.event, event.path[-1], event.count) for event in events] == [("count", "a", 3), ("count", "c", 1)]
    events, summary = search(tmp_path, "needle", files_with_matches=True)
    assert [(event.event, event.path[-1]) for event in events] == [("file", "a"), ("file", "c")]
    assert summary.files_matched == 2
    assert found(tmp_path, "needle", files_without_match=True) == ["b"]


def test_the_search_goes_on_behind_the_first_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far = "".join(f"line {number}\n" for number in range(60_000))
    plant(tmp_path, {"a": f"{far}before\nneedle\nafter\n{far}needle"})
    assert (tmp_path / "a").stat().st_size > 4 * reading.BLOCK_BYTES
    events, _ = search(tmp_path, "needle", before_context=1, after_context=1)
    assert shown(events) == [
        ("before", 60_001, "before"),
        ("match", 60_002, "needle"),
        ("after", 60_003, "after"),
        ("before", 120_003, "line 59999"),
        ("match", 120_004, "needle"),
    ]
    assert found(tmp_path, "absent", files_without_match=True) == ["a"]


def test_a_very_long_line_is_searched_at_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 2 * reading.BLOCK_BYTES)
    long = "x" * (3 * reading.BLOCK_BYTES)
    plant(tmp_path, {"a": f"needle {long} needle\nneedle 2\n"})
    for encoding in ("utf-8", "utf-7"):
        events, summary = search(tmp_path, "needle", encoding=encoding)
        matches = [event for event in events if event.event == "match"]
        assert [(event.line_number, event.truncated) for event in matches] == [(1, True), (2, False)]
        assert len(matches[0].text) == MAX_TEXT_CHARS
        assert "very long line" in summary.errors[0]


def test_a_long_line_is_shown_around_its_match(tmp_path: Path) -> None:
    plant(tmp_path, {"a": f"{'x' * 50_000}needle{'y' * 50_000}\n"})
    (event,), _ = search(tmp_path, "needle")
    assert (event.column, event.truncated, len(event.text)) == (50_001, True, MAX_TEXT_CHARS)
    assert event.text[event.match_start : event.match_end] == event.match_text == "needle"


# --- bytes ------------------------------------------------------------------------------------------------------------


def test_binary_files_are_left_out_unless_wanted(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\0 needle\n")
    (tmp_path / "late").write_bytes(b"x" * 8192 + b"\n needle \0\n")
    assert found(tmp_path, "needle") == ["late"]
    assert found(tmp_path, "needle", text=True) == ["binary", "late"]
    _, summary = search(tmp_path, "needle")
    assert (summary.files_seen, summary.files_searched) == (2, 1)


def test_a_named_file_may_be_binary_or_too_large_like_any_other(tmp_path: Path) -> None:
    (tmp_path / ".binary").write_bytes(b"\0 needle\n")
    (tmp_path / ".large").write_bytes(b" needle\n" * 100)
    named = [str(tmp_path / ".binary"), str(tmp_path / ".large")]
    assert found(tmp_path, "needle", paths=named, type_names=["py"]) == [".large"]
    assert found(tmp_path, "needle", paths=named, text=True, max_file_size=100) == [".binary"]


def test_bytes_that_are_no_text_are_shown(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"caf\xe9 needle\r\n")
    (event,), summary = search(tmp_path, "needle")
    assert (event.text, summary.errors) == ("caf\ufffd needle", [])
    (event,), _ = search(tmp_path, "é needle$", encoding="latin-1")
    assert (event.text, event.column) == ("café needle", 4)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "shift_jis", "cp1252", "utf-8-sig", "UTF_8", "cp037"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    text = "first\nA needle\nlast" if encoding == "cp037" else "první\n" * 0 + "first\nA needle\nlast"
    (tmp_path / "a").write_bytes(text.encode(encoding))
    events, summary = search(tmp_path, "needle", encoding=encoding, text=encoding == "cp037")
    assert (shown(events), summary.errors) == ([("match", 2, "A needle")], [])


def test_a_mark_at_the_beginning_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfneedle\n")
    assert found(tmp_path, "^needle$") == ["a"]


def test_an_unknown_encoding_is_an_error(tmp_path: Path) -> None:
    plant(tmp_path, ["a"])
    for encoding in ("klingon", "base64"):
        events, summary = search(tmp_path, "needle", encoding=encoding)
        assert summary.errors == [f"unknown encoding: {encoding}"]
        assert [event.event for event in events] == ["error"]


def test_files_of_any_length_are_whole(tmp_path: Path) -> None:
    for size in (0, 1, reading.BLOCK_BYTES - 7, reading.BLOCK_BYTES, reading.BLOCK_BYTES + 1):
        (tmp_path / "a").write_bytes(b"x" * max(0, size - 7) + (b"\nneedle" if size > 7 else b""))
        assert found(tmp_path, "needle$") == (["a"] if size > 7 else [])


def test_files_that_come_in_pieces_are_whole() -> None:
    events, summary = search("/proc/self/status", "^(Name|nonvoluntary_ctxt_switches):")
    assert (len(events), summary.errors) == (2, [])


def test_large_files_can_be_left_out(tmp_path: Path) -> None:
    plant(tmp_path, {"a": "needle\n", "b": "needle\n" * 100})
    assert found(tmp_path, "needle", max_file_size=100) == ["a"]


# --- patterns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "fields", "matches"),
    [
        ("a.c", {}, "abc a.c"),
        ("a.c", {"fixed_strings": True}, "a.c"),
        ("ABC", {"ignore_case": True}, "abc"),
        ("abc", {"smart_case": True}, "abc ABC"),
        ("Abc", {"smart_case": True}, "Abc"),
        (r"a\Wc", {"smart_case": True}, "a.c A.C"),
        ("bc", {"word_regexp": True}, "bc x-bc"),
        ("a|bc", {"word_regexp": True}, "bc a x-bc"),
        (r"\$", {"word_regexp": True}, "$"),
        ("(?i)abc", {}, "ABC"),
        ("(?i)bc", {"word_regexp": True}, "BC x-bc"),
        ("(?i)(?s)(?#(one)a|bc", {"word_regexp": True}, "BC a x-bc"),
        ("(?xi) # a ) or (\n (?a) a | b c # the end", {"word_regexp": True}, "BC A x-bc"),
        ("(?a)bc", {"word_regexp": True}, "äbc bc"),
        ("(?i:B)c", {"word_regexp": True}, "bc Bc"),
        (r"(?#note)(b)c\1", {"word_regexp": True}, "bcb"),
        ("(?i)bc", {"word_regexp": True, "fixed_strings": True}, "(?i)bc"),
        ("kelvin", {"ignore_case": True}, "\u212aelvin"),
        ("straße", {}, "straße"),
        ("Ä", {"ignore_case": True}, "ä"),
        ("(?=needle)n", {}, "needle"),
        ("(foo|bar|baz)$", {}, "bar xbaz"),
        ("x{0}y", {}, "y"),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, fields: dict[str, Any], matches: str) -> None:
    for number, word in enumerate(matches.split()):
        (tmp_path / str(number)).write_text(f"{word}\n", encoding="utf-8")
    (tmp_path / "x").write_text("qqq\n")
    assert found(tmp_path, pattern, **fields) == [str(number) for number in range(len(matches.split()))]


@pytest.mark.parametrize("word", ["(?i)bc", "(?xi) # a\n b c # d", "(?#x)(?i)(?x)b c"])
def test_whole_words_stay_whole_behind_flags(tmp_path: Path, word: str) -> None:
    plant(tmp_path, {"a": "abc\nBCd\nBC_\nbc\n", "b": "B c\n"})
    events, summary = search(tmp_path, word, word_regexp=True)
    assert (shown(events), summary.errors) == ([("match", 4, "bc")], [])


@pytest.mark.parametrize("pattern", ["(", "a**", "[z-a]", "(?P<a", "a{99999999999}"])
def test_a_pattern_that_is_none_is_one_error(tmp_path: Path, pattern: str) -> None:
    plant(tmp_path, ["a"])
    _, summary = search(tmp_path, pattern)
    assert len(summary.errors) == 1
    assert summary.errors[0].startswith("invalid regular expression: ")
    assert summary.files_seen == 0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mode": "guess"}, "mode must be"),
        ({"kind": "door"}, "kind must be"),
        ({"before_context": -1}, "before_context must not be negative"),
        ({"max_depth": -1}, "max_depth must not be negative"),
    ],
)
def test_a_request_that_makes_no_sense_is_one_error(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    _, summary = search(tmp_path, "x", **fields)
    assert len(summary.errors) == 1
    assert words in summary.errors[0]


_WORDS = st.sampled_from(["ab", "Ab", "kiss", "needle", "é", "ſ", "\u212a", "x", " ", "1", "_"])
_LINES = st.lists(st.lists(_WORDS, max_size=4).map("".join), max_size=6)
_ATOMS = st.sampled_from(
    [
        "ab",
        "needle",
        "kiss",
        "k",
        "é",
        "x*",
        "(ab|needle)",
        "(?:x)+",
        ".",
        "[a-k]+",
        "^",
        "$",
        r"\b",
        "(ab)?",
        "s{2}",
        "ſ",
    ]
)
_SOURCES = st.lists(_ATOMS, min_size=1, max_size=3).map("".join)


@settings(max_examples=thorough(100, 300), deadline=None)
@given(lines=_LINES, source=_SOURCES, ignore_case=st.booleans(), word=st.booleans())
def test_the_test_before_the_pattern_misses_nothing(
    lines: list[str], source: str, ignore_case: bool, word: bool
) -> None:
    pattern = pattern_of(SearchRequest(pattern=source, ignore_case=ignore_case, word_regexp=word))
    content = "\n".join(lines).encode()
    for line in lines:
        if re.search(pattern.regex, line):
            assert pattern.may_match(content, len(content))
            assert pattern.line_needle in line


@pytest.mark.parametrize(
    ("source", "needles"),
    [
        ("needle", (b"needle",)),
        (r"def\s+main\(", (b"main(",)),
        ("(foo|bars)x", (b"foo", b"bars")),
        (".*", ()),
        ("a?b?", ()),
        ("(?:abc)+", (b"abc",)),
        ("(?!abc)x", ()),
    ],
)
def test_what_a_match_must_have(source: str, needles: tuple[bytes, ...]) -> None:
    assert set(pattern_of(SearchRequest(pattern=source)).needles) == set(needles)


# --- the same as grep -------------------------------------------------------------------------------------------------

_SAFE = st.sampled_from(["ab", "b", "needle", "a*", "(ab|b)", ".", "[ab]", "^", "$", "b+"])


@needs_grep
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(st.sampled_from(["", "a", "ab", "abb needle", "b a", "needle ab", "Needle"]), max_size=12),
    source=st.lists(_SAFE, min_size=1, max_size=2).map("".join),
    options=st.fixed_dictionaries(
        {
            "before_context": st.integers(0, 3),
            "after_context": st.integers(0, 3),
            "max_count": st.integers(0, 3),
            "ignore_case": st.booleans(),
        }
    ),
)
def test_it_shows_what_grep_shows(tmp_path: Path, lines: list[str], source: str, options: dict[str, Any]) -> None:
    path = tmp_path / "file"
    path.write_text("".join(f"{line}\n" for line in lines))
    command = ["grep", "-nE", "-B", str(options["before_context"]), "-A", str(options["after_context"])]
    command += ["-m", str(options["max_count"])] if options["max_count"] else []
    command += ["-i"] if options["ignore_case"] else []
    shows = subprocess.run([*command, "-e", source, str(path)], capture_output=True, text=True, env=_C).stdout
    wanted = [line for line in shows.splitlines() if line != "--"]
    events, _ = search(path, source, **options)
    assert [f"{e.line_number}{':' if e.event == 'match' else '-'}{e.text}" for e in events] == wanted


_C = {**os.environ, "LC_ALL": "C"}


@needs_grep
@pytest.mark.parametrize("pattern", ["import", "def [a-z_]+\\(self", "^class .*Error", "zzzz"])
def test_it_finds_in_its_own_source_what_grep_finds(pattern: str) -> None:
    root = Path(__file__).resolve().parents[3] / "src" / "paglets" / "remote"
    shows = subprocess.run(
        ["grep", "-rnE", "--include=*.py", pattern, str(root)], capture_output=True, text=True, env=_C
    ).stdout
    events, _ = search(root, pattern, type_names=["py"])
    assert sorted(f"{event.path}:{event.line_number}:{event.text}" for event in events) == sorted(shows.splitlines())
