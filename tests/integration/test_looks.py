"""Looks: written by ``animegen export format=look``, shipped in the package, and applied by name."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from animegen import AnimegenError, load_model
from animegen.cli import compare, export, generate, interpolate, listing, stylize
from animegen.cli import evaluate as evaluate_verb
from animegen.cli import train as train_verb
from animegen.cli.completion import candidates
from animegen.config import looks
from animegen.config.common import Device, Precision
from animegen.engine.checkpoint import checkpoint_file, read_checkpoint
from animegen.engine.runs import read_record
from animegen.inference import application
from animegen.inference.application import load_applied
from animegen.inference.options import StylizeOptions
from animegen.media.images import read_image, to_float, to_uint8, write_image
from animegen.tasks.protocols import Stylizer
from tests.support import refused, run_verb, train, untrained


def exported(checkpoint: Path, folder: Path) -> Path:
    assert run_verb(export.main, f"checkpoint={checkpoint}", "format=look", f"output={folder}") == 0
    return folder


@pytest.fixture
def shipped(toy: Path, between: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package that ships two looks, ``cel`` of a stylizer and ``between`` of an interpolator."""
    folder = tmp_path / "weights"
    exported(toy, folder / "cel")
    exported(between, folder / "between")
    monkeypatch.setattr(looks, "SHIPPED", folder)
    monkeypatch.chdir(tmp_path)
    looks.looks.cache_clear()
    yield folder
    looks.looks.cache_clear()


