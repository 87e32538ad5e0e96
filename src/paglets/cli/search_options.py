"""The options of the `search` commands, which are many."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import typer

from paglets.cli.console import say


class Colors(StrEnum):
    """When results are coloured."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Kinds(StrEnum):
    """What `find` looks for."""

    ANY = "any"
    FILE = "file"
    DIR = "dir"
    SYMLINK = "symlink"


_WHERE: Final = "Where to look"
_WHICH: Final = "Which files"
_OUTPUT: Final = "Output"

PathsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="PATH", help="Files and directories on the hosts; the one each was started in by default."),
]
HostsOption = Annotated[
    list[str] | None,
    typer.Option("--host", metavar="NAME|URL", help="Only this host; may be repeated.", rich_help_panel=_WHERE),
]
TimeoutOption = Annotated[
    float,
    typer.Option(
        "--timeout", metavar="SECONDS", min=0.1, help="Give up hosts that are not done by then.", rich_help_panel=_WHERE
    ),
]
PollOption = Annotated[
    float,
    typer.Option(
        "--poll-interval", metavar="SECONDS", min=0.0, max=30.0, help="How long one question waits for results."
    ),
]
DrainOption = Annotated[int, typer.Option("--drain-limit", min=1, max=5000, hidden=True)]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Write the summary as JSON, and nothing else.", rich_help_panel=_OUTPUT)
]
JsonLinesOption = Annotated[
    bool, typer.Option("--jsonl", help="Write one event per line as JSON.", rich_help_panel=_OUTPUT)
]
NoStreamOption = Annotated[
    bool,
    typer.Option("--no-stream", help="Write everything at the end, host by host.", rich_help_panel=_OUTPUT),
]
ColorOption = Annotated[
    Colors, typer.Option("--color", help="Mark matches; auto means on a terminal.", rich_help_panel=_OUTPUT)
]
IgnoreCaseOption = Annotated[bool, typer.Option("--ignore-case", "-i", help="Ignore case.")]
SmartCaseOption = Annotated[
    bool, typer.Option("--smart-case", "-S", help="Ignore case unless the pattern has an upper-case letter.")
]
FixedOption = Annotated[
    bool, typer.Option("--fixed-strings", "-F", help="The pattern is text, not a regular expression.")
]
WordOption = Annotated[bool, typer.Option("--word-regexp", "-w", help="Match whole words only.")]
GlobOption = Annotated[
    list[str] | None,
    typer.Option(
        "--glob", "-g", metavar="GLOB", help="Only these, or not these with ! in front.", rich_help_panel=_WHICH
    ),
]
TypeOption = Annotated[
    list[str] | None,
    typer.Option("--type", "-t", metavar="TYPE", help="Only files of a type; see --type-list.", rich_help_panel=_WHICH),
]
TypeNotOption = Annotated[
    list[str] | None,
    typer.Option("--type-not", "-T", metavar="TYPE", help="No files of a type.", rich_help_panel=_WHICH),
]
HiddenOption = Annotated[
    bool, typer.Option("--hidden", help="Also names that begin with a dot.", rich_help_panel=_WHICH)
]
NoIgnoreOption = Annotated[
    bool, typer.Option("--no-ignore", help="Also what .gitignore and its like leave out.", rich_help_panel=_WHICH)
]
IgnoreFileOption = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore-file",
        metavar="NAME|PATH",
        help="A further name of ignore files, or the path of one.",
        rich_help_panel=_WHICH,
    ),
]
FollowOption = Annotated[bool, typer.Option("--follow", help="Follow symbolic links.", rich_help_panel=_WHICH)]
DepthOption = Annotated[
    int | None,
    typer.Option("--max-depth", metavar="LEVELS", min=0, help="Not deeper than that.", rich_help_panel=_WHICH),
]
SizeOption = Annotated[
    str,
    typer.Option("--max-file-size", metavar="SIZE", help="No larger files, like 512K or 10M.", rich_help_panel=_WHICH),
]
EncodingOption = Annotated[str, typer.Option("--encoding", metavar="NAME", help="Encoding of contents.")]
TextOption = Annotated[bool, typer.Option("--text", help="Search binary files, too.", rich_help_panel=_WHICH)]
AbsoluteOption = Annotated[bool, typer.Option("--absolute-path", help="Absolute paths.", rich_help_panel=_OUTPUT)]
ResultsOption = Annotated[
    int,
    typer.Option("--max-results-per-host", metavar="N", min=0, help="Stop after so many.", rich_help_panel=_OUTPUT),
]
AfterOption = Annotated[
    int | None, typer.Option("--after-context", "-A", metavar="N", min=0, help="Lines after each match.")
]
BeforeOption = Annotated[
    int | None, typer.Option("--before-context", "-B", metavar="N", min=0, help="Lines before each match.")
]
ContextOption = Annotated[
    int | None, typer.Option("--context", "-C", metavar="N", min=0, help="Lines before and after each match.")
]
NumberOption = Annotated[
    bool, typer.Option("--line-number/--no-line-number", "-n", help="Line numbers.", rich_help_panel=_OUTPUT)
]
ColumnOption = Annotated[
    bool | None,
    typer.Option(
        "--column/--no-column",
        help="Columns; by default where line numbers are.",
        show_default=False,
        rich_help_panel=_OUTPUT,
    ),
]
OnlyOption = Annotated[
    bool, typer.Option("--only-matching", "-o", help="Matches alone, each on a line.", rich_help_panel=_OUTPUT)
]
CountOption = Annotated[
    bool, typer.Option("--count", "-c", help="How many lines of each file match.", rich_help_panel=_OUTPUT)
]
WithOption = Annotated[
    bool, typer.Option("--files-with-matches", "-l", help="Only names of files.", rich_help_panel=_OUTPUT)
]
WithoutOption = Annotated[
    bool,
    typer.Option("--files-without-match", help="Only names of files without a match.", rich_help_panel=_OUTPUT),
]
MaxCountOption = Annotated[
    int, typer.Option("--max-count", "-m", metavar="N", min=0, help="At most so many lines of each file.")
]
FullPathOption = Annotated[bool, typer.Option("--full-path", help="Match the whole path, not only the name.")]
ExtensionOption = Annotated[
    list[str] | None,
    typer.Option("--extension", "-e", metavar="EXT", help="Only names that end so.", rich_help_panel=_WHICH),
]
KindOption = Annotated[Kinds, typer.Option("--kind", help="What to find.", rich_help_panel=_WHICH)]


def print_types(wanted: bool) -> None:
    """Print the file types and end the command, if that is wanted."""
    if wanted:
        from paglets.examples.search.models import SEARCH_TYPES

        for name, globs in SEARCH_TYPES.items():
            say(f"{name}: {' '.join(globs)}")
        raise typer.Exit


TypeListOption = Annotated[
    bool,
    typer.Option("--type-list", callback=print_types, is_eager=True, help="Print the file types and exit."),
]
