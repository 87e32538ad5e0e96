"""The `paglets demo` command: survey a directory with paglets on three hosts, and check every number."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from paglets.cli.console import err_console, fail, print_error, print_json
from paglets.cli.launcher import INTERRUPTED_EXIT, USAGE_EXIT

if TYPE_CHECKING:
    from paglets.cli.demo_hosts import DemoHosts
    from paglets.cli.demo_view import Outcome, View
    from paglets.remote.proxy import PagletProxy

EPILOG: Final = """
Examples:

  paglets demo                               survey the current directory

  paglets demo /usr/lib --output usr.sqlite  keep the rows of a larger one

  paglets demo --json | jq .journey          the same as data

What happens: three hosts start as processes of their own. A paglet is created on the first and sends a clone to each
of the others. All three walk a share of the directory at the same time, the clones carry their results home, and the
merged result visits every host. Nothing in the directory is changed, and nothing but the result file is left behind.
"""

HOSTS: Final = ("alpha", "beta", "gamma")
POLL_SECONDS: Final = 0.1
AWAY_SECONDS: Final = 60.0
LARGEST: Final = 10


def demo(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="Directory to survey.", show_default="the current one")] = Path(),
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="SQLite file to write, which must not exist; a new one among the temporary files by default.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write the outcome as JSON, and nothing else.")] = False,
) -> None:
    """Survey a directory with paglets on three hosts: parallel work, real moves, checked numbers."""
    command = context.command_path
    root = checked_root(path, command)
    target = checked_output(output, command)
    # Imported this late, so that help and mistakes need not wait for the runtime to load.
    from paglets.cli.demo_view import LiveView, PlainView, QuietView, print_outcome
    from paglets.core.errors import PagletError

    view: View
    view = QuietView() if json else LiveView(HOSTS) if err_console.is_terminal else PlainView()
    try:
        with terminated_like_interrupted(), view:
            outcome = survey(root, target, view)
    except (PagletError, OSError) as exc:
        fail(command, exc, code=1)
    except KeyboardInterrupt:
        print_error(command, "interrupted")
        raise typer.Exit(INTERRUPTED_EXIT) from None
    if json:
        print_json(outcome.to_json())
    elif outcome.verdict.sound:
        print_outcome(outcome)
    if not outcome.verdict.sound:
        fail(command, f"the numbers do not add up: {'; '.join(outcome.verdict.differences)}", code=1)


def checked_root(path: Path, command: str) -> Path:
    """Return the directory to survey, or end the command."""
    try:
        root = path.resolve(strict=True)
        with os.scandir(root):
            return root
    except OSError as exc:
        fail(command, f"cannot survey {path}: {exc.strerror or exc}", code=USAGE_EXIT)


def checked_output(path: Path | None, command: str) -> Path | None:
    """Return where to write the result, None for a new temporary file, or end the command."""
    if path is None:
        return None
    if path.exists() or path.is_symlink():
        fail(command, f"{path} exists already; choose another --output", code=USAGE_EXIT)
    if not path.absolute().parent.is_dir():
        fail(command, f"cannot write {path}: its directory does not exist", code=USAGE_EXIT)
    return path.absolute()


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Have SIGTERM clean up as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: Any) -> NoReturn:
        sys.exit(128 + number)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def survey(root: Path, output: Path | None, view: View) -> Outcome:
    """Do everything, and return what there is to tell.

    :raises HostError: a host or a paglet failed.
    """
    from paglets.cli.demo_check import Verdict, Witness
    from paglets.cli.demo_hosts import DemoHosts, workplace
    from paglets.cli.demo_journey import complete_journey, journey_differences, visit_differences
    from paglets.cli.demo_view import Outcome
    from paglets.examples.survey.agent import SurveyPaglet

    name = os.fsencode(root)
    with workplace() as directory, DemoHosts(HOSTS, directory) as hosts:
        skip = [os.fsencode(directory)]
        hosts.begin()
        with Witness(name, skip, directory / "witness.sqlite") as witness:
            view.say("counting what is there, while three hosts start")
            view.expect(witness.look("before"))
            hosts.complete()
            view.say(f"surveying {root} from {', '.join(f'{host.name} at {host.address}' for host in hosts)}")
            started = time.monotonic()
            paglet = create_survey(hosts, name, skip)
            events = follow(paglet, hosts, view)
            seconds = time.monotonic() - started
            view.say("counting once more")
            witness.look("after")
            report = paglet.call(SurveyPaglet.report, largest=LARGEST)
            result = directory / "survey.sqlite"
            paglet.call(SurveyPaglet.save, result)
            journey = complete_journey(events, hosts)
            verdict = witness.judge(result, report)
            differences = [
                *verdict.differences,
                *journey_differences(journey, paglet.agent_id, hosts.names),
                *visit_differences(result, hosts.names),
            ]
        written = write_result(result, output) if not differences else ""
        return Outcome(
            path=str(root),
            hosts=[{"name": host.name, "address": host.address, "pid": host.pid} for host in hosts],
            survey=paglet.agent_id,
            seconds=seconds,
            report=report,
            journey=journey,
            verdict=Verdict(differences, verdict.changed, verdict.changed_count),
            output=written,
        )


def create_survey(hosts: DemoHosts, root: bytes, skip: list[bytes]) -> PagletProxy:
    """Create the paglet on the first host and return a proxy of it."""
    from paglets.examples.survey.agent import SurveyPaglet
    from paglets.examples.survey.models import SurveyState
    from paglets.remote.proxy import PagletProxy
    from paglets.serialization.codec import dataclass_to_wire, qualified_name

    state = SurveyState(root=root, skip=skip, hosts=hosts.names)
    reply = hosts.client.post_json(
        f"{hosts.home.address}/agents",
        {"agent_class_name": qualified_name(SurveyPaglet), "state": dataclass_to_wire(state)},
    )
    return PagletProxy.from_wire({**reply["proxy"], "host_url": hosts.home.address}, hosts.client)


def follow(paglet: PagletProxy, hosts: DemoHosts, view: View) -> list[dict[str, Any]]:
    """Show how the survey comes along until the paglet is home again, and return the events of all hosts.

    :raises HostError: a host or a paglet failed.
    """
    from paglets.core.errors import HostError, InvalidAgentError
    from paglets.examples.survey.agent import SurveyPaglet
    from paglets.examples.survey.models import Stage

    events: list[dict[str, Any]] = []
    seen = time.monotonic()
    while True:
        events += hosts.new_events()
        try:
            progress = paglet.call(SurveyPaglet.progress)
        except InvalidAgentError:
            # It is on its tour. Whoever asks at home is told that it is not there.
            if time.monotonic() - seen > AWAY_SECONDS:
                raise HostError(f"the paglet has not been home for {AWAY_SECONDS:g} s") from None
        else:
            seen = time.monotonic()
            view.show(progress)
            if progress.stage is Stage.DONE:
                return events
        time.sleep(POLL_SECONDS)


def write_result(result: Path, output: Path | None) -> str:
    """Copy the result to where it was asked for, or to a new file, and return its path."""
    if output is None:
        descriptor, name = tempfile.mkstemp(prefix="paglets-survey-", suffix=".sqlite")
        with os.fdopen(descriptor, "wb") as target, result.open("rb") as source:
            shutil.copyfileobj(source, target)
        return name
    shutil.copyfile(result, output)
    return str(output)
