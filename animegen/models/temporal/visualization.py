"""Validation scores and preview images of the temporal model."""

from __future__ import annotations

import torch
from torch import Tensor

from animegen.media.video.flow import Motion
from animegen.metrics.image import edge_f_score, flatness, psnr, ssim
from animegen.metrics.video import warp_errors
from animegen.models.temporal.networks.generator import TemporalGenerator
from animegen.models.temporal.networks.style import GRID
from animegen.models.temporal.windows import estimated_flow
from animegen.nn.warp import inside
from animegen.tasks.stylize import pad_and_crop


class GivenMotion:
    """The motion between consecutive frames of one clip, as given by the data."""

    name = "given"

    def __init__(self, flow: Tensor, valid: Tensor) -> None:
        self.flow, self.valid = flow, valid

    def between(self, first: int, second: int) -> Motion:
        """Return the motion from a frame to the previous one."""
        if second != first - 1:
            raise ValueError("only the motion to the previous frame is known")
        flow = self.flow[first - 1][None].float()
        return Motion(flow, (self.valid[first - 1][None] > 0) & inside(flow))


def frame_scores(output: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Return scores (B*T,) of clips against the ground truth."""
    outputs, truths = output.flatten(0, 1), truth.flatten(0, 1)
    return {
        "psnr": psnr(outputs, truths),
        "ssim": ssim(outputs, truths),
        "edge_f": edge_f_score(outputs, truths),
        "flatness_gap": (flatness(outputs) - flatness(truths)).abs(),
    }


def clip_scores(output: Tensor, truth: Tensor | None, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return warping errors (B,) in levels of 255 along the motion of the batch, and their excess over the truth."""
    if "flow" not in batch or output.shape[1] < 2:
        return {}
    motions = [GivenMotion(flow, valid) for flow, valid in zip(batch["flow"], batch["valid"], strict=True)]

    def errors(clips: Tensor) -> Tensor:
        return torch.stack([warp_errors(c.float(), m).nanmean() for c, m in zip(clips, motions, strict=True)])

    error = errors(output)
    return {"warp_error": error} if truth is None else {"warp_error": error, "warp_excess": error - errors(truth)}


def attention_image(generator: TemporalGenerator, frames: Tensor) -> dict[str, Tensor]:
    """Return the attention of frames (B,3,H,W) to the tokens of the default style as colours; empty without attention.

    Red and green are the mean row and column of the tokens, blue is the largest attention weight.
    """
    if not any(block.kind == "attention" for block in generator.fusion):
        return {}
    images: list[Tensor] = []

    def network(photos: Tensor) -> Tensor:
        aux: dict[str, Tensor] = {}
        flow = torch.zeros_like(photos[:, :2]).unsqueeze(1) if generator.needs_flow else None
        output, _ = generator(photos.unsqueeze(1), flow=flow, aux=aux)
        weights = aux["attention"][:, 0].float()  # (B,HW/64,K)
        coordinate = torch.linspace(-1, 1, GRID, device=weights.device)
        rows, columns = coordinate.repeat_interleave(GRID), coordinate.repeat(GRID)
        peak = weights.amax(-1)
        colours = torch.stack([weights @ rows, weights @ columns, peak / peak.amax().clamp_min(1e-8) * 2 - 1], 1)
        small = colours.unflatten(2, (photos.shape[-2] // 8, photos.shape[-1] // 8))
        images.append(torch.nn.functional.interpolate(small, photos.shape[-2:]))
        return output.squeeze(1)

    pad_and_crop(network, frames, generator.size_divisor)
    return {"attention": images[-1][..., : frames.shape[-2], : frames.shape[-1]].clamp(-1, 1)}


def mask_image(generator: TemporalGenerator, clips: Tensor) -> dict[str, Tensor]:
    """Return the composition mask of the last frame of clips (B,T,3,H,W): white for new, black for reused pixels.

    Empty if the generator does not compose outputs, or the clips have one frame.
    """
    if generator.composition is None or clips.shape[1] < 2:
        return {}
    masks: list[Tensor] = []

    def network(frames: Tensor) -> Tensor:
        aux: dict[str, Tensor] = {}
        pair = frames.unflatten(1, (2, 3))
        output, _ = generator(pair, flow=estimated_flow(pair), aux=aux)
        masks.append(aux["mask"][:, 1].expand(-1, 3, -1, -1) * 2 - 1)
        return output[:, 1]

    pad_and_crop(network, clips[:, -2:].flatten(1, 2), generator.size_divisor)
    return {"mask": masks[-1][..., : clips.shape[-2], : clips.shape[-1]]}
