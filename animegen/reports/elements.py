"""Elements of a report: images that can be enlarged, a row of previews with a slider, and pairs before and after."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em;
       color: #222; background: #fff; }
h1 { font-size: 1.6em; margin-bottom: 0.2em; overflow-wrap: anywhere; } h2 { font-size: 1.25em; margin-top: 2em; }
h3 { font-size: 1.05em; margin-top: 1.6em; } p.question { font-size: 1.1em; color: #444; margin-top: 0; }
code { background: #f2f2f2; padding: 0.1em 0.3em; border-radius: 3px; font-size: 0.9em; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin-bottom: 1em; }
table { border-collapse: collapse; font-size: 0.92em; }
th, td { padding: 0.3em 0.8em; text-align: right; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
thead th { white-space: normal; overflow-wrap: anywhere; min-width: 4em; vertical-align: bottom; }
th:first-child, td:first-child, table.text th, table.text td { text-align: left; }
table:not(.text) td:first-child { white-space: normal; min-width: 6em; overflow-wrap: anywhere; }
thead th { border-bottom: 2px solid #999; } tr.trivial { color: #777; } td b { color: #00568a; }
table.text td { vertical-align: top; white-space: normal; overflow-wrap: anywhere; min-width: 3em; }
small { color: #777; } .bad { color: #b00020; } .absent { color: #999; }
img { max-width: 100%; height: auto; } figure { margin: 1em 0; } figcaption { color: #666; font-size: 0.9em; }
figure > img, .slides img { cursor: zoom-in; }
summary { cursor: pointer; } details { margin: 1em 0; }
.slides img:not(.on) { display: none; } .slides input { width: min(100%, 30em); display: block; }
.pairs { display: flex; flex-wrap: wrap; gap: 1em; } .pairs figure { margin: 0; }
.pair { position: relative; display: inline-block; --at: 50%; line-height: 0; }
.pair img { display: block; width: min(360px, 90vw); }
.pair img + img { position: absolute; inset: 0; clip-path: inset(0 0 0 var(--at)); }
.pair::after { content: ""; position: absolute; top: 0; bottom: 0; left: var(--at); width: 2px; background: #fff;
               box-shadow: 0 0 3px #000; pointer-events: none; }
.pair input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize; }
dialog { border: 0; padding: 0; max-width: 98vw; max-height: 98vh; overflow: auto; cursor: zoom-out; }
dialog img { max-width: none; display: block; min-width: min(90vw, 900px); image-rendering: auto; }
dialog::backdrop { background: rgba(0, 0, 0, 0.8); }
@media (max-width: 900px) { table { font-size: 0.8em; } th, td { padding: 0.25em 0.4em; } }
"""

SCRIPT = """
document.addEventListener("click", event => {
  const view = document.querySelector("dialog");
  if (event.target.closest("dialog")) view.close();
  else if (event.target.matches("figure > img, .slides img")) {
    view.firstElementChild.src = event.target.src;
    view.firstElementChild.alt = event.target.alt;
    view.showModal();
  }
});
document.addEventListener("input", event => {
  const box = event.target.parentElement;
  if (box.matches(".pair")) box.style.setProperty("--at", event.target.value + "%");
  if (!box.matches(".slides")) return;
  const images = [...box.querySelectorAll("img")];
  images.forEach((image, number) => image.classList.toggle("on", number == event.target.value));
  box.querySelector("figcaption").textContent = images[event.target.value].alt;
});
"""

#: The window in which images are enlarged.
VIEW = '<dialog><img alt=""></dialog>'


@dataclass(frozen=True)
class EmbeddedImage:
    """An image in the page: encoded data, kind (``png``, ``jpeg``, ``gif``) and caption."""

    data: bytes
    kind: str
    caption: str

    def tag(self, attributes: str = "") -> str:
        """Return the image without a figure."""
        data = base64.b64encode(self.data).decode()
        return f'<img alt="{escape(self.caption)}" src="data:image/{self.kind};base64,{data}"{attributes}>'

    def html(self) -> str:
        """Return a figure with the caption below."""
        return f"<figure>{self.tag()}<figcaption>{escape(self.caption)}</figcaption></figure>"


@dataclass(frozen=True)
class Slides:
    """Images of which a slider shows one, at first the last.

    Attributes:
        images: in the order of the slider.
    """

    images: Sequence[EmbeddedImage]

    def html(self) -> str:
        """Return a figure with a slider above the image, and without a slider for a single one."""
        last = len(self.images) - 1
        slider = f'<input type="range" min="0" max="{last}" value="{last}" aria-label="train step">' if last else ""
        shown = "".join(image.tag(' class="on"' if n == last else "") for n, image in enumerate(self.images))
        caption = escape(self.images[-1].caption)
        return f'<figure class="slides">{slider}{shown}<figcaption>{caption}</figcaption></figure>'


@dataclass(frozen=True)
class Pair:
    """Two images of the same size on top of each other; a line that can be dragged divides them.

    Attributes:
        before: to the left of the line.
        after: to the right of it.
    """

    before: EmbeddedImage
    after: EmbeddedImage

    def html(self) -> str:
        """Return a figure with both captions below."""
        caption = f"{escape(self.before.caption)} | {escape(self.after.caption)}"
        slider = f'<input type="range" min="0" max="100" value="50" step="0.5" aria-label="{caption}">'
        images = f"{self.before.tag()}{self.after.tag()}"
        return f'<figure><div class="pair">{images}{slider}</div><figcaption>{caption}</figcaption></figure>'


Figure = EmbeddedImage | Slides | Pair
