"""Training of the temporal generator."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from animegen.data.edge_smoothing import edge_smooth
from animegen.engine.module import Updates
from animegen.errors import AnimegenError, did_you_mean
from animegen.models.temporal.application import TemporalStyliser
from animegen.models.temporal.looks import LookColours, check_looks, colours_of
from animegen.models.temporal.networks.generator import TemporalGenerator
from animegen.models.temporal.networks.state import Style, TemporalState
from animegen.models.temporal.windows import (
    Disturbance,
    Stage,
    as_windows,
    estimated_flow,
    in_order,
    learning_part,
    motion_of,
    stage_at,
    staged,
)
from animegen.nn.colour import LinearColourTransfer, gray
from animegen.nn.degradation import PhotoDegradation
from animegen.nn.discriminators3d import SHORTEST, TemporalPatchGAN
from animegen.tasks.adversarial import Make, joint_logits, refining
from animegen.tasks.stylize import split_batches

#: After how many of its updates the singular values of a discriminator are cut (TGAN's code).
CLIP_EVERY = 5

#: What the generator draws -> the context entries for which that is needed.
DRAWN = {
    "fake": ("fake", "clip", "maps", "forth", "back", "fake_logits", "fake_gray_logits", "clip_logits", "rebuilt"),
    "restored": ("restored", "restored_clip", "restored_logits"),
    "identity": ("identity",),
    "noisy": ("noisy",),
}
#: Where the flow that memory and composition follow in training comes from.
MEMORY_FLOWS = ("given", "estimated")
NETWORKS = ("discriminator", "temporal_discriminator", "reverse", "photo_discriminator", "refiner")


class TemporalAnime(TemporalStyliser):
    """Film to anime, steady in time, in the style of stills; learned without pairs.

    One pass of the generator per step serves all updates. Windows are ``(B,T,3,H,W)``; pictures without time, as
    ``data=unpaired/*`` gives them, are windows of one frame, and the anime pictures are their stills. Both
    discriminators see *anime* as real. Context entries that loss terms may read (frames are (B*T,3,H,W) in [-1,1]):

    ==============================  ==================================================================================
    ``fake``, ``photo``, ``anime``  frames: drawn, given, and those of other clips in the style
    ``photo_coloured``              the photos after linear colour transfer to the anime set
    ``restored``, ``identity``      generator(anime degraded, and refined, to look like photos), and generator(anime)
    ``style``                       the still that each frame was given
    ``clip``, ``photo_clip``        windows (B,T,3,H,W): drawn, and given; likewise ``restored_clip``, ``anime_clip``
    ``flow``, ``valid``             motion between neighbours; ``flow_first``, ``valid_first``: to the first frame
    ``maps``                        the maps before the style comes in, (B,T,C,H/8,W/8)
    ``forth``, ``back``             frames drawn on the way there, and on the way back with the memory that they left
    ``noisy``                       generator(photo with noise)
    ``fake_logits``                 discriminator(fake); likewise ``real_logits``, ``restored_logits``, and
                                    ``smooth_logits`` of edge-smoothed anime
    ``fake_gray_logits``            discriminator(fake without colour); ``gray_logits``: of anime without colour
    ``clip_logits``                 temporal_discriminator(clip); ``real_clip_logits`` likewise
    ``rebuilt``                     reverse(fake): the photo again (CycleGAN)
    ``rebuilt_anime``               generator(reverse(anime))
    ``unstyled_logits``             photo_discriminator(reverse(anime)); ``photo_logits``: of photos
    ``degraded``                    anime degraded (refiner only)
    ``refined``                     refiner(degraded) (refiner only); ``refined_logits``: photo_discriminator(refined)
    ==============================  ==================================================================================

    Terms with a ``start`` make phases; a discriminator and the refiner learn on steps on which their objective has an
    active term, the temporal one when windows have three frames. Photos are drawn on steps on which an active term
    needs it: terms with the same ``every`` leave steps between on which anime is restored and nothing else.

    Args:
        generator: a :class:`~animegen.models.temporal.networks.TemporalGenerator`.
        discriminator: of frames, or ``None``.
        temporal_discriminator: of clips, or ``None``.
        reverse: generator from anime to photo for the cycle, or ``None``.
        photo_discriminator: judges what ``reverse`` and the refiner make.
        degradation: makes the input of ``restored``.
        refiner: takes degraded drawings further towards photos before they are restored, see
            :class:`~animegen.nn.refiner.Refiner`.
        disturbance: cuts and cold starts within windows.
        stages: parts of the training by name, see :class:`~animegen.models.temporal.windows.Stage`.
        looks: how many looks the data have (``data.styles``); each has colours of its own.
        default_share: of the samples are drawn in the learned default style, so that it is there when no still is.
        state_noise: standard deviation of noise on what the memory carries.
        grain: largest standard deviation, as a share of the intensity range, of noise on windows of several frames that
            are drawn or restored: its own strength for each window, and its own noise for every frame, which only a
            memory can average. The terms see the photos without it.
        memory_flow: what memory and composition follow in training, if they follow a flow: ``given``, the flow of the
            batch (and none for anime clips, whose motion is not known), or ``estimated``, DIS on what the generator is
            given, as when the model is applied.
        tbptt: gradients go back through so many frames; 0: through all.
        still_size: shorter side to which stills are scaled when the model is applied: what it was trained on.
        settings: see :class:`~animegen.engine.module.AnimeModule`.
    """

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
        stages: Mapping[str, Stage | None] | None = None,
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
        self.refiner, self.stages = refiner, in_order(stages)
        for stage in (*self.stages, None):  # a wrong name is told now; in the end all of it may learn
            learning_part(generator, stage)
        if not 0 <= default_share <= 1 or min(state_noise, grain, tbptt) < 0:
            raise AnimegenError(
                "model.default_share is from 0 to 1, model.state_noise, model.grain and model.tbptt at least 0."
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
            raise AnimegenError("model.refiner learns from model.photo_discriminator: set both, or neither.")
        for name in NETWORKS:
            if getattr(self, name) is None and name in self.objectives:
                raise AnimegenError(
                    f"The model has no {name} but an objective for one: delete it with ~model.objectives.{name} and"
                    f" ~model.optimizers.{name}."
                )

    def on_fit_start(self) -> None:
        """Check that model and data have the same looks."""
        check_looks(getattr(self.trainer, "datamodule", None), 1 + len(self.more_colours))
        super().on_fit_start()

    # --- training --------------------------------------------------------------------------------------

    def updates(self, batch: dict[str, Tensor]) -> Updates:
        """Yield the updates of the discriminators, the generator, the refiner, and the reverse generator."""
        stage = stage_at(self.stages, self.train_step)
        learning_part(self.generator, stage)
        batch = staged(as_windows(batch), stage)
        self._colours(batch).observe(batch["photo"], batch["anime"])
        batch, reset = self.disturbance(batch)
        drawn = self._draw(batch, reset)
        photo, anime = drawn["photo"], drawn["anime"]
        pictures: dict[str, Make] = {
            "real_logits": lambda: anime,
            "fake_logits": lambda: drawn["fake"].detach(),
            "restored_logits": lambda: drawn["restored"].detach(),
            "smooth_logits": lambda: edge_smooth(anime),
            "gray_logits": lambda: gray(anime),
            "fake_gray_logits": lambda: gray(drawn["fake"].detach()),
        }
        if (judge := self._learning("discriminator")) is not None:
            objective = self.objectives["discriminator"]
            yield "discriminator", objective(**joint_logits(objective, judge, pictures))
        if (judge := self._learning("temporal_discriminator")) is not None and batch["photo"].shape[1] >= SHORTEST:
            objective = self.objectives["temporal_discriminator"]
            clips = {"real_clip_logits": lambda: batch["anime"], "clip_logits": lambda: drawn["clip"].detach()}
            yield "temporal_discriminator", objective(**joint_logits(objective, judge, clips))
            if self.temporal_discriminator is not None and self.train_step % CLIP_EVERY == 0:
                self.temporal_discriminator.clip()
        lazy = {
            "fake_logits": lambda: self._judge("discriminator", drawn["fake"]),
            "fake_gray_logits": lambda: self._judge("discriminator", gray(drawn["fake"])),
            "restored_logits": lambda: self._judge("discriminator", drawn["restored"]),
            "clip_logits": lambda: self._judge_clips(drawn["clip"]),
            "rebuilt": lambda: self._reversed(drawn["fake"]),
            "rebuilt_anime": lambda: self._drawn_alone(self._reversed(anime).detach()),
        }
        yield "generator", self.objectives["generator"](**drawn, **lazy)
        photos: dict[str, Make] = {
            "photo_logits": lambda: photo,
            "unstyled_logits": lambda: self._reversed(anime).detach(),
        }
        if (judge := self._learning("photo_discriminator")) is not None:
            if "refined" in drawn and self._learning("refiner") is not None:
                yield from refining(self.objectives, judge, drawn["degraded"], drawn["refined"], photos)
            else:
                objective = self.objectives["photo_discriminator"]
                yield "photo_discriminator", objective(**joint_logits(objective, judge, photos))
        if self._learning("reverse") is not None:
            backward = {
                "photo": photo,
                "anime": anime,
                "rebuilt": lambda: self._reversed(drawn["fake"].detach()),
                "unstyled_logits": lambda: self._judge("photo_discriminator", self._reversed(anime)),
            }
            yield "reverse", self.objectives["reverse"](**backward)

    def _draw(self, batch: dict[str, Tensor], reset: Tensor | None) -> dict[str, Any]:
        """Return the context entries; what a term reads of the generator is drawn in one pass."""
        photo, anime = batch["photo"], batch["anime"]
        count, length = photo.shape[:2]
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
        inputs = {}
        if self._needs("fake", "noisy"):
            inputs["fake"] = self._grained(photo)
        if self._needs("restored"):
            degraded = self._degraded(anime, self._colours(batch))
            if self.refiner is not None:
                entries["degraded"] = degraded.flatten(0, 1)
                with torch.set_grad_enabled(self._learning("refiner") is not None):
                    entries["refined"] = self.refiner(entries["degraded"])
                # Detached: it must not learn to make the generator's task easy.
                degraded = entries["refined"].detach().unflatten(0, (count, length))
            inputs["restored"] = self._grained(degraded)
        if self._needs("identity"):
            inputs["identity"] = anime
        if self._needs("noisy"):
            inputs["noisy"] = inputs["fake"] + 0.02 * torch.randn_like(photo)
        if not inputs:
            return entries
        joined, slices = split_batches(inputs)
        style = Style(*(v.repeat(len(inputs), *(1,) * (v.ndim - 1)) for v in self._encoded(batch["style"])))
        flow, resets = self._flow_for(list(inputs), joined, batch), None
        if reset is not None:
            resets = torch.cat([reset if name in ("fake", "noisy") else torch.zeros_like(reset) for name in inputs])
        aux: dict[str, Tensor] = {}
        drawn, state = self.generator(joined, style, None, resets, flow, aux, keep=length > 1)
        clips = {name: drawn[part] for name, part in slices.items()}
        entries |= {name: clip.flatten(0, 1) for name, clip in clips.items()}
        if "restored" in clips:
            entries["restored_clip"] = clips["restored"]
        if "fake" in clips:
            after = state.map(lambda value: value[slices["fake"]])
            back = partial(self._there_and_back, {**batch, "photo": inputs["fake"]}, clips["fake"], after, reset)
            entries |= {"clip": clips["fake"], "maps": aux["bottleneck"][slices["fake"]], "forth": back, "back": back}
        return entries

    def _needs(self, *drawn: str) -> bool:
        """Tell whether an active term of any network that learns needs what the generator draws, see `DRAWN`."""
        return any(
            objective.reads(entry) for objective in self.objectives.values() for what in drawn for entry in DRAWN[what]
        )

    def _grained(self, clip: Tensor) -> Tensor:
        """Put noise on clips (B,T,3,H,W) of several frames, of another strength for each clip."""
        if not self.grain or clip.shape[1] < 2:
            return clip
        strength = 2 * self.grain * torch.rand(len(clip), 1, 1, 1, 1, device=clip.device)  # [-1,1] is 2 wide
        return (clip + strength * torch.randn_like(clip)).clamp(-1, 1)

    def _encoded(self, stills: Tensor) -> Style:
        """Encode the stills of a batch, some of which make room for the default style."""
        encoder = self.generator.style
        default = encoder.default(len(stills))
        shown = (torch.rand(len(stills), device=stills.device) >= self.default_share).nonzero().squeeze(1)
        if len(shown) == 0:
            return default
        given = encoder(stills[shown])
        return Style(*(d.index_copy(0, shown, g.to(d.dtype)) for d, g in zip(default, given, strict=True)))

    def _colours(self, batch: dict[str, Tensor]) -> LookColours:
        return colours_of([self.colours, *self.more_colours], batch)

    def _degraded(self, clip: Tensor, colours: LookColours) -> Tensor:
        """Degrade clips (B,T,3,H,W), all frames of a clip alike but for grain."""
        if self.degradation is None:
            raise AnimegenError("A loss term reads 'restored', but the model has no model.degradation: set it.")
        length, height = clip.shape[1], clip.shape[3]
        # The frames below each other are one tall picture: one colour of the clip meets one fate.
        tall = clip.transpose(1, 2).flatten(2, 3)
        return self.degradation(tall, colours, length).unflatten(2, (length, height)).transpose(1, 2)

    def _flow_for(self, names: list[str], joined: Tensor, batch: dict[str, Tensor]) -> Tensor | None:
        """Return the flow (N,T,2,H,W) of all inputs (N,T,3,H,W), if something follows it.

        Args:
            names: of the inputs.
            joined: one after the other.
            batch: has the motion of the photos.
        """
        if not self.generator.needs_flow:
            return None
        if self.memory_flow == "estimated":
            return estimated_flow(joined)
        photo = batch["photo"]
        still = torch.zeros_like(photo[:, :, :2])
        if photo.shape[1] > 1:
            if "flow" not in batch:
                raise AnimegenError("The memory follows a flow, which these data do not give: use data=styled_clips/*.")
            moving = torch.cat([still[:, :1], batch["flow"].to(photo.dtype)], 1)
        else:
            moving = still
        # The motion of the anime clips is not known; standing still is.
        return torch.cat([moving if name in ("fake", "noisy") else still for name in names])

    def _there_and_back(
        self, batch: dict[str, Tensor], clip: Tensor, state: TemporalState, reset: Tensor | None
    ) -> dict[str, Tensor]:
        """Draw the window backwards from its last frame but one, with the memory that the way there left.

        Where the memory was reset before a frame, it is reset again on the way back, after that frame.
        """
        if clip.shape[1] < 2:
            return {"forth": clip.flatten(0, 1), "back": clip.flatten(0, 1)}
        photos, flow = batch["photo"].flip(1), None
        if self.generator.needs_flow and self.memory_flow == "estimated":
            flow = estimated_flow(photos)[:, 1:]
        elif self.generator.needs_flow:  # the way back is about the way there reversed
            flow = -batch["flow"].flip(1).to(clip.dtype)
        again = None if reset is None else reset[:, 1:].flip(1)
        back, _ = self.generator(photos[:, 1:], None, state, again, flow)
        return {"forth": clip[:, :-1].flatten(0, 1), "back": back.flip(1).flatten(0, 1)}

    def _drawn_alone(self, frames: Tensor) -> Tensor:
        """Draw single frames (N,3,H,W) in the default style."""
        clip = frames.unsqueeze(1)
        flow = torch.zeros_like(clip[:, :, :2]) if self.generator.needs_flow else None
        return self.generator(clip, None, flow=flow)[0].squeeze(1)

    def _reversed(self, frames: Tensor) -> Tensor:
        if self.reverse is None:
            raise AnimegenError("A loss term reads the way back to the photo, but the model has no model.reverse.")
        return self.reverse(frames.unsqueeze(1))[0].squeeze(1)

    # --- judging ---------------------------------------------------------------------------------------

    def _learning(self, name: str) -> nn.Module | None:
        """Return a network if it is there and learns at this step."""
        network = getattr(self, name)
        if network is None or not self.objectives[name].active():
            return None
        return network

    def _judge(self, name: str, pictures: Tensor) -> Tensor:
        network = getattr(self, name)
        if network is None:
            raise AnimegenError(f"A loss term reads logits of the {name}, which the model does not have: delete it.")
        return network(pictures)

    def _judge_clips(self, clip: Tensor) -> Tensor:
        """Return logits of clips; 0, which moves nothing, for those that are too short to be judged."""
        logits = self._judge("temporal_discriminator", clip) if clip.shape[1] >= SHORTEST else None
        return clip.new_zeros(len(clip), 1) if logits is None else logits
