"""The transformer over codes: decoding strategies, attention masks, caches, sampling, and that it learns."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.models.ganime.networks import CodeTransformer
from animegen.models.ganime.networks.decoding import STRATEGIES
from animegen.models.ganime.networks.sampling import masked_after, sample_codes
from animegen.models.ganime.networks.tokens import LENGTH, MASK, NOTHING, START
from animegen.models.ganime.rendering import soft_frames
from animegen.tasks.protocols import Sampling

CODES = 11
CACHING = ("prefix_ar", "clip_mask", "frame_block_mask")


def network(layout: str, **settings: Any) -> CodeTransformer:
    torch.manual_seed(0)
    size: dict[str, Any] = {"codes": CODES, "grid": (3, 4), "max_frames": 6, "layers": 2, "heads": 2, "dim": 24}
    made = CodeTransformer(decoding=layout, **size | settings)
    # Weights of a size at which everything matters, as after training.
    for parameter in made.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


def clips(batch: int = 2, frames: int = 5, height: int = 2, width: int = 3) -> Tensor:
    return torch.randint(CODES, (batch, frames, height, width), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("size", "millions"),
    [((12, 8, 512), 38.9), ((12, 12, 768), 86.6), ((24, 16, 1024), 304.5), ((36, 20, 1280), 710.9)],
)
def test_sizes_have_the_parameters_of_their_plan(size: tuple[int, int, int], millions: float) -> None:
    layers, heads, dim = size
    with torch.device("meta"):
        made = CodeTransformer(1024, (8, 16), 16, layers, heads, dim)
    assert sum(p.numel() for p in made.parameters()) / 1e6 == pytest.approx(millions, rel=0.003)
    # GPT-2's blocks: 12 d^2 and 13 d each, and the last norm.
    assert sum(p.numel() for p in made.backbone.parameters()) == layers * (12 * dim**2 + 13 * dim) + 2 * dim


def test_a_row_of_codes_in_order_is_the_length_then_last_then_first_then_the_others() -> None:
    codes = torch.arange(8).view(1, 4, 1, 2)
    batch = network("prefix_ar").training_batch(codes)
    ids = [CODES + LENGTH, 6, 7, 0, 1, CODES + START, 2, 3, 4]
    assert batch.tokens.ids.tolist() == [ids]
    assert batch.tokens.positions[:, 0].tolist() == [0, 3, 3, 0, 0, 0, 1, 1, 2]
    assert batch.tokens.remaining.tolist() == [4, 0, 0, 3, 3, 3, 2, 2, 1]
    assert batch.tokens.targets is not None
    assert batch.tokens.targets[5:].tolist() == [[1, 0, 0], [1, 0, 1], [2, 0, 0], [2, 0, 1]]
    assert batch.mask is not None
    assert batch.mask.int().tolist()[4:7] == [
        [1, 1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 1, 0, 0],
    ]


def test_a_row_of_frame_parallel_is_last_then_previous_and_counts_down() -> None:
    codes = torch.arange(8).view(1, 4, 1, 2)
    batch = network("frame_parallel", n_frames_before=2, remaining="token").training_batch(codes)
    tokens = batch.tokens
    assert tokens.ids.tolist() == [[CODES + LENGTH, 6, 7, 0, 1, 0, 1], [CODES + LENGTH, 6, 7, 0, 1, 2, 3]]
    assert tokens.remaining.tolist() == [[2, *[-1] * 6], [1, *[-1] * 6]]
    assert batch.frame.tolist() == [[1, 1], [2, 2]]
    other = network("frame_parallel", order="first_last", remaining="added_current").training_batch(codes).tokens
    assert other.ids.tolist() == [[0, 1, 6, 7], [2, 3, 6, 7]]
    assert other.remaining.tolist() == [[-1, -1, 2, 2], [-1, -1, 1, 1]]
    assert network("frame_parallel", remaining="none").training_batch(codes).tokens.remaining.unique().tolist() == [-1]
    assert network("frame_parallel").training_batch(codes).tokens.remaining.tolist() == [[2] * 4, [1] * 4]


@pytest.mark.parametrize("layout", STRATEGIES)
def test_predictions_name_their_targets_and_which_are_copies(layout: str) -> None:
    codes = clips()
    codes[:, 2] = codes[:, 1]
    out = network(layout)(codes)
    flat = codes.flatten(2)
    assert torch.equal(out["targets"], flat[out["clip"], out["frame"], out["cell"]])
    assert torch.equal(out["copies"], out["targets"] == flat[out["clip"], out["frame"] - 1, out["cell"]])
    assert out["copies"][out["frame"] == 2].all()
    assert not out["copies"].all()
    assert out["logits"].shape == (len(out["targets"]), CODES)
    assert set(out["frame"].tolist()) <= {1, 2, 3}
    if layout in ("prefix_ar", "frame_parallel"):
        assert len(out["targets"]) == 2 * 3 * 6


@pytest.mark.parametrize("position", ["learned", "learned1d", "rope3d"])
def test_a_code_never_changes_predictions_at_or_before_its_place(position: str) -> None:
    made, codes = network("prefix_ar", position=position), clips(1)
    before = made(codes)["logits"]
    for place in (0, 4, 9, 17):
        other = codes.clone()
        other.view(-1)[6 + place] += 1
        other %= CODES
        after = made(other)["logits"]
        assert torch.equal(before[: place + 1], after[: place + 1])
        assert place == 17 or not torch.allclose(before[place + 1 :], after[place + 1 :])
    # The given frames are seen by all, and the length is.
    for frame in (0, 4):
        other = codes.clone()
        other[:, frame, -1, -1] = (other[:, frame, -1, -1] + 1) % CODES
        assert not torch.isclose(before, made(other)["logits"]).all(1).any()


def test_frames_of_frame_block_mask_see_only_finished_frames_before_them() -> None:
    made, codes = network("frame_block_mask"), clips(1)
    before = made(codes)
    other = codes.clone()
    other[:, 2] = (other[:, 2] + 1) % CODES
    after = made(other)
    same = torch.isclose(before["logits"], after["logits"]).all(1)
    assert same[before["frame"] == 1].all()
    assert not same[before["frame"] == 3].any()


def test_causal_mask_of_frame_parallel_hides_what_follows_and_block_mask_does_not() -> None:
    codes = clips(1, frames=3)
    for mask, seen in (("causal", False), ("block", True)):
        made = network("frame_parallel", mask=mask)
        before = made(codes)["logits"]
        other = codes.clone()
        other[:, 0, -1, -1] = (other[:, 0, -1, -1] + 1) % CODES
        changed = ~torch.isclose(before, made(other)["logits"]).all(1)
        assert changed.tolist() == [seen] * 5 + [True]


@pytest.mark.parametrize("position", ["learned", "rope3d"])
@pytest.mark.parametrize("layout", CACHING)
def test_cached_logits_equal_uncached_ones(layout: str, position: str) -> None:
    made, codes = network(layout, position=position), clips()
    batch = made.training_batch(codes, [2])
    whole = made.head(made.read(batch.tokens, batch.mask))
    assert batch.mask is not None
    count = batch.tokens.ids.shape[1]
    given = 1 + 3 * 6
    cache = made.new_cache(2, count)

    def part(begin: int, end: int) -> Any:
        tokens = batch.tokens
        targets = None if tokens.targets is None else tokens.targets[begin:end]
        sliced = (tokens.positions[begin:end], tokens.segments[begin:end], tokens.index[begin:end])
        return type(tokens)(tokens.ids[:, begin:end], *sliced, tokens.remaining[begin:end], targets)

    parts = [made.head(made.read(part(0, given), cache=cache))]
    assert cache.length == given
    steps = {"prefix_ar": 1, "clip_mask": 12, "frame_block_mask": 6}[layout]
    # Of frame_block_mask: the first masked frame sees the given ones, the second the clean one before it, too.
    ends = [given, *range(given + steps, count + 1, steps)]
    if layout == "frame_block_mask":
        clean, one, two = pairwise(ends)
        first = made.head(made.read(part(*one), cache=cache, keep=False))
        middle = made.head(made.read(part(*clean), cache=cache))
        parts += [middle, first, made.head(made.read(part(*two), cache=cache, keep=False))]
    else:
        parts += [made.head(made.read(part(*ends), cache=cache)) for ends in pairwise(ends)]
    assert (torch.cat(parts, 1) - whole).abs().max() < 1e-4


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_cached_generation_is_what_the_plain_forward_pass_predicts(guidance: float) -> None:
    made, codes = network("prefix_ar", end_dropout=0.1), clips()
    made_clips = made.generate(codes[:, 0], codes[:, -1], 5, Sampling(greedy=True, guidance=guidance))
    logits = made(made_clips)["logits"]
    if guidance != 1:
        blind = made_clips.clone()
        blind[:, -1] = CODES + NOTHING
        batch = made.training_batch(blind)
        without = made.head(made.read(batch.tokens, batch.mask)[:, -18:]).flatten(0, 1)
        logits = without + guidance * (logits - without)
    assert torch.equal(logits.argmax(-1), made_clips[:, 1:-1].flatten())


@pytest.mark.parametrize("layout", STRATEGIES)
def test_generation_copies_what_is_given_and_a_seed_means_one_clip(layout: str) -> None:
    codes, ahead = clips(3), layout in CACHING
    made = network(layout, key_frames=0.5 if ahead else 0.0)
    first, last, key = codes[:, 0], codes[:, -1], codes[:, 2]
    made_clips = made.generate(first, last, 5, Sampling(seed=3), keys={2: key})
    assert torch.equal(made_clips[:, [0, 2, 4]], torch.stack([first, key, last], 1))
    assert made_clips.max() < CODES
    assert torch.equal(made_clips, made.generate(first, last, 5, Sampling(seed=3), keys={2: key}))
    assert not torch.equal(made_clips, made.generate(first, last, 5, Sampling(seed=9), keys={2: key}))
    # Clip b is drawn with seed + b, whatever else is in the batch.
    alone = made.generate(first[2:], last[2:], 5, Sampling(seed=5), keys={2: key[2:]})
    assert torch.equal(alone, made_clips[2:])
    greedy = [made.generate(first, last, 5, Sampling(seed=seed, greedy=True)) for seed in (0, 1)]
    assert torch.equal(*greedy)


@pytest.mark.parametrize("layout", STRATEGIES)
def test_every_length_and_grid_up_to_the_largest(layout: str) -> None:
    made = network(layout)
    for frames in (3, 4, 6):
        codes = clips(1, frames, 3 if frames == 6 else 1, 4)
        assert made.generate(codes[:, 0], codes[:, 0], frames, Sampling(steps=2)).shape == codes.shape
        assert made(codes)["logits"].isfinite().all()
    two = made.generate(codes[:, 0], codes[:, 1], 2)
    assert torch.equal(two, codes[:, :2])
    with pytest.raises(AnimegenError, match="2 frames has nothing between"):
        made(codes[:, :2])
    with pytest.raises(AnimegenError, match="longer than this transformer supports: at most 6"):
        made.generate(codes[:, 0], codes[:, 1], 7)
    with pytest.raises(AnimegenError, match="5x4 codes is larger"):
        made(torch.zeros(1, 3, 5, 4, dtype=torch.long))


@pytest.mark.parametrize("layout", STRATEGIES)
@pytest.mark.parametrize("steps", [None, 3, 100])
def test_passes_are_counted(layout: str, steps: int | None) -> None:
    made, codes = network(layout), clips(1)
    lengths: list[int] = []
    given = 1 + 2 * 6  # the length, and both frames
    made.backbone.register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
    made.generate(codes[:, 0], codes[:, -1], 5, Sampling(steps=steps))
    runs = len(lengths)
    if layout in CACHING:
        assert lengths[0] == given
        runs -= 1 + (2 if layout == "frame_block_mask" else 0)  # two of three finished frames are read
    assert made.strategy.passes(5, 6, steps) == runs


def test_masks_are_of_cosine_share_in_training_and_fixed_in_eval() -> None:
    made, codes = network("clip_mask"), clips(2)
    assert torch.equal(made(codes)["cell"], made(codes)["cell"])
    torch.manual_seed(0)
    made.train()
    counts = torch.tensor([len(made(codes)["targets"]) for _ in range(200)]) / 36
    assert counts.min() > 0
    # The mean of cos(pi u / 2) is 2 / pi; rounding up adds half a code of 18.
    assert counts.mean() == pytest.approx(2 / torch.pi + 0.5 / 18, abs=0.04)


def test_masked_counts_fall_from_all_to_none() -> None:
    assert [masked_after(step, 4, 100) for step in range(4)] == [92, 70, 38, 0]
    assert [masked_after(step, 8, 3) for step in range(8)] == [2, 1, 0, 0, 0, 0, 0, 0]


def test_picking_follows_temperature_top_k_and_top_p() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    uniform = (torch.arange(1000) + 0.5) / 1000
    rows = logits.expand(1000, -1)

    def shares(**settings: Any) -> list[float]:
        return (sample_codes(rows, uniform, Sampling(**settings)).bincount(minlength=4) / 1000).tolist()

    assert shares() == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=2e-3)
    assert shares(top_k=2) == pytest.approx([0.625, 0.375, 0, 0], abs=2e-3)
    assert shares(top_p=0.9) == pytest.approx([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0], abs=2e-3)
    assert shares(top_p=0.1) == [1, 0, 0, 0]
    squares = torch.tensor([0.25, 0.09, 0.0225, 0.0025])
    assert shares(temperature=0.5) == pytest.approx((squares / squares.sum()).tolist(), abs=2e-3)
    assert shares(greedy=True) == [1, 0, 0, 0]
    impossible = torch.tensor([-torch.inf, 0.0, -torch.inf])
    assert sample_codes(impossible, torch.tensor(0.0), Sampling()) == 1
    assert sample_codes(impossible, torch.tensor(1 - 2**-24), Sampling()) == 1


@pytest.mark.parametrize(
    "wrong", [{"temperature": 0}, {"top_k": 0}, {"top_p": 1.5}, {"steps": 0}, {"guidance": -1.0}], ids=str
)
def test_sampling_that_means_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(AnimegenError, match=f"^{next(iter(wrong))}="):
        Sampling(**wrong)  # type: ignore[arg-type]


def test_what_is_read_in_training_is_spoilt_by_the_shares_that_were_set() -> None:
    codes = torch.zeros(200, 5, 2, 3, dtype=torch.long)
    torch.manual_seed(0)
    read = network("prefix_ar", p_keep=0.8).train()._corrupted(codes, 0, [])
    assert (read[:, [0, -1]] == 0).all()
    assert (read[:, 1:-1] != 0).float().mean() == pytest.approx(0.2 * (CODES - 1) / CODES, abs=0.02)
    read = network("prefix_ar", frame_dropout=0.25).train()._corrupted(codes, 0, [2])
    gone = (read == CODES + NOTHING).flatten(2)
    assert torch.equal(gone.any(2), gone.all(2))
    assert gone.all(2).float().mean(0).tolist() == pytest.approx([0, 0.25, 0, 0.25, 0], abs=0.07)
    read = network("prefix_ar", end_dropout=0.1).train()._corrupted(codes, 0, [])
    assert (read[:, -1] == CODES + NOTHING).all((1, 2)).float().mean() == pytest.approx(0.1, abs=0.05)
    assert (read[:, :-1] == 0).all()


@pytest.mark.parametrize("layout", ["prefix_ar", "frame_parallel", "frame_block_mask"])
def test_scheduled_sampling_feeds_back_its_own_choices(layout: str) -> None:
    made = network(layout, scheduled=0.5, scheduled_steps=10).train()
    assert [made.scheduled_fraction(step) for step in (0, 5, 10, 99)] == [0, 0.25, 0.5, 0.5]
    made.head.weight.data.zero_()[7] = made.backbone.norm.bias.data.fill_(1)  # the seventh code, always
    codes = torch.zeros(100, 4, 2, 3, dtype=torch.long)
    made.backbone.norm.weight.data.zero_()
    made.head.weight.data *= 10
    read = made._corrupted(codes, 10, [])
    assert set(read.unique().tolist()) == {0, 7}
    assert (read[:, [0, -1]] == 0).all()
    predicted = 0.5 if layout != "frame_block_mask" else 0.5 * 2 / torch.pi
    assert (read[:, 1:-1] == 7).float().mean() == pytest.approx(predicted, abs=0.08)
    assert torch.equal(made._corrupted(codes, 0, []), codes)


def test_a_key_frame_in_the_middle_is_given_to_the_frames_before_it() -> None:
    made, codes = network("prefix_ar", key_frames=1.0), clips(1)
    batch = made.training_batch(codes, [2])
    assert batch.frame.unique().tolist() == [1, 3]
    before = made.head(made.read(batch.tokens, batch.mask)[:, -12:])
    other = codes.clone()
    other[:, 2] = (other[:, 2] + 1) % CODES
    again = made.training_batch(other, [2])
    after = made.head(made.read(again.tokens, again.mask)[:, -12:])
    assert not torch.isclose(before, after).all(-1).any()
    made.train()
    torch.manual_seed(0)
    frames = {tuple(made(codes)["frame"].unique().tolist()) for _ in range(20)}
    assert frames == {(2, 3), (1, 3), (1, 2)}


def test_whoever_never_saw_key_frames_draws_stretch_by_stretch() -> None:
    made, codes = network("clip_mask"), clips()
    greedy = Sampling(greedy=True)
    whole = made.generate(codes[:, 0], codes[:, -1], 5, greedy, keys={2: codes[:, 2]})
    assert torch.equal(whole[:, :3], made.generate(codes[:, 0], codes[:, 2], 3, greedy))
    assert torch.equal(whole[:, 2:], made.generate(codes[:, 2], codes[:, 4], 3, greedy))


def test_options_that_a_layout_does_not_have_are_refused() -> None:
    with pytest.raises(AnimegenError, match="decoding=prefix_ar has no option steps=3"):
        network("prefix_ar", steps=3)
    with pytest.raises(AnimegenError, match="Did you mean 'clip_mask'"):
        network("clip_masks")
    with pytest.raises(AnimegenError, match="scheduled="):
        network("clip_mask", scheduled=0.5)
    with pytest.raises(AnimegenError, match="key_frames="):
        network("frame_parallel", key_frames=0.5)
    with pytest.raises(AnimegenError, match="end_dropout"):
        network("prefix_ar").generate(clips()[:, 0], clips()[:, 1], 4, Sampling(guidance=2.0))
    assert network("clip_mask", steps=3, n_frames_before=None).strategy.steps == 3  # type: ignore[attr-defined]


class Palette:
    """A tokenizer whose codes are single colours."""

    def __init__(self) -> None:
        self.colours = torch.randn(CODES, 3, generator=torch.Generator().manual_seed(0))

    def decode(self, codes: Tensor) -> Tensor:
        return self.colours[codes].movedim(-1, 1)

    def decode_soft(self, shares: Tensor) -> Tensor:
        return (shares @ self.colours).movedim(-1, 1)


@pytest.mark.parametrize("layout", STRATEGIES)
def test_a_loss_on_expected_images_reaches_the_transformer(layout: str) -> None:
    made, codes = network(layout).train(), clips()
    drawn = soft_frames(Palette(), codes, made(codes), 2)  # type: ignore[arg-type]
    F.l1_loss(drawn["soft"], drawn["soft_truth"]).backward()
    for parameter in (made.backbone.blocks[0].attention.qkv.weight, made.code_embedding.weight, made.head.weight):  # type: ignore[union-attr]
        assert parameter.grad.abs().max() > 0  # type: ignore[union-attr,operator]


def test_bf16_draws_the_clips_of_converted_weights() -> None:
    made, codes = network("prefix_ar"), clips()
    with torch.autocast("cpu", torch.bfloat16):
        drawn = made.generate(codes[:, 0], codes[:, 1], 4, Sampling(greedy=True))
    assert torch.equal(drawn, made.to(torch.bfloat16).generate(codes[:, 0], codes[:, 1], 4, Sampling(greedy=True)))


def test_compiled_blocks_compute_the_same() -> None:
    made, codes = network("prefix_ar"), clips()
    expected = made(codes)["logits"]
    made.backbone.compile(backend="aot_eager")
    assert torch.allclose(made(codes)["logits"], expected, atol=1e-5)


def test_tied_weights_save_a_table_and_rotary_positions_all_of_theirs() -> None:
    sizes = {
        name: sum(p.numel() for p in network("clip_mask", **settings).parameters())
        for name, settings in {"own": {}, "tied": {"tied": True}, "rope": {"position": "rope3d"}}.items()
    }
    assert sizes["own"] - sizes["tied"] == CODES * 24
    assert sizes["own"] - sizes["rope"] == (6 + 3 + 4) * 24


@pytest.mark.parametrize("layout", ["prefix_ar", "clip_mask"])
def test_overfits_four_clips(layout: str) -> None:
    torch.manual_seed(0)
    codes = torch.randint(32, (4, 1, 4, 4)).repeat(1, 4, 1, 1)
    for t in range(1, 4):  # a piece of other codes moves over each clip
        codes[:, t, :, t % 4] = torch.randint(32, (4, 4))
    made = CodeTransformer(32, (4, 4), 4, 4, 4, 128, decoding=layout)
    optimizer = torch.optim.AdamW(made.parameters(), 1e-3, betas=(0.9, 0.95))
    for step in range(80 if layout == "prefix_ar" else 120):
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1, (step + 1) / 20)
        out = made(codes, step)
        F.cross_entropy(out["logits"], out["targets"]).backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    drawn = made.generate(codes[:, 0], codes[:, -1], 4, Sampling(greedy=True))
    changed = codes[:, 1:-1] != codes[:, :-2]
    assert (drawn == codes)[:, 1:-1][changed].float().mean() > 0.95
    assert MASK not in (drawn - 32).unique()


def test_under_bf16_single_tokens_are_kept_in_float32() -> None:
    network = CodeTransformer(5, (2, 2), 4, 1, 2, 8).bfloat16()
    assert network.new_cache(1, 3).keys.dtype == torch.bfloat16
    assert network.new_cache(1, 3, single=True).keys.dtype == torch.float32
    first, last = torch.zeros(2, 1, 2, 2, dtype=torch.long)
    with torch.autocast("cpu", torch.bfloat16):
        assert network.generate(first, last, 4).shape == (1, 4, 2, 2)
