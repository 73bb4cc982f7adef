"""Images and videos to anime, with any model that has the Stylizer protocol."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from animegen.config.looks import look_for
from animegen.errors import AnimegenError
from animegen.inference.application import Applied, choose_encoding, image_suffix, load_applied, share_cores
from animegen.inference.denoising import learnt_filter
from animegen.inference.display import Display
from animegen.inference.options import Deinterlace, OnError, StylizeOptions
from animegen.inference.photos import stylize_photos
from animegen.inference.planning import Plan, is_sequence, plan
from animegen.inference.styles import encoded_style, style_files
from animegen.inference.stylist import Stylist
from animegen.inference.summary import Summary
from animegen.inference.videos import Part, VideoSettings, identity, stylize_videos
from animegen.tasks.protocols import Stylizer


def stylize(options: StylizeOptions, display: Display | None = None) -> Summary:
    """Stylize the input of the options; return the result of each file.

    Args:
        options: options of the command.
        display: shows the progress; ``None``: on the terminal.

    Raises:
        AnimegenError: for invalid options, before anything is written.
    """
    stills = style_files(options.style) if options.style else []
    made = plan(options.input, options.output, options.format, options.recursive, options.overwrite)
    _check_fps(options, made)
    suffix = image_suffix(options.format)
    for video in made.videos:
        choose_encoding(options, video.target, images=suffix)  # mistakes are found before any work
    for_photos, applied = _applied(options, made)
    style = encoded_style(applied.model, stills, options.style_weights) if stills else None
    prefilter, filtered = None, None
    if options.prefilter and made.videos:
        config = getattr(applied.model, "run_info", {}).get("config")
        prefilter, filtered = learnt_filter(config, applied.checkpoint)
    settings = VideoSettings(
        encode=partial(choose_encoding, options, images=suffix),
        max_side=options.max_side,
        fps=options.fps,
        part=Part(options.start, options.end, options.deinterlace is Deinterlace.auto),
        suffix=suffix,
        shots=_shots if options.cuts else None,
        prefilter=prefilter,
        identity={**_identity(options, applied, stills), "prefilter": filtered},
        overwrite=options.overwrite,
        compare=options.compare is not None,
    )
    skip_broken = options.on_error is OnError.skip
    summary, began = Summary(), time.perf_counter()
    with made.held(), display or Display(len(made.photos) + len(made.videos)) as display:
        for sentence in made.notes:
            display.note(sentence)
        if prefilter is not None:
            display.note("Noise is filtered off the frames, as it was while the model learnt (prefilter=false: not).")
        tile = None if options.tile == "auto" else options.tile
        draws, follows = (
            Stylist(
                *(chosen.model, chosen.device, tile, chosen.dtype, options.strength, display.note, style),
                line_width=None if options.line_width == "auto" else options.line_width,
            )
            for chosen in (for_photos, applied)
        )
        stylize_photos(
            *(made.photos, draws, summary, options.max_side, skip_broken, options.overwrite, display.progress),
            compare=options.compare is not None,
        )
        if made.videos:
            share_cores(options.threads, applied.device)
        stylize_videos(made.videos, follows.follow, settings, summary, display, skip_broken)
    summary.seconds = time.perf_counter() - began
    return summary


def _applied(options: StylizeOptions, made: Plan) -> tuple[Applied, Applied]:
    """Load the models of photos and of videos: two if there are both, and nothing names the model."""
    films = look_for(options.command, videos=True) if options.usual and made.videos else None
    if films is None:
        chosen = load_applied(options, (Stylizer,), "stylize images")
        return chosen, chosen
    for_videos = load_applied(replace(options, checkpoint=str(films.file)), (Stylizer,), "stylize images")
    return load_applied(options, (Stylizer,), "stylize images") if made.photos else for_videos, for_videos


def _check_fps(options: StylizeOptions, made: Plan) -> None:
    if (options.start is not None or options.end is not None) and (made.photos or not made.videos):
        raise AnimegenError("start= and end= are for videos, and there are images: leave them out.")
    if options.fps is not None and not any(is_sequence(video.source) for video in made.videos):
        raise AnimegenError(
            f"fps={options.fps} is for numbered frames; videos have a rate of their own: leave fps= out."
        )


def _identity(options: StylizeOptions, applied: Applied, stills: Iterable[Any]) -> dict[str, Any]:
    """Return the settings on which frames depend, compared when an interrupted video is continued."""
    return {
        "weights": options.weights.value,
        "strength": str(options.strength),
        "tile": str(options.tile),
        "line_width": str(options.line_width),
        "style": [identity(still) for still in stills],
        "style_weights": str(options.style_weights),
        "checkpoint": identity(applied.checkpoint),
        "precision": str(applied.dtype),
        "device": applied.device.type,
    }


def _shots(frames: Iterable[Tensor]) -> list[tuple[int, int]]:
    from animegen.media.video.shots import detect_shots  # OpenCV and PySceneDetect: images need no detector

    return detect_shots(frames)
