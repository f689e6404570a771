"""The contract every loss of the book keeps, in one place.

A classification loss is a function of the logits and of a class: ``loss(z, k)`` is what the example
would cost if ``k`` were its label. A loss therefore computes the matrix of ``loss(z, k)`` for every
class and hands it to :func:`expectation`, which selects by the target, weighs and reduces.
"""

import torch
from torch import Tensor


def require_shape(tensor: Tensor, shape: tuple[int, ...], name: str) -> None:
    """Raises ValueError unless the tensor has exactly this shape."""
    require(tensor.shape == shape, f"the shape of {name}", tuple(tensor.shape), f"{tuple(shape)}")


def require(condition: bool, name: str, value: object, expected: str) -> None:
    """Raises ValueError unless the condition holds, naming the argument and what it should be."""
    if not condition:
        raise ValueError(f"{name} must be {expected}, got {value!r}")


def is_concrete(tensor: Tensor) -> bool:
    """Whether the values may be looked at: reading them is free and no tracer is watching."""
    return (
        tensor.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )


def promote(tensor: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 stay what they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def restore(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Back to the input's dtype: a value too large for float16 saturates, its gradient does not."""
    if tensor.dtype == dtype:
        return tensor
    limit = torch.finfo(dtype).max
    saturated = tensor.detach().clamp(-limit, limit)
    return (saturated + (tensor - tensor.detach())).to(dtype)


def check_float(tensor: Tensor, name: str) -> Tensor:
    """Checks for a floating-point tensor and promotes it."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must have a floating-point dtype, got {tensor.dtype}")
    return promote(tensor)


def check_scores(tensor: Tensor, name: str = "logits") -> Tensor:
    """Checks for floating-point scores (N, C, ...), one for each class, and promotes them."""
    scores = check_float(tensor, name)
    require(scores.ndim >= 2, f"the shape of {name}", tuple(scores.shape), "(N, C, ...)")
    require(scores.shape[1] >= 1, f"the number of classes in {name}", 0, "at least 1")
    return scores


def check_reduction(reduction: str) -> None:
    """Checks for a reduction that torch knows."""
    require(reduction in ("none", "mean", "sum"), "reduction", reduction, "'none', 'mean' or 'sum'")


def check_target(target: Tensor, shape: torch.Size, ignore_index: int) -> None:
    """Checks a target against per-class values of the given shape (N, C, ...).

    Class indices are int64, (N, ...); a floating-point target has a number per class, (N, C, ...).
    """
    if not isinstance(target, Tensor):
        raise TypeError(f"target must be a tensor, got {type(target).__name__}")
    if not (target.is_floating_point() or target.dtype == torch.int64):
        raise TypeError(
            f"target must be int64 indices or floating-point probabilities, got {target.dtype}"
        )
    expected = shape if target.is_floating_point() else shape[:1] + shape[2:]
    require_shape(target, expected, "target")
    if not target.is_floating_point() and is_concrete(target):
        labels = target[target != ignore_index]
        if bool(((labels < 0) | (labels >= shape[1])).any()):
            raise ValueError(
                f"target must hold classes 0 to {shape[1] - 1} or ignore_index {ignore_index}, "
                f"got values from {int(labels.min())} to {int(labels.max())}"
            )


def check_distribution(target: Tensor) -> None:
    """Checks that soft targets are probabilities: not negative, summing to one over the classes."""
    if is_concrete(target):
        tolerance = 1e-2 if torch.finfo(target.dtype).bits == 16 else 1e-4
        error = (target.double().sum(1) - 1).abs()
        if bool((target < 0).any()) or not bool((error <= tolerance).all()):
            raise ValueError("a soft target must be non-negative and sum to 1 over the classes")


def check_weight(weight: Tensor | None, scores: Tensor) -> Tensor | None:
    """Checks class weights (C,) and shapes them to multiply scores (N, C, ...)."""
    if weight is None:
        return None
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        raise TypeError(f"weight must be a floating-point tensor, got {weight!r}")
    require_shape(weight, (scores.shape[1],), "weight")
    if is_concrete(weight):
        require(bool((weight >= 0).all()), "weight", weight, "non-negative")
    return weight.to(scores.dtype).reshape(1, -1, *[1] * (scores.ndim - 2))


def reduce(losses: Tensor, weights: Tensor, reduction: str, dtype: torch.dtype) -> Tensor:
    """Reduces losses that are already weighed; the mean is over the sum of the weights.

    Where every element is ignored the mean is 0 with zero gradient; an empty batch gives nan, as
    torch has it.
    """
    if reduction == "sum":
        losses = losses.sum()
    elif reduction == "mean":
        total = weights.sum()
        if weights.numel() > 0:
            total = torch.where(total == 0, torch.ones_like(total), total)
        losses = losses.sum() / total
    return restore(losses, dtype)


def expectation(
    losses: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    dtype: torch.dtype,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The loss under the target, weighed and reduced.

    Args:
        losses: (N, C, ...), the loss of each element for each class that could be its label.
        target: class indices (N, ...), or probabilities q (N, C, ...): sum_k q_k loss(z, k).
        weight: class weights (C,); an element weighs as much as its class, or sum_k q_k weight_k.
        ignore_index: class index of elements that count for nothing; soft targets have none.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".
        dtype: dtype of the result.
        label_smoothing: share of the label that is spread evenly over all classes.
    """
    check_reduction(reduction)
    check_target(target, losses.shape, ignore_index)
    weights = check_weight(weight, losses)
    if weights is not None:
        losses = losses * weights
    if label_smoothing:
        losses = torch.lerp(losses, losses.mean(1, keepdim=True).expand_as(losses), label_smoothing)

    if target.is_floating_point():
        check_distribution(target)
        target = target.to(losses.dtype)
        picked = (target * losses).sum(1)
        share = torch.ones_like(picked) if weights is None else (target * weights).sum(1)
        return reduce(picked, share, reduction, dtype)

    valid = target != ignore_index
    index = target.where(valid, 0).unsqueeze(1)
    picked = losses.gather(1, index).squeeze(1)
    share = torch.ones_like(picked)
    if weights is not None:
        share = weights.expand_as(losses).gather(1, index).squeeze(1)
    return reduce(picked.where(valid, 0), share.where(valid, 0), reduction, dtype)
