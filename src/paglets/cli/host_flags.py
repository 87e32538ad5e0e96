"""The options of `paglets host`, as its command line has them: name, help and where help shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from paglets.cli.host_options import LogLevel, checked_addresses
from paglets.cli.usage import UsageError

_NETWORK: Final = "Network"
_RELAY: Final = "Relay"
_MESH: Final = "Mesh"
_PAGLETS: Final = "Paglets"
_STORAGE: Final = "Storage"
_START: Final = "Launch configuration"
_OUTPUT: Final = "Output and control"


def _absent(name: str, kind: Any = str) -> Any:
    """Describe an option of other versions, which is known so that it can be refused with a clear line."""
    return typer.Option(name, hidden=True, show_default=False, metavar="VALUE" if kind is str else None)


def _addresses(given: list[str] | None) -> list[str] | None:
    # Looked at before anything else: an option taken for the address leaves its own value over, and the mistake would
    # be told as if it were that one.
    try:
        return None if given is None else checked_addresses(given)
    except ValueError as exc:
        raise UsageError(str(exc)) from None


NameOption = Annotated[str, typer.Option("--name", "-n", help="Name of the host, shown to others.")]
HostOption = Annotated[str, typer.Option("--host", help="Address to listen on.", rich_help_panel=_NETWORK)]
BindPublicOption = Annotated[
    list[str] | None,
    typer.Option(
        "--bind-public",
        metavar="ADDRESS",
        callback=_addresses,
        help="Address to listen on instead of --host, auto for that in the local network; repeatable.",
        rich_help_panel=_NETWORK,
    ),
]
PortOption = Annotated[
    int, typer.Option("--port", "-p", help="Port to listen on; 0 takes a free one.", rich_help_panel=_NETWORK)
]
PublicUrlOption = Annotated[
    str | None,
    typer.Option(
        "--public-url",
        metavar="URL",
        help="URL under which this host is reachable, also as a hub that others connect to; needs an API key.",
        rich_help_panel=_RELAY,
    ),
]
ConnectToOption = Annotated[
    str | None,
    typer.Option(
        "--connect-to",
        metavar="URL",
        help="Public URL of a hub: be reached through it and listen nowhere; needs an API key.",
        rich_help_panel=_RELAY,
    ),
]
RelayOfflineAfterOption = Annotated[
    float,
    typer.Option(
        "--relay-offline-after",
        metavar="SECONDS",
        help="Silence after which the other end of a link is taken for dead.",
        rich_help_panel=_RELAY,
    ),
]
RelayDeliveryTimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--relay-delivery-timeout",
        metavar="SECONDS",
        help="How long a connected host may take to answer where whoever asks sets no limit; no limit by default.",
        rich_help_panel=_RELAY,
    ),
]
RelayQueueLimitOption = Annotated[
    int,
    typer.Option(
        "--relay-queue-limit",
        metavar="NUMBER",
        help="Requests that may be under way to one connected host.",
        rich_help_panel=_RELAY,
    ),
]
ApiKeyEnvOption = Annotated[
    str | None,
    typer.Option(
        "--api-key-env",
        metavar="VARIABLE",
        help="Environment variable with the key that every request must show; PAGLETS_API_KEY, if set, by default.",
        rich_help_panel=_NETWORK,
    ),
]
InsecureOption = Annotated[
    bool,
    typer.Option(
        "--insecure",
        help="Listen beyond this machine without an API key: everybody who reaches the host can run code on it.",
        rich_help_panel=_NETWORK,
    ),
]
KeysOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--keys",
        metavar="FILE",
        help="Key file made with `paglets keys`, followed while the host runs; repeatable. keys.toml in ~/.paglets "
        "and in the host's directory by default.",
        rich_help_panel=_NETWORK,
    ),
]
TlsCertOption = Annotated[
    Path | None,
    typer.Option("--tls-cert", metavar="FILE", help="Speak TLS with this certificate.", rich_help_panel=_NETWORK),
]
TlsKeyOption = Annotated[
    Path | None, typer.Option("--tls-key", metavar="FILE", help="Its private key.", rich_help_panel=_NETWORK)
]
TlsClientCaOption = Annotated[
    Path | None,
    typer.Option(
        "--tls-client-ca",
        metavar="FILE",
        help="CA whose certificates count as keys, with the role they name.",
        rich_help_panel=_NETWORK,
    ),
]
TlsCaOption = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        metavar="FILE",
        help="CA by which other hosts are verified; PAGLETS_CA_FILE, then --tls-client-ca by default.",
        rich_help_panel=_NETWORK,
    ),
]
PeerOption = Annotated[
    list[str] | None,
    typer.Option(
        "--peer", metavar="URL", help="Host of the mesh to make contact with; repeatable.", rich_help_panel=_MESH
    ),
]
MeshOption = Annotated[
    bool, typer.Option("--mesh/--no-mesh", help="Know other hosts and be known to them.", rich_help_panel=_MESH)
]
MeshMulticastOption = Annotated[
    bool,
    typer.Option(
        "--mesh-multicast/--no-mesh-multicast",
        help="Announce this host on the local network, signed with its key; off with --connect-to.",
        rich_help_panel=_MESH,
    ),
]
MeshLanDiscoveryOption = Annotated[
    bool,
    typer.Option(
        "--mesh-lan-discovery/--no-mesh-lan-discovery",
        help="Make contact with hosts that announce themselves there and have the same key. Nothing is scanned.",
        rich_help_panel=_MESH,
    ),
]
MeshVersionOption = Annotated[
    str | None,
    typer.Option(
        "--mesh-version",
        metavar="TEXT",
        help="Code version that all members of the mesh share; detected by default.",
        rich_help_panel=_MESH,
    ),
]
TagOption = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="TAG", help="Tag shown to others; repeatable.", rich_help_panel=_MESH),
]
PropertyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--property", metavar="KEY=VALUE", help="Property shown to others; repeatable.", rich_help_panel=_MESH
    ),
]
AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="PATTERN",
        help="Classes that others may create or send here: a package, 'pkg.*' or 'pkg.module:Class'; repeatable. "
        "Everything importable outside the standard library by default.",
        rich_help_panel=_PAGLETS,
    ),
]
PreloadOption = Annotated[
    list[str] | None,
    typer.Option(
        "--preload",
        metavar="MODULE",
        help="Module to import ahead, so that paglets that need it start faster; repeatable.",
        rich_help_panel=_PAGLETS,
    ),
]
PersistenceDirOption = Annotated[
    Path | None,
    typer.Option(
        "--persistence-dir",
        metavar="DIR",
        help="Where everything durable is kept; ~/.paglets/hosts/NAME by default.",
        rich_help_panel=_STORAGE,
    ),
]
CheckpointIntervalOption = Annotated[
    float,
    typer.Option(
        "--checkpoint-interval",
        metavar="SECONDS",
        help="How old the state on disk of a paglet that keeps checkpoints may be.",
        rich_help_panel=_STORAGE,
    ),
]
PersistentStorageQuotaOption = Annotated[
    str,
    typer.Option(
        "--persistent-storage-quota",
        metavar="SIZE",
        help="Most that the paglets of one class may store, like 10M, 1.5G or none.",
        rich_help_panel=_STORAGE,
    ),
]
ArtifactStoreOption = Annotated[
    str | None,
    typer.Option(
        "--artifact-store",
        metavar="PLACE",
        help=r"Where artifacts are kept: a directory, or s3://BUCKET\[/PREFIX][?endpoint=URL][&region=NAME].",
        show_default="the host's directory",
        rich_help_panel=_STORAGE,
    ),
]
ArtifactMaxSizeOption = Annotated[
    str,
    typer.Option(
        "--artifact-max-size",
        metavar="SIZE",
        help="Largest artifact that is accepted, like 100M, 1.5G or none.",
        rich_help_panel=_STORAGE,
    ),
]
ArtifactStorageQuotaOption = Annotated[
    str,
    typer.Option(
        "--artifact-storage-quota",
        metavar="SIZE",
        help="Most that all artifacts may take, with those being received, like 10G or none.",
        rich_help_panel=_STORAGE,
    ),
]
ArtifactSpoolTtlOption = Annotated[
    float,
    typer.Option(
        "--artifact-spool-ttl",
        metavar="SECONDS",
        help="How long an upload that broke off waits for its sender.",
        rich_help_panel=_STORAGE,
    ),
]
LaunchConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--launch-config",
        metavar="PATH",
        help="What the host starts by itself; ~/.paglets/launch.toml by default.",
        rich_help_panel=_START,
    ),
]
SyncLaunchConfigOption = Annotated[
    bool,
    typer.Option(
        "--sync-launch-config/--no-sync-launch-config",
        help="Copy the bundled launch configuration, or offer to update it.",
        rich_help_panel=_START,
    ),
]
YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Accept that update without being asked.", rich_help_panel=_START)
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Write one JSON line when listening and one at the end.", rich_help_panel=_OUTPUT),
]
LogLevelOption = Annotated[
    LogLevel,
    typer.Option("--log-level", help="What to say on standard error; debug has messages.", rich_help_panel=_OUTPUT),
]
StopOnEofOption = Annotated[
    bool,
    typer.Option(
        "--stop-on-eof",
        help="Stop as well when standard input ends: for programs that start hosts.",
        rich_help_panel=_OUTPUT,
    ),
]
AutoUpdateOption = Annotated[bool, _absent("--auto-update-from-git", bool)]
