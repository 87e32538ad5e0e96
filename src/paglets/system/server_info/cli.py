"""`paglets-sysinfo`: how busy all hosts are, as in older versions; `paglets sys` does more."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, Final

from paglets.remote.admin import ServerRef, entry_server
from paglets.remote.client import HostClient
from paglets.system import programs
from paglets.system.server_info.meters import LONGEST_SECONDS
from paglets.system.server_info.reports import collect, report_of
from paglets.system.sizes import size_text

PROGRAM: Final = "paglets-sysinfo"
DEFAULT_TIMEOUT_SECONDS: Final = 5.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 on success, 1 when a host did not answer, 2 for anything else."""
    return programs.run(PROGRAM, _parser(), argv, _handle)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Tell how busy the hosts of a mesh are, how full their volumes, and what runs on them.",
        epilog="The command `paglets sys` does the same, and again and again with --watch.",
    )
    programs.add_options(parser, DEFAULT_TIMEOUT_SECONDS)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    load = commands.add_parser("load", help="how busy processors, memory and GPUs are")
    load.add_argument(
        "--interval",
        metavar="S",
        type=_interval,
        default=0.0,
        help=f"seconds over which processors are measured, at most {LONGEST_SECONDS:g}",
    )
    load.add_argument("--no-gpu", action="store_true", help="leave GPUs out")
    disks = commands.add_parser("df", help="how full volumes are")
    disks.add_argument("paths", metavar="PATH", nargs="*", help="those that these paths are on")
    processes = commands.add_parser("plist", help="processes, those with most memory first")
    processes.add_argument("query", metavar="QUERY", help="part of their names or command lines")
    processes.add_argument("--limit", metavar="N", type=int, default=25, help="at most so many of each host")
    processes.add_argument("--args", action="store_true", help="with their command lines")
    summary = commands.add_parser("summary", help="what machines they are")
    for each in (load, disks, processes, summary):
        programs.add_options(each, DEFAULT_TIMEOUT_SECONDS)
    return parser


def _interval(text: str) -> float:
    seconds = programs.seconds_or_none(text)
    if seconds > LONGEST_SECONDS:
        raise argparse.ArgumentTypeError(f"at most {LONGEST_SECONDS:g} seconds, not {text}")
    return seconds


def _handle(options: argparse.Namespace, client: HostClient) -> int:
    summary = _collect(options, client)
    if options.json:
        programs.say_json(summary)
    else:
        report = report_of(summary, size_text)
        programs.say_table(report.columns, report.rows, report.right)
        programs.say_list("errors", report.errors)
    return programs.EMPTY_EXIT if summary["errors"] else 0


def _collect(options: argparse.Namespace, client: HostClient) -> dict[str, Any]:
    entry = _select_entry_server(options.entry, client, options.timeout)
    return collect(client, entry, options.command, _request(options), timeout=options.timeout)


def _select_entry_server(entry_name: str | None, client: HostClient, timeout: float) -> ServerRef:
    return entry_server(entry_name, client, timeout)


def _request(options: argparse.Namespace) -> dict[str, Any]:
    match options.command:
        case "load":
            return {"interval": options.interval, "include_gpu": not options.no_gpu}
        case "df":
            return {"paths": list(options.paths)}
        case "plist":
            return {"query": options.query, "limit": options.limit, "include_args": options.args}
    return {}


if __name__ == "__main__":
    sys.exit(main())
