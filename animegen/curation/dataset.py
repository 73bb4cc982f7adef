"""Data sets from many videos: sharding, parallel work, removal of repeats, and splits."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from animegen import __version__
from animegen.config.plain import read_json
from animegen.curation.facts import unlike
from animegen.curation.options import Curation
from animegen.curation.report import write_report
from animegen.curation.videos import RECORDS, curate_video, find_videos, identity, movies_of, record_of
from animegen.data.clips.sources import LISTS
from animegen.data.sampler import counter_hash
from animegen.errors import AnimegenError
from animegen.files import completed, user_path
from animegen.locks import LOCK, locked

SETTINGS = "settings.json"


@dataclass
class Outcome:
    """Result of a curation run."""

    videos: int = 0
    done: int = 0
    missing: int = 0
    failed: list[str] = field(default_factory=list)
    clips: dict[str, int] = field(default_factory=dict)


def curate(
    source: str | Path,
    output: str | Path,
    curation: Curation,
    jobs: int = 1,
    shard: tuple[int, int] = (0, 1),
    overwrite: bool = False,
    tell: Callable[[str], None] = print,
) -> Outcome:
    """Make a data set of videos; finished videos are skipped.

    Args:
        source: a video, or a folder of videos.
        output: the data set. It may exist if it was begun with the same settings.
        curation: the settings.
        jobs: videos that are worked on at a time.
        shard: (k, n): this run takes videos k, k + n, k + 2 n ... The run that finishes the last video writes lists and
            the report.
        overwrite: start again if the data set was made with other settings.
        tell: gets a sentence per video.

    Raises:
        AnimegenError: if there are no videos, or the folder holds something else.
    """
    videos = find_videos(source)
    place = user_path("output", output)
    with _begun(place, curation, overwrite):
        return _curate_shard(videos, place, curation, jobs, shard, tell)


def _curate_shard(
    videos: Mapping[str, Path],
    place: Path,
    curation: Curation,
    jobs: int,
    shard: tuple[int, int],
    tell: Callable[[str], None],
) -> Outcome:
    mine = [item for n, item in enumerate(videos.items()) if n % shard[1] == shard[0]]
    todo = [(name, path) for name, path in mine if not _is_done(record_of(place, name), path)]
    outcome = Outcome(videos=len(videos))
    if len(mine) > len(todo):
        tell(f"{len(mine) - len(todo)} videos are finished already")
    for record in _work(todo, place, curation, jobs):
        outcome.done += 1
        text = record.get("failed") or f"{len(record['clips'])} clips of {record['fates']['kept']} frames"
        tell(f"{outcome.done}/{len(todo)} {record['video']}: {text}")
    records = {name: record_of(place, name) for name in videos}
    outcome.missing = sum(record is None for record in records.values())
    present = [record for record in records.values() if record is not None]
    outcome.failed = [f"{r['video']}: {r['failed']}" for r in present if "failed" in r]
    if not outcome.missing:
        outcome.clips = bring_together(place, present, curation, movies_of(videos), tell)
    return outcome


@contextmanager
def _begun(place: Path, curation: Curation, overwrite: bool) -> Iterator[None]:
    """Create the folder of a data set, or check that it was made with the same settings; other shards may use it.

    Raises:
        AnimegenError: if it holds something else, or other shards run with other settings.
    """
    settings = json.loads(json.dumps(asdict(curation) | {"version": __version__}))
    file = place / RECORDS / SETTINGS
    if not file.exists():
        known = (LOCK, RECORDS, "shards")
        if place.exists() and (not place.is_dir() or any(path.name not in known for path in place.iterdir())):
            raise AnimegenError(f"'{place}' exists and is not a data set of animegen: choose another output=.")
    busy: AnimegenError | None = None
    if overwrite and file.exists() and _settings_of(file) != settings:
        try:
            with locked(place, tidy=True):
                if _settings_of(file) != settings:  # no other shard has started again meanwhile
                    _start_again(place, settings)
        except AnimegenError as error:
            busy = error
    with locked(place, tidy=True, shared=True):
        try:
            # Not replaced: several shards begin at the same time, and must agree.
            with completed(file, overwrite=False) as hidden:
                hidden.write_text(json.dumps(settings, indent=1) + "\n")
        except AnimegenError:
            if not file.exists():
                raise
        before = _settings_of(file)
        if before != settings:
            changed = [key for key in settings if before.get(key) != settings[key]]
            raise busy or AnimegenError(
                f"'{place}' was made with other settings ({', '.join(changed)}): choose another output=, or"
                " overwrite=true to make it again."
            )
        yield


def _start_again(place: Path, settings: dict[str, Any]) -> None:
    """Remove clips made with other settings. A kill leaves a data set with the old settings and fewer videos."""
    records = place / RECORDS
    for name in LISTS.values():
        (place / name).unlink(missing_ok=True)
    for record in records.glob("[!.]*.json"):  # no name may lead out of the folder
        if record.name != SETTINGS:
            record.unlink()
            shutil.rmtree(place / record.stem, ignore_errors=True)
            shutil.rmtree(records / record.stem, ignore_errors=True)
    with completed(records / SETTINGS) as hidden:
        hidden.write_text(json.dumps(settings, indent=1) + "\n")


def _settings_of(file: Path) -> dict[str, Any]:
    try:
        found = read_json(file, "the settings of a data set", "remove it")
    except AnimegenError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_done(record: dict[str, Any] | None, path: Path) -> bool:
    try:
        return record is not None and "failed" not in record and record["source"] == identity(path)
    except AnimegenError:  # reported when it is read
        return False


def _work(todo: list[tuple[str, Path]], place: Path, curation: Curation, jobs: int) -> Iterator[dict[str, Any]]:
    if jobs <= 1 or len(todo) <= 1:
        for name, path in todo:
            yield curate_video(name, path, place, curation)
        return
    # Not forked: OpenCV's threads do not survive that.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(todo)), mp_context=context) as pool:
        work = [pool.submit(curate_video, name, path, place, curation) for name, path in todo]
        for future in as_completed(work):
            yield future.result()


def bring_together(
    place: Path,
    records: Sequence[dict[str, Any]],
    curation: Curation,
    movies: Mapping[str, str],
    tell: Callable[[str], None] = print,
) -> dict[str, int]:
    """Remove repeats, split the clips, write lists and report; return the number of clips per list."""
    good = [record for record in records if "failed" not in record]
    clips = [
        clip | {"video": record["video"], "movie": movies[record["video"]]}
        for record in good
        for clip in record["clips"]
    ]
    repeats = find_repeats(clips, curation.repeat)
    kept = [clip for clip in clips if clip["name"] not in repeats]
    sides, by_movie = divide(kept, curation.holdout)
    for side, names in sides.items():
        with completed(place / LISTS[side]) as hidden:
            hidden.write_text("".join(f"{name}\n" for name in names), "utf-8")
    if by_movie:
        movie_of = {clip["name"]: clip["movie"] for clip in kept}
        tell(held_out({side: sorted({movie_of[name] for name in names}) for side, names in sides.items()}))
    settings = asdict(curation) | {"version": __version__}
    write_report(place, records, clips, repeats, sides, by_movie, movies, settings)
    return {side: len(names) for side, names in sides.items()}


def held_out(movies: Mapping[str, Sequence[str]]) -> str:
    """Return a sentence about the movies that are not trained on.

    Args:
        movies: names by side: ``train``, ``val``, ``test``.
    """
    count = sum(map(len, movies.values()))
    val, test = (", ".join(movies[side]) for side in ("val", "test"))
    return (
        f"{len(movies['val']) + len(movies['test'])} of {count} movies are held out: {val} for validation, {test} for"
        f" test. holdout= changes the share; to train on a clip of theirs, move its line from {LISTS['val']} or"
        f" {LISTS['test']} to {LISTS['train']}."
    )


def find_repeats(clips: Sequence[dict[str, Any]], limit: int | None) -> dict[str, str]:
    """Return the clips that repeat an earlier clip, with the name of that clip.

    Within a shot only equal looks count, those of a cycle that is shown again: a figure that moves before a ground that
    stands still changes few of the bits, and nothing is repeated.
    """
    repeats: dict[str, str] = {}
    looks: list[tuple[str, tuple[str, int], list[int]]] = []
    if limit is None:
        return repeats
    for clip in clips:
        mine, shot = [int(look, 16) for look in clip["looks"]], (clip["video"], clip["shot"])
        for name, place, other in looks:
            most = limit if place != shot else 0
            if all(unlike(a, b) <= most for a, b in zip(mine, other, strict=True)):
                repeats[clip["name"]] = name
                break
        else:
            looks.append((clip["name"], shot, mine))
    return repeats


def divide(clips: Sequence[dict[str, Any]], holdout: float) -> tuple[dict[str, list[str]], bool]:
    """Return the names of the clips for training, validation and test, and whether whole movies were divided.

    Three or more movies are divided by the hashes of their names, so that the splits share no movie. With fewer, the
    last shots of each movie are for test and those before for validation: the splits then share scenery and characters.
    """
    sides: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    movies = sorted({clip["movie"] for clip in clips}, key=lambda movie: counter_hash("film", movie) % 2**64)
    if len(movies) >= 3:
        held = max(1, round(holdout * len(movies)))
        side_of = {name: "test" if n < held else "val" if n < 2 * held else "train" for n, name in enumerate(movies)}
        for clip in clips:
            sides[side_of[clip["movie"]]].append(clip["name"])
        return sides, True
    for movie in movies:
        mine = [clip for clip in clips if clip["movie"] == movie]
        shots = sorted({(clip["video"], clip["shot"]) for clip in mine})
        # One shot, or two, cannot be divided among three: then moments of the same shot are.
        by_shot = [[c for c in mine if (c["video"], c["shot"]) == shot] for shot in shots]
        parts = by_shot if len(shots) > 2 else [[c] for c in mine]
        for side in ("test", "val"):
            wanted = max(1, round(holdout * len(mine)))
            count = 0
            while len(parts) > 1 and count < wanted:
                part = parts.pop()
                count += len(part)
                sides[side] = [*(clip["name"] for clip in part), *sides[side]]
        sides["train"] += [clip["name"] for part in parts for clip in part]
    return sides, False
