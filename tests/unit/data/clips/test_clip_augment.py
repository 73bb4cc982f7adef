"""Changes of brightness and noise of clips: the formulas, which frames they change, and what they depend on."""

from __future__ import annotations

from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from animegen.config.compose import compose_config
from animegen.data.clips import ClipAugment
from animegen.data.sampler import counter_hash
from animegen.errors import AnimegenError


class Drawn(ClipAugment):
    """An augmentation whose random numbers in [0, 1) are given."""

    draws: tuple[float, ...] = ()

    def _draw(self, purpose: str, sample: Tensor, count: int = 1) -> Tensor:
        values = torch.tensor(self.draws[:count]).expand(len(sample), count)
        return values[:, 0] if count == 1 else values


def grey(level: int = 102, samples: int = 1, side: int = 4) -> dict[str, Tensor]:
    """Return a batch of frames of one grey; 102 is 0.4 of the range."""
    frames = torch.full((samples, 3, side, side), level, dtype=torch.uint8)
    times = torch.tensor([0.25, 0.5]).expand(samples, 2)
    sample = torch.arange(samples)
    return {"first": frames, "last": frames, "truth": frames[:, None].repeat(1, 2, 1, 1, 1), "t": times} | {
        "sample": sample
    }


def light(images: Tensor) -> list[float]:
    """Return the values of the first pixel of the first sample, in [0,1], rounded."""
    return [round(v, 4) for v in ((images[0, ..., 0, 0, 0] + 1) / 2).flatten().tolist()]


def test_exposure_is_a_gain_an_offset_and_a_drift_from_first_to_last() -> None:
    augment = Drawn(4, flip=False, reverse=False, exposure=0.2)
    augment.draws = (0.75, 0.25, 1.0)
    # Gain .2 * .5 = .1, offset .2 * -.5 / 2 = -.05, drift .2 / 5 = .04 over the time from first to last.
    out = augment(grey())
    assert light(out["first"]) == [0.382]  # .4 * (1.1 - .02) - .05
    assert light(out["truth"]) == [0.386, 0.39]  # .4 * (1.1 - .01) - .05, .4 * 1.1 - .05
    assert light(out["last"]) == [0.398]  # .4 * (1.1 + .02) - .05
    assert light(augment(grey(255))["last"]) == [1.0]


def test_brightness_of_reversed_samples_also_drifts_evenly() -> None:
    batch = grey(samples=60)
    out = ClipAugment(4, exposure=0.3, seed=2)(batch)
    first, last, truth = (out[key][..., 0, 0, 0] for key in ("first", "last", "truth"))
    assert out["t"].unique().tolist() == [0.25, 0.5, 0.75]
    torch.testing.assert_close(truth, first[:, None] + out["t"] * (last - first)[:, None])
    # .4 of the range changes by at most .3 * .4 (gain), .15 (offset) and .03 * .4 (drift); in [-1,1] twice that.
    change = (first + 0.2).abs()
    assert 0.3 < float(change.max()) < 2 * (0.12 + 0.15 + 0.012)
    assert 0.03 < float((last - first).abs().max()) < 2 * 0.4 * 0.06
    again = ClipAugment(4, exposure=0.3, seed=2)({key: value[20:25] for key, value in batch.items()})
    assert all(torch.equal(again[key], out[key][20:25]) for key in again)
    other = ClipAugment(4, exposure=0.3, seed=3)(batch)
    assert not torch.equal(other["first"], out["first"])


def test_noise_is_normal_and_only_on_the_given_frames() -> None:
    augment = Drawn(64, flip=False, reverse=False, noise=0.1, seed=4)
    augment.draws = (0.5,)
    plain, out = grey(side=64), augment(grey(side=64))
    assert light(out["truth"]) == [0.4, 0.4]
    first, last = (out[key] / 2 + 0.1 for key in ("first", "last"))  # .4 of the range is -.2
    for noise in (first, last):
        assert abs(float(noise.std()) / 0.05 - 1) < 0.02
        assert abs(float(noise.mean())) < 0.002
    assert abs(float((first * last).mean())) < 0.0001  # independent
    bits = (counter_hash(4, "noise", "last", int(plain["sample"][0]), 70) >> 41) & (2**23 - 1)
    slow = 0.05 * NormalDist().inv_cdf((bits + 0.5) / 2**23)
    assert float(last.flatten()[70]) == pytest.approx(slow, abs=1e-6)


def test_noise_depends_on_seed_and_sample_alone() -> None:
    batch = grey(samples=6, side=8)
    out = ClipAugment(8, noise=0.1, seed=1)(batch)
    again = ClipAugment(8, noise=0.1, seed=1)({key: value[2:4] for key, value in batch.items()})
    assert all(torch.equal(again[key], out[key][2:4]) for key in again)
    deviations = out["first"].flatten(1).std(1) / 2
    assert 0 < float(deviations.min()) < 0.05 < float(deviations.max()) < 0.12  # each sample has its own
    assert not torch.equal(ClipAugment(8, noise=0.1, seed=2)(batch)["first"], out["first"])


@pytest.mark.parametrize("name", ["upside_down", "exposure", "noise"])
def test_shares_outside_of_their_range_are_reported(name: str) -> None:
    with pytest.raises(AnimegenError, match=rf"data\.(augment\.)?{name}=1.5 is not valid: it must be from 0 to 1"):
        ClipAugment(8, **{name: 1.5})


@pytest.mark.parametrize("data", ["between", "folders", "mixed", "toonworld"])
def test_the_options_of_the_data_reach_the_augmentation(data: str) -> None:
    words = [f"data=triplets/{data}", "data.exposure=0.1", "data.noise=0.02", "++data.folder=clips"]
    augment = compose_config("train", ["experiment=interpolation/quickstart", *words]).data.augment
    assert (augment.exposure, augment.noise) == (0.1, 0.02)
    off = compose_config("train", ["experiment=interpolation/quickstart", words[0], words[3]]).data.augment
    assert (off.exposure, off.noise) == (0.0, 0.0)
