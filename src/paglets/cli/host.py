"""The `paglets host` command: run a host in the foreground until it is told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from paglets.cli.console import print_error
from paglets.cli.host_options import DEFAULT_PORT, HostOptions, LogLevel
from paglets.cli.launcher import USAGE_EXIT

EPILOG: Final = """
Examples:

  paglets host --name alpha

  paglets host --name beta --port 0 --peer http://127.0.0.1:8765

  PAGLETS_API_KEY=... paglets host --name gamma --bind-public auto --allow myapp

  paglets host --name delta --port 0 --json | head -1

SIGTERM and Ctrl-C stop the host in order: its paglets are stored and wake up with its next start. A second signal ends
it at once.
"""

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


def host(
    context: typer.Context,
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the host, shown to others.")],
    host: Annotated[str, typer.Option("--host", help="Address to listen on.", rich_help_panel=_NETWORK)] = "127.0.0.1",
    bind_public: Annotated[
        list[str] | None,
        typer.Option(
            "--bind-public",
            metavar="ADDRESS",
            help="Address to listen on instead of --host, auto for that in the local network; repeatable.",
            rich_help_panel=_NETWORK,
        ),
    ] = None,
    port: Annotated[
        int, typer.Option("--port", "-p", help="Port to listen on; 0 takes a free one.", rich_help_panel=_NETWORK)
    ] = DEFAULT_PORT,
    public_url: Annotated[
        str | None,
        typer.Option(
            "--public-url",
            metavar="URL",
            help="URL under which this host is reachable, also as a hub that others connect to; needs an API key.",
            rich_help_panel=_RELAY,
        ),
    ] = None,
    connect_to: Annotated[
        str | None,
        typer.Option(
            "--connect-to",
            metavar="URL",
            help="Public URL of a hub: be reached through it and listen nowhere; needs an API key.",
            rich_help_panel=_RELAY,
        ),
    ] = None,
    relay_offline_after: Annotated[
        float,
        typer.Option(
            "--relay-offline-after",
            metavar="SECONDS",
            help="Silence after which the other end of a link is taken for dead.",
            rich_help_panel=_RELAY,
        ),
    ] = 30.0,
    relay_delivery_timeout: Annotated[
        float | None,
        typer.Option(
            "--relay-delivery-timeout",
            metavar="SECONDS",
            help="How long a connected host may take to answer where whoever asks sets no limit; no limit by default.",
            rich_help_panel=_RELAY,
        ),
    ] = None,
    relay_queue_limit: Annotated[
        int,
        typer.Option(
            "--relay-queue-limit",
            metavar="NUMBER",
            help="Requests that may be under way to one connected host.",
            rich_help_panel=_RELAY,
        ),
    ] = 1024,
    api_key_env: Annotated[
        str | None,
        typer.Option(
            "--api-key-env",
            metavar="VARIABLE",
            help="Environment variable with the key that every request must show; PAGLETS_API_KEY, if set, by default.",
            rich_help_panel=_NETWORK,
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Listen beyond this machine without an API key: everybody who reaches the host can run code on it.",
            rich_help_panel=_NETWORK,
        ),
    ] = False,
    keys: Annotated[
        list[Path] | None,
        typer.Option(
            "--keys",
            metavar="FILE",
            help="Key file made with `paglets keys`, followed while the host runs; repeatable. keys.toml in ~/.paglets "
            "and in the host's directory by default.",
            rich_help_panel=_NETWORK,
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option("--tls-cert", metavar="FILE", help="Speak TLS with this certificate.", rich_help_panel=_NETWORK),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", metavar="FILE", help="Its private key.", rich_help_panel=_NETWORK)
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(
            "--tls-client-ca",
            metavar="FILE",
            help="CA whose certificates count as keys, with the role they name.",
            rich_help_panel=_NETWORK,
        ),
    ] = None,
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            "--tls-ca",
            metavar="FILE",
            help="CA by which other hosts are verified; PAGLETS_CA_FILE, then --tls-client-ca by default.",
            rich_help_panel=_NETWORK,
        ),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            "--peer", metavar="URL", help="Host of the mesh to make contact with; repeatable.", rich_help_panel=_MESH
        ),
    ] = None,
    mesh: Annotated[
        bool, typer.Option("--mesh/--no-mesh", help="Know other hosts and be known to them.", rich_help_panel=_MESH)
    ] = True,
    mesh_multicast: Annotated[
        bool,
        typer.Option(
            "--mesh-multicast/--no-mesh-multicast",
            help="Announce this host on the local network, signed with its key; off with --connect-to.",
            rich_help_panel=_MESH,
        ),
    ] = True,
    mesh_lan_discovery: Annotated[
        bool,
        typer.Option(
            "--mesh-lan-discovery/--no-mesh-lan-discovery",
            help="Make contact with hosts that announce themselves there and have the same key. Nothing is scanned.",
            rich_help_panel=_MESH,
        ),
    ] = True,
    mesh_version: Annotated[
        str | None,
        typer.Option(
            "--mesh-version",
            metavar="TEXT",
            help="Code version that all members of the mesh share; detected by default.",
            rich_help_panel=_MESH,
        ),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="TAG", help="Tag shown to others; repeatable.", rich_help_panel=_MESH),
    ] = None,
    property: Annotated[
        list[str] | None,
        typer.Option(
            "--property", metavar="KEY=VALUE", help="Property shown to others; repeatable.", rich_help_panel=_MESH
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="PATTERN",
            help="Classes that others may create or send here: a package, 'pkg.*' or 'pkg.module:Class'; repeatable. "
            "Everything importable outside the standard library by default.",
            rich_help_panel=_PAGLETS,
        ),
    ] = None,
    preload: Annotated[
        list[str] | None,
        typer.Option(
            "--preload",
            metavar="MODULE",
            help="Module to import ahead, so that paglets that need it start faster; repeatable.",
            rich_help_panel=_PAGLETS,
        ),
    ] = None,
    persistence_dir: Annotated[
        Path | None,
        typer.Option(
            "--persistence-dir",
            metavar="DIR",
            help="Where everything durable is kept; ~/.paglets/hosts/NAME by default.",
            rich_help_panel=_STORAGE,
        ),
    ] = None,
    checkpoint_interval: Annotated[
        float,
        typer.Option(
            "--checkpoint-interval",
            metavar="SECONDS",
            help="How old the state on disk of a paglet that keeps checkpoints may be.",
            rich_help_panel=_STORAGE,
        ),
    ] = 1.0,
    persistent_storage_quota: Annotated[
        str,
        typer.Option(
            "--persistent-storage-quota",
            metavar="SIZE",
            help="Most that the paglets of one class may store, like 10M, 1.5G or none.",
            rich_help_panel=_STORAGE,
        ),
    ] = "10M",
    artifact_store: Annotated[
        str | None,
        typer.Option(
            "--artifact-store",
            metavar="PLACE",
            help="Where artifacts are kept: a directory, or s3://BUCKET[/PREFIX][?endpoint=URL][&region=NAME].",
            show_default="the host's directory",
            rich_help_panel=_STORAGE,
        ),
    ] = None,
    artifact_max_size: Annotated[
        str,
        typer.Option(
            "--artifact-max-size",
            metavar="SIZE",
            help="Largest artifact that is accepted, like 100M, 1.5G or none.",
            rich_help_panel=_STORAGE,
        ),
    ] = "1G",
    artifact_storage_quota: Annotated[
        str,
        typer.Option(
            "--artifact-storage-quota",
            metavar="SIZE",
            help="Most that all artifacts may take, with those being received, like 10G or none.",
            rich_help_panel=_STORAGE,
        ),
    ] = "10G",
    artifact_spool_ttl: Annotated[
        float,
        typer.Option(
            "--artifact-spool-ttl",
            metavar="SECONDS",
            help="How long an upload that broke off waits for its sender.",
            rich_help_panel=_STORAGE,
        ),
    ] = 86400.0,
    launch_config: Annotated[
        Path | None,
        typer.Option(
            "--launch-config",
            metavar="PATH",
            help="What the host starts by itself; ~/.paglets/launch.toml by default.",
            rich_help_panel=_START,
        ),
    ] = None,
    sync_launch_config: Annotated[
        bool,
        typer.Option(
            "--sync-launch-config/--no-sync-launch-config",
            help="Copy the bundled launch configuration, or offer to update it.",
            rich_help_panel=_START,
        ),
    ] = True,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Accept that update without being asked.", rich_help_panel=_START)
    ] = False,
    json: Annotated[
        bool,
        typer.Option("--json", help="Write one JSON line when listening and one at the end.", rich_help_panel=_OUTPUT),
    ] = False,
    log_level: Annotated[
        LogLevel,
        typer.Option("--log-level", help="What to say on standard error; debug has messages.", rich_help_panel=_OUTPUT),
    ] = LogLevel.INFO,
    stop_on_eof: Annotated[
        bool,
        typer.Option(
            "--stop-on-eof",
            help="Stop as well when standard input ends: for programs that start hosts.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
    auto_update: Annotated[bool, _absent("--auto-update-from-git", bool)] = False,
) -> None:
    """Run a host: the place where paglets live, and where other hosts and programs reach them."""
    absent = {
        "--auto-update-from-git": auto_update,
    }
    options = HostOptions(
        name=name,
        host=host,
        bind_public=bind_public or (),
        port=port,
        insecure=insecure,
        keys=keys or (),
        tls_cert=tls_cert,
        tls_key=tls_key,
        tls_client_ca=tls_client_ca,
        tls_ca=tls_ca,
        peers=peer or (),
        mesh=mesh,
        mesh_multicast=mesh_multicast,
        mesh_lan_discovery=mesh_lan_discovery,
        mesh_version=mesh_version,
        public_url=public_url,
        connect_to=connect_to,
        relay_offline_after=relay_offline_after,
        relay_delivery_timeout=relay_delivery_timeout,
        relay_queue_limit=relay_queue_limit,
        api_key_env=api_key_env,
        tags=tag or (),
        properties=property or (),
        allow=allow or (),
        preload=preload or (),
        persistence_dir=persistence_dir,
        checkpoint_interval=checkpoint_interval,
        persistent_storage_quota=persistent_storage_quota,
        artifact_store=artifact_store,
        artifact_max_size=artifact_max_size,
        artifact_storage_quota=artifact_storage_quota,
        artifact_spool_ttl=artifact_spool_ttl,
        launch_config=launch_config,
        sync_launch_config=sync_launch_config,
        yes=yes,
        json=json,
        log_level=log_level,
        stop_on_eof=stop_on_eof,
        unavailable=[option for option, given in absent.items() if given],
    )
    command = context.command_path
    try:
        arguments = options.check()
        # Imported this late, so that help, completion and mistakes need not wait for the runtime to load.
        from paglets.cli.host_run import serve

        code = serve(options, arguments, command)
    except ValueError as exc:
        print_error(command, f"{exc} (see {command} --help)")
        code = USAGE_EXIT
    raise typer.Exit(code)
