"""The data module inside a real trainer: workers, resume, processes, devices do not change what is trained on."""

from __future__ import annotations

import itertools
import json
import logging
from pathlib import Path

import cv2
import pytest
import pytorch_lightning as pl
import torch
import torch.multiprocessing as mp
from PIL import Image

from animegen.data import (
    AnimeDataModule,
    Augment,
    ImageFolder,
    PairedView,
    StillView,
    UnpairedView,
    edge_smooth,
    to_float,
)
from animegen.errors import AnimegenError


class Noise:
    """Image i is noise that i determines, with wide flat areas so that it has clear edges."""

    def __init__(self, length: int, salt: int = 0, side: int = 24) -> None:
        self.length, self.salt, self.side = length, salt, side

    def __len__(self) -> int:
        return self.length

    def image(self, index: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1000 * self.salt + index)
        coarse = torch.randint(0, 256, (3, self.side // 4, self.side // 4), generator=generator, dtype=torch.uint8)
        return coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)

    def name(self, index: int) -> str:
        return str(index)


class Recorder(pl.LightningModule):
    """A module that notes what it was trained on, and counts its steps as an AnimeModule does."""

    def __init__(self, train_step: int = 0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.automatic_optimization = False
        self.train_step = train_step
        self.seen: list[list[int]] = []
        self.batches: list[dict[str, torch.Tensor]] = []
        self.validated: list[dict[str, torch.Tensor]] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        self.manual_backward(self.weight * 1.0)
        self.seen.append(batch["sample"].tolist())
        self.batches.append(batch)
        self.train_step += 1

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        self.validated.append(batch)


def make(num_workers: int = 0, **options) -> AnimeDataModule:
    options.setdefault("augment", Augment(16))
    options.setdefault("batch_size", 3)
    train = UnpairedView(Noise(7), Noise(5, salt=1), size=24)
    val = PairedView(Noise(4, salt=2), Noise(4, salt=3), size=24, shuffle=False)
    return AnimeDataModule(options.pop("train", train), options.pop("val", val), num_workers=num_workers, **options)


def fit(data: AnimeDataModule, steps: int, start: int = 0, **options) -> Recorder:
    module = Recorder(start)
    trainer = pl.Trainer(
        accelerator="cpu",
        limit_train_batches=steps,
        limit_val_batches=options.pop("limit_val_batches", 0.0),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 1, **options},
    )
    trainer.fit(module, datamodule=data)
    return module


def assert_equal(first: list[dict[str, torch.Tensor]], second: list[dict[str, torch.Tensor]]) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert torch.equal(a[key], b[key]), key


def test_batches_reach_the_model_augmented() -> None:
    data = make(smooth="online")
    module = fit(data, 4)
    assert module.seen == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    for numbers, batch in zip(module.seen, module.batches, strict=True):
        samples = [data.train[number] for number in numbers]
        raw = {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}
        expected = Augment(16)(raw, data.train.aligned)
        assert torch.equal(batch["photo"], expected["photo"])
        assert torch.equal(batch["anime"], expected["anime"])
        assert torch.equal(batch["smooth"], edge_smooth(expected["anime"]))
        assert not torch.equal(batch["smooth"], batch["anime"])
        assert batch["photo"].shape == (3, 3, 16, 16)
        assert -1 <= batch["photo"].min() < batch["photo"].max() <= 1


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_run_continues_as_if_never_interrupted(stop: int) -> None:
    whole = fit(make(), 6)
    first, second = fit(make(), stop), fit(make(), 6 - stop, start=stop)
    assert_equal(first.batches + second.batches, whole.batches)


def test_the_ends_of_lightnings_epochs_are_invisible() -> None:
    assert_equal(fit(make(), 2, max_epochs=3).batches, fit(make(), 6).batches)


def test_workers_do_not_matter() -> None:
    whole = fit(make(), 6)
    assert_equal(fit(make(num_workers=2), 6).batches, whole.batches)
    assert_equal(fit(make(num_workers=2), 3, max_epochs=2).batches, whole.batches)
    assert_equal(fit(make(num_workers=1), 2, start=4).batches, whole.batches[4:])


def test_the_global_generator_is_left_alone() -> None:
    data = make(num_workers=1)
    torch.manual_seed(5)
    expected = torch.get_rng_state()
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert next(iter(loader))["photo"].dtype == torch.uint8
    assert torch.equal(torch.get_rng_state(), expected)


def test_pairs_are_augmented_alike() -> None:
    pairs = PairedView(Noise(6), Noise(6), size=24)
    batch = fit(make(train=pairs), 5).batches
    assert all(torch.equal(b["photo"], b["anime"]) for b in batch)


def test_validation_is_whole_complete_and_in_order() -> None:
    data = make(val_batch_size=3, smooth="online")
    module = fit(data, 1, limit_val_batches=None, num_sanity_val_steps=0)
    assert [batch["sample"].tolist() for batch in module.validated] == [[0, 1, 2], [3]]
    assert set(module.validated[0]) == {"photo", "anime", "sample"}
    source = Noise(4, salt=2)
    for number in range(4):
        batch = module.validated[number // 3]
        assert torch.equal(batch["photo"][number % 3], to_float(source.image(number)))


def test_without_validation_or_augmentation() -> None:
    data = make(val=None, augment=None)
    module = fit(data, 2, limit_val_batches=None)
    assert module.validated == []
    assert data.val_dataloader() == []
    assert data.test_dataloader() == []
    assert torch.equal(module.batches[1]["photo"][0], to_float(data.train[3]["photo"]))


def test_test_view() -> None:
    test = StillView(Noise(5), size=24, shuffle=False)
    loader = make(test=test).test_dataloader()
    assert [batch["sample"].tolist() for batch in loader] == [[0, 1, 2], [3, 4]]


def test_previews() -> None:
    data = make()
    batch = data.preview_batch(2)
    assert set(batch) == {"photo", "anime", "sample"}
    assert batch["photo"].shape == (2, 3, 24, 24)
    number = int(batch["sample"][1])
    assert torch.equal(batch["photo"][1], to_float(Noise(4, salt=2).image(number)))
    assert set(make(val=None).preview_batch(2)) == {"photo", "sample"}


def test_the_same_batch_again_and_again() -> None:
    assert fit(make(repeat_first_batch=True), 3, start=4).seen == [[0, 1, 2]] * 3


def test_half_precision_gets_half_batches() -> None:
    module = fit(make(), 1, precision="bf16-true")
    assert module.batches[0]["photo"].dtype == torch.bfloat16
    assert module.batches[0]["sample"].dtype == torch.int64


def _rank(rank: int, folder: str, port: int) -> None:
    import os

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank)}
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    options = {"devices": 2, "strategy": "ddp", "num_sanity_val_steps": 0, "limit_val_batches": None}
    module = fit(make(batch_size=2), 3, start=1, use_distributed_sampler=False, **options)
    validated = [number for batch in module.validated for number in batch["sample"].tolist()]
    sums = [batch["photo"].double().sum(dim=(1, 2, 3)).tolist() for batch in module.batches]
    Path(folder, f"{rank}.json").write_text(json.dumps([module.seen, sums, validated]))


