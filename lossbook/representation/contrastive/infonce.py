r"""One against many: losses that ask which of many embeddings belongs to an anchor.

Embeddings are compared by their direction: :math:`u_i = h_i / \|h_i\|`, and
:math:`s_{ij} = u_i^\top v_j / \tau` is the similarity of two of them at temperature :math:`\tau`. An
anchor :math:`u_i` has a positive :math:`v_i`, another view of the same thing; the embeddings of
other things are its negatives.

A loss never holds the matrix of all similarities of a large batch: memory grows with N, not with
N squared, while value, gradient and second derivatives stay those of the formula. With
``gather=True`` the batch is that of all ranks of ``torch.distributed``: the value is that of the
joined batch, and so are the gradients of the parameters once averaged over the ranks, as
``DistributedDataParallel`` does. Unreduced, a rank has the losses of its own anchors. A gathering
call meets the other ranks: all must make it, and a compiler breaks its graph there.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lossbook._contract import check_float, check_reduction, require, restore
from lossbook._distributed import everyone, reduce_everywhere, total
from lossbook._pairs import check_embeddings, groups, inner, log_sum_exp, over_rows, unit
from lossbook.representation.contrastive._batch import (
    both_views,
    check_labels,
    check_others,
    own_columns,
    pair,
)

__all__ = [
    "decoupled_contrastive_loss",
    "hard_contrastive_loss",
    "info_loob_loss",
    "info_nce_loss",
    "mutual_information_bound",
    "npc_multiplier",
    "nt_xent_loss",
    "relative_penalties",
    "supervised_contrastive_in_loss",
    "supervised_contrastive_loss",
    "tolerance",
    "weighted_decoupled_contrastive_loss",
]


# --- What the losses share --------------------------------------------------------------------


def _labeled(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Checks embeddings (N, D) with labels (N,) and gives the directions."""
    h = check_embeddings(embeddings, "embeddings")
    check_labels(labels, len(h))
    return unit(h)


def _check(temperature: float, reduction: str = "none") -> None:
    require(temperature > 0, "temperature", temperature, "positive")
    check_reduction(reduction)


def _two_views(
    anchor: Tensor, positive: Tensor, temperature: float, gather: bool
) -> tuple[Tensor, Tensor, int]:
    """What the symmetric losses of two views are made of: similarities s to the positive (N,), the

    log-sum-exp over the 2 (N - 1) negatives for both views (2, N), and N over all ranks.
    """
    u, v = pair(anchor, positive)
    z, keys, skip = both_views(u, v, gather)
    negatives = log_sum_exp(z / temperature, keys, skip) if len(z) else z.sum(1)
    return (u * v).sum(1) / temperature, negatives.view(2, -1), len(keys) // 2


# --- InfoNCE ----------------------------------------------------------------------------------


