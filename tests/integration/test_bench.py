"""``animegen bench``: what it reports and writes. How fast anything is, no test can say."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from animegen.cli import bench
from animegen.config.compose import compose_config
from animegen.config.instantiate import build
from animegen.errors import AnimegenError
from animegen.media.video.reader import VideoReader
from animegen.speed import bench as body
from animegen.speed import toonworld
from animegen.speed.parts import Stopwatch, timed_networks
from tests.support import refused, run_verb
from tests.video_support import level, write_film

TINY = ("size=tiny", "device=cpu", "threads=1", "seconds=0.2")


@pytest.mark.parametrize("model", ["toy", "animegan/v2_lite"])
def test_a_model_beside_its_bare_loop(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "bench.json"
    words = (f"model={model}", *TINY, "features.backbone=squeezenet1_1", f"output={output}")
    assert run_verb(bench.main, *words) == 0
    told = json.loads(output.read_text())
    rows = told["rows"]
    assert rows["framework cost, ms per step"] == pytest.approx(rows["ms per step"] - rows["ms per step, bare loop"])
    assert rows["samples/s"] == pytest.approx(2 / rows["ms per step"] * 1000)
    assert all(math.isfinite(value) for value in rows.values())
    assert told["batch"] == [2, 3, 32, 32]
    assert told["steps"] >= 1
    assert told["parameters"]["generator"] > 100
    assert told["machine"]["cores"] > 0
    assert "torch" in told["versions"]
    text = capsys.readouterr().out
    assert "framework cost, ms per step" in text


def test_an_experiment_with_its_data_and_the_parts_of_a_step(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    words = ("experiment=toy/quickstart", "data.scenes=2", "data.frames_per_scene=1", *TINY, f"output={output}")
    assert run_verb(bench.main, *words) == 0
    rows = json.loads(output.read_text())["rows"]
    parts = {name.removeprefix("ms per step, "): value for name, value in rows.items() if "ms per step, " in name}
    assert set(parts) == {"bare loop", "generator forward", "generator backward", "optimizers", "rest"}
    assert all(value > 0 for value in parts.values())
    wait = rows["data, ms per batch"]
    assert rows["data, share of a step with it"] == pytest.approx(wait / (wait + rows["ms per step"]))


def test_a_stopwatch_adds_up_and_lets_go_of_networks() -> None:
    model = build(compose_config("bench", ["model=toy", *TINY]).model, "model")
    watch = Stopwatch(torch.device("cpu"))
    remove = timed_networks(model, watch)
    picture = torch.zeros(1, 3, 32, 32)
    model.generator(picture)
    once = watch.seconds["generator forward"]
    model.generator(picture)
    assert watch.seconds["generator forward"] > once > 0
    remove()
    twice = watch.seconds["generator forward"]
    model.generator(picture)
    assert watch.seconds["generator forward"] == twice


def test_both_loops_train_alike() -> None:
    """The bare loop is the framework's arithmetic and nothing else, or the difference would mean little."""
    config = compose_config("bench", ["model=animegan/v2_lite", *TINY, "features.backbone=squeezenet1_1"])
    batch = body.ready_batch(2, 32, 32, torch.device("cpu"))
    torch.manual_seed(0)
    mine = build(config.model, "model")
    torch.manual_seed(0)
    bare = body.BareLoop(build(config.model, "model"), torch.device("cpu"), "32-true")
    bare.times(batch, 3)
    body._framework_times(mine, batch, config, steps=2)  # and one before the clock starts
    for name, value in mine.state_dict().items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(bare.model.state_dict()[name], value, msg=name)


