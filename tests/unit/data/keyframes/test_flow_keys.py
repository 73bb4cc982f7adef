"""Key frames carried along the flow: where they land, how far they are trusted, and how the network rehearses it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.config.plain import plain_data
from animegen.data.keyframes import EdgeGuide, FlowKeys, KeyframeData, KeyframeProject, folder_project
from animegen.data.keyframes.carried import blended
from animegen.data.keyframes.strokes import strokes
from animegen.errors import AnimegenError
from animegen.media.images import to_float, write_image
from animegen.metrics.image import psnr
from tests.unit.data.keyframes.test_keyframe_data import cut


def panning(frames: int = 9, step: int = 2) -> Tensor:
    """A textured clip that pans by ``step`` pixels per frame, uint8 (T, 3, 64, 96)."""
    torch.manual_seed(0)
    wide = F.interpolate(torch.rand(1, 3, 8, 15), (64, 120), mode="bicubic")
    wide = (wide[0].clamp(0, 1) * 255).byte()
    return torch.stack([wide[..., step * t : step * t + 96] for t in range(frames)])


def taught(photo: Tensor, keys: list[int], drawings: Tensor | None = None, **settings: int) -> FlowKeys:
    guide = FlowKeys(**settings)
    guide.learn(photo[keys], 255 - photo[keys] if drawings is None else drawings, torch.ones(len(keys), 64, 96) > 0)
    return guide


def test_a_drawing_lands_where_its_content_has_moved_and_is_trusted_there() -> None:
    photo = panning()
    guide = taught(photo, [2])
    carried = guide.carry(to_float(photo[6])[None])
    truth, inner = 255 - photo[6], (..., slice(8, -8), slice(8, -20))
    assert psnr(to_float(carried[:3][inner])[None], to_float(truth[inner])[None]).item() > 30
    assert psnr(to_float(255 - photo[2])[None], to_float(truth)[None]).item() < 15
    confidence = carried[3].float() / 255
    assert confidence[8:-8, 8:-20].mean() > 0.9
    assert confidence[:, -10:].mean() < 0.2, "not in the key frame"
    assert (carried[4, 8:-8, 8:-20] > 200).float().mean() > 0.9, "the flows forth and back agree"
    assert carried[5, 8:-8, 8:-20].float().mean() / 16 < 4, "grey levels between the frame and the carried photo"
    assert carried[6].unique().tolist() == [255], "the only key has the whole share"
    assert torch.equal(carried[7:], guide.blank(to_float(photo[6])[None])[7:]), "a second key does not exist"
    strange = guide.carry(torch.rand(1, 3, 64, 96) * 2 - 1)
    assert strange[3].float().mean() / 255 < 0.1


def test_of_two_keys_the_more_similar_one_is_carried() -> None:
    photo = panning()
    drawings = torch.stack([torch.full((3, 64, 96), level, dtype=torch.uint8) for level in (40, 200)])
    guide = taught(photo, [0, 8], drawings)
    for frame, level in ((0, 40), (1, 40), (7, 200), (8, 200)):
        carried = guide.carry(to_float(photo[frame])[None])
        assert (carried[6, 0, 0] > carried[13, 0, 0]) == (level == 40), "the share of each key"
        blend, weights = blended(to_float(carried)[None])
        assert (blend.mean() + 1) * 127.5 == pytest.approx(level, abs=25)
        torch.testing.assert_close(weights.sum(1), torch.ones(1, 1, 64, 96))
    only = taught(photo, [0, 8], drawings, candidates=1)
    assert only.carry(to_float(photo[7])[None])[:3].unique().tolist() == [200]


def test_a_checkpoint_holds_the_keys_as_plain_data() -> None:
    photo = panning()
    guide, other, frame = taught(photo, [2, 6]), FlowKeys(), to_float(photo[4])[None]
    state = guide.state_dict()
    assert plain_data(dict(state), "a test") == dict(state)
    assert torch.equal(other.draw(None, frame), guide.blank(frame)), "without keys: the frame, not trusted"
    assert other.blank(frame)[3].max() == 0
    other.load_state_dict(state)
    assert torch.equal(other.draw(None, frame), guide.draw(None, frame))
    small = F.interpolate(frame, (32, 48), mode="area")
    assert other.draw(None, small).shape == (14, 32, 48), "a frame of another size"
    with pytest.raises(ValueError, match="damaged"):
        other.set_extra_state({name: ["AAAA"] for name in ("photos", "drawings", "masks")})


def test_a_key_is_never_rehearsed_as_a_perfect_copy() -> None:
    photo = panning()
    guide = taught(photo, [2, 6], rehearsals=2, blanks=1)
    frames = [to_float(photo[n])[None] for n in (1, 4)]
    others, near, far, blank = guide.views(0, frames)
    own = to_float(255 - photo[2])[None]
    scores = [psnr(to_float(view[:3])[None], own).item() for view in (near, far, others)]
    assert all(score < 60 for score in scores), scores
    assert min(view[3].float().mean() for view in (near, far, others)) > 100
    assert blank[3].max() == 0
    assert torch.equal(blank[:3], photo[2])


def test_patches_show_all_views_of_a_key() -> None:
    photo = panning()
    project = KeyframeProject(photo, {n: 255 - photo[n] for n in (2, 6)})
    guides = {"flow_keys": FlowKeys(rehearsals=2), "none": None, "edges": EdgeGuide()}
    module = KeyframeData(project, guides, patch=12, batch_size=4)
    assert module.patches.clip.views(2).shape == (5, 18, 64, 96)
    batch = cut(module, *range(40))
    torch.testing.assert_close(batch["photo"], -batch["anime"], atol=1e-6, rtol=0)
    blank = (batch["guide"][:, 3] == -1).all(2).all(1) & (batch["guide"][:, :3] == batch["photo"]).all(3).all(2).all(1)
    assert 8 < int(blank.sum()) < 26, "two of five views"
    assert torch.equal(module.val[0]["guide"][:3], module.clip.guide(module.val.numbers[0])[:3])  # type: ignore


@pytest.mark.parametrize("wrong", [{"candidates": 0}, {"rehearsals": -1}, {"blanks": -1}])
def test_settings_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(AnimegenError, match="flow_keys guide needs"):
        FlowKeys(**wrong)


def test_strokes_move_with_the_content() -> None:
    photo = panning(frames=4)
    painted = strokes(photo)
    assert torch.equal(painted, strokes(photo))
    assert painted.shape == photo.shape
    assert (painted[0].float() - photo[0].float()).abs().mean() > 8
    moved = (painted[3, :, 8:-8, 8:-30].float() - painted[0, :, 8:-8, 14:-24].float()).abs().mean()
    fresh = strokes(photo[3:])[0, :, 8:-8, 8:-30].float()
    assert moved < 0.6 * (fresh - painted[0, :, 8:-8, 14:-24].float()).abs().mean(), "the same frame painted alone"


def test_keys_of_a_folder_are_carried_scaled_masked_and_from_any_format(tmp_path: Path) -> None:
    photo = panning()
    for n, frame in enumerate(photo):
        write_image(tmp_path / "frames" / f"{n:03d}.png", frame)
    flat = torch.full((3, 64, 96), 200, dtype=torch.uint8)
    write_image(tmp_path / "keys" / "002.jpg", flat)
    write_image(tmp_path / "keys" / "006.png", F.interpolate(255 - flat[None], (32, 48))[0])
    mask = torch.zeros(3, 64, 96, dtype=torch.uint8)
    mask[..., :48] = 255
    write_image(tmp_path / "masks" / "002.png", mask)
    with pytest.raises(AnimegenError, match="006"):
        folder_project(tmp_path)
    module = KeyframeData(folder_project(tmp_path, resize=True), {"flow_keys": FlowKeys()}, patch=12, batch_size=4)
    guide = module.clip.guide(3)
    assert guide[:3, 8:-8, 8:40].float().mean() == pytest.approx(200, abs=3), "the JPEG file"
    assert guide[7:10, 8:-8, 8:-20].float().mean() == pytest.approx(55, abs=1), "the smaller PNG file"
    trusted = guide[3, 8:-8].float().mean(0) / 255
    assert trusted[8:40].min() > 0.5, "inside the mask, which has moved"
    assert trusted[52:].max() == 0, "outside"
    assert cut(module, 0, 1)["guide"].shape == (2, 14, 12, 12)
