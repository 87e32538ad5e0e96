"""Run a host in this process: start it, say where it listens, and stop it in order when told to."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FrameType
from typing import Any, Final

from paglets.cli.console import print_error
from paglets.cli.host_log import EventLogger, configure_logging
from paglets.cli.host_options import HostOptions
from paglets.cli.lazy import collect_as_usual
from paglets.config.startup import (
    DEFAULT_LAUNCH_CONFIG_PATH,
    LaunchConfigSyncAction,
    load_launch_config,
    sync_launch_config,
)
from paglets.core.errors import PagletError
from paglets.runtime.host import Host
from paglets.runtime.options import host_directory

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_TOLD: Final = (LaunchConfigSyncAction.COPIED, LaunchConfigSyncAction.UPDATED)


def serve(options: HostOptions, arguments: Mapping[str, Any], command: str) -> int:
    """Run a host until a signal asks it to stop, and return the exit code of the program.

    :param arguments: what checking the options gave.
    :raises ValueError: an option makes no sense to the host.
    """
    directory = host_directory(options.name, options.persistence_dir)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        print_error(command, f"{directory} cannot be made: {exc.strerror or exc}; name another with --persistence-dir")
        return 1
    path = options.launch_config or DEFAULT_LAUNCH_CONFIG_PATH
    try:
        result = sync_launch_config(path, enabled=options.sync_launch_config, yes=options.yes, input_func=_ask)
        config = load_launch_config(path)
    except PagletError as exc:
        print_error(command, exc)
        return 1
    host = Host(**arguments, launch_config=config, launch_config_sync_result=result)
    logger = configure_logging(options.log_level)
    if result.action in _TOLD:
        logger.warning(result.message)
    if host.sends_in_clear:
        logger.warning(
            "keys and everything else go over the network unencrypted; `paglets keys ca` and `paglets keys host %s` "
            "make certificates",
            options.name,
        )
    host.add_listener(EventLogger(logger))
    with StopRequests(end_of_input=options.stop_on_eof) as requests:
        try:
            host.start_background()
        except (PagletError, OSError) as exc:
            host.stop()
            print_error(command, exc)
            return 1
        except ValueError:
            host.stop()
            raise
        # What is there now stays: looking through it for garbage would hold everybody up, now and later again.
        gc.freeze()
        collect_as_usual()
        _announce(host, options)
        requests.wait()
        host.shutdown()
    if options.json:
        _say(json.dumps({"event": "stopped"}))
    return 0


def _announce(host: Host, options: HostOptions) -> None:
    if host.mesh.version_warning and options.mesh:
        sys.stderr.write(f"WARNING: {host.mesh.version_warning}\n")
        sys.stderr.flush()
    if not options.json:
        mesh = "on" if options.mesh else "off"
        where = f"listening at {host.address}" if host.connect_to is None else f"connected via {host.connect_to}"
        _say(f"paglets host '{host.name}' {where} (mesh {mesh}, version {host.mesh.code_version})")
        return
    listening: dict[str, Any] = {
        "event": "listening",
        "name": host.name,
        "address": host.address,
        "pid": os.getpid(),
        "mesh": options.mesh,
        "version": host.mesh.code_version,
        "persistence_dir": str(host.persistence_dir),
    }
    _say(json.dumps(listening))


def _say(line: str) -> None:
    # Written past the console, which would wrap it; and whoever started this host may have stopped listening.
    with suppress(BrokenPipeError):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def _ask(prompt: str) -> str:
    # The built-in `input` would write the prompt to standard output, where only the one line belongs.
    sys.stderr.write(prompt)
    sys.stderr.flush()
    return sys.stdin.readline()


class StopRequests:
    """Turn SIGTERM, SIGINT and, if asked, the end of standard input into one request to stop.

    A signal after that ends this process at once, with 128 and the signal's number as exit code.
    """

    def __init__(self, *, end_of_input: bool = False) -> None:
        # The interpreter writes to it as soon as a signal comes. A lock or a queue would sleep on after one that came
        # just before it began to: the handler would have to wait for the next signal.
        self._woken, self._waking = socket.socketpair()
        self._waking.setblocking(False)
        self._asked = False
        self._ended = False
        self._end_of_input = end_of_input
        self._previous: dict[int, Any] = {}
        self._previous_waking: int | None = None

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is threading.main_thread():
            self._previous_waking = signal.set_wakeup_fd(self._waking.fileno(), warn_on_full_buffer=False)
            for number in _STOP_SIGNALS:
                self._previous[number] = signal.signal(number, self._signalled)
        if self._end_of_input:
            threading.Thread(target=self._watch_input, name="paglets-stdin", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._previous_waking is not None:
            signal.set_wakeup_fd(self._previous_waking)
        self._woken.close()
        self._waking.close()

    def wait(self) -> None:
        """Wait until somebody asks."""
        while not (self._asked or self._ended):
            self._woken.recv(64)
        self._asked = True

    def _signalled(self, number: int, _: FrameType | None) -> None:
        if self._asked:
            end_at_once(number)
        self._asked = True

    def _watch_input(self) -> None:
        # Read from the descriptor: a thread inside sys.stdin's lock would keep the interpreter from ending.
        with suppress(OSError):
            while os.read(0, 4096):
                continue
        self._ended = True
        with suppress(OSError):  # told already, or nobody waits any more
            self._waking.send(b"\0")


def end_at_once(number: int, leave: Callable[[int], Any] = os._exit) -> None:
    """Kill every child of this process and leave it without another word."""
    for each in _STOP_SIGNALS:
        # Somebody impatient sends many, and a handler can be interrupted by itself.
        signal.signal(each, signal.SIG_IGN)
    try:
        import psutil
    except ImportError:
        pass  # paglets and their fork server end with this process anyway, an instant later
    else:
        with suppress(psutil.Error):
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    child.kill()
    leave(128 + number)
