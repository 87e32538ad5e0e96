"""The `paglets search` commands, whose options `paglets-search` shares."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final

import typer

from paglets.cli.options import EntryOption, KeyOption, help_unless_chosen
from paglets.cli.search_options import (
    AbsoluteOption,
    AfterOption,
    BeforeOption,
    ColorOption,
    Colors,
    ColumnOption,
    ContextOption,
    CountOption,
    DepthOption,
    DrainOption,
    EncodingOption,
    ExtensionOption,
    FixedOption,
    FollowOption,
    FullPathOption,
    GlobOption,
    HiddenOption,
    HostsOption,
    IgnoreCaseOption,
    IgnoreFileOption,
    JsonLinesOption,
    JsonOption,
    KindOption,
    Kinds,
    MaxCountOption,
    NoIgnoreOption,
    NoStreamOption,
    NumberOption,
    OnlyOption,
    PathsArgument,
    PollOption,
    ResultsOption,
    SizeOption,
    SmartCaseOption,
    TextOption,
    TimeoutOption,
    TypeListOption,
    TypeNotOption,
    TypeOption,
    WithOption,
    WithoutOption,
    WordOption,
)

if TYPE_CHECKING:
    from paglets.examples.search.cli import Order

EPILOG: Final = """
Examples:

  paglets search grep 'def main' /srv/app -t py        with file and line, from all hosts as it is found

  paglets search grep -i -C 2 timeout /var/log --host beta

  paglets search find '^core' / --kind file --jsonl    one event per line, for other programs

Hosts search the files that their users may read. Relative paths mean the directory that a host was started in.
Ctrl-C stops the search on all hosts.

