"""Peak memory grows by the pixels of an image, uint8, and by nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.inference.inbetweener import Inbetweener
from animegen.inference.stylist import NoMemoryError, Stylist
from animegen.media.video.frames import Original
from animegen.tiling import memory, tiles
from animegen.tiling.memory import peak_memory

_PHOTOS = """
from PIL import ExifTags, Image
from torch import nn
from animegen.inference.photos import stylize_photos
from animegen.inference.stylist import Stylist
from animegen.inference.summary import Summary
from animegen.inference.targets import Job
from animegen.nn.norm import InstanceNorm
from animegen.tiling import tiles

class Model(nn.Sequential):
    size_divisor = 4
    def stylize(self, frames, state=None, style=None):
        return self(frames), state

tiles.MEMORY = 2**24
model = Model(nn.Conv2d(3, 8, 3, padding=1), InstanceNorm(8), nn.Conv2d(8, 3, 3, padding=1)).eval()
stylist = Stylist(model.requires_grad_(False), tile=256)

def draw(width, height):
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image.save(folder / "turned.jpg", exif=exif)
    image.putalpha(Image.linear_gradient("L").resize((width, height)))
    image.save(folder / "clear.png", compress_level=1)
    for name, max_side in (("turned.jpg", None), ("clear.png", None), ("turned.jpg", 500)):
        summary = Summary()
        stylize_photos([Job(folder / name, folder / ("out_" + name))], stylist, summary, max_side, overwrite=True)
        assert summary.done == 1
"""
_PAIRS = """
from animegen.inference.inbetweener import Inbetweener
from animegen.media.video.frames import Original

class Model:
    def encode_pair(self, first, last):
        return torch.cat([first, last, first, last], 1)
    def synthesize(self, encoded, t):
        return encoded[:, :3] * t + encoded[:, 3:6] * (1 - t)

interpolate = Inbetweener(Model(), tile=256)

def draw(width, height):
    first, last = (Original(torch.randint(256, (3, height, width), dtype=torch.uint8)) for _ in range(2))
    for t in (0.3, 0.6):
        assert interpolate(first, last, t).shape == first.pixels.shape
"""
_SCRIPT = """
import json, resource, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
folder = Path(sys.argv[1])
{draw}
peaks = []
for size in ((1201, 1003), (2701, 1903)):
    draw(*size)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
print(json.dumps(peaks))
"""


# Photos: input and output have 3 or 4 bytes per pixel each, and so has Pillow's copy; the feature map has 32.
# Pairs: three images of 3 bytes per pixel, and the inputs of the call before; the encoded pair has 48.
@pytest.mark.parametrize("draw", [_PHOTOS, _PAIRS], ids=["photos", "pairs"])
def test_memory_grows_by_the_pixels_of_an_image(draw: str, tmp_path: Path) -> None:
    script = [sys.executable, "-c", _SCRIPT.format(draw=draw), str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    small, large = json.loads(done.stdout.splitlines()[-1])
    pixels = 2701 * 1903 - 1201 * 1003
    assert large - small < 16 * pixels + 50e6


class Whole(nn.Module):
    """A model that depends on the whole image."""

    size_divisor = 4
    tileable = False

    def stylize(self, frames: Tensor, state: object = None, style: object = None) -> tuple[Tensor, object]:
        wide = frames.repeat(1, 8, 1, 1)
        return wide.cumsum(-1)[:, :3].clamp(-1, 1), state


def test_peak_memory_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 4, 1), nn.ReLU())
    with torch.no_grad():
        needed = peak_memory(network, (1, 3, 100, 200), torch.device("cpu"))
    # Input and first map exist beside the second one.
    assert needed == 4 * 100 * 200 * (3 + 8 + 4)
    assert peak_memory(lambda x: x * x.max().item(), (1, 3, 8, 8), torch.device("cpu")) is None


def test_an_image_that_does_not_fit_is_refused_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "ESTIMATED", 2**10)
    monkeypatch.setattr(memory, "available_memory", lambda: 10**7)
    notes: list[str] = []
    stylist = Stylist(Whole().eval(), note=notes.append)
    pixels = torch.zeros(3, 300, 400, dtype=torch.uint8)
    with pytest.raises(
        NoMemoryError, match=r"400x300 pixels in one piece need \d+\.\d GB of memory, and .*max_side=[12]00 or smaller$"
    ):
        stylist(pixels)
    assert stylist(pixels[:, :100, :100]).shape == (3, 100, 100)
    monkeypatch.setattr(memory, "available_memory", lambda: 10**8)
    assert stylist(pixels).shape == pixels.shape


def test_a_pair_that_does_not_fit_is_refused_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Blend:
        size_divisor = 1

        def encode_pair(self, first: Tensor, last: Tensor) -> Tensor:
            return torch.cat([first, last]).repeat(1, 8, 1, 1)

        def synthesize(self, encoded: Tensor, t: Tensor) -> Tensor:
            return torch.lerp(encoded[:1, :3], encoded[1:, :3], t)

    monkeypatch.setattr(memory, "ESTIMATED", 2**10)
    monkeypatch.setattr(memory, "available_memory", lambda: 10**7)
    first, last = (Original(torch.zeros(3, 300, 400, dtype=torch.uint8)) for _ in range(2))
    with pytest.raises(AnimegenError, match=r"400x300 pixels in one piece need \d+\.\d GB of memory.*smaller tile="):
        Inbetweener(Blend(), tile=0)(first, last, 0.5)
    drawn = Inbetweener(Blend(), tile=128)(first, last, 0.5)
    assert drawn is not None
    assert drawn.shape == (3, 300, 400)


def test_temporary_files_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Model(nn.Sequential):
        size_divisor = 1

        def stylize(self, frames: Tensor, state: object = None, style: object = None) -> tuple[Tensor, object]:
            return self(frames), state

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tiles, "MEMORY", 0)
    monkeypatch.setattr(tiles.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**6))
    stylist = Stylist(Model(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(1, 8), nn.Conv2d(8, 3, 1)).eval(), tile=64)
    with pytest.raises(tiles.AnimegenError, match=r"400x300 pixels need 0\.0 GB of temporary files.*max_side=.*TMPDIR"):
        stylist(torch.zeros(3, 300, 400, dtype=torch.uint8))
    assert stylist(torch.zeros(3, 100, 100, dtype=torch.uint8)).shape == (3, 100, 100)
    assert list(tmp_path.iterdir()) == []