@pytest.mark.slow
def test_processes_share_out_the_global_batch(tmp_path: Path) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Spawned: a process that is forked after autograd has run cannot use it.
    mp.start_processes(_rank, (str(tmp_path), port), nprocs=2, start_method="spawn")
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    alone = fit(make(batch_size=4), 3, start=1)
    assert [a + b for a, b in zip(ranks[0][0], ranks[1][0], strict=True)] == alone.seen
    sums = [batch["photo"].double().sum(dim=(1, 2, 3)).tolist() for batch in alone.batches]
    assert [a + b for a, b in zip(ranks[0][1], ranks[1][1], strict=True)] == sums
    assert sorted(ranks[0][2] + ranks[1][2]) == [0, 1, 2, 3]


def test_lightnings_own_sharing_is_refused() -> None:
    data = make()

    class Connector:
        use_distributed_sampler = True

    class Trainer:
        world_size, global_rank, _accelerator_connector = 2, 1, Connector()

    data.trainer = Trainer()  # type: ignore[assignment]
    with pytest.raises(AnimegenError, match=r"trainer\.use_distributed_sampler=false"):
        data.train_dataloader()


def test_broken_files_are_counted_across_workers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(8):
        Image.new("RGB", (24, 24), (number, 0, 0)).save(tmp_path / f"{number}.png")
    for number in (2, 5, 6):
        (tmp_path / f"{number}.png").write_text("no picture")
    folder = ImageFolder(tmp_path)
    data = AnimeDataModule(StillView(folder, size=24), num_workers=2, batch_size=4)
    with caplog.at_level(logging.WARNING, logger="animegen"):
        batches = fit(data, 4).batches
    assert all(batch["photo"].shape == (4, 3, 24, 24) for batch in batches)
    assert folder.skipped == 3
    assert "3 broken image files were skipped" in caplog.text


