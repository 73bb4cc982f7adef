"""Training and application of the temporal generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from animegen.core.errors import AnimegenError
from animegen.core.module import Updates
from animegen.core.objective import Objective
from animegen.core.tasks import StyliseModule, pad_and_crop, split_batches
from animegen.data.edge_smoothing import edge_smooth
from animegen.models.temporal.looks import LookColours, check_looks, colours_of
from animegen.models.temporal.networks.generator import TemporalGenerator, fits, without_memory
from animegen.models.temporal.networks.state import Style, TemporalState
from animegen.models.temporal.networks.style import blend, scaled
from animegen.models.temporal.showing import attention_picture, clip_scores, frame_scores
from animegen.models.temporal.windows import MOTION, Disturbance, Stage, as_windows, in_order, motion_of, staged
from animegen.nn.colour import LinearColourTransfer
from animegen.nn.degradation import PhotoDegradation
from animegen.nn.discriminators3d import SHORTEST, TemporalPatchGAN

#: After how many of its updates the singular values of a discriminator are cut (TGAN's code).
CLIP_EVERY = 5


class TemporalAnime(StyliseModule):
    """Film to anime, steady in time, in the style of stills; learned without pairs.

    One pass of the generator per step serves all updates. Windows are ``(B,T,3,H,W)``; pictures without time, as
    ``data=unpaired/*`` gives them, are windows of one frame, and the anime pictures are their stills. Both
    discriminators see *anime* as real. Context entries that loss terms may read (frames are (B*T,3,H,W) in [-1,1]):

    ==============================  ==================================================================================
    ``fake``, ``photo``, ``anime``  frames: drawn, given, and those of other clips in the style
    ``photo_coloured``              the photos after linear colour transfer to the anime set
    ``restored``, ``identity``      generator(anime degraded to look like photos), and generator(anime)
    ``style``                       the still that each frame was given
    ``clip``, ``photo_clip``        windows (B,T,3,H,W): drawn, and given; likewise ``restored_clip``, ``anime_clip``
    ``flow``, ``valid``             motion between neighbours; ``flow_first``, ``valid_first``: to the first frame
    ``maps``                        the maps before the style comes in, (B,T,C,H/8,W/8)
    ``forth``, ``back``             frames drawn on the way there, and on the way back with the memory that they left
    ``noisy``                       generator(photo with noise)
    ``fake_logits``                 discriminator(fake); ``real_logits``, ``smooth_logits`` (edge-smoothed anime) too
    ``clip_logits``                 temporal_discriminator(clip); ``real_clip_logits`` likewise
    ``rebuilt``                     reverse(fake): the photo again (CycleGAN)
    ``rebuilt_anime``               generator(reverse(anime))
    ``unstyled_logits``             photo_discriminator(reverse(anime)); ``photo_logits``: of photos
    ==============================  ==================================================================================

    Terms with a ``start`` make phases; a discriminator learns while its objective has an active term, the temporal
    one when windows have three frames.

    Args:
        generator: a :class:`~animegen.models.temporal.networks.TemporalGenerator`.
        discriminator: of frames, or ``None``.
        temporal_discriminator: of clips, or ``None``.
        reverse: generator from anime to photo for the cycle, or ``None``.
        photo_discriminator: judges what ``reverse`` makes.
        degradation: makes the input of ``restored``.
        disturbance: cuts and cold starts within windows.
        stages: parts of the training by name, see :class:`~animegen.models.temporal.windows.Stage`.
        looks: how many looks the data have (``data.styles``); each has colours of its own.
        default_share: of the samples are drawn in the learned default style, so that it is there when no still is.
        state_noise: standard deviation of noise on what the memory carries.
        tbptt: gradients go back through so many frames; 0: through all.
        still_size: shorter side to which stills are scaled when the model is applied: what it was trained on.
        settings: see :class:`~animegen.core.module.AnimeModule`.
    """

    generator: TemporalGenerator
    #: What is drawn depends on the frames before.
    remembers = True

    def __init__(
        self,
        generator: TemporalGenerator,
        discriminator: nn.Module | None = None,
        temporal_discriminator: TemporalPatchGAN | None = None,
        reverse: TemporalGenerator | None = None,
        photo_discriminator: nn.Module | None = None,
        degradation: PhotoDegradation | None = None,
        disturbance: Disturbance | None = None,
        stages: Mapping[str, Stage | None] | None = None,
        looks: int = 1,
        default_share: float = 0.5,
        state_noise: float = 0.0,
        tbptt: int = 0,
        still_size: int = 256,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.generator = generator
        self.discriminator, self.temporal_discriminator = discriminator, temporal_discriminator
        self.reverse, self.photo_discriminator = reverse, photo_discriminator
        self.degradation, self.disturbance = degradation, disturbance or Disturbance()
        self.stages = in_order(stages)
        if not 0 <= default_share <= 1 or state_noise < 0 or tbptt < 0:
            raise AnimegenError("model.default_share is from 0 to 1, model.state_noise and model.tbptt at least 0.")
        self.default_share, self.still_size = default_share, still_size
        generator.detach_every, generator.state_noise = tbptt, state_noise
        self.colours = LinearColourTransfer()
        self.more_colours = nn.ModuleList(LinearColourTransfer() for _ in range(looks - 1))
        for name in ("discriminator", "temporal_discriminator", "reverse", "photo_discriminator"):
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
        """Yield the updates of the discriminators, the generator, and the reverse generator."""
        batch = staged(as_windows(batch), self.stages, self.train_step)
        self._colours(batch).observe(batch["photo"], batch["anime"])
        batch, reset = self.disturbance(batch)
        entries = self._draw(batch, reset)
        anime, fake, clip = entries["anime"], entries["fake"], entries["clip"]
        if (judge := self._learning("discriminator")) is not None:
            yield "discriminator", self._judging(judge, "discriminator", real_logits=anime, fake_logits=fake.detach())
        if (judge := self._learning("temporal_discriminator")) is not None and clip.shape[1] >= SHORTEST:
            clips = {"real_clip_logits": batch["anime"], "clip_logits": clip.detach()}
            yield "temporal_discriminator", self._judging(judge, "temporal_discriminator", **clips)
            if self.temporal_discriminator is not None and self.train_step % CLIP_EVERY == 0:
                self.temporal_discriminator.clip()
        if (judge := self._learning("photo_discriminator")) is not None:
            unstyled = self._reversed(anime).detach()
            yield (
                "photo_discriminator",
                self._judging(judge, "photo_discriminator", photo_logits=entries["photo"], unstyled_logits=unstyled),
            )
        lazy = {
            "fake_logits": partial(self._judge, "discriminator", fake),
            "clip_logits": lambda: self._judge_clips(clip),
            "rebuilt": lambda: self._reversed(fake),
            "rebuilt_anime": lambda: self._drawn_alone(self._reversed(anime).detach()),
        }
        yield "generator", self.objectives["generator"](**entries, **lazy)
        if self._learning("reverse") is not None:
            backward = {
                "photo": entries["photo"],
                "anime": anime,
                "rebuilt": lambda: self._reversed(fake.detach()),
                "unstyled_logits": lambda: self._judge("photo_discriminator", self._reversed(anime)),
            }
            yield "reverse", self.objectives["reverse"](**backward)

    def _draw(self, batch: dict[str, Tensor], reset: Tensor | None) -> dict[str, Any]:
        """Return the context entries; what a term reads of the generator is drawn in one pass where possible."""
        objective, photo, anime = self.objectives["generator"], batch["photo"], batch["anime"]
        batch_size, length = photo.shape[:2]
        style = self._encoded(batch["style"])
        inputs = {"fake": photo}
        if objective.reads("restored") or objective.reads("restored_clip"):
            inputs["restored"] = self._degraded(anime, self._colours(batch))
        if objective.reads("identity"):
            inputs["identity"] = anime
        if objective.reads("noisy"):
            inputs["noisy"] = photo + 0.02 * torch.randn_like(photo)
        joined, slices = split_batches(inputs)
        count = len(inputs)
        aux: dict[str, Tensor] = {}
        flow, resets = self._flow_for(inputs, batch), None
        if reset is not None:
            resets = torch.cat([reset if name in ("fake", "noisy") else torch.zeros_like(reset) for name in inputs])
        drawn, state = self.generator(
            joined, Style(*(part.repeat(count, *(1,) * (part.ndim - 1)) for part in style)), None, resets, flow, aux
        )
        clips = {name: drawn[part] for name, part in slices.items()}
        after = state.map(lambda value: value[:batch_size])
        entries: dict[str, Any] = {name: clip.flatten(0, 1) for name, clip in clips.items()}
        flat = photo.flatten(0, 1)
        there = {
            name: (lambda n: lambda: self._there_and_back(batch, clips["fake"], after, reset)[n])(name)
            for name in ("forth", "back")
        }
        return {
            **entries,
            **there,
            **motion_of(batch),
            **{f"{name}_clip": clips[name] for name in ("restored",) if name in clips},
            "clip": clips["fake"],
            "photo_clip": photo,
            "photo": flat,
            "anime": anime.flatten(0, 1),
            "anime_clip": anime,
            "style": batch["style"].repeat_interleave(length, 0),
            "maps": aux["bottleneck"][:batch_size],
            "photo_coloured": lambda: self._colours(batch)(flat),
        }

    def _encoded(self, stills: Tensor) -> Style:
        """Encode the stills of a batch, some of which make room for the default style."""
        encoder = self.generator.style
        given, default = encoder(stills), encoder.default(len(stills))
        plain = torch.rand(len(stills), device=stills.device) < self.default_share
        return Style(
            *(
                torch.where(plain.view(-1, *(1,) * (a.ndim - 1)), b.to(a.dtype), a)
                for a, b in zip(given, default, strict=True)
            )
        )

    def _colours(self, batch: dict[str, Tensor]) -> LookColours:
        return colours_of([self.colours, *self.more_colours], batch)  # type: ignore[list-item]

    def _degraded(self, clip: Tensor, colours: LookColours) -> Tensor:
        """Degrade clips (B,T,3,H,W), all frames of a clip alike but for grain and texture."""
        if self.degradation is None:
            raise AnimegenError("A loss term reads 'restored', but the model has no model.degradation: set it.")
        length, height = clip.shape[1], clip.shape[3]
        # The frames below each other are one tall picture: one colour of the clip meets one fate.
        tall = clip.transpose(1, 2).flatten(2, 3)
        return self.degradation(tall, colours).unflatten(2, (length, height)).transpose(1, 2)

    def _flow_for(self, inputs: Mapping[str, Tensor], batch: dict[str, Tensor]) -> Tensor | None:
        """Return the flow (N,T,2,H,W) of all inputs, for a memory that follows it."""
        if not self.generator.needs_flow:
            return None
        photo = batch["photo"]
        still = torch.zeros_like(photo[:, :, :2])
        if photo.shape[1] > 1:
            if "flow" not in batch:
                raise AnimegenError("The memory follows a flow, which these data do not give: use data=styled_clips/*.")
            moving = torch.cat([still[:, :1], batch["flow"].to(photo.dtype)], 1)
        else:
            moving = still
        # The motion of the anime clips is not known; standing still is.
        return torch.cat([moving if name in ("fake", "noisy") else still for name in inputs])

    def _there_and_back(
        self, batch: dict[str, Tensor], clip: Tensor, state: TemporalState, reset: Tensor | None
    ) -> dict[str, Tensor]:
        """Draw the window backwards from its last frame but one, with the memory that the way there left.

        Where the memory was reset before a frame, it is reset again on the way back, after that frame.
        """
        if clip.shape[1] < 2:
            return {"forth": clip.flatten(0, 1), "back": clip.flatten(0, 1)}
        flow = None
        if self.generator.needs_flow:  # the way back is about the way there reversed
            flow = -batch["flow"].flip(1).to(clip.dtype)
        again = None if reset is None else reset[:, 1:].flip(1)
        back, _ = self.generator(batch["photo"][:, :-1].flip(1), None, state, again, flow)
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

    def _judging(self, judge: nn.Module, update: str, **pictures: Tensor) -> Any:
        """Bind an update's objective to logits of one joint pass over what it reads."""
        objective: Objective = self.objectives[update]
        if objective.reads("smooth_logits"):
            pictures["smooth_logits"] = edge_smooth(pictures["real_logits"])

        def together() -> dict[str, Tensor]:
            joined, slices = split_batches({name: value for name, value in pictures.items() if objective.reads(name)})
            logits = judge(joined)
            return {name: logits[part] for name, part in slices.items()}

        return objective(**dict.fromkeys([*pictures, "smooth_logits"], together))

    # --- application -----------------------------------------------------------------------------------

    def encode_style(self, stills: Sequence[Tensor], weights: Sequence[float] | None = None) -> Style:
        """Encode a style for :meth:`stylize`, once for any number of frames.

        Args:
            stills: pictures (3,H,W) in [-1,1] of any sizes.
            weights: how much each counts; all alike without.

        Raises:
            AnimegenError: if stills and weights do not belong together.
        """
        encoder = self.generator.style
        home = encoder.default_code
        styles = [encoder(scaled(still.to(home.device, home.dtype)[None], self.still_size)) for still in stills]
        return blend(styles, [1.0] * len(styles) if weights is None else list(weights))

    def stylize(
        self, frames: Tensor, state: TemporalState | None = None, style: Style | Tensor | None = None
    ) -> tuple[Tensor, TemporalState]:
        """Stylise the next frame of each of B streams, of any size.

        Args:
            frames: ``(B,3,H,W)`` in [-1,1].
            state: what the call for the frame before returned; ``None`` starts the memory anew. Frames of another size
                do so, too.
            style: what :meth:`encode_style` returned, or stills ``(S,3,h,w)`` that count alike; ``None`` is the style
                of the state, or else the learned default.

        Returns:
            Pictures of the same shape and range, and the state.
        """
        if isinstance(style, Tensor):
            style = self.encode_style(list(style))
        if style is not None and len(style.code) != len(frames):
            style = style.expanded(len(frames))
        after: list[TemporalState] = []

        def network(images: Tensor) -> Tensor:
            before = state
            if before is not None and not fits(before, images, self.generator.memory.levels):
                before = without_memory(before)
            drawn, new = self.generator(images.unsqueeze(1), style, before, None, self._estimated(images, before))
            after.append(new)
            return drawn.squeeze(1)

        output = pad_and_crop(network, frames, self.factor).clamp(-1, 1)
        return output, after[-1]

    def _estimated(self, images: Tensor, state: TemporalState | None) -> Tensor | None:
        """Return the DIS flow (B,1,2,H,W) into the frame before, for a memory that follows it."""
        if not self.generator.needs_flow:
            return None
        if state is None or state.previous is None:
            return torch.zeros_like(images[:, :2]).unsqueeze(1)
        from animegen.video.flow import DISFlow  # on demand: few need it

        return DISFlow()(images.float(), state.previous.float()).to(images.dtype).unsqueeze(1)

    def draw_clips(self, clips: Tensor, stills: Tensor | None = None) -> Tensor:
        """Draw whole clips (B,T,3,H,W) in [-1,1] of any size, frame after frame.

        Each in the style of its still (B,3,h,w), or all in the default style.
        """
        style = None if stills is None else self.generator.style(scaled(stills, self.still_size))
        state, frames = None, []
        for frame in clips.unbind(1):
            drawn, state = self.stylize(frame, state, style)
            frames.append(drawn)
        return torch.stack(frames, 1)

    def example_batch(self, size: int, height: int, width: int, device: torch.device) -> dict[str, Tensor]:
        """Return windows of noise of five frames with all that a batch holds, to measure speed with."""
        clips = torch.rand(2, size, 5, 3, height, width, device=device) * 2 - 1
        motion = {name: clips[0, :, 1:, :count] for name, count in MOTION.items()}
        return {"photo": clips[0], "anime": clips[1], "style": clips[1, :, 0], **motion}

    def preview(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Show photo, output and truth, as clips and one frame of each; and where attention reads the style."""
        if batch["photo"].ndim == 4:
            return super().preview(batch)
        still = batch["style"] if "look" in batch else None
        clips = {"photo_clip": batch["photo"], "output_clip": self.draw_clips(batch["photo"], still)}
        if "anime" in batch:
            clips["truth_clip"] = batch["anime"]
        last = {name.removesuffix("_clip"): clip[:, -1] for name, clip in clips.items()}
        if "look" in batch:
            last["style"] = batch["style"]
        return {**last, **attention_picture(self.generator, batch["photo"][:, -1]), **clips}

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Score pictures as every model of the task, and clips frame by frame and along their motion."""
        if batch["photo"].ndim == 4:
            return super().validate(batch)
        output = self.draw_clips(batch["photo"], batch["style"] if "look" in batch else None).float()
        with torch.autocast(output.device.type, enabled=False):
            truth = batch["anime"].float() if "anime" in batch else None
            frames = {} if truth is None else frame_scores(output, truth)
            return {**frames, **clip_scores(output, truth, batch)}
