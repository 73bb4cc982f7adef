"""Import of key-frame projects of other programs into folders for :func:`folder_project`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from animegen.data.keyframes.folder import FORMATS, MANIFEST
from animegen.errors import AnimegenError
from animegen.files import (
    check_new_folder,
    existing_folder,
    hidden_name,
    publish_folder,
    regular_file,
    translate_io_errors,
    user_path,
)
from animegen.media.images import EXTENSIONS, natural_key, open_image

INPUTS = ("input_filtered", "input")
"""Folders of frames in the other programs, in order of preference: the filtered ones were used for training."""

_KNOWN = {*INPUTS, "output", "mask", "flow_fwd", "flow_bwd"}


def import_layout(source: str | Path, target: str | Path, resize: bool = False) -> Path:
    """Copy a project of another program into a new folder and return it.

    Two layouts are supported::

        <name>_train/ input/ or input_filtered/   key frames            Few-Shot-Patch-Based-Training (Texler et al.):
                      output/                     their drawings            always with <name>_gen, guides such as
                      mask/                       masks                     input_gdisko_gauss_r10_s10 in both
                      <guide>/                    guides                its Video-to-Video port (Mega-Gorilla):
        <name>_gen/   input_filtered/ or input/   every frame               guides such as tracking; without
                      <guide>/                    guides                    <name>_gen the clip is the key frames

    Flows are not copied but estimated. Images with a wrong suffix get the suffix of their data. Masks without drawing
    and guides that lack frames are omitted.

    Args:
        source: ``<name>_train``, or its parent folder.
        target: the new folder.
        resize: set ``resize: true`` in the project.

    Raises:
        AnimegenError: if the source is not such a project, or the target exists.
    """
    place = user_path("output", target)
    check_new_folder(place)
    train, gen = _find(user_path("import", source))
    inputs = _images(next(train / name for name in INPUTS if (train / name).is_dir()))
    drawings = _images(train / "output")
    clip = dict(inputs)
    if gen is not None:
        folder = next((gen / name for name in INPUTS if (gen / name).is_dir()), None)
        # The frames of the clip take precedence.
        clip |= _images(folder) if folder is not None else {}
    lost = [stem for stem in drawings if stem not in clip]
    if not drawings or lost:
        what = f"the drawing '{lost[0]}' has no frame" if lost else f"there is no drawing in '{train / 'output'}'"
        raise AnimegenError(f"The project '{train}' cannot be imported: {what}.")
    partial = hidden_name(Path(os.path.abspath(place)))
    with translate_io_errors(place, "written"):
        try:
            _copy(clip, partial / "frames")
            _copy(drawings, partial / "keys")
            masks = _images(train / "mask")
            _copy({stem: masks[stem] for stem in drawings if stem in masks}, partial / "masks")
            for name in sorted(_guide_folders(gen if gen is not None else train)):
                images = {**_images(train / name), **(_images(gen / name) if gen is not None else {})}
                if set(clip) <= set(images):
                    _copy({stem: images[stem] for stem in clip}, partial / "guides" / name)
            if resize:
                (partial / MANIFEST).write_text("resize: true\n")
            publish_folder(partial, place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return place


def _find(source: Path) -> tuple[Path, Path | None]:
    """Return the folders of key frames and of the clip."""
    existing_folder(source)
    train = source
    if not source.name.endswith("_train") and not (source / "output").is_dir():
        found = sorted(f for f in source.iterdir() if f.is_dir() and f.name.endswith("_train"))
        if len(found) != 1:
            raise AnimegenError(f"'{source}' has {len(found)} folders <name>_train: choose the one to import.")
        train = found[0]
    missing = [name for name in ("output",) if not (train / name).is_dir()]
    if not any((train / name).is_dir() for name in INPUTS):
        missing.insert(0, "input")
    if missing:
        raise AnimegenError(
            f"'{train}' is not a project of a known layout: it lacks {' and '.join(missing)}; a project has input,"
            " output and optionally mask."
        )
    gen = train.with_name(train.name.removesuffix("_train") + "_gen")
    return train, gen if train.name.endswith("_train") and gen.is_dir() else None


def _guide_folders(folder: Path) -> list[str]:
    return [
        f.name
        for f in folder.iterdir()
        if f.is_dir() and f.name not in _KNOWN and not f.name.startswith((".", "logs", "res_")) and _images(f)
    ]


def _images(folder: Path) -> dict[str, Path]:
    """Return stem -> file of the images of a folder in natural order, empty if there is no folder."""
    if not folder.is_dir():
        return {}
    files = sorted(folder.iterdir(), key=lambda file: natural_key(file.name))
    return {file.stem: file for file in files if file.suffix.lower() in EXTENSIONS}


def _copy(images: dict[str, Path], folder: Path) -> None:
    if not images:
        return
    folder.mkdir(parents=True)
    for stem, file in images.items():
        regular_file(file)
        shutil.copyfile(file, folder / f"{stem}{_true_suffix(file)}")


def _true_suffix(file: Path) -> str:
    try:
        with open_image(file) as image:
            suffixes = FORMATS.get(str(image.format), (file.suffix.lower(),))
    except Exception:  # Pillow's plug-ins raise nearly every kind of exception
        return file.suffix  # reported by the validation of the project
    return file.suffix if file.suffix.lower() in suffixes else suffixes[0]
