"""Several processes that train as one: each answers for its share of a batch, all see the same loss."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from training.data import Batch

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    count: int = 1
    device: torch.device = CPU

    @property
    def writes(self) -> bool:
        """Whether this process writes files and speaks: one does."""
        return self.rank == 0

    def wrapped(self, net: nn.Module) -> nn.Module:
        """Return the network whose gradients become the mean over all processes."""
        return net if self.count == 1 else DistributedDataParallel(net)

    def share(self, batch: Batch) -> Batch:
        """Return this process's pictures of the step's batch; their number divides by that of processes."""
        size = len(batch.images) // self.count
        return batch.part(slice(self.rank * size, (self.rank + 1) * size))

    def gathered(self, out: Tensor) -> Tensor:
        """Return what all processes answered, in the order of the batch; gradients flow to this one's own.

        So the loss is that of the whole batch, whatever it sums over. Its gradients with respect to the
        parameters are this process's part; all parts add up to the whole.
        """
        if self.count == 1:
            return out
        parts = [torch.empty_like(out) for _ in range(self.count)]
        dist.all_gather(parts, out.detach().contiguous())
        parts[self.rank] = out
        return torch.cat(parts)

    def sums(self, values: list[float]) -> list[float]:
        """Return the sums of these values over all processes, the same bits in each."""
        if self.count == 1:
            return values
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return [float(value) for value in summed.tolist()]


#: One process on the CPU.
ALONE = Ranks()


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that `torchrun` started, each with a GPU where there are GPUs; or be alone."""
    cuda = torch.cuda.is_available()
    if not dist.is_torchelastic_launched():
        yield Ranks(device=torch.device("cuda") if cuda else CPU)
        return
    local = int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", local) if cuda else CPU
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()