def info_nce_loss(
    anchor: Tensor,
    positive: Tensor,
    *,
    negatives: Tensor | None = None,
    temperature: float = 0.1,
    reduction: str = "mean",
    gather: bool = False,
) -> Tensor:
    r"""InfoNCE: classify which of many candidates is the anchor's positive.

    .. math:: L_i = -\log \frac{e^{s_{ii}}}{e^{s_{ii}} + \sum_{j} e^{s_{ij}}}

    in one direction: j runs over the positives of the other examples of the batch, or over
    ``negatives``, a set that all anchors share (a queue, a memory bank), if it is given.

    Args:
        anchor: (N, D), of any length; normalized here. A zero vector is as similar to all as
            orthogonal vectors are.
        positive: (N, D).
        negatives: (M, D), in place of the other examples' positives.
        temperature: positive; the paper uses learned bilinear scores, the default is ours.
        reduction: "none", "mean" or "sum".
        gather: whether other examples' positives are those of all ranks. Given ``negatives`` are
            taken as they are.

    Returns:
        The loss, a scalar in the dtype of the anchors, or (N,) unreduced; at least 0.

    Raises:
        ValueError: on shapes, or a temperature that is not positive.
        TypeError: if an argument is not floating-point.

    Source: ``vandenoord2018representation``.

    Pitfall: log(N) minus the loss bounds the mutual information of the two views, so a batch of N
    can never witness more than log(N) nats, however good the embeddings are.

    Example:
        >>> anchor = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> info_nce_loss(anchor, anchor, temperature=1.0)  # log(1 + 1 / e)
        tensor(0.3133)
    """
    u, v = pair(anchor, positive)
    _check(temperature, reduction)
    if negatives is None:
        keys, skip = everyone(v, gather), own_columns(v, gather)
    else:
        keys = unit(check_embeddings(negatives, "negatives", "(M, D)")).to(u.dtype)
        require(keys.shape[1] == u.shape[1], "the dimension of negatives", keys.shape[1], "D")
        require(len(keys) >= 1, "the number of negatives", len(keys), "at least 1")
        skip = torch.empty(len(u), 0, dtype=torch.int64, device=u.device)
    if len(u):
        others = log_sum_exp(u / temperature, keys, skip)
        losses = softplus(others - (u * v).sum(1) / temperature)
    else:
        losses = (u * v).sum(1)
    return reduce_everywhere(losses, torch.ones_like(losses), reduction, anchor.dtype, gather)


def nt_xent_loss(
    anchor: Tensor,
    positive: Tensor,
    *further_views: Tensor,
    temperature: float = 0.5,
    reduction: str = "mean",
    gather: bool = False,
) -> Tensor:
    r"""SimCLR's loss: both views are anchors, and all other embeddings of the batch are candidates.

    .. math:: L_{ip} = -\log \frac{e^{s_{ip}}}{\sum_{a \ne i} e^{s_{ia}}}

    averaged over all pairs (i, p) of different views of the same example; a runs over the V N
    embeddings of all V views but the anchor itself.

    Args:
        anchor: (N, D), of any length; normalized here.
        positive: (N, D), the second view of the same examples in the same order.
        further_views: (N, D) each, further views if there are more than two.
        temperature: positive.
        reduction: "none", "mean" or "sum", over the N examples.
        gather: whether the batch is that of all ranks.

    Returns:
        The loss, a scalar in the dtype of the anchors, or (N,) unreduced, each the mean over an
        example's pairs of views.

    Raises:
        ValueError: on shapes, or a temperature that is not positive.
        TypeError: if an argument is not floating-point.

    Source: ``chen2020simple``.

    Pitfall: the positive stands in the denominator too, so the force on a pair fades as soon as the
    batch is easy; see :func:`npc_multiplier`.

    Example:
        >>> anchor = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> nt_xent_loss(anchor, anchor, temperature=1.0)  # log(1 + 2 / e)
        tensor(0.5514)
    """
    _check(temperature, reduction)
    if not further_views:
        similarity, negatives, _ = _two_views(anchor, positive, temperature, gather)
        losses = softplus(negatives - similarity).mean(0)
    else:
        directions = [pair(anchor, other)[1] for other in (anchor, positive, *further_views)]
        views, example = len(directions), own_columns(anchor, gather).squeeze(1)
        z, labels = torch.cat(directions), example.repeat(views)
        losses, _ = _over_positives(z, labels, temperature, gather)
        losses = losses.view(views, -1).mean(0)
    return reduce_everywhere(losses, torch.ones_like(losses), reduction, anchor.dtype, gather)


