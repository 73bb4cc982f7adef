"""Training of GANime: a tokenizer of frames, then a transformer over the codes of clips, then both with a renderer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from animegen.data.clips import ClipsView
from animegen.engine.checkpoint import load_model
from animegen.engine.environment import Environment
from animegen.engine.module import Updates
from animegen.errors import AnimegenError
from animegen.models.ganime.adaptive import AdaptiveEvaluation
from animegen.models.ganime.application import GanimeGenerator
from animegen.models.ganime.codes import CodeTable, code_table
from animegen.models.ganime.motion import motion_entries
from animegen.models.ganime.networks.tokenizer import Tokenized, Tokenizer
from animegen.models.ganime.networks.transformer import CodeTransformer
from animegen.models.ganime.rendering import accuracies, make_guide, predicted_renderings, soft_frames


class Ganime(GanimeGenerator):
    """GANime: learn codes of frames, then predict the codes between those of a first and a last frame.

    While ``train_step < tokenizer_steps`` the tokenizer and its discriminator are trained on single frames. Then the
    tokenizer takes its averaged weights, if there are any, and is frozen. The codes of all training clips are computed
    once (:mod:`animegen.models.ganime.codes`), and the transformer is trained on these alone.

    From ``joint_start`` on, transformer and renderer are trained together, as the update and network ``joint``: random
    frames are rendered from the predicted probabilities, so the renderer meets the errors of the transformer, and the
    transformer gets gradients from pixels (:func:`~animegen.models.ganime.rendering.predicted_renderings`).

    ``transformer: null`` trains the tokenizer alone. ``tokenizer_steps: 0`` with a ``tokenizer_checkpoint`` trains the
    transformer alone, with a pretrained tokenizer.

    Context entries of the objective ``tokenizer``: ``real`` (N,3,H,W) and its reconstruction ``fake``; ``encoded`` and
    ``nearest`` (N,D,h,w), the output of the encoder and the vectors of its codes; ``fake_logits``; with a renderer
    ``rendered`` (N,3,H,W), the frames rendered between two other frames of their clip. Of ``discriminator``:
    ``fake_logits``, ``real_logits``. Of ``transformer``: ``logits`` (M,K) and ``targets`` (M,); ``soft`` and
    ``soft_truth`` (n,3,H,W), some frames decoded from the predicted probabilities, with gradients, and from the true
    codes, both without the renderer; of a transformer that predicts motion also those of
    :func:`~animegen.models.ganime.motion.motion_entries`. ``joint`` has those of ``transformer``, and ``rendered`` and
    ``real`` (n,3,H,W), frames rendered from the predictions, and the true ones.

    Args:
        tokenizer: see :class:`~animegen.models.ganime.application.GanimeGenerator`.
        transformer: likewise.
        discriminator: discriminator of reconstructions; with a ``condition`` of 3 channels it also reads the real
            image.
        tokenizer_steps: train steps of the tokenizer.
        tokenizer_checkpoint: checkpoint or run folder with a pretrained tokenizer.
        codes_folder: folder for the codes of the training clips, which several runs with the same tokenizer can share;
            ``None`` for the folder ``codes`` of the run.
        frame_size: see :class:`~animegen.models.ganime.application.GanimeGenerator`.
        discriminator_start: train step from which the discriminator is trained. Its term in the objective of the
            tokenizer may start later: a partly trained discriminator does less harm.
        adaptive_cap: upper limit of the adaptive weight of the adversarial term, see
            :class:`~animegen.models.ganime.adaptive.AdaptiveEvaluation`; ``None`` for a fixed weight.
        sampling: see :class:`~animegen.models.ganime.application.GanimeGenerator`.
        soft_frames: number of frames in ``soft``, and in ``rendered`` of ``joint``.
        joint_start: train step from which transformer and renderer are trained together; ``None`` for never.
        joint_shares: fractions of the frames of this stage that are rendered from cross-fades, and from true codes.
        expected_guide: see :class:`~animegen.models.ganime.application.GanimeGenerator`.
        **settings: see :class:`~animegen.engine.module.AnimeModule`.

    Raises:
        AnimegenError: if the parts do not fit together.
    """

    training_only = ("discriminator", "discriminator_start", "tokenizer_checkpoint", "codes_folder", "joint_start")
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
        joint_start: int | None = None,
        joint_shares: Sequence[float] = (0.2, 0.1),
        expected_guide: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(tokenizer, transformer, frame_size, sampling, expected_guide, **settings)
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
        self.joint_start, self.joint_shares = joint_start, (float(joint_shares[0]), float(joint_shares[1]))
        if joint_start is not None and (transformer is None or tokenizer.renderer is None):
            raise AnimegenError(
                "Transformer and renderer are trained together, but the model has not both of them: set"
                " model.joint_start=null."
            )
        self.adaptive_cap, self.soft_frames = adaptive_cap, soft_frames
        #: The codes of the training clips, once the transformer is trained.
        self.table: CodeTable | None = None

    # --- the two stages -------------------------------------------------------------------------

    def get_extra_state(self) -> int:
        """Return the start of the second stage for the checkpoint."""
        return self.transformer_start

    def set_extra_state(self, state: int) -> None:
        """Restore the start of the second stage."""
        self.transformer_start = int(state)

    def train(self, mode: bool = True) -> Ganime:
        """Set the mode; a frozen tokenizer stays in eval mode, since training mode would update its codebook."""
        super().train(mode)
        if self.tokenizer_frozen:
            self.tokenizer.eval()
        return self

    def start_training(self, environment: Environment) -> None:
        """Load pretrained parts, and check that the data fit the model."""
        if self.tokenizer_checkpoint and self.train_step == 0:
            self._load_tokenizer(self.tokenizer_checkpoint)
        if self.transformer is not None and self.transformer.body_weights and not self.transformer.body_loaded:
            self.transformer.load_pretrained()  # before the averages are initialised
        if self.transformer is not None and not self.tokenizer_checkpoint and self.tokenizer_steps < 1:
            raise AnimegenError(
                "The transformer needs a trained tokenizer: set model.tokenizer_steps, or"
                " model.tokenizer_checkpoint=<run folder>."
            )
        self._check_data(environment.data, environment.processes)
        super().start_training(environment)
        if self.tokenizer_frozen:
            self._freeze_tokenizer()

    @property
    def joint(self) -> bool:
        """Whether transformer and renderer are trained together."""
        return self.tokenizer_frozen and self.joint_start is not None and self.train_step >= self.joint_start

    def network(self, name: str) -> nn.Module:
        """Return the network of that name; ``joint`` is transformer and renderer together."""
        if name != "joint" or self.transformer is None or self.tokenizer.renderer is None:
            return super().network(name)
        return nn.ModuleDict({"transformer": self.transformer, "renderer": self.tokenizer.renderer})

    def networks(self) -> dict[str, nn.Module]:
        """Return the trainable networks by name, without ``joint``, which consists of parts of others."""
        return {name: network for name, network in super().networks().items() if name != "joint"}

    def _check_data(self, data: Any, processes: int) -> None:
        """Check the data, and set until when they return frames. Nothing to check without a data module."""
        if data is None:
            return
        view = data.train
        if not isinstance(view, ClipsView):
            raise AnimegenError(f"{type(self).__name__} is trained on frames and clips: use data=clips/toonworld.")
        if view.shape != self.frame_size:
            raise AnimegenError(
                f"The data have frames of {view.shape[0]}x{view.shape[1]}, but model.frame_size is {self.frame_size}:"
                " set data.image_size, data.image_width and model.frame_size to the same size."
            )
        if self.transformer is not None:
            if view.lengths[-1] > self.transformer.max_frames:
                raise AnimegenError(
                    f"data.lengths={view.lengths} exceeds model.transformer.max_frames={self.transformer.max_frames}:"
                    " change one of them."
                )
            steps = self.transformer_start if self.tokenizer_frozen else self.tokenizer_steps
            view.frames_until = steps * data.batch_size * processes
        view.with_ends = self.has_renderer
        if self.joint_start is not None or (self.transformer is not None and self.transformer.motion is not None):
            view.piece_images = "all"
        elif self.transformer is not None and self.transformer.pixels is not None:
            view.piece_images = "ends"

    def _load_tokenizer(self, path: str) -> None:
        """Load the tokenizer of a checkpoint; its renderer is ignored if this model has none."""
        pretrained = getattr(load_model(path, "cpu"), "tokenizer", None)
        if not isinstance(pretrained, Tokenizer):
            raise AnimegenError(f"model.tokenizer_checkpoint={path} has no tokenizer: give another checkpoint.")
        if self.has_renderer and pretrained.renderer is None and self.tokenizer_steps < 1:
            raise AnimegenError(
                f"The tokenizer in '{path}' has no renderer, and with model.tokenizer_steps=0 none is trained: set"
                " model.tokenizer_steps, or ablation=ganime/no_renderer."
            )
        try:
            self.tokenizer.load_pretrained(pretrained)
        except RuntimeError as error:
            raise AnimegenError(
                f"The tokenizer in '{path}' has another architecture than model.tokenizer of this run: use the settings"
                " that it was trained with (see the config folder of its run)."
            ) from error

    def start_step(self) -> None:
        """Start the second stage where it is due."""
        if self.transformer is not None and not self.tokenizer_frozen and self.train_step >= self.tokenizer_steps:
            self._start_transformer_stage()
        if self.train_step == self.joint_start:
            self._freeze_tokenizer()

    def _start_transformer_stage(self) -> None:
        """Freeze the tokenizer with its averaged weights, and restart the average of the transformer."""
        if self.ema is not None:
            with self.ema_scope():
                averaged = {name: value.clone() for name, value in self.tokenizer.state_dict().items()}
            # From here on weights and averages of the tokenizer are equal, so its averages stay constant.
            self.tokenizer.load_state_dict(averaged)
            self.ema.updates = 0
        self.transformer_start = self.train_step
        self._freeze_tokenizer()

    def _freeze_tokenizer(self) -> None:
        self.tokenizer.requires_grad_(False)
        self.tokenizer.eval()
        if self.joint and self.tokenizer.renderer is not None:
            self.tokenizer.renderer.requires_grad_(True)
        if self.discriminator is not None:
            self.discriminator.requires_grad_(False)

    def _codes(self) -> CodeTable:
        """Return the codes of the training clips; the first process computes them if they are missing."""
        if self.table is None:
            training = self.environment
            view = training.data.train
            folder = Path(self.codes_folder or training.folder / "codes")
            table = code_table(folder, self.tokenizer, view) if training.first else None
            training.barrier()
            self.table = (table or code_table(folder, self.tokenizer, view, build=False)).to(self.device)
        return self.table

    # --- updates --------------------------------------------------------------------------------

    def updates(self, batch: dict[str, Tensor]) -> Updates:
        """Yield the updates of the current stage."""
        if self.tokenizer_frozen:
            yield from self._transformer_updates(self._codes().take(batch), batch)
        else:
            yield from self._tokenizer_updates(batch)

    def _tokenizer_updates(self, batch: dict[str, Tensor]) -> Updates:
        """Yield the updates of discriminator and tokenizer."""
        if "frame" not in batch:
            raise AnimegenError("The tokenizer is trained on single frames: use data=clips/toonworld.")
        real = batch["frame"]
        tokenized = self.tokenizer(real)
        fake = tokenized.image
        if self.discriminator is not None and self.train_step >= self.discriminator_start:
            logits = {
                "fake_logits": lambda: self._logits(fake.detach(), real),
                "real_logits": lambda: self._logits(real, real),
            }
            yield "discriminator", self.objectives["discriminator"](**logits)
        self._record_codebook(tokenized)
        objective = self.objectives["tokenizer"]
        adaptive = self.adaptive_cap is not None and objective.reads("fake_logits")
        image = fake.detach().requires_grad_() if adaptive else fake
        bound = objective(
            fake=image,
            real=real,
            encoded=tokenized.encoded,
            nearest=tokenized.quantized.nearest,
            rendered=lambda: self._rendered(fake, batch),
            fake_logits=lambda: self._logits(image, real),
        )
        if adaptive:
            assert self.adaptive_cap is not None
            log: Callable[[Tensor], None] = lambda scale: self.record("tokenizer/adaptive_weight", scale)  # noqa: E731
            last = self.tokenizer.last_layer
            bound = AdaptiveEvaluation(bound, fake, image, last, self.adaptive_cap, log, self.environment.mean)
        yield "tokenizer", bound

    def _transformer_updates(self, clips: Tensor, batch: dict[str, Tensor]) -> Updates:
        """Yield the update of the transformer on codes (B,T,h,w), in the third stage together with the renderer."""
        assert self.transformer is not None
        images = (batch["first"], batch["last"]) if "first" in batch else None
        predictions = self.transformer(clips, self.train_step, images)
        soft: Callable[[], dict[str, Tensor]] = lambda: soft_frames(  # noqa: E731
            self.tokenizer, clips, predictions, self.soft_frames
        )
        if self.train_step % self.log_every == 0:
            for name, value in accuracies(predictions).items():
                self.record(f"transformer/{name}", value)
        entries = {"logits": predictions["logits"], "targets": predictions["targets"], "soft": soft, "soft_truth": soft}
        if self.transformer.motion is not None:
            entries |= motion_entries(predictions, batch, getattr(self.environment.data, "train", None))
        if not self.joint:
            yield "transformer", self.objectives["transformer"](**entries)
            return
        pictures = (batch["first"], batch["last"], batch["truth"])
        rendered: Callable[[], dict[str, Tensor]] = lambda: predicted_renderings(  # noqa: E731
            self.tokenizer, clips, predictions, pictures, self.soft_frames, self.joint_shares
        )
        yield "joint", self.objectives["joint"](**entries, rendered=rendered, real=rendered)

    def _rendered(self, fake: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return the frames rendered between two other frames of their clip, guided by the reconstructions of all."""
        network = self.tokenizer
        if network.renderer is None:
            raise AnimegenError("A loss term reads rendered, but the tokenizer has no renderer: delete the term.")
        with torch.no_grad():  # and in eval mode: only the frame itself updates the codebook
            training = network.training
            network.eval()
            ends = network.decode(network.encode(torch.cat([batch["first"], batch["last"]])))
            network.train(training)
        first, last = ends.chunk(2)
        guide = make_guide(network.renderer, fake, (first, last), 1.0)
        return network.renderer(batch["first"], batch["last"], batch["t"], guide).image

    def _logits(self, images: Tensor, real: Tensor) -> Tensor:
        if self.discriminator is None:
            raise AnimegenError("A loss term reads logits, but the model has no discriminator: delete the term.")
        if getattr(self.discriminator, "condition", 0):
            return self.discriminator(images, real)
        return self.discriminator(images)

    @torch.no_grad()
    def _record_codebook(self, tokenized: Tokenized) -> None:
        """Log the usage of the codebook."""
        if self.train_step % self.log_every:
            return
        quantizer = self.tokenizer.quantizer
        usage = quantizer.usage(tokenized.quantized.codes)
        self.record("codebook/perplexity", usage.perplexity)
        self.record("codebook/used", usage.used)
        dead = quantizer.dead()
        if dead is not None:
            self.record("codebook/dead", dead)

    def example_batch(self, size: int, height: int, width: int, device: torch.device) -> dict[str, Tensor]:
        """Return a batch of random frames in the size of the model, for benchmarks of the tokenizer."""
        frames = torch.rand(3, size, 3, *self.frame_size, device=device) * 2 - 1
        ends = {"first": frames[1], "last": frames[2], "t": torch.full((size,), 0.5, device=device)}
        return {"frame": frames[0]} | (ends if self.has_renderer else {})
