r"""Decision trees that gradients can grow: soft splits, hard choices, a softmax over trees.

A tree is hard twice: each node looks at one feature, and sends an input left or right. Both are
argmaxes, and both are replaced as elsewhere in this room: by a map that has a gradient, read through
its hard value. The trees of an ensemble are then weighed by a softmax that depends on the leaves
where an input ends.
"""

import torch
from torch import Tensor, nn

from lossbook._contract import check_float, require, require_shape, restore
from lossbook.classification.softmax.maps import entmax, straight_through

__all__ = ["TreeEnsemble", "leaf_membership", "leaf_weighted_mean", "soft_split"]


def soft_split(scores: Tensor, *, kind: str = "softsign", hard: bool = True) -> Tensor:
    r"""Which way a node sends an input: to the right if the score is positive.

    .. math:: \text{softsign} \; \frac12 \Bigl(\frac{s}{1 + |s|} + 1\Bigr), \qquad
        \text{sigmoid} \; \frac{1}{1 + e^{-s}}, \qquad
        \text{entmoid} \; \frac14 \Bigl(\frac c2 + \sqrt{2 - \frac{c^2}{4}}\Bigr)^2, \;
        c = \min(\max(s, -2), 2)

    All are 1/2 at 0 and rise; 1 minus them is them of minus the score. Far from 0 the slope of the
    first falls like :math:`1 / 2 s^2`, of the second like :math:`e^{-|s|}`, and that of the third, the
    entmax of two classes with alpha 1.5, is 0 from :math:`|s| = 2`.

    Args:
        scores: of any shape.
        kind: "softsign", "sigmoid" or "entmoid".
        hard: whether to return 0 or 1, with the gradient of the soft split.

    Returns:
        Of the shape and dtype of the scores, from 0 to 1.

    Raises:
        ValueError: on an unknown kind.
        TypeError: if scores are not floating-point.

    Source: ``marton2023grande``.

    Pitfall: the slope tells which inputs can still move a threshold: those near it, for the entmoid
    those alone. Scale features first.

    Example:
        >>> s = torch.tensor([-3.0, 1.0])
        >>> soft_split(s, hard=False), soft_split(s)
        (tensor([0.1250, 0.7500]), tensor([0., 1.]))
    """
    s = check_float(scores, "scores")
    if kind == "softsign":
        p = (nn.functional.softsign(s) + 1) / 2
    elif kind == "sigmoid":
        p = s.sigmoid()
    else:
        require(kind == "entmoid", "kind", kind, "'softsign', 'sigmoid' or 'entmoid'")
        c = s.clamp(-2, 2)
        p = (c / 2 + (2 - c.square() / 4).sqrt()).square() / 4
    return restore(straight_through(p, s > 0) if hard else p, scores.dtype)


def leaf_membership(splits: Tensor) -> Tensor:
    r"""Where an input ends in a complete tree: for each leaf, the product along the path to it.

    .. math:: m_l = \prod_{i \text{ on the path to } l} s_i^{[\text{right}]} (1 - s_i)^{[\text{left}]}

    Args:
        splits: (..., 2^depth - 1), the chance of going right at each node, from the root level by
            level, each from left to right.

    Returns:
        Memberships (..., 2^depth), leaves from left to right; they sum to 1.

    Raises:
        ValueError: if the number of nodes is not that of a complete tree.
        TypeError: if splits are not floating-point.

    Source: ``marton2023grande``.

    Pitfall: with hard splits only nodes on the path have a gradient: what the leaf that is reached
    says, against the leaf that would be reached on the node's other side.

    Example:
        >>> leaf_membership(torch.tensor([1.0, 0.3, 0.6]))
        tensor([0.0000, 0.0000, 0.4000, 0.6000])
    """
    s = check_float(splits, "splits")
    nodes = s.shape[-1] if s.ndim else 0
    complete = nodes >= 1 and nodes & (nodes + 1) == 0
    require(complete, "the number of splits", nodes, "1, 3, 7, ..., that of a complete tree")
    reached = torch.ones_like(s[..., :1])
    while (width := reached.shape[-1]) <= nodes:
        right = s[..., width - 1 : 2 * width - 1]
        reached = torch.stack([reached * (1 - right), reached * right], -1).flatten(-2)
    return restore(reached, splits.dtype)


