"""Shares of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from animegen.launch import slots
from animegen.launch.slots import Slot, free_slot, share_machine


def test_the_machine_is_shared_out() -> None:
    assert share_machine(2, cores=7, gpus=[]) == [Slot(3), Slot(3)]
    assert share_machine(4, cores=2, gpus=["0", "1"]) == [Slot(1, "0"), Slot(1, "1"), Slot(1, "0"), Slot(1, "1")]
    assert share_machine(2, cores=4, gpus=["0", "3", "5"]) == [Slot(2, "0,5"), Slot(2, "3")]
    assert Slot(2, "3").environment()["CUDA_VISIBLE_DEVICES"] == "3"
    assert Slot(2).environment()["OMP_NUM_THREADS"] == "2"


def test_a_share_is_used_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tried = []
    monkeypatch.setattr(slots.time, "sleep", lambda seconds: tried.append(seconds) or pytest.fail("no share is free"))
    gpus = ["0", "3"]
    with free_slot(tmp_path, gpus=gpus) as (first, lock), free_slot(tmp_path, gpus=gpus) as (second, _):
        assert (first.gpus, second.gpus) == ("0", "3")
        assert lock is not None  # the run holds the share, too, should this process be killed
        with pytest.raises(pytest.fail.Exception, match="no share is free"), free_slot(tmp_path, gpus=gpus):
            pass
        with free_slot(tmp_path / "other", gpus=gpus) as (other, _):
            assert other.gpus == "0"
    with free_slot(tmp_path, gpus=gpus) as (again, _):
        assert again.gpus == "0"
    with free_slot(tmp_path, 1, gpus) as (both, _):
        assert both.gpus == "0,3"


def test_a_cluster_has_set_up_its_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    environment = Slot().environment()
    # With that name Lightning starts its own processes, rather than taking Slurm's tasks for them.
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["SLURM_JOB_NAME"]) == ("7", "bash")
    assert environment.get("OMP_NUM_THREADS") == os.environ.get("OMP_NUM_THREADS")
