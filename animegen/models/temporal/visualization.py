"""What is shown and scored while the temporal model learns."""

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
    """The motion between neighbours of one clip that came with the data."""

    name = "given"

    def __init__(self, flow: Tensor, valid: Tensor) -> None:
        self.flow, self.valid = flow, valid

    def between(self, first: int, second: int) -> Motion:
        """Return the motion from a frame to the one before."""
        if second != first - 1:
            raise ValueError("only the motion into the frame before is known")
        flow = self.flow[first - 1][None].float()
        return Motion(flow, (self.valid[first - 1][None] > 0) & inside(flow))


def frame_scores(output: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Return scores (B*T,) of drawn clips against the truth."""
    mine, theirs = output.flatten(0, 1), truth.flatten(0, 1)
    return {
        "psnr": psnr(mine, theirs),
        "ssim": ssim(mine, theirs),
        "edge_f": edge_f_score(mine, theirs),
        "flatness_gap": (flatness(mine) - flatness(theirs)).abs(),
    }


def clip_scores(output: Tensor, truth: Tensor | None, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return warping errors (B,) in levels along the motion in the batch, and by how much they exceed the truth's."""
    if "flow" not in batch or output.shape[1] < 2:
        return {}
    motions = [GivenMotion(flow, valid) for flow, valid in zip(batch["flow"], batch["valid"], strict=True)]

    def errors(clips: Tensor) -> Tensor:
        return torch.stack([warp_errors(c.float(), m).nanmean() for c, m in zip(clips, motions, strict=True)])

    mine = errors(output)
    return {"warp_error": mine} if truth is None else {"warp_error": mine, "warp_excess": mine - errors(truth)}


def attention_picture(generator: TemporalGenerator, frames: Tensor) -> dict[str, Tensor]:
    """Return where in the (default) style each place of frames (B,3,H,W) reads, as colours; empty without attention.

    Red and green are the mean row and column of the tokens that are read, blue how much the likeliest one counts.
    """
    if not any(block.kind == "attention" for block in generator.fusion):
        return {}
    pictures: list[Tensor] = []

    def network(images: Tensor) -> Tensor:
        aux: dict[str, Tensor] = {}
        flow = torch.zeros_like(images[:, :2]).unsqueeze(1) if generator.needs_flow else None
        drawn, _ = generator(images.unsqueeze(1), flow=flow, aux=aux)
        shares = aux["attention"][:, 0].float()  # (B,HW/64,K)
        place = torch.linspace(-1, 1, GRID, device=shares.device)
        rows, columns = place.repeat_interleave(GRID), place.repeat(GRID)
        peak = shares.amax(-1)
        seen = torch.stack([shares @ rows, shares @ columns, peak / peak.amax().clamp_min(1e-8) * 2 - 1], 1)
        small = seen.unflatten(2, (images.shape[-2] // 8, images.shape[-1] // 8))
        pictures.append(torch.nn.functional.interpolate(small, images.shape[-2:]))
        return drawn.squeeze(1)

    pad_and_crop(network, frames, generator.factor)
    return {"attention": pictures[-1][..., : frames.shape[-2], : frames.shape[-1]].clamp(-1, 1)}


def mask_picture(generator: TemporalGenerator, clips: Tensor) -> dict[str, Tensor]:
    """Return how much of the last frame of clips (B,T,3,H,W) is new, white for all, and not composed of the one before.

    Empty if the generator does not compose, or nothing came before.
    """
    if generator.composition is None or clips.shape[1] < 2:
        return {}
    masks: list[Tensor] = []

    def network(frames: Tensor) -> Tensor:
        aux: dict[str, Tensor] = {}
        pair = frames.unflatten(1, (2, 3))
        drawn, _ = generator(pair, flow=estimated_flow(pair), aux=aux)
        masks.append(aux["mask"][:, 1].expand(-1, 3, -1, -1) * 2 - 1)
        return drawn[:, 1]

    pad_and_crop(network, clips[:, -2:].flatten(1, 2), generator.factor)
    return {"mask": masks[-1][..., : clips.shape[-2], : clips.shape[-1]]}
