"""The `paglets host` command: run a host in the foreground until it is told to stop."""

from __future__ import annotations

from typing import Final

import typer

from paglets.cli import host_flags as flags
from paglets.cli.console import print_error
from paglets.cli.host_options import DEFAULT_PORT, HostOptions, LogLevel
from paglets.cli.launcher import USAGE_EXIT
from paglets.cli.lazy import uncollected

EPILOG: Final = """
Examples:

  paglets host --name alpha

  paglets host --name beta --port 0 --peer http://127.0.0.1:8765

  PAGLETS_API_KEY=... paglets host --name gamma --bind-public auto --allow myapp

  paglets host --name delta --port 0 --json | head -1

SIGTERM and Ctrl-C stop the host in order: its paglets are stored and wake up with its next start. A second signal ends
it at once.
"""


def host(
    context: typer.Context,
    name: flags.NameOption,
    host: flags.HostOption = "127.0.0.1",
    bind_public: flags.BindPublicOption = None,
    port: flags.PortOption = DEFAULT_PORT,
    public_url: flags.PublicUrlOption = None,
    connect_to: flags.ConnectToOption = None,
    relay_offline_after: flags.RelayOfflineAfterOption = 30.0,
    relay_delivery_timeout: flags.RelayDeliveryTimeoutOption = None,
    relay_queue_limit: flags.RelayQueueLimitOption = 1024,
    api_key_env: flags.ApiKeyEnvOption = None,
    insecure: flags.InsecureOption = False,
    keys: flags.KeysOption = None,
    tls_cert: flags.TlsCertOption = None,
    tls_key: flags.TlsKeyOption = None,
    tls_client_ca: flags.TlsClientCaOption = None,
    tls_ca: flags.TlsCaOption = None,
    peer: flags.PeerOption = None,
    mesh: flags.MeshOption = True,
    mesh_multicast: flags.MeshMulticastOption = True,
    mesh_lan_discovery: flags.MeshLanDiscoveryOption = True,
    mesh_version: flags.MeshVersionOption = None,
    tag: flags.TagOption = None,
    property: flags.PropertyOption = None,
    allow: flags.AllowOption = None,
    preload: flags.PreloadOption = None,
    persistence_dir: flags.PersistenceDirOption = None,
    checkpoint_interval: flags.CheckpointIntervalOption = 1.0,
    persistent_storage_quota: flags.PersistentStorageQuotaOption = "10M",
    artifact_store: flags.ArtifactStoreOption = None,
    artifact_max_size: flags.ArtifactMaxSizeOption = "1G",
    artifact_storage_quota: flags.ArtifactStorageQuotaOption = "10G",
    artifact_spool_ttl: flags.ArtifactSpoolTtlOption = 86400.0,
    launch_config: flags.LaunchConfigOption = None,
    sync_launch_config: flags.SyncLaunchConfigOption = True,
    yes: flags.YesOption = False,
    json: flags.JsonOption = False,
    log_level: flags.LogLevelOption = LogLevel.INFO,
    stop_on_eof: flags.StopOnEofOption = False,
    auto_update: flags.AutoUpdateOption = False,
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
        with uncollected():
            from paglets.cli.host_run import serve

        code = serve(options, arguments, command)
    except ValueError as exc:
        print_error(command, f"{exc} (see {command} --help)")
        code = USAGE_EXIT
    raise typer.Exit(code)