def leaf_weighted_mean(outputs: Tensor, leaf_scores: Tensor) -> Tensor:
    r"""The mean of the trees' outputs, each weighed by the leaf in which the input ended.

    .. math:: f(x) = \sum_e \frac{e^{\omega_e(x)}}{\sum_{e'} e^{\omega_{e'}(x)}} \, f_e(x), \qquad
        \omega_e(x) = \sum_l m_{el}(x) \, \omega_{el}

    Args:
        outputs: f, (N, E, C), what each of E trees says of each of N inputs.
        leaf_scores: :math:`\omega_e(x)`, (N, E).

    Returns:
        (N, C), in the dtype of the outputs.

    Raises:
        ValueError: on shapes that do not fit.
        TypeError: on tensors that are not floating-point.

    Source: ``marton2023grande``.

    Pitfall: the gradient of a tree is scaled by its weight. Where one tree wins early, the others
    learn little about these inputs.

    Example:
        >>> leaf_weighted_mean(torch.tensor([[[1.0], [3.0]]]), torch.tensor([[0.0, 9.0]]))
        tensor([[2.9998]])
    """
    f, w = check_float(outputs, "outputs"), check_float(leaf_scores, "leaf_scores")
    require(f.ndim == 3, "the shape of outputs", tuple(f.shape), "(N, E, C)")
    require_shape(leaf_scores, tuple(f.shape[:2]), "leaf_scores")
    weights = w.to(f.dtype).softmax(1).unsqueeze(2)
    return restore((weights * f).sum(1), outputs.dtype)


class TreeEnsemble(nn.Module):
    r"""An ensemble of hard, axis-aligned decision trees that is trained by gradient descent.

    .. math:: s_{ei}(x) = x_{j} - t_{eij}, \quad
        j = \arg\max_j \operatorname{entmax}_{1.5}(\text{selection}_{ei})_j

    Each node has a threshold for each feature and compares with that of the feature it looks at. The
    argmax and the splits are straight-through. Parameters start as normal numbers of deviation 0.05,
    the default of the initializer that the authors' code names.

    Args:
        features: D, at least 1.
        classes: C, at least 1, the number of outputs.
        trees: E, at least 1.
        depth: at least 1.
        kind: of :func:`soft_split`.
        hard: whether splits and choices of features are hard; else both are soft.
        instance_weights: whether leaves weigh the trees; else all weigh the same.
        generator: source of randomness; torch's own by default.

    Raises:
        ValueError: if a size is below 1, or on an unknown kind.

    Source: ``marton2023grande``.

    Pitfall: at the start all thresholds are near 0: an input far from there in all features, as raw
    ones are, sees all trees alike. The authors map features to normal quantiles.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        *,
        trees: int = 32,
        depth: int = 3,
        kind: str = "softsign",
        hard: bool = True,
        instance_weights: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        sizes = {"features": features, "classes": classes, "trees": trees, "depth": depth}
        for name, size in sizes.items():
            require(size >= 1, name, size, "at least 1")
        soft_split(torch.zeros(1), kind=kind)  # refuses an unknown kind
        self.kind, self.hard = kind, hard

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(0.05 * torch.randn(trees, *shape, generator=generator))

        nodes, leaves = 2**depth - 1, 2**depth
        self.selection = parameter(nodes, features)
        self.thresholds = parameter(nodes, features)
        self.values = parameter(leaves, classes)
        self.leaf_weights = parameter(leaves) if instance_weights else None

    def choices(self) -> Tensor:
        """Which feature each node looks at, (E, nodes, D)."""
        soft = entmax(self.selection, dim=-1)
        if not self.hard:
            return soft
        corner = torch.zeros_like(soft).scatter(-1, soft.argmax(-1, keepdim=True), 1)
        return straight_through(soft, corner)

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs (N, C), logits if trained as such, of inputs (N, D)."""
        x = check_float(inputs, "inputs")
        require(x.ndim == 2, "the shape of inputs", tuple(x.shape), "(N, D)")
        require_shape(inputs, (len(x), self.thresholds.shape[-1]), "inputs")
        choices = self.choices()
        seen = torch.einsum("nd,eid->nei", x.to(choices.dtype), choices)
        splits = soft_split(
            seen - (choices * self.thresholds).sum(-1), kind=self.kind, hard=self.hard
        )
        leaves = leaf_membership(splits)
        outputs = torch.einsum("nel,elc->nec", leaves, self.values)
        if self.leaf_weights is None:
            return outputs.mean(1)
        return leaf_weighted_mean(outputs, torch.einsum("nel,el->ne", leaves, self.leaf_weights))