def test_toonworld(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(toonworld, "CLIP", 3)
    output = tmp_path / "bench.json"
    assert run_verb(bench.main, "data=toonworld", "seconds=0.01", f"output={output}") == 0
    rows = json.loads(output.read_text())["rows"]
    assert {name.split(":")[0] for name in rows} == {"128 px", "256 px"}
    assert all(value > 0 for value in rows.values())
    capsys.readouterr()
    words = ("data=toonworld", "seconds=0.1", f"output={output}")
    assert "exists: choose another output=" in refused(capsys, run_verb(bench.main, *words))


def test_a_film_beside_the_parts_of_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from animegen.speed import film as film_bench
    from animegen.speed import video as films
    from animegen.speed.film import Cost

    monkeypatch.setattr(films, "SIZE", (48, 64))
    output = tmp_path / "bench.json"
    assert run_verb(bench.main, "data=film", "seconds=0.1", f"output={output}") == 0
    rows = json.loads(output.read_text())["rows"]
    assert (rows.pop("width"), rows.pop("height")) == (64, 48)
    parts = ("", " network alone", " decoding and encoding alone")
    measures = ("frames/s", "ms of CPU time per frame")
    shares = ("elapsed beside the slower part", "CPU time beside both parts")
    assert set(rows) == {
        *(f"{command}{part}, {what}" for command in ("stylize", "interpolate") for part in parts for what in measures),
        *(f"{command}, {share}" for command in ("stylize", "interpolate") for share in shares),
    }
    assert film_bench._rows("x", Cost(-1.0, 0.2), Cost(0.1, 0.1), Cost(0.2, 0.1)) == {
        "x, frames/s": film_bench.NOISE,
        "x, ms of CPU time per frame": 200.0,
        "x network alone, frames/s": 10.0,
        "x network alone, ms of CPU time per frame": 100.0,
        "x decoding and encoding alone, frames/s": 5.0,
        "x decoding and encoding alone, ms of CPU time per frame": 100.0,
        "x, elapsed beside the slower part": film_bench.NOISE,
        "x, CPU time beside both parts": 1.0,
    }
    film = write_film(tmp_path / "film.mp4", [level(n) for n in range(2)])
    assert "use a video of 6 frames or more" in refused(capsys, run_verb(bench.main, "data=film", f"input={film}"))


def test_how_the_cost_of_a_step_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from animegen.speed import scaling

    monkeypatch.setattr(scaling, "STEP", {"size.batch_size": (1, 2), "size.width": (0.125, 0.25)})
    output = tmp_path / "x.json"
    assert run_verb(bench.main, "model=toy", *TINY, "scaling=steps", f"output={output}") == 0
    rows = json.loads(output.read_text())["rows"]
    assert list(rows) == [
        *(f"size.{key}, ms per step" for key in ("batch_size=1", "batch_size=2", "width=0.125", "width=0.25"))
    ]
    assert all(value > 0 for value in rows.values())
    with Image.open(tmp_path / "x.png") as plot:
        assert plot.size == (640, 260)
    words = ("model=toy", *TINY, "scaling=steps", f"output={tmp_path / 'x.JSON'}")
    assert "'x.png' exists" in refused(capsys, run_verb(bench.main, *words)).replace(f"{tmp_path}/", "")
    assert "leave data= and experiment= out" in refused(capsys, run_verb(bench.main, "scaling=steps", "data=video"))


def test_how_photos_and_videos_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from animegen.speed import scaling
    from animegen.speed.startup import Cost

    sizes: list[tuple[int, ...]] = []

    def stylized(command: list[str], folder: str) -> Cost:
        assert command[:3] == ["-m", "animegen", "stylize"]
        source = Path(folder) / command[3].removeprefix("input=")
        if source.suffix == ".jpg":
            with Image.open(source) as photo:
                sizes.append(photo.size)
        else:
            sizes.append((len(list(VideoReader(source))),))
        return Cost(float(len(sizes)), 100.0 + len(sizes), 0)

    monkeypatch.setattr(scaling, "measure_process", stylized)
    monkeypatch.setattr(scaling, "MEGAPIXELS", (0.0192, 0.0768))
    monkeypatch.setattr(scaling, "FRAMES", (2, 3))
    curves = [*scaling.scale_photos(["threads=1"]), *scaling.scale_videos()]
    assert sizes == [(160, 120), (320, 240), (2,), (3,)]
    assert scaling.rows_of(curves) == {
        "megapixels=0.0192, CPU s": 1.0,
        "megapixels=0.0192, peak memory, MiB": 101.0,
        "megapixels=0.0768, CPU s": 2.0,
        "megapixels=0.0768, peak memory, MiB": 102.0,
        "frames=2, CPU s": 3.0,
        "frames=2, peak memory, MiB": 103.0,
        "frames=3, CPU s": 4.0,
        "frames=3, peak memory, MiB": 104.0,
    }
    monkeypatch.setattr(scaling, "measure_process", lambda *_: Cost(0.0, 0.0, 2))
    with pytest.raises(AnimegenError, match="ended with code 2"):
        scaling.scale_photos()


def test_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from animegen.speed import video as films

    monkeypatch.setattr(films, "SIZE", (36, 64))
    monkeypatch.setattr(films.shutil, "which", lambda name: None)
    output = tmp_path / "bench.json"
    assert run_verb(bench.main, "data=video", "seconds=0.4", f"output={output}") == 0
    rows = json.loads(output.read_text())["rows"]
    assert (rows["width"], rows["height"]) == (64, 36)
    assert rows["ffmpeg to an RGB pipe, frames/s"] == "no ffmpeg on the PATH"
    assert all(value > 10 for name, value in rows.items() if "frames/s" in name and "ffmpeg" not in name)
    assert "no ffmpeg on the PATH" in capsys.readouterr().out
    film = write_film(tmp_path / "film.mp4", [level(n) for n in range(10)])
    assert run_verb(bench.main, "data=video", "seconds=0.4", f"input={film}", f"output={output}", "overwrite=true") == 0
    told = json.loads(output.read_text())
    assert told["what"] == str(film)
    assert told["rows"]["width"] == 24
    words = ("data=video", f"input={tmp_path / 'none.mp4'}")
    assert "does not exist" in refused(capsys, run_verb(bench.main, *words))


def test_a_pair_of_frames_and_each_further_one_are_timed(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    assert run_verb(bench.main, "model=interpolation/ifnet", *TINY, f"output={output}") == 0
    told = json.loads(output.read_text())
    rows = told["rows"]
    assert told["batch"] == [2, 3, 32, 32]
    one, more = (
        rows[f"ms {name}"] for name in ("per pair of 256x448, one frame between", "for each further frame between")
    )
    assert rows["ms per pair x8 (seven frames)"] == pytest.approx(one + 6 * more)  # one encode
    assert rows["ms per pair, half-warp by DIS flow"] > 0


@pytest.mark.slow
def test_what_a_budget_buys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from animegen.speed.budget import Part, Step, table_of

    stages = [Part(Step("a", (64, 64), 32, 1, 0.75), 0.1), Part(Step("b", (512, 128), 8, 4, 0.25), 0.7)]
    table = table_of(stages, budget=10, price_per_hour=2, samples=1000, wanted=40000)
    # Five hours; of four steps three take 0.1 s and one takes 0.7 s: 0.25 s on average.
    assert table["hours"] == 5
    assert table["steps"] == 72000
    assert [row["steps"] for row in table["stages"]] == [54000, 18000]
    assert [round(row["hours"], 3) for row in table["stages"]] == [1.5, 3.5]
    assert [row["epochs"] for row in table["stages"]] == [1728.0, 144.0]
    assert table["wanted"] == {
        "steps": 40000,
        "hours": pytest.approx(40000 * 0.25 / 3600),
        "price": pytest.approx(5.5556, abs=1e-3),
    }
    output = tmp_path / "bench.json"
    words = ("experiment=interpolation/curriculum", "precision=fp32", "budget=200", "price_per_hour=0.5", "samples=100")
    tiny = ("size=tiny", "device=cpu", "threads=1", "seconds=0.1", "features.weights=random", f"output={output}")
    assert run_verb(bench.main, *words, *tiny) == 0
    told = json.loads(output.read_text())["budget"]
    assert [row["name"] for row in told["stages"]] == ["32x32", "32x32", "32x32", "64x32", "64x64"]
    assert told["hours"] == 400
    shares = [row["steps"] / told["steps"] for row in told["stages"]]
    assert shares == pytest.approx([0.15, 0.3, 0.3, 0.1, 0.15], abs=1e-3)
    assert "budget needs a price" in refused(capsys, run_verb(bench.main, "model=toy", "budget=200", *tiny[:4]))


def test_a_model_of_videos_is_measured_on_windows_and_streams(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    words = ("model=temporal", "model.generator.blocks=1", *TINY, "features.backbone=vgg16", f"output={output}")
    assert run_verb(bench.main, *words) == 0
    told = json.loads(output.read_text())
    assert told["batch"] == [2, 5, 3, 32, 32]
    rows = told["rows"]
    assert rows["stream of 256 px, frames/s"] > 0
    # Hidden and cell maps of 8, 16 and 32 channels at 1/2, 1/4 and 1/8 of the size, float32.
    values = 2 * sum(c * (256 / scale) ** 2 for c, scale in ((8, 2), (16, 4), (32, 8)))
    assert rows["stream of 256 px, state in MiB"] == pytest.approx(4 * values / 2**20)
