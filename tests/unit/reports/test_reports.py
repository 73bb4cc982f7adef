"""Reports: figures by hand, marks, markers, differences, samples, and pages that load nothing."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from animegen.errors import AnimegenError
from animegen.reports import plots, tables
from animegen.reports.clips import small_gif
from animegen.reports.differences import Differences, by_model, differences
from animegen.reports.elements import EmbeddedImage, Pair, Slides
from animegen.reports.page import Section, page
from animegen.reports.readme import replace_results, small_jpeg, write_results
from animegen.reports.runs import RunFolder, find_runs, group_seeds, read_curves
from animegen.reports.samples import Samples, enlarged, save_samples, side_by_side
from animegen.reports.sections import make_sections, pairs
from animegen.reports.summary import Cell, beyond_spread, summarise


def record(values: dict[str, float | None], seed: int = 0, status: str = "finished", **config: Any) -> dict[str, Any]:
    def scores(row: dict[str, float | None]) -> dict[str, Any]:
        return {name: {"mean": value, "std": 0.1, "n": 4} for name, value in row.items()}

    identity: dict[str, float | None] = dict.fromkeys(values, 0.25)
    return {
        "status": status,
        "choices": {"experiment": "toy/quickstart"},
        "config": {"seed": seed, "train_steps": 5, **config},
        "evaluation": {
            "task": "stylise",
            "main": "ssim",
            "methods": {"identity": scores(identity), "lookup_table": scores(identity), "model": scores(values)},
            "metrics": {name: {"unit": "", "better": "higher", "description": ""} for name in values},
            "privileged": ["lookup_table"],
        },
    }


def row(*values: float | None, metric: str = "ssim", **config: Any) -> list[RunFolder]:
    return [RunFolder(Path(f"r{i}"), record({metric: v}, seed=i, **config)) for i, v in enumerate(values)]


def test_mean_and_spread_are_those_of_the_seeds() -> None:
    cell = Cell((0.5, 0.7, 0.9))
    assert cell.mean == pytest.approx(0.7)
    assert cell.spread == pytest.approx(0.2)  # sqrt((.04 + 0 + .04) / 2)
    assert Cell((0.5,)).spread is None
    assert Cell(()).mean is None


def test_best_is_marked_only_beyond_the_spread() -> None:
    # Spreads .02 * sqrt(2) / 2 each; of a difference sqrt(2) times that: 0.02.
    close = summarise({"a": row(0.50, 0.52), "b": row(0.515, 0.535)})
    assert close.best("ssim") is None
    assert close.is_clear(close.row("b"), "ssim") is False
    far = summarise({"a": row(0.50, 0.52), "b": row(0.525, 0.545), "c": row(0.1, 0.12)})
    assert far.best("ssim") == "b"
    assert far.difference(far.row("b"), "ssim") == pytest.approx(0.025)
    assert far.difference(far.row("a"), "ssim") is None  # the baseline itself
    assert far.is_clear(far.row("b"), "ssim") is True
    assert summarise({"a": row(0.1), "b": row(0.9)}).best("ssim") is None  # one seed has no spread
    lower = summarise({"a": row(5.0, 5.1, metric="colour_distance"), "b": row(9.0, 9.1, metric="colour_distance")})
    assert lower.best("colour_distance") == "a"
    none = summarise({"a": row(5.0, 5.1, metric="flatness"), "b": row(9.0, 9.1, metric="flatness")})
    assert none.best("flatness") is None  # describes, and does not judge


def test_the_measure_is_the_spread_of_a_difference() -> None:
    one, other = Cell((0.0, 2.0)), Cell((3.0, 3.0))
    assert math.sqrt(2) < 2
    assert beyond_spread(one, other) is True  # 2 apart, spread sqrt(2)
    assert beyond_spread(one, Cell((2.0, 2.0))) is False
    assert beyond_spread(one, Cell((2.0,))) is None


def test_the_table_shows_baselines_spread_difference_and_what_is_missing() -> None:
    runs = {"plain": row(0.50, 0.52), "no_l1": row(0.30, 0.34), "no_tv": row(0.51, None)}
    crashed = RunFolder(Path("x"), {"status": "crashed", "config": {"seed": 0}, "error": "NaN"})
    runs["no_l1"].append(crashed)
    text = tables.markdown(summarise(runs))
    assert text.splitlines()[:7] == [
        "| | ssim ↑ |",
        "|---|---:|",
        "| *identity* | 0.250 |",
        "| *lookup_table\\** | 0.250 |",
        "| plain | 0.510 ±0.014 |",
        "| no_l1 (1 of 3 crashed) | 0.320 ±0.028 (-0.190) |",
        "| no_tv (1 of 2 not finite) | 0.510 (+0.000) |",
    ]
    clear = tables.markdown(summarise({"plain": row(0.50, 0.52), "no_l1": row(0.30, 0.34)}))
    assert "| plain | **0.510** ±0.014 |" in clear
    near = tables.markdown(summarise({"plain": row(0.50, 0.52), "b": row(0.50, 0.53)}))
    assert "| b | 0.515 ±0.021 (≈ +0.005) |" in near
    lines = list(csv.DictReader(io.StringIO(tables.csv_text(summarise(runs)))))
    line = next(line for line in lines if line["row"] == "no_l1")
    assert (float(line["mean"]), line["runs"], line["values"]) == (pytest.approx(0.32), "2", "0.3 0.34")


def test_wrong_names_are_reported() -> None:
    with pytest.raises(AnimegenError, match=r"has the metric 'sim'.*Did you mean 'ssim'"):
        summarise({"a": row(0.5)}, metrics=["sim"])
    with pytest.raises(AnimegenError, match="Did you mean 'plain'"):
        make_sections({"plain": row(0.5)}, {"baseline": "plane", "metrics": None, "samples": None})


def test_scores_of_different_benchmarks_are_not_comparable() -> None:
    one, other = row(0.5)[0], row(0.5, metric="psnr")[0]
    assert one.comparable(row(0.9)[0])
    assert not one.comparable(other)
    changed = record({"ssim": 0.5})
    changed["evaluation"]["methods"]["identity"]["ssim"]["mean"] = 0.4
    assert not one.comparable(RunFolder(Path("y"), changed))


def test_differences_name_keys_and_whole_branches() -> None:
    one = {"lr": 1, "terms": {"l1": {"weight": 1, "reads": {"image": "fake"}}, "tv": {"weight": 2}}, "same": [1]}
    other = {"lr": 2, "terms": {"tv": {"weight": 3}}, "same": [1]}
    assert differences({"a": one, "b": other}) == {
        "lr": {"a": 1, "b": 2},
        "terms.l1": {"a": {"weight": 1, "reads": {"image": "fake"}}},
        "terms.tv.weight": {"a": 2, "b": 3},
    }
    assert differences({"a": one, "b": one}) == {}


def test_only_runs_of_one_model_are_compared() -> None:
    def config(model: str, **settings: Any) -> dict[str, Any]:
        return {"model": {"_target_": model, **settings}, "seed": 0}

    configs = {"a": config("A", lr=1), "b": config("A", lr=2, tv=0.5), "c": config("C", x=1), "d": config("A", lr=1)}
    (found,) = by_model(configs)
    assert found.names == ["a", "b", "d"]
    assert found.changed == {"model.lr": {"a": 1, "b": 2, "d": 1}}
    assert found.partial == {"model.tv": {"b": 0.5}}
    assert by_model({"a": configs["a"], "c": configs["c"]}) == []
    assert tables.differences_markdown([found]).splitlines() == [
        "| key | a | b | d |",
        "|---|---|---|---|",
        "| `model.lr` | `1` | `2` | `1` |",
        "| `model.tv` | – | `0.5` | – |",
    ]


def test_runs_that_differ_in_the_seed_are_one_row() -> None:
    runs = [*row(0.1, 0.2), *row(0.3, lr=2), *row(0.4, lr=3)]
    groups = group_seeds(runs)
    assert {name: [run.score("model", "ssim") for run in each] for name, each in groups.items()} == {
        "toy/quickstart": [0.1, 0.2],
        "toy/quickstart lr=2": [0.3],
        "toy/quickstart lr=3": [0.4],
    }


def write_run(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({**record({"ssim": 0.5}), **changes}))
    return folder


def test_runs_are_found_by_folder_parent_and_pattern(tmp_path: Path) -> None:
    one, two = write_run(tmp_path / "runs" / "a" / "seed0"), write_run(tmp_path / "runs" / "b")
    assert [run.folder for run in find_runs([str(two), str(tmp_path / "runs")])] == [two, one]
    assert [run.folder for run in find_runs([str(tmp_path / "runs" / "*")])] == [one, two]
    with pytest.raises(AnimegenError, match=r"does not exist.*Did you mean 'runs'"):
        find_runs([str(tmp_path / "run")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnimegenError, match="contains no run"):
        find_runs([str(tmp_path / "empty")])


def test_curves_are_read_from_csv_and_events(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "metrics.csv").write_text("step,val/ssim,train/x\n1,,3\n2,0.5,\n4,0.75,\n")
    assert read_curves(tmp_path / "a") == {"ssim": [(2, 0.5), (4, 0.75)]}
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "b")) as writer:
        for step, value in ((2, 0.5), (4, 0.75)):
            writer.add_scalar("val/ssim", value, step)
    assert read_curves(tmp_path / "b") == {"ssim": [(2, 0.5), (4, 0.75)]}


def test_the_band_reaches_from_the_lowest_to_the_highest_seed() -> None:
    steps, mean, low, high = plots.band([[(1, 1.0), (2, 2.0), (3, 9.0)], [(1, 3.0), (2, 6.0)]])
    np.testing.assert_array_equal(np.stack([steps, mean, low, high]), [[1, 2], [2, 4], [1, 2], [3, 6]])


def test_plots_show_every_row_and_metric() -> None:
    summary = summarise({"a": row(0.5, 0.6), "b": row(0.7)})
    figure = plots.scores_plot(summary)
    assert [axes.get_title() for axes in figure.axes] == ["ssim ↑"]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["a", "b"]
    assert sorted(line.get_xdata()[0] for line in figure.axes[0].get_lines() if line.get_marker() == "o") == [0.5, 0.7]
    curves = plots.curves_plot({"a": [{"ssim": [(1, 0.5), (2, 0.6)]}], "b": [{}]}, ["psnr", "ssim"])
    assert curves is not None
    np.testing.assert_array_equal(curves.axes[0].get_lines()[0].get_ydata(), [0.5, 0.6])
    assert plots.curves_plot({"a": [{}]}, ["ssim"]) is None
    assert Image.open(io.BytesIO(plots.png(figure))).width > 200


def test_results_stand_between_their_markers() -> None:
    text = "# Title\n\nMine.\n\n<!-- results -->\nold\n<!-- /results -->\n\nConclusion."
    assert replace_results(text, "\n    new\n") == text.replace("old", "    new")
    assert replace_results("# T\n", "new") == "# T\n\n<!-- results -->\nnew\n<!-- /results -->\n"
    for damaged in ("<!-- results -->", "<!-- /results --> <!-- results -->", text + text):
        with pytest.raises(AnimegenError, match="markers"):
            replace_results(damaged, "new")


def test_a_damaged_readme_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "README.md"
    write_results(path, "What?", "figures")
    assert path.read_text() == "# What?\n\n<!-- results -->\nfigures\n<!-- /results -->\n"
    path.write_text("<!-- results -->")
    with pytest.raises(AnimegenError, match="README"):
        write_results(path, "What?", "figures")
    assert path.read_text() == "<!-- results -->"
    assert [child.name for child in path.parent.iterdir()] == ["README.md"]


def test_images_beside_a_readme_are_small() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    small = small_jpeg(buffer.getvalue(), 60_000)
    assert len(small) <= 60_000
    assert Image.open(io.BytesIO(small)).format == "JPEG"


def pictures(*values: float) -> list[torch.Tensor]:
    return [torch.full((3, 4, 4), value) for value in values]


def test_samples_come_back_side_by_side(tmp_path: Path) -> None:
    headers = ["photo", "colour_transfer", "model", "truth"]
    save_samples(headers, [pictures(-1, 0, 1, 0.2), pictures(0, 0, 0, 0.2)], tmp_path / "a")
    save_samples(headers, [pictures(-1, 0.1, -0.2, 0.2), pictures(0, 0, 0, 0.2)], tmp_path / "b")
    save_samples(headers, [pictures(-1, 0, 1, 0.3), pictures(0, 0, 0, 0.2)], tmp_path / "c")
    a, b, c = (Samples(tmp_path / name) for name in "abc")
    assert a.digests == b.digests  # the same photos and truths, whatever the methods make of them
    assert a.digests != c.digests
    names, rows = side_by_side([("plain", a), ("no_l1", b)], [0, 5])
    assert names == ["photo", "plain", "no_l1", "truth"]
    assert [[round(float(picture[0, 0, 0]), 1) for picture in row] for row in rows] == [[-1.0, 1.0, -0.2, 0.2]]
    assert enlarged(rows, 10)[0][0].shape == (3, 12, 12)
    save_samples(headers, [pictures(0, 0, 0, 0)], tmp_path / "a")  # replaces
    assert len(Samples(tmp_path / "a").digests) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


class Links(HTMLParser):
    """Collects what a page refers to, and checks that its tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: Sequence[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attributes if name in ("href", "src", "srcset", "action")]
        if tag not in ("img", "meta", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_complete_in_itself() -> None:
    runs = {"a <b>": row(0.5, 0.6), "no_l1": row(0.1)}
    runs["no_l1"].append(RunFolder(Path("x"), {"status": "crashed", "config": {"seed": 1}, "error": "Broken: <NaN>"}))
    differing = Differences(["a <b>", "no_l1"], {"seed": {"a <b>": 0, "no_l1": 1}}, {"lr": {"a <b>": 1}})
    photo, drawing = EmbeddedImage(b"1", "jpeg", "photo"), EmbeddedImage(b"2", "jpeg", "a <b>")
    strip = {
        "curves.png": EmbeddedImage(b"curve", "png", "Curves"),
        "strip.png": EmbeddedImage(b"abc", "png", "A strip"),
    }
    section = Section("stylise", summarise(runs), [differing], strip, [Pair(photo, drawing)])
    slides = Slides([EmbeddedImage(b"x", "jpeg", "After step 1."), EmbeddedImage(b"y", "gif", "After step 2.")])
    text = page("Study", "Why <so>?", ["animegen train"], [section], runs, [slides])
    links = Links()
    links.feed(text)
    assert links.open == []
    sources = [source for source in links.found if source]
    assert [source.partition(";")[0].removeprefix("data:image/") for source in sources] == [
        *("png", "jpeg", "jpeg", "png", "jpeg", "gif"),
    ]
    assert "http" not in text
    assert "url(" not in text
    order = ["A strip", "0.550", "Before and after", "Curves", "During training", "Broken", "Differences between"]
    assert sorted(order, key=text.index) == order  # what came out first, how it differs last
    assert 'max="1" value="1"' in text  # the last preview is shown first
    assert text.count('class="on"') == 1
    for shown in ("Why &lt;so&gt;?", "a &lt;b&gt;", "Broken: &lt;NaN&gt;", "0.550", "absent", "crashed"):
        assert shown in text


def test_photos_are_shown_before_and_after(tmp_path: Path) -> None:
    headers = ["photo", "identity", "model", "truth"]
    save_samples(headers, [pictures(-1, -1, 1, 0), pictures(0, 0, 1, 0)], tmp_path / "a" / "samples")
    save_samples(["first", *headers[1:]], [pictures(-1, -1, 1, 0)], tmp_path / "b" / "samples")
    a, b = (RunFolder(tmp_path / name, {}) for name in "ab")
    found = pairs({"plain": [a]})
    assert [(pair.before.caption, pair.after.caption) for pair in found] == [("photo", "plain")] * 2
    shades = [np.asarray(Image.open(io.BytesIO(image.data))).mean() for image in (found[0].before, found[0].after)]
    assert shades == [0, 255]
    assert len(pairs({"plain": [a], "other": [a]})) == 2  # one photo, in both rows
    assert pairs({"between": [b]}) == []  # frames, not photos


def test_clips_of_a_page_are_small() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 200, 300, 3), dtype=np.uint8)
    frames, buffer = [Image.fromarray(frame) for frame in noise], io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=40)
    small = small_gif(buffer.getvalue(), 100_000)
    assert len(small) <= 100_000 < len(buffer.getvalue())
    with Image.open(io.BytesIO(small)) as clip:
        assert (clip.n_frames, clip.info["duration"]) == (5, 40)
    assert small_gif(small, 100_000) == small
