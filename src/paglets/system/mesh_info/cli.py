"""`paglets-mesh-info`: how all hosts do and which suit work best, as in older versions; `paglets mesh` does more."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, Final

from paglets.remote.admin import ServerRef, entry_server
from paglets.remote.client import HostClient
from paglets.serialization.codec import to_wire
from paglets.services.contracts import RepT, ReqT, ServiceOperation
from paglets.system import programs
from paglets.system.mesh_info.agent import (
    GET_LANDSCAPE,
    SELECT_TARGETS,
    LandscapeReply,
    LandscapeRequest,
    TargetSelectionReply,
    TargetSelectionRequest,
)
from paglets.system.mesh_info.reports import NO_ELIGIBLE, ask, is_fallback, landscape_report, targets_report
from paglets.system.sizes import parse_size, size_text

PROGRAM: Final = "paglets-mesh-info"
DEFAULT_TIMEOUT_SECONDS: Final = 20.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 on success, 1 when there is no host, 2 for anything else."""
    return programs.run(PROGRAM, _parser(), argv, _handle)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Tell how the hosts of a mesh do, and which of them suit work best.",
        epilog="The command `paglets mesh` does the same, and again and again with --watch.",
    )
    programs.add_options(parser, DEFAULT_TIMEOUT_SECONDS)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    summary = commands.add_parser("summary", help="how all hosts do")
    summary.add_argument("--limit", metavar="N", type=int, default=0, help="at most so many; 0 for all")
    targets = commands.add_parser("targets", help="which suit work best")
    targets.add_argument("--limit", metavar="N", type=int, default=5, help="at most so many")
    targets.add_argument("--max-load-per-cpu", metavar="X", type=float, default=1.0, help="hosts above it come last")
    targets.add_argument("--max-cpu-percent", metavar="X", type=float, default=100.0, help="hosts above it come last")
    targets.add_argument("--min-memory", metavar="SIZE", type=_parse_size, default=0, help="memory that must be free")
    targets.add_argument("--min-work-free", metavar="SIZE", type=_parse_size, default=0, help="free storage")
    targets.add_argument("--exclude-self", action="store_true", help="leave the entry host out")
    for each in (summary, targets):
        each.add_argument(
            "--max-age", metavar="S", type=programs.seconds_or_none, default=0.0, help="seconds that news may be old"
        )
        programs.add_options(each, DEFAULT_TIMEOUT_SECONDS)
    return parser


def _parse_size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def _handle(options: argparse.Namespace, client: HostClient) -> int:
    if options.command == "summary":
        landscape = _mesh_info_handle(options, client, GET_LANDSCAPE, _landscape_request(options))
        _print(options, landscape)
        return 0 if landscape.hosts else programs.EMPTY_EXIT
    selection = _mesh_info_handle(options, client, SELECT_TARGETS, _selection_request(options))
    _print(options, selection)
    return 0 if selection.targets else programs.EMPTY_EXIT


def _mesh_info_handle(
    options: argparse.Namespace, client: HostClient, operation: ServiceOperation[ReqT, RepT], request: ReqT
) -> RepT:
    entry = _select_entry_server(options.entry, client, options.timeout)
    return ask(client, entry, operation, request, timeout=options.timeout)


def _select_entry_server(entry_name: str | None, client: HostClient, timeout: float) -> ServerRef:
    return entry_server(entry_name, client, timeout)


def _landscape_request(options: argparse.Namespace) -> LandscapeRequest:
    return LandscapeRequest(max_age_seconds=options.max_age, limit=options.limit)


def _selection_request(options: argparse.Namespace) -> TargetSelectionRequest:
    return TargetSelectionRequest(
        limit=options.limit,
        max_age_seconds=options.max_age,
        max_load_per_cpu=options.max_load_per_cpu,
        max_cpu_percent=options.max_cpu_percent,
        min_memory_available_bytes=options.min_memory,
        min_work_free_bytes=options.min_work_free,
        include_self=not options.exclude_self,
    )


def _print(options: argparse.Namespace, reply: Any) -> None:
    if options.json:
        programs.say_json(to_wire(reply))
    elif isinstance(reply, LandscapeReply):
        _print_summary(reply)
    else:
        _print_targets(reply)


def _print_summary(reply: LandscapeReply) -> None:
    programs.say_table(*landscape_report(reply, size_text))
    programs.say_list("errors", reply.errors)


def _print_targets(reply: TargetSelectionReply) -> None:
    programs.say_table(*targets_report(reply, size_text))
    if is_fallback(reply):
        programs.say(NO_ELIGIBLE)
    programs.say_list("rejected", reply.rejected)
    programs.say_list("errors", reply.errors)


if __name__ == "__main__":
    sys.exit(main())
