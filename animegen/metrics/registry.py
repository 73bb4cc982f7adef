"""What the names in a benchmark's result mean: units and directions of metrics, and which baselines see the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from animegen.metrics.baselines import BestLookupTable

PRIVILEGED = frozenset({BestLookupTable.name, "nearest_key", "flow_key", "truth"})
"""Names of baselines that are made with true drawings (of training pictures, or of the very clip: key frames, the truth
itself), which an unpaired model never sees."""


@dataclass(frozen=True)
class MetricInfo:
    """How to read a metric.

    Attributes:
        unit: unit, or "" for a pure number.
        better: direction in which values improve; "none" for a figure that describes and does not judge.
        description: what is measured, in a few words.
        digits: decimals worth showing.
    """

    unit: str
    better: Literal["higher", "lower", "none"]
    description: str
    digits: int = 3


METRICS: dict[str, MetricInfo] = {
    "psnr": MetricInfo("dB", "higher", "peak signal-to-noise ratio against the truth", 2),
    "ssim": MetricInfo("", "higher", "structural similarity to the truth"),
    "edge_f": MetricInfo("", "higher", "F-score of Canny edges against the truth's"),
    "chamfer": MetricInfo(
        "1e-5", "lower", "Chamfer distance between the lines of output and truth, over the diagonal", 1
    ),
    "flatness": MetricInfo("", "none", "share of neighbouring pixels of equal colour"),
    "flatness_gap": MetricInfo("", "lower", "distance of the flatness from the drawings'"),
    "colour_distance": MetricInfo("Delta E", "lower", "mean CIE Lab distance from the truth", 1),
    "perceptual_": MetricInfo("", "lower", "distance from the truth in features of the named network"),
    "lpips_": MetricInfo("", "lower", "LPIPS distance from the truth"),
    "fid_": MetricInfo("", "lower", "Frechet distance from the style's stills in features of the named network", 2),
    "kid_": MetricInfo("", "lower", "kernel distance from the style's stills in features of the named network", 4),
    "photo_fid_": MetricInfo("", "none", "Frechet distance from the photos: small = content kept, or little style", 2),
    "photo_kid_": MetricInfo("", "none", "kernel distance from the photos: small = content kept, or little style", 4),
    "content_edge_f": MetricInfo("", "higher", "F-score of Canny edges against the photo's"),
    "content_": MetricInfo("", "lower", "distance from the photo in features of the named network"),
    "chroma_ratio": MetricInfo("", "none", "spread of chroma over the photo's; below 0.5 is a collapse to grey", 2),
    "high_frequency_ratio": MetricInfo("", "none", "energy of fine detail over the photo's; far above 1 is noise", 2),
    "checkerboard": MetricInfo("dB", "lower", "spectral peak at a period of 2 or 4 px; above 6 is a grid", 1),
    "saturation": MetricInfo("", "lower", "share of channel values at the end of the range"),
    "gain_over_": MetricInfo("dB", "higher", "PSNR above that of the named baseline", 2),
    "strength": MetricInfo("", "none", "1 - SSIM of the luma against the photo: how much the look was changed"),
    "warp_error_": MetricInfo("levels", "none", "warping error over 1 (short) or 10 (long) frames, named flow", 2),
    "warp_gap_": MetricInfo("levels", "lower", "distance of the warping error from the truth's own", 2),
    "flicker_": MetricInfo("levels", "none", "distance of frames from the mean of their neighbours along the flow", 2),
    "flicker_gap_": MetricInfo("levels", "lower", "distance of the flicker from the truth's own", 2),
    "tof_": MetricInfo("px", "lower", "difference of the motion between frames from the truth's, by the named flow"),
    "tlp_": MetricInfo("", "lower", "100 x difference of the change between frames from the truth's, named features"),
    "static_flicker": MetricInfo("levels", "lower", "change from frame to frame on a still picture", 2),
    "noise_gain": MetricInfo("", "lower", "deviation over time of the output over that of a noisy still input", 2),
    "ping_pong": MetricInfo("levels", "lower", "difference of the outputs on the way there and back", 2),
    "cut_leak": MetricInfo("levels", "lower", "change of a shot's first frames by the shot before an untold cut", 2),
}
"""How to read every metric. A key that ends in "_" stands for all names that begin so and end in a network's name."""


def metric_info(name: str) -> MetricInfo:
    """Return the entry of `METRICS` for a metric's full name; the longest matching prefix counts."""
    if name in METRICS:
        return METRICS[name]
    families = [key for key in METRICS if key.endswith("_") and name.startswith(key)]
    if not families:
        raise KeyError(f"no metric '{name}' in METRICS")
    return METRICS[max(families, key=len)]
