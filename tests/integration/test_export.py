"""``animegen export``: a file that draws what the model draws, on any size, or no file."""

from __future__ import annotations

import importlib
import json
import math
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from animegen import __version__
from animegen.cli import export as verb
from animegen.config.compose import compose_config, plain
from animegen.config.instantiate import build
from animegen.engine.checkpoint import TRAINING_ONLY, load_model
from animegen.errors import AnimegenError
from animegen.inference import export as body
from animegen.inference import export_graph as graphs
from animegen.inference.options import ExportOptions
from animegen.models.animegan import networks
from animegen.models.animegan.nst import PixelOptimiser
from animegen.tasks.protocols import Stylizer
from animegen.tasks.stylize import StyliseModule
from tests.support import options_of, refused, tiny

NETWORKS = "animegen.models.animegan.networks"
MODEL = {
    "_target_": "animegen.models.animegan.AnimeGAN",
    "generator": {"_target_": f"{NETWORKS}.WhiteBoxUNet", "width": 0.125},
    "discriminator": {"_target_": "animegen.nn.discriminators.PatchGAN", "width": 0.125},
}
METADATA = {
    "animegen": __version__,
    "model": "animegan/whitebox",
    "train_step": "7",
    "weights": "ema",
    "task": "stylise: photo to drawing",
    "layout": "batch,3,height,width; RGB; float32",
    "input_range": "-1,1",
    "output_range": "-1,1",
    "size_divisor": "4",
    "padding": "inside: any height and width from smallest_side on",
    "smallest_side": "16",
}
SIZES = [(1, 16, 16), (2, 33, 50), (1, 71, 20), (3, 40, 64)]


class Applied(StyliseModule):
    """A model that has a generator and nothing else."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    state = {"config": {"model": MODEL}, "choices": {"model": "animegan/whitebox"}, "train_step": 7}
    model = build(MODEL, "model")
    nn.init.normal_(model.generator.to_rgb.weight, std=0.03)  # images that are not all gray
    torch.save({"state_dict": model.state_dict(), "animegen": state}, tmp_path / "a.ckpt")
    return tmp_path / "a.ckpt"


GRAPHS: list[Any] = []


@pytest.fixture
def traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the same graph for both files of ``checkpoint``; to trace it takes longer than all else."""
    trace = graphs.export_program

    def recall(drawing: graphs.ExportWrapper) -> Any:
        weights = {name: value.clone() for name, value in drawing.state_dict().items()}
        if not GRAPHS:
            GRAPHS.append((trace(drawing), weights))
        graph, traced = GRAPHS[0]
        torch.testing.assert_close(weights, traced, rtol=0, atol=0)  # the graph of the same network
        return graph

    monkeypatch.setattr(graphs, "export_program", recall)


def pictures() -> list[Tensor]:
    return [torch.rand(batch, 3, height, width) * 2 - 1 for batch, height, width in SIZES]


PAIRS = {
    "ifnet": {
        "_target_": "animegen.nn.inbetween.IFNet",
        "scales": [2],
        "widths": [16],
        "depth": 1,
        "refine": [8],
        "prior": "dis",
    },
    "ifnet, two scales": {
        "_target_": "animegen.nn.inbetween.IFNet",
        "scales": [2, 1],
        "widths": [32, 16],
        "depth": 1,
        "refine": [8],
        "prior": "dis",
    },
    "ifnet without prior": {"_target_": "animegen.nn.inbetween.IFNet", "scales": [1], "widths": [16], "depth": 1},
    "warp_fusion": {"_target_": "animegen.models.interpolation.networks.WarpFusion", "width": 0.25, "prior": "dis"},
}


