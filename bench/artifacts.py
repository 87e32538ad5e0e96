"""Artifacts: files of 256 MB and 1 GB to a host in another process and back, verified at both ends."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench import floors
from bench.measure import Row, timed
from bench.peers import peer_host
from paglets.artifacts import ArtifactRef
from paglets.remote.client import HostClient

MEGABYTE = 1024 * 1024
_SIZES = (256, 1024)
_AIM = 1000.0
_REFERENCE = {"upload": 315.0, "download": 285.0}


def transfers(quick: bool) -> Iterator[Row]:
    """Upload and download."""
    rounds = 4 if quick else 12
    best = {
        "SHA-256 of one core": floors.sha256_rate(),
        "copy of a file in the page cache": floors.file_copy_rate(),
        "TCP loopback": 64 * 1e3 / floors.loopback_transfer(),
    }
    for name, rate in best.items():
        yield Row(f"floor: {name}", "MB/s", round(rate), larger_is_better=True)
    floor = floors.verified_transfer_rate()
    with tempfile.TemporaryDirectory() as name, peer_host() as peer, HostClient(timeout=60) as client:
        directory = Path(name)
        for size in _SIZES:
            source, target = directory / "source", directory / "target"
            _fill(source, size)
            refs: list[ArtifactRef] = []

            def up(source: Path = source, refs: list[ArtifactRef] = refs) -> None:
                refs.append(client.upload_artifact(peer, source))

            def down(target: Path = target, refs: list[ArtifactRef] = refs) -> None:
                client.download_artifact(refs[-1], target)

            seconds = []
            for number in range(rounds + 1):
                taken = timed(up, 1, warm_up=0)
                if number:  # the first is to warm up
                    seconds += taken
                if number < rounds:
                    # What is there already would only be compared.
                    client.delete_artifact(refs.pop())
            yield _row("upload", size, seconds, floor)
            seconds = []
            for number in range(rounds + 1):
                # To a new file: freeing the pages and blocks of one that is replaced is no part of a download.
                target.unlink(missing_ok=True)
                taken = timed(down, 1, warm_up=0)
                if number:
                    seconds += taken
            yield _row("download", size, seconds, floor)
            client.delete_artifact(refs.pop())
            source.unlink()
            target.unlink()


def _fill(path: Path, megabytes: int) -> None:
    content = bytearray(os.urandom(64 * MEGABYTE))
    with path.open("wb") as stream:
        for number in range(megabytes // 64):
            content[:8] = number.to_bytes(8, "big")
            stream.write(content)


def _row(what: str, megabytes: int, seconds: list[float], floor: float) -> Row:
    return Row(
        f"{what} an artifact of {megabytes} MB, verified",
        "MB/s",
        round(megabytes / statistics.median(seconds)),
        round(floor),
        _AIM,
        _REFERENCE[what],
        larger_is_better=True,
        samples=len(seconds),
        note="two processes; floor: two that do nothing but send, write and hash",
    )
