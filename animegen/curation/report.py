"""Report of a curation: statistics of all frames, and images of close decisions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from animegen.curation.rules import FATES
from animegen.curation.videos import RECORDS, THUMB, thumb_name
from animegen.files import completed
from animegen.media.images import list_images

#: Cases per sheet and side, and cases per row.
PER_SIDE, COLUMNS = 9, 3
_TITLE = {
    "held": "held: the frame repeats the previous drawing (sameness)",
    "dark": "dark: mean brightness",
    "bright": "bright: mean brightness",
    "flicker": "flicker: jump of the mean brightness, levels",
    "fast": "fast: motion, share of the width",
    "unexplained": "unexplained: difference that motion does not explain, levels",
    "still": "still: motion of a clip, share of the width (its first and last drawing)",
    "repeat": "repeat: two clips look alike (their middle drawings)",
}


def write_report(
    place: Path,
    records: Sequence[Mapping[str, Any]],
    clips: Sequence[Mapping[str, Any]],
    repeats: Mapping[str, str],
    sides: Mapping[str, Sequence[str]],
    by_movie: bool,
    movies: Mapping[str, str],
    settings: Mapping[str, Any],
) -> None:
    """Write ``report.json``, ``REPORT.md`` and ``sheets/<rule>.jpg``.

    Args:
        place: the data set.
        records: records of all videos.
        clips: clips of all videos.
        repeats: omitted clips, with those that they repeat.
        sides: names of the clips by split.
        by_movie: whether whole movies were divided.
        movies: the movie of each video.
        settings: settings of the curation.
    """
    good = [record for record in records if "failed" not in record]
    frames = {clip["name"]: len(clip["frames"]) for clip in clips}
    fates = {fate: sum(record["fates"][fate] for record in good) for fate in FATES}
    repeated = sum(frames[name] for name in repeats)
    sheets = _sheets(place, good, repeats)
    report = {
        "settings": settings,
        "videos": len(records),
        "frames": sum(record["frames"] for record in good),
        "fates": {**fates, "kept": fates["kept"] - repeated, "repeat": repeated},
        "clips": {side: len(names) for side, names in sides.items()},
        "clip_frames": {side: sum(frames[name] for name in names) for side, names in sides.items()},
        "divided": "by movie" if by_movie else "by moment",
        "movies": len({movies[record["video"]] for record in records}),
        "repeats": dict(repeats),
        "by_video": {record["video"]: record.get("fates") or {"failed": record["failed"]} for record in records},
        "problems": {record["video"]: record["problems"] for record in good if record["problems"]},
        "sheets": sheets,
    }
    with completed(place / "report.json") as hidden:
        hidden.write_text(json.dumps(report, indent=1) + "\n")
    with completed(place / "REPORT.md") as hidden:
        hidden.write_text(_page(report, records), "utf-8", "backslashreplace")


def _page(report: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> str:
    total = max(1, report["frames"])
    reasons = {**FATES, "repeat": "in a clip that looks like an earlier one"}
    lines = [
        "# Curation report",
        "",
        f"{report['videos']} videos, {report['frames']} frames; clips for "
        + ", ".join(f"{side}: {n} ({report['clip_frames'][side]} frames)" for side, n in report["clips"].items())
        + ".",
        "",
    ]
    if report["movies"] < report["videos"]:
        lines += [
            f"They belong to {report['movies']} movies: videos in one folder, and numbered parts, count as one.",
            "",
        ]
    if report["divided"] == "by movie":
        lines += ["No movie is in more than one of the lists `train.txt`, `val.txt` and `test.txt`.", ""]
    else:
        lines += [
            "There are fewer than three movies, so the lists `train.txt`, `val.txt` and `test.txt` hold different"
            " moments of the same ones. Scores on such held-out clips are too good, since their places and persons are"
            " in the training data.",
            "",
        ]
    lines += ["| frames | share | fate | |", "|---:|---:|---|---|"]
    lines += [
        f"| {count} | {count / total:.1%} | {fate} | {reasons[fate]} |"
        for fate, count in report["fates"].items()
        if count
    ]
    shown = [fate for fate in FATES if any(record.get("fates", {}).get(fate) for record in records)]
    lines += ["", "## Videos", "", f"| video | shots | bars removed | clips | {' | '.join(shown)} |"]
    lines += ["|---|---:|---|---:|" + "---:|" * len(shown)]
    for record in records:
        if "failed" in record:
            lines.append(f"| {record['video']} | not read: {record['failed']} |")
            continue
        top, bottom, left, right = record["box"]
        width, height = record["size"]
        bars = (
            "no"
            if (right - left, bottom - top) == (width, height)
            else f"{width}x{height} to {right - left}x{bottom - top}"
        )
        counts = " | ".join(str(record["fates"][fate]) for fate in shown)
        lines.append(f"| {record['video']} | {len(record['shots'])} | {bars} | {len(record['clips'])} | {counts} |")
    for video, problems in report["problems"].items():
        lines += ["", f"{video}: {'; '.join(problems)}"]
    lines += ["", "## Close decisions", "", "Above: just accepted. Below: just rejected."]
    for rule in report["sheets"]:
        lines += ["", f"![{_TITLE[rule]}](sheets/{rule}.jpg)"]
    lines += ["", "## Settings", "", "```json", json.dumps(report["settings"], indent=1), "```", ""]
    return "\n".join(lines)


def _sheets(place: Path, records: Sequence[Mapping[str, Any]], repeats: Mapping[str, str]) -> list[str]:
    """Write a sheet for each rule with close decisions; return the rules."""
    made = []
    for rule in _TITLE:
        sides: list[list[tuple[Path, Path, str]]] = [[], []]
        if rule == "repeat":
            for name, twin in repeats.items():
                files = [list_images(place / clip) for clip in (twin, name)]
                sides[1].append((*(f[len(f) // 2] for f in files), name))  # type: ignore[arg-type]
        for record in records:
            for case in record["cases"]:
                if case["rule"] == rule:
                    pair = [place / RECORDS / record["video"] / thumb_name(case[key]) for key in ("other", "number")]
                    label = f"{record['video'][:22]} {case['number']}: {case['value']:.4g} ({case['limit']:g})"
                    sides[0 if case["passed"] else 1].append((pair[0], pair[1], label))
        passed, refused = (side[:PER_SIDE] for side in (_turns(sides[0]), _turns(sides[1])))
        # A rule without rejected or nearly rejected frames has only typical frames to show.
        if refused or (passed and rule not in ("bright", "dark")):
            with completed(place / "sheets" / f"{rule}.jpg") as hidden:
                _sheet(_TITLE[rule], passed, refused).save(hidden, quality=88)
            made.append(rule)
    return made


def _turns(cases: list[tuple[Path, Path, str]]) -> list[tuple[Path, Path, str]]:
    """Return the cases in an order that alternates between videos."""
    by_video: dict[str, list[tuple[Path, Path, str]]] = {}
    for case in cases:
        by_video.setdefault(case[2].split(" ")[0], []).append(case)
    longest = max((len(group) for group in by_video.values()), default=0)
    return [group[n] for n in range(longest) for group in by_video.values() if n < len(group)]


def _sheet(
    title: str, passed: Sequence[tuple[Path, Path, str]], refused: Sequence[tuple[Path, Path, str]]
) -> Image.Image:
    """Return an image of the compared pairs, with value and limit below."""
    height, width = THUMB
    cell = (2 * width + 12, height + 20)
    rows = [-(-len(side) // COLUMNS) for side in (passed, refused)]
    sheet = Image.new("RGB", (COLUMNS * cell[0], 24 + sum(rows) * cell[1] + 2 * 20), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    draw.text((4, 4), title, fill="black", font=ImageFont.load_default(size=14))
    top = 24
    for side, name, colour in ((passed, "passed", "#00702a"), (refused, "refused", "#b00020")):
        draw.text((4, top + 3), f"{name}: {len(side)} nearest" if side else f"{name}: none", fill=colour, font=font)
        top += 20
        for n, (first, second, label) in enumerate(side):
            left, row = n % COLUMNS * cell[0], top + n // COLUMNS * cell[1]
            for k, file in enumerate((first, second)):
                with Image.open(file) as image:
                    sheet.paste(image.convert("RGB").resize((width, height)), (left + 4 + k * (width + 2), row))
            draw.text((left + 4, row + height + 2), label, fill=colour, font=font)
        top += -(-len(side) // COLUMNS) * cell[1]
    return sheet
