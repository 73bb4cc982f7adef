"""GANime in one module: a tokenizer of frames, then a transformer over the codes of clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from animegen.data.clips import ClipsView
from animegen.engine.checkpoint import load_model
from animegen.engine.module import Updates
from animegen.errors import AnimegenError
from animegen.metrics.image import psnr, ssim
from animegen.models.ganime.adaptive import AdaptiveEvaluation
from animegen.models.ganime.codes import CodeTable, code_table
from animegen.models.ganime.drawing import Pair, accuracies, decode, render, rendered, sized, soft_frames, span_of
from animegen.models.ganime.networks.tokenizer import Tokenized, Tokenizer
from animegen.models.ganime.networks.transformer import CodeTransformer
from animegen.tasks.inbetween import InbetweenModule, padded
from animegen.tasks.protocols import Sampling


class Ganime(InbetweenModule):
    """Learns codes for frames, then which codes lie between those of a first and a last frame.

    While ``train_step < tokenizer_steps`` the tokenizer (and its discriminator) learn from single frames. Then the
    tokenizer takes its averaged weights, if there are any, and never moves again; the codes of all training clips are
    written into the run folder (:mod:`animegen.models.ganime.codes`), and the transformer learns from these alone.

    ``transformer: null`` is the tokenizer alone, for all steps; it draws the cross-fade of its reconstructions.
    ``tokenizer_steps: 0`` with a ``tokenizer_checkpoint`` is the transformer alone, over a finished tokenizer.

    Context entries of the objective ``tokenizer``: ``fake`` (N,3,H,W), the reconstruction of ``real``; ``encoded`` and
    ``nearest`` (N,D,h,w), what was quantised and the codes' vectors; ``fake_logits``; ``rendered`` (N,3,H,W), frames as
    the tokenizer's renderer draws them between the ends of a clip round each, if it has one. Of ``discriminator``:
    ``fake_logits``, ``real_logits``. Of ``transformer``: ``logits`` (M,K) and ``targets`` (M,);
    ``soft`` and ``soft_truth`` (n,3,H,W), some frames drawn from the probabilities of their codes, with gradients to
    these, and the same frames of the true codes; both without the renderer.

    Args:
        tokenizer: pictures to codes and back.
        transformer: draws codes; a partial that lacks ``codes`` and ``grid`` gets them from tokenizer and frame size.
        discriminator: judges reconstructions; with a ``condition`` of 3 channels together with the real picture.
        tokenizer_steps: train steps in which the tokenizer learns.
        tokenizer_checkpoint: checkpoint or run folder of a tokenizer to begin with.
        codes_folder: where the codes of the training clips are kept, for several runs over one tokenizer; ``None`` is
            the folder ``codes`` of the run.
        frame_size: (height, width) of the frames that are learned from.
        discriminator_start: train step from which the discriminator learns. Its term in the tokenizer's objective may
            start later: a discriminator that has learned a little does less harm.
        adaptive_cap: limit of the adversarial term's adaptive weight, see
            :class:`~animegen.models.ganime.adaptive.AdaptiveEvaluation`; ``None``: a fixed weight.
        sampling: how codes are chosen when clips are drawn, see :class:`~animegen.tasks.protocols.Sampling`.
        soft_frames: number of frames in ``soft``.
        settings: see :class:`~animegen.engine.module.AnimeModule`.

    Raises:
        AnimegenError: for parts that do not fit together.
    """

    #: The files that it writes, relative to the run folder.
    writes = ("codes/*/codes.npy", "codes/*/table.json")

    def __init__(
        self,
        tokenizer: Tokenizer,
        transformer: CodeTransformer | Callable[..., CodeTransformer] | None = None,
        discriminator: nn.Module | None = None,
        tokenizer_steps: int = 0,
        tokenizer_checkpoint: str | None = None,
        codes_folder: str | None = None,
        frame_size: Sequence[int] = (64, 64),
        discriminator_start: int = 0,
        adaptive_cap: float | None = 10.0,
        sampling: Mapping[str, Any] | None = None,
        soft_frames: int = 2,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.tokenizer = tokenizer
        self.frame_size = (int(frame_size[0]), int(frame_size[1]))
        if any(side % tokenizer.factor for side in self.frame_size):
            raise AnimegenError(
                f"Frames of {self.frame_size[0]}x{self.frame_size[1]} cannot be cut into codes of {tokenizer.factor}"
                " pixels: set data.image_size to a multiple."
            )
        if transformer is not None and not isinstance(transformer, CodeTransformer):
            grid = (self.frame_size[0] // tokenizer.factor, self.frame_size[1] // tokenizer.factor)
            transformer = transformer(codes=tokenizer.codes, grid=grid)
        self.transformer: CodeTransformer | None = transformer
        if transformer is not None and transformer.codes != tokenizer.codes:
            raise AnimegenError(
                f"The transformer knows {transformer.codes} codes and the tokenizer has {tokenizer.codes}: set the same"
                " number."
            )
        if adaptive_cap is not None and adaptive_cap <= 0:
            raise AnimegenError(f"model.adaptive_cap={adaptive_cap} must be above 0, or null for a fixed weight.")
        self.discriminator, self.discriminator_start = discriminator, discriminator_start
        if discriminator is None and "discriminator" in self.objectives:
            raise AnimegenError(
                "The model has no discriminator but an objective for one: delete it with"
                " ~model.objectives.discriminator and ~model.optimizers.discriminator."
            )
        self.tokenizer_steps, self.tokenizer_checkpoint = tokenizer_steps, tokenizer_checkpoint
        self.codes_folder = codes_folder
        self.adaptive_cap, self.soft_frames = adaptive_cap, soft_frames
        self.sampling = Sampling(**(dict(sampling) if sampling else {}))
        #: Train step at which the transformer began to learn; -1 before. Saved.
        self.begun_at = -1
        #: The codes of the training clips; made or read when the transformer begins.
        self.table: CodeTable | None = None

    # --- two stages -----------------------------------------------------------------------------

    @property
    def begun(self) -> bool:
        """Whether the transformer has begun to learn, and the tokenizer is fixed."""
        return self.begun_at >= 0

    def get_extra_state(self) -> int:
        """Return when the transformer began, for the checkpoint."""
        return self.begun_at

    def set_extra_state(self, state: int) -> None:
        """Take over when the transformer began."""
        self.begun_at = int(state)

    def train(self, mode: bool = True) -> Ganime:
        """Set the mode; a fixed tokenizer stays in eval mode, or its codebook would go on moving."""
        super().train(mode)
        if self.begun:
            self.tokenizer.eval()
        return self

    def on_fit_start(self) -> None:
        """Take over a finished tokenizer, tell the data when frames end, and check that both fit."""
        if self.tokenizer_checkpoint and self.train_step == 0:
            self._take_tokenizer(self.tokenizer_checkpoint)
        if self.transformer is not None and self.transformer.body_weights and not self.transformer.body_loaded:
            self.transformer.load_body()  # before the averages begin, which start from what they find
        if self.transformer is not None and not self.tokenizer_checkpoint and self.tokenizer_steps < 1:
            raise AnimegenError(
                "The transformer needs codes that mean something: set model.tokenizer_steps, or"
                " model.tokenizer_checkpoint=<run folder>."
            )
        self._check_data(getattr(self.trainer, "datamodule", None))
        super().on_fit_start()
        if self.begun:
            self._fix_tokenizer()

    def _check_data(self, data: Any) -> None:
        """Tell the data for how long they give frames; batches without a data module, as of a measurement, pass."""
        if data is None:
            return
        view = data.train
        if not isinstance(view, ClipsView):
            raise AnimegenError(f"{type(self).__name__} learns from frames and clips: use data=clips/toonworld.")
        if view.shape != self.frame_size:
            raise AnimegenError(
                f"The data give frames of {view.shape[0]}x{view.shape[1]}, but model.frame_size is {self.frame_size}:"
                " set data.image_size and data.image_width, and model.frame_size to both."
            )
        if self.transformer is not None:
            if view.lengths[-1] > self.transformer.max_frames:
                raise AnimegenError(
                    f"data.lengths={view.lengths} goes beyond model.transformer.max_frames="
                    f"{self.transformer.max_frames}: set one of them."
                )
            steps = self.begun_at if self.begun else self.tokenizer_steps
            view.frames_until = steps * data.batch_size * self.trainer.world_size
        view.with_ends = self.renders

    def _take_tokenizer(self, path: str) -> None:
        """Begin with the tokenizer of a checkpoint; its renderer counts only if this model has one, too."""
        found = getattr(load_model(path, "cpu"), "tokenizer", None)
        if not isinstance(found, Tokenizer):
            raise AnimegenError(f"model.tokenizer_checkpoint={path} is a checkpoint without a tokenizer: give another.")
        if self.renders and found.renderer is None and self.tokenizer_steps < 1:
            raise AnimegenError(
                f"The tokenizer in '{path}' has no renderer, and with model.tokenizer_steps=0 none is trained: set"
                " model.tokenizer_steps, or ablation=ganime/no_renderer."
            )
        try:
            self.tokenizer.take_over(found)
        except RuntimeError as error:
            raise AnimegenError(
                f"The tokenizer in '{path}' is another network than model.tokenizer of this run: choose the tokenizer"
                " that it was trained with (its configuration is in the run's config folder)."
            ) from error

    def training_step(self, batch: dict[str, Tensor], batch_idx: int = 0) -> None:
        """Run all updates of one batch; the first one of the transformer is preceded by the end of the tokenizer's."""
        if self.transformer is not None and not self.begun and self.train_step >= self.tokenizer_steps:
            self._begin()
        super().training_step(batch, batch_idx)

    def _begin(self) -> None:
        """Fix the tokenizer with its averaged weights, and let the averages of the transformer begin anew."""
        if self._ema is not None:
            with self.ema_scope():
                averaged = {name: value.clone() for name, value in self.tokenizer.state_dict().items()}
            # From here on weights and averages are the same, so the averages stay where they are.
            self.tokenizer.load_state_dict(averaged)
            self._ema.updates = 0
        self.begun_at = self.train_step
        self._fix_tokenizer()

    def _fix_tokenizer(self) -> None:
        self.tokenizer.requires_grad_(False)
        self.tokenizer.eval()
        if self.discriminator is not None:
            self.discriminator.requires_grad_(False)

    def _codes(self) -> CodeTable:
        """Return the codes of the training clips; the first process makes the table if it is not there."""
        if self.table is None:
            view = self.trainer.datamodule.train  # type: ignore[attr-defined]
            folder = Path(self.codes_folder or Path(self.trainer.default_root_dir) / "codes")
            first = self.trainer.is_global_zero
            table = code_table(folder, self.tokenizer, view) if first else None
            self.trainer.strategy.barrier()
            self.table = (table or code_table(folder, self.tokenizer, view, build=False)).to(self.device)
        return self.table

    # --- updates --------------------------------------------------------------------------------

    def updates(self, batch: dict[str, Tensor]) -> Updates:
        """Yield the updates of the stage in which training is."""
        if self.begun:
            yield from self._transformer_updates(self._codes().take(batch))
            return
        if "frame" not in batch:
            raise AnimegenError("The tokenizer learns from single frames: use data=clips/toonworld.")
        real = batch["frame"]
        tokenized = self.tokenizer(real)
        fake = tokenized.image
        judged = self.discriminator is not None and self.train_step >= self.discriminator_start
        if judged:
            logits = {
                "fake_logits": lambda: self._judged(fake.detach(), real),
                "real_logits": lambda: self._judged(real, real),
            }
            yield "discriminator", self.objectives["discriminator"](**logits)
        self._watch(tokenized)
        objective = self.objectives["tokenizer"]
        adaptive = self.adaptive_cap is not None and objective.reads("fake_logits")
        shown = fake.detach().requires_grad_() if adaptive else fake
        bound = objective(
            fake=shown,
            real=real,
            encoded=tokenized.encoded,
            nearest=tokenized.quantized.nearest,
            rendered=lambda: self._drawn_anew(fake, batch),
            fake_logits=lambda: self._judged(shown, real),
        )
        if adaptive:
            assert self.adaptive_cap is not None
            tell: Callable[[Tensor], None] = lambda scale: self.record("tokenizer/adaptive_weight", scale)  # noqa: E731
            last = self.tokenizer.last_layer
            bound = AdaptiveEvaluation(bound, fake, shown, last, self.adaptive_cap, tell, self._mean)
        yield "tokenizer", bound

    def _transformer_updates(self, clips: Tensor) -> Updates:
        assert self.transformer is not None
        found = self.transformer(clips, self.train_step)
        draw: Callable[[], dict[str, Tensor]] = lambda: soft_frames(self.tokenizer, clips, found, self.soft_frames)  # noqa: E731
        if self.train_step % self.log_every == 0:
            for name, value in accuracies(found).items():
                self.record(f"transformer/{name}", value)
        read = {"logits": found["logits"], "targets": found["targets"], "soft": draw, "soft_truth": draw}
        yield "transformer", self.objectives["transformer"](**read)

    def _drawn_anew(self, fake: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return what the renderer makes of reconstructions, and of those of the ends round them."""
        network = self.tokenizer
        if network.renderer is None:
            raise AnimegenError("A loss term reads rendered, but the tokenizer has no renderer: delete the term.")
        with torch.no_grad():  # and in eval mode, since only the frame itself is to move the codebook
            training = network.training
            network.eval()
            ends = network.decode(network.encode(torch.cat([batch["first"], batch["last"]])))
            network.train(training)
        guide = torch.cat([fake, *ends.chunk(2)], 1)
        return network.renderer(batch["first"], batch["last"], batch["t"], guide).image

    def _judged(self, pictures: Tensor, real: Tensor) -> Tensor:
        if self.discriminator is None:
            raise AnimegenError("A loss term reads logits, but the model has no discriminator: delete the term.")
        if getattr(self.discriminator, "condition", 0):
            return self.discriminator(pictures, real)
        return self.discriminator(pictures)

    def _mean(self, value: Tensor) -> Tensor:
        """Return the mean over all processes."""
        several = self._trainer is not None and self._trainer.world_size > 1
        return self.trainer.strategy.reduce(value, reduce_op="mean") if several else value

    @torch.no_grad()
    def _watch(self, tokenized: Tokenized) -> None:
        """Log how the codebook is used."""
        if self.train_step % self.log_every:
            return
        quantizer = self.tokenizer.quantizer
        found = quantizer.usage(tokenized.quantized.codes)
        self.record("codebook/perplexity", found.perplexity)
        self.record("codebook/used", found.used)
        dead = quantizer.dead()
        if dead is not None:
            self.record("codebook/dead", dead)

    def example_batch(self, size: int, height: int, width: int, device: torch.device) -> dict[str, Tensor]:
        """Return frames of random pixels, to measure the tokenizer with; in the size that the model is made for."""
        frames = torch.rand(3, size, 3, *self.frame_size, device=device) * 2 - 1
        ends = {"first": frames[1], "last": frames[2], "t": torch.full((size,), 0.5, device=device)}
        return {"frame": frames[0]} | (ends if self.renders else {})

    # --- drawing --------------------------------------------------------------------------------

    @property
    def factor(self) -> int:
        """By what the sides of frames are divisible that need no padding."""
        return self.tokenizer.factor

    @property
    def max_frames(self) -> int:
        """The longest clip that can be drawn at once, with both given frames."""
        return 2 if self.transformer is None else self.transformer.max_frames

    @property
    def max_size(self) -> tuple[int, int] | None:
        """Greatest height and width of frames that can be drawn; with a renderer there is none."""
        return None if self.renders else self.frame_size

    def encode_pair(self, first: Tensor, last: Tensor) -> Pair:
        """Return the codes of two frames (B,3,H,W) in [-1,1], of any size; pairs that repeat are encoded once."""
        return Pair.of(self.tokenizer, first, last, self.frame_size if self.renders else None)

    def synthesize(self, encoded: Pair, t: Tensor) -> Tensor:
        """Return the frames (B,3,H,W) at time ``t`` (B,): of the shortest clip that has a frame at all these times."""
        if self.transformer is None or not self.begun:
            return encoded.faded(self.tokenizer, t)
        frames = span_of(t, self.max_frames) + 1
        if frames not in encoded.clips:
            codes = self.transformer.generate(encoded.first, encoded.last, frames, self.sampling)
            given = {0: encoded.pictures[0], frames - 1: encoded.pictures[1]}
            encoded.clips[frames] = render(self.tokenizer, codes, given)
        number = (t * (frames - 1)).round().long().clamp(1, frames - 2)
        return encoded.cropped(encoded.clips[frames][encoded.group, number])

    def between(self, first: Tensor, last: Tensor, times: Tensor) -> Tensor:
        """Return the frames at the times (B,T) between first and last (B,3,H,W) as (B,T,3,H,W), of one clip."""
        count = times.shape[1]
        pairs = [frame.repeat_interleave(count, 0) for frame in (first, last)]
        return self.synthesize(self.encode_pair(*pairs), times.flatten()).unflatten(0, times.shape)

    def generate(
        self,
        first: Tensor,
        last: Tensor,
        frames: int,
        sampling: Sampling | None = None,
        keys: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """Return a clip (B,frames,3,H,W), see :class:`~animegen.tasks.protocols.ClipGenerator`.

        The given frames stand in it as they are, not as the tokenizer would draw them.

        Raises:
            AnimegenError: for a number of frames that makes no clip or is too large, and without a trained transformer.
        """
        if self.transformer is None or not self.begun:
            raise AnimegenError(
                "This checkpoint holds a tokenizer without a trained transformer: it cannot draw clips."
            )
        given = {0: first, frames - 1: last, **(keys or {})}
        both = {
            t: sized(picture, self.factor, self.frame_size if self.renders else None) for t, picture in given.items()
        }
        coded = {t: self.tokenizer.encode(small) for t, (_, small) in both.items()}
        middle = {t: coded[t] for t in keys or {}}
        codes = self.transformer.generate(coded[0], coded[frames - 1], frames, sampling or self.sampling, middle)
        clip = render(self.tokenizer, codes, {t: whole for t, (whole, _) in both.items()})
        clip = clip[..., : first.shape[-2], : first.shape[-1]].to(first.dtype)
        for t, picture in given.items():
            clip[:, t] = picture
        return clip

    @property
    def renders(self) -> bool:
        """Whether given frames lend their pixels to those between."""
        return self.tokenizer.renderer is not None

    def rendered(self, coded: Tensor, given: Mapping[int, Tensor]) -> Tensor:
        """Return coded clips (B,T,3,H,W) with the pixels of given frames, see `drawing.rendered`."""
        return rendered(self.tokenizer, coded, given)

    def reconstruct(self, frames: Tensor) -> Tensor:
        """Return what the codes keep of frames (N,3,H,W) in [-1,1], of any size."""
        codes = self.tokenizer.encode(padded(frames, self.factor))
        drawn = decode(self.tokenizer, codes.unsqueeze(1))[:, 0, :, : frames.shape[-2], : frames.shape[-1]]
        return drawn.clamp(-1, 1).to(frames.dtype)

    # --- previews and validation ------------------------------------------------------------------

    def preview(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Show frames and their reconstructions; once the transformer learns, clips beside the true ones."""
        if self.transformer is None or not self.begun:
            shown = batch["first"] if "first" in batch else batch["frame"]
            return {"frame": shown, "reconstruction": self.tokenizer(shown).image.clamp(-1, 1)}
        return super().preview(batch)

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Score reconstructions, then what the transformer predicts and draws, beside the cross-fades."""
        if "truth" not in batch:
            return {}
        clip = torch.cat([batch["first"].unsqueeze(1), batch["truth"], batch["last"].unsqueeze(1)], 1).float()
        real = clip.flatten(0, 1)
        codes = self.tokenizer.encode(real)
        drawn = decode(self.tokenizer, codes.unflatten(0, clip.shape[:2]))
        usage = self.tokenizer.quantizer.usage(codes)
        with torch.autocast(clip.device.type, enabled=False):
            scores = {
                "reconstruction_psnr": psnr(drawn.flatten(0, 1), real),
                "reconstruction_ssim": ssim(drawn.flatten(0, 1), real),
                "perplexity": usage.perplexity,
                "codes_used": usage.used,
            }
            if self.renders:
                best = self.rendered(drawn, {0: clip[:, 0], drawn.shape[1] - 1: clip[:, -1]})[:, 1:-1]
                scores["rendered_psnr"] = psnr(best.flatten(0, 1), batch["truth"].float().flatten(0, 1))
        if self.transformer is None or not self.begun:
            return scores
        found = self.transformer(codes.unflatten(0, clip.shape[:2]), self.train_step)
        scores["cross_entropy"] = nn.functional.cross_entropy(found["logits"].float(), found["targets"])
        scores |= accuracies(found)
        scores |= super().validate(batch)
        t = batch["t"].float().unflatten(1, (-1, 1, 1, 1))
        faded = torch.lerp(drawn[:, :1], drawn[:, -1:], t).flatten(0, 1)
        with torch.autocast(clip.device.type, enabled=False):
            scores["gain_over_coded_blend"] = scores["psnr"] - psnr(faded, batch["truth"].float().flatten(0, 1))
        return scores
