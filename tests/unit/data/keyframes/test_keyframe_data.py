"""The data module of key-frame projects, and the benchmark on them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.benchmarks.keyframes import keyframe_benchmark
from animegen.data.keyframes import BilateralFilter, EdgeGuide, FileGuide, GaussGuide, KeyframeData, KeyframeProject
from animegen.data.keyframes.project import toonworld_project
from animegen.errors import AnimegenError
from animegen.media.images import to_float
from animegen.metrics.image import psnr
from animegen.nn.features import FeatureExtractor
from animegen.nn.warp import backward_warp
from animegen.tasks.stylize import StyliseModule


def data(**settings: Any) -> KeyframeData:
    project = settings.pop("project", None) or toonworld_project(frames=8, size=48)
    return KeyframeData(project, **{"patch": 12, "batch_size": 5, "seed": 1, **settings})


def cut(module: KeyframeData, *numbers: int) -> dict[str, Tensor]:
    samples = [module.train[n] for n in numbers]
    return module.finish_training({"sample": torch.stack([s["sample"] for s in samples])})


def test_a_batch_shows_photo_and_drawing_of_the_same_place() -> None:
    module = data(context=3)
    batch = cut(module, 0, 1, 2)
    assert {key: tuple(value.shape) for key, value in batch.items()} == {
        "photo": (3, 3, 18, 18),
        "anime": (3, 3, 12, 12),
        "other": (3, 3, 12, 12),
        "place": (3,),
        "sample": (3,),
    }
    project, centres = module.project, module.patches.centres
    for k in range(3):
        n, row, column = (int(v) for v in centres.split(batch["place"][k]))
        key = project.keys[n]
        for name, pictures, margin in (("photo", project.photo, 9), ("anime", project.drawings, 6)):
            whole = F.pad(to_float(pictures[key])[None], (margin,) * 4, mode="reflect")[0]
            expected = whole[:, row : row + 2 * margin, column : column + 2 * margin]
            torch.testing.assert_close(batch[name][k], expected)
    assert module.train.name(1) == "000006"
    again = cut(data(context=3), 2, 0)
    assert torch.equal(again["photo"], batch["photo"][[2, 0]]), "a sample does not depend on its batch"


def test_guides_lie_over_the_photo() -> None:
    module = data(guides={"gauss": GaussGuide(radius=6, sigma=6), "edges": EdgeGuide()})
    batch = cut(module, 4)
    assert batch["guide"].shape == (1, 4, 12, 12)
    n, row, column = (int(v) for v in module.patches.centres.split(batch["place"][0]))
    whole = F.pad(to_float(module.clip.guide(module.project.keys[n]))[None], (6,) * 4, mode="reflect")[0]
    torch.testing.assert_close(batch["guide"][0], whole[:, row : row + 12, column : column + 12])
    sample = module.val[0] if module.val is not None else {}
    assert sample["guide"].shape == (4, 48, 48)


def test_flip_and_noise() -> None:
    plain = cut(data(), *range(20))
    flipped = cut(data(flip=True), *range(20))
    turned = torch.tensor([torch.equal(a, b.flip(-1)) for a, b in zip(flipped["photo"], plain["photo"], strict=True)])
    same = torch.tensor([torch.equal(a, b) for a, b in zip(flipped["anime"], plain["anime"], strict=True)])
    assert 4 < int(turned.sum()) < 16
    assert torch.equal(turned, ~same)
    noisy = cut(data(noise=0.1), *range(20))
    assert torch.equal(noisy["anime"], plain["anime"])
    assert (noisy["photo"] - plain["photo"]).std() == pytest.approx(0.1, abs=0.01)


def test_frames_without_drawing_come_in_pairs_along_the_flow() -> None:
    module = data(unlabelled=True, unlabelled_frames=3)
    batch = cut(module, *range(6))
    clip = torch.stack([to_float(module.project.photo[n]) for n in range(8)])
    frames = [n for n in range(7) if n not in module.project.keys]
    padded = F.pad(clip, (6,) * 4, mode="reflect").unfold(2, 12, 1).unfold(3, 12, 1)  # (T, 3, y, x, 12, 12)
    for k in range(6):
        found = [
            n for n in frames if (padded[n] - batch["unlabelled"][k][:, None, None]).abs().amax((0, 3, 4)).min() == 0
        ]
        assert len(found) == 1
        y, x = (padded[found[0]] - batch["unlabelled"][k][:, None, None]).abs().amax((0, 3, 4)).eq(0).nonzero()[0]
        assert torch.equal(batch["following"][k], padded[found[0] + 1, :, y, x])
    carried = backward_warp(batch["following"], batch["motion"])
    seen = batch["seen"].expand_as(carried).bool()
    inner = (..., slice(3, -3), slice(3, -3))
    error = (carried - batch["unlabelled"]).abs()[inner][seen[inner]].mean()
    still = (batch["following"] - batch["unlabelled"]).abs()[inner][seen[inner]].mean()
    assert error <= still
    assert batch["style"].shape == (6, 3, 12, 12)


def test_hard_mining_continues_where_it_was() -> None:
    module = data(hard_mining=0.5)
    batch = cut(module, *range(5))
    module.observe(batch["place"], torch.tensor([9.0, 9, 9, 9, 9]))
    resumed = data(hard_mining=0.5)
    resumed.load_state_dict(module.state_dict())
    assert torch.equal(cut(module, *range(5, 60))["place"], cut(resumed, *range(5, 60))["place"])
    fresh = cut(data(hard_mining=0.5), *range(5, 60))["place"]
    assert not torch.equal(cut(module, *range(5, 60))["place"], fresh)
    plain = cut(data(), *range(5, 60))["place"]
    assert 15 < int((plain == fresh).sum()) < 45, "half of the patches are those of plain training"
    assert data().state_dict() == {}


def test_whole_frames_instead_of_patches() -> None:
    batch = cut(data(patch=None, batch_size=1), 0, 1)
    assert batch["photo"].shape == batch["anime"].shape == (2, 3, 48, 48)
    with pytest.raises(AnimegenError, match="have no context"):
        data(patch=None, context=4)


def test_the_filter_is_applied_to_what_is_trained_on_and_shown() -> None:
    module = data(prefilter=BilateralFilter(radius=1))
    frame = module.project.keys[0]
    assert not torch.equal(module.clip.photo[frame], module.project.photo[frame])
    shown = module.preview_batch(2)
    assert shown["photo"].shape == (2, 3, 48, 48)
    assert set(shown) == {"photo", "anime", "sample"}


def test_a_guide_from_files_must_be_there() -> None:
    with pytest.raises(AnimegenError, match="The project has no files for the guide"):
        data(guides={"depth": FileGuide(1)})
    photo = torch.zeros(3, 3, 48, 48, dtype=torch.uint8)
    guides = {"depth": torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 48, 48)}
    project = KeyframeProject(photo, {1: photo[1]}, guides=guides)
    module = data(project=project, guides={"depth": FileGuide(1)})
    assert int(module.clip.guide(2).max()) == 2
    assert module.test is None
    assert keyframe_benchmark(module, None, None, 4) is None, "no drawing is held out"
    with pytest.raises(AnimegenError, match=r"have 1 channels, not 3: set model\.guides\.depth\.channels=1"):
        data(project=project, guides={"depth": FileGuide(3)})


class Painter(StyliseModule):
    """Draws every frame as the photo with its colours turned round."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Identity()

    def stylize(self, frames: Tensor, state: Any = None, style: Tensor | None = None) -> tuple[Tensor, Any]:
        return -frames, state


