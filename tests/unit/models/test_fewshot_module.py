"""Few-shot training: losses by hand, one forward pass per step, and drawing as a stream."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from animegen.config.instantiate import build
from animegen.data.keyframes import CoordinateGuide, EdgeGuide, FileGuide, FlowKeys, GaussGuide, Guides
from animegen.errors import AnimegenError
from animegen.media.images import to_float
from animegen.models.fewshot import FewShot
from animegen.models.fewshot.losses import FeatureMSE, FrameDifference, MaskedL1
from animegen.models.fewshot.networks import FewShotGenerator
from tests.support import composed


def batch(side: int = 16, margin: int = 0, **more: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(0)
    wide = side + 2 * margin
    pictures = {"photo": torch.rand(5, 3, wide, wide) * 2 - 1, "anime": torch.rand(5, 3, side, side) * 2 - 1}
    return {**pictures, "other": torch.rand(5, 3, side, side) * 2 - 1, **more}


def model(*words: str) -> Any:
    given = ("model=fewshot", "size=tiny", "features=none", "~model.objectives.generator.vgg")
    return build(composed(*given, *words)["model"], "model")


def test_feature_mse_counts_every_value_once() -> None:
    a = {"x": torch.zeros(1, 1, 2, 2), "y": torch.zeros(1, 1, 1, 1)}
    b = {"x": torch.full((1, 1, 2, 2), 2.0), "y": torch.full((1, 1, 1, 1), 3.0)}
    assert FeatureMSE(["x", "y"])(a, b).item() == pytest.approx((4 * 4 + 9) / 5)


def test_frame_difference_is_0_for_a_constant_recolouring() -> None:
    photo, following = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    loss = FrameDifference()
    assert loss(photo + 0.3, following + 0.3, photo, following).item() == pytest.approx(0, abs=1e-6)
    assert loss(photo, photo, photo, photo + 0.5).item() == pytest.approx(0.5)


def test_masked_l1_looks_only_where_the_mask_is() -> None:
    image, reference = torch.zeros(1, 2, 1, 2), torch.tensor([[[[1.0, 5.0]], [[3.0, 5.0]]]])
    assert MaskedL1()(image, reference, torch.tensor([[[[1.0, 0.0]]]])).item() == pytest.approx(2.0)
    assert MaskedL1()(image, reference, torch.zeros(1, 1, 1, 2)).item() == 0


def test_the_loss_is_4_l1_and_half_lsgan_and_the_generator_runs_once() -> None:
    module = model()
    calls = []
    module.generator.register_forward_hook(lambda *_: calls.append(1))
    data = batch()
    updates = dict(module.updates(data))
    total, terms = updates["generator"].compute()
    fake = module.generator(data["photo"])
    l1 = (fake - data["anime"]).abs().mean()
    gan = (module.discriminator(fake) - 1).square().mean()
    assert terms["l1"].item() == pytest.approx(l1.item(), rel=1e-4)
    assert total.item() == pytest.approx((4 * l1 + 0.5 * gan).item(), rel=1e-4)
    judged, _ = updates["discriminator"].compute()
    real = (module.discriminator(data["other"]) - 1).square().mean()
    assert judged.item() == pytest.approx((real + module.discriminator(fake).square().mean()).item(), rel=1e-4)
    assert len(calls) == 2, "one of the step, one of this test"


def test_context_is_drawn_but_not_compared() -> None:
    module = model().eval()
    data = batch(margin=4)
    _, terms = dict(module.updates(data))["generator"].compute()
    inner = module.generator(data["photo"])[..., 4:-4, 4:-4]
    assert terms["l1"].item() == pytest.approx((inner - data["anime"]).abs().mean().item(), rel=1e-5)


def test_frames_without_drawing_are_drawn_only_for_terms_that_read_them() -> None:
    shapes = []
    still = torch.rand(5, 3, 16, 16)
    more = {
        "unlabelled": still,
        "following": still,
        "motion": torch.zeros(5, 2, 16, 16),
        "seen": torch.ones(5, 1, 16, 16),
        "style": still,
    }
    plain = model()
    plain.generator.register_forward_hook(lambda _, inputs, __: shapes.append(len(inputs[0])))
    dict(plain.updates(batch(**more)))
    flow = (
        "+model.objectives.generator.flow={loss:{_target_:animegen.models.fewshot.losses.MaskedL1},"
        "reads:{image:unlabelled_fake,reference:carried,mask:carried_mask}}"
    )
    temporal = model(flow, "model.unlabelled_share=0.4").eval()
    temporal.generator.register_forward_hook(lambda _, inputs, __: shapes.append(len(inputs[0])))
    _, terms = dict(temporal.updates(batch(**more)))["generator"].compute()
    assert shapes == [5, 5 + 2 + 2]
    assert terms["flow"].item() == pytest.approx(0, abs=1e-6), "nothing moves, so nothing may change"
    with pytest.raises(AnimegenError, match=r"set data\.unlabelled=true"):
        dict(temporal.updates(batch()))


def test_guides_and_inputs_must_agree() -> None:
    with pytest.raises(
        AnimegenError, match=r"have 4 channels, but the generator has 3 input channels: set model.generator.inputs=4"
    ):
        FewShot(FewShotGenerator(width=0.25, blocks=0), guides={"edges": EdgeGuide()})


def moving(frames: int = 4) -> Tensor:
    """A textured clip that pans by 2 pixels per frame, (T, 3, 40, 48) in [-1, 1]."""
    torch.manual_seed(1)
    wide = nn.functional.interpolate(torch.rand(1, 3, 20, 40), (40, 80), mode="bicubic").clamp(0, 1) * 2 - 1
    return torch.cat([wide[..., 2 * t : 2 * t + 48] for t in range(frames)])


def test_a_stream_draws_what_the_guides_of_the_whole_clip_give() -> None:
    guides = {"gauss": GaussGuide(radius=6, sigma=6), "xy": CoordinateGuide(), "edges": EdgeGuide()}
    module = FewShot(FewShotGenerator(inputs=9, width=0.25, blocks=1), guides=guides).eval()
    clip = moving()
    stack, state, drawn = Guides(guides), None, []
    for frame in clip:
        guide, state = stack.next(frame[None], state)
        drawn.append(to_float(guide))
    with torch.no_grad():
        at_once, _ = module.stylize(clip, None, torch.stack(drawn))
        memory, streamed = None, []
        for frame in clip:
            output, memory = module.stylize(frame[None], memory)
            streamed.append(output)
        torch.testing.assert_close(torch.cat(streamed), at_once, atol=1e-5, rtol=0)
        assert memory["frame"] == 4
        # Two streams in one batch do not touch each other, and a fresh state begins anew.
        both, _ = module.stylize(torch.stack([clip[0], clip[2]]), None)
        torch.testing.assert_close(both[:1], streamed[0], atol=1e-5, rtol=0)
    assert not module.tileable
    assert FewShot(FewShotGenerator(width=0.25, blocks=0)).tileable


def test_a_guide_from_files_cannot_be_made_up() -> None:
    module = FewShot(FewShotGenerator(inputs=4, width=0.25, blocks=0), guides={"depth": FileGuide(1)}).eval()
    with pytest.raises(AnimegenError, match="guide from files, which cannot be computed"):
        module.stylize(torch.zeros(1, 3, 16, 16))
    output, _ = module.stylize(torch.zeros(1, 3, 16, 16), None, torch.zeros(1, 1, 16, 16))
    assert output.shape == (1, 3, 16, 16)


def test_training_with_carried_key_frames_begins_as_these() -> None:
    images = torch.rand(2, 17, 16, 24) * 2 - 1
    generator = FewShotGenerator(inputs=17, width=0.25, blocks=1, carried=2)
    module = FewShot(generator, guides={"flow_keys": FlowKeys(candidates=2)})
    images[:1, 6], images[:, 13] = 1, -1  # the first key is trusted, the second is not
    images[1:, 6] = -1
    images[:, 9], images[:, 16] = 1, -1
    output, drawn = generator(images, parts=True)
    torch.testing.assert_close(output[0], images[0, 3:6], atol=5e-3, rtol=0)
    torch.testing.assert_close(output[1], drawn[1], atol=5e-3, rtol=0)
    assert not torch.allclose(output, drawn, atol=0.1)
    (output - 1).square().mean().backward()
    assert generator.choice is not None
    assert generator.choice.scores.weight.grad is not None
    assert generator.choice.scores.weight.grad.abs().sum(1).min() > 0
    swapped = torch.cat([images[:, :3], images[:, 10:], images[:, 3:10]], 1)
    nn.init.normal_(generator.choice.scores.weight)
    generator.eval()
    torch.testing.assert_close(generator(swapped), generator(images), msg="the order of the keys has no effect")
    with pytest.raises(AnimegenError, match="cannot be exported, since it carries key frames"):
        module.exported_weights()
    for guides in (
        {"edges": EdgeGuide(), "flow_keys": FlowKeys()},
        {"flow_keys": FlowKeys(candidates=3)},
        {"gauss": GaussGuide(), "depth": FileGuide(channels=11)},
    ):
        with pytest.raises(AnimegenError, match="needs a flow_keys guide"):
            FewShot(FewShotGenerator(inputs=3 + Guides(guides).channels, carried=2), guides=guides)
