"""Ranges of the numbers in a configuration, declared by the name of the key and checked before anything is built.

A name has one range wherever it occurs below a node of animegen, torch or Lightning; ``<Class>.<name>`` is an
exception. Settings of the user's own classes are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from animegen.config.common import LARGEST_SEED
from animegen.config.schema import LARGEST_COUNT
from animegen.config.values import Range, accepts, refusal

_COUNT = Range(1, LARGEST_COUNT)
_COUNT_OR_0 = Range(0, LARGEST_COUNT)
_SIDE = Range(1, 65536)
_CHANNELS = Range(1, 65536)
_SHARE = Range(0, 1)
_BELOW_1 = Range(0, below=1)
_STRENGTH = Range(0, 1_000_000)
_POSITIVE = Range(above=0, maximum=1_000_000)

#: (type, range, names)
_DECLARED: tuple[tuple[type, Range, str], ...] = (
    # --- data, steps and intervals
    (int, _COUNT, "accumulate batch batch_size batches clips cycles discriminator_every discriminator_updates"),
    (int, _COUNT, "drift_frames every frames frames_per_scene gap hold intervals iterations keys length lengths"),
    (
        int,
        _COUNT,
        "TemporalAnime.looks max_frames multiple pairs places samples scenes scheduled_steps step_size steps strides",
    ),
    (int, _COUNT, "T_0 T_max test_clips test_gap test_scenes times total_iters total_steps train_scenes"),
    (int, _COUNT, "train_steps unlabelled_frames val_batch_size val_clips val_frames val_scenes window"),
    (int, _COUNT_OR_0, "at context discriminator_start first_scene gradient_norms keep limit megabytes pretrain_steps"),
    (int, _COUNT, "candidates layer_clips reuse top_k windows"),
    (int, Range(2, 1000), "variants"),
    (int, _COUNT_OR_0, "blanks joint_start rehearsals"),
    (int, _COUNT_OR_0, "ramp scene single_until soft_frames start tbptt tokenizer_steps truth_encoder_steps"),
    (int, _COUNT_OR_0, "flat_then_linear.steps CurriculumDataModule.steps CurriculumSteps.steps CurriculumView.steps"),
    (int, Range(0, LARGEST_SEED), "seed world_seed"),
    (int, Range(0, 1024), "num_workers workers"),
    (int, _SIDE, "frame_size grid image_size image_width load_size min_size patch shape size still_size"),
    (int, _SIDE, "AnimeDataModule.side style_size"),
    (float, _SIDE, "CurriculumDataModule.size CurriculumSteps.size CurriculumView.size"),  # rounded up
    (float, Range(1, 16), "zoom"),
    (float, _POSITIVE, "speed"),
    (int, Range(-1, LARGEST_COUNT), "Checkpoints.keep num_sanity_val_steps"),
    (float, Range(above=0, maximum=LARGEST_COUNT), "val_check_interval"),
    # --- networks
    (int, _CHANNELS, "channels codes depth dim downs features filters groups heads latent merge multipliers"),
    (int, _CHANNELS, "CodeTransformer.layers FewShotGenerator.inputs NLayerPatchGAN.layers outer_kernel pool radius"),
    (int, _CHANNELS, "hidden n_frames_before train_frames refine residual scales UNetInterpolator.blocks widths"),
    (int, Range(1, 2), "refine_scale"),
    (int, Range(0, 1000), "Tokenizer.attention blocks carried condition encoder_blocks guide ink levels power"),
    (float, Range(above=0, maximum=64), "memory width"),
    # --- shares and probabilities
    (float, _SHARE, "cold default_share dropout end_dropout flat frame_dropout hard_mining kept_ink key_frames"),
    (float, _SHARE, "exposure full joint_shares prior_dropout"),
    (float, _SHARE, "label_smoothing p_keep recolour salt scheduled share silent_splice splice still upside_down"),
    (float, _BELOW_1, "betas decay holdout momentum"),
    (float, Range(above=0, maximum=1), "unlabelled_share DeepSupervision.decay"),
    # --- losses, optimizers and strengths
    (float, _STRENGTH, "blur border borrowed capacity chroma codebook content_weight free_bits gain grain gray_spread"),
    (float, _STRENGTH, "hue inside jitter light lr luma noise reset shading state_noise style_weight"),
    (float, _STRENGTH, "texture tint weight weight_decay"),
    (float, _POSITIVE, "adaptive_cap clip eps gamma learning_rate ratios region_strength scale sigma sigma_colour"),
    (float, _POSITIVE, "GaussGuide.radius sigma_time target_strength temperature"),
    (float, Range(-100, 100), "fake_label real_label"),
)
RANGES: Mapping[str, tuple[type, Range]] = {
    name: (kind, limits) for kind, limits, names in _DECLARED for name in names.split()
}
#: Settings that may hold a number for each name.
_BY_NAME = ("clip", "ratios", "times")
_KNOWN = re.compile(r"(animegen|torch|pytorch_lightning)\.")


def check_numbers(node: Any, key: str) -> None:
    """Check all numbers of a configuration.

    Args:
        node: plain data, resolved or not.
        key: its dotted key.

    Raises:
        AnimegenError: for a value outside of its range, or of another type.
    """
    for name, value, kind, limits in numbers(node, key):
        if not accepts(value, kind, limits):
            raise refusal(name, value, kind, limits)


def numbers(node: Any, key: str, target: str = "") -> Iterator[tuple[str, Any, type, Range]]:
    """Yield the values that have a declared range, without null and interpolations.

    Args:
        node: plain data.
        key: its dotted key.
        target: ``_target_`` of the node that holds it.

    Yields:
        (dotted key, value, type, range)
    """
    if isinstance(node, dict):
        target = str(node.get("_target_", target))
    for name, value in _items(node):
        if name == "reads":  # names
            continue
        path = f"{key}.{name}"
        declared = RANGES.get(f"{target.rpartition('.')[2]}.{name}") or RANGES.get(str(name))
        nodes = isinstance(value, dict) or (isinstance(value, list) and any(isinstance(each, dict) for each in value))
        if not declared or (target and not _KNOWN.match(target)) or (nodes and name not in _BY_NAME):
            yield from numbers(value, path, target)
        else:
            given = ((where, each) for where, each in _leaves(value, path) if each is not None)
            yield from ((where, each, *declared) for where, each in given if "${" not in str(each))


def _items(node: Any) -> Iterable[tuple[Any, Any]]:
    return node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list):
        for name, each in _items(value):
            yield from _leaves(each, f"{path}.{name}")
    else:
        yield path, value
