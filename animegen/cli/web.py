"""``animegen web``: photos, videos and in-betweens in a browser."""

from __future__ import annotations

from animegen.cli.command import command
from animegen.web.options import WebOptions


@command(WebOptions)
def main(options: WebOptions) -> None:
    """Serve the page until Ctrl+C."""
    from animegen.web.server import serve  # Gradio and PyTorch follow

    serve(options)
