"""As many threads as this process was given, not as many as the machine has."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import SimpleITK as sitk

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def given_threads() -> int:
    """Return how many threads the process may use: affinity, container quota and OMP_NUM_THREADS together."""
    counts = [len(os.sched_getaffinity(0))]
    named = os.environ.get("OMP_NUM_THREADS", "")
    if named.isdigit():
        counts.append(int(named))
    try:
        quota, period = CPU_QUOTA.read_text(encoding="ascii").split()
        counts.append(round(int(quota) / int(period)))
    except (OSError, ValueError):
        pass  # no control group, or no limit ("max")
    return max(1, min(counts))


def limit_threads() -> None:
    """Hold SimpleITK and, where it is loaded, torch to `given_threads`."""
    count = given_threads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(count)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(count)
