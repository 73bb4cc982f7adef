"""Training of the temporal generator."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from animegen.data.edge_smoothing import edge_smooth
from animegen.engine.environment import Environment
from animegen.engine.module import Updates
from animegen.errors import AnimegenError, did_you_mean
from animegen.models.temporal.application import TemporalStyliser
from animegen.models.temporal.looks import LookColours, check_looks, colours_of
from animegen.models.temporal.networks.generator import TemporalGenerator
from animegen.models.temporal.networks.state import Style, TemporalState
from animegen.models.temporal.windows import (
    Disturbance,
    TrainingStage,
    apply_stage,
    as_windows,
    estimated_flow,
    motion_of,
    set_trainable_part,
    sorted_stages,
    stage_at,
)
from animegen.nn.colour import LinearColourTransfer, gray
from animegen.nn.degradation import PhotoDegradation
from animegen.nn.discriminators3d import SHORTEST, TemporalPatchGAN
from animegen.tasks.adversarial import MakeImages, joint_logits, refiner_updates
from animegen.tasks.stylize import split_batches

#: Interval, in train steps, at which the singular values of the clip discriminator are clipped (code of TGAN).
CLIP_EVERY = 5

#: Output of the generator -> the context entries that depend on it.
OUTPUTS = {
    "fake": ("fake", "clip", "maps", "forth", "back", "fake_logits", "fake_gray_logits", "clip_logits", "rebuilt"),
    "restored": ("restored", "restored_clip", "restored_logits"),
    "identity": ("identity",),
    "noisy": ("noisy",),
}
#: Sources of the optical flow for memory and composition in training.
MEMORY_FLOWS = ("given", "estimated")
NETWORKS = ("discriminator", "temporal_discriminator", "reverse", "photo_discriminator", "refiner")


class TemporalAnime(TemporalStyliser):
    """Unpaired, temporally consistent video stylization in the style of reference images.

    One forward pass of the generator per step serves all updates. Windows are ``(B,T,3,H,W)``; images without a time
    axis, from ``data=unpaired/*``, are windows of one frame, and the anime images are their style images. For both
    discriminators *anime* is real. Context entries that loss terms may read (frames are (B*T,3,H,W) in [-1,1]):

    ==============================  ================================================================================
    ``fake``, ``photo``, ``anime``  frames: generated, given, and from other clips in the style
    ``photo_coloured``              the photos after linear colour transfer to the anime set
    ``restored``, ``identity``      generator(anime degraded, and refined, to resemble photos); generator(anime)
    ``style``                       the style image of each frame
    ``clip``, ``photo_clip``        windows (B,T,3,H,W): generated, given; ``restored_clip``, ``anime_clip``
    ``flow``, ``valid``             motion to the previous frame; ``flow_first``, ``valid_first``: to the first one
    ``maps``                        the feature maps before the style is applied, (B,T,C,H/8,W/8)
    ``forth``, ``back``             frames generated forwards, and backwards with the memory of the forward pass
    ``noisy``                       generator(photo with noise)
    ``fake_logits``                 discriminator(fake); likewise ``real_logits``, ``restored_logits``, and
                                    ``smooth_logits`` of edge-smoothed anime
    ``fake_gray_logits``            discriminator(fake in grayscale); ``gray_logits`` of anime in grayscale
    ``clip_logits``                 temporal_discriminator(clip); likewise ``real_clip_logits``
    ``rebuilt``                     reverse(fake), the reconstructed photo (CycleGAN)
    ``rebuilt_anime``               generator(reverse(anime))
    ``unstyled_logits``             photo_discriminator(reverse(anime)); ``photo_logits`` of photos
    ``degraded``                    degraded anime (refiner only)
    ``refined``                     refiner(degraded) (refiner only)
    ``refined_logits``              photo_discriminator(refined) (refiner and photo discriminator only)
    ==============================  ================================================================================

    The ``start`` of terms defines phases. A discriminator or refiner is updated in steps in which its objective has an
    active term, the temporal discriminator only for windows of at least three frames. Photos are stylised in steps in
    which an active term needs the output. If all such terms have the same ``every``, only anime is restored in the
    steps between.

    Args:
        generator: a :class:`~animegen.models.temporal.networks.TemporalGenerator`.
        discriminator: discriminator of frames, or ``None``.
        temporal_discriminator: discriminator of clips, or ``None``.
        reverse: generator from anime to photo for the cycle, or ``None``.
        photo_discriminator: discriminator of the outputs of ``reverse`` and of the refiner.
        degradation: makes the input of ``restored``.
        refiner: makes degraded drawings more similar to photos before they are restored, see
            :class:`~animegen.nn.refiner.Refiner`.
        disturbance: random cuts and resets within windows.
        stages: stages of the training by name, see :class:`~animegen.models.temporal.windows.TrainingStage`.
        looks: number of looks of the data (``data.styles``), each with its own colour transfer.
        default_share: fraction of the samples that are stylised in the default style, which is trained this way.
        state_noise: standard deviation of noise on the carried hidden maps.
        grain: largest standard deviation, as a fraction of the intensity range, of noise on windows of several frames
            in the input of ``fake`` and ``restored``: a random strength per window and independent noise per frame,
            which only a memory can average. Loss terms read the photos without noise.
        memory_flow: flow for memory and composition in training: ``given``, the flow of the batch (zero for anime
            clips), or ``estimated``, DIS flow of the generator's input, as in application.
        tbptt: number of frames after which gradients through time are truncated; 0 for never.
        still_size: shorter side to which style images are resized in application: the size in training.
        **settings: see :class:`~animegen.engine.module.AnimeModule`.

    Raises:
        AnimegenError: for settings that cannot be combined.
    """

    training_only = (
        *("discriminator", "temporal_discriminator", "reverse", "photo_discriminator", "degradation", "refiner"),
        *("disturbance", "stages", "state_noise", "grain", "tbptt"),
    )

    def __init__(
        self,
        generator: TemporalGenerator,
        discriminator: nn.Module | None = None,
        temporal_discriminator: TemporalPatchGAN | None = None,
        reverse: TemporalGenerator | None = None,
        photo_discriminator: nn.Module | None = None,
        degradation: PhotoDegradation | None = None,
        refiner: nn.Module | None = None,
        disturbance: Disturbance | None = None,
        stages: Mapping[str, TrainingStage | None] | None = None,
        looks: int = 1,
        default_share: float = 0.5,
        state_noise: float = 0.0,
        grain: float = 0.0,
        memory_flow: str = "given",
        tbptt: int = 0,
        still_size: int = 256,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.generator = generator
        self.discriminator, self.temporal_discriminator = discriminator, temporal_discriminator
        self.reverse, self.photo_discriminator = reverse, photo_discriminator
        self.degradation, self.disturbance = degradation, disturbance or Disturbance()
        self.refiner, self.stages = refiner, sorted_stages(stages)
        for stage in (*self.stages, None):  # reports wrong names now; the last call makes everything trainable
            set_trainable_part(generator, stage)
        if not 0 <= default_share <= 1 or min(state_noise, grain, tbptt) < 0:
            raise AnimegenError(
                "model.default_share must be from 0 to 1; model.state_noise, model.grain and model.tbptt at least 0."
            )
        if memory_flow not in MEMORY_FLOWS:
            raise AnimegenError(
                f"model.memory_flow={memory_flow} is unknown: use {' or '.join(MEMORY_FLOWS)}."
                + did_you_mean(memory_flow, MEMORY_FLOWS)
            )
        self.memory_flow = memory_flow
        self.default_share, self.grain, self.still_size = default_share, grain, still_size
        generator.detach_every, generator.state_noise = tbptt, state_noise
        self.colours = LinearColourTransfer()
        self.more_colours = nn.ModuleList(LinearColourTransfer() for _ in range(looks - 1))
        if refiner is not None and photo_discriminator is None:
            raise AnimegenError("model.refiner needs model.photo_discriminator: set both, or neither.")
        for name in NETWORKS:
            if getattr(self, name) is None and name in self.objectives:
                raise AnimegenError(
                    f"The model has no {name} but an objective for one: delete it with ~model.objectives.{name} and"
                    f" ~model.optimizers.{name}."
                )

    def start_training(self, environment: Environment) -> None:
        """Check that model and data have the same number of looks."""
        check_looks(environment.data, 1 + len(self.more_colours))
        super().start_training(environment)

    # --- training --------------------------------------------------------------------------------------

    def updates(self, batch: dict[str, Tensor]) -> Updates:
        """Yield the updates of the discriminators, the generator, the refiner, and the reverse generator."""
        stage = stage_at(self.stages, self.train_step)
        set_trainable_part(self.generator, stage)
        batch = apply_stage(as_windows(batch), stage)
        self._colours(batch).observe(batch["photo"], batch["anime"])
        batch, reset = self.disturbance(batch)
        generated = self._generate(batch, reset)
        yield from self._discriminator_updates(batch, generated)
        anime = generated["anime"]
        lazy = {
            "fake_logits": lambda: self._logits("discriminator", generated["fake"]),
            "fake_gray_logits": lambda: self._logits("discriminator", gray(generated["fake"])),
            "restored_logits": lambda: self._logits("discriminator", generated["restored"]),
            "clip_logits": lambda: self._clip_logits(generated["clip"]),
            "rebuilt": lambda: self._to_photo(generated["fake"]),
            "rebuilt_anime": lambda: self._stylize_frames(self._to_photo(anime).detach()),
        }
        yield "generator", self.objectives["generator"](**generated, **lazy)
        yield from self._photo_updates(generated)

    def _discriminator_updates(self, batch: dict[str, Tensor], generated: dict[str, Any]) -> Updates:
        """Yield the updates of the discriminators of frames and of clips."""
        anime = generated["anime"]
        if (discriminator := self._trained("discriminator")) is not None:
            images: dict[str, MakeImages] = {
                "real_logits": lambda: anime,
                "fake_logits": lambda: generated["fake"].detach(),
                "restored_logits": lambda: generated["restored"].detach(),
                "smooth_logits": lambda: edge_smooth(anime),
                "gray_logits": lambda: gray(anime),
                "fake_gray_logits": lambda: gray(generated["fake"].detach()),
            }
            objective = self.objectives["discriminator"]
            yield "discriminator", objective(**joint_logits(objective, discriminator, images))
        long_enough = batch["photo"].shape[1] >= SHORTEST
        if long_enough and (discriminator := self._trained("temporal_discriminator")) is not None:
            objective = self.objectives["temporal_discriminator"]
            clips = {"real_clip_logits": lambda: batch["anime"], "clip_logits": lambda: generated["clip"].detach()}
            yield "temporal_discriminator", objective(**joint_logits(objective, discriminator, clips))
            if self.temporal_discriminator is not None and self.train_step % CLIP_EVERY == 0:
                self.temporal_discriminator.clip()

    def _photo_updates(self, generated: dict[str, Any]) -> Updates:
        """Yield the updates of the networks that generate photos, and of the discriminator of photos."""
        photo, anime = generated["photo"], generated["anime"]
        photos: dict[str, MakeImages] = {
            "photo_logits": lambda: photo,
            "unstyled_logits": lambda: self._to_photo(anime).detach(),
        }
        if (discriminator := self._trained("photo_discriminator")) is not None:
            if "refined" in generated and self._trained("refiner") is not None:
                degraded, refined = generated["degraded"], generated["refined"]
                yield from refiner_updates(self.objectives, discriminator, degraded, refined, photos)
            else:
                objective = self.objectives["photo_discriminator"]
                yield "photo_discriminator", objective(**joint_logits(objective, discriminator, photos))
        if self._trained("reverse") is not None:
            entries = {
                "photo": photo,
                "anime": anime,
                "rebuilt": lambda: self._to_photo(generated["fake"].detach()),
                "unstyled_logits": lambda: self._logits("photo_discriminator", self._to_photo(anime)),
            }
            yield "reverse", self.objectives["reverse"](**entries)

    def _generate(self, batch: dict[str, Tensor], reset: Tensor | None) -> dict[str, Any]:
        """Return the context entries; all outputs of the generator that a term reads come from one forward pass."""
        photo, anime = batch["photo"], batch["anime"]
        length = photo.shape[1]
        flat = photo.flatten(0, 1)
        entries: dict[str, Any] = {
            **motion_of(batch),
            "photo_clip": photo,
            "photo": flat,
            "anime_clip": anime,
            "anime": anime.flatten(0, 1),
            "style": batch["style"].repeat_interleave(length, 0),
            "photo_coloured": lambda: self._colours(batch)(flat),
        }
        inputs = self._inputs(batch, entries)
        if not inputs:
            return entries
        joined, slices = split_batches(inputs)
        encoded = self._encode_styles(batch["style"])
        style = Style(*(v.repeat(len(inputs), *(1,) * (v.ndim - 1)) for v in encoded))
        flow, resets = self._flow_for(list(inputs), joined, batch), None
        if reset is not None:
            resets = torch.cat([reset if name in ("fake", "noisy") else torch.zeros_like(reset) for name in inputs])
        aux: dict[str, Tensor] = {}
        output, state = self.generator(joined, style, None, resets, flow, aux, keep=length > 1)
        clips = {name: output[part] for name, part in slices.items()}
        entries |= {name: clip.flatten(0, 1) for name, clip in clips.items()}
        if "restored" in clips:
            entries["restored_clip"] = clips["restored"]
        if "fake" in clips:
            after = state.map(lambda value: value[slices["fake"]])
            back = partial(self._ping_pong, {**batch, "photo": inputs["fake"]}, clips["fake"], after, reset)
            entries |= {"clip": clips["fake"], "maps": aux["bottleneck"][slices["fake"]], "forth": back, "back": back}
        return entries

    def _inputs(self, batch: dict[str, Tensor], entries: dict[str, Any]) -> dict[str, Tensor]:
        """Return the inputs of the generator by output, see `OUTPUTS`; add ``degraded`` and ``refined`` to entries."""
        photo, anime = batch["photo"], batch["anime"]
        inputs = {}
        if self._needs("fake", "noisy"):
            inputs["fake"] = self._add_grain(photo)
        if self._needs("restored"):
            degraded = self._degrade(anime, self._colours(batch))
            if self.refiner is not None:
                entries["degraded"] = degraded.flatten(0, 1)
                with torch.set_grad_enabled(self._trained("refiner") is not None):
                    entries["refined"] = self.refiner(entries["degraded"])
                # Detached: the refiner must not learn to make the restoration easy.
                degraded = entries["refined"].detach().unflatten(0, photo.shape[:2])
            inputs["restored"] = self._add_grain(degraded)
        if self._needs("identity"):
            inputs["identity"] = anime
        if self._needs("noisy"):
            inputs["noisy"] = inputs["fake"] + 0.02 * torch.randn_like(photo)
        return inputs

    def _needs(self, *outputs: str) -> bool:
        """Return whether an active term of any objective needs one of the outputs, see `OUTPUTS`."""
        entries = [entry for output in outputs for entry in OUTPUTS[output]]
        return any(objective.reads(entry) for objective in self.objectives.values() for entry in entries)

    def _add_grain(self, clip: Tensor) -> Tensor:
        """Add noise to clips (B,T,3,H,W) of several frames, with a random strength per clip."""
        if not self.grain or clip.shape[1] < 2:
            return clip
        strength = 2 * self.grain * torch.rand(len(clip), 1, 1, 1, 1, device=clip.device)  # the range [-1,1] has size 2
        return (clip + strength * torch.randn_like(clip)).clamp(-1, 1)

    def _encode_styles(self, stills: Tensor) -> Style:
        """Encode the style images of a batch; a random subset is replaced by the default style."""
        encoder = self.generator.style
        default = encoder.default(len(stills))
        selected = (torch.rand(len(stills), device=stills.device) >= self.default_share).nonzero().squeeze(1)
        if len(selected) == 0:
            return default
        given = encoder(stills[selected])
        return Style(*(d.index_copy(0, selected, g.to(d.dtype)) for d, g in zip(default, given, strict=True)))

    def _colours(self, batch: dict[str, Tensor]) -> LookColours:
        return colours_of([self.colours, *self.more_colours], batch)

    def _degrade(self, clip: Tensor, colours: LookColours) -> Tensor:
        """Degrade clips (B,T,3,H,W), with the same parameters for all frames of a clip, except for noise."""
        if self.degradation is None:
            raise AnimegenError("A loss term reads 'restored', but the model has no model.degradation: set it.")
        length, height = clip.shape[1], clip.shape[3]
        # The frames are stacked to one tall image, so that equal colours of a clip are degraded equally.
        tall = clip.transpose(1, 2).flatten(2, 3)
        return self.degradation(tall, colours, length).unflatten(2, (length, height)).transpose(1, 2)

    def _flow_for(self, names: list[str], joined: Tensor, batch: dict[str, Tensor]) -> Tensor | None:
        """Return the flow (N,T,2,H,W) for all inputs (N,T,3,H,W), if the generator needs it.

        Args:
            names: names of the inputs.
            joined: the inputs, concatenated.
            batch: the batch with the motion of the photos.
        """
        if not self.generator.needs_flow:
            return None
        if self.memory_flow == "estimated":
            return estimated_flow(joined)
        photo = batch["photo"]
        still = torch.zeros_like(photo[:, :, :2])
        if photo.shape[1] > 1:
            if "flow" not in batch:
                raise AnimegenError(
                    "The generator needs optical flow, which the data do not have: use data=styled_clips/*."
                )
            moving = torch.cat([still[:, :1], batch["flow"].to(photo.dtype)], 1)
        else:
            moving = still
        # The motion of anime clips is unknown.
        return torch.cat([moving if name in ("fake", "noisy") else still for name in names])

    def _ping_pong(
        self, batch: dict[str, Tensor], clip: Tensor, state: TemporalState, reset: Tensor | None
    ) -> dict[str, Tensor]:
        """Stylise the window backwards from its second to last frame, with the memory of the forward pass.

        A reset before a frame in the forward pass is a reset after that frame in the backward pass.
        """
        if clip.shape[1] < 2:
            return {"forth": clip.flatten(0, 1), "back": clip.flatten(0, 1)}
        photos, flow = batch["photo"].flip(1), None
        if self.generator.needs_flow and self.memory_flow == "estimated":
            flow = estimated_flow(photos)[:, 1:]
        elif self.generator.needs_flow:  # an approximation: the negated flow
            flow = -batch["flow"].flip(1).to(clip.dtype)
        again = None if reset is None else reset[:, 1:].flip(1)
        back, _ = self.generator(photos[:, 1:], None, state, again, flow)
        return {"forth": clip[:, :-1].flatten(0, 1), "back": back.flip(1).flatten(0, 1)}

    def _stylize_frames(self, frames: Tensor) -> Tensor:
        """Stylise single frames (N,3,H,W) in the default style."""
        clip = frames.unsqueeze(1)
        flow = torch.zeros_like(clip[:, :, :2]) if self.generator.needs_flow else None
        return self.generator(clip, None, flow=flow)[0].squeeze(1)

    def _to_photo(self, frames: Tensor) -> Tensor:
        if self.reverse is None:
            raise AnimegenError(
                "A loss term reads the reconstructed photo, but the model has no model.reverse: set it."
            )
        return self.reverse(frames.unsqueeze(1))[0].squeeze(1)

    # --- discriminators --------------------------------------------------------------------------------

    def _trained(self, name: str) -> nn.Module | None:
        """Return a network if the model has it and it is updated in this step."""
        network = getattr(self, name)
        if network is None or not self.objectives[name].active():
            return None
        return network

    def _logits(self, name: str, images: Tensor) -> Tensor:
        network = getattr(self, name)
        if network is None:
            raise AnimegenError(f"A loss term reads logits of the {name}, which the model does not have: delete it.")
        return network(images)

    def _clip_logits(self, clip: Tensor) -> Tensor:
        """Return logits of clips; zeros, without gradient, for clips that are too short for the discriminator."""
        if clip.shape[1] < SHORTEST:
            return clip.new_zeros(len(clip), 1)
        return self._logits("temporal_discriminator", clip)