@pytest.mark.parametrize("name", ["ifnet", *(pytest.param(n, marks=pytest.mark.slow) for n in list(PAIRS)[1:])])
def test_an_interpolation_network_is_exported_without_its_prior(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded: list[Any] = []  # torch takes as long to load a graph as to trace it
    load = graphs.load_exported
    monkeypatch.setattr(graphs, "load_exported", lambda *given: (loaded.append(load(*given)), loaded[-1])[1])
    node = {"_target_": "animegen.models.interpolation.FrameInterpolation", "generator": PAIRS[name]}
    model = build(node, "model")
    for parameter in model.generator.parameters():  # corrections that are not 0
        nn.init.normal_(parameter, std=0.05)
    state = {"config": {"model": node}, "choices": {"model": f"interpolation/{name}"}, "train_step": 7}
    torch.save({"state_dict": model.state_dict(), "animegen": state}, tmp_path / "a.ckpt")
    output = tmp_path / "a.pt2"
    assert verb.main([f"checkpoint={tmp_path / 'a.ckpt'}", "format=pt2", f"output={output}"]) == 0
    assert ("without its flow prior" in capsys.readouterr().out) == ("prior" in PAIRS[name])
    (drawn,) = loaded
    assert output.is_file()
    first = torch.rand(1, 3, 70, 101) * 2 - 1
    last, time = first.roll(3, -1), torch.tensor([0.7])
    model.eval()
    model.generator.prior = "none"
    with torch.no_grad():
        expected = model.synthesize(model.encode_pair(first, last), time)
    assert torch.allclose(drawn(first, last, time), expected, atol=1e-4)
    assert (expected - torch.lerp(first, last, 0.7)).abs().max() > 0.01


@pytest.mark.usefixtures("traced_once")
def test_a_pt2_file_draws_what_the_model_draws(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = checkpoint.parent / "out" / "it's a.pt2"
    assert verb.main([f"checkpoint={checkpoint}", "format=pt2", f"output={output}"]) == 0
    text = capsys.readouterr()
    assert "black and white" in text.out
    assert "height and width from 16" in text.out
    assert text.err == ""
    assert [path.name for path in output.parent.iterdir()] == ["it's a.pt2"]
    about = {graphs.METADATA_FILE: ""}
    program = torch.export.load(output, extra_files=about)
    assert json.loads(about[graphs.METADATA_FILE]) == METADATA
    generator = build(MODEL["generator"], "network")
    assert sum(value.numel() for value in program.state_dict.values()) == sum(p.numel() for p in generator.parameters())
    model = load_model(checkpoint, "cpu")
    for photo in pictures():
        drawing = model.stylize(photo)[0]  # type: ignore[operator]
        assert drawing.std() > 0.01  # not one colour
        assert (program.module()(photo) - drawing).abs().max() < 1e-5


@pytest.mark.usefixtures("traced_once")
def test_an_onnx_file_draws_what_the_model_draws(checkpoint: Path) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    output = checkpoint.parent / "a.onnx"
    assert verb.main([f"checkpoint={checkpoint}", "format=onnx", f"output={output}"]) == 0
    assert str(Path(verb.__file__).parent).encode() not in output.read_bytes()
    session = runtime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == METADATA
    (given,), (returned,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape) == ("photo", ["batch", 3, "height", "width"])
    assert (returned.name, returned.shape) == ("drawing", ["batch", 3, "height", "width"])
    assert importlib.import_module("onnx").load(output).opset_import[0].version == 18
    model = load_model(checkpoint, "cpu")
    for photo in pictures():
        drawing = model.stylize(photo)[0]  # type: ignore[operator]
        result = torch.from_numpy(session.run(None, {"photo": photo.numpy()})[0])
        assert (result - drawing).abs().max() < 1e-4


@pytest.mark.parametrize(
    "network",
    [
        lambda: networks.AnimeGANv3DoubleTail(width=0.125),
        pytest.param(lambda: networks.CartoonGAN(width=0.125, blocks=1), marks=pytest.mark.slow),
        pytest.param(lambda: networks.AnimeGANv2LitePlain(width=0.125, blocks=1), marks=pytest.mark.slow),
    ],
    ids=["lade and attention", "transposed convolutions", "layer norm"],
)
def test_the_graph_has_free_sizes(network: Any) -> None:
    model = Applied(network()).eval().requires_grad_(False)
    drawing = graphs.ExportWrapper(model).eval()
    rows = body.compare(graphs.export_program(drawing).module(), drawing)
    assert {row.shape[0] for row in rows} == {1, 2, 3}
    assert len({row.shape for row in rows}) == 5
    assert max(row.levels for row in rows) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("option", options_of("model"))
def test_every_model_is_exported_or_refused_in_one_sentence(option: str, tmp_path: Path) -> None:
    config = plain(compose_config("train", tiny(f"model={option}", folders=tmp_path)))["model"]
    model = build({key: value for key, value in config.items() if key not in TRAINING_ONLY}, "model")
    if not isinstance(model, Stylizer):
        pytest.skip("no Stylizer")
    model.eval().requires_grad_(False)
    if option == "animegan/nst":
        model.generator.set_style(torch.zeros(model.generator.style.shape[1:]))
        with pytest.raises(AnimegenError, match="computes gradients for each image"):
            body.export_model(model, tmp_path / "a.pt2", graphs.FileFormat.pt2)
        return
    drawing = graphs.ExportWrapper(model).eval()
    program = graphs.export_program(drawing)
    for format_ in graphs.FileFormat:
        path = tmp_path / f"a.{format_.value}"
        if format_ is graphs.FileFormat.pt2:
            graphs.write_pt2(program, path, {})
        else:
            pytest.importorskip("onnxruntime")
            graphs.write_onnx(program, path, {})
        body.check(body.compare(graphs.load_exported(path, format_), drawing), tolerance=1.0)


@pytest.mark.slow
def test_the_plain_lite_network(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = Applied(networks.AnimeGANv2LitePlain(width=0.125)).eval().requires_grad_(False)
    for format_ in graphs.FileFormat:
        body.export_model(model, tmp_path / f"a.{format_.value}", format_)


def test_a_model_that_takes_images_one_by_one() -> None:
    class OneByOne(nn.Module):
        size_divisor = 2

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x[number] / 2 for number in range(len(x))])

    drawing = graphs.ExportWrapper(Applied(OneByOne()))
    rows = body.compare(graphs.export_program(drawing).module(), drawing)
    assert drawing.one_by_one
    assert {row.shape[0] for row in rows} == {1}
    assert [row.levels for row in rows] == [0.0] * 5
    assert body.describe(drawing.model, drawing, "ema")["layout"] == "1,3,height,width; RGB; float32"  # type: ignore[arg-type]


def test_padding_inside_is_that_of_the_applications() -> None:
    class Positions(nn.Module):
        size_divisor = 8

        def forward(self, x: Tensor) -> Tensor:
            return x.cumsum(-1).cumsum(-2) / 1e4

    model = Applied(Positions())
    for photo in (torch.rand(1, 3, 16, 16), torch.rand(2, 3, 17, 31), torch.rand(1, 3, 40, 25)):
        assert torch.equal(graphs.ExportWrapper(model)(photo), model.stylize(photo)[0])


def test_weights_that_only_training_needs_are_left_out() -> None:
    model = build({**MODEL, "generator": {"_target_": f"{NETWORKS}.AnimeGANv3DoubleTail", "width": 0.125}}, "model")
    model.eval().requires_grad_(False)
    graphs.ExportWrapper(model).drop_training_weights()
    alone = networks.AnimeGANv3(width=0.125)
    assert {key.removeprefix("generator.") for key in model.state_dict()} == set(alone.state_dict())


def test_a_model_that_optimises_images_is_refused() -> None:
    drawer = PixelOptimiser("squeezenet1_1", style_size=16, content_layer="fire4", style_layers=["fire2"])
    drawer.set_style(torch.zeros(3, 16, 16))
    with pytest.raises(AnimegenError, match="Applied cannot be exported, since it computes gradients for each image"):
        graphs.export_program(graphs.ExportWrapper(Applied(drawer)))


def test_a_model_whose_graph_depends_on_its_images_is_refused() -> None:
    class Moody(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.mean() > 0 else -x

    with pytest.raises(AnimegenError, match="Applied cannot be exported with free image sizes"):
        graphs.export_program(graphs.ExportWrapper(Applied(Moody())))


def test_a_memory_is_reported(checkpoint: Path) -> None:
    model = load_model(checkpoint, "cpu")
    assert not body.remembers(graphs.ExportWrapper(model))
    stylize = model.stylize  # type: ignore[attr-defined]
    model.stylize = lambda frames, state: (stylize(frames)[0], frames)  # type: ignore[assignment]
    assert body.remembers(graphs.ExportWrapper(model))


@pytest.mark.parametrize("fault", [0.02, math.nan])
def test_a_file_that_draws_something_else_is_not_kept(
    fault: float, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_model(checkpoint, "cpu")
    monkeypatch.setattr(body, "load_model", lambda *_, **__: model)
    monkeypatch.setattr(graphs, "export_program", lambda drawing: None)
    monkeypatch.setattr(graphs, "write_pt2", lambda program, path, metadata: path.write_bytes(b"newer"))
    monkeypatch.setattr(graphs, "load_exported", lambda *_: lambda photo: model.stylize(photo)[0] + fault)  # type: ignore[operator]
    output = checkpoint.parent / "a.pt2"
    output.write_bytes(b"older")
    words = (f"checkpoint={checkpoint}", "format=pt2", f"output={output}", "overwrite=true")
    message = refused(capsys, verb.main(list(words)))
    assert f"differs from the model by up to {fault * 127.5:.3g} levels of 255" in message
    assert "more than tolerance=1: it was not kept" in message
    assert output.read_bytes() == b"older"
    assert sorted(path.name for path in output.parent.iterdir()) == ["a.ckpt", "a.pt2"]


def test_the_comparison_counts_levels() -> None:
    class Double(nn.Module):
        size_divisor = 1

        def stylize(self, frames: Tensor, state: Any, style: Any = None) -> tuple[Tensor, Any]:
            return frames * 0.5, state

    rows = body.compare(lambda photo: photo * 0.5 + 1 / 127.5, graphs.ExportWrapper(Double()))
    assert [row.levels for row in rows] == pytest.approx([1.0] * 5, abs=1e-4)
    assert {row.content for row in rows} == {"noise", "gradients", "patches", "black and white"}
    body.check(rows, tolerance=1.001)
    with pytest.raises(AnimegenError, match=r"up to 1 levels of 255 .*more than tolerance=0\.5"):
        body.check(rows, tolerance=0.5)
    cropped = body.compare(lambda photo: photo[..., 1:], graphs.ExportWrapper(Double()))
    assert all(row.levels == math.inf for row in cropped)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"format": "tflite"}, "format=tflite is not valid: use one of pt2, onnx"),
        ({"format": None}, r"Missing on the command line: format=\.\.\."),
        ({"output": "a.onnx"}, "output='a.onnx' and format=pt2 contradict each other: use a name that ends in .pt2"),
        ({"checkpoint": "no.ckpt"}, "There is no checkpoint at 'no.ckpt'"),
        ({"checkpoint": "text.ckpt"}, "text.ckpt' cannot be read as a checkpoint"),
        ({"output": "there.pt2"}, "'there.pt2' exists: choose another output= or set overwrite=true"),
        ({"output": "text.ckpt/a.pt2"}, "text.ckpt' is not a folder"),
        ({"tolerance": "0"}, "tolerance=0 is not valid"),
        ({"format": "onnx", "output": "a.onnx", "opset": "9"}, "opset=9 is not valid: use an integer from 18 to 23"),
        ({"opsett": "18"}, "no key 'opsett'.*Did you mean 'opset'"),
    ],
)
def test_mistakes(
    words: dict[str, str | None],
    message: str,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if words.get("format") == "onnx":
        pytest.importorskip("onnxruntime")
    monkeypatch.chdir(checkpoint.parent)
    Path("text.ckpt").write_text("no weights")
    Path("there.pt2").write_text("mine")
    chosen = {"checkpoint": "a.ckpt", "format": "pt2", "output": "a.pt2", **words}
    text = refused(capsys, verb.main([f"{key}={value}" for key, value in chosen.items() if value is not None]))
    assert re.search(message, text), text
    assert sorted(path.name for path in Path().iterdir()) == ["a.ckpt", "text.ckpt", "there.pt2"]


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert verb.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {field.name}=" in text for field in fields(ExportOptions))


@pytest.mark.parametrize("package", graphs.EXTRA)
def test_without_the_packages_for_onnx(
    package: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    for other in graphs.EXTRA:
        if other != package:
            monkeypatch.setitem(sys.modules, other, nn)
    output = checkpoint.parent / "a.onnx"
    text = refused(capsys, verb.main([f"checkpoint={checkpoint}", "format=onnx", f"output={output}"]))
    assert f"needs the package {package}" in text
    assert 'pip install "animegen[export]"' in text
    assert not output.exists()


def test_a_model_without_the_protocol(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(body, "load_model", lambda *_, **__: nn.Identity())
    output = checkpoint.parent / "a.pt2"
    text = refused(capsys, verb.main([f"checkpoint={checkpoint}", "format=pt2", f"output={output}"]))
    assert "Identity, does not stylize images" in text
