r"""Class imbalance and long tails.

Throughout, :math:`n_c` is the number of training examples of class :math:`c`,
:math:`\pi_c = n_c / \sum_k n_k` its share and :math:`z` the logits of one example. Three ways to
speak for the rare classes: weigh their examples, shift their logits, or scale them.
"""

import torch
from torch import Tensor

from lossbook._contract import check_scores, expectation, is_concrete, require, restore

__all__ = ["class_balanced_weights", "logit_adjustment", "vector_scaling_loss"]


def _check_counts(class_counts: Tensor, classes: int | None = None) -> Tensor:
    """Checks numbers of examples (C,), each at least one, and gives them in float64."""
    if not isinstance(class_counts, Tensor):
        raise TypeError(f"class_counts must be a tensor, got {type(class_counts).__name__}")
    if class_counts.is_complex() or class_counts.dtype == torch.bool:
        raise TypeError(f"class_counts must hold numbers, got {class_counts.dtype}")
    shape = tuple(class_counts.shape)
    if classes is None:
        require(len(shape) == 1 and shape[0] >= 1, "the shape of class_counts", shape, "(C,)")
    else:
        require(shape == (classes,), "the shape of class_counts", shape, f"({classes},)")
    if is_concrete(class_counts):
        valid = (class_counts > 0) & class_counts.isfinite()
        require(bool(valid.all()), "class_counts", class_counts, "positive, for every class")
    # Apple's GPUs have no float64.
    return class_counts.to(torch.float32 if class_counts.device.type == "mps" else torch.float64)


def class_balanced_weights(class_counts: Tensor, beta: float = 0.9999) -> Tensor:
    r"""Weights of classes by their effective number of examples, with mean one.

    .. math:: w_c \propto \frac{1 - \beta}{1 - \beta^{n_c}}, \qquad \frac1C \sum_c w_c = 1

    If new examples tend to repeat old ones, :math:`n_c` of them are worth
    :math:`(1 - \beta^{n_c}) / (1 - \beta)`. At :math:`\beta = 0` all classes weigh the same, at
    :math:`\beta = 1` (the limit) they weigh :math:`1 / n_c`.

    Args:
        class_counts: (C,), numbers of examples, positive.
        beta: in [0, 1].

    Returns:
        The weights (C,), in the dtype of the counts, or the default dtype if they are integers.

    Raises:
        ValueError: if a count is not positive, the shape is not (C,) or beta is out of range.
        TypeError: if class_counts is not a tensor of numbers.

    Source: ``cui2019classbalanced``.

    Pitfall: the weights depend on the scale of the counts, not on their ratios alone: with
    ``beta=0.9999`` and ten to a thousand examples a class they are almost :math:`1 / n_c`.

    Example:
        >>> class_balanced_weights(torch.tensor([100, 10]), beta=1.0)
        tensor([0.1818, 1.8182])
    """
    counts = _check_counts(class_counts)
    require(0 <= beta <= 1, "beta", beta, "in [0, 1]")
    if beta == 1:
        weights = 1 / counts
    elif beta == 0:
        weights = torch.ones_like(counts)
    else:  # (1 - beta) / (1 - beta^n), with the digits that 1 - beta^n would lose
        log_beta = torch.log(torch.full_like(counts, beta))
        weights = torch.expm1(log_beta) / torch.expm1(counts * log_beta)
    dtype = class_counts.dtype if class_counts.is_floating_point() else torch.get_default_dtype()
    return restore(weights / weights.mean(), dtype)


def logit_adjustment(
    logits: Tensor,
    class_counts: Tensor,
    *,
    additive: float = 1.0,
    multiplicative: float = 0.0,
) -> Tensor:
    r"""Logits for a world in which every class is as frequent as every other.

    .. math:: z'_c = \Bigl( \frac{n_{\max}}{n_c} \Bigr)^{\gamma} z_c - \tau \log \pi_c

    Bayes' rule gives the additive part with :math:`\tau = 1`: if :math:`z` are the log posteriors
    under the priors :math:`\pi`, then :math:`z - \log \pi` are those under uniform priors. The
    multiplicative part undoes what imbalance does to the norms of a linear classifier's rows.

    Args:
        logits: (N, C) or (N, C, d1, ...).
        class_counts: (C,), numbers of training examples, positive.
        additive: any sign, the strength :math:`\tau` of the shift.
        multiplicative: any sign, the exponent :math:`\gamma` of the scaling.

    Returns:
        The adjusted logits, in the shape and dtype of the logits.

    Raises:
        ValueError: on shapes, or a count that is not positive.
        TypeError: if logits are not floating-point or class_counts is not a tensor of numbers.

    Source: ``menon2021longtail``.

    Pitfall: scaling a negative logit up makes it smaller. The multiplicative form is meant for
    logits that compare directions with class means (an ETF classifier, say), where the winner is
    positive; it does not commute with a shift of all logits.

    Example:
        >>> logit_adjustment(torch.tensor([[2.0, 0.0]]), torch.tensor([900, 100]))
        tensor([[2.1054, 2.3026]])
    """
    z = check_scores(logits)
    counts = _check_counts(class_counts, z.shape[1]).to(z.dtype)
    shape = (1, -1, *[1] * (z.ndim - 2))
    scale = (counts.max() / counts) ** multiplicative
    shift = additive * (counts / counts.sum()).log()
    return restore(scale.reshape(shape) * z - shift.reshape(shape), logits.dtype)


def vector_scaling_loss(
    logits: Tensor,
    target: Tensor,
    *,
    class_counts: Tensor,
    gamma: float = 0.3,
    tau: float = 1.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Cross-entropy of logits that are scaled and shifted by how frequent their class is.

    .. math:: L = -\log \mathrm{softmax}(\Delta z + \iota)_y, \qquad
        \Delta_c = \Bigl( \frac{n_c}{n_{\max}} \Bigr)^{\gamma}, \quad \iota_c = \tau \log \pi_c

    The shift acts early in training, the scaling late, when the logits are large. With
    :math:`\gamma = 0` it is the logit-adjusted loss, with :math:`\tau = 0` the class-dependent
    temperature, with both zero cross-entropy.

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        class_counts: (C,), numbers of training examples, positive.
        gamma: at least 0, the exponent of the scaling.
        tau: at least 0, the strength of the shift.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced.

    Raises:
        ValueError: on shapes, labels or counts out of range, or a negative gamma or tau.
        TypeError: on logits, a target or counts of the wrong type.

    Source: ``kini2021labelimbalanced``.

    Pitfall: a model trained with it is used with its plain logits. Adjusting them once more for
    the class frequencies would correct twice.

    Example:
        >>> logits, target = torch.zeros(1, 2), torch.tensor([1])
        >>> vector_scaling_loss(logits, target, class_counts=torch.tensor([90, 10]))  # -log 0.1
        tensor(2.3026)
    """
    z = check_scores(logits)
    require(gamma >= 0, "gamma", gamma, "at least 0")
    require(tau >= 0, "tau", tau, "at least 0")
    counts = _check_counts(class_counts, z.shape[1]).to(z.dtype)
    shape = (1, -1, *[1] * (z.ndim - 2))
    scale = ((counts / counts.max()) ** gamma).reshape(shape)
    shift = (tau * (counts / counts.sum()).log()).reshape(shape)
    return expectation(
        -(scale * z + shift).log_softmax(1),
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=logits.dtype,
    )
