"""Pytest fixture `presence_hub`: a `presence_adapters.server.HubThread` for one test.

Every pytest run loads this module if the package is installed, so the module imports the hub only on use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from presence_adapters.server import HubThread


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "presence_hub(**options): options of presence_proto.HubConfig for the fixture presence_hub"
    )


@pytest.fixture
def presence_hub(request: pytest.FixtureRequest) -> Iterator[HubThread]:
    """Server for Phoenix, Supabase and Jarvis clients, on a free port of 127.0.0.1, with fault switches.

    Clients need the `api_key` of the hub. `@pytest.mark.presence_hub(presence_window=0.1)` sets options of
    `HubConfig`.
    """
    from presence_adapters.server.hub_thread import HubThread, new_api_key
    from presence_proto import ConfigError, HubConfig

    options: dict[str, Any] = {"api_keys": [new_api_key()]}
    for marker in reversed(list(request.node.iter_markers("presence_hub"))):  # the closest marker wins
        if marker.args:
            pytest.fail(
                "the marker presence_hub takes only keyword arguments: options of HubConfig", pytrace=False
            )
        options |= marker.kwargs
    known = HubConfig.__attrs_attrs__
    if unknown := sorted(options.keys() - {attribute.name for attribute in known}):
        names = ", ".join(attribute.name for attribute in known)
        pytest.fail(
            f"the marker presence_hub: HubConfig has no option {unknown[0]!r}, only {names}", pytrace=False
        )
    try:
        config = HubConfig(**options)
    except ConfigError as exc:
        pytest.fail(f"the marker presence_hub: {exc}", pytrace=False)
    with HubThread(config) as hub:
        yield hub
