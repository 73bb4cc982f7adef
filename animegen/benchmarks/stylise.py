"""Stylization of photos: scores beside known drawings, or beside the style's stills."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from animegen.benchmarks.baselines import Baseline, BestLookupTable, Identity, LinearColourTransfer
from animegen.benchmarks.benchmark import Benchmark, Measured, Method, spread
from animegen.data.sources import ImageSource
from animegen.errors import AnimegenError
from animegen.media.images import to_float
from animegen.metrics import image
from animegen.metrics.distribution import SetDistance, fid, kid, pool
from animegen.metrics.perceptual import LPIPSMetric, PerceptualDistance
from animegen.nn.features import FeatureExtractor


class TestSet(Protocol):
    """Numbered samples in a fixed order, such as a `View` with `shuffle=False`."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Return uint8 images (3, H, W) by batch key, all samples of one size."""
        ...


class StyliseBenchmark(Benchmark):
    """Stylization of photos: scores methods (B, 3, H, W) in [-1, 1] -> the same.

    Where the drawing of each test photo is known (a `PairedView`; ToonWorld), outputs are compared with it. Otherwise
    the set of outputs is compared with the style's stills, and each output with its photo. Distances between sets are
    computed in both cases if there are stills and a feature extractor, and enough images (see `fid`).

    Args:
        test: samples with `photo`, or `photo` and its drawing `anime`; not shuffled.
        train_photos: photos to which the baselines are fitted.
        train_animes: anime images to which the baselines are fitted, not paired with the photos.
        train_truths: the drawings of `train_photos` in the same order; the best look-up table needs them.
        stills: held-out samples with `anime` in the style; required for an unpaired test set.
        paired: whether `anime` of a test sample is the drawing of its `photo`.
        extractor: network for feature distances; None omits these metrics.
        lpips: LPIPS; None omits it.
        batch_size: images per batch.
        limit: number of test photos and of stills to use, evenly spread; None for all.

    Raises:
        AnimegenError: if there are neither drawings nor stills.
    """

    task = "stylise"

    def __init__(
        self,
        test: TestSet,
        train_photos: ImageSource,
        train_animes: ImageSource,
        train_truths: ImageSource | None = None,
        stills: TestSet | None = None,
        paired: bool = True,
        extractor: FeatureExtractor | None = None,
        lpips: LPIPSMetric | None = None,
        batch_size: int = 8,
        limit: int | None = None,
    ) -> None:
        super().__init__()
        if not paired and stills is None:
            raise AnimegenError(
                "A stylise benchmark without the drawings of its test photos needs stills of the style to compare with:"
                " give stills=, or a paired test set."
            )
        for name, samples in (("test", test), ("stills", stills)):
            if samples is not None and (len(samples) == 0 or getattr(samples, "shuffle", False)):
                raise AnimegenError(
                    f"The {name} set must have samples in a fixed order: use a view with shuffle=False."
                )
        self.test, self.stills, self.paired = test, stills, paired
        self.train_photos, self.train_animes, self.train_truths = train_photos, train_animes, train_truths
        self.perceptual = PerceptualDistance(extractor) if extractor else None
        self.lpips, self.batch_size, self.limit = lpips, batch_size, limit
        if paired:
            self.main = "ssim"
        else:
            self.main = f"kid_{extractor.name}" if extractor else "flatness_gap"
        self._stills_flatness: float | None = None
        self._stills_pooled: Tensor | None = None
        self._photos_pooled: Tensor | None = None

    def fit_baselines(self) -> dict[str, Method]:
        """Fit identity, linear colour transfer and, if the training photos have drawings, the best look-up table."""
        fitted: list[Baseline] = [Identity(), LinearColourTransfer().fit(self.train_photos, self.train_animes)]
        if self.train_truths is not None:
            fitted.append(BestLookupTable().fit(self.train_photos, self.train_truths))
        return {baseline.name: baseline for baseline in fitted}

    def batches(self, device: torch.device, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield float batches with `photo`, `anime` if paired, and `features` of the references."""
        self._move(device)
        numbers = spread(spread(range(len(self.test)), self.limit), limit)
        for batch in _load(self.test, numbers, self.batch_size, device):
            if self.paired and "anime" not in batch:
                raise AnimegenError(
                    "The test samples have no 'anime' to compare with: take a paired view, or set paired=false."
                )
            if self.perceptual:
                batch["features"] = self.perceptual.features(batch["anime" if self.paired else "photo"])
            yield batch

    def apply(self, method: Method, batch: dict[str, Any]) -> Tensor:
        """Stylise the photos."""
        return method(batch["photo"])

    def shown(self, batch: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Show the photo, and the drawing if it is known."""
        return {"photo": batch["photo"]}, {"truth": batch["anime"]} if self.paired else {}

    def measure(self, batch: dict[str, Any], output: Tensor) -> Measured:
        """Compare with the drawing, otherwise with the photo and the flatness of the stills."""
        values = self._against_truth(batch, output) if self.paired else self._against_photo(batch, output)
        if self.perceptual is None:
            return Measured(values)
        features = self.perceptual.features(output)
        name = self.perceptual.name if self.paired else self.perceptual.name.replace("perceptual_", "content_", 1)
        values[name] = self.perceptual.between(features, batch["features"])
        return Measured(values, pool(features[self.perceptual.layers[-1]]) if self.stills else None)

    def measure_sets(self, kept: Tensor) -> dict[str, SetDistance | None]:
        """Compare the set of outputs with the stills and with the photos."""
        assert self.perceptual is not None
        assert self._stills_pooled is not None
        assert self._photos_pooled is not None
        network = self.perceptual.extractor.name
        return {
            f"{prefix}{distance.__name__}_{network}": distance(reference, kept)
            for prefix, reference in (("", self._stills_pooled), ("photo_", self._photos_pooled))
            for distance in (fid, kid)
        }

    def _against_truth(self, batch: dict[str, Any], output: Tensor) -> dict[str, Tensor]:
        truth, flat = batch["anime"], image.flatness(output)
        values = {
            "psnr": image.psnr(output, truth),
            "ssim": image.ssim(output, truth),
            "edge_f": image.edge_f_score(output, truth),
            "flatness": flat,
            "flatness_gap": (flat - image.flatness(truth)).abs(),
            "colour_distance": image.colour_distance(output, truth),
        }
        return values if self.lpips is None else {**values, self.lpips.name: self.lpips(output, truth)}

    def _against_photo(self, batch: dict[str, Any], output: Tensor) -> dict[str, Tensor]:
        assert self._stills_flatness is not None
        photo, values = batch["photo"], figures(output, batch["photo"])
        return {
            **values,
            "flatness_gap": (values["flatness"] - self._stills_flatness).abs(),
            "content_edge_f": image.edge_f_score(output, photo),
            "chroma_ratio": image.chroma_ratio(output, photo),
            "high_frequency_ratio": image.high_frequency_ratio(output, photo),
            "checkerboard": image.checkerboard(output),
        }

    def _move(self, device: torch.device) -> None:
        """Move the networks to the device; on the first call, compute the features of the reference sets."""
        for network in (self.perceptual, self.lpips):
            if network is not None:
                network.to(device)
        if self.stills is None or self._stills_flatness is not None:
            return
        flat: list[Tensor] = []
        pooled: dict[str, list[Tensor]] = {"anime": [], "photo": []}
        for key, samples in (("anime", self.stills), ("photo", self.test)):
            for batch in _load(samples, spread(range(len(samples)), self.limit), self.batch_size, device):
                if key == "anime":
                    flat.append(image.flatness(batch[key]))
                if self.perceptual:
                    pooled[key].append(pool(self.perceptual.features(batch[key])[self.perceptual.layers[-1]]))
        self._stills_flatness = float(torch.cat(flat).mean())
        if self.perceptual:
            self._stills_pooled, self._photos_pooled = torch.cat(pooled["anime"]), torch.cat(pooled["photo"])


def figures(output: Tensor, photo: Tensor) -> dict[str, Tensor]:
    """Return the five figures of a drawn photo: is it flat, inked, still sharp, in the photo's colours, not clipped?"""
    return {
        "flatness": image.flatness(output),
        "ink": image.ink(output),
        "texture": image.texture(output),
        "colour_change": image.colour_change(output, photo),
        "clipped": image.clipped(output),
    }


def _load(samples: TestSet, numbers: Sequence[int], batch_size: int, device: torch.device) -> Iterator[dict[str, Any]]:
    """Yield the images of samples in batches, float in [-1, 1] on the device."""
    for start in range(0, len(numbers), batch_size):
        chosen = [samples[number] for number in numbers[start : start + batch_size]]
        pictures = [key for key, value in chosen[0].items() if value.dtype == torch.uint8]
        yield {key: to_float(torch.stack([sample[key] for sample in chosen]).to(device)) for key in pictures}
