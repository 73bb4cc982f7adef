"""Few-shot patch-based training: a network learns a look from a few drawn key frames of one clip."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from animegen.data.keyframes.guides import FileGuide, Guide, Guides
from animegen.engine.module import Updates
from animegen.errors import AnimegenError
from animegen.media.images import to_float
from animegen.nn.warp import backward_warp, inside
from animegen.tasks.stylize import StyliseModule, pad_and_crop


class FewShot(StyliseModule):
    """Learns from patches of key frames and draws whole frames, in any order or as a stream.

    One forward pass of the generator per step serves both updates. Context entries that loss terms may read (pictures
    in [-1,1]):

    ==========================  ==================================================================
    ``photo``, ``anime``        the patches, cropped to what is compared
    ``fake``                    the drawn patches
    ``fake_logits``             discriminator(fake)
    ``real_logits``             discriminator(drawing elsewhere in the same key frame)
    ``paired_logits``           discriminator(anime)
    ``unlabelled``              patches of frames without drawing; ``following`` are those of the frames after
    ``unlabelled_fake``         what is drawn of them; likewise ``following_fake``
    ``unlabelled_logits``       discriminator(unlabelled_fake)
    ``style``                   drawings somewhere in the nearest key frame
    ``carried``                 following_fake, carried back to ``unlabelled`` along the flow
    ``carried_mask``            where that can be trusted
    ==========================  ==================================================================

    Frames without drawing need data with ``data.unlabelled=true``; only what a term reads is drawn.

    Args:
        generator: maps photo and guides to the drawing, see
            :class:`~animegen.models.fewshot.networks.FewShotGenerator`.
        discriminator: patch discriminator, or ``None`` for training without an adversary.
        guides: name -> guide, further inputs of the generator.
        unlabelled_share: patches of frames without drawing per patch of a key frame.
        settings: see :class:`~animegen.engine.module.AnimeModule`.

    Source: Texler et al., "Interactive Video Stylization Using Few-Shot Patch-Based Training", ACM TOG 39(4), 2020.
    """

    needs_pairs = True

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
                f"The frame and the guides of the model have {wanted} channels, but its generator takes {inputs}: set"
                f" model.generator.inputs={wanted}."
            )
        if not 0 < unlabelled_share <= 1:
            raise AnimegenError(f"model.unlabelled_share must be above 0 and at most 1, not {unlabelled_share}.")
        if discriminator is None and "discriminator" in self.objectives:
            raise AnimegenError(
                "The model has no discriminator but an objective for one: delete it with"
                " ~model.objectives.discriminator and ~model.optimizers.discriminator."
            )

    # --- training --------------------------------------------------------------------------------------

    def updates(self, batch: dict[str, Tensor]) -> Updates:
        """Yield the updates of discriminator and generator."""
        batch = dict(batch)
        anime = batch["anime"]
        drawn = self._draw(batch)
        fake = drawn["fake"]
        self._report(batch, fake)
        elsewhere = batch.get("other", anime)
        if self.discriminator is not None:
            logits = {
                "fake_logits": lambda: self._judge(fake.detach()),
                "real_logits": lambda: self._judge(elsewhere),
                "paired_logits": lambda: self._judge(anime),
                "unlabelled_logits": lambda: self._judge(_entry(drawn, "unlabelled_fake").detach()),
            }
            yield "discriminator", self.objectives["discriminator"](**logits)
        margin = (batch["photo"].shape[-1] - anime.shape[-1]) // 2
        yield (
            "generator",
            self.objectives["generator"](
                **drawn,
                **{
                    name: _cropped(batch[name], margin)
                    for name in ("photo", "unlabelled", "following")
                    if name in batch
                },
                anime=anime,
                style=lambda: _entry(batch, "style"),
                fake_logits=lambda: self._judge(fake),
                unlabelled_logits=lambda: self._judge(_entry(drawn, "unlabelled_fake")),
                carried=lambda: self._carried(batch, drawn, margin),
                carried_mask=lambda: self._carried(batch, drawn, margin),
            ),
        )

    def _draw(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Draw, in one pass, the patches of key frames and those without drawing that a term reads.

        Of the latter the batch keeps only the share that is drawn.
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
                        "A loss term reads frames without drawing, which these data do not give: set"
                        " data.unlabelled=true, with data=keyframes/toonworld or data=keyframes/folder."
                    )
                count = max(1, round(self.unlabelled_share * len(batch["photo"])))
                inputs[f"{name}_fake"] = _with_guide(batch, name, f"{name}_guide")[:count]
                for key in (name, "style", "motion", "seen"):
                    batch[key] = batch[key][:count]
        if len(inputs) == 1:
            return {"fake": _cropped(self.generator(inputs["fake"]), margin)}
        outputs = self.generator(torch.cat(list(inputs.values()))).split([len(value) for value in inputs.values()])
        return {name: _cropped(output, margin) for name, output in zip(inputs, outputs, strict=True)}

    def _judge(self, images: Tensor) -> Tensor:
        if self.discriminator is None:
            raise AnimegenError("A loss term reads logits, but the model has no discriminator: delete the term.")
        return self.discriminator(images)

    def _carried(self, batch: dict[str, Tensor], drawn: dict[str, Tensor], margin: int) -> dict[str, Tensor]:
        motion, seen = (_cropped(_entry(batch, name), margin) for name in ("motion", "seen"))
        mask = seen * inside(motion)
        return {"carried": backward_warp(drawn["following_fake"], motion), "carried_mask": mask}

    def _report(self, batch: dict[str, Tensor], fake: Tensor) -> None:
        """Tell the data how large the error of each patch is, if they want to know (hard mining)."""
        observe = getattr(getattr(self._trainer, "datamodule", None), "observe", None)
        if observe is not None and "place" in batch:
            error = (fake.detach().float() - batch["anime"].float()).abs().mean((1, 2, 3))
            observe(batch["place"], error)

    # --- application -----------------------------------------------------------------------------------

    @property
    def tileable(self) -> bool:
        """Guides that follow the motion need the whole frame."""
        return not self.guides.items() and super().tileable

    @property
    def tile(self) -> int | None:
        """Largest side of a picture that is drawn in one piece unless asked otherwise: all of a film of 1920 x 1080.

        Tiles would draw their margins of 72 pixels twice, which doubles the work; the generator needs no tiles to save
        memory.
        """
        return 1920 if getattr(self.generator, "streams", False) else None

    def stylize(self, frames: Tensor, state: Any = None, style: Tensor | None = None) -> tuple[Tensor, Any]:
        """Stylise the next frame of each of B streams, of any size.

        Args:
            frames: ``(B,3,H,W)`` in [-1,1].
            state: what the last call returned; it carries the guides from frame to frame. ``None`` at the beginning
                of a stream, where the guides begin as they did at the first frame of the clip trained on.
            style: ready-made guides ``(B,G,H,W)`` in [-1,1]; then nothing is carried on, and the frames may come in
                any order.

        Returns:
            Pictures of the same shape and range, and the state: ``frame``, the number of frames seen, and per stream
            the state of its guides. A model without guides counts frames only.

        Raises:
            AnimegenError: if a guide comes from files and ``style`` does not hold it.
        """
        number = 0 if state is None else state["frame"]
        streams: list[Any] = [None] * len(frames) if state is None else state["streams"]
        inputs = frames
        if style is not None:
            inputs = torch.cat([frames, style.to(frames.dtype)], 1)
        elif self.guides.items():
            drawn, following = [], []
            for frame, stream in zip(frames, streams, strict=True):
                guide, stream = self.guides.next(frame[None], stream)
                drawn.append(to_float(guide))
                following.append(stream)
            streams = following
            inputs = torch.cat([frames, torch.stack(drawn).to(frames)], 1)
        output = pad_and_crop(self.generator, inputs, self.factor).clamp(-1, 1)
        return output, {"frame": number + 1, "streams": streams}

    def drawn(self, batch: dict[str, Tensor]) -> Tensor:
        """Return what the model makes of the frames of a batch, (B,3,H,W), with the guides that lie in it."""
        guide = batch.get("guide")
        if guide is None and any(isinstance(g, FileGuide) for g in self.guides.items().values()):
            raise AnimegenError("The model needs the guides of its frames: use data=keyframes/folder.")
        return self.stylize(batch["photo"], None, guide)[0]


def _cropped(images: Tensor, margin: int) -> Tensor:
    return images[..., margin:-margin, margin:-margin] if margin else images


def _entry(entries: dict[str, Tensor], name: str) -> Tensor:
    if name not in entries:
        raise AnimegenError(
            f"A loss term reads '{name}', which needs frames without drawing: set data.unlabelled=true, and let a term"
            " read unlabelled_fake."
        )
    return entries[name]


def _with_guide(batch: dict[str, Tensor], photo: str, guide: str) -> Tensor:
    return torch.cat([batch[photo], batch[guide]], 1) if guide in batch else batch[photo]
