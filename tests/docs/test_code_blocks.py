"""The code in the documentation runs and prints what it says."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.docs.code_blocks import Block, Use, blocks_of
from tests.preload import Preloaded

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGES.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGE_SECONDS = 240
MOST_UNTESTED = 9


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def is_run(page: Path) -> bool:
    return any(block.use is not Use.READ for block in blocks_of(page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", [page for page in PAGES if is_run(page)], ids=name_of)
def test_the_code_of_a_page_runs_as_it_says(page: Path, preloaded: Preloaded) -> None:
    home = preloaded.new_home()
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PAGLETS_", "PYTEST_", "COV_"))
    }
    environment |= {"HOME": str(home), "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    done = subprocess.run(
        [*preloaded.command("tests.docs.run_page"), str(page), *preloaded.command()],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PAGE_SECONDS,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.split()[-1].isdecimal(), done.stdout


def test_a_block_that_is_not_tested_says_why_and_there_are_few() -> None:
    untested = [
        f"{name_of(page)}:{block.line}: {block.untested}"
        for page in PAGES
        for block in blocks_of(page.read_text(encoding="utf-8"))
        if block.untested
    ]
    assert len(untested) <= MOST_UNTESTED, untested


# --- finding blocks ----------------------------------------------------------------------------------------------


def test_every_kind_of_block_is_known_by_language_and_title() -> None:
    page = """
```python title="counter.py"
x = 1
```
```python
print(x)
```
```text title="Output"
1
```
```sh
ls
```
```sh title="Machine alpha"
paglets host --name alpha
```
```text
for reading
```
"""
    uses = [block.use for block in blocks_of(page)]
    assert uses == [Use.FILE, Use.SESSION, Use.OUTPUT, Use.SHELL, Use.HOST, Use.READ]
    assert blocks_of(page)[0] == Block("python", "counter.py", "x = 1\n", 3)


def test_the_reason_for_not_testing_holds_for_the_next_block_alone() -> None:
    page = "<!-- not tested: takes a minute -->\n\n```sh\nmake\n```\n```sh\nls\n```\n"
    assert [(block.use, block.untested) for block in blocks_of(page)] == [
        (Use.READ, "takes a minute"),
        (Use.SHELL, ""),
    ]


def test_text_between_the_reason_and_the_block_ends_it() -> None:
    (block,) = blocks_of("<!-- not tested: x -->\n\nSome text.\n\n```sh\nls\n```\n")
    assert block.use is Use.SHELL


def test_an_indented_block_loses_its_indentation() -> None:
    (block,) = blocks_of("1. Do this:\n\n    ```python\n    if x:\n        y()\n    ```\n")
    assert block.source == "if x:\n    y()\n"


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("```python\nx", "never ends"),
        ("```python skip\nx\n```", "not understood"),
        ('```python title="Some words"\nx\n```', "has no meaning"),
    ],
)
def test_a_block_that_nobody_understands_is_an_error(page: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        [block.use for block in blocks_of(page)]
