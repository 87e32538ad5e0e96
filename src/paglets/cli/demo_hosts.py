"""The three hosts of the demonstration, each a process of its own that ends with this one, whatever ends it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

import paglets
from paglets.config.env import DEFAULT_API_KEY_ENV
from paglets.core.errors import HostError, PagletError
from paglets.remote.client import HostClient

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 10.0
MOST_EVENTS: Final = 1000

REMOVE_SECONDS: Final = 5.0
_AGENTS: Final = "paglets.examples.survey"


@contextmanager
def workplace() -> Iterator[Path]:
    """Give a fresh directory that is gone afterwards, also when a signal ends what is done in it."""
    directory = Path(tempfile.mkdtemp(prefix="paglets-demo-")).resolve()
    try:
        yield directory
    finally:
        with signals_ignored():
            _remove(directory)


def _remove(directory: Path) -> None:
    """Remove a directory in which processes may still be ending, which make files until they have."""
    deadline, rest = time.monotonic() + REMOVE_SECONDS, threading.Event()
    shutil.rmtree(directory, ignore_errors=True)
    while directory.exists() and time.monotonic() < deadline:
        rest.wait(0.02)
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def signals_ignored() -> Iterator[None]:
    """Let nothing interrupt cleaning up, which is bounded."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class DemoHost:
    """One host process."""

    def __init__(self, name: str, directory: Path, environment: dict[str, str], peers: Sequence[str]) -> None:
        self.name = name
        self.address = ""
        self.pid = 0
        self._last_event = 0
        self._log = directory / f"{name}.log"
        self._lines: SimpleQueue[str] = SimpleQueue()
        command = [sys.executable, "-P", "-m", "paglets", "host", "--name", name, "--port", "0", "--json"]
        command += ["--stop-on-eof", "--log-level", "error", "--mesh-version", "demo", "--no-mesh-multicast"]
        command += ["--persistence-dir", str(directory / name), "--allow", _AGENTS, "--preload", f"{_AGENTS}.agent"]
        # The user's own launch file is left alone: what is to run here is known.
        command += ["--launch-config", str(directory / "launch.toml"), "--no-sync-launch-config"]
        for peer in peers:
            command += ["--peer", peer]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for this process, which then stops its hosts in order
            )
        threading.Thread(target=self._read, name=f"paglets-demo-{name}", daemon=True).start()

    def _read(self) -> None:
        if self._process.stdout is not None:
            with self._process.stdout as lines:
                for line in lines:
                    self._lines.put(line)
        self._lines.put("")

    def await_start(self) -> None:
        """Wait until the host listens.

        :raises HostError: it does not; the text is what it said.
        """
        try:
            line = self._lines.get(timeout=START_SECONDS)
        except Empty:
            raise HostError(f"host {self.name} did not start within {START_SECONDS:g} s") from None
        if not line:
            raise HostError(f"host {self.name} did not start: {self._last_words()}")
        listening = json.loads(line)
        self.address, self.pid = listening["address"], listening["pid"]

    def check(self) -> None:
        """Make sure that the process runs.

        :raises HostError: it ended.
        """
        if self._process.poll() is not None:
            raise HostError(f"host {self.name} ended with exit code {self._process.returncode}: {self._last_words()}")

    def new_events(self, client: HostClient) -> list[dict[str, Any]]:
        """Return what happened on the host since this was last asked."""
        answer = client.get_json(f"{self.address}/events?since={self._last_event}&limit={MOST_EVENTS}")
        events: list[dict[str, Any]] = answer["events"]
        if events:
            self._last_event = events[-1]["event_id"]
        return events

    def begin_to_stop(self) -> None:
        """Ask the process to end."""
        self._process.terminate()

    def stop(self, deadline: float) -> None:
        """Wait for the end of the process, which is killed at the deadline."""
        with suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _last_words(self) -> str:
        text = self._log.read_text(errors="replace").strip() if self._log.exists() else ""
        return text.splitlines()[-1] if text else "it said nothing"


class DemoHosts:
    """A small mesh; use it in a `with` statement, which stops every host at its end.

    :param directory: where the hosts keep what they have.
    """

    def __init__(self, names: Sequence[str], directory: Path) -> None:
        self.names = list(names)
        self._directory = directory
        self._started: list[DemoHost] = []
        # Everybody on this machine can connect to a loopback port. The key keeps other users out.
        key = secrets.token_urlsafe(24)
        source = str(Path(paglets.__file__).resolve().parent.parent)
        inherited = os.environ.get("PYTHONPATH")
        self._environment = os.environ | {
            DEFAULT_API_KEY_ENV: key,
            # The hosts run this very code, wherever it was imported from.
            "PYTHONPATH": os.pathsep.join([source, *([inherited] if inherited else [])]),
        }
        self.client = HostClient(api_key=key)

    def __enter__(self) -> DemoHosts:
        return self

    def __exit__(self, *_: object) -> None:
        with signals_ignored():
            self.client.close()
            for host in self._started:
                host.begin_to_stop()
            deadline = time.monotonic() + STOP_SECONDS
            for host in self._started:
                host.stop(deadline)

    def __iter__(self) -> Iterator[DemoHost]:
        return iter(self._started)

    @property
    def home(self) -> DemoHost:
        """The first host."""
        return self._started[0]

    def begin(self) -> None:
        """Start the first host, without waiting for it."""
        self._start(self.names[0])

    def complete(self) -> None:
        """Wait for the first host, then start the others with it as their peer.

        :raises HostError: one does not start.
        """
        self.home.await_start()
        for name in self.names[1:]:
            self._start(name, self.home.address)
        for host in self._started[1:]:
            host.await_start()

    def _start(self, name: str, *peers: str) -> None:
        self._started.append(DemoHost(name, self._directory, self._environment, peers))

    def new_events(self) -> list[dict[str, Any]]:
        """Return what happened on all hosts since this was last asked.

        :raises HostError: a host ended, or something failed on one.
        """
        events: list[dict[str, Any]] = []
        for host in self._started:
            host.check()
            try:
                events += host.new_events(self.client)
            except PagletError as exc:
                host.check()
                raise HostError(f"host {host.name} does not answer: {exc}") from exc
        for event in events:
            if event.get("error") and event["kind"] != "message-failed":
                raise HostError(f"{event['kind']} on host {event['host_name']}: {event['error']}")
        return events