def test_settings_are_recorded_and_checked() -> None:
    data = make(style="meadow", load_size=24, scenes=[1, 2], cache=None)
    assert data.settings == {"style": "meadow", "load_size": 24, "scenes": [1, 2], "cache": None}
    with pytest.raises(AnimegenError, match=r"no argument 'num_worker'\. Did you mean 'num_workers'"):
        make(num_worker=2)
    with pytest.raises(AnimegenError, match=r"'data\.photos' must be a plain value .* not Noise"):
        make(photos=Noise(3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smooth": "onlin"}, "Did you mean 'online'"),
        ({"batch_size": 0}, r"data\.batch_size \(0\)"),
        ({"num_workers": -1}, r"data\.num_workers \(-1\)"),
        (
            {"augment": Augment(32)},
            r"images of 24 pixels, smaller than data\.image_size=32: set data\.load_size to at least 32",
        ),
        ({"smooth": "disk"}, "does not read smoothed images: set data.smooth=online"),
        ({"train": UnpairedView(Noise(3), Noise(3), Noise(3), size=24)}, "reads smoothed .* set data.smooth=disk"),
        ({"train": StillView(Noise(3), size=24), "smooth": "online"}, "needs anime .* has photo"),
        ({"val": UnpairedView(Noise(3), Noise(3), size=24)}, r"data\.val must be a view with shuffle=false"),
        ({"train": StillView(Noise(3), size=24, shuffle=False)}, r"data\.train must be a view with shuffle=true"),
    ],
)
def test_mistakes(options: dict, message: str) -> None:
    with pytest.raises(AnimegenError, match=message):
        make(**options).setup("fit")


def test_loader_without_a_trainer_begins_at_the_beginning() -> None:
    first = list(itertools.islice(make().train_dataloader(), 2))
    assert [batch["sample"].tolist() for batch in first] == [[0, 1, 2], [3, 4, 5]]


class Blurred(Noise):
    """Images that need OpenCV, big enough for its threads."""

    def image(self, index: int) -> torch.Tensor:
        coarse = super().image(index).permute(1, 2, 0).repeat_interleave(30, 0).repeat_interleave(30, 1)
        blurred = cv2.GaussianBlur(coarse.numpy(), (31, 31), 0)
        return torch.from_numpy(blurred[::30, ::30].transpose(2, 0, 1).copy())


def test_workers_can_use_opencv_when_the_main_process_did() -> None:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        view = StillView(Blurred(6), size=24)
        expected = [view[number]["photo"] for number in range(6)]
        loader = AnimeDataModule(view, num_workers=2, batch_size=3).train_dataloader()
        batches = list(itertools.islice(loader, 2))
        assert torch.equal(torch.cat([batch["photo"] for batch in batches]), torch.stack(expected))
        assert cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(threads)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_fatal_file_is_one_sentence_with_workers_too(tmp_path: Path, num_workers: int) -> None:
    Image.new("RGB", (24, 24)).save(tmp_path / "1.png")
    (tmp_path / "2.png").write_text("no picture")
    view = StillView(ImageFolder(tmp_path, on_error="fail"), size=24)
    with pytest.raises(AnimegenError) as caught:
        next(iter(AnimeDataModule(view, num_workers=num_workers, batch_size=2).train_dataloader()))
    assert str(caught.value).startswith(f"The file '{tmp_path}/2.png' is not an image")
    assert "\n" not in str(caught.value)
