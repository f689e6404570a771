"""The expected calibration error of a million forecasts, against torchmetrics."""

from __future__ import annotations

import torch
from harness import Benchmark, Goal, relative_error
from torch import Tensor

from lossbook.classification import expected_calibration_error

ROWS, CLASSES, BINS = 1_000_000, 100, 15


def problem(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Logits of an overconfident model: twice those from which labels are drawn, by Gumbel's trick."""
    generator = torch.Generator().manual_seed(0)
    logits, labels = [], []
    for _ in range(10):
        part = 2 * torch.randn(ROWS // 10, CLASSES, generator=generator)
        noise = -torch.empty_like(part).exponential_(generator=generator).log()
        labels.append((part + noise).argmax(1))
        logits.append((2 * part).to(dtype))
    return torch.cat(logits).to(device), torch.cat(labels).to(device)


def ours(data: tuple[Tensor, Tensor]):
    return lambda: expected_calibration_error(*data, bins=BINS)


def theirs(data: tuple[Tensor, Tensor]):
    from torchmetrics.functional.classification import multiclass_calibration_error

    # Validation looks at every value a second time; a fair race does without.
    options = {"num_classes": CLASSES, "n_bins": BINS, "validate_args": False}
    return lambda: multiclass_calibration_error(*data, **options)


def plain(data: tuple[Tensor, Tensor]):
    """What one writes by hand: all probabilities, and a pass over the data for each bin."""
    logits, labels = data

    def call() -> Tensor:
        confidence, predicted = logits.softmax(1).max(1)
        gap = confidence - (predicted == labels).to(confidence.dtype)
        total = torch.zeros((), dtype=torch.float64, device=logits.device)
        for m in range(BINS):
            inside = (confidence > m / BINS) & (confidence <= (m + 1) / BINS)
            total = total + gap[inside].sum(dtype=torch.float64).abs()
        return total / len(labels)

    return call


BENCHMARKS = [
    Benchmark(
        name=f"expected calibration error of {ROWS:,} x {CLASSES} logits",
        problem=problem,
        reference=lambda data: plain(data)(),
        contestants={"lossbook": ours, "torchmetrics": theirs, "by hand": plain},
        goals=(Goal("torchmetrics", time=1.0, memory=1.0),),
        tolerance=1e-3,
        error=relative_error,
    )
]
