"""Launch configuration: what a host starts by itself."""

from paglets.config.launch_file import (
    DEFAULT_LAUNCH_CONFIG_PATH,
    AutoStartSpec,
    LaunchConfig,
    ResidentServiceConfig,
    StartupAgentConfig,
    load_launch_config,
)
from paglets.config.launch_resolve import (
    ResolvedResidentService,
    ResolvedStartupAgent,
    resolve_resident_service,
    resolve_startup_agent,
)
from paglets.config.launch_sync import (
    DEFAULT_DEMO_CONFIG_ID,
    LaunchConfigSyncResult,
    bundled_launch_config_text,
    sync_launch_config,
)
from paglets.core.runtime_values import LaunchConfigSyncAction

__all__ = [
    "DEFAULT_DEMO_CONFIG_ID",
    "DEFAULT_LAUNCH_CONFIG_PATH",
    "AutoStartSpec",
    "LaunchConfig",
    "LaunchConfigSyncAction",
    "LaunchConfigSyncResult",
    "ResidentServiceConfig",
    "ResolvedResidentService",
    "ResolvedStartupAgent",
    "StartupAgentConfig",
    "bundled_launch_config_text",
    "load_launch_config",
    "resolve_resident_service",
    "resolve_startup_agent",
    "sync_launch_config",
]