def test_the_benchmark_scores_held_out_frames_beside_what_the_keys_give() -> None:
    module = data()
    benchmark = keyframe_benchmark(module, FeatureExtractor("squeezenet1_1", "random"), None, 4)
    assert benchmark is not None
    scores = benchmark.evaluate({"model": benchmark.method_of(Painter())})
    assert list(scores) == ["lut", "nearest_key", "flow_key", "blended_keys", "model"]
    project = module.project
    outputs = torch.stack([-to_float(project.photo[n]) for n in project.scored])
    truths = torch.stack([to_float(project.answer(n)) for n in project.scored])
    assert scores["model"]["psnr"]["n"] == 6
    assert scores["model"]["psnr"]["mean"] == pytest.approx(psnr(outputs, truths).mean().item(), abs=1e-4)
    gain = scores["flow_key"]["gain_over_nearest_key"]["mean"]
    assert gain == pytest.approx(scores["flow_key"]["psnr"]["mean"] - scores["nearest_key"]["psnr"]["mean"])
    assert scores["lut"]["gain_over_lut"]["mean"] == 0
    assert scores["model"]["warp_error_exact"]["n"] == 3, "pairs 0-1, 3-4, 4-5; 2 and 6 are keys"
    assert not any("random" in metric for metric in scores["model"])
    headers, rows = benchmark.sample_rows({"model": benchmark.method_of(Painter())}, count=2)
    assert headers == ["photo", "lut", "nearest_key", "flow_key", "blended_keys", "model", "truth"]
    assert len(rows) == 2


def test_the_truth_has_no_warping_gap() -> None:
    module = data()
    benchmark = keyframe_benchmark(module, None, None, 4)
    assert benchmark is not None
    scores = benchmark.evaluate({"perfect": lambda batch: batch["anime"]})
    assert scores["perfect"]["warp_gap_exact"]["mean"] == 0
    assert scores["perfect"]["warp_error_exact"]["mean"] > 0
    assert scores["perfect"]["warp_over_truth_exact"]["mean"] == pytest.approx(1)
    assert scores["nearest_key"]["warp_over_truth_exact"]["mean"] != pytest.approx(1, abs=0.1)
