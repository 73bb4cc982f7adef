"""Files from elsewhere, made to run code, to read secrets, or to crash: nothing runs, and one sentence says why."""

from __future__ import annotations

import json
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import EpsImagePlugin
from torch import nn

from animegen import load_model
from animegen.cli import compare as compare_verb
from animegen.cli import evaluate as eval_verb
from animegen.cli import train as train_verb
from animegen.errors import AnimegenError
from animegen.media.images import read_image
from tests.support import refused, run_verb, train

Change = Callable[[dict[str, Any]], object]

SHELL = "torch.utils.collect_env.run"


@pytest.fixture
def witness(tmp_path: Path) -> Path:
    return tmp_path / "ran"


def checkpoint(toy: Path, target: Path, change: Change) -> Path:
    """Write the checkpoint of a run with something changed."""
    content = torch.load(toy / "checkpoints" / "last.ckpt", weights_only=True)
    change(content)
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, target)
    return target


def record(toy: Path, folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Write a run folder with a changed record; a change that returns something replaces the whole."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").write_bytes((toy / "checkpoints" / "last.ckpt").read_bytes())
    content = json.loads((toy / "run.json").read_text())
    changed = change(content)
    text = changed if isinstance(changed, str) else json.dumps(content if changed is None else changed)
    (folder / "run.json").write_text(text)
    return folder


# --- Code from a checkpoint -----------------------------------------------------------------------------------------


def shell(witness: Path) -> dict[str, Any]:
    return {"_target_": SHELL, "command": f"touch {witness}"}


HIDING: dict[str, Callable[[dict[str, Any]], Any]] = {
    "plain": lambda node: node,
    "tuple": lambda node: (node,),
    "set in a dict": lambda node: {"a": {"b"}, "c": node},
    "ordered dict": lambda node: OrderedDict(node),
    "list in a list": lambda node: [[[node]]],
    "own key": lambda node: {**node, "_args_": [node["command"]]},
    "partial": lambda node: {**node, "_partial_": True},
    "not recursive": lambda node: {"_target_": "animegen.engine.Objective", "_recursive_": False, "a": {"loss": node}},
    "interpolation": lambda node: f"${{oc.create:{{_target_:{SHELL},command:'{node['command']}'}}}}",
    "sequential": lambda node: {"_target_": "torch.nn.Sequential", "_args_": [node]},
    "getattr": lambda node: {"_target_": "builtins.getattr", "_args_": [node, "x"]},
}


