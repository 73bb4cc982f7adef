"""Both stages in one module: codes on disk, a tokenizer that stays as it is, clips between two frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from animegen import load_model
from animegen.data.clips import ClipsView, MovingDigits
from animegen.engine.checkpoint import read_checkpoint
from animegen.engine.objective import Objective
from animegen.errors import AnimegenError
from animegen.losses import L1, Commitment, GANLoss
from animegen.media.images import to_float
from animegen.metrics.image import psnr
from animegen.models.ganime import Ganime
from animegen.models.ganime.adaptive import AdaptiveEvaluation
from animegen.models.ganime.codes import CodeTable, code_table, describe
from animegen.models.ganime.networks import CodeTransformer, NLayerPatchGAN, Tokenizer
from animegen.models.ganime.rendering import EncodedPair, decode, fit_to_tokenizer, intervals_for, render, soft_frames
from animegen.nn.inbetween import IFNet, InbetweenOutput
from animegen.tasks.protocols import ClipGenerator, Interpolator
from tests.support import assert_same_state, train


def tokenizer(seed: int = 0, **settings: Any) -> Tokenizer:
    torch.manual_seed(seed)
    quantizer = {"dim": 4, "codes": 24, "kmeans": False}
    return Tokenizer(8, [1, 2], 1, [], 16, quantizer, groups=4, patch=2, **settings)


def view(clips: int = 3, frames: int = 4, **settings: Any) -> ClipsView:
    return ClipsView(MovingDigits(None, "train", clips, frames, 16), 16, lengths=[3], **settings)


def term(loss: nn.Module, **reads: Any) -> dict[str, Any]:
    more = {name: reads.pop(name) for name in ("weight", "start", "ramp") if name in reads}
    return {"loss": loss, "reads": reads, **more}


OBJECTIVES = {
    "tokenizer": lambda: Objective(
        l1=term(L1(), image="fake", reference="real"),
        commitment=term(Commitment(), encoded="encoded", nearest="nearest"),
    ),
    "transformer": lambda: Objective(codes=term(nn.CrossEntropyLoss(), input="logits", target="targets")),
}


def module(begun: bool = True, **settings: Any) -> Ganime:
    network = tokenizer(renderer=settings.pop("renderer", None))
    transformer = CodeTransformer(24, (4, 4), max_frames=9, layers=1, heads=2, dim=16)
    given: dict[str, Any] = {"frame_size": (16, 16), "tokenizer_steps": 1}
    given |= {"objectives": {name: make() for name, make in OBJECTIVES.items()}, "sampling": {"greedy": True}}
    found = Ganime(network, transformer, **{**given, **settings})
    if begun:
        found.transformer_start = found.train_step = 1
        found._freeze_tokenizer()
    return found


def renderer() -> IFNet:
    """A renderer that no longer draws the cross-fade, as it would before it has learned."""
    torch.manual_seed(2)
    network = IFNet([2, 1], [8, 8], 2, 1, [8, 8], guide=9)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return network


def frames(count: int, height: int = 16, width: int = 16) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(count)) * 2 - 1


# --- the table of codes -----------------------------------------------------------------------------------------


def test_the_table_holds_what_the_tokenizer_makes_of_every_frame_and_its_mirror_image(tmp_path: Path) -> None:
    network, data = tokenizer().eval(), view()
    with torch.autocast("cpu", torch.bfloat16):  # codes are found in full precision nevertheless
        table = code_table(tmp_path, network, data)
    assert table.codes.shape == (2, 12, 4, 4)
    assert table.grid == (4, 4)
    batch = {"clip": [0, 2, 1], "frames": [[1, 2, 3], [3, 2, 1], [0, 1, 2]], "mirror": [0, 1, 1]}
    clips = table.take({name: torch.tensor(values) for name, values in batch.items()})
    expected = []
    for clip, numbers, mirror in ((0, (1, 2, 3), 0), (2, (3, 2, 1), 1), (1, (0, 1, 2), 1)):
        pictures = to_float(torch.stack([data.clips.load(clip, number) for number in numbers]))  # type: ignore[misc]
        expected.append(network.encode(pictures.flip(-1) if mirror else pictures))
    assert torch.equal(clips, torch.stack(expected))
    # The same as seen by the view itself.
    data.frames_until = 0
    sample = {name: value.unsqueeze(0) for name, value in data[5].items()}
    assert table.take(sample).shape == (1, 3, 4, 4)
    with pytest.raises(AnimegenError, match="trained on clip numbers"):
        table.take({"frame": torch.zeros(1)})


def test_clips_that_are_not_flipped_are_encoded_once(tmp_path: Path) -> None:
    network, data = tokenizer().eval(), view()
    both = code_table(tmp_path, network, data).codes
    data.mirror = False
    once = code_table(tmp_path, network, data).codes
    assert torch.equal(once, both[:1])
    assert len(list(tmp_path.iterdir())) == 2
    data.mirror = True
    assert code_table(tmp_path, network, data, build=False).codes.shape == both.shape


def test_numbers_above_32767_survive_two_bytes() -> None:
    codes = np.array([[[[50256]]], [[[65535]]]], np.uint16)
    table = CodeTable(torch.from_numpy(codes.view(np.int16)), torch.tensor([1]))
    batch = {"clip": torch.tensor([0]), "frames": torch.tensor([[0]]), "mirror": torch.tensor([0])}
    assert table.take(batch).tolist() == [[[[50256]]]]
    assert table.take(batch | {"mirror": torch.tensor([1])}).tolist() == [[[[65535]]]]


def test_a_table_is_read_again_refused_if_it_is_another_and_made_again_if_it_is_incomplete(tmp_path: Path) -> None:
    network, data = tokenizer().eval(), view()
    with pytest.raises(AnimegenError, match="first process"):
        code_table(tmp_path, network, data, build=False)
    table = code_table(tmp_path, network, data)
    (place,) = tmp_path.iterdir()
    written = (place / "codes.npy").stat().st_mtime_ns
    again = code_table(tmp_path, network, data, build=False)
    assert torch.equal(again.codes, table.codes)
    assert (place / "codes.npy").stat().st_mtime_ns == written
    # Other weights, other clips, other images under the same names: another table.
    code_table(tmp_path, tokenizer(seed=1).eval(), data)
    code_table(tmp_path, network, view(clips=4))
    other = ClipsView(MovingDigits(None, "train", 3, 4, 16, seed=9), 16, lengths=[3])
    other.clips.seed = 0  # type: ignore[attr-defined]
    described = describe(other)
    other.clips.seed = 9  # type: ignore[attr-defined]
    assert describe(other)["pictures"] != described["pictures"]
    assert len(list(tmp_path.iterdir())) == 3
    facts = json.loads((place / "table.json").read_text())
    (place / "table.json").write_text(json.dumps(facts | {"tokenizer": "another"}))
    with pytest.raises(AnimegenError, match="made by another tokenizer"):
        code_table(tmp_path, network, data)
    (place / "table.json").write_text(json.dumps(facts))
    np.save(place / "codes.npy", np.zeros((2, 3, 4, 4), np.uint16))
    with pytest.raises(AnimegenError, match="damaged"):
        code_table(tmp_path, network, data)
    (place / "table.json").unlink()
    assert torch.equal(code_table(tmp_path, network, data).codes, table.codes)


def test_a_broken_frame_shows_what_is_before_it(tmp_path: Path) -> None:
    data = view(clips=1)
    whole = code_table(tmp_path, tokenizer().eval(), data).codes
    load = data.clips.load
    data.clips.load = lambda index, number: None if number in (0, 2) else load(index, number)  # type: ignore[method-assign]
    codes = code_table(tmp_path, tokenizer().eval(), data).codes
    assert torch.equal(codes, whole[:, [1, 1, 1, 3]])


# --- the stages ---------------------------------------------------------------------------------------------------


def test_the_discriminator_is_left_out_learns_alone_and_then_counts() -> None:
    objectives = {
        "tokenizer": Objective(
            l1=term(L1(), image="fake", reference="real"),
            adversarial=term(GANLoss("hinge", side="generator"), logits="fake_logits", start=4, ramp=2, weight=0.5),
        ),
        "discriminator": Objective(
            real=term(GANLoss("hinge"), logits="real_logits"),
            fake=term(GANLoss("hinge", target="fake"), logits="fake_logits"),
        ),
    }
    judge = NLayerPatchGAN(width=0.125, condition=3)
    calls = []
    judge.register_forward_hook(lambda *_: calls.append(1))
    found = Ganime(tokenizer(), None, judge, discriminator_start=2, objectives=objectives)
    batch = {"frame": frames(2, 32, 32)}
    seen = {}
    for step in (0, 1, 2, 3, 4):
        found.train_step = step
        for objective in objectives.values():
            objective.step = step
        before = len(calls)
        steps = list(found.updates(batch))
        totals = {name: bound.compute()[0] for name, bound in steps}
        adaptive = isinstance(steps[-1][1], AdaptiveEvaluation)
        seen[step] = (list(totals), len(calls) - before, adaptive)
    assert seen[0] == seen[1] == (["tokenizer"], 0, False)
    assert seen[2] == seen[3] == (["discriminator", "tokenizer"], 2, False)
    assert seen[4] == (["discriminator", "tokenizer"], 3, True)
    found.adaptive_cap = None
    assert not isinstance(list(found.updates(batch))[-1][1], AdaptiveEvaluation)
    # Judged together with the real image; the gradient reaches the whole tokenizer.
    found.adaptive_cap = 10.0
    found.zero_grad()
    list(found.updates(batch))[-1][1].compute()[0].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in found.tokenizer.encoder.parameters())


def test_the_adaptive_step_has_the_gradients_of_the_published_one() -> None:
    """Two passes back from the image and one through the decoder equal the sum of the weighted losses."""
    objective = Objective(
        l1=term(L1(), image="fake", reference="real", weight=2.0),
        commitment=term(Commitment(), encoded="encoded", nearest="nearest", weight=0.25),
        adversarial=term(GANLoss("hinge", side="generator"), logits="fake_logits", weight=0.5),
    )
    judge = NLayerPatchGAN(width=0.125).requires_grad_(False).eval()
    found = Ganime(tokenizer(output="linear"), None, judge, discriminator_start=1, objectives={"tokenizer": objective})
    found.tokenizer.eval()
    real = frames(2, 32, 32)
    ((_, bound),) = list(found.updates({"frame": real}))
    total, _ = bound.compute()
    total.backward()
    network = found.tokenizer
    image, quantized, encoded = network(real)
    reconstruction, game = 2 * (image - real).abs().mean(), -judge(image).mean()
    norms = [torch.autograd.grad(x, network.last_layer, retain_graph=True)[0].norm() for x in (reconstruction, game)]
    scale = (norms[0] / (norms[1] + 1e-4)).clamp(0, 10).detach()
    commitment = 0.25 * (encoded - quantized.nearest).square().mean()
    expected = reconstruction + scale * 0.5 * game + commitment
    torch.testing.assert_close(total, expected)
    for parameter, gradient in zip(
        network.parameters(), torch.autograd.grad(expected, list(network.parameters()), allow_unused=True), strict=True
    ):
        torch.testing.assert_close(parameter.grad, gradient)


def test_the_second_stage_moves_the_transformer_and_nothing_else() -> None:
    found = module()
    assert found.transformer is not None
    found.objectives["transformer"].terms["picture"] = Objective(
        picture=term(L1(), image="soft", reference="soft_truth")
    ).term("picture")
    found.objectives["transformer"].factors["picture"] = 1.0
    found.table = CodeTable(torch.randint(24, (2, 12, 4, 4), dtype=torch.int16), torch.tensor([6, 6]))
    found.train()
    assert not found.tokenizer.training
    before = {name: value.clone() for name, value in found.tokenizer.state_dict().items()}
    shown = torch.arange(5) + torch.tensor([[0], [1]])
    batch = {"clip": torch.tensor([0, 1]), "frames": shown, "mirror": torch.tensor([0, 1])}
    optimizer = torch.optim.Adam(p for p in found.parameters() if p.requires_grad)
    for _ in range(3):
        ((name, bound),) = list(found.updates(batch))
        assert name == "transformer"
        total, values = bound.compute()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in found.tokenizer.state_dict().items())
    assert all(parameter.grad is None for parameter in found.tokenizer.parameters())
    # The image alone gives the transformer a gradient, too.
    found.transformer.zero_grad()
    ((_, bound),) = list(found.updates(batch))
    _, values = bound.compute()
    values["picture"].backward()
    assert found.transformer.head.weight.grad is not None
    assert found.transformer.head.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in found.tokenizer.parameters())


def test_soft_frames_of_a_certain_transformer_are_the_true_frames() -> None:
    network = tokenizer().eval().requires_grad_(False)
    clips = torch.randint(24, (2, 4, 4, 4), generator=torch.Generator().manual_seed(0))
    clip, frame, cell = torch.cartesian_prod(torch.arange(2), torch.tensor([1, 2]), torch.arange(0, 16, 2)).unbind(1)
    targets = clips.flatten(2)[clip, frame, cell]
    logits = (nn.functional.one_hot(targets, 24) * 100.0).requires_grad_()
    found = {"logits": logits, "clip": clip, "frame": frame, "cell": cell}
    drawn = soft_frames(network, clips, found, 3)
    assert drawn["soft"].shape == (3, 3, 16, 16)
    torch.testing.assert_close(drawn["soft"].clamp(-1, 1), drawn["soft_truth"], atol=1e-4, rtol=1e-4)
    assert soft_frames(network, clips, found, 9)["soft"].shape[0] == 4


def test_the_renderer_teaches_the_codes_and_the_ends_do_not_move_the_codebook() -> None:
    objective = Objective(rendered=term(L1(), image="rendered", reference="real"))
    found = module(begun=False, renderer=renderer(), objectives={"tokenizer": objective}).train()
    shown = frames(6)
    batch = {"frame": shown[:2], "first": shown[2:4], "last": shown[4:], "t": torch.tensor([0.25, 0.5])}
    alone = module(begun=False, renderer=renderer(), objectives={"tokenizer": objective}).train()
    torch.manual_seed(5)  # unused codes are replaced by chance
    alone.tokenizer(batch["frame"])
    torch.manual_seed(5)
    ((name, bound),) = list(found.updates(batch))
    assert name == "tokenizer"
    bound.compute()[0].backward()
    assert found.tokenizer.training
    for key, buffer in alone.tokenizer.named_buffers():
        assert torch.equal(dict(found.tokenizer.named_buffers())[key], buffer), key
    # From the rendered image back to the renderer, the decoder, and what encodes the frame.
    for part in (found.tokenizer.renderer, found.tokenizer.decoder, found.tokenizer.encoder):
        assert part is not None
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
    found.train_step = 1
    found._start_transformer_stage()
    assert not any(p.requires_grad for p in found.tokenizer.parameters())
    with pytest.raises(AnimegenError, match="tokenizer has no renderer"):
        next(iter(module(begun=False, objectives={"tokenizer": objective}).updates(batch)))[1].compute()


def test_each_stretch_is_rendered_between_the_given_frames_round_it() -> None:
    class Told(nn.Module):
        size_divisor, guide = 4, 9

        def encode_pair(self, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
            assert first.shape[-2:] == (8, 8)  # padded
            return first, last

        def synthesize(self, pair: tuple[Tensor, Tensor], t: Tensor, guide: Tensor, start: None) -> Any:
            calls.append((*(float(x.mean()) for x in pair), float(t[0]), guide[0, ::3, 0, 0].tolist()))
            return InbetweenOutput(
                guide[:, :3] * 10, {"flow": guide[:, :4], "mask": guide[:, :1], "merged": guide[:, :3]}
            )

    calls: list[Any] = []
    coded = (torch.arange(6) / 10).view(1, 6, 1, 1, 1).expand(1, 6, 3, 6, 7)
    given = {number: torch.full((1, 3, 6, 7), -number / 10) for number in (0, 3, 5)}
    clip = render(tokenizer(renderer=Told()), coded, given)
    told = [
        (0.0, -0.3, 1 / 3, [0.1, 0.0, 0.3]),
        (0.0, -0.3, 2 / 3, [0.2, 0.0, 0.3]),
        (-0.3, -0.5, 0.5, [0.4, 0.3, 0.5]),
    ]
    for (first, last, t, guide), expected in zip(calls, told, strict=True):
        assert (first, last, t) == pytest.approx(expected[:3])
        assert guide == pytest.approx(expected[3])
    assert clip.shape == coded.shape
    assert clip[0, :, 0, 5, 6].tolist() == pytest.approx(
        [0.0, 1.0, 1.0, -0.3, 1.0, -0.5]
    )  # clamped; the given as given


def test_larger_frames_are_moved_as_the_coded_ones_are() -> None:
    class Shift(nn.Module):
        """Half of both frames, one pixel from the left and one row from below, and a tenth lighter."""

        size_divisor, guide = 8, 9

        def encode_pair(self, first: Tensor, last: Tensor) -> Any:
            return first

        def synthesize(self, first: Tensor, t: Tensor, guide: Tensor, start: None) -> Any:
            flow = torch.tensor([-1.0, 0, 0, 1]).view(1, 4, 1, 1).expand(1, 4, *first.shape[-2:])
            extra = {"flow": flow, "mask": torch.full_like(first[:, :1], 0.5), "merged": first}
            return InbetweenOutput(first + 0.1, extra)

    first, last = (frames(n, 24, 36)[:1] * 0.5 for n in (1, 2))
    coded = torch.zeros(1, 3, 3, 12, 12)  # half as high and a third as wide
    clip = render(tokenizer(renderer=Shift()), coded, {0: first, 2: last})
    assert torch.equal(clip[:, 0], first)
    assert torch.equal(clip[:, 2], last)
    expected = (first[..., :22, :33] + last[..., 2:, 3:]) / 2 + 0.1
    torch.testing.assert_close(clip[0, 1, :, :22, 3:], expected[0])
    # A renderer that has learned nothing draws the cross-fade, of whatever size.
    network = tokenizer(renderer=IFNet([2, 1], [8, 8], 2, 1, [8, 8], guide=9)).eval()
    found = module().eval()
    found.tokenizer = network
    first, last = frames(1, 40, 60), frames(2, 40, 60)[:1]
    clip = found.generate(first, last, 5)
    for number in range(5):
        torch.testing.assert_close(clip[:, number], torch.lerp(first, last, number / 4))
    torch.testing.assert_close(found.between(first, last, torch.tensor([[0.25, 0.5]])), clip[:, 1:3])
    assert (found.max_size, module().max_size) == (None, (16, 16))


@pytest.mark.parametrize(
    ("height", "width", "small"), [(13, 16, (16, 16)), (32, 32, (16, 16)), (16, 48, (8, 16)), (90, 10, (16, 8))]
)
def test_images_are_scaled_to_what_a_tokenizer_knows(height: int, width: int, small: tuple[int, int]) -> None:
    picture = frames(1, height, width)
    whole, coded = fit_to_tokenizer(picture, 4, (16, 16))
    assert coded.shape[-2:] == small
    if max(height, width) > 16:
        assert torch.equal(whole, picture)
    else:
        assert torch.equal(whole, coded)
        assert torch.equal(whole[..., :height, :width], picture)
    assert torch.equal(*fit_to_tokenizer(picture, 4))


def test_clips_are_what_the_renderer_draws_and_the_given_frames_stay() -> None:
    plain, found = module().eval(), module(renderer=renderer()).eval()
    first, last = frames(1, 13, 15), frames(1, 13, 15).flip(-1)
    clip = found.generate(first, last, 5)
    assert torch.equal(clip[:, 0], first)
    assert torch.equal(clip[:, -1], last)
    assert not torch.allclose(clip[:, 1:-1], plain.generate(first, last, 5)[:, 1:-1], atol=0.01)
    times = torch.tensor([[0.25, 0.5, 0.75]])
    torch.testing.assert_close(found.between(first, last, times), clip[:, 1:-1])
    middle = frames(1, 13, 15).neg()
    assert torch.equal(found.generate(first, last, 5, keys={2: middle})[:, 2], middle)
    assert found.has_renderer
    assert not plain.has_renderer
    truth = frames(3).unsqueeze(0)
    batch = {"first": frames(1), "last": frames(1).neg(), "truth": truth, "t": times}
    coded = decode(found.tokenizer, found.tokenizer.encode(torch.cat([batch["first"], truth[0], batch["last"]]))[None])
    best = found.render(coded, {0: batch["first"], 4: batch["last"]})[0, 1:-1]
    torch.testing.assert_close(found.validate(batch)["rendered_psnr"], psnr(best, truth[0]))


def test_parts_that_do_not_fit_are_reported() -> None:
    with pytest.raises(AnimegenError, match="has 8 codes"):
        Ganime(tokenizer(), CodeTransformer(8, (4, 4), layers=1, heads=2, dim=16), frame_size=(16, 16))
    with pytest.raises(AnimegenError, match="cannot be divided"):
        Ganime(tokenizer(), frame_size=(16, 18))
    with pytest.raises(AnimegenError, match="no discriminator but an objective"):
        Ganime(tokenizer(), objectives={"discriminator": OBJECTIVES["transformer"]()})
    with pytest.raises(AnimegenError, match="adaptive_cap"):
        Ganime(tokenizer(), adaptive_cap=0.0)
    with pytest.raises(AnimegenError, match="clips/toonworld"):
        list(module(begun=False).updates({}))


# --- drawing --------------------------------------------------------------------------------------------------


def test_the_given_frames_stand_at_the_ends_whatever_their_size() -> None:
    found = module().eval()
    assert isinstance(found, ClipGenerator)
    assert isinstance(found, Interpolator)
    first, last = frames(1, 13, 15), frames(1, 13, 15).flip(-1)
    for count in (3, 5, 9):
        clip = found.generate(first, last, count)
        assert clip.shape == (1, count, 3, 13, 15)
        assert torch.equal(clip[:, 0], first)
        assert torch.equal(clip[:, -1], last)
        assert torch.equal(clip, found.generate(first, last, count))
    assert torch.equal(found.generate(first, last, 2), torch.stack([first, last], 1))
    middle = frames(1, 13, 15).neg()
    assert torch.equal(found.generate(first, last, 5, keys={2: middle})[:, 2], middle)
    same = found.generate(first, first, 4)
    assert torch.equal(same[:, 0], same[:, -1])
    with pytest.raises(AnimegenError, match="at most 9"):
        found.generate(first, last, 10)
    with pytest.raises(AnimegenError, match="without a trained transformer"):
        Ganime(tokenizer()).generate(first, last, 4)
    with pytest.raises(AnimegenError, match="without a trained transformer"):
        module(begun=False).generate(first, last, 4)


def test_times_find_their_clip() -> None:
    third = torch.tensor([1 / 3, 2 / 3])
    cases = [(third, 3), (torch.tensor([0.5]), 2), (torch.tensor([0.25, 0.5]), 4), (torch.tensor([0.125, 0.5]), 8)]
    for t, n in cases:
        assert intervals_for(t, 16) == n
    assert intervals_for(torch.tensor([0.3165]), 16) == 15
    assert intervals_for(torch.tensor([0.125]), 5) == 4
    assert intervals_for(torch.tensor([0.5]), 3) == 2


def test_all_frames_between_come_from_one_clip_and_repeated_pairs_are_drawn_once() -> None:
    found = module().eval()
    assert found.transformer is not None
    calls: list[tuple[int, ...]] = []
    generate = found.transformer.generate

    def counted(first: Tensor, *more: Any) -> Tensor:
        calls.append((len(first), more[1]))
        return generate(first, *more)

    found.transformer.generate = counted  # type: ignore[method-assign,assignment]
    first, last = frames(2, 14, 16), frames(2, 14, 16).flip(0)
    times = torch.tensor([[0.25, 0.5, 0.75]]).expand(2, 3)
    clip = found.between(first, last, times)
    assert calls == [(2, 5)]
    assert clip.shape == (2, 3, 3, 14, 16)
    whole = found.generate(first, last, 5)
    torch.testing.assert_close(clip, whole[:, 1:-1])
    pair = found.encode_pair(first, last)
    again = [found.synthesize(pair, torch.full((2,), 0.5)) for _ in range(2)]
    assert calls[2:] == [(2, 3)]
    assert torch.equal(*again)


def test_a_tokenizer_alone_draws_the_cross_fade_of_its_reconstructions() -> None:
    network = tokenizer().eval()
    found = Ganime(network).eval()
    first, last = frames(2, 16, 16), frames(2, 16, 16).flip(0)
    ends = [network.decode(network.encode(frame)) for frame in (first, last)]
    drawn = found.synthesize(found.encode_pair(first, last), torch.tensor([0.25, 0.5]))
    torch.testing.assert_close(drawn[0], 0.75 * ends[0][0] + 0.25 * ends[1][0])
    torch.testing.assert_close(drawn[1], 0.5 * ends[0][1] + 0.5 * ends[1][1])
    assert list(found.preview({"first": first})) == ["frame", "reconstruction"]


def test_validation_scores_what_is_drawn_beside_the_cross_fades() -> None:
    found = module().eval()
    truth = frames(3).unsqueeze(0)
    batch = {"first": frames(1), "last": frames(1).neg(), "truth": truth, "t": torch.tensor([[0.25, 0.5, 0.75]])}
    scores = found.validate(batch)
    clip = torch.cat([batch["first"].unsqueeze(1), truth, batch["last"].unsqueeze(1)], 1)[0]
    coded = decode(found.tokenizer, found.tokenizer.encode(clip).unsqueeze(0))[0]
    torch.testing.assert_close(scores["reconstruction_psnr"], psnr(coded, clip))
    output = found.between(batch["first"], batch["last"], batch["t"])[0]
    torch.testing.assert_close(scores["psnr"], psnr(output, truth[0]))
    faded = torch.lerp(coded[:1], coded[-1:], torch.tensor([0.25, 0.5, 0.75]).view(3, 1, 1, 1))
    torch.testing.assert_close(scores["gain_over_coded_blend"], psnr(output, truth[0]) - psnr(faded, truth[0]))
    assert {"gain_over_blend", "ssim", "edge_f", "accuracy", "changed_accuracy", "cross_entropy"} <= set(scores)
    assert set(module(begun=False).validate(batch)) == {
        "reconstruction_psnr",
        "reconstruction_ssim",
        "perplexity",
        "codes_used",
    }
    assert list(found.preview(batch)) == ["output", "truth"]
    pair = EncodedPair.encode(found.tokenizer, clip[[0, 0, 1]], clip[[2, 2, 2]], found.size_divisor)
    assert pair.group.tolist() == [0, 0, 1]


# --- a run ------------------------------------------------------------------------------------------------------


def test_a_run_passes_from_the_tokenizer_to_the_transformer_and_continues_anywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("experiment=ganime/quickstart", "data.lengths=[3]", "model.transformer.layers=1")
    kept = ("callbacks.checkpoints.every=1", "callbacks.checkpoints.keep=-1", "callbacks.previews.every=100")
    whole = train(*words, *kept, "train_steps=4", output=tmp_path / "whole")
    at = {step: read_checkpoint(whole / f"checkpoints/step-000000{step}.ckpt") for step in (1, 2, 3, 4)}
    averages = at[2]["animegen"]["ema"]["averages"]["tokenizer"]
    weights = {
        step: {k.removeprefix("tokenizer."): v for k, v in c["state_dict"].items() if k.startswith("tokenizer.")}
        for step, c in at.items()
    }
    assert any(not torch.equal(weights[2][name], value) for name, value in averages.items())
    for step in (3, 4):
        # The tokenizer took its averages, and neither weights nor codebook nor averages have moved since.
        assert all(torch.equal(weights[step][name], value) for name, value in averages.items())
        assert at[step]["animegen"]["ema"]["averages"]["tokenizer"].keys() == averages.keys()
        for name, value in at[step]["animegen"]["ema"]["averages"]["tokenizer"].items():
            assert torch.equal(value, averages[name])
    assert at[2]["state_dict"]["_extra_state"] == -1
    assert at[3]["state_dict"]["_extra_state"] == 2
    moved = [
        k
        for k, v in at[4]["state_dict"].items()
        if isinstance(v, Tensor) and not torch.equal(v, at[3]["state_dict"][k])
    ]
    assert moved
    assert all(name.startswith("transformer.") for name in moved)
    # Resumed in the first stage and in the second, with the table and without.
    for step in (1, 3):
        resumed = train(f"resume={whole}/checkpoints/step-000000{step}.ckpt", output=tmp_path / f"from{step}")
        assert_same_state(read_checkpoint(resumed), at[4])
        assert [p.name for p in (resumed / "codes").iterdir()] == [p.name for p in (whole / "codes").iterdir()]
    # The transformer alone over that tokenizer begins where the composite's second stage began.
    alone = (f"model.tokenizer_checkpoint={whole}", "model.tokenizer_steps=0", "train_steps=1")
    single = train(*words, *alone, output=tmp_path / "alone")
    found = load_model(single, "cpu")
    assert isinstance(found, Ganime)
    assert found.tokenizer_frozen
    taken = found.tokenizer.state_dict()
    assert all(torch.equal(taken[name], value) for name, value in weights[4].items() if isinstance(value, Tensor))
    (mine,), (theirs,) = list((single / "codes").iterdir()), list((whole / "codes").iterdir())
    assert mine.name == theirs.name
    assert np.array_equal(np.load(mine / "codes.npy"), np.load(theirs / "codes.npy"))
    # A tokenizer's renderer is left out where none is wanted, and missed where one is.
    bare = train(*words, *alone, "ablation=ganime/no_renderer", output=tmp_path / "bare")
    without = load_model(bare, "cpu")
    assert isinstance(without, Ganime)
    assert not without.has_renderer
    taken = without.tokenizer.state_dict()
    assert all(torch.equal(taken[name], weights[4][name]) for name in taken)
    with pytest.raises(AssertionError, match="ended with 2"):
        train(*words, *alone[1:], f"model.tokenizer_checkpoint={bare}", output=tmp_path / "refused")
    assert "has no renderer" in capsys.readouterr().err
    begun = ("model.tokenizer_steps=1", "train_steps=2", f"model.tokenizer_checkpoint={bare}")
    assert load_model(train(*words, *begun, output=tmp_path / "begun"), "cpu").has_renderer  # type: ignore[attr-defined]
