"""The settings of the `presence` command, and the stored identity of its user."""

from presence_adapters.settings.layers import (
    Settings,
    SettingsError,
    default_config_path,
    default_identity_path,
    load_settings,
)

__all__ = ["Settings", "SettingsError", "default_config_path", "default_identity_path", "load_settings"]