def photo(path: Path, side: int = 32) -> Path:
    path.parent.mkdir(exist_ok=True)
    write_image(
        path, torch.randint(256, (3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    )
    return path


@pytest.mark.parametrize(
    ("experiment", "commands", "networks"),
    [
        ("animegan/quickstart", ("stylize",), {"generator", "colours"}),
        ("temporal/quickstart", ("stylize",), {"generator", "colours"}),
        ("fewshot/quickstart", ("stylize",), {"generator"}),
        ("interpolation/quickstart", ("interpolate", "generate"), {"generator"}),
        ("ganime/quickstart", ("generate", "interpolate"), {"tokenizer", "transformer", "_extra_state"}),
    ],
)
def test_a_look_holds_what_application_needs(
    experiment: str, commands: tuple[str, ...], networks: set[str], tmp_path: Path
) -> None:
    full = untrained(experiment, tmp_path / "full.ckpt").state_dict()
    folder = exported(tmp_path / "full.ckpt", tmp_path / "mine")
    content = read_checkpoint(folder)
    assert set(content) == {"state_dict", "animegen"}
    assert content["animegen"]["config"].keys() == {"model", "data"}
    assert content["animegen"]["overrides"] == []
    assert {name.split(".")[0] for name in content["state_dict"]} == networks
    model = load_model(folder, "cpu")
    for name, weight in model.state_dict().items():
        if isinstance(weight, torch.Tensor):
            torch.testing.assert_close(weight, full[name], rtol=1e-3, atol=1e-6)
    parameters = [content["state_dict"][name] for name, _ in model.named_parameters()]
    assert {weight.dtype for weight in parameters} == {torch.float16}
    look = looks.read_look(folder / looks.WEIGHTS)
    assert (look.name, look.family, look.commands) == ("mine", experiment.partition("/")[0], commands)


def test_averages_are_what_a_look_holds_and_its_card_is_kept(tmp_path: Path) -> None:
    untrained("animegan/quickstart", tmp_path / "full.ckpt")
    content = torch.load(tmp_path / "full.ckpt", weights_only=True)
    name = "last.bias"
    content["animegen"]["ema"] = {"updates": 1, "averages": {"generator": {name: torch.full((3,), 0.25)}}}
    torch.save(content, tmp_path / "full.ckpt")
    folder = exported(tmp_path / "full.ckpt", tmp_path / "mine")
    assert read_checkpoint(folder)["state_dict"][f"generator.{name}"].tolist() == [0.25] * 3
    (folder / looks.CARD).write_text("mine")
    words = [f"checkpoint={tmp_path / 'full.ckpt'}", "format=look", f"output={folder}"]
    assert run_verb(export.main, *words) == 2
    assert run_verb(export.main, *words, "overwrite=true") == 0
    assert (folder / looks.CARD).read_text() == "mine"


def test_commands_apply_their_shipped_look(shipped: Path, tmp_path: Path) -> None:
    one, other = photo(tmp_path / "a.png"), photo(tmp_path / "b.png")
    assert run_verb(stylize.main, f"input={one}", "output=drawn.png", "device=cpu") == 0
    model = load_model("cel", "cpu")
    expected = to_uint8(model.stylize(to_float(read_image(one))[None])[0])[0]
    assert (read_image(Path("drawn.png")).int() - expected.int()).abs().max() <= 1
    assert run_verb(stylize.main, f"input={one}", "output=named.png", "look=cel", "device=cpu") == 0
    assert run_verb(stylize.main, f"input={one}", "output=given.png", "checkpoint=cel", "device=cpu") == 0
    assert Path("drawn.png").read_bytes() == Path("named.png").read_bytes() == Path("given.png").read_bytes()
    assert run_verb(interpolate.main, f"input=[{one},{other}]", "output=more/", "device=cpu") == 0
    assert len(list(Path("more").iterdir())) == 3
    assert run_verb(generate.main, f"first={one}", f"last={other}", "frames=4", "output=clip.gif", "device=cpu") == 0
    assert run_verb(export.main, "checkpoint=cel", "format=pt2", "output=cel.pt2") == 0


def test_looks_are_computed_in_bf16_where_the_processor_has_it(
    shipped: Path, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dtype(**words: Any) -> torch.dtype | None:
        options = StylizeOptions(input="a.png", output="b.png", device=Device.cpu, **words)
        return load_applied(options, (Stylizer,), "stylize images").dtype

    for able in (True, False):
        monkeypatch.setattr(application, "computes_bf16", lambda device, able=able: able)
        assert dtype() == (torch.bfloat16 if able else None)
        assert dtype(checkpoint=str(toy)) is None
        assert dtype(precision=Precision.fp32) is None
        assert dtype(checkpoint=str(toy), precision=Precision.bf16) is torch.bfloat16


@pytest.mark.parametrize(
    ("main", "words", "text"),
    [
        (stylize.main, ["look=cell"], "There is no look 'cell'. Did you mean 'cel'?"),
        (stylize.main, ["look=between"], "'between' is for animegen interpolate, not for stylize"),
        (interpolate.main, ["look=cel"], "'cel' is for animegen stylize, not for interpolate"),
        (stylize.main, ["look=cel", "checkpoint=last"], "checkpoint= and look= both name a model"),
        (stylize.main, ["checkpoint=cell"], "There is no checkpoint at 'cell': give"),
        (stylize.main, ["checkpoint=between"], "does not stylize images"),
    ],
)
def test_a_wrong_look_is_refused(
    main: object, words: list[str], text: str, shipped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(Path("in/a.png"))
    assert text in refused(capsys, run_verb(main, "input=in", "output=out", *words))
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("main", "word", "text"),
    [
        (train_verb.main, "resume=cel", "'cel' is a look, which cannot be resumed: start a new run from it, init=cel."),
        (compare.main, "cel", "'cel' is a look, without the record of a run: measure it"),
    ],
)
def test_a_look_is_no_run(
    main: object, word: str, text: str, shipped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert text in refused(capsys, run_verb(main, word))


def test_without_a_shipped_look_a_checkpoint_is_missing(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(shipped / "cel")
    looks.looks.cache_clear()
    words = ["input=in", "output=out"]
    assert "Missing on the command line: checkpoint=..." in refused(capsys, run_verb(stylize.main, *words))


def test_looks_are_listed(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = (shipped / "cel/README.md").read_text()
    (shipped / "cel/README.md").write_text(card.replace("about: toy/quickstart, 1 steps", "about: photos as cels"))
    looks.looks.cache_clear()
    assert dict(listing.entries("looks"))["cel"] == "photos as cels (stylize, toy, 0.0 MB, unknown)"


def test_looks_are_completed_for_the_commands_that_apply_them(shipped: Path) -> None:
    assert candidates(["stylize", "look="]) == ["look=cel"]
    assert candidates(["generate", "look=b"]) == ["look=between"]
    assert candidates(["list", "look="]) == []


def test_a_file_of_the_user_comes_before_a_look(shipped: Path) -> None:
    assert checkpoint_file("cel") == shipped / "cel" / looks.WEIGHTS
    Path("cel").mkdir()
    assert checkpoint_file("cel") == Path("cel/checkpoints/last.ckpt")
    Path("cel").rmdir()
    Path("cel").touch()
    with pytest.raises(AnimegenError, match="'cel'"):
        load_model("cel")


def test_a_run_starts_from_a_look_without_pretraining(shipped: Path, toy: Path, tmp_path: Path) -> None:
    run = train("experiment=toy/quickstart", "init=cel", "train_steps=1", output=tmp_path / "runs/a")
    assert read_record(run)["config"]["init"] == "cel"
    untrained("animegan/quickstart", tmp_path / "full.ckpt")
    exported(tmp_path / "full.ckpt", shipped / "other")
    looks.looks.cache_clear()
    words = ("experiment=animegan/quickstart", "init=other", "model.pretrain_steps=5")
    run = train(*words, "train_steps=1", output=tmp_path / "runs/b")
    assert read_record(run)["config"]["model"]["pretrain_steps"] == 0
    train(f"resume={run}", "train_steps=2")
    assert read_record(run)["config"]["model"]["pretrain_steps"] == 0


def test_a_look_is_scored_on_clips_without_data(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("clips=1", "frames=3", "size=32", "intervals=[1]", "drift_frames=3", "style=meadow", "train_scenes=1")
    words = [f"benchmark.{word}" for word in small]
    words += ["benchmark=clips", "features=none", "device=cpu", "output=clips"]
    assert run_verb(evaluate_verb.main, "checkpoint=cel", *words) == 0
    assert "warp" in Path("clips/table.md").read_text()
    plain = ("benchmark=generation", "device=cpu")
    assert "data=clips/toonworld" in refused(capsys, run_verb(evaluate_verb.main, "checkpoint=between", *plain))


def test_a_folder_of_photos_is_measured_beside_the_baselines(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, side in enumerate((48, 64)):
        photo(Path(f"in/{number}.png"), side)
    (Path("in") / "broken.png").write_text("no image")
    words = ("checkpoint=cel", "input=in", "max_side=40", "output=scores", "device=cpu")
    assert run_verb(evaluate_verb.main, *words) == 0
    table = Path("scores/table.md").read_text()
    for name in ("flatness", "ink", "texture", "colour_change", "clipped", "identity", "colour_transfer", "model"):
        assert name in table
    assert read_image(Path("scores/samples/model/0.png")).shape == (3, 40, 40)
    for wrong in (["checkpoint=between"], ["data.size=3"], ["input=nowhere"]):
        refused(capsys, run_verb(evaluate_verb.main, *words, *wrong, "overwrite=true"))
