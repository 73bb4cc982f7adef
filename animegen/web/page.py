"""The page: its tabs, and the functions that its buttons call."""

from __future__ import annotations

import html
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr

from animegen.errors import AnimegenError
from animegen.web import actions, runs
from animegen.web.models import choices
from animegen.web.options import WebOptions

ABOUT = """# animegen
Turn photos and videos into anime. Everything is computed on the machine that runs this page; nothing is sent elsewhere.
"""
#: Requests that may wait while another one is computed.
QUEUE = 20
#: Seconds between looks for old uploads and results, and after which they are removed.
TIDY, OLD = 300, 3600
STYLE = """
.note {margin: 0; padding: .6em .8em; border-radius: .5em; background: var(--block-background-fill)}
.note.error {color: var(--error-text-color); background: var(--error-background-fill)}
footer {display: none !important}
.whole .grid-wrap {max-height: none; min-height: 0}
"""


class Page:
    """The page of a server.

    Args:
        options: options of the command.
        folder: folder of all uploads and results.
    """

    def __init__(self, options: WebOptions, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.cancelled: dict[str | None, threading.Event] = {}
        self.unfinished: set[threading.Event] = set()

    def build(self) -> gr.Blocks:
        """Return the page, not yet served."""
        with gr.Blocks(title="animegen", analytics_enabled=False, delete_cache=(TIDY, OLD)) as blocks:
            gr.Markdown(ABOUT)
            with gr.Tab("Photo"):
                stylizers = [self._photo_tab()]
            with gr.Tab("Video"):
                stylizers.append(self._video_tab())
            with gr.Tab("In-between"):
                between = self._between_tab()
            with gr.Tab("Runs") as tab:
                self._runs_tab(tab)
            # The lists are made when the page is opened, so that they have the models trained since.
            blocks.load(self._refreshed, outputs=[*stylizers, between], api_visibility="private", queue=False)
            blocks.unload(self._stop)
        blocks.queue(max_size=QUEUE, default_concurrency_limit=1)
        return blocks

    # --- tabs -------------------------------------------------------------------------------------------------

    def _photo_tab(self) -> gr.Dropdown:
        with gr.Row():
            with gr.Column(scale=1):
                source = _image("Photo", 300)
                model, strength, side = self._settings(1280)
                button = gr.Button("Stylize", variant="primary")
            with gr.Column(scale=2):
                slider = gr.ImageSlider(
                    label="Before and after", interactive=False, max_height=640, buttons=["fullscreen"]
                )
                download = gr.DownloadButton("Download", interactive=False)
                note = _note_area("Drop a photo, choose a look, and press Stylize.")
        button.click(
            self._photo,
            [source, model, strength, side],
            [slider, download, note],
            api_name="photo",
            concurrency_id="models",
            show_progress_on=slider,
        )
        return model

    def _video_tab(self) -> gr.Dropdown:
        with gr.Row():
            with gr.Column(scale=1):
                source = gr.Video(label="Video", sources=["upload"], height=300)
                model, strength, side = self._settings(640)
                seconds = gr.Slider(1, actions.LONGEST, 5, step=1, label="Seconds from the start")
                with gr.Row():
                    button = gr.Button("Stylize", variant="primary")
                    stop = gr.Button("Cancel")
            with gr.Column(scale=2):
                result = gr.Video(label="Result", interactive=False, height=480, buttons=[])
                download = gr.DownloadButton("Download", interactive=False)
                note = _note_area("Drop a video, choose a look, and press Stylize.")
        event = button.click(
            self._video,
            [source, model, strength, side, seconds],
            [result, download, note],
            api_name="video",
            concurrency_id="models",
            show_progress_on=result,
        )
        stop.click(self._cancel, outputs=[result, download, note], cancels=event, queue=False, api_visibility="private")
        return model

    def _between_tab(self) -> gr.Dropdown:
        with gr.Row():
            with gr.Column(scale=1):
                with gr.Row():
                    first = _image("First image", 220)
                    last = _image("Last image", 220)
                model = gr.Dropdown(label="Model", **self._models("generate"))
                frames = gr.Slider(3, actions.MOST_FRAMES, 9, step=1, label="Frames, with the two images")
                fps = gr.Slider(1, 60, 12, step=1, label="Frames per second")
                side = gr.Slider(64, 2048, 512, step=32, label="Longest side in pixels")
                button = gr.Button("Draw", variant="primary")
            with gr.Column(scale=2):
                video = gr.Video(label="Clip", interactive=False, buttons=[], autoplay=True, loop=True, height=360)
                strip = gr.Gallery(
                    label="Frames", columns=5, object_fit="contain", interactive=False, elem_classes="whole"
                )
                with gr.Row():
                    downloads = [gr.DownloadButton(f"Download {kind}", interactive=False) for kind in ("MP4", "GIF")]
                note = _note_area("Drop two images of one size, choose a model, and press Draw.")
        button.click(
            self._between,
            [first, last, model, frames, fps, side],
            [video, strip, *downloads, note],
            api_name="between",
            concurrency_id="models",
            show_progress_on=video,
        )
        return model

    def _runs_tab(self, tab: gr.Tab) -> None:
        refresh = gr.Button("Refresh", size="sm")
        note = _note_area()
        table = gr.Dataframe(headers=list(runs.HEADERS), interactive=False, wrap=True)
        gallery = gr.Gallery(
            label="Newest previews", columns=3, object_fit="contain", interactive=False, elem_classes="whole"
        )
        gr.on([refresh.click, tab.select], self._runs, None, [table, gallery, note], api_name="runs")

    def _settings(self, side: int) -> tuple[gr.Dropdown, gr.Slider, gr.Slider]:
        return (
            gr.Dropdown(label="Look", **self._models("stylize")),
            gr.Slider(0, 1, 1, step=0.05, label="Strength", info="0 is the input, 1 the drawing."),
            gr.Slider(128, 4096, side, step=64, label="Longest side in pixels", info="Larger inputs are scaled down."),
        )

    # --- functions --------------------------------------------------------------------------------------------

    def _refreshed(self) -> list[Any]:
        return [gr.Dropdown(**self._models(*tab)) for tab in (("stylize",), ("stylize", True), ("generate",))]

    def _models(self, command: str, videos: bool = False) -> dict[str, Any]:
        found = choices(self.options, command, videos)
        return {"choices": found, "value": found[0][1] if found else None}

    def _photo(self, source: str | None, model: str | None, strength: float, side: int) -> Iterator[tuple[Any, ...]]:
        def work(folder: Path) -> tuple[Any, ...]:
            made = actions.stylize_photo(self.options, source, model, strength, side, folder)
            return (str(made.before), str(made.after)), _download(made.after), made.text

        yield from self._answered(work, None, _download(None))

    def _video(
        self,
        source: str | None,
        model: str | None,
        strength: float,
        side: int,
        seconds: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - Gradio finds it there
    ) -> Iterator[tuple[Any, ...]]:
        def work(folder: Path) -> tuple[Any, ...]:
            with self._cancellable(request) as event:
                display = actions.PageDisplay(lambda done, total: progress((done, total), unit="frames"), event.is_set)
                made = actions.stylize_video(self.options, source, model, strength, side, seconds, folder, display)
            return str(made.file), _download(made.file), made.text

        yield from self._answered(work, None, _download(None))

    def _between(
        self, first: str | None, last: str | None, model: str | None, frames: int, fps: int, side: int
    ) -> Iterator[tuple[Any, ...]]:
        def work(folder: Path) -> tuple[Any, ...]:
            made = actions.draw_between(self.options, first, last, model, frames, fps, side, folder)
            strip = [(str(path), str(number)) for number, path in enumerate(made.frames, 1)]
            return str(made.video), strip, _download(made.video), _download(made.animation), made.text

        yield from self._answered(work, None, None, _download(None), _download(None))

    def _runs(self) -> Iterator[tuple[Any, ...]]:
        def work(folder: Path) -> tuple[Any, ...]:
            found, problems = runs.newest_runs(self.options.runs)
            name = self.options.runs
            text = " ".join([f"{len(found)} runs in '{name}'." if found else f"No run in '{name}' yet.", *problems])
            return runs.table(found, name), runs.previews(found, name, folder), text

        yield from self._answered(work, None, None)

    def stop(self) -> None:
        """Cancel what can be cancelled, and wait for the rest: Python cannot end while PyTorch computes."""
        for event in list(self.cancelled.values()):
            event.set()
        for finished in list(self.unfinished):
            finished.wait()

    def _stop(self, request: gr.Request) -> None:
        """Let the work for a browser end, also when its page is closed."""
        if event := self.cancelled.get(request.session_hash):
            event.set()

    def _cancel(self, request: gr.Request) -> tuple[Any, ...]:
        self._stop(request)
        return None, _download(None), _sentence("Cancelled.")

    @contextmanager
    def _cancellable(self, request: gr.Request) -> Iterator[threading.Event]:
        """Yield the event that the button of a session sets."""
        event = self.cancelled[request.session_hash] = threading.Event()
        try:
            yield event
        finally:
            self.cancelled.pop(request.session_hash, None)

    def _answered(self, work: Callable[[Path], tuple[Any, ...]], *empty: Any) -> Iterator[tuple[Any, ...]]:
        """Yield the values of a result and a sentence; or, if there is an error, ``empty`` and its sentence.

        Gradio copies the files of the values before it asks for the next ones (to its own folder, in which they must
        not be yet); then the folder is removed.
        """
        with TemporaryDirectory(dir=self.folder) as folder:
            finished = threading.Event()
            self.unfinished.add(finished)
            try:
                *values, text = work(Path(folder))
                answer = (*values, _sentence(text))
            except AnimegenError as error:
                # Of an upload, a user knows the name alone.
                text = re.sub(rf"{re.escape(str(self.folder))}/(?:[^/' ]+/)*", "", str(error))
                answer = (*empty, _sentence(text, "error"))
            finally:
                finished.set()
                self.unfinished.discard(finished)
            yield answer


def _image(label: str, height: int) -> gr.Image:
    """Return an image whose file is passed on as it was uploaded."""
    image = gr.Image(label=label, sources=["upload", "clipboard"], height=height)
    # Gradio would decode the file, and fail without a sentence. (A subclass would write a stub next to this module.)
    vars(image)["preprocess"] = lambda payload: payload.path if payload else None
    return image


def _note_area(text: str = "") -> gr.Markdown:
    return gr.Markdown(_sentence(text))


def _sentence(text: str, kind: str = "") -> str:
    return f'<p class="note {kind}" role="status">{html.escape(text)}</p>'


def _download(path: Path | None) -> gr.DownloadButton:
    return gr.DownloadButton(value=None if path is None else str(path), interactive=path is not None)
