"""Which files are read and written is decided, and refused, before any work begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from animegen.errors import AnimegenError
from animegen.files import check_outputs
from animegen.inference.targets import Format, plan_jobs


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in ("a.jpg", "b.PNG", "deep/c.gif", "deep/d.webp", "notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def targets(photos: Path, output: Path | str, **options: object) -> list[str]:
    jobs = plan_jobs(str(photos), str(output), **options)  # type: ignore[arg-type]
    return [job.target.relative_to(photos.parent).as_posix() for job in jobs]


def test_folders_keep_their_inside(photos: Path) -> None:
    out = photos.parent / "out"
    assert targets(photos, out) == ["out/a.jpg", "out/b.PNG", "out/deep/c.png", "out/deep/d.webp"]
    assert targets(photos, out, recursive=False) == ["out/a.jpg", "out/b.PNG"]
    assert targets(photos, out, format_=Format.jpg)[1:3] == ["out/b.jpg", "out/deep/c.jpg"]


def test_results_inside_the_input_are_not_read_again(photos: Path) -> None:
    (photos / "anime").mkdir()
    (photos / "anime" / "a.jpg").write_bytes(b"x")
    assert targets(photos, photos / "anime") == [
        "photos/anime/a.jpg",
        "photos/anime/b.PNG",
        "photos/anime/deep/c.png",
        "photos/anime/deep/d.webp",
    ]


def test_one_file(photos: Path) -> None:
    source, root = photos / "a.jpg", photos.parent
    (root / "exists").mkdir()
    for output, target in [
        (root / "x.png", "x.png"),
        (root / "exists", "exists/a.jpg"),
        (root / "new", "new/a.jpg"),
        (f"{root}/v1.2/", "v1.2/a.jpg"),
    ]:
        assert plan_jobs(str(source), str(output))[0].target == root / target
    assert plan_jobs(str(photos / "deep" / "c.gif"), str(root / "new"))[0].target == root / "new" / "c.png"


@pytest.mark.parametrize(
    ("source", "output", "options", "words"),
    [
        ("photos", "photos", {}, "is the input folder"),
        ("photos/a.jpg", "photos/a.jpg", {}, "would replace the input"),
        ("photos", "photos/a.jpg", {}, "must be a folder, too"),
        ("photos", "new.png", {}, "must be a folder, too"),
        ("photos/notes.txt", "out", {}, r"not an image that can be read: supported are \.jpg.*folders of them"),
        ("photos/a.jpg", "out.mp4", {}, "has no suffix of an image"),
        ("photos/a.jpg", "out.png", {"format_": Format.jpg}, "contradict each other"),
        ("phots", "out", {}, "does not exist.*Did you mean 'photos'"),
        ("photos/deep/..", "photos", {}, "is the input folder"),
    ],
)
def test_refusals(photos: Path, source: str, output: str, options: dict, words: str) -> None:
    root = photos.parent
    with pytest.raises(AnimegenError, match=words):
        plan_jobs(str(root / source), str(root / output), **options)


def test_two_photos_of_one_result(photos: Path) -> None:
    (photos / "A.png").write_bytes(b"x")
    with pytest.raises(AnimegenError, match=r"would both become.*format=keep"):
        plan_jobs(str(photos), str(photos.parent / "out"), Format.png)


def test_existing_results_are_counted(photos: Path) -> None:
    out = photos.parent / "out"
    targets = [job.target for job in plan_jobs(str(photos), str(out))]
    check_outputs(targets, overwrite=False)
    out.mkdir()
    for target in targets[:2]:
        target.write_bytes(b"x")
    with pytest.raises(AnimegenError, match=r"a\.jpg' and 1 more of 4 exist:.*overwrite=true"):
        check_outputs(targets, overwrite=False)
    check_outputs(targets, overwrite=True)


def test_a_file_in_the_way_of_the_folder(photos: Path) -> None:
    jobs = plan_jobs(str(photos), str(photos / "notes.txt" / "out"))
    with pytest.raises(AnimegenError, match=r"notes\.txt' is not a folder"):
        check_outputs([job.target for job in jobs], overwrite=True)
