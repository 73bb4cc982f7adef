"""The server of the page: local, without telemetry, and with a temporary folder that is removed."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from animegen.errors import AnimegenError
from animegen.web.options import WebOptions

#: Let a browser load nothing from other hosts, and show the page in no other site.
POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' blob:; "
    b"style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    b"font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; "
    b"base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
#: Names of this machine that a browser may use to open a page that listens on one of them.
LOCAL = ("127.0.0.1", "localhost")


class Guard:
    """ASGI middleware that sets `POLICY`, and refuses to fetch files of other hosts for a client, as Gradio would."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Answer a request."""

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"content-security-policy", POLICY)]
            await send(message)

        if scope["type"] == "http" and "://" in scope["path"].replace(":/", "://"):
            await guarded({"type": "http.response.start", "status": 403, "headers": []})
            await guarded({"type": "http.response.body", "body": b""})
            return
        await self.app(scope, receive, guarded)


@contextmanager
def running(options: WebOptions) -> Iterator[str]:
    """Serve the page while the block runs; yield its address.

    Raises:
        AnimegenError: if Gradio is not installed, or the address cannot be used.
    """
    port = _free_port(options)
    with TemporaryDirectory(prefix="animegen-web-") as folder:
        # Read when Gradio is imported or a page is built.
        served = str(Path(folder, "served"))
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": served, "HF_HUB_OFFLINE": "1"}
        try:
            import gradio
        except ModuleNotFoundError as error:
            raise AnimegenError("The web page needs Gradio: pip install 'animegen[web]'.") from error
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        from animegen.web.page import STYLE, Page

        middleware = [Middleware(Guard)]
        if options.host in LOCAL:  # other sites must not reach it by a name that they let point here
            middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=list(LOCAL)))
        page = Page(options, Path(folder))
        blocks = page.build()
        try:
            _, url, _ = blocks.launch(
                server_name=options.host,
                server_port=port,
                inbrowser=options.open,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                max_file_size=f"{options.megabytes}mb",
                footer_links=[],
                ssr_mode=False,
                mcp_server=False,
                enable_monitoring=False,
                app_kwargs={"middleware": middleware},
                theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
                css=STYLE,
            )
            yield url
        finally:
            page.stop()
            blocks.close(verbose=False)


def serve(options: WebOptions) -> None:
    """Serve the page until Ctrl+C or SIGTERM.

    Raises:
        AnimegenError: see :func:`running`.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), running(options) as url:
        print(f"The page is at {url} (Ctrl+C ends it).", flush=True)
        threading.Event().wait()


def _free_port(options: WebOptions) -> int:
    """Return the port to listen on, after trying it."""
    try:
        with socket.create_server((options.host, options.port)) as found:
            return found.getsockname()[1]
    except OSError as error:
        raise AnimegenError(
            f"host={options.host} port={options.port} cannot be used ({error.strerror or error}): choose another port=,"
            " 0 for any free one, or host=127.0.0.1."
        ) from error
