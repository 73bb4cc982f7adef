"""A transformer that reads pixels and predicts motion, and a renderer that learns from its predictions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from animegen.data.clips import ClipsView, MovingDigits
from animegen.engine.checkpoint import read_checkpoint
from animegen.engine.objective import Objective
from animegen.errors import AnimegenError
from animegen.losses import L1
from animegen.models.ganime import Ganime
from animegen.models.ganime.codes import CodeTable
from animegen.models.ganime.networks import CodeTransformer, Tokenizer
from animegen.models.ganime.networks.pixels import PairFeatures, PixelContext, correlation
from animegen.models.ganime.networks.tokens import BETWEEN, FIRST, LAST, MASK, MASKED
from animegen.models.ganime.rendering import (
    confidence_of,
    expected_clip,
    make_guide,
    make_start,
    predicted_renderings,
    render,
)
from animegen.nn.inbetween import IFNet
from animegen.tasks.protocols import Sampling
from tests.support import assert_same_state, train

CODES = 24
PIXELS = {"channels": 8, "hidden": 16, "radius": 2}


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
    given: dict[str, Any] = {"decoding": "clip_mask", "steps": 1, "pixels": PIXELS, "motion": True, "divisor": 4}
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
    assert [x.shape for x in ours] == [(1, 6, 2, 2)] * 3
    torch.testing.assert_close(ours[0], back[1])
    torch.testing.assert_close(ours[1], back[0])
    assert PairFeatures(6, 4, 8, 16, 2)(first, last, torch.zeros(1, 12, 4, 4))[2].shape == (1, 6, 4, 4)
    for divisor in (2, 12):
        with pytest.raises(AnimegenError, match=f"represent {divisor}x{divisor} pixels"):
            PairFeatures(6, divisor)


def test_a_token_gets_the_features_of_its_frame_and_place() -> None:
    first, last, between = (torch.arange(4.0).view(1, 1, 2, 2) + 10 * n for n in (1, 2, 3))
    context = PixelContext(first, last, between)
    positions = torch.tensor([[0, 0, 0], [4, 0, 1], [0, 1, 0], [2, 1, 1]])
    segments = torch.tensor([BETWEEN, LAST, FIRST, MASKED])
    assert context.at(positions, segments, 2).flatten(1).tolist() == [[0.0, 21.0, 12.0, 33.0]] * 2


def test_the_transformer_needs_the_pixels_and_uses_them() -> None:
    network = transformer()
    first, last = frames(4).chunk(2)
    codes = clips()
    found = network(codes, images=(first, last))
    assert found["motion"].shape == (len(found["targets"]), 5)
    other = network(codes, images=(first, last.flip(-1)))
    assert not torch.allclose(found["logits"], other["logits"], atol=1e-3)
    with pytest.raises(AnimegenError, match="reads the pixels of the given frames"):
        network(codes)
    for wrong in ({"decoding": "prefix_ar", "steps": None}, {"end_dropout": 0.1}, {"key_frames": 0.1}):
        with pytest.raises(AnimegenError, match="need decoding=clip_mask"):
            transformer(**wrong)
    # An untrained head predicts no motion.
    torch.manual_seed(0)
    plain = CodeTransformer(CODES, (4, 4), 9, 1, 2, 16, "clip_mask", motion=True)
    assert plain.motion is not None
    assert float(plain.motion.weight.abs().sum() + plain.motion.bias.abs().sum()) == 0


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
    assert motion.shape == (2, 3, 4, 4, 5)
    given = {0: images[0], 4: images[1]}
    made = network.generate(codes[:, 0], codes[:, -1], 5, Sampling(greedy=True), images=given)
    assert torch.equal(made[:, 1:-1], probabilities.argmax(-1))
    # As in training with all codes masked.
    network.strategy.full = 1.0  # type: ignore[attr-defined]
    trained = network(codes, images=images)
    torch.testing.assert_close(trained["logits"].softmax(-1), probabilities.flatten(0, 3), atol=1e-5, rtol=1e-4)
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


def test_the_motion_of_codes_is_where_the_flow_starts() -> None:
    start = make_start(torch.tensor([0.5, 0, 0.25, 0, 2.0]).expand(1, 2, 3, 5), (16, 24))
    assert start.shape == (1, 5, 16, 24)
    assert start[0, :, 3, 4].tolist() == [4.0, 0, 2.0, 0, 2.0]
    # An untrained renderer moves the frames along it: a quarter of the motion from the first, the rest to the last.
    network = IFNet([2, 1], [8, 8], 2, 1, [])
    ramp = torch.arange(16.0).view(1, 1, 1, -1).expand(1, 3, 16, 16) / 8 - 1
    flow = torch.tensor([4.0, 0, 8, 0, 100]).view(1, 5, 1, 1).expand(1, 5, 16, 16)
    output = network(ramp, torch.zeros_like(ramp), torch.tensor([0.25]), start=flow)
    assert output.extra["flow"][0, :, 8, 8].tolist() == [1.0, 0, 6.0, 0]
    assert float(output.image[0, 0, 8, 8].detach()) == pytest.approx(
        9 / 8 - 1, abs=1e-5
    )  # the mask chooses the first frame
    zero = network(ramp, -ramp, torch.tensor([0.5]), start=torch.zeros(1, 5, 16, 16)).image
    assert torch.equal(zero, network(ramp, -ramp, torch.tensor([0.5])).image)


def test_certain_predictions_are_rendered_as_true_codes_and_cross_fades_with_no_confidence() -> None:
    network, codes = tokenizer(), clips(2, 4)
    shown = frames(8).view(2, 4, 3, 16, 16)
    images = (shown[:, 0], shown[:, -1], shown[:, 1:-1])
    clip, frame, cell = torch.cartesian_prod(torch.arange(2), torch.tensor([1, 2]), torch.arange(16)).unbind(1)
    targets = codes.flatten(2)[clip, frame, cell]
    logits = nn.functional.one_hot(targets, CODES) * 100.0
    found = {"logits": logits, "clip": clip, "frame": frame, "cell": cell, "motion": torch.randn(len(clip), 5)}
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
    certain = predicted_renderings(network, codes, found | {"motion": torch.zeros(len(clip), 5)}, images, 4, (0.0, 0.0))
    order = [
        int(((shown - real).abs().flatten(2).sum(2) == 0).nonzero()[0] @ torch.tensor([4, 1]))
        for real in certain["real"]
    ]
    true = expected[0.0, 1.0].flatten(0, 1)[order]
    torch.testing.assert_close(certain["rendered"].clamp(-1, 1), true, atol=1e-4, rtol=1e-4)


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
    for part in (found.transformer.head, found.transformer.motion, found.transformer.pixels, found.tokenizer.renderer):  # type: ignore[union-attr]
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters() if p.ndim > 1)  # type: ignore[union-attr]
    others = {name: p for name, p in found.tokenizer.named_parameters() if not name.startswith("renderer.")}
    assert all(p.grad is None and not p.requires_grad for p in others.values())


def test_a_dropped_guide_is_the_cross_fade_without_confidence() -> None:
    objective = Objective(rendered={"loss": L1(), "reads": {"image": "rendered", "reference": "real"}})
    found = model(guide_dropout=1.0, objectives={"tokenizer": objective}).eval()
    shown = frames(6)
    batch = {"frame": shown[:2], "first": shown[2:4], "last": shown[4:], "t": torch.tensor([0.25, 0.5])}
    rendered = found._rendered(found.tokenizer(batch["frame"]).image, batch)
    decoded = [found.tokenizer.decode(found.tokenizer.encode(batch[name])) for name in ("first", "last")]
    for number, place in ((0, 1), (1, 2)):
        first, last = (part[number : number + 1] for part in decoded)
        fade = torch.stack([torch.lerp(first, last, n / 4) for n in range(5)], 1)
        given = {0: batch["first"][number : number + 1], 4: batch["last"][number : number + 1]}
        expected = render(found.tokenizer, fade, given, 0.0)[0, place]
        torch.testing.assert_close(rendered[number].clamp(-1, 1), expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(AnimegenError, match=r"set model\.joint_start=null"):
        Ganime(tokenizer(), None, joint_start=2)


def test_a_greedy_clip_is_rendered_from_expectations_and_a_sampled_one_from_codes() -> None:
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
    assert not torch.allclose(sampled, clip, atol=1e-3)
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
