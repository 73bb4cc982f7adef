"""The part of an experiment's README that a command writes; all other text there is people's."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from animegen.errors import AnimegenError
from animegen.files import completed, read_text

BEGIN, END = "<!-- results -->", "<!-- /results -->"
LARGEST_BYTES = 300_000


def replace_results(text: str, results: str) -> str:
    """Return a text with what stands between the markers replaced; without markers the results go to the end.

    Raises:
        AnimegenError: if a marker is missing, or the markers are doubled or in the wrong order.
    """
    inner = results.strip("\n")  # not spaces: they may indent a command
    block = f"{BEGIN}\n{inner}\n{END}"
    if BEGIN not in text and END not in text:
        gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
        return f"{text}{gap}{block}\n"
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise AnimegenError(
            f"The README must hold '{BEGIN}' and after it '{END}', each once: mend the markers, or delete both."
        )
    before, rest = text.split(BEGIN)
    return f"{before}{block}{rest.split(END)[1]}"


def write_results(path: Path, title: str, results: str) -> None:
    """Put results between the markers of a README, which is made if it is not there.

    Args:
        path: the README.
        title: its heading, if it is made.
        results: Markdown.

    Raises:
        AnimegenError: if the markers are damaged, or the file cannot be written; it stays as it was.
    """
    text = read_text(path) if path.exists() else f"# {title}\n"
    try:
        new = replace_results(text, results)
    except AnimegenError as error:
        raise AnimegenError(f"'{path}': {error}") from error
    with completed(path) as hidden:
        hidden.write_text(new, "utf-8", "surrogateescape")


def small_jpeg(picture: bytes, largest: int = LARGEST_BYTES) -> bytes:
    """Return a picture as JPEG of at most ``largest`` bytes: of lower quality first, then smaller.

    Args:
        picture: an encoded picture, such as the bytes of a PNG.
        largest: number of bytes.
    """
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    while True:
        for quality in (92, 85, 75):
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=quality, optimize=True)
            if buffer.tell() <= largest or max(image.size) < 64:
                return buffer.getvalue()
        image = image.resize((image.width * 4 // 5, image.height * 4 // 5), Image.Resampling.LANCZOS)
