"""``animegen web``: the server, and the page in a browser; both need the extra ``web``."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from PIL import Image

from animegen.cli import web
from animegen.media.video.opening import create_video, open_video
from animegen.web.options import WebOptions
from tests.support import refused, run_verb, untrained

ROOT = Path(__file__).parents[2]


def test_without_gradio(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    code = run_verb(web.main, "open=false", "port=0")
    assert "The web page needs Gradio: pip install 'animegen[web]'." in refused(capsys, code)


def test_a_taken_port(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code = run_verb(web.main, "open=false", f"port={port}")
    assert f"host=127.0.0.1 port={port} cannot be used" in refused(capsys, code)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two checkpoints, two images, a video, and files that are none."""
    folder = tmp_path_factory.mktemp("web")
    untrained("toy/quickstart", folder / "toy.ckpt")
    untrained("interpolation/quickstart", folder / "between.ckpt")
    frames = [Image.new("RGB", (160, 96), (20 * number, 120, 200)) for number in range(12)]
    frames[0].save(folder / "a.png")
    frames[-1].save(folder / "b.png")
    frames[0].save(folder / "video.gif", save_all=True, append_images=frames[1:], duration=100)
    reader = open_video(folder / "video.gif")
    for name, repeats in {"video.mp4": 1, "long.mp4": 50}.items():
        with create_video(folder / name, reader.info) as writer:
            for repeat in range(repeats):
                for pixels, time in reader:
                    writer.write(pixels, time + repeat * Fraction(6, 5))
            writer.close(repeats * Fraction(6, 5))
    (folder / "notes.jpg").write_text("no image")
    (folder / "large.png").write_bytes(bytes(2**20 + 1))
    return folder


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """The address of a page."""
    pytest.importorskip("gradio")
    from animegen.web.server import running

    checkpoints = [str(folder / name) for name in ("toy.ckpt", "between.ckpt")]
    options = WebOptions(checkpoint=checkpoints, runs=str(folder / "runs"), port=0, open=False, megabytes=1, threads=1)
    with running(options) as address:
        served = Path(os.environ["GRADIO_TEMP_DIR"])
        yield address
        assert served.parent.exists()
    assert not served.parent.exists()


