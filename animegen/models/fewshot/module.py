"""Few-shot patch-based training on a few painted key frames of one clip."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from animegen.data.keyframes.carried import FlowKeys
from animegen.data.keyframes.guides import FileGuide, Guide, Guides
from animegen.engine.environment import Environment
from animegen.engine.module import Updates
from animegen.errors import AnimegenError
from animegen.media.images import to_float
from animegen.nn.warp import backward_warp, inside
from animegen.tasks.stylize import StyliseModule, pad_and_crop


class FewShot(StyliseModule):
    """Trained on patches of key frames; stylises whole frames, in any order or as a stream.

    One forward pass of the generator per step serves both updates. Context entries that loss terms may read (images
    in [-1,1]):

    ==========================  ====================================================================
    ``photo``, ``anime``        the patches, without the margin that serves as context only
    ``fake``                    the generated patches
    ``drawn``                   the same before they are blended with the carried key frames
    ``fake_logits``             discriminator(fake)
    ``real_logits``             discriminator(patches of paintings elsewhere in the same key frame)
    ``paired_logits``           discriminator(anime)
    ``unlabelled``              patches of frames without painting; ``following`` from the next frames
    ``unlabelled_fake``         generator(unlabelled); likewise ``following_fake``
    ``unlabelled_logits``       discriminator(unlabelled_fake)
    ``style``                   patches of paintings from the nearest key frame
    ``carried``                 ``following_fake`` warped back to ``unlabelled`` along the flow
    ``carried_mask``            mask of its valid pixels
    ==========================  ====================================================================

    Frames without painting need data with ``data.unlabelled=true``. Only outputs that a term reads are generated.

    Args:
        generator: maps photo and guides to the output, see
            :class:`~animegen.models.fewshot.networks.FewShotGenerator`.
        discriminator: patch discriminator, or ``None`` for training without one.
        guides: name -> guide, further inputs of the generator.
        unlabelled_share: number of patches without painting per patch of a key frame.
        **settings: see :class:`~animegen.engine.module.AnimeModule`.

    Raises:
        AnimegenError: for settings that cannot be combined.

    Source: Texler et al., "Interactive Video Stylization Using Few-Shot Patch-Based Training", ACM TOG 39(4), 2020.
    """

    needs_pairs = True

    training_only = ("discriminator",)

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module | None = None,
        guides: dict[str, Guide] | None = None,
        unlabelled_share: float = 0.2,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.generator = generator
        self.discriminator = discriminator
        self.guides = Guides(guides)
        self.unlabelled_share = unlabelled_share
        wanted, inputs = 3 + self.guides.channels, getattr(generator, "inputs", None)
        if inputs not in (None, wanted):
            raise AnimegenError(
                f"The frame and the guides have {wanted} channels, but the generator has {inputs} input channels: set"
                f" model.generator.inputs={wanted}."
            )
        first = next(iter(self.guides.items().values()), None)
        carried = getattr(generator, "carried", 0)
        if carried and not (isinstance(first, FlowKeys) and first.candidates == carried):
            raise AnimegenError(
                f"model.generator.carried={carried} needs a flow_keys guide with candidates={carried}, before all other"
                " guides: add it, or set model.generator.carried=0."
            )
        if not 0 < unlabelled_share <= 1:
            raise AnimegenError(f"model.unlabelled_share must be above 0 and at most 1, not {unlabelled_share}.")
        if discriminator is None and "discriminator" in self.objectives:
            raise AnimegenError(
                "The model has no discriminator but an objective for one: delete it with"
                " ~model.objectives.discriminator and ~model.optimizers.discriminator."
            )

    # --- training --------------------------------------------------------------------------------------

    def start_training(self, environment: Environment) -> None:
        """Keep the key frames, which checkpoints then hold for application."""
        super().start_training(environment)
        if (clip := getattr(environment.data, "clip", None)) is not None:
            clip.teach(self.guides.items().values())

    def updates(self, batch: dict[str, Tensor]) -> Updates:
        """Yield the updates of discriminator and generator."""
        batch = dict(batch)
        anime = batch["anime"]
        generated = self._generate(batch)
        fake = generated["fake"]
        self._report_errors(batch, fake)
        real = batch.get("other", anime)
        if self.discriminator is not None:
            logits = {
                "fake_logits": lambda: self._logits(fake.detach()),
                "real_logits": lambda: self._logits(real),
                "paired_logits": lambda: self._logits(anime),
                "unlabelled_logits": lambda: self._logits(_entry(generated, "unlabelled_fake").detach()),
            }
            yield "discriminator", self.objectives["discriminator"](**logits)
        margin = (batch["photo"].shape[-1] - anime.shape[-1]) // 2
        names = ("photo", "unlabelled", "following")
        yield (
            "generator",
            self.objectives["generator"](
                **generated,
                **{name: _cropped(batch[name], margin) for name in names if name in batch},
                anime=anime,
                style=lambda: _entry(batch, "style"),
                fake_logits=lambda: self._logits(fake),
                unlabelled_logits=lambda: self._logits(_entry(generated, "unlabelled_fake")),
                carried=lambda: self._carried(batch, generated, margin),
                carried_mask=lambda: self._carried(batch, generated, margin),
            ),
        )

    def _generate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs for patches of key frames, and for those without painting if a term reads them.

        All are computed in one forward pass. The latter are truncated in the batch to ``unlabelled_share``.
        """
        margin = (batch["photo"].shape[-1] - batch["anime"].shape[-1]) // 2
        inputs = {"fake": _with_guide(batch, "photo", "guide")}
        entries = {
            "unlabelled": ("unlabelled_fake", "unlabelled_logits", "carried", "carried_mask"),
            "following": ("following_fake", "carried", "carried_mask"),
        }
        for name, readers in entries.items():
            if any(objective.reads(entry) for objective in self.objectives.values() for entry in readers):
                if name not in batch:
                    raise AnimegenError(
                        "A loss term reads frames without painting, which the data do not have: set"
                        " data.unlabelled=true, with data=keyframes/toonworld or data=keyframes/folder."
                    )
                count = max(1, round(self.unlabelled_share * len(batch["photo"])))
                inputs[f"{name}_fake"] = _with_guide(batch, name, f"{name}_guide")[:count]
                for key in (name, "style", "motion", "seen"):
                    batch[key] = batch[key][:count]
        images = torch.cat(list(inputs.values()))
        output = self.generator(images, parts=True) if getattr(self.generator, "carried", 0) else self.generator(images)
        output, drawn = output if isinstance(output, tuple) else (output, output)
        outputs = output.split([len(value) for value in inputs.values()])
        generated = dict(zip(inputs, outputs, strict=True)) | {"drawn": drawn[: len(inputs["fake"])]}
        return {name: _cropped(output, margin) for name, output in generated.items()}

    def _logits(self, images: Tensor) -> Tensor:
        if self.discriminator is None:
            raise AnimegenError("A loss term reads logits, but the model has no discriminator: delete the term.")
        return self.discriminator(images)

    def _carried(self, batch: dict[str, Tensor], generated: dict[str, Tensor], margin: int) -> dict[str, Tensor]:
        """Return the outputs for the next frames warped to the frames before, and the mask of valid pixels."""
        motion, visible = (_cropped(_entry(batch, name), margin) for name in ("motion", "seen"))
        mask = visible * inside(motion)
        return {"carried": backward_warp(generated["following_fake"], motion), "carried_mask": mask}

    def _report_errors(self, batch: dict[str, Tensor], fake: Tensor) -> None:
        """Pass the error of each patch to the data module, for hard example mining."""
        observe = getattr(self.environment.data, "observe", None)
        if observe is not None and "place" in batch:
            error = (fake.detach().float() - batch["anime"].float()).abs().mean((1, 2, 3))
            observe(batch["place"], error)

    # --- application -----------------------------------------------------------------------------------

    @property
    def tileable(self) -> bool:
        """Whether frames can be processed in tiles: not with guides, which need the whole frame."""
        return not self.guides.items() and super().tileable

    @property
    def tile(self) -> int | None:
        """Default tile size: frames up to 1920 x 1080 are processed as a whole.

        Tiles with their margins of 72 pixels would double the work, and the generator itself limits its memory.
        """
        return 1920 if getattr(self.generator, "streams", False) else None

    def stylize(self, frames: Tensor, state: Any = None, style: Tensor | None = None) -> tuple[Tensor, Any]:
        """Stylise the next frame of each of B streams, of any size.

        Args:
            frames: ``(B,3,H,W)`` in [-1,1].
            state: return value of the last call, with the state of the guides; ``None`` at the start of a stream, where
                the guides start as at the first frame of the training clip.
            style: precomputed guides ``(B,G,H,W)`` in [-1,1]. The frames may then be in any order.

        Returns:
            images of the same shape and range, and the state: ``frame``, the number of frames so far, and ``streams``,
            the state of the guides of each stream.

        Raises:
            AnimegenError: if a guide is read from files and ``style`` is not given.
        """
        number = 0 if state is None else state["frame"]
        streams: list[Any] = [None] * len(frames) if state is None else state["streams"]
        inputs = frames
        if style is not None:
            inputs = torch.cat([frames, style.to(frames.dtype)], 1)
        elif self.guides.items():
            guides, following = [], []
            for frame, stream in zip(frames, streams, strict=True):
                guide, stream = self.guides.next(frame[None], stream)
                guides.append(to_float(guide))
                following.append(stream)
            streams = following
            inputs = torch.cat([frames, torch.stack(guides).to(frames)], 1)
        output = pad_and_crop(self.generator, inputs, self.size_divisor).clamp(-1, 1)
        return output, {"frame": number + 1, "streams": streams}

    def exported_weights(self) -> list[str]:
        """Return the names of the weights that exported files need.

        Raises:
            AnimegenError: with carried key frames, whose optical flow is not part of a graph.
        """
        if any(isinstance(guide, FlowKeys) for guide in self.guides.items().values()):
            raise AnimegenError(
                "The model cannot be exported, since it carries key frames by optical flow: apply it with animegen"
                " stylize, or train one without the guide flow_keys."
            )
        return super().exported_weights()

    def predict(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the output (B,3,H,W) for the frames of a batch, with the guides of the batch."""
        guide = batch.get("guide")
        if guide is None and any(isinstance(g, FileGuide) for g in self.guides.items().values()):
            raise AnimegenError("The model needs the guides of its frames: use data=keyframes/folder.")
        return self.stylize(batch["photo"], None, guide)[0]


def _cropped(images: Tensor, margin: int) -> Tensor:
    return images[..., margin:-margin, margin:-margin] if margin else images


def _entry(entries: dict[str, Tensor], name: str) -> Tensor:
    if name not in entries:
        raise AnimegenError(
            f"A loss term reads '{name}', which needs frames without painting: set data.unlabelled=true, and add a term"
            " that reads unlabelled_fake."
        )
    return entries[name]


def _with_guide(batch: dict[str, Tensor], photo: str, guide: str) -> Tensor:
    return torch.cat([batch[photo], batch[guide]], 1) if guide in batch else batch[photo]
