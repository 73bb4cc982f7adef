"""Find the files of studies, ``study/<name>.yaml``."""

from __future__ import annotations

from pathlib import Path

from animegen.config.sources import config_root
from animegen.errors import AnimegenError, did_you_mean


def study_roots() -> list[Path]:
    """Return the folders that may have a folder ``study``: the current folder's ``experiments``, and the clone's."""
    conf = config_root()
    return list(
        dict.fromkeys(Path(root).resolve() for root in (Path.cwd() / "experiments", conf.parent / "experiments"))
    )


def list_studies() -> dict[str, Path]:
    """Return the file of every study by name: those of the package, of the current folder and of the clone.

    A study of the current folder replaces that of the clone.

    Raises:
        AnimegenError: if one of the package has the same name as another with different content.
    """
    conf = config_root()
    found: dict[str, Path] = {}
    for root in (conf, *study_roots()):
        for path in sorted((root / "study").rglob("*.yaml")):
            name = path.relative_to(root / "study").with_suffix("").as_posix()
            kept = found.setdefault(name, path)
            if kept.is_relative_to(conf) and kept.read_bytes() != path.read_bytes():
                raise AnimegenError(f"There are two studies '{name}', '{kept}' and '{path}': rename one.")
    return found


def find_study(name: str) -> Path:
    """Return the file of a study.

    Raises:
        AnimegenError: if no study has this name; the message suggests the closest one.
    """
    studies = list_studies()
    if name not in studies:
        there = f"there are {', '.join(studies)}" if studies else "there are none"
        raise AnimegenError(
            f"There is no study '{name}'; {there}.{did_you_mean(name, studies)} A study is a file"
            f" experiments/study/{name}.yaml in the current folder."
        )
    return studies[name]