Exit code: 0 if something was found and nothing went wrong, 1 if nothing was found or a host or file could not be
searched, 2 if the search could not be done at all.
"""


def carry_out(context: typer.Context, order: Order) -> None:
    """Search, and end the command with its exit code."""
    from paglets.examples.search.cli import carry_out as search

    outer = dict(context.obj) if isinstance(context.obj, dict) else {}
    program = str(outer.pop("program", context.command_path))
    # What stands behind the command counts more than what stands in front of it.
    given = {name: value for name, value in outer.items() if not _was_given(context, name)}
    raise typer.Exit(search(program, replace(order, **given)))


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")


def add_commands(app: typer.Typer) -> None:
    """Give an application the commands `grep` and `find`."""

    @app.command("grep", epilog=EPILOG)
    def grep(
        context: typer.Context,
        pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="A regular expression of Python.")],
        paths: PathsArgument = None,
        ignore_case: IgnoreCaseOption = False,
        smart_case: SmartCaseOption = False,
        fixed_strings: FixedOption = False,
        word_regexp: WordOption = False,
        after_context: AfterOption = None,
        before_context: BeforeOption = None,
        around: ContextOption = None,
        max_count: MaxCountOption = 0,
        encoding: EncodingOption = "utf-8",
        glob: GlobOption = None,
        type_names: TypeOption = None,
        type_not: TypeNotOption = None,
        hidden: HiddenOption = False,
        no_ignore: NoIgnoreOption = False,
        ignore_file: IgnoreFileOption = None,
        follow: FollowOption = False,
        max_depth: DepthOption = None,
        max_file_size: SizeOption = "0",
        text: TextOption = False,
        only_matching: OnlyOption = False,
        count: CountOption = False,
        files_with_matches: WithOption = False,
        files_without_match: WithoutOption = False,
        line_number: NumberOption = True,
        column: ColumnOption = None,
        absolute_path: AbsoluteOption = False,
        max_results_per_host: ResultsOption = 0,
        json: JsonOption = False,
        jsonl: JsonLinesOption = False,
        no_stream: NoStreamOption = False,
        color: ColorOption = Colors.AUTO,
        host: HostsOption = None,
        entry: EntryOption = None,
        timeout: TimeoutOption = 60.0,
        poll_interval: PollOption = 0.5,
        drain_limit: DrainOption = 200,
        api_key_env: KeyOption = None,
        type_list: TypeListOption = False,
    ) -> None:
        """Search the contents of files on all hosts."""
        # Imported this late, so that help and mistakes need not wait for the clients to load.
        from paglets.examples.search.cli import Order, size_option
        from paglets.examples.search.models import GREP, SearchRequest

        request = SearchRequest(
            GREP,
            pattern,
            paths or ["."],
            ignore_case,
            smart_case,
            fixed_strings,
            word_regexp,
            before_context=before_context if before_context is not None else around or 0,
            after_context=after_context if after_context is not None else around or 0,
            line_number=line_number,
            column=line_number if column is None else column,
            only_matching=only_matching,
            count=count,
            files_with_matches=files_with_matches,
            files_without_match=files_without_match,
            max_count=max_count,
            globs=glob or [],
            type_names=type_names or [],
            type_not_names=type_not or [],
            hidden=hidden,
            no_ignore=no_ignore,
            follow=follow,
            max_depth=max_depth,
            max_file_size=size_option(context, max_file_size),
            encoding=encoding,
            text=text,
            absolute_path=absolute_path,
            max_results_per_host=max_results_per_host,
            ignore_files=ignore_file or [],
        )
        order = Order(request, tuple(host or ()), entry, timeout, poll_interval, drain_limit, api_key_env)
        carry_out(context, replace(order, json=json, jsonl=jsonl, no_stream=no_stream, color=color.value))

    @app.command("find", epilog=EPILOG)
    def find(
        context: typer.Context,
        pattern: Annotated[
            str, typer.Argument(metavar="PATTERN", help="A regular expression of Python for names; all by default.")
        ] = "",
        paths: PathsArgument = None,
        ignore_case: IgnoreCaseOption = False,
        smart_case: SmartCaseOption = False,
        fixed_strings: FixedOption = False,
        word_regexp: WordOption = False,
        full_path: FullPathOption = False,
        extension: ExtensionOption = None,
        kind: KindOption = Kinds.ANY,
        glob: GlobOption = None,
        type_names: TypeOption = None,
        type_not: TypeNotOption = None,
        hidden: HiddenOption = False,
        no_ignore: NoIgnoreOption = False,
        ignore_file: IgnoreFileOption = None,
        follow: FollowOption = False,
        max_depth: DepthOption = None,
        max_file_size: SizeOption = "0",
        encoding: Annotated[str, typer.Option("--encoding", hidden=True)] = "utf-8",
        text: Annotated[bool, typer.Option("--text", hidden=True)] = False,
        absolute_path: AbsoluteOption = False,
        max_results_per_host: ResultsOption = 0,
        json: JsonOption = False,
        jsonl: JsonLinesOption = False,
        no_stream: NoStreamOption = False,
        color: ColorOption = Colors.AUTO,
        host: HostsOption = None,
        entry: EntryOption = None,
        timeout: TimeoutOption = 60.0,
        poll_interval: PollOption = 0.5,
        drain_limit: DrainOption = 200,
        api_key_env: KeyOption = None,
        type_list: TypeListOption = False,
    ) -> None:
        """Search the names of files and directories on all hosts."""
        from paglets.examples.search.cli import Order, size_option
        from paglets.examples.search.models import FIND, SearchRequest

        request = SearchRequest(
            FIND,
            pattern,
            paths or ["."],
            ignore_case,
            smart_case,
            fixed_strings,
            word_regexp,
            globs=glob or [],
            type_names=type_names or [],
            type_not_names=type_not or [],
            hidden=hidden,
            no_ignore=no_ignore,
            follow=follow,
            max_depth=max_depth,
            max_file_size=size_option(context, max_file_size),
            encoding=encoding,
            text=text,
            absolute_path=absolute_path,
            max_results_per_host=max_results_per_host,
            full_path=full_path,
            extensions=extension or [],
            kind=kind.value,
            ignore_files=ignore_file or [],
        )
        order = Order(request, tuple(host or ()), entry, timeout, poll_interval, drain_limit, api_key_env)
        carry_out(context, replace(order, json=json, jsonl=jsonl, no_stream=no_stream, color=color.value))


app = typer.Typer(name="search", help="Search the files of all hosts.", epilog=EPILOG, rich_markup_mode="rich")
add_commands(app)


@app.callback(invoke_without_command=True)
def _group(context: typer.Context, type_list: TypeListOption = False) -> None:
    help_unless_chosen(context)
