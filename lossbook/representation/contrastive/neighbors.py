r"""Everything is a neighbor distribution: one divergence from which many losses come out.

A neighbor graph is a matrix of scores (N, M): how much column j is a neighbor of row i. A softmax of
each row makes it the distribution of the neighbors of i; a score of minus infinity says that j is
never one. The functions that end in ``_neighbors`` make such scores, and :func:`icon_loss` is the
divergence between two of them: what is wanted, and what a network has. Scores are float32 at least,
because half precision would round similarities divided by a small temperature. They are dense:
memory is that of N times M numbers.

Where rows and columns are the same points no point is its own neighbor: the functions then take one
set and put minus infinity on the diagonal. Given a second set, even an equal one, they leave it.
"""

import math

import torch
from torch import Tensor, nn

from lossbook._contract import (
    check_float,
    check_reduction,
    is_concrete,
    reduce,
    require,
    require_shape,
    restore,
)
from lossbook._pairs import check_embeddings, inner, log_sum_exp, over_rows, unit
from lossbook.representation.contrastive._batch import check_labels

__all__ = [
    "MemoryBank",
    "cluster_neighbors",
    "cosine_neighbors",
    "debias_neighbors",
    "gaussian_neighbors",
    "icon_loss",
    "instance_nce_loss",
    "label_neighbors",
    "nearest_neighbors",
    "perplexity_bandwidth",
    "student_neighbors",
    "walk_neighbors",
]


# --- The divergence -----------------------------------------------------------------------------


def icon_loss(learned: Tensor, supervisory: Tensor, *, reduction: str = "mean") -> Tensor:
    r"""Mean divergence from the wanted distribution of neighbors to the learned one.

    .. math:: L_i = \sum_j p(j \mid i) \log \frac{p(j \mid i)}{q(j \mid i)},
        \qquad q = \operatorname{softmax}(\text{learned}),\;
        p = \operatorname{softmax}(\text{supervisory})

    Its gradient with respect to the learned scores is q - p. A cross-entropy, such as InfoNCE, is
    this plus the entropy of p, which is zero where p has one neighbor and a constant where p is not
    learned. A row whose supervisory scores are all minus infinity has no neighbor: its loss is 0
    and it does not count in the mean.

    Args:
        learned: (N, M), scores or log-probabilities; the softmax over each row is taken here.
        supervisory: (N, M), scores or log-probabilities of what is wanted; gradients flow here too.
        reduction: "none", "mean" (over the rows that have a neighbor) or "sum".

    Returns:
        The loss, a scalar in the dtype of the learned scores, or (N,) unreduced.

    Raises:
        ValueError: on shapes, or an unknown reduction.
        TypeError: if an argument is not floating-point.

    Source: ``alshammari2025icon``.

    Pitfall: it is infinite where p has a neighbor that q excludes. Exclude the diagonal in both or
    in neither.

    Example:
        >>> wanted = torch.tensor([[0.0, 0.0]])  # two neighbors, equally likely
        >>> icon_loss(torch.tensor([[1.0, 0.0]]).mul(3).log(), wanted)  # log 0: one is excluded
        tensor(inf)
        >>> icon_loss(torch.tensor([[3.0, 1.0]]).log(), wanted)  # -log(3 / 4) / 2
        tensor(0.1438)
    """
    scores, goal = _check_scores(learned, "learned"), _check_scores(supervisory, "supervisory")
    require_shape(supervisory, tuple(learned.shape), "supervisory")
    check_reduction(reduction)
    has_neighbor = (goal > -math.inf).any(1)
    log_p = goal.where(has_neighbor[:, None], 0).log_softmax(1)
    possible = log_p > -math.inf  # elsewhere p log p is zero, not the nan of 0 * inf
    gap = log_p.where(possible, 0) - scores.log_softmax(1).where(possible, 0)
    losses = (log_p.exp() * gap).sum(1).where(has_neighbor, 0)
    return reduce(losses, has_neighbor.to(losses.dtype), reduction, learned.dtype)


