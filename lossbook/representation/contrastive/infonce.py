r"""Contrastive learning.

Embeddings are compared by their direction: :math:`u_i = h_i / \|h_i\|`, and
:math:`s_{ij} = u_i^\top u_j / \tau` is the similarity of two examples at temperature :math:`\tau`.
"""

import torch
from torch import Tensor

from lossbook._contract import check_float, check_reduction, reduce, require, require_shape

__all__ = ["supervised_contrastive_loss"]


def _unit(h: Tensor) -> Tensor:
    """Rows of unit length, smooth also at zero, where they stay zero."""
    scale = h.detach().abs().amax(1, keepdim=True)  # so that squares neither over- nor underflow
    h = h / scale.where(scale > 0, 1)
    return h * h.square().sum(1, keepdim=True).clamp(min=0.5).rsqrt()


def supervised_contrastive_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    temperature: float = 0.1,
    reduction: str = "mean",
) -> Tensor:
    r"""Supervised contrastive loss: each example against the others, its own class the answer.

    .. math:: L_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)}
        \log \frac{e^{s_{ip}}}{\sum_{a \ne i} e^{s_{ia}}}, \qquad P(i) = \{p \ne i : y_p = y_i\}

    The average over positives stands outside the logarithm ("out" in the paper). An anchor
    without a positive has loss 0 and does not count in the mean; if no anchor has one the mean is
    0 with zero gradient.

    Args:
        embeddings: (N, D), of any length; they are normalized here. A zero vector is as similar
            to all others as orthogonal vectors are.
        labels: (N,), int64, the classes.
        temperature: positive.
        reduction: "none", "mean" (over the anchors that have a positive) or "sum".

    Returns:
        The loss, a scalar in the dtype of the embeddings, or (N,) unreduced.

    Raises:
        ValueError: on shapes, or a temperature that is not positive.
        TypeError: on embeddings or labels of the wrong dtype.

    Source: ``khosla2020supervised``.

    Pitfall: the smallest value is not zero. Positives share the softmax, so with n examples of a
    class in the batch the loss of its anchors stays above log(n - 1).

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> supervised_contrastive_loss(embeddings, labels, temperature=1.0)  # log(1 + 2 / e)
        tensor(0.5514)
    """
    h = check_float(embeddings, "embeddings")
    require(h.ndim == 2, "the shape of embeddings", tuple(h.shape), "(N, D)")
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        raise TypeError(f"labels must be an int64 tensor, got {getattr(labels, 'dtype', labels)}")
    require_shape(labels, h.shape[:1], "labels")
    require(temperature > 0, "temperature", temperature, "positive")
    check_reduction(reduction)
    u = _unit(h)
    itself = torch.eye(len(h), dtype=torch.bool, device=h.device)
    # The lowest number, not minus infinity: a lone example has no other, and must not give nan.
    similarity = (u @ u.T / temperature).masked_fill(itself, torch.finfo(u.dtype).min)
    log_share = similarity.log_softmax(1)
    positive = (labels[:, None] == labels) & ~itself
    number = positive.sum(1)
    losses = -torch.where(positive, log_share, 0).sum(1) / number.clamp(min=1)
    return reduce(losses, (number > 0).to(u.dtype), reduction, embeddings.dtype)
