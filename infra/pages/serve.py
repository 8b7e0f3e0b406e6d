"""The gateway with the live page beside its API, as one process."""

from __future__ import annotations

from agents.gateway import main as gateway
from agents.gateway.settings import GatewaySettings
from streams.settings import load


def main() -> None:
    """Run one gateway until it is told to stop."""
    if not load(GatewaySettings).page:
        gateway.main()
        return
    # Imported late: it brings NiceGUI.
    from infra.pages.mount import mount_page

    gateway.main(mount_page)
