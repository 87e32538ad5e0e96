"""What is searched for, what is found, and the names of file types."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

DEFAULT_SEARCH_TIMEOUT_SECONDS: Final = 60.0
DEFAULT_DRAIN_WAIT_SECONDS: Final = 0.5
DEFAULT_BATCH_SIZE: Final = 20

GREP: Final = "grep"
FIND: Final = "find"
KINDS: Final = ("any", "file", "dir", "symlink")

#: The most results of one host, whatever was asked for.
MAX_RESULTS_PER_HOST: Final = 1_000_000
MAX_CONTEXT_LINES: Final = 1000
MAX_BATCH_SIZE: Final = 1000

SEARCH_TYPES: Final[dict[str, tuple[str, ...]]] = {
    "c": ("*.c", "*.h"),
    "cpp": ("*.cc", "*.cpp", "*.cxx", "*.hh", "*.hpp", "*.hxx"),
    "css": ("*.css",),
    "go": ("*.go",),
    "html": ("*.html", "*.htm"),
    "java": ("*.java",),
    "js": ("*.js", "*.jsx", "*.mjs", "*.cjs"),
    "json": ("*.json",),
    "md": ("*.md", "*.markdown"),
    "py": ("*.py",),
    "python": ("*.py",),
    "rs": ("*.rs",),
    "sh": ("*.sh", "*.bash", "*.zsh"),
    "text": ("*.txt", "*.text"),
    "toml": ("*.toml",),
    "ts": ("*.ts", "*.tsx"),
    "txt": ("*.txt",),
    "yaml": ("*.yaml", "*.yml"),
}
"""File types by name, each as the globs that names of its files match."""


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What to look for, and where. Numbers that are 0 set no limit, unless their text says otherwise."""

    mode: str = GREP
    """`grep` looks into files, `find` at names."""
    pattern: str = ""
    """A regular expression of Python's `re`; in `find` an empty one matches every name."""
    paths: list[str] = field(default_factory=lambda: ["."])
    """Where to begin; relative ones mean the directory that the host was started in, `~` the home of its user."""
    ignore_case: bool = False
    smart_case: bool = False
    """Ignore case unless the pattern has an upper-case letter."""
    fixed_strings: bool = False
    word_regexp: bool = False
    before_context: int = 0
    after_context: int = 0
    line_number: bool = True
    """For whoever prints the results; events carry the number in any case."""
    column: bool = False
    """As `line_number`."""
    only_matching: bool = False
    """One event for each match instead of one for each line."""
    count: bool = False
    files_with_matches: bool = False
    files_without_match: bool = False
    max_count: int = 0
    """At most so many matching lines of each file."""
    globs: list[str] = field(default_factory=list)
    """Patterns like those of a `.gitignore`, for names or for paths below where the search begins; `!` excludes."""
    type_names: list[str] = field(default_factory=list)
    """Only files of these types of `SEARCH_TYPES`."""
    type_not_names: list[str] = field(default_factory=list)
    hidden: bool = False
    """Also entries whose names begin with a dot."""
    no_ignore: bool = False
    """Also what ignore files exclude."""
    follow: bool = False
    """Follow symbolic links."""
    max_depth: int | None = None
    """How many levels below where the search begins; 1 for the entries of that directory alone."""
    max_file_size: int = 0
    """Leave out larger files, bytes."""
    encoding: str = "utf-8"
    """Of contents; what cannot be decoded is replaced."""
    text: bool = False
    """Search binary files, too."""
    absolute_path: bool = False
    max_results_per_host: int = 0
    """Stop after so many results, which context lines are not; 0 for `MAX_RESULTS_PER_HOST`."""
    full_path: bool = False
    """In `find`, match the whole path."""
    extensions: list[str] = field(default_factory=list)
    """In `find`, only names that end so, in any case, with or without the dot."""
    kind: str = "any"
    """In `find`, one of `any`, `file`, `dir` and `symlink`."""
    ignore_files: list[str] = field(default_factory=list)
    """Names of further ignore files of each directory; one with a slash is the path of a single file."""
    batch_size: int = DEFAULT_BATCH_SIZE
    """At most so many events are handed on at once."""


@dataclass(frozen=True, slots=True)
class SearchEvent:
    """One result, one line of context, or one error."""

    event: str
    """`match`, `context`, `count`, `file` or `error`."""
    host_name: str
    host_url: str
    path: str = ""
    """Begins as the path that was given, or is absolute if that was asked for."""
    line_number: int = 0
    """Counted from 1."""
    column: int = 0
    """Of the first match on the line, in characters from 1."""
    text: str = ""
    """The line without its end; of one that is very long, what is around the match."""
    match_text: str = ""
    match_start: int = 0
    """Where the match begins in `text`, from 0."""
    match_end: int = 0
    context: str = ""
    """`before` or `after` a match, for lines of context."""
    count: int = 0
    """Matching lines of the file."""
    message: str = ""
    """What went wrong."""
    cursor: int = 0
    """Given by whoever collects events."""
    sequence: int = 0
    """Grows by one with each event of a host."""
    truncated: bool = False
    """The line is longer than `text`."""


@dataclass(frozen=True, slots=True)
class HostSearchSummary:
    """What the search on one host came to."""

    host_name: str
    host_url: str
    files_seen: int = 0
    """Files that filters and ignore files have left; in `find` every entry that was looked at."""
    files_searched: int = 0
    """Files whose contents were searched, so neither binary nor too large nor unreadable."""
    files_matched: int = 0
    matches: int = 0
    """Matching lines."""
    paths_matched: int = 0
    """Paths in the results of `find`."""
    errors: list[str] = field(default_factory=list)
    truncated: bool = False
    """Stopped at the greatest number of results; there may be more."""
    duration_seconds: float = 0.0
