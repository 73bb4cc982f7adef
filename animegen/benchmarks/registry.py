"""Registry of metrics (unit, direction, description) and of baselines that use the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from animegen.benchmarks.baselines import BestLookupTable

PRIVILEGED = frozenset(
    {BestLookupTable.name, "nearest_key", "flow_key", "truth", "reconstruction", "reconstruction_rendered"}
    | {"uniform_motion_rendered", "exact_motion_rendered"}
)
"""Names of baselines that use the truth, which a model never sees: true drawings (of training images, or of the clip
itself), or true motion."""


@dataclass(frozen=True)
class MetricInfo:
    """Description of a metric.

    Attributes:
        unit: unit, or "" for a pure number.
        better: direction in which values improve; "none" for a descriptive value.
        description: short definition.
        digits: decimals to show.
    """

    unit: str
    better: Literal["higher", "lower", "none"]
    description: str
    digits: int = 3


METRICS: dict[str, MetricInfo] = {
    "psnr": MetricInfo("dB", "higher", "peak signal-to-noise ratio against the truth", 2),
    "ssim": MetricInfo("", "higher", "structural similarity to the truth"),
    "ssim_atd_legacy": MetricInfo("", "higher", "SSIM as the tables on ATD-12K have it: uniform window, range 2"),
    "ie": MetricInfo("levels", "lower", "interpolation error: mean length of the colour difference", 2),
    "edge_f": MetricInfo("", "higher", "F-score of Canny edges against the truth's"),
    "chamfer": MetricInfo(
        "1e-5", "lower", "Chamfer distance between the lines of output and truth, over the diagonal", 1
    ),
    "nedt": MetricInfo("1e-3", "lower", "mean difference of the normalised distances to the lines (NEDT)", 1),
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
    "ink": MetricInfo("", "none", "share of pixels darker than the median of 11x11 pixels by more than 25 levels"),
    "texture": MetricInfo("levels", "none", "mean distance of the luma from its blur (sigma 1.5)", 1),
    "colour_change": MetricInfo("Delta E", "lower", "CIE Lab distance from the photo, both blurred (sigma 6)", 1),
    "clipped": MetricInfo("", "lower", "share of channel values that are 0 or 255"),
    "gain_over_": MetricInfo("dB", "higher", "PSNR above that of the named baseline", 2),
    "psnr_at_": MetricInfo("dB", "higher", "PSNR of the frame of that number in the clip", 2),
    "ssim_at_": MetricInfo("", "higher", "structural similarity of the frame of that number in the clip"),
    "arrival": MetricInfo("levels", "none", "jump from the frame before the last to the last, above the truth's", 2),
    "arrival_error": MetricInfo("levels", "lower", "distance of the jump to the last frame from the truth's own", 2),
    "motion_ratio": MetricInfo("", "none", "change from frame to frame over the truth's; 0 is a still", 2),
    "apart": MetricInfo("levels", "none", "difference of the clips that were drawn between the same two frames", 2),
    "from_truth": MetricInfo("levels", "lower", "difference of these clips from the truth", 2),
    "closest": MetricInfo("levels", "lower", "difference of the closest of these clips from the truth", 2),
    "psnr_best": MetricInfo("dB", "higher", "PSNR of the best of these clips", 2),
    "fvd_": MetricInfo("", "lower", "Frechet distance from the true clips in features of the named network", 2),
    "strength": MetricInfo("", "none", "1 - SSIM of the luma against the photo: how much the look was changed"),
    "strength_": MetricInfo("", "none", "distance from the photo in features of the named network"),
    "strength_colour": MetricInfo("Delta E", "none", "mean CIE Lab distance from the photo", 1),
    "strength_edges": MetricInfo("", "none", "1 - F-score of Canny edges against the photo's"),
    "warp_error_": MetricInfo("levels", "none", "warping error over that many frames along the flow in the name", 2),
    "warp_excess_": MetricInfo("levels", "none", "warping error above the truth's own; negative is smoothed", 2),
    "warp_gap_": MetricInfo("levels", "lower", "distance of the warping error from the truth's own", 2),
    "warp_over_truth_": MetricInfo("", "none", "warping error over the truth's own; above 1 it flickers more", 2),
    "warp_ratio_": MetricInfo("", "none", "warping error over the video's own; blur and identity lower it, too", 2),
    "flicker_": MetricInfo("levels", "none", "distance of frames from the mean of their neighbours along the flow", 2),
    "flicker_excess_": MetricInfo("levels", "none", "flicker above the truth's own; negative is smoothed", 2),
    "flicker_gap_": MetricInfo("levels", "lower", "distance of the flicker from the truth's own", 2),
    "tof_": MetricInfo("px", "lower", "difference of the motion between frames from the truth's, by the named flow"),
    "tof_in_": MetricInfo("px", "none", "difference of the motion between frames from the video's, by the named flow"),
    "tlp_": MetricInfo("", "lower", "100 x difference of the change between frames from the truth's, named features"),
    "tlp_in_": MetricInfo("", "none", "100 x difference of the change between frames from the video's, named features"),
    "static_flicker": MetricInfo("levels", "lower", "change from frame to frame on a still image", 2),
    "noise_gain": MetricInfo("", "lower", "deviation over time of the output over that of a noisy still input", 2),
    "drift_colour": MetricInfo("levels", "lower", "drift per 100 frames of a loop: largest slope of mean Y, U, V", 2),
    "drift_detail": MetricInfo("levels", "none", "drift per 100 frames of a loop: of fine detail; negative blurs", 2),
    "ping_pong": MetricInfo("levels", "lower", "difference of the outputs on the way there and back", 2),
    "cut_leak": MetricInfo("levels", "lower", "influence of the shot before a marked cut: must be 0", 4),
    "cut_leak_unmarked": MetricInfo("levels", "none", "influence of the shot before an unmarked cut", 2),
}
"""All metrics by name. A key that ends in "_" is the prefix of names that end in the name of a network or flow."""


def metric_info(name: str) -> MetricInfo:
    """Return the entry of `METRICS` for a metric's full name; the longest matching prefix counts."""
    if name in METRICS:
        return METRICS[name]
    families = [key for key in METRICS if key.endswith("_") and name.startswith(key)]
    if not families:
        raise KeyError(f"no metric '{name}' in METRICS")
    return METRICS[max(families, key=len)]
