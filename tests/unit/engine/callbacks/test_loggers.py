"""Logs of resumed runs: nothing twice, nothing lost."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from animegen.engine.callbacks import CsvLogger, TensorBoardLogger


def test_csv_has_a_row_per_step_and_new_columns(tmp_path: Path) -> None:
    logger = CsvLogger(str(tmp_path), every=2)
    logger.log_metrics({"a": 1.0}, step=1)
    assert not logger.path.exists()
    logger.log_metrics({"b": 2.0}, step=1)
    assert logger.path.read_text() == "step,a,b\n1,1.0,2.0\n"
    logger.log_metrics({"c": 3.0}, step=4)
    logger.finalize("success")
    assert logger.path.read_text() == "step,a,b,c\n1,1.0,2.0,\n4,,,3.0\n"


def test_csv_continues_where_the_checkpoint_was(tmp_path: Path) -> None:
    first = CsvLogger(str(tmp_path))
    for step in (1, 2, 3):
        first.log_metrics({"a": step / 10}, step=step)
    first.finalize("failed")
    second = CsvLogger(str(tmp_path))
    second.resume_at(2)
    second.log_metrics({"a": 0.33, "b": 1.0}, step=3)
    second.finalize("success")
    assert second.path.read_text() == "step,a,b\n1,0.1,\n2,0.2,\n3,0.33,1.0\n"


def test_csv_without_anything_to_say_writes_nothing(tmp_path: Path) -> None:
    logger = CsvLogger(str(tmp_path))
    logger.resume_at(5)
    logger.finalize("success")
    assert not logger.path.exists()


def test_tensorboard_hides_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    first = TensorBoardLogger(str(tmp_path))
    for step in (1, 2, 3, 4):
        first.log_metrics({"a": 1.0}, step=step)
    first.finalize("failed")
    second = TensorBoardLogger(str(tmp_path))
    second.resume_at(2)
    for step in (3, 5):
        second.log_metrics({"a": 2.0}, step=step)
    second.finalize("success")
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("a")
    assert [(event.step, event.value) for event in events] == [(1, 1.0), (2, 1.0), (3, 2.0), (5, 2.0)]
