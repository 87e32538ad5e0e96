"""A real S3-compatible server in a process of its own, for tests.

It is OpenStack Swift, which is in the test group: production software that checks signatures and keeps objects on disk.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.config import Config

REQUIRED = "PAGLETS_REQUIRE_SERVICES"
"""A variable that makes a missing server a failure; `.ci/run` sets it."""
BUCKET = "paglets-tests"
ACCESS_KEY = "tests:worker"
SECRET = "a-secret-that-nobody-may-see"

CREDENTIALS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}


class S3Server:
    """Swift on a free port, which keeps it when it is killed and started again."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._log = directory / "server.log"
        directory.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Return when it answers."""
        account, user = ACCESS_KEY.split(":")
        command = [sys.executable, "-m", "tests.artifacts.swift_server"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, str(self._directory), str(self.port), account, user, SECRET],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            self.stop()
            raise RuntimeError(f"Swift did not start: {self._log.read_text()[-3000:]}")

    def kill(self) -> None:
        """Have it die at once."""
        assert self._process is not None
        self._process.kill()
        self.stop()

    def pause(self) -> None:
        """Have it accept connections and answer nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Have it go on after `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def revive(self) -> None:
        """Have it run again, whatever was done to it."""
        if self._process is None:
            self.start()
        else:
            self.resume()

    def make_bucket(self) -> None:
        """Create the bucket of the tests."""
        self.client.create_bucket(Bucket=BUCKET)

    def objects(self, prefix: str = "") -> dict[str, int]:
        """Return the sizes of all objects whose key begins so."""
        found = self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        assert not found["IsTruncated"]
        return {entry["Key"]: entry["Size"] for entry in found.get("Contents", ())}

    def close(self) -> None:
        """End it for good."""
        self.stop()
        if "client" in vars(self):
            self.client.close()

    def stop(self) -> None:
        """End it and wait for its end."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    @cached_property
    def client(self) -> Any:
        """A client of its owner, which is closed with it."""
        return botocore.session.Session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET,
            config=Config(
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path"},
            ),
        )


def require_swift() -> None:
    """Skip a test where the server cannot run; fail where it has to."""
    if find_spec("swift") is not None:
        return
    reason = "needs the package swift of the test group, which is for Linux"
    if os.environ.get(REQUIRED):
        pytest.fail(f"{reason}, and {REQUIRED} is set")
    pytest.skip(reason)