@pytest.mark.parametrize("hiding", HIDING)
@pytest.mark.parametrize("place", ["model", "generator", "setting", "stages"])
def test_no_node_of_a_model_runs_anything(place: str, hiding: str, toy: Path, tmp_path: Path, witness: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        model, node = content["animegen"]["config"]["model"], HIDING[hiding](shell(witness))
        if place == "model":
            content["animegen"]["config"]["model"] = node
        elif place == "setting":
            model["generator"]["channels"] = node
        else:
            model[place] = node

    path = checkpoint(toy, tmp_path / "a.ckpt", change)
    with pytest.raises(AnimegenError):
        load_model(path, "cpu")
    assert not witness.exists()


DATA: dict[str, Callable[[Path], Any]] = {
    "write_image": lambda w: {"_target_": "animegen.media.images.write_image", "path": str(w), "image": [[[0]]]},
    "exported": lambda w: {"_target_": "animegen.data.write_image", "path": str(w), "image": [[[0]]]},
    "shell": shell,
    "nested": lambda w: {"_target_": "animegen.data.AnimeDataModule", "train": [shell(w)]},
    "callback": lambda w: {"_target_": "animegen.engine.callbacks.RunRecord", "folder": str(w), "facts": {}},
    "secret": lambda w: {"_target_": "animegen.data.AnimeDataModule", "train": "${oc.env:SECRET_OF_MINE}"},
}


@pytest.mark.parametrize("attack", DATA)
def test_no_data_of_a_checkpoint_run_anything(
    attack: str,
    toy: Path,
    tmp_path: Path,
    witness: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SECRET_OF_MINE", "s3cret")
    node = DATA[attack](witness)
    path = checkpoint(toy, tmp_path / "a.ckpt", lambda content: content["animegen"]["config"].update(data=node))
    said = refused(capfd, run_verb(eval_verb.main, f"checkpoint={path}", "device=cpu"))
    assert not witness.exists()
    assert "s3cret" not in said


@pytest.mark.parametrize(
    "word",
    [
        "+data.note=${oc.env:SECRET_OF_MINE}",
        r"+data.note=$\{oc.env\:SECRET_OF_MINE\}",
        "experiment=${oc.env:SECRET_OF_MINE}",
        "data.photos={_target_: torch.utils.collect_env.run, command: 'touch WITNESS'}",
    ],
)
def test_recorded_overrides_of_a_checkpoint_are_data(
    word: str,
    toy: Path,
    tmp_path: Path,
    witness: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SECRET_OF_MINE", "s3cret")
    word = word.replace("WITNESS", str(witness))
    path = checkpoint(toy, tmp_path / "a.ckpt", lambda content: content["animegen"]["overrides"].append(word))
    said = refused(capfd, run_verb(eval_verb.main, f"checkpoint={path}", "device=cpu", "data.batch_size=2"))
    assert not witness.exists()
    assert "s3cret" not in said


# --- Weights --------------------------------------------------------------------------------------------------------


def weights(change: Callable[[dict[Any, Any], str], Any]) -> Change:
    """Return a change of the weights: of the state dict and the name of its first tensor."""

    def changed(content: dict[str, Any]) -> None:
        state = content["state_dict"]
        replaced = change(state, next(name for name in state if name.startswith("generator.")))
        if replaced is not None:
            content["state_dict"] = replaced

    return changed


WEIGHTS: dict[str, Change] = {
    "text": weights(lambda s, k: s.update({k: "zero"})),
    "list": weights(lambda s, k: s.update({k: [0.0]})),
    "sparse": weights(lambda s, k: s.update({k: s[k].to_sparse()})),
    "meta": weights(lambda s, k: s.update({k: s[k].to("meta")})),
    "complex": weights(lambda s, k: s.update({k: s[k].to(torch.complex64)})),
    "quantized": weights(lambda s, k: s.update({k: torch.quantize_per_tensor(s[k], 0.1, 0, torch.qint8)})),
    "huge": weights(lambda s, k: s.update({k: torch.zeros(1).expand(2**40)})),
    "another shape": weights(lambda s, k: s.update({k: torch.zeros(3)})),
    "no text": weights(lambda s, k: s.update({3: s[k]})),
    "unknown": weights(lambda s, k: s.update({"generator.more": s[k]})),
    "missing": weights(lambda s, k: {name: value for name, value in s.items() if name != k}),
    "all missing": lambda content: content.pop("state_dict"),
    "a list": weights(lambda s, k: list(s.values())),
    "null": lambda content: content.update(state_dict=None),
    "averages": lambda content: content["animegen"].update(ema={"updates": 1, "averages": [1]}),
    "average": lambda content: content["animegen"].update(ema={"updates": 1, "averages": {"generator": {"a": "b"}}}),
}


@pytest.mark.parametrize("damage", WEIGHTS)
def test_weights_that_are_none_are_told(
    damage: str, toy: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint(toy, tmp_path / "a.ckpt", WEIGHTS[damage])
    with pytest.raises(AnimegenError, match=r"a\.ckpt"):
        load_model(path, "cpu")
    words = ("experiment=toy/quickstart", "device=cpu", "size=tiny", f"output={tmp_path / 'new'}")
    assert "a.ckpt" in refused(capfd, run_verb(train_verb.main, *words, f"init={path}"))
    assert not (tmp_path / "new" / "checkpoints").exists()


@pytest.mark.parametrize("channels", [10**9, 2**62, -1, "wide", 1.5, None, True])
def test_sizes_are_compared_with_the_weights_before_memory_is_taken(
    channels: Any, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkpoint(
        toy,
        tmp_path / "a.ckpt",
        lambda content: content["animegen"]["config"]["model"]["generator"].update(channels=channels),
    )
    real: list[int] = []
    reset = nn.Conv2d.reset_parameters

    def noted(self: nn.Conv2d) -> None:
        real.append(0 if self.weight.is_meta else self.weight.numel())
        reset(self)

    monkeypatch.setattr(nn.Conv2d, "reset_parameters", noted)
    with pytest.raises(AnimegenError, match=r"a\.ckpt"):
        load_model(path, "cpu")
    assert sum(real) == 0


def test_flipped_bits_are_found(toy: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = toy / "checkpoints" / "last.ckpt"
    weight = next(v for k, v in torch.load(source, weights_only=True)["state_dict"].items() if k.startswith("gen"))
    data = bytearray(source.read_bytes())
    place = data.find(weight.numpy().tobytes())
    assert place > 0
    data[place + 2] ^= 1
    damaged = record(toy, tmp_path / "run", lambda content: None) / "checkpoints" / "last.ckpt"
    damaged.write_bytes(data)
    assert torch.load(damaged, weights_only=True)  # torch does not notice
    with pytest.raises(AnimegenError, match="does not have the checksum"):
        load_model(damaged, "cpu")
    for words in ([f"resume={tmp_path / 'run'}", "train_steps=3"], ["model=toy", "size=tiny", f"init={damaged}"]):
        words = [*words, "device=cpu", f"output={tmp_path / 'new'}"]
        assert "does not have the checksum" in refused(capfd, run_verb(train_verb.main, *words))


def without_end() -> Any:
    value: Any = []
    value.append(value)
    return value


HEADERS: dict[str, Change] = {
    "config null": lambda content: content["animegen"].update(config=None),
    "model list": lambda content: content["animegen"]["config"].update(model=[1]),
    "cycle": lambda content: content["animegen"].update(config=without_end()),
    "cycle inside": lambda content: content["animegen"]["config"]["model"].update(a=without_end()),
    "step text": lambda content: content["animegen"].update(train_step="1"),
    "step negative": lambda content: content["animegen"].update(train_step=-1),
    "step huge": lambda content: content["animegen"].update(train_step=2**100),
    "overrides numbers": lambda content: content["animegen"].update(overrides=[1]),
    "overrides text": lambda content: content["animegen"].update(overrides="seed=1"),
    "choices list": lambda content: content["animegen"].update(choices=[]),
    "version": lambda content: content["animegen"].update(version=3),
    "keys": lambda content: content["animegen"].update({7: 1}),
    "header": lambda content: content.update(animegen=[]),
}


@pytest.mark.parametrize("damage", HEADERS)
def test_headers_that_are_none_are_told(damage: str, toy: Path, tmp_path: Path) -> None:
    path = checkpoint(toy, tmp_path / "a.ckpt", HEADERS[damage])
    with pytest.raises(AnimegenError, match=r"a\.ckpt"):
        load_model(path, "cpu")


def test_an_image_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *words: started.append(words))
    text = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(a) print\n%%EOF\n"
    (tmp_path / "a.png").write_text(text)
    with pytest.raises(AnimegenError, match="not an image"):
        read_image(tmp_path / "a.png")
    assert started == []


# --- Records --------------------------------------------------------------------------------------------------------


def build(place: str) -> Callable[[dict[str, Any], Path], None]:
    def change(content: dict[str, Any], witness: Path) -> None:
        *parents, last = place.split(".")
        node = content["config"]
        for parent in parents:
            node = node[parent]
        node[last] = shell(witness)

    return change


def say(word: str) -> Callable[[dict[str, Any], Path], None]:
    return lambda content, witness: content["overrides"].append(word.replace("WITNESS", str(witness)))


WORDS = {
    "word": say("+callbacks.x={_target_: torch.utils.collect_env.run, command: 'touch WITNESS'}"),
    "key": say("callbacks.previews._target_=torch.utils.collect_env.run"),
    "option": say("experiment=../../../../../tmp/evil"),
    "secret": say("+data.note=${oc.env:SECRET_OF_MINE}"),
    "option of Hydra": say("--experimental-rerun=WITNESS"),
}
CODE = {
    **WORDS,
    "callbacks": build("callbacks.x"),
    "logger": build("logger.x"),
    "trainer": build("trainer.profiler"),
    "trainer itself": build("trainer"),
    "data": build("data.train.x"),
    "model": build("model.generator.x"),
    "benchmark": build("benchmark"),
    "features": build("features"),
}


@pytest.mark.parametrize("attack", CODE)
def test_no_record_of_a_run_runs_anything(
    attack: str,
    toy: Path,
    tmp_path: Path,
    witness: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SECRET_OF_MINE", "s3cret")
    folder = record(toy, tmp_path / "run", lambda content: CODE[attack](content, witness))
    # A run is repeated from its configuration, and resumed from its overrides.
    commands = [] if attack in ("word", "key") else [[f"rerun={folder}"]]
    commands += [[f"resume={folder}", "train_steps=2"]] if attack in WORDS else []
    for command in commands:
        words = [*command, f"output={tmp_path / 'new'}"]
        said = refused(capfd, run_verb(train_verb.main, *words))
        assert "is refused" in said
        assert "s3cret" not in said
    assert not witness.exists()
    assert not (tmp_path / "new").exists()


def test_hydra_keys_of_a_record_are_not_used(toy: Path, tmp_path: Path, witness: Path) -> None:
    word = f"+hydra.callbacks.x={{_target_: {SHELL}, command: 'touch {witness}'}}"
    folder = record(toy, tmp_path / "run", lambda content: content["overrides"].append(word))
    train(f"resume={folder}", "train_steps=2", output=tmp_path / "new")
    assert not witness.exists()


def test_trust_builds_what_a_record_names(toy: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    word = "+callbacks.x={_target_: pytorch_lightning.callbacks.Timer}"
    folder = record(toy, tmp_path / "run", lambda content: content["overrides"].append(word))
    words = [f"resume={folder}", "train_steps=2", f"output={tmp_path / 'new'}"]
    assert "add trust=true" in refused(capfd, run_verb(train_verb.main, *words))
    assert run_verb(train_verb.main, *words, "trust=true") == 0
    # It is not taken over: the record that was written needs it again.
    words = [f"resume={tmp_path / 'new'}", "train_steps=3"]
    assert "add trust=true" in refused(capfd, run_verb(train_verb.main, *words))


def test_the_pickles_of_hydra_are_refused(tmp_path: Path, witness: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (witness,)

    (tmp_path / "evil.pickle").write_bytes(pickle.dumps(Evil()))
    for option in ("--experimental-rerun", "--exp"):
        for words in ([f"{option}={tmp_path / 'evil.pickle'}"], [option, str(tmp_path / "evil.pickle"), "seed=1"]):
            assert "may run any code" in refused(capfd, run_verb(train_verb.main, *words))
    assert not witness.exists()


RECORDS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "empty": lambda record: "",
    "no JSON": lambda record: "{'a': 1}",
    "null": lambda record: "null",
    "number": lambda record: "3",
    "list": lambda record: [record],
    "10,000 lists": lambda record: "[" * 10_000 + "]" * 10_000,
    "10,000 dicts": lambda record: '{"config":' * 10_000 + "{}" + "}" * 10_000,
    "deep config": lambda record: json.dumps(record)[:-1] + ', "config": ' + '{"a":' * 500 + "1" + "}" * 501,
    "huge number": lambda record: '{"train_step": ' + "9" * 5000 + "}",
    "config null": lambda record: record.update(config=None),
    "config list": lambda record: record.update(config=[]),
    "seed null": lambda record: record["config"].update(seed=None),
    "seed text": lambda record: record["config"].update(seed="one"),
    "model number": lambda record: record["config"].update(model=3),
    "data list": lambda record: record["config"].update(data=[]),
    "ablations number": lambda record: record["config"].update(ablations=1),
    "overrides null": lambda record: record.update(overrides=None),
    "overrides numbers": lambda record: record.update(overrides=[1, 2]),
    "overrides text": lambda record: record.update(overrides="seed=1"),
    "choices list": lambda record: record.update(choices=["model"]),
    "status number": lambda record: record.update(status=4),
    "versions list": lambda record: record.update(versions=[]),
    "versions null": lambda record: record.update(versions=None),
    "git number": lambda record: record.update(git=1),
    "metrics text": lambda record: record.update(metrics={"val/psnr": "good"}),
    "seconds list": lambda record: record.update(seconds=[1]),
    "command null": lambda record: record.update(command=None),
    "machine text": lambda record: record.update(machine="fast"),
    "evaluation list": lambda record: record.update(evaluation=[1]),
    "evaluation empty": lambda record: record.update(evaluation={}),
    "methods empty": lambda record: record.update(
        evaluation={"task": "a", "main": "b", "methods": {}, "metrics": {}, "privileged": []}
    ),
}


@pytest.mark.parametrize("damage", RECORDS)
def test_damaged_records_are_told_by_every_command(
    damage: str, toy: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = record(toy, tmp_path / "run", RECORDS[damage])
    for main, words in (
        (train_verb.main, [f"rerun={folder}", f"output={tmp_path / 'new'}"]),
        (train_verb.main, [f"resume={folder}", "train_steps=2", f"output={tmp_path / 'new'}"]),
        (compare_verb.main, [str(folder), f"output={tmp_path / 'report'}"]),
    ):
        assert "run.json" in refused(capfd, run_verb(main, *words))
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("sweep.json", {"words": None}),
        ("sweep.json", {"words": [1]}),
        ("sweep.json", []),
        ("sweep.json", {"words": ["-m", "--config-dir=/tmp"]}),
        ("sweep.json", {"words": ["-m", "+hydra.callbacks.x={_target_: os.system}"]}),
        ("sweep.json", {"words": ["-m", "+callbacks.x={_target_: os.system}", "seed=0,1"]}),
        ("study.json", {"study": "toy"}),
        ("study.json", {"study": 3, "command": "", "runs": []}),
        ("study.json", None),
    ],
)
def test_records_of_sweeps_and_studies(
    name: str, content: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(json.dumps(content))
    main, word = (
        (train_verb.main, f"resume_sweep={tmp_path}") if name == "sweep.json" else (compare_verb.main, str(tmp_path))
    )
    assert name in refused(capfd, run_verb(main, word))
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
