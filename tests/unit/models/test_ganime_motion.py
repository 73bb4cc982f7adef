"""A transformer that reads pixels and predicts motion, and a renderer that learns from its predictions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from animegen.data.clips import ClipsView, MovingDigits, ToonWorldFrames
from animegen.engine.checkpoint import read_checkpoint
from animegen.engine.objective import Objective
from animegen.errors import AnimegenError
from animegen.losses import L1
from animegen.media.images import to_float
from animegen.metrics.image import psnr
from animegen.models.ganime import Ganime
from animegen.models.ganime.codes import CodeTable
from animegen.models.ganime.motion import make_start, motion_entries, warped_by
from animegen.models.ganime.networks import CodeTransformer, Tokenizer
from animegen.models.ganime.networks.motion import MotionHead
from animegen.models.ganime.networks.pixels import PairFeatures, PairMaps, PixelContext, correlation
from animegen.models.ganime.networks.tokens import BETWEEN, FIRST, LAST, MASK, MASKED
from animegen.models.ganime.rendering import (
    confidence_of,
    decode,
    expected_clip,
    make_guide,
    predicted_renderings,
    render,
)
from animegen.nn.inbetween import IFNet
from animegen.tasks.protocols import Sampling
from animegen.toonworld import BORDER, VISIBLE
from tests.support import assert_same_state, train

CODES = 24
PIXELS = {"channels": 8, "hidden": 16, "radius": 2}
MOTION = {"hidden": 16, "steps": 1, "radius": 1}


def tokenizer(guide: int = 10) -> Tokenizer:
    torch.manual_seed(0)
    renderer = IFNet([2, 1], [8, 8], 2, 1, [8, 8], guide=guide)
    with torch.no_grad():  # one that no longer draws the cross-fade
        for parameter in renderer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    quantizer = {"dim": 4, "codes": CODES, "kmeans": False}
    return Tokenizer(8, [1, 2], 1, [], 16, quantizer, groups=4, patch=2, renderer=renderer).eval()


def transformer(**settings: Any) -> CodeTransformer:
    torch.manual_seed(1)
    given: dict[str, Any] = {"decoding": "clip_mask", "steps": 1, "pixels": PIXELS, "motion": MOTION, "divisor": 4}
    made = CodeTransformer(CODES, (4, 4), max_frames=9, layers=1, heads=2, dim=16, **(given | settings))
    for parameter in made.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return made.eval()


def frames(count: int) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(count)) * 2 - 1


def clips(batch: int = 2, length: int = 5) -> Tensor:
    return torch.randint(CODES, (batch, length, 4, 4), generator=torch.Generator().manual_seed(3))


# --- pixels -------------------------------------------------------------------------------------------------------


def test_the_correlation_is_the_cosine_with_each_place_of_the_window() -> None:
    own, other = torch.randn(2, 1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    found = correlation(own, other, 1)
    assert found.shape == (1, 9, 4, 5)
    for row, column, down, right in ((1, 2, 0, 0), (2, 3, -1, 1), (1, 1, 1, -1)):
        a, b = own[0, :, row, column], other[0, :, row + down, column + right]
        expected = nn.functional.cosine_similarity(a, b, 0) * math.sqrt(3)
        assert found[0, 3 * (down + 1) + right + 1, row, column] == pytest.approx(float(expected), abs=1e-5)
    assert float(found[0, 0, 0, 0]) == 0  # outside of the map


def test_pair_features_have_the_size_of_the_codes_and_treat_both_frames_alike() -> None:
    network = PairFeatures(6, 8, 8, 16, 2).eval()
    first, last = frames(2)[:1], frames(2)[1:]
    codes = torch.zeros(1, 12, 2, 2)
    ours, back = network(first, last, codes), network(last, first, codes)
    assert [x.shape for x in ours[:3]] == [(1, 6, 2, 2)] * 3
    assert [x.shape for x in ours[3]] == [(1, 8, 4, 4)] * 2 + [(1, 16, 4, 4)] * 2 + [(1, 4, 8, 8)] * 2
    torch.testing.assert_close(ours[0], back[1])
    torch.testing.assert_close(ours[1], back[0])
    assert PairFeatures(6, 4, 8, 16, 2)(first, last, torch.zeros(1, 12, 4, 4))[2].shape == (1, 6, 4, 4)
    for divisor in (2, 12):
        with pytest.raises(AnimegenError, match=f"represent {divisor}x{divisor} pixels"):
            PairFeatures(6, divisor)


def test_a_token_gets_the_features_of_its_frame_and_place() -> None:
    first, last, between = (torch.arange(4.0).view(1, 1, 2, 2) + 10 * n for n in (1, 2, 3))
    context = PixelContext(first, last, between, PairMaps(*[first] * 6))
    positions = torch.tensor([[0, 0, 0], [4, 0, 1], [0, 1, 0], [2, 1, 1]])
    segments = torch.tensor([BETWEEN, LAST, FIRST, MASKED])
    assert context.at(positions, segments, 2).flatten(1).tolist() == [[0.0, 21.0, 12.0, 33.0]] * 2


def test_the_transformer_needs_the_pixels_and_uses_them() -> None:
    network = transformer()
    first, last = frames(4).chunk(2)
    codes = clips()
    found = network(codes, images=(first, last))
    # Two estimates at a quarter of the size, one at half.
    assert [part.shape for part in found["motion"]] == [(2, 3, 5, 4, 4)] * 2 + [(2, 3, 5, 8, 8)]
    assert found["motion_frames"].tolist() == [1, 2, 3]
    other = network(codes, images=(first, last.flip(-1)))
    assert not torch.allclose(found["logits"], other["logits"], atol=1e-3)
    with pytest.raises(AnimegenError, match="reads the pixels of the given frames"):
        network(codes)
    for wrong in ({"decoding": "prefix_ar", "steps": None}, {"end_dropout": 0.1}, {"key_frames": 0.1}):
        with pytest.raises(AnimegenError, match="need decoding=clip_mask"):
            transformer(**wrong)
    # An untrained head predicts no motion.
    plain = CodeTransformer(CODES, (4, 4), 9, 1, 2, 16, "clip_mask", pixels=PIXELS, motion=MOTION, divisor=4)
    assert all(part.abs().sum() == 0 for part in plain(codes, images=(first, last))["motion"])
    with pytest.raises(AnimegenError, match="set pixels=, too"):
        CodeTransformer(CODES, (4, 4), 9, 1, 2, 16, "clip_mask", motion=MOTION)


def test_full_masks_and_some_frames_only_in_training() -> None:
    codes = clips(8, 9)
    images = (frames(16)[:8], frames(16)[8:])
    network = transformer(full=1.0, train_frames=2).train()
    torch.manual_seed(0)
    batch = network.training_batch(codes)
    assert batch.predicted is not None
    assert batch.predicted.all()
    assert batch.predicted.shape == (8, 2 * 16)
    assert (batch.tokens.ids[:, -32:] == CODES + MASK).all()
    drawn = {tuple(network.training_batch(codes).frame.unique().tolist()) for _ in range(8)}
    assert len(drawn) > 1
    found = network(codes, images=images)
    assert torch.equal(
        found["targets"], codes[found["clip"], found["frame"]].flatten(1).gather(1, found["cell"][:, None])[:, 0]
    )
    assert network.eval().training_batch(codes).frame.unique().tolist() == list(range(1, 8))
    with pytest.raises(AnimegenError, match=r"full=2 must be from 0 to 1"):
        transformer(full=2)


def test_one_greedy_pass_takes_the_most_likely_of_the_expected_codes() -> None:
    network = transformer()
    codes, images = clips(), (frames(4)[:2], frames(4)[2:])
    probabilities, motion = network.expect(codes[:, 0], codes[:, -1], 5, images)
    assert probabilities.shape == (2, 3, 4, 4, CODES)
    assert motion is not None
    assert motion.shape == (2, 3, 5, 8, 8)
    given = {0: images[0], 4: images[1]}
    made = network.generate(codes[:, 0], codes[:, -1], 5, Sampling(greedy=True), images=given)
    assert torch.equal(made[:, 1:-1], probabilities.argmax(-1))
    # As in training with all codes masked.
    network.strategy.full = 1.0  # type: ignore[attr-defined]
    trained = network(codes, images=images)
    torch.testing.assert_close(trained["logits"].softmax(-1), probabilities.flatten(0, 3), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(trained["motion"][-1], motion, atol=1e-2, rtol=1e-2)
    with pytest.raises(AnimegenError, match="use clip_mask"):
        CodeTransformer(CODES, (4, 4), 9, 1, 2, 16).expect(codes[:, 0], codes[:, -1], 5)


# --- the renderer ---------------------------------------------------------------------------------------------------


def test_confidence_is_one_for_a_certain_code_and_a_share_for_several() -> None:
    probabilities = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25] * 4])
    assert confidence_of(probabilities).tolist() == pytest.approx([1.0, 0.5, 0.25])


def test_the_guide_has_a_channel_of_confidence_if_the_renderer_reads_it() -> None:
    pictures = [torch.full((1, 3, 4, 4), float(n)) for n in range(3)]
    guide = make_guide(IFNet(guide=10), pictures[0], pictures[1:], torch.tensor([[[[0.0, 1.0]]]]))
    assert guide[0, :, 0, 0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 0]
    assert guide[0, 9, 3].tolist() == pytest.approx([0, 0.25, 0.75, 1])
    assert make_guide(IFNet(guide=10), pictures[0], pictures[1:], 0.5)[0, 9].unique().tolist() == [0.5]
    assert make_guide(IFNet(guide=9), pictures[0], pictures[1:], 0.5).shape == (1, 9, 4, 4)


def test_the_motion_takes_the_place_of_the_first_stage_of_the_renderer() -> None:
    start = make_start(torch.tensor([2.0, 0, 1, 0, 2.0]).view(1, 5, 1, 1).expand(1, 5, 2, 3), (16, 24))
    assert start.shape == (1, 5, 16, 24)
    assert start[0, :, 3, 4].tolist() == [2.0, 0, 1.0, 0, 2.0]
    # An untrained renderer moves the frames along it: a quarter of the motion from the first, the rest to the last.
    network = IFNet([2, 1], [8, 8], 2, 1, [])
    ramp = torch.arange(16.0).view(1, 1, 1, -1).expand(1, 3, 16, 16) / 8 - 1
    flow = torch.tensor([4.0, 0, 8, 0, 100]).view(1, 5, 1, 1).expand(1, 5, 16, 16)
    t = torch.tensor([0.25])
    output = network(ramp, torch.zeros_like(ramp), t, start=flow)
    assert output.extra["flow"][0, :, 8, 8].tolist() == [1.0, 0, 6.0, 0]
    # The mask chooses the first frame.
    assert float(output.image[0, 0, 8, 8].detach()) == pytest.approx(9 / 8 - 1, abs=1e-5)
    torch.testing.assert_close(warped_by(flow, ramp, torch.zeros_like(ramp), t), output.image.detach())
    with torch.no_grad():
        for parameter in network.pyramid.stages[0].parameters():
            parameter.add_(1.0)  # not read
    assert torch.equal(network(ramp, torch.zeros_like(ramp), t, start=flow).image, output.image)


def test_pixel_shuffle_places_the_channels_of_a_code_by_row_and_column() -> None:
    head = MotionHead(4, 8, channels=4, matched=4, hidden=8, steps=1, radius=1)
    vectors = torch.arange(32.0).view(1, 32, 1, 1)  # of one code: four values for each of eight channels
    assert head.shuffle(vectors)[0, 2].tolist() == [[8.0, 9.0], [10.0, 11.0]]


def test_the_true_flow_leads_to_the_same_place_of_a_known_scene() -> None:
    clips = ToonWorldFrames("meadow", "train", 2, 6, 32)
    view = ClipsView(clips, 32, lengths=[5], reverse=True)
    view.frames_until, view.piece_images = 0, "all"
    scene = clips.images.scene(6)
    shown = torch.tensor([[4, 3, 2, 1, 0]])
    batch = {"clip": torch.tensor([1]), "frames": shown, "mirror": torch.tensor([0])}
    flow, seen = view.motion(batch, [1, 3])
    assert flow.shape == (2, 4, 32, 32)
    assert seen.shape == (2, 2, 32, 32)
    # The second sample is frame 1 of the scene, and the piece runs backwards from 4 to 0.
    assert torch.equal(flow[1], torch.from_numpy(np.concatenate([scene.flow(1, 4), scene.flow(1, 0)])))
    exact = torch.from_numpy(scene.visibility(1, 4))
    # Exact but for pixels of which the part shows less than half in the other frame, or just more.
    clear = exact != BORDER
    assert (seen[1, 0] == (exact == VISIBLE))[clear].float().mean() > 0.9
    turned, mirrored = view.motion(batch | {"mirror": torch.tensor([1])}, [3])
    assert torch.equal(turned[0, 0], -flow[1, 0].flip(-1))
    assert torch.equal(turned[0, 3], flow[1, 3].flip(-1))
    assert torch.equal(mirrored[0], seen[1].flip(-1))
    # As a prediction its error is 0, and both warped frames are like the true one.
    pictures = to_float(torch.stack([clips.load(1, n) for n in shown[0].tolist()]))
    batch |= {"first": pictures[:1], "last": pictures[-1:], "truth": pictures[None, 1:-1]}
    t = torch.tensor([0.25, 0.75])
    motion = torch.cat([flow[:, :2] / t.view(2, 1, 1, 1), flow[:, 2:] / (1 - t).view(2, 1, 1, 1)], 1)
    motion = torch.cat([motion, torch.zeros(2, 1, 32, 32)], 1)[None]
    made = {"motion": [motion * 0, motion], "motion_frames": torch.tensor([1, 3])}
    entries = motion_entries(made, batch, view)
    flows, frames_ = entries["flow"](), entries["warped"]()
    torch.testing.assert_close(flows["flow"][2:], flows["true_flow"][2:], atol=1e-4, rtol=1e-4)
    assert float(flows["flow"][:2].abs().sum()) == 0
    # The same way from the first to the last frame, in uniform motion.
    way = [target[:, 2:] - target[:, :2] for target in (flows["true_flow"], flows["uniform_flow"])]
    in_sight = seen.all(1, keepdim=True).repeat(2, 2, 1, 1)
    torch.testing.assert_close(way[0][in_sight], way[1][in_sight])
    torch.testing.assert_close(flows["uniform_flow"][0, :2][:, seen[0].all(0)], (-way[0][0] / 4)[:, seen[0].all(0)])
    hidden = ~seen[1, 0]
    torch.testing.assert_close(flows["true_flow"][1, 0][hidden], 0.2 * flow[1, 0][hidden])
    fade = torch.stack([torch.lerp(pictures[0], pictures[-1], n) for n in t.tolist()])
    assert psnr(frames_["warped"], frames_["between"]).mean() > psnr(fade, frames_["between"]).mean() + 1
    digits = ClipsView(MovingDigits(None, "train", 3, 6, 16), 16, lengths=[5])
    with pytest.raises(AnimegenError, match=r"known of data=clips/toonworld only"):
        digits.motion(batch, [1])
    small = ClipsView(clips, 16, lengths=[5])
    with pytest.raises(AnimegenError, match=r"in frames of 32x32, and the view shows 16x16"):
        small.motion(batch, [1])


def test_certain_predictions_are_rendered_as_true_codes_and_cross_fades_with_no_confidence() -> None:
    network, codes = tokenizer(), clips(2, 4)
    shown = frames(8).view(2, 4, 3, 16, 16)
    images = (shown[:, 0], shown[:, -1], shown[:, 1:-1])
    clip, frame, cell = torch.cartesian_prod(torch.arange(2), torch.tensor([1, 2]), torch.arange(16)).unbind(1)
    targets = codes.flatten(2)[clip, frame, cell]
    logits = nn.functional.one_hot(targets, CODES) * 100.0
    found = {"logits": logits, "clip": clip, "frame": frame, "cell": cell}
    found |= {"motion": [torch.randn(2, 2, 5, 8, 8)], "motion_frames": torch.tensor([1, 2])}
    decoded = torch.stack([network.decode(c) for c in codes])
    given = {0: images[0], 3: images[1]}
    faded = torch.stack([torch.lerp(decoded[:, 0], decoded[:, 3], n / 3) for n in range(4)], 1)
    expected = {
        (0.0, 1.0): render(network, decoded, given),  # true codes: neither probabilities nor motion count
        (1.0, 0.0): render(network, faded, given, 0.0),
    }
    for shares, clean in expected.items():
        drawn = predicted_renderings(network, codes, found, images, 4, shares)
        order = [
            int(((shown - real).abs().flatten(2).sum(2) == 0).nonzero()[0] @ torch.tensor([4, 1]))
            for real in drawn["real"]
        ]
        assert sorted(order) == [1, 2, 5, 6]
        torch.testing.assert_close(drawn["rendered"].clamp(-1, 1), clean.flatten(0, 1)[order], atol=1e-4, rtol=1e-4)
    certain = predicted_renderings(network, codes, found, images, 4, (0.0, 0.0))
    order = [
        int(((shown - real).abs().flatten(2).sum(2) == 0).nonzero()[0] @ torch.tensor([4, 1]))
        for real in certain["real"]
    ]
    motion = dict(enumerate(found["motion"][0].unbind(1), 1))
    true = render(network, decoded, given, motion=motion).flatten(0, 1)[order]
    torch.testing.assert_close(certain["rendered"].clamp(-1, 1), true, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(true, expected[0.0, 1.0].flatten(0, 1)[order], atol=1e-3)


# --- the third stage ------------------------------------------------------------------------------------------------


def model(**settings: Any) -> Ganime:
    reads = {"input": "logits", "target": "targets"}
    terms = {
        "codes": {"loss": nn.CrossEntropyLoss(), "reads": reads},
        "rendered": {"loss": L1(), "reads": {"image": "rendered", "reference": "real"}},
    }
    optimizers = {name: torch.optim.Adam for name in ("tokenizer", "transformer", "joint")}
    given: dict[str, Any] = {"frame_size": (16, 16), "tokenizer_steps": 1, "joint_start": 2, "expected_guide": True}
    given |= {"objectives": {"joint": Objective(**terms)}, "sampling": {"greedy": True}, "optimizers": optimizers}
    return Ganime(tokenizer(), transformer(full=1.0), **(given | settings))


def test_the_third_stage_trains_transformer_and_renderer_and_nothing_else() -> None:
    found = model(joint_shares=(0.0, 0.0))
    found.transformer_start, found.train_step = 1, 2
    found.start_step()
    found.train()
    assert list(found.networks()) == ["tokenizer", "transformer"]
    assert {id(p) for p in found.network("joint").parameters()} == {
        id(p)
        for part in (found.transformer, found.tokenizer.renderer)
        for p in part.parameters()  # type: ignore[union-attr]
    }
    found.table = CodeTable(torch.randint(CODES, (2, 12, 4, 4), dtype=torch.int16), torch.tensor([6, 6]))
    shown = frames(10).view(2, 5, 3, 16, 16)
    batch = {"clip": torch.tensor([0, 1]), "mirror": torch.tensor([0, 1]), "frames": torch.arange(5).expand(2, 5)}
    batch |= {"first": shown[:, 0], "last": shown[:, -1], "truth": shown[:, 1:-1]}
    ((name, bound),) = list(found.updates(batch))
    assert name == "joint"
    total, values = bound.compute()
    torch.testing.assert_close(total, values["codes"] + values["rendered"])
    values["rendered"].backward()
    # With motion for all frames, the first stage of the renderer is not used.
    for part in (found.transformer.head, found.transformer.motion, found.transformer.pixels, found.tokenizer.renderer):  # type: ignore[union-attr]
        used = {n: p for n, p in part.named_parameters() if p.ndim > 1 and not n.startswith("pyramid.stages.0.")}  # type: ignore[union-attr]
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in used.values())
    others = {name: p for name, p in found.tokenizer.named_parameters() if not name.startswith("renderer.")}
    assert all(p.grad is None and not p.requires_grad for p in others.values())


def test_training_together_needs_transformer_and_renderer() -> None:
    with pytest.raises(AnimegenError, match=r"set model\.joint_start=null"):
        Ganime(tokenizer(), None, joint_start=2)


def test_a_greedy_clip_is_rendered_from_expectations_a_sampled_one_from_codes_both_from_the_motion() -> None:
    found = model().eval()
    found.transformer_start = 1
    first, last = frames(2)[:1], frames(2)[1:]
    clip = found.generate(first, last, 5)
    codes = {number: found.tokenizer.encode(image) for number, image in ((0, first), (4, last))}
    assert found.transformer is not None
    decoded, confidence, motion = expected_clip(found.tokenizer, found.transformer, codes, {0: first, 4: last})
    assert confidence[0, [0, -1]].unique().tolist() == [1.0]
    expected = render(found.tokenizer, decoded, {0: first, 4: last}, confidence, motion)
    torch.testing.assert_close(clip, expected)
    torch.testing.assert_close(found.between(first, last, torch.tensor([[0.25, 0.5]])), clip[:, 1:3])
    sampled = found.generate(first, last, 5, Sampling(seed=3))
    drawn = found.transformer.generate(codes[0], codes[4], 5, Sampling(seed=3), images={0: first, 4: last})
    decoded = decode(found.tokenizer, drawn)
    moved = render(found.tokenizer, decoded, {0: first, 4: last}, motion=motion)
    torch.testing.assert_close(sampled, moved, atol=1e-6, rtol=0)
    assert (clip - moved).abs().max() > 1e-4
    assert (render(found.tokenizer, decoded, {0: first, 4: last}) - moved).abs().max() > 1e-3
    # With a key frame each stretch is a clip of its own.
    keyed = found.generate(first, last, 5, keys={2: frames(1)})
    torch.testing.assert_close(keyed[:, :3], found.generate(first, frames(1), 3))


def test_pieces_come_with_their_images_if_the_model_reads_them() -> None:
    view = ClipsView(MovingDigits(None, "train", 3, 6, 16), 16, lengths=[5], reverse=True)
    view.frames_until = 0
    assert set(view[3]) == {"clip", "frames", "mirror", "sample"}
    for number in range(6):
        view.piece_images = "all"
        sample = view[number]
        whole = torch.stack([view.clips.load(int(sample["clip"]), int(n)) for n in sample["frames"]])  # type: ignore[misc]
        whole = whole.flip(-1) if sample["mirror"] else whole
        assert torch.equal(torch.cat([sample["first"][None], sample["truth"], sample["last"][None]]), whole)
        view.piece_images = "ends"
        assert set(view[number]) == {"clip", "frames", "mirror", "sample", "first", "last"}


def test_a_run_passes_through_three_stages_and_continues_in_the_last(tmp_path: Path) -> None:
    words = ("experiment=ganime/motion", "data.lengths=[3]", "data.scenes=2", "model.transformer.layers=1")
    kept = ("callbacks.checkpoints.every=1", "callbacks.checkpoints.keep=-1", "callbacks.previews.every=100")
    steps = ("train_steps=5", "model.tokenizer_steps=1", "model.joint_start=3")
    whole = train(*words, *kept, *steps, output=tmp_path / "whole")
    at = {step: read_checkpoint(whole / f"checkpoints/step-000000{step}.ckpt") for step in (2, 3, 4, 5)}

    def moved(step: int) -> set[str]:
        before, after = at[step - 1]["state_dict"], at[step]["state_dict"]
        names = {k for k, v in after.items() if isinstance(v, Tensor) and not torch.equal(v, before[k])}
        return {"renderer" if "renderer." in name else name.split(".")[0] for name in names}

    assert moved(3) == {"transformer"}
    assert moved(4) == moved(5) == {"transformer", "renderer"}
    for step in (2, 4):
        resumed = train(f"resume={whole}/checkpoints/step-000000{step}.ckpt", output=tmp_path / f"from{step}")
        assert_same_state(read_checkpoint(resumed), at[5])