def hard_contrastive_loss(
    anchor: Tensor,
    positive: Tensor,
    *,
    temperature: float = 1.0,
    share: float = 0.1,
    reduction: str = "mean",
    gather: bool = False,
) -> Tensor:
    r"""InfoNCE against the hardest negatives alone: selection in place of a small temperature.

    .. math:: L_i = -\log \frac{e^{s_{ii}}}{e^{s_{ii}} + \sum_{j \in H(i)} e^{s_{ij}}}

    where H(i) holds the share of the other examples' positives most similar to the anchor, at
    least one of them.

    Args:
        anchor: (N, D), of any length; normalized here.
        positive: (N, D).
        temperature: positive.
        share: in (0, 1], the part of the negatives that is kept; the default is ours.
        reduction: "none", "mean" or "sum".
        gather: whether negatives come from all ranks.

    Returns:
        The loss, a scalar in the dtype of the anchors, or (N,) unreduced.

    Raises:
        ValueError: on shapes, or a hyperparameter out of range.
        TypeError: if an argument is not floating-point.

    Source: ``wang2020understanding``.

    Pitfall: the hardest negatives are where unlabeled examples of the anchor's own class are.
    """
    u, v = pair(anchor, positive)
    _check(temperature, reduction)
    require(0 < share <= 1, "share", share, "in (0, 1]")
    keys, own = everyone(v, gather), own_columns(v, gather)
    number = min(len(keys) - 1, max(1, math.ceil(share * (len(keys) - 1))))

    def hardest(rows: Tensor, itself: Tensor) -> Tensor:
        similarity = inner(rows, keys).scatter(1, itself, torch.finfo(rows.dtype).min)
        return similarity.topk(number, 1).values.logsumexp(1)

    similarity = (u * v).sum(1) / temperature
    if number < 1:  # no others: nothing to tell apart
        losses = 0 * similarity
    else:
        losses = softplus(over_rows(hardest, len(keys), u / temperature, own) - similarity)
    return reduce_everywhere(losses, torch.ones_like(losses), reduction, anchor.dtype, gather)


# --- Without the positive in the denominator --------------------------------------------------


def decoupled_contrastive_loss(
    anchor: Tensor,
    positive: Tensor,
    *,
    temperature: float = 0.1,
    reduction: str = "mean",
    gather: bool = False,
) -> Tensor:
    r"""Decoupled contrastive loss (DCL): NT-Xent without the positive in the denominator.

    .. math:: L_i = -s_{ii} + \log \sum_{j \ne i} \bigl(e^{s_{ij}} + e^{s'_{ij}}\bigr)

    with s and s' the similarities to both views of the other examples, averaged over both views as
    anchors. (The paper adds the two.)

    Args:
        anchor: (N, D), N at least 2, of any length; normalized here.
        positive: (N, D), the second view.
        temperature: positive.
        reduction: "none", "mean" or "sum".
        gather: whether the batch is that of all ranks.

    Returns:
        The loss, a scalar in the dtype of the anchors, or (N,) unreduced; it may be negative.

    Raises:
        ValueError: on shapes, a single example, or a temperature that is not positive.
        TypeError: if an argument is not floating-point.

    Source: ``yeh2021decoupled``.

    Pitfall: nothing bounds it from below but the temperature, as there is no perfect answer any
    more; its value says little by itself.
    """
    _check(temperature, reduction)
    similarity, negatives, number = _two_views(anchor, positive, temperature, gather)
    check_others(number)
    losses = negatives.mean(0) - similarity
    return reduce_everywhere(losses, torch.ones_like(losses), reduction, anchor.dtype, gather)


