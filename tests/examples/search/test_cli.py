"""`paglets-search` and `paglets search`, in this process and as a program."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paglets.cli.app import main as paglets
from paglets.cli.launcher import INTERRUPTED_EXIT
from paglets.cli.options import ENTRY_VARIABLE
from paglets.config.env import DEFAULT_API_KEY_ENV
from paglets.core.agent import ACTIVE, INACTIVE
from paglets.core.errors import InvalidAgentError, RemoteHostError
from paglets.examples.search import cli, watching
from paglets.examples.search.cli import main, parse_size
from paglets.examples.search.models import SearchRequest
from paglets.examples.search.printing import Style, lines_of
from paglets.examples.search.watching import RunningSearch, searching
from paglets.remote.admin import ServerRef
from paglets.remote.client import HostClient
from paglets.runtime.host import Host
from tests.cli.processes import Program
from tests.examples.search.local import plant
from tests.support import HostFactory, eventually

Run = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return plant(
        tmp_path / "tree", {"a.txt": "one\nneedle two\nthree\n", "b.py": "x = 'needle'  # needle\n", "c": "z\n"}
    )


@pytest.fixture
def quiet(standing: tuple[Host, Host]) -> Iterator[tuple[Host, Host]]:
    """Give the hosts, and see that no command leaves a paglet on them."""
    yield standing
    eventually(lambda: left(standing) == 0, "no paglet to be left")


def left(hosts: tuple[Host, ...]) -> int:
    return sum(len(host.get_proxies(ACTIVE | INACTIVE)) for host in hosts)


@pytest.fixture
def run(quiet: tuple[Host, Host], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    for variable in (DEFAULT_API_KEY_ENV, ENTRY_VARIABLE):
        monkeypatch.delenv(variable, raising=False)

    def begin(*arguments: Any, program: Callable[..., int] = main) -> tuple[int, list[str], list[str]]:
        capsys.readouterr()
        entry = ["--entry", quiet[0].address]
        given = [str(argument) for argument in arguments]
        code = program([*given, *entry] if program is paglets else [*entry, *given])
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return begin


# --- what is printed --------------------------------------------------------------------------------------------------


def test_lines_of_both_hosts(run: Run, tree: Path) -> None:
    code, out, err = run("grep", "needle", tree, "-A", "1")
    assert (code, err) == (0, [])
    assert sorted(out) == sorted(
        line
        for host in ("alpha", "beta")
        for line in (
            f"{host}:{tree}/a.txt:2:1:needle two",
            f"{host}-{tree}/a.txt-3-three",
            f"{host}:{tree}/b.py:1:6:x = 'needle'  # needle",
        )
    )


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (["-c"], ["beta:a.txt:1", "beta:b.py:1"]),
        (["-l"], ["beta:a.txt", "beta:b.py"]),
        (["--files-without-match"], ["beta:c"]),
        (["-o", "-t", "py"], ["beta:b.py:1:6:needle", "beta:b.py:1:17:needle"]),
        (["--no-line-number", "-g", "*.txt"], ["beta:a.txt:needle two"]),
        (["--no-line-number", "--column", "-g", "*.txt"], ["beta:a.txt:1:needle two"]),
        (["--no-column", "-g", "*.txt", "-B", "1"], ["beta-a.txt-1-one", "beta:a.txt:2:needle two"]),
        (["-T", "py", "-C", "1"], ["beta-a.txt-1-one", "beta:a.txt:2:1:needle two", "beta-a.txt-3-three"]),
        (["--color", "always", "-l", "-T", "py"], ["\x1b[35mbeta\x1b[m\x1b[36m:\x1b[m\x1b[35ma.txt\x1b[m"]),
    ],
)
def test_options_of_grep(run: Run, tree: Path, options: list[str], lines: list[str]) -> None:
    code, out, err = run("--host", "beta", "grep", "needle", tree, *options)
    assert (code, err) == (0, [])
    assert [line.replace(f"{tree}/", "") for line in out] == lines


def test_names(run: Run, tree: Path) -> None:
    code, out, _ = run("--host", "alpha", "find", "^[ab]", tree)
    assert code == 0
    assert out == [f"alpha:{tree}/a.txt", f"alpha:{tree}/b.py"]
    code, out, _ = run("search", "find", "", tree, "-e", "py", "--kind", "file", "--host", "beta", program=paglets)
    assert (code, out) == (0, [f"beta:{tree}/b.py"])


def test_json_lines(run: Run, tree: Path) -> None:
    code, out, err = run("--jsonl", "grep", "needle", tree)
    assert (code, err) == (0, [])
    events = [json.loads(line) for line in out]
    assert {event["host_name"] for event in events if event["event"] == "match"} == {"alpha", "beta"}
    assert sorted(event["cursor"] for event in events) == [1, 2, 3, 4]


def test_the_summary_as_json(run: Run, tree: Path) -> None:
    code, out, err = run("grep", "needle", tree, "--json")
    assert (code, err) == (0, [])
    summary = json.loads("\n".join(out))
    assert {name: result["matches"] for name, result in summary["results"].items()} == {"alpha": 2, "beta": 2}
    assert (summary["errors"], summary["cleanup_errors"], summary["pending_hosts"]) == ({}, {}, [])


def test_everything_at_the_end_is_sorted_by_host(run: Run, tree: Path) -> None:
    code, out, _ = run("--no-stream", "grep", "needle", tree, "-l")
    assert code == 0
    assert [line.replace(f"{tree}/", "") for line in out] == ["alpha:a.txt", "alpha:b.py", "beta:a.txt", "beta:b.py"]


def test_colors_and_what_a_terminal_would_obey() -> None:
    event = {
        "event": "match",
        "host_name": "h",
        "path": "a\x1b[2J",
        "line_number": 1,
        "column": 3,
        "text": "\t\x1bx needle",
        "match_text": "needle",
        "match_start": 4,
        "match_end": 10,
    }
    (plain,) = lines_of([event], Style())
    assert plain == "h:a\\x1b[2J:1:3:\t\x1bx needle"
    (escaped,) = lines_of([event], Style(escaped=True, column=False))
    assert escaped == "h:a\\x1b[2J:1:\t\\x1bx needle"
    (painted,) = lines_of([event], Style(color=True, escaped=True))
    assert painted.endswith("\t\\x1bx \x1b[1;31mneedle\x1b[m")
    assert lines_of([{"event": "error"}], Style()) == []


def test_types_and_help(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--type-list"]) == 0
    assert "cpp: *.cc *.cpp *.cxx *.hh *.hpp *.hxx" in capsys.readouterr().out.splitlines()
    assert paglets(["search", "--type-list"]) == 0
    assert "py: *.py" in capsys.readouterr().out
    for command in ("grep", "find"):
        assert paglets(["search", command, "--type-list"]) == main([command, "--type-list"]) == 0
        assert capsys.readouterr().out.splitlines().count("py: *.py") == 2
    assert paglets(["search"]) == 0
    assert "grep" in capsys.readouterr().out


# --- exit codes and what goes wrong -----------------------------------------------------------------------------------


def test_nothing_found(run: Run, tree: Path) -> None:
    assert run("grep", "absent", tree) == (1, [], [])
    assert run("find", "absent", tree, "--jsonl") == (1, [], [])


def test_what_cannot_be_searched_is_told_while_the_rest_is_shown(run: Run, tree: Path) -> None:
    code, out, err = run("--host", "alpha", "grep", "needle", tree / "a.txt", tree / "missing")
    assert (code, len(out)) == (1, 1)
    assert err == [f"paglets-search: alpha:{tree}/missing: path does not exist"]
    code, out, err = run("--host", "alpha", "--no-stream", "grep", "needle", tree / "missing", tree / "a.txt")
    assert (code, len(out)) == (1, 1)
    assert err == [f"paglets-search: alpha: {tree}/missing: path does not exist"]
    code, out, _ = run("--host", "alpha", "--jsonl", "grep", "needle", tree / "missing")
    assert (code, [json.loads(line)["event"] for line in out]) == (1, ["error"])


def test_a_host_that_is_not_there(run: Run, tree: Path) -> None:
    code, out, err = run("grep", "needle", tree, "--host", "zeta", "--host", "beta", "-l")
    assert (code, len(out)) == (1, 2)
    assert len(err) == 1
    assert err[0].startswith("paglets-search: zeta: target host is not online")
    code, out, _ = run("grep", "needle", tree, "--host", "zeta", "--jsonl")
    assert (code, [json.loads(line)["event"] for line in out]) == (1, ["error"])


def test_a_host_that_fails_and_cannot_be_cleaned_up_is_told_with_both(
    run: Run, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = RunningSearch.stop

    def failing(search: RunningSearch) -> None:
        real(search)
        search.summary = replace(
            search.summary, errors={"beta": "the host is down"}, cleanup_errors={"beta": "it cannot be reached"}
        )

    monkeypatch.setattr(RunningSearch, "stop", failing)
    code, _, err = run("grep", "needle", tree)
    assert code == 1
    assert err == ["paglets-search: beta: the host is down", "paglets-search: beta: not ended: it cannot be reached"]
    _, out, _ = run("--jsonl", "grep", "needle", tree)
    errors = [event for event in map(json.loads, out) if event["event"] == "error"]
    assert [(each["host_name"], each["message"]) for each in errors] == [
        ("beta", "the host is down"),
        ("beta", "not ended: it cannot be reached"),
    ]


def test_results_that_are_left_out_are_told(run: Run, tree: Path) -> None:
    code, out, err = run("--host", "beta", "grep", "needle", tree, "--max-results-per-host", "1")
    assert (code, len(out)) == (0, 1)
    assert err == ["paglets-search: beta: truncated after 1 results; there may be more"]
    _, out, _ = run("--host", "beta", "--jsonl", "grep", "needle", tree, "--max-results-per-host", "1")
    assert [json.loads(line)["event"] for line in out] == ["match", "truncated"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["grep"],
        ["lose", "x"],
        ["grep", "x", "--max-file-size", "much"],
        ["grep", "x", "-A", "-1"],
        ["find", "x", "--kind", "door"],
        ["grep", "x", "--json", "--jsonl"],
    ],
)
def test_a_wrong_command_line(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)


def test_a_file_type_that_is_none_is_an_error_of_each_host(run: Run, tree: Path) -> None:
    code, _, err = run("grep", "x", tree, "-t", "cobol")
    assert code == 1
    assert all("unknown file type 'cobol'" in line for line in err)


def test_an_entry_host_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--entry", "http://127.0.0.1:1", "--timeout", "2", "grep", "x"]) == 2
    assert capsys.readouterr().err.startswith("paglets-search: No paglets host answered")


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("", 0), ("17", 17), ("2k", 2048), ("1.5M", 1572864), ("1GB", 2**30), ("3 b", 3)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["much", "-1", "1X", "1 2", "K"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="a size is a number"):
        parse_size(text)


# --- the end, however it comes ----------------------------------------------------------------------------------------


def test_an_interruption_ends_the_search_everywhere(
    run: Run, quiet: tuple[Host, Host], tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []

    def interrupted(*_: Any) -> Any:
        counts.append(left(quiet))
        raise KeyboardInterrupt

    plant(tree, {"many": "needle\n" * 20_000})
    monkeypatch.setattr(cli, "write_lines", interrupted)
    assert run("grep", "needle", tree)[0] == INTERRUPTED_EXIT
    assert counts[0] >= 2


def test_control_c_ends_the_program_and_the_search(quiet: tuple[Host, Host], tree: Path) -> None:
    plant(tree, {"many": "needle\n" * 100_000})
    arguments = ("--entry", quiet[0].address, "grep", "needle", str(tree))
    program = Program(*arguments, module="paglets.examples.search.cli")
    try:
        assert program.line().startswith(("alpha:", "beta:"))
        program.process.send_signal(signal.SIGINT)
        assert program.wait() == INTERRUPTED_EXIT
        assert (left(quiet), program.err) == (0, [])
        assert len(program.out) < 200_000
    finally:
        program.close()


def test_an_entry_host_that_dies_is_an_error_that_says_what_may_be_left(
    hosts: HostFactory, tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watching, "ANSWER_SECONDS", 2.0)
    lone = hosts("lone")
    real = RunningSearch.events

    def dying(search: RunningSearch, **terms: Any) -> Any:
        yield next(real(search, wait=5.0))
        lone.stop()
        yield from real(search, **terms)

    plant(tree, {"many": "needle\n" * 20_000})
    monkeypatch.setattr(RunningSearch, "events", dying)
    assert main(["--entry", lone.address, "grep", "needle", str(tree)]) == 2
    err = capsys.readouterr().err.splitlines()
    assert "may be left at lone" in err[0]
    assert "end by itself within 120 s" in err[0]
    assert err[1].startswith("paglets-search: ")


def test_nothing_is_left_of_a_search_that_has_ended_by_itself(quiet: tuple[Host, Host], tree: Path) -> None:
    entry = ServerRef("alpha", quiet[0].address)
    request = SearchRequest(pattern="needle", paths=[str(tree)])

    def end() -> None:
        for proxy in quiet[0].get_proxies(ACTIVE):
            with suppress(InvalidAgentError):  # it is a clone that was ended by the search
                proxy.dispose()

    with HostClient() as client:
        with searching(entry, request, client=client):
            end()
        with pytest.raises(InvalidAgentError) as raised, searching(entry, request, client=client) as search:
            end()
            list(search.events())
    assert getattr(raised.value, "__notes__", []) == []


def test_a_block_that_fails_ends_the_search(quiet: tuple[Host, Host], tree: Path) -> None:
    entry = ServerRef("alpha", quiet[0].address)
    request = SearchRequest(pattern="needle", paths=[str(tree)])
    with HostClient() as client:
        with pytest.raises(RuntimeError, match="mine"), searching(entry, request, client=client):
            assert left(quiet) > 0
            raise RuntimeError("mine")
        with pytest.raises(RemoteHostError), searching(ServerRef("x", "http://127.0.0.1:1"), request, client=client):
            pass
