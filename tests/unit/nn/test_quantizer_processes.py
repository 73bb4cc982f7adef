"""Two processes move one codebook, as one process with both halves of the batch would."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from animegen.nn.quantizer import Quantizer

STEPS = 4


def batches() -> Tensor:
    """Return the whole batch (4,2,3,3) of each step."""
    return torch.randn(STEPS, 4, 2, 3, 3, generator=torch.Generator().manual_seed(1))


def quantizers() -> list[Quantizer]:
    """Return one of averages alone, and one that begins with k-means and restarts codes."""
    torch.manual_seed(0)
    return [Quantizer(2, 6, kmeans=False, reset=0.0), Quantizer(2, 6, kmeans=True, reset=2.0)]


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    made = quantizers()  # before there are processes, as in a run
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(rank)  # each process has chance of its own
    for batch in batches():
        for quantizer in made:
            quantizer(batch[2 * rank : 2 * rank + 2])
    torch.save([quantizer.inner.codebook for quantizer in made], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_all_processes_have_the_same_codebook(tmp_path: Path) -> None:
    mp.start_processes(work, args=(str(tmp_path),), nprocs=2, start_method="spawn")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    alone = quantizers()[0]
    for batch in batches():
        alone(batch)
    torch.testing.assert_close(first[0], alone.inner.codebook)