def weighted_decoupled_contrastive_loss(
    anchor: Tensor,
    positive: Tensor,
    *,
    temperature: float = 0.1,
    sigma: float = 0.5,
    reduction: str = "mean",
    gather: bool = False,
) -> Tensor:
    r"""DCL with weights that pull pairs harder that are farther apart (DCLW).

    .. math:: L_i = -w_i s_{ii} + \log \sum_{j \ne i} \bigl(e^{s_{ij}} + e^{s'_{ij}}\bigr),
        \qquad w_i = 2 - \frac{e^{u_i \cdot v_i / \sigma}}
            {\operatorname{mean}_j e^{u_j \cdot v_j / \sigma}}

    The weights average to one; the gradient passes through them.

    Args:
        anchor: (N, D), N at least 2, of any length; normalized here.
        positive: (N, D), the second view.
        temperature: positive.
        sigma: positive; large ones weigh all pairs alike.
        reduction: "none", "mean" or "sum".
        gather: whether the batch is that of all ranks.

    Returns:
        The loss, a scalar in the dtype of the anchors, or (N,) unreduced; it may be negative.

    Raises:
        ValueError: on shapes, a single example, or a hyperparameter that is not positive.
        TypeError: if an argument is not floating-point.

    Source: ``yeh2021decoupled``.

    Pitfall: a weight is negative, and its pair pushed apart, when it is more than twice as close as
    the mean on the scale of the exponential.
    """
    _check(temperature, reduction)
    require(sigma > 0, "sigma", sigma, "positive")
    similarity, negatives, number = _two_views(anchor, positive, temperature, gather)
    check_others(number)
    closeness = ((temperature * similarity - 1) / sigma).exp()
    mean = total(closeness.sum(), gather) / number if number else closeness.sum()
    weight = 2 - closeness / mean.clamp(min=torch.finfo(mean.dtype).tiny)
    losses = negatives.mean(0) - weight * similarity
    return reduce_everywhere(losses, torch.ones_like(losses), reduction, anchor.dtype, gather)


def info_loob_loss(
    anchor: Tensor,
    positive: Tensor,
    *,
    temperature: float = 1 / 30,
    reduction: str = "mean",
    gather: bool = False,
) -> Tensor:
    r"""InfoLOOB: InfoNCE that leaves the positive out of the bound, in both directions.

    .. math:: L_i = -2 s_{ii} + \log \sum_{j \ne i} e^{s_{ij}} + \log \sum_{j \ne i} e^{s_{ji}}

    Anchors meet the positives of other examples and positives their anchors: the two may come from
    two encoders, of images and of text, say.

    Args:
        anchor: (N, D), N at least 2, of any length; normalized here.
        positive: (N, D).
        temperature: positive.
        reduction: "none", "mean" or "sum".
        gather: whether the batch is that of all ranks.

    Returns:
        The loss, a scalar in the dtype of the anchors, or (N,) unreduced; it may be negative.

    Raises:
        ValueError: on shapes, a single example, or a temperature that is not positive.
        TypeError: if an argument is not floating-point.

    Source: ``furst2021cloob``.

    Pitfall: the released code multiplies by the temperature, which the paper does not; a step size
    tuned for the one is wrong for the other.
    """
    u, v = pair(anchor, positive)
    _check(temperature, reduction)
    keys, own = (everyone(u, gather), everyone(v, gather)), own_columns(u, gather)
    check_others(len(keys[0]))
    losses = -2 * (u * v).sum(1) / temperature
    if len(u):
        losses = losses + log_sum_exp(u / temperature, keys[1], own)
        losses = losses + log_sum_exp(v / temperature, keys[0], own)
    return reduce_everywhere(losses, torch.ones_like(losses), reduction, anchor.dtype, gather)


# --- Many positives ---------------------------------------------------------------------------


def _over_positives(
    u: Tensor, labels: Tensor, temperature: float, gather: bool
) -> tuple[Tensor, Tensor]:
    """For each anchor the mean over its positives of the loss outside the logarithm, and their number.

    The mean similarity to all positives is the similarity to their mean, so no pairs are needed.
    """
    keys, own = everyone(u, gather), own_columns(u, gather)
    if not len(u):
        return u.sum(1), u.sum(1)
    group = groups(everyone(labels, gather))
    mine = group[own.squeeze(1)]
    sums = torch.zeros_like(keys).index_add(0, group, keys)[mine] - u
    number = (torch.zeros_like(keys[:, 0]).index_add(0, group, torch.ones_like(keys[:, 0])))[mine]
    number = number - 1
    similarity = (u * sums).sum(1) / (temperature * number.clamp(min=1))
    losses = log_sum_exp(u / temperature, keys, own) - similarity
    return losses.where(number > 0, 0), number