def _check_scores(scores: Tensor, name: str) -> Tensor:
    values = check_float(scores, name)
    shape = tuple(values.shape)
    require(values.ndim == 2 and shape[-1] >= 1, f"the shape of {name}", shape, "(N, M), M >= 1")
    return values


def _check_graph(scores: Tensor) -> Tensor:
    """Checks for a graph of points among themselves."""
    values = _check_scores(scores, "scores")
    require(
        values.shape[0] == values.shape[1], "the shape of scores", tuple(values.shape), "(N, N)"
    )
    return values


def _pair(points: Tensor, others: Tensor | None, name: str) -> tuple[Tensor, Tensor]:
    x = check_embeddings(points, name)
    if others is None:
        return x, x
    y = check_embeddings(others, "others")
    require(x.shape[1] == y.shape[1], "the shape of others", tuple(y.shape), f"(M, {x.shape[1]})")
    return x, y


def _without_itself(scores: Tensor, others: Tensor | None) -> Tensor:
    if others is not None:
        return scores
    itself = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    return scores.masked_fill(itself, -math.inf)


def _squares(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances (N, M), from differences: near points are not lost to cancellation."""
    return over_rows(lambda rows: (rows[:, None] - y).square().sum(2), y.numel(), x)


# --- Graphs that embeddings have ----------------------------------------------------------------


def cosine_neighbors(
    embeddings: Tensor, others: Tensor | None = None, *, temperature: float = 0.5
) -> Tensor:
    r"""Neighbors by direction: the graph that contrastive learning learns.

    .. math:: s_{ij} = \frac{u_i^\top v_j}{\tau}, \qquad u = \frac{h}{\|h\|}

    On the sphere it is the Gaussian kernel of bandwidth :math:`\sqrt\tau`.

    Args:
        embeddings: (N, D), of any length; a zero vector is as near to all.
        others: (M, D), if the columns are not the same points: prototypes, the other view.
        temperature: positive.

    Returns:
        Scores (N, M).

    Raises:
        ValueError: on shapes, or a temperature that is not positive.
        TypeError: if an argument is not floating-point.

    Source: ``alshammari2025icon``.

    Pitfall: cosines end at one, so with M columns no neighbor can have a share above
    1 / (1 + (M - 1) exp(-2 / temperature)).

    Example:
        >>> axes = torch.eye(2)
        >>> cosine_neighbors(axes, 3 * axes, temperature=0.1).softmax(1)
        tensor([[9.9995e-01, 4.5398e-05],
                [4.5398e-05, 9.9995e-01]])
    """
    require(temperature > 0, "temperature", temperature, "positive")
    h, g = _pair(embeddings, others, "embeddings")
    return _without_itself(inner(unit(h) / temperature, unit(g)), others)


def gaussian_neighbors(
    points: Tensor, others: Tensor | None = None, *, bandwidth: float | Tensor = 1.0
) -> Tensor:
    r"""Neighbors by distance, with a Gaussian kernel: the graph of SNE.

    .. math:: s_{ij} = -\frac{\|x_i - y_j\|^2}{2 \sigma_i^2}

    Args:
        points: (N, D).
        others: (M, D), if the columns are not the same points.
        bandwidth: positive, a number or one for each row, (N,). SNE has those of
            :func:`perplexity_bandwidth` in p, and in q the root of 1/2.

    Returns:
        Scores (N, M).

    Raises:
        ValueError: on shapes, or a bandwidth that is not positive.
        TypeError: if an argument is not floating-point.

    Source: ``hinton2002stochastic``.

    Pitfall: in many dimensions all distances are alike, and a bandwidth that is a little too small
    gives each point one neighbor, a little too large all points.

    Example:
        >>> gaussian_neighbors(torch.tensor([[0.0], [1.0], [3.0]])).softmax(1)[0]
        tensor([0.0000, 0.9820, 0.0180])
    """
    x, y = _pair(points, others, "points")
    if isinstance(bandwidth, Tensor):
        require_shape(bandwidth, tuple(x.shape[:1]), "bandwidth")
        bandwidth = bandwidth[:, None]
        positive = not is_concrete(bandwidth) or bool((bandwidth > 0).all())
    else:
        positive = bandwidth > 0
    require(positive, "bandwidth", bandwidth, "positive")
    return _without_itself(-_squares(x, y) / (2 * bandwidth**2), others)


def student_neighbors(
    points: Tensor, others: Tensor | None = None, *, degrees: float = 1.0
) -> Tensor:
    r"""Neighbors by distance, with Student's kernel: the graph that t-SNE learns.

    .. math:: s_{ij} = -\frac{\nu + 1}{2} \log\Bigl(1 + \frac{\|x_i - y_j\|^2}{\nu}\Bigr)

    t-SNE does not normalize rows but all pairs together: it is :func:`icon_loss` of the scores
    written out in one row.

    Args:
        points: (N, D).
        others: (M, D), if the columns are not the same points.
        degrees: positive, the degrees of freedom; one in t-SNE.

    Returns:
        Scores (N, M).

    Raises:
        ValueError: on shapes, or degrees that are not positive.
        TypeError: if an argument is not floating-point.

    Source: ``vandermaaten2008visualizing``.

    Pitfall: far away the kernel is nearly flat. How far apart two clusters come to lie in the plane
    says little.

    Example:
        >>> student_neighbors(torch.tensor([[0.0], [1.0], [3.0]])).softmax(1)[0]
        tensor([0.0000, 0.8333, 0.1667])
    """
    require(degrees > 0, "degrees", degrees, "positive")
    x, y = _pair(points, others, "points")
    return _without_itself(-(degrees + 1) / 2 * (_squares(x, y) / degrees).log1p(), others)


def cluster_neighbors(assignments: Tensor, others: Tensor | None = None) -> Tensor:
    r"""Neighbors by cluster: a walk to a cluster of i, and from there to one of its members.

    .. math:: s_{ij} = \log \sum_c \pi_{ic} \frac{\pi_{jc}}{\sum_k \pi_{kc}},
        \qquad \pi = \operatorname{softmax}(\text{assignments})

    Large clusters have many members and give each a small share, so the graph asks for balance.

    Args:
        assignments: (N, C), logits of the clusters of each point.
        others: (M, C), if the columns are not the same points.

    Returns:
        Scores (N, M). Whole rows sum to one before the diagonal is taken out.

    Raises:
        ValueError: on shapes.
        TypeError: if an argument is not floating-point.

    Source: ``alshammari2025icon``.

    Pitfall: clusters are nobody's classes. They come out in any order, and one may stay empty.

    Example:
        >>> assignments = torch.tensor([[9.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
        >>> cluster_neighbors(assignments).softmax(1)[0]
        tensor([0.0000e+00, 9.9963e-01, 3.7005e-04])
    """
    logits, members = _pair(assignments, others, "assignments")
    to_cluster, from_cluster = logits.log_softmax(1), members.log_softmax(1).log_softmax(0)
    scores = over_rows(
        lambda rows: (rows[:, None] + from_cluster).logsumexp(2), from_cluster.numel(), to_cluster
    )
    return _without_itself(scores, others)


# --- Graphs that are wanted ---------------------------------------------------------------------


def label_neighbors(labels: Tensor, others: Tensor | None = None) -> Tensor:
    r"""All with the same label, equally likely: of supervised contrast, of views, and of classes.

    .. math:: s_{ij} = 0 \text{ where } y_i = y_j, \text{ else } {-\infty}

    With the index of an example as the label of each of its views it is what SimCLR wants; with the
    numbers of all classes as others, what cross-entropy wants.

    Args:
        labels: (N,), int64.
        others: (M,), int64, if the columns are not the same points.

    Returns:
        Scores (N, M), float32. A row without a match is all minus infinity.

    Raises:
        ValueError: on shapes.
        TypeError: if labels are not int64.

    Source: ``alshammari2025icon``.

    Pitfall: a softmax of a row without a match is nan; :func:`icon_loss` leaves such rows out.

    Example:
        >>> label_neighbors(torch.tensor([0, 0, 0, 1, 1])).softmax(1)[0]
        tensor([0.0000, 0.5000, 0.5000, 0.0000, 0.0000])
    """
    columns = labels if others is None else others
    for name, given in {"labels": labels, "others": columns}.items():
        if not isinstance(given, Tensor) or given.dtype != torch.int64:
            raise TypeError(f"{name} must be an int64 tensor, got {getattr(given, 'dtype', given)}")
        require(given.ndim == 1, f"the shape of {name}", tuple(given.shape), "(N,)")
    same = labels[:, None] == columns
    never = torch.full((), -math.inf, device=labels.device)
    return _without_itself(never.where(~same, 0.0), others)


def nearest_neighbors(points: Tensor, others: Tensor | None = None, *, number: int = 10) -> Tensor:
    r"""The nearest few, equally likely.

    .. math:: s_{ij} = 0 \text{ where } y_j \text{ is among the } k \text{ nearest of } x_i,
        \text{ else } {-\infty}

    Args:
        points: (N, D). No gradient flows to them.
        others: (M, D), if the columns are not the same points.
        number: at least 1, of neighbors; less than N where the points are the same.

    Returns:
        Scores (N, M).

    Raises:
        ValueError: on shapes, or a number out of range.
        TypeError: if an argument is not floating-point.

    Source: ``alshammari2025icon``.

    Pitfall: the graph has a direction. A remote point has neighbors, and may be nobody's.

    Example:
        >>> nearest_neighbors(torch.tensor([[0.0], [1.0], [3.0]]), number=1)
        tensor([[-inf, 0., -inf],
                [0., -inf, -inf],
                [-inf, 0., -inf]])
    """
    with torch.no_grad():
        near = gaussian_neighbors(points, others)
        most = near.shape[1] - (others is None)
        require(1 <= number <= most, "number", number, f"at least 1 and at most {most}")
        chosen = near.topk(number, 1).indices
        return torch.full_like(near, -math.inf).scatter(1, chosen, 0.0)


def debias_neighbors(scores: Tensor, *, alpha: float, itself: bool = False) -> Tensor:
    r"""A share of every neighborhood spread evenly over all: label smoothing, for neighbors.

    .. math:: \tilde p(j \mid i) = (1 - \alpha)\, p(j \mid i) + \frac{\alpha}{M'}

    where M' counts the columns without the point itself. (The paper writes :math:`\alpha / N`; as
    no point is its own neighbor we spread over N - 1.) Mixed into p it allows for neighbors that
    the graph has missed; mixed into q it keeps the loss below :math:`\log(M' / \alpha)`.

    Args:
        scores: (N, M), square unless ``itself``. Every row has a possible neighbor.
        alpha: in [0, 1], the share.
        itself: whether the diagonal gets a share too, as where columns are not the same points.

    Returns:
        Scores (N, M), log-probabilities.

    Raises:
        ValueError: on shapes, or an alpha out of range.
        TypeError: if scores are not floating-point.

    Source: ``alshammari2025icon``.

    Pitfall: it also spreads to those that are rightly no neighbors, most of all.

    Example:
        >>> debias_neighbors(label_neighbors(torch.tensor([0, 0, 1, 1])), alpha=0.3).exp()[0]
        tensor([0.0000, 0.8000, 0.1000, 0.1000])
    """
    require(0 <= alpha <= 1, "alpha", alpha, "in [0, 1]")
    values = _check_scores(scores, "scores") if itself else _check_graph(scores)
    if alpha == 0:
        return values.log_softmax(1)
    columns = values.shape[1] - (not itself)
    mixed = ((1 - alpha) * values.softmax(1) + alpha / columns).log()
    return _without_itself(mixed, values if itself else None)


def walk_neighbors(scores: Tensor, *, steps: int) -> Tensor:
    r"""Neighbors of neighbors: where a walk of at most so many steps ends.

    .. math:: \tilde P \propto P + P^2 + \dots + P^k

    without the diagonal: a walk that has come back does not count. The paper extends neighborhoods
    by walks on a graph of nearest neighbors; that all lengths weigh the same is our choice.

    Args:
        scores: (N, N). Every row has a possible neighbor.
        steps: at least 1, the longest walk k.

    Returns:
        Scores (N, N); minus infinity where no walk leads.

    Raises:
        ValueError: on shapes, or steps out of range.
        TypeError: if scores are not floating-point.

    Source: ``alshammari2025icon``.

    Pitfall: long walks forget where they began and end at points that many lead to.

    Example:
        >>> chain = nearest_neighbors(torch.tensor([[0.0], [1.0], [3.0]]), number=1)
        >>> walk_neighbors(chain, steps=2).softmax(1)[2]  # by way of 1, half the walks go on to 0
        tensor([0.5000, 0.5000, 0.0000])
    """
    require(steps >= 1, "steps", steps, "at least 1")
    step = _check_graph(scores).softmax(1)
    total = end = step
    for _ in range(steps - 1):
        end = end @ step
        total = total + end
    return _without_itself(total.where(total > 0, 1).log().where(total > 0, -math.inf), None)


@torch.no_grad()
def perplexity_bandwidth(points: Tensor, *, perplexity: float = 30.0) -> Tensor:
    r"""Bandwidths at which each point has, in effect, so many neighbors.

    .. math:: \sigma_i: \quad \exp\Bigl(-\sum_j p(j \mid i) \log p(j \mid i)\Bigr) = k,
        \qquad p = \operatorname{softmax}\bigl(-\|x_i - x_j\|^2 / 2 \sigma_i^2\bigr)

    found by bisection, without gradient.

    Args:
        points: (N, D), N at least 3.
        perplexity: above 1 and less than N - 1.

    Returns:
        (N,), for :func:`gaussian_neighbors`, in the dtype of the points, at least float32.

    Raises:
        ValueError: on shapes, or a perplexity out of range.
        TypeError: if points are not floating-point.

    Source: ``hinton2002stochastic``.

    Pitfall: a point with more duplicates than the perplexity has no such bandwidth; it gets a very
    small one.

    Example:
        >>> x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
        >>> p = gaussian_neighbors(x, bandwidth=perplexity_bandwidth(x, perplexity=10)).softmax(1)
        >>> torch.special.entr(p).sum(1).exp()[:3]
        tensor([10.0000, 10.0000, 10.0000])
    """
    x = check_embeddings(points, "points")
    most = len(x) - 1
    require(1 < perplexity < most, "perplexity", perplexity, f"above 1 and less than {most}")
    squares = _squares(x, x)
    scale = squares.sum(1).div(most).clamp(min=torch.finfo(x.dtype).tiny).sqrt()
    low, high = torch.full_like(scale, -10.0), torch.full_like(scale, 10.0)  # of log(sigma / scale)
    for _ in range(40):
        middle = (low + high) / 2
        exponents = -squares / (2 * (scale * middle.exp()).square())[:, None]
        p = _without_itself(exponents, None).softmax(1)
        wide = torch.special.entr(p).sum(1) > math.log(perplexity)
        low, high = low.where(wide, middle), middle.where(wide, high)
    return scale * ((low + high) / 2).exp()


# --- Every example its own class ----------------------------------------------------------------


def instance_nce_loss(
    anchor: Tensor,
    positive: Tensor,
    *,
    noise: Tensor,
    number: int,
    log_partition: Tensor | None = None,
    temperature: float = 0.07,
    reduction: str = "mean",
) -> Tensor:
    r"""Noise-contrastive estimate of a softmax over all instances: is it mine, or drawn at random?

    .. math:: L = -\log h(u^\top v) - \sum_{k=1}^m \log\bigl(1 - h(u^\top w_k)\bigr), \qquad
        h(s) = \frac{P}{P + m / n}, \quad P = \frac{e^{s / \tau}}{Z}

    Among m draws from n instances each is expected m / n times, so h is the probability that an
    instance came from the model. It is a logistic loss: h is the sigmoid of
    :math:`s / \tau - \log(Z m / n)`. In the mean its gradient tends to that of the softmax as m
    grows, if Z is right.

    Args:
        anchor: (N, D), embeddings, of any length.
        positive: (N, D), the memory of the same instances.
        noise: (M, D), the memory of m instances drawn uniformly with replacement, the same for all
            anchors, or (N, M, D). One's own may be among them.
        number: at least 1, n, of all instances.
        log_partition: logarithm of Z, a scalar, any sign. If not given it is estimated from the
            noise of this batch, log(n mean exp(s / tau)), without gradient; the paper does so in
            the first batch, and then keeps it. (The released code counts the positive in the mean.)
        temperature: positive.
        reduction: "none", "mean" or "sum".

    Returns:
        The loss, a scalar in the dtype of the anchors, or (N,) unreduced.

    Raises:
        ValueError: on shapes, or a number or temperature out of range.
        TypeError: if an argument is not floating-point.

    Source: ``wu2018unsupervised``.

    Pitfall: an old Z is wrong for new embeddings. Too small it makes all instances look
    sure, and noise pushes hard; too large, and noise hardly pushes at all.
    """
    h, g = check_embeddings(anchor, "anchor"), check_embeddings(positive, "positive")
    require_shape(positive, tuple(anchor.shape), "positive")
    w = check_float(noise, "noise")
    shared = w.ndim == 2 and w.shape[1:] == h.shape[1:]
    own = w.ndim == 3 and (w.shape[0], w.shape[2]) == h.shape
    require(shared or own, "the shape of noise", tuple(w.shape), "(M, D) or (N, M, D) as in anchor")
    require(w.shape[-2] >= 1, "the number of rows of noise", w.shape[-2], "at least 1")
    require(number >= 1, "number", number, "at least 1")
    require(temperature > 0, "temperature", temperature, "positive")
    check_reduction(reduction)
    u, directions = unit(h) / temperature, unit(w.flatten(0, -2)).view_as(w)
    right = (u * unit(g)).sum(1)
    wrong = inner(u, directions) if shared else inner(directions, u[:, None]).squeeze(2)
    count = math.log(w.shape[-2] / number)  # of draws that an instance expects
    if log_partition is None:
        log_partition = _log_partition(wrong, number)
    require_shape(log_partition, (), "log_partition")
    offset = log_partition + count
    softplus = nn.functional.softplus
    losses = softplus(offset - right) + softplus(wrong - offset).sum(1)
    return reduce(losses, torch.ones_like(losses), reduction, anchor.dtype)


def _log_partition(sample: Tensor, number: int) -> Tensor:
    """Log of the sum of exp over all instances, from the similarities of some."""
    share = math.log(number / max(sample.numel(), 1))
    return sample.detach().flatten().logsumexp(0) + share


class MemoryBank(nn.Module):
    r"""Instance discrimination: every example is its own class, and its weight is what it was.

    .. math:: P(i \mid u) = \frac{e^{v_i^\top u / \tau}}{\sum_{j=1}^n e^{v_j^\top u / \tau}},
        \qquad v_i \leftarrow \frac{\mu v_i + (1 - \mu) u_i}{\|\mu v_i + (1 - \mu) u_i\|}

    The loss is :math:`-\log P(i \mid u_i)` over all n rows of the memory, or its estimate from
    noise (:func:`instance_nce_loss`), plus a proximal term :math:`\lambda \|u_i - v_i\|^2` that
    holds an embedding to its last one: with one example a class, there is nothing else to average.
    Rows are constants to the gradient, and in training mode they are updated after the loss.

    Args:
        number: at least 1, n, of instances.
        dimension: at least 1, of their embeddings.
        temperature: positive.
        momentum: in [0, 1], mu, what a row keeps of itself.
        noise: at least 1, how many rows to draw for each batch; None for the exact softmax. (The
            released code draws anew for each anchor, at N times the memory.)
        proximal: at least 0, lambda.

    Attributes:
        rows: (n, D), unit vectors, at first random ones (of torch's global generator).
        log_partition: logarithm of Z, nan until the first batch with noise has estimated it.

    Raises:
        ValueError: if an argument is out of range.

    Source: ``wu2018unsupervised``. The released code, which starts from rows that have length one
    only in the mean, has no proximal term; lambda is a choice of the user.

    Pitfall: an example is compared with memories that are up to an epoch old. Where embeddings move
    fast, or an epoch is long, these belong to another network; where an epoch is only a few steps,
    memories that follow too closely are chased around the sphere by the noise. Raise mu.

    Example:
        >>> bank = MemoryBank(1000, 16)
        >>> h, index = torch.randn(8, 16), torch.arange(8)
        >>> loss = bank(h, index)
        >>> bool((bank.rows[:8] * nn.functional.normalize(h)).sum(1).mean() > 0.5)  # moved to them
        True
    """

    rows: Tensor
    log_partition: Tensor

    def __init__(
        self,
        number: int,
        dimension: int,
        *,
        temperature: float = 0.07,
        momentum: float = 0.5,
        noise: int | None = None,
        proximal: float = 0.0,
    ) -> None:
        super().__init__()
        require(number >= 1, "number", number, "at least 1")
        require(dimension >= 1, "dimension", dimension, "at least 1")
        require(temperature > 0, "temperature", temperature, "positive")
        require(0 <= momentum <= 1, "momentum", momentum, "in [0, 1]")
        require(noise is None or noise >= 1, "noise", noise, "None or at least 1")
        require(proximal >= 0, "proximal", proximal, "at least 0")
        self.temperature, self.momentum = temperature, momentum
        self.noise, self.proximal = noise, proximal
        self.register_buffer("rows", unit(torch.randn(number, dimension)))
        self.register_buffer("log_partition", torch.tensor(math.nan))

    def forward(self, embeddings: Tensor, index: Tensor) -> Tensor:
        """The mean loss of embeddings (N, D) of the instances at index (N,), int64, all different.

        Raises:
            ValueError: on shapes, or an index out of range.
            TypeError: on embeddings or an index of the wrong dtype.
        """
        h = check_embeddings(embeddings, "embeddings")
        check_labels(index, len(h), "index")
        require(
            h.shape[1] == self.rows.shape[1],
            "the shape of embeddings", tuple(h.shape), f"(N, {self.rows.shape[1]})",
        )  # fmt: skip
        if is_concrete(index) and index.numel():
            low, high = int(index.min()), int(index.max())
            inside = low >= 0 and high < len(self.rows)
            require(inside, "index", (low, high), f"from 0 to {len(self.rows) - 1}")
        u, own = unit(h), self.rows[index].to(h.dtype)
        exact = self.noise is None
        losses = self._cross_entropy(u, own) if exact else self._estimate(u, own)
        losses = losses + self.proximal * (u - own).square().sum(1)
        if self.training:
            with torch.no_grad():
                moved = self.momentum * own + (1 - self.momentum) * u
                self.rows[index] = unit(moved).to(self.rows.dtype)
        return restore(losses.mean(), embeddings.dtype)

    def _cross_entropy(self, u: Tensor, own: Tensor) -> Tensor:
        u = u / self.temperature
        nothing = torch.empty(len(u), 0, dtype=torch.int64, device=u.device)
        rows = self.rows.to(u.dtype, copy=True)  # the update must not change what backward reads
        return log_sum_exp(u, rows, nothing) - (u * own).sum(1)

    def _estimate(self, u: Tensor, own: Tensor) -> Tensor:
        number, temperature = len(self.rows), self.temperature
        noise = self.rows[torch.randint(number, (self.noise or 0,), device=u.device)].to(u.dtype)
        first = _log_partition(inner(u, noise) / temperature, number)
        log_partition = torch.where(self.log_partition.isnan(), first, self.log_partition)
        if self.training:
            self.log_partition = log_partition
        return instance_nce_loss(
            u, own, noise=noise, number=number, log_partition=log_partition,
            temperature=temperature, reduction="none",
        )  # fmt: skip