def status(address: str, host: str | None = None) -> tuple[int, Any]:
    request = urllib.request.Request(address, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


def test_the_server_listens_on_this_machine_only(url: str) -> None:
    assert urlsplit(url).hostname == "127.0.0.1"
    if sys.platform == "linux":  # the port of another address is taken by a server on all addresses
        socket.create_server(("127.0.0.2", urlsplit(url).port or 0)).close()


def test_the_server_reads_no_other_files_and_hosts(url: str, folder: Path) -> None:
    code, headers = status(url)
    assert code == 200
    assert "default-src 'self'" in headers["content-security-policy"]
    assert status(url, host="other.example")[0] == 400
    for path in (folder / "toy.ckpt", Path(__file__), Path("/etc/hostname")):
        assert status(f"{url}gradio_api/file={quote(str(path))}")[0] in (403, 404)
    for address in ("http://127.0.0.1:1/a", "https://example.com/a", "https:/example.com/a"):
        assert status(f"{url}gradio_api/file={address}")[0] == 403
        assert status(f"{url}gradio_api/file/{address}")[0] == 403


def test_requests_of_a_client_are_queued(url: str, folder: Path, tmp_path: Path) -> None:
    client_module = pytest.importorskip("gradio_client")
    client = client_module.Client(url, download_files=str(tmp_path), verbose=False)
    photo, toy = client_module.handle_file(str(folder / "a.png")), str(folder / "toy.ckpt")
    jobs = [client.submit(photo, toy, 1, side, api_name="/photo") for side in (128, 160)]
    for job, size in zip(jobs, [(128, 77), (160, 96)], strict=True):
        (before, after), _, note = job.result(timeout=100)
        assert Image.open(before).size == Image.open(after).size == size
        assert f"{size[0]} x {size[1]} pixels" in note
    notes = client_module.handle_file(str(folder / "notes.jpg"))
    slider, _, note = client.predict(notes, toy, 1, 128, api_name="/photo")
    assert slider is None
    assert "The file &#x27;notes.jpg&#x27; is not an image" in note


def test_a_request_may_name_uploads_only(url: str, folder: Path) -> None:
    file = {"path": str(folder / "a.png"), "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [file, str(folder / "toy.ckpt"), 1, 128]}).encode()
    request = urllib.request.Request(f"{url}gradio_api/call/photo", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{url}gradio_api/call/photo/{event}", timeout=60) as answer:
        assert answer.read().startswith(b"event: error")


def test_a_stopped_server_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    words = [sys.executable, "-m", "animegen", "web", "open=false", "port=0", f"runs={tmp_path}"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as server:
        assert server.stdout
        assert server.stdout.readline().startswith("The page is at http://127.0.0.1:")
        assert list(tmp_path.glob("animegen-web-*"))
        server.terminate()
        assert server.wait(100) == 0
    assert not list(tmp_path.glob("animegen-web-*"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium")
    with playwright.sync_playwright() as found:
        chromium = found.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(url: str, browser: Any) -> Iterator[Any]:
    """The opened page; it may load nothing from other hosts, and raise no error in the browser."""
    requested: list[str] = []
    errors: list[Any] = []
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(180_000)
    page.on("request", lambda request: requested.append(request.url))
    page.on("pageerror", lambda error: errors.append(error))
    page.goto(url)
    page.get_by_role("tab", name="Photo").wait_for()
    yield page
    page.close()
    assert requested
    assert {address for address in requested if not address.startswith((url, "data:", "blob:"))} == set()
    assert errors == []


class Tab:
    """A tab of the page, opened."""

    def __init__(self, page: Any, name: str) -> None:
        page.get_by_role("tab", name=name).click()
        self.panel = page.get_by_role("tabpanel").filter(visible=True)

    def drop(self, *files: Path) -> None:
        """Upload files to the fields in turn."""
        for number, file in enumerate(files):
            self.panel.locator("input[type=file]").nth(number).set_input_files(str(file))
            self.clear.nth(number).wait_for()

    @property
    def clear(self) -> Any:
        """The buttons that remove an upload."""
        return self.panel.get_by_label(re.compile("^(Clear|Remove)"))

    def choose(self, label: str, name: str) -> None:
        """Choose an entry of a list."""
        self.panel.get_by_label(label).click()
        self.panel.get_by_role("option", name=name).click()

    def answer(self, text: str) -> str:
        """Wait for a sentence with this text."""
        note = self.panel.locator(".note").filter(has_text=text)
        note.wait_for()
        return str(note.inner_text())


def download(page: Any, tab: Tab, button: str) -> Path:
    with page.expect_download() as started:
        tab.panel.get_by_role("button", name=button).click()
    return Path(started.value.path()).rename(Path(started.value.path()).with_name(started.value.suggested_filename))


def test_photo_tab(page: Any, folder: Path) -> None:
    tab = Tab(page, "Photo")
    stylize = tab.panel.get_by_role("button", name="Stylize")
    stylize.click()
    tab.answer("Drop a photo first.")
    tab.drop(folder / "notes.jpg")
    stylize.click()
    assert tab.answer("not an image") == (
        "The file 'notes.jpg' is not an image, or its header is broken: replace or remove it."
    )
    tab.clear.first.click()
    tab.drop(folder / "a.png")
    stylize.click()
    assert tab.answer("160 x 96 pixels").startswith("160 x 96 pixels, ")
    page.wait_for_function("[...document.images].filter(each => each.naturalWidth == 160).length >= 3")
    file = download(page, tab, "Download")
    assert file.name == "a-anime.png"
    assert Image.open(file).size == (160, 96)


def test_files_above_the_limit_are_refused(page: Any, folder: Path) -> None:
    Tab(page, "Photo").panel.locator("input[type=file]").first.set_input_files(str(folder / "large.png"))
    page.get_by_text("exceed the maximum allowed size of 1.0 Mb").wait_for()


def test_video_tab(page: Any, folder: Path) -> None:
    tab = Tab(page, "Video")
    tab.drop(folder / "video.mp4")
    tab.panel.get_by_role("spinbutton", name="Seconds from the start").fill("1")
    tab.panel.get_by_role("button", name="Stylize").click()
    tab.answer("10 frames, ")
    page.wait_for_function("[...document.querySelectorAll('video')].some(each => each.videoWidth == 160)")
    assert len(list(open_video(download(page, tab, "Download")))) == 10
    tab.panel.get_by_role("spinbutton", name="Seconds from the start").fill("60")
    tab.clear.first.click()
    tab.drop(folder / "long.mp4")
    tab.panel.get_by_role("button", name="Stylize").click()
    tab.panel.get_by_text("/600 frames").wait_for()
    tab.panel.get_by_role("button", name="Cancel").click()
    tab.answer("Cancelled.")
    assert not any(page.evaluate("[...document.querySelectorAll('video')].map(each => each.videoWidth == 160)")[1:])
    test_photo_tab(page, folder)  # the next request is not kept waiting


def test_between_tab(page: Any, folder: Path) -> None:
    tab = Tab(page, "In-between")
    tab.drop(folder / "a.png", folder / "b.png")
    tab.choose("Model", "between.ckpt")
    tab.panel.get_by_role("spinbutton", name="Frames, with the two images").fill("5")
    tab.panel.get_by_role("button", name="Draw").click()
    tab.answer("5 frames, 3 of them drawn")
    page.wait_for_function("[...document.querySelectorAll('video')].some(each => each.videoWidth == 160)")
    assert [len(list(open_video(download(page, tab, f"Download {kind}")))) for kind in ("MP4", "GIF")] == [5, 5]


def test_runs_tab(page: Any, folder: Path) -> None:
    tab = Tab(page, "Runs")
    assert tab.answer("No run in") == f"No run in '{folder / 'runs'}' yet."