def supervised_contrastive_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    temperature: float = 0.1,
    reduction: str = "mean",
    gather: bool = False,
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
        gather: whether the batch is that of all ranks.

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
    u = _labeled(embeddings, labels)
    _check(temperature, reduction)
    losses, number = _over_positives(u, labels, temperature, gather)
    counted = (number > 0).to(u.dtype)
    return reduce_everywhere(losses, counted, reduction, embeddings.dtype, gather)


def supervised_contrastive_in_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    temperature: float = 0.1,
    reduction: str = "mean",
    gather: bool = False,
) -> Tensor:
    r"""Supervised contrastive loss with the average over positives *inside* the logarithm ("in").

    .. math:: L_i = -\log \biggl( \frac{1}{|P(i)|} \sum_{p \in P(i)}
        \frac{e^{s_{ip}}}{\sum_{a \ne i} e^{s_{ia}}} \biggr)

    By Jensen's inequality at most :func:`supervised_contrastive_loss`, which the paper found to
    train better: here the nearest positive does most of the pulling.

    Args:
        embeddings: (N, D), of any length; they are normalized here.
        labels: (N,), int64, the classes.
        temperature: positive.
        reduction: "none", "mean" (over the anchors that have a positive) or "sum".
        gather: whether the batch is that of all ranks.

    Returns:
        The loss, a scalar in the dtype of the embeddings, or (N,) unreduced.

    Raises:
        ValueError: on shapes, or a temperature that is not positive.
        TypeError: on embeddings or labels of the wrong dtype.

    Source: ``khosla2020supervised``.

    Pitfall: a positive that is far away is not pulled, as one that is near already explains the
    label.

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> supervised_contrastive_in_loss(embeddings, labels, temperature=1.0)  # log(1 + 2 / e)
        tensor(0.5514)
    """
    u = _labeled(embeddings, labels)
    _check(temperature, reduction)
    keys, own = everyone(u, gather), own_columns(u, gather)
    classes = everyone(labels, gather)
    lowest = torch.finfo(u.dtype).min

    def share_of_positives(rows: Tensor, itself: Tensor, label: Tensor) -> Tensor:
        """(n, 2): minus the log of the mean share of a positive, and the number of them."""
        similarity = inner(rows, keys).scatter(1, itself, lowest)
        positive = (label[:, None] == classes).scatter(1, itself, False)
        number = positive.sum(1)
        of_positives = similarity.masked_fill(~positive, lowest).logsumexp(1)
        losses = similarity.logsumexp(1) - of_positives + number.clamp(min=1).log()
        return torch.stack([losses.where(number > 0, 0), number.to(losses.dtype)], 1)

    if len(u):
        of_rows = over_rows(share_of_positives, 2 * len(keys), u / temperature, own, labels)
        losses, number = of_rows.unbind(1)
    else:
        losses = number = u.sum(1)
    counted = (number > 0).to(u.dtype)
    return reduce_everywhere(losses, counted, reduction, embeddings.dtype, gather)


# --- What the losses do -----------------------------------------------------------------------


def relative_penalties(similarity: Tensor, *, temperature: float = 0.1) -> Tensor:
    r"""How an anchor's push is shared among its negatives.

    .. math:: r_{ij} = \frac{e^{s_{ij}}}{\sum_{k \ne i} e^{s_{ik}}}

    In every loss of this module the force on a negative is this share of the force on all of them,
    and they together are pushed as hard as the positive is pulled. A temperature near zero pushes
    the hardest negative alone, a large one all alike.

    Args:
        similarity: (..., M), cosines of an anchor with its negatives.
        temperature: positive.

    Returns:
        (..., M), summing to one, in the dtype of the similarity.

    Raises:
        ValueError: if the temperature is not positive.
        TypeError: if the similarity is not floating-point.

    Source: ``wang2020understanding``.

    Pitfall: the positive is not among the columns.

    Example:
        >>> relative_penalties(torch.tensor([0.9, 0.1]), temperature=0.1)
        tensor([9.9966e-01, 3.3535e-04])
    """
    cosines = check_float(similarity, "similarity")
    _check(temperature)
    return restore((cosines / temperature).softmax(-1), similarity.dtype)


