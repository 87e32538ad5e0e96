"""The `paglets dead` commands: look at messages that nobody received, deliver them again, or forget them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from paglets.cli.console import bytes_text, note, print_error, print_json, print_table, say
from paglets.cli.options import (
    DEFAULT_TIMEOUT_SECONDS,
    FAILURE_EXIT,
    EntryOption,
    HostOption,
    JsonOption,
    KeyOption,
    TimeoutOption,
    Where,
    clock_text,
    confirm,
    help_unless_chosen,
    reported,
)
from paglets.core.errors import NotFoundError, PagletError

if TYPE_CHECKING:
    from paglets.cli.fleet import Fleet
    from paglets.remote.admin import ServerRef

EPILOG: Final = """
Examples:

  paglets dead list                      of all hosts

  paglets dead show alpha/17             with its message

  paglets dead retry alpha/17 beta/3

  paglets dead retry --all --agent 3f2a90c1d25e4bb0a0c2a1f7f0e6b9d3

  paglets dead clear --all --host alpha --yes

A dead letter is a message that was accepted and cannot be delivered.
"""


def _examples(*lines: str) -> str:
    return "\n\n".join(["Examples:", *(f"  {line}" for line in lines)])


app = typer.Typer(
    name="dead",
    help="Messages that could not be delivered.",
    epilog=EPILOG,
    rich_markup_mode="rich",
)

_PAGE: Final = 1000

LetterArgument = Annotated[
    str, typer.Argument(metavar="LETTER", help="HOST/NUMBER as listed, or the number where one host is meant.")
]
LettersArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="LETTER...", help="HOST/NUMBER as listed.", show_default=False),
]
AllOption = Annotated[bool, typer.Option("--all", help="All letters of the hosts, or all to --agent.")]
ReceiverOption = Annotated[
    str | None,
    typer.Option("--agent", metavar="ID", help="Only letters to the paglet with this id.", show_default=False),
]


@app.callback(invoke_without_command=True)
def dead(context: typer.Context) -> None:
    """Look at messages that nobody received, deliver them again, or forget them."""
    help_unless_chosen(context)


@app.command("list", epilog=_examples("paglets dead list", "paglets dead list --host alpha --json"))
def list_letters(
    context: typer.Context,
    agent: ReceiverOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=_PAGE, help="At most so many of a host.")] = 100,
    json: JsonOption = False,
    entry: EntryOption = None,
    host: HostOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """List the dead letters of all hosts of the mesh, or of one."""
    command = context.command_path
    with reported(command):
        from paglets.cli.fleet import fleet_of, report_missing

        with fleet_of(Where(entry, host, timeout, api_key_env)) as fleet:
            answers = fleet.ask(lambda server: fleet.client.dead_letters(server.url, limit=limit, agent_id=agent))
        letters = [
            {"letter": f"{server.name}/{letter['letter_id']}", "host": server.name, **letter}
            for server, given in answers.given
            for letter in given
        ]
        if json:
            print_json({"dead_letters": letters, "errors": answers.errors})
        else:
            rows = [
                [each["letter"], clock_text(each["died_at"]), each["agent_id"], each["kind"], each["reason"]]
                for each in letters
            ]
            print_table("Dead letters", ["letter", "time", "to", "kind", "reason"], rows)
            for server, given in answers.given:
                if len(given) == limit:
                    note(f"these are the oldest {limit} of {server.name}; --limit shows more")
        report_missing(command, answers)


@app.command("show", epilog=_examples("paglets dead show alpha/17", "paglets dead show 17 --host alpha --json"))
def show(
    context: typer.Context,
    letter: LetterArgument,
    json: JsonOption = False,
    entry: EntryOption = None,
    host: HostOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """Show a dead letter with its message."""
    with reported(context.command_path):
        from paglets.cli.fleet import fleet_of
        from paglets.remote.transport import json_safe

        with fleet_of(Where(entry, host, timeout, api_key_env)) as fleet:
            ((server, number),) = _meant(fleet, [letter])
            found = json_safe(fleet.client.dead_letter(server.url, number))
        if json:
            print_json({"letter": f"{server.name}/{number}", "host": server.name, **found})
            return
        rows = [
            ["time", clock_text(found["died_at"])],
            ["to", f"{found['agent_id']} at {found['host_url']}"],
            ["why", found["reason"]],
            ["message", f"{found['kind']} ({found['message_id']}, {bytes_text(found['size_bytes'])})"],
            ["sender", found["message"].get("sender") or "-"],
        ]
        print_table(f"Dead letter {server.name}/{number}", ["", ""], rows)
        print_json({"args": found["message"]["args"], "arg": found["message"]["arg"]})


@app.command("retry", epilog=_examples("paglets dead retry alpha/17 beta/3", "paglets dead retry --all"))
def retry(
    context: typer.Context,
    letters: LettersArgument = None,
    everything: AllOption = False,
    agent: ReceiverOption = None,
    json: JsonOption = False,
    entry: EntryOption = None,
    host: HostOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """Deliver dead letters again; what is accepted is a dead letter no more."""
    command = context.command_path
    with reported(command):
        _check_choice(letters, everything, agent)
        from paglets.cli.fleet import fleet_of

        with fleet_of(Where(entry, host, timeout, api_key_env)) as fleet:
            if letters:
                client = fleet.client
                done, failed = _each(
                    _meant(fleet, letters), lambda server, number: client.retry_dead_letter(server.url, number)
                )
            else:
                done, failed = _retry_all(fleet, agent)
        _report(command, "accepted", "delivered again", done, failed, json=json)


@app.command("clear", epilog=_examples("paglets dead clear alpha/17", "paglets dead clear --all --host alpha --yes"))
def clear(
    context: typer.Context,
    letters: LettersArgument = None,
    everything: AllOption = False,
    agent: ReceiverOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
    entry: EntryOption = None,
    host: HostOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """Forget dead letters: their messages are gone then."""
    command = context.command_path
    with reported(command):
        _check_choice(letters, everything, agent)
        if everything and not yes and (json or not sys.stdin.isatty()):
            raise ValueError("what is cleared is gone: add --yes where nobody can be asked")
        from paglets.cli.fleet import fleet_of

        with fleet_of(Where(entry, host, timeout, api_key_env)) as fleet:
            client = fleet.client
            if letters:
                done, failed = _each(
                    _meant(fleet, letters), lambda server, number: client.clear_dead_letter(server.url, number)
                )
            else:
                names = ", ".join(server.name for server in fleet.servers)
                if not yes:
                    confirm(command, f"Forget the dead letters of {names}?", unasked="--yes")
                answers = fleet.ask(lambda server: client.clear_dead_letters(server.url, agent_id=agent))
                failed = [{"letter": server.name, "error": str(error)} for server, error in answers.missing]
                count = sum(number for _, number in answers.given)
                if json:
                    print_json({"cleared": count, "failed": failed})
                else:
                    say(f"{count} cleared")
                _fail_if(command, failed)
                return
        _report(command, "cleared", "cleared", done, failed, json=json)


# --- which letters ----------------------------------------------------------------------------------------------------


def _check_choice(letters: Sequence[str] | None, everything: bool, agent: str | None) -> None:
    if bool(letters) is everything:
        raise ValueError("name the letters, or say --all")
    if letters and agent is not None:
        raise ValueError("--agent goes with --all")


def _meant(fleet: Fleet, texts: Sequence[str]) -> list[tuple[ServerRef, int]]:
    """Return host and number of letters.

    :raises ValueError: one is not written as a letter is, or the host is not said.
    :raises NotFoundError: there is no such host.
    """
    known = {server.name: server for server in fleet.servers}
    meant = []
    for text in texts:
        name, slash, number = text.rpartition("/")
        if not number.isascii() or not number.isdigit():
            raise ValueError(f"a letter is written HOST/NUMBER, not {text!r}")
        if not slash:
            if len(known) > 1:
                raise ValueError(f"say of which host letter {number} is: HOST/{number}, or --host")
            name = next(iter(known))
        if name not in known:
            raise NotFoundError(f"no host is named {name!r}; there are {', '.join(known)}")
        meant.append((known[name], int(number)))
    return meant


def _each(
    meant: Sequence[tuple[ServerRef, int]], act: Callable[[ServerRef, int], None]
) -> tuple[list[str], list[dict[str, Any]]]:
    done: list[str] = []
    failed: list[dict[str, Any]] = []
    for server, number in meant:
        label = f"{server.name}/{number}"
        try:
            act(server, number)
        except PagletError as exc:
            failed.append({"letter": label, "error": str(exc)})
        else:
            done.append(label)
    return done, failed


def _retry_all(fleet: Fleet, agent: str | None) -> tuple[list[str], list[dict[str, Any]]]:
    answers = fleet.ask(lambda server: fleet.client.retry_dead_letters(server.url, agent_id=agent))
    done: list[str] = []
    failed: list[dict[str, Any]] = [{"letter": server.name, "error": str(error)} for server, error in answers.missing]
    for server, report in answers.given:
        done += [f"{server.name}/{number}" for number in report["accepted"]]
        failed += [
            {"letter": f"{server.name}/{each['letter_id']}", "error": each["error"]} for each in report["failed"]
        ]
        if report["untried"]:
            failed.append({"letter": server.name, "error": f"{report['untried']} were not tried yet; retry again"})
    return done, failed


def _report(
    command: str, key: str, words: str, done: Sequence[str], failed: Sequence[dict[str, Any]], *, json: bool
) -> None:
    if json:
        print_json({key: list(done), "failed": list(failed)})
    else:
        for label in done:
            say(f"{label} {words}")
        if not done and not failed:
            say("there are no dead letters")
    _fail_if(command, failed)


def _fail_if(command: str, failed: Sequence[dict[str, Any]]) -> None:
    for each in failed:
        print_error(command, f"{each['letter']}: {each['error']}")
    if failed:
        raise typer.Exit(FAILURE_EXIT)
