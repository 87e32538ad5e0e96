"""What programs load before they are asked for anything that needs it: start-up time, without a clock."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

#: Each takes 10 to 200 ms of a start; whoever adds one needs it there, or imports it where it is first used.
NEVER = {
    "aiohttp", "botocore", "cryptography", "hypothesis", "litestar", "numpy", "pydantic", "pynvml", "websockets",
    "paglets.testing",
}  # fmt: skip
WITH_A_HOST = {"uvicorn", "uvloop", "paglets.runtime", "paglets.system"}
WITH_A_CLIENT = {"http.client", "asyncio", "msgspec", "psutil", "paglets.artifacts", "paglets.remote"}
WITH_A_COMMAND = {"rich", "typer", "email"}

_PRINT = "import json, sys; {}; sys.stdout.write(chr(10) + json.dumps(sorted(sys.modules)))"
_CALL = "from paglets.cli.app import main; main({!r})"


def loaded(program: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", _PRINT.format(program)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
    )
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return set(found)


@pytest.mark.parametrize(
    ("program", "absent"),
    [
        ("import paglets", NEVER | WITH_A_HOST | WITH_A_CLIENT | WITH_A_COMMAND),
        ("import paglets.remote.client", NEVER | WITH_A_HOST | WITH_A_COMMAND - {"email"} | {"asyncio", "sqlite3"}),
        ("import paglets.runtime.host", NEVER | {"typer", "rich", "zeroconf"}),
        (_CALL.format(["--help"]), NEVER | WITH_A_HOST | WITH_A_CLIENT),
        (_CALL.format(["keys", "--help"]), NEVER | WITH_A_HOST | WITH_A_CLIENT | {"paglets.cli.ps"}),
        (
            _CALL.format(["ps", "--json", "--host", "http://127.0.0.1:1"]),
            NEVER | WITH_A_HOST | {"asyncio", "paglets.artifacts.store"},
        ),
        (_CALL.format(["host", "--name", "x", "--port", "99999999"]), NEVER | {"uvicorn", "asyncio", "sqlite3"}),
    ],
    ids=["package", "client", "host", "help", "help of a group", "question", "mistake"],
)
def test_a_program_loads_what_it_needs(program: str, absent: set[str]) -> None:
    assert loaded(program) & absent == set()


def test_the_fork_server_loads_no_more_than_paglets_need() -> None:
    found = loaded("import paglets.runtime.launch.zygote_main")
    assert (
        found
        & (
            NEVER
            | {"uvicorn", "uvloop", "rich", "typer", "sqlite3", "psutil", "paglets.system", "paglets.artifacts.store"}
        )
        == set()
    )
