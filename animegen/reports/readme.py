"""The results in an experiment's README, between two markers; all other text stays."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from animegen.errors import AnimegenError
from animegen.files import completed, read_text

BEGIN, END = "<!-- results -->", "<!-- /results -->"
LARGEST_BYTES = 300_000


def replace_results(text: str, results: str) -> str:
    """Replace the text between the markers; without markers, append the results.

    Raises:
        AnimegenError: if a marker is missing, or the markers are doubled or in the wrong order.
    """
    inner = results.strip("\n")  # keep spaces, which may indent a command
    block = f"{BEGIN}\n{inner}\n{END}"
    if BEGIN not in text and END not in text:
        gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
        return f"{text}{gap}{block}\n"
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise AnimegenError(
            f"The README must contain '{BEGIN}' and after it '{END}', each once: correct the markers, or delete both."
        )
    before, rest = text.split(BEGIN)
    return f"{before}{block}{rest.split(END)[1]}"


def write_results(path: Path, title: str, results: str) -> None:
    """Write results between the markers of a README, which is created if missing.

    Args:
        path: the README.
        title: its heading, if it is created.
        results: Markdown.

    Raises:
        AnimegenError: if the markers are damaged, or the file cannot be written; it stays unchanged.
    """
    text = read_text(path) if path.exists() else f"# {title}\n"
    try:
        new = replace_results(text, results)
    except AnimegenError as error:
        raise AnimegenError(f"'{path}': {error}") from error
    with completed(path) as hidden:
        hidden.write_text(new, "utf-8", "surrogateescape")


def small_jpeg(data: bytes, largest: int = LARGEST_BYTES) -> bytes:
    """Return an image as JPEG of at most ``largest`` bytes: first reduce the quality, then the size.

    Args:
        data: an encoded image, such as the bytes of a PNG.
        largest: number of bytes.
    """
    image = Image.open(io.BytesIO(data)).convert("RGB")
    while True:
        for quality in (92, 85, 75):
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=quality, optimize=True)
            if buffer.tell() <= largest or max(image.size) < 64:
                return buffer.getvalue()
        image = image.resize((image.width * 4 // 5, image.height * 4 // 5), Image.Resampling.LANCZOS)