def npc_multiplier(anchor: Tensor, positive: Tensor, *, temperature: float = 0.1) -> Tensor:
    r"""Negative-positive coupling: the factor by which NT-Xent damps all forces of an anchor.

    .. math:: q_i = 1 - \frac{e^{s_{ii}}}{e^{s_{ii}} + \sum_{j \ne i} (e^{s_{ij}} + e^{s'_{ij}})}

    Gradients of :func:`nt_xent_loss` are those of :func:`decoupled_contrastive_loss` times q. Small
    batches and close positives make it small.

    Args:
        anchor: (N, D), of any length; normalized here.
        positive: (N, D), the second view.
        temperature: positive.

    Returns:
        (2, N), in [0, 1], with the first view as anchors and with the second.

    Raises:
        ValueError: on shapes, or a temperature that is not positive.
        TypeError: if an argument is not floating-point.

    Source: ``yeh2021decoupled``.

    Pitfall: it is the *mean* of q over a batch that scales a step; a few hard anchors may have all
    of it.
    """
    _check(temperature)
    similarity, negatives, _ = _two_views(anchor, positive, temperature, gather=False)
    return restore((negatives - similarity).sigmoid(), anchor.dtype)


def tolerance(embeddings: Tensor, labels: Tensor) -> Tensor:
    r"""How near examples of the same class stay: the mean cosine within classes.

    .. math:: T = \operatorname{mean}_{i \ne j :\, y_i = y_j} u_i^\top u_j

    Over pairs of different examples, each ordered pair alike. (The paper writes an expectation over
    all pairs of :math:`u^\top v\, 1[y = y']`, which is this times the share of such pairs.)

    Args:
        embeddings: (N, D), of any length; normalized here.
        labels: (N,), int64, the classes.

    Returns:
        A scalar in [-1, 1]; 0 if no two examples share a class.

    Raises:
        ValueError: on shapes.
        TypeError: on embeddings or labels of the wrong dtype.

    Source: ``wang2020understanding``.

    Pitfall: a collapsed representation has the highest tolerance there is; read it beside
    :func:`~lossbook.representation.hypersphere.uniformity_loss`.
    """
    u = _labeled(embeddings, labels)
    group = groups(labels)
    sums = torch.zeros_like(u).index_add(0, group, u)
    counts = torch.zeros_like(u[:, 0]).index_add(0, group, torch.ones_like(u[:, 0]))
    pairs = (counts * (counts - 1)).sum()
    within = sums.square().sum() - u.square().sum()
    return restore(within / pairs.clamp(min=1), embeddings.dtype)


def mutual_information_bound(loss: Tensor, candidates: int) -> Tensor:
    r"""What an InfoNCE loss says about the mutual information of the two views, in nats.

    .. math:: I(x; y) \ge \log K - L

    with K candidates, the positive among them, of which K - 1 are drawn independently.

    Args:
        loss: mean InfoNCE losses, of any shape.
        candidates: K, at least 2.

    Returns:
        Lower bounds of the shape of the loss, never above log K.

    Raises:
        ValueError: for fewer than two candidates.
        TypeError: if the loss is not floating-point.

    Source: ``poole2019variational``.

    Pitfall: it holds in expectation; one batch can exceed the information, though never log K.
    """
    value = check_float(loss, "loss")
    require(candidates >= 2, "candidates", candidates, "at least 2")
    return restore(math.log(candidates) - value, loss.dtype)
