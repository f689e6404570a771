r"""Whom to pull, whom to push, and how hard.

An anchor's negatives are whatever else is in the batch, near or far, rightly or wrongly. The losses
here differ in how they weigh them. With cosines :math:`s_j = u^\top v_j` every one of them contains
the same tilted distribution over negatives,

.. math:: p_j(\tau) = \frac{e^{s_j / \tau}}{\sum_k e^{s_k / \tau}} ,

be it as the slope of a log-sum-exp or as the weights of a mean. Embeddings are compared by their
direction; vectors are normalized here. Memory grows with N, not with N squared. With ``gather=True``
the batch is that of all ranks of ``torch.distributed``, as in
:mod:`~lossbook.representation.contrastive.infonce`.
"""

import math
from collections.abc import Iterator
from functools import partial
from itertools import permutations
from typing import NamedTuple

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
from lossbook._distributed import everyone, reduce_everywhere
from lossbook._pairs import check_embeddings, groups, inner, log_sum_exp, over_rows, unit
from lossbook.representation.contrastive._batch import (
    both_views,
    check_labels,
    check_others,
    own_columns,
    pair,
)

__all__ = [
    "AdaptiveMultiHead",
    "ISogCLR",
    "Scores",
    "SogCLR",
    "adaptive_multi_head_loss",
    "cacr_loss",
    "cluster_batches",
    "joint_clusters",
    "multistage_contrastive_loss",
    "negative_interpolation",
    "nspt_loss",
    "positive_extrapolation",
    "robust_global_contrastive_loss",
    "robust_temperature",
    "score_statistics",
]


# --- What the losses share --------------------------------------------------------------------


def _tilted(
    rows: Tensor, scale: Tensor, skip: Tensor, *, keys: Tensor, attached: bool = True
) -> Tensor:
    """(n, 2): log-sum-exp of scale times the cosines with the keys, and their mean so tilted."""
    cosines = inner(rows, keys)
    exponents = (scale * cosines).scatter(1, skip, torch.finfo(rows.dtype).min)
    weights = (exponents if attached else exponents.detach()).softmax(1)
    return torch.stack([exponents.logsumexp(1), (weights * cosines).sum(1)], 1)


# --- Attraction and repulsion, each with weights of its own -----------------------------------


def cacr_loss(
    anchor: Tensor,
    positive: Tensor,
    *further_views: Tensor,
    negatives: Tensor | None = None,
    t_pos: float = 1.0,
    t_neg: float = 1.0,
    attached: bool = True,
    reduction: str = "mean",
    gather: bool = False,
) -> Tensor:
    r"""Contrastive attraction and repulsion: far positives pull most, near negatives push most.

    .. math:: L_i = \sum_k \pi^+_k c^+_k - \sum_m \pi^-_m c^-_m, \qquad c = \|u - v\|^2,
        \qquad \pi^+ = \operatorname{softmax}(t^+ c^+), \quad
        \pi^- = \operatorname{softmax}(-t^- c^-)

    Each of the V views of an example is an anchor once; its K = V - 1 positives are the other
    views. Its negatives are the other examples' embeddings in one other view at a time, averaged
    over these views; or ``negatives``, a set that all anchors share. (The released code lets the
    first view of a pair repel the second; here each repels the other.) With two views there is one
    positive and nothing to weigh in the attraction. With t = 0 all weigh the same.

    Args:
        anchor: (N, D), N at least 2, of any length; normalized here.
        positive: (N, D), the second view of the same examples in the same order.
        further_views: (N, D) each.
        negatives: (M, D), in place of the other examples.
        t_pos: at least 0; how much harder the far ones are pulled.
        t_neg: at least 0; how much harder the near ones are pushed.
        attached: whether the gradient passes through the weights, as in the released code.
        reduction: "none", "mean" or "sum", over the N examples.
        gather: whether other examples are those of all ranks.

    Returns:
        The loss, a scalar in the dtype of the anchors, or (N,) unreduced; between -4 and 4.

    Raises:
        ValueError: on shapes, a single example without negatives, or a negative t.
        TypeError: if an argument is not floating-point.

    Source: ``zheng2021contrastive``.

    Pitfall: attached weights can turn a force around: a negative whose squared distance exceeds
    the weighted mean by more than 1 / t_neg is pulled, a positive that is nearer than the mean by
    more than 1 / t_pos is pushed away.

    Example:
        >>> anchor = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> cacr_loss(anchor, anchor)  # pairs coincide, others are sqrt(2) apart
        tensor(-2.)
    """
    u = check_embeddings(anchor, "anchor")
    others = {"positive": positive}
    others |= {f"further_views[{k}]": view for k, view in enumerate(further_views)}
    for name, view in others.items():
        check_embeddings(view, name)
        require_shape(view, tuple(anchor.shape), name)
    require(t_pos >= 0, "t_pos", t_pos, "at least 0")
    require(t_neg >= 0, "t_neg", t_neg, "at least 0")
    check_reduction(reduction)
    views = unit(torch.stack([u, *(view.to(u.dtype) for view in others.values())]))

    costs = (views[:, None] - views).square().sum(-1)  # (V, V, N)
    itself = torch.eye(len(views), dtype=torch.bool, device=u.device)[:, :, None]
    far = (t_pos * costs).masked_fill(itself, torch.finfo(u.dtype).min)
    weights = (far if attached else far.detach()).softmax(1)
    losses = (weights * costs).sum(1).mean(0)

    if negatives is not None:
        shared = unit(check_embeddings(negatives, "negatives", "(M, D)")).to(u.dtype)
        require(shared.shape[1:] == u.shape[1:], "the dimension of negatives",
                shared.shape[1], f"{u.shape[1]}")  # fmt: skip
        require(len(shared) >= 1, "the number of negatives", len(shared), "at least 1")
        pairs = [(view, shared) for view in views]
        skip = torch.empty(len(u), 0, dtype=torch.int64, device=u.device)
    else:
        keys, skip = [everyone(view, gather) for view in views], own_columns(u, gather)
        check_others(len(keys[0]))
        pairs = [(views[x], keys[y]) for x, y in permutations(range(len(views)), 2)]
    if len(u):
        scale = u.new_full((len(u), 1), 2 * t_neg)  # -t c is 2 t s, but for a constant
        for rows, keys_of in pairs:
            tilted = partial(_tilted, keys=keys_of, attached=attached)
            near = over_rows(tilted, 3 * len(keys_of), rows, scale, skip)[:, 1]
            losses = losses - (2 - 2 * near) / len(pairs)
    return reduce_everywhere(losses, torch.ones_like(losses), reduction, anchor.dtype, gather)


# --- Individual temperatures ------------------------------------------------------------------


def _temperatures(temperature: Tensor | float, u: Tensor) -> Tensor:
    """Checks a temperature, for all or one for each row, and gives (N,)."""
    if not isinstance(temperature, Tensor):
        require(temperature > 0, "temperature", temperature, "positive")
        return u.new_full((len(u),), temperature)
    tau = check_float(temperature, "temperature").to(u.dtype)
    require_shape(temperature, (len(u),), "temperature")
    if is_concrete(tau):
        require(bool((tau > 0).all()), "temperature", temperature, "positive")
    return tau


def robust_global_contrastive_loss(
    anchor: Tensor,
    positive: Tensor,
    *,
    temperature: Tensor | float = 0.07,
    rho: float = 6.0,
    reduction: str = "mean",
    gather: bool = False,
) -> Tensor:
    r"""The worst case over reweighted negatives, in its dual form with a temperature per anchor.

    .. math:: L_i = \tau_i \log \frac{1}{M} \sum_{j} e^{(s_j - s_i^+) / \tau_i} + \tau_i \rho

    averaged over both views as anchors (the paper adds them), with the M = 2 (N - 1) embeddings of
    the other examples as negatives. Minimized over :math:`\tau_i \ge \tau_0` it is, but for the
    constant :math:`\tau_0 \rho`,

    .. math:: \max_p \sum_j p_j (s_j - s_i^+) - \tau_0 \operatorname{KL}(p \,\|\, \tfrac1M)
        \quad \text{over} \quad \operatorname{KL}(p \,\|\, \tfrac1M) \le \rho :

    the temperature is the multiplier of a ball of distributions around the uniform one, and
    :math:`\rho - \operatorname{KL}(p(\tau_i))` its slope; see :func:`robust_temperature`.

    Args:
        anchor: (N, D), N at least 2, of any length; normalized here.
        positive: (N, D), the second view.
        temperature: positive; (N,), one for each example, or one for all. Gradients reach it.
        rho: at least 0, the radius in nats. The default is that of the released code for 510
            negatives; from log(M) on the ball holds every distribution.
        reduction: "none", "mean" or "sum".
        gather: whether the batch is that of all ranks.

    Returns:
        The loss, a scalar in the dtype of the anchors, or (N,) unreduced; it may be negative.

    Raises:
        ValueError: on shapes, a single example, or a hyperparameter out of range.
        TypeError: if an argument is not floating-point.

    Source: ``qiu2023semantics``.

    Pitfall: multiplied by the temperature, unlike InfoNCE: its gradient with respect to cosines
    does not grow as the temperature falls, so step sizes of the one do not fit the other.

    Example:
        >>> anchor = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> robust_global_contrastive_loss(anchor, anchor, temperature=0.5, rho=1.0)
        tensor(-0.5000)
    """
    u, v = pair(anchor, positive)
    tau = _temperatures(temperature, u)
    require(rho >= 0, "rho", rho, "at least 0")
    check_reduction(reduction)
    z, keys, skip = both_views(u, v, gather)
    check_others(len(keys) // 2)
    losses = -(u * v).sum(1)
    if len(u):
        log_sums = log_sum_exp(z / tau.repeat(2)[:, None], keys, skip).view(2, -1).mean(0)
        losses = losses + tau * (log_sums - math.log(len(keys) - 2) + rho)
    return reduce_everywhere(losses, torch.ones_like(losses), reduction, anchor.dtype, gather)


def robust_temperature(
    similarity: Tensor, *, rho: float, lowest: float = 0.05, highest: float = 1.0
) -> Tensor:
    r"""The temperature at which an anchor's weights are as far from uniform as they may be.

    .. math:: \tau^* = \arg\min_{\tau_0 \le \tau \le \tau_1}
        \tau \log \frac{1}{M} \sum_j e^{s_j / \tau} + \tau \rho,
        \qquad \operatorname{KL}\bigl(p(\tau^*) \,\|\, \tfrac1M\bigr) = \rho

    the last where it lies between the bounds. The function is convex, and its slope is found zero
    by halving. Shifting all similarities changes nothing, so the positive does not matter; stretching
    them stretches the temperature: for normal ones of deviation :math:`\sigma` it is about
    :math:`\sigma / \sqrt{2 \rho}`.

    Args:
        similarity: (..., M), cosines of anchors with their negatives, M at least 1.
        rho: at least 0, the radius in nats.
        lowest: positive, the paper's lower bound.
        highest: at least lowest.

    Returns:
        (...), in the dtype of the similarity and without gradient, which the loss does not need at
        its minimum.

    Raises:
        ValueError: on shapes or a hyperparameter out of range.
        TypeError: if the similarity is not floating-point.

    Source: ``qiu2023semantics``.

    Pitfall: a radius of log(M) or more is never used up, and the temperature is the lowest.

    Example:
        >>> all_near, one_near = [0.9, 0.8, 0.8, 0.7], [0.9, 0.1, 0.0, -0.1]
        >>> robust_temperature(torch.tensor([all_near, one_near]), rho=0.5)
        tensor([0.0609, 0.4319])
    """
    s = check_float(similarity, "similarity").detach().double()
    require(s.ndim >= 1 and s.shape[-1] >= 1, "the shape of similarity", tuple(s.shape), "(..., M)")
    require(rho >= 0, "rho", rho, "at least 0")
    require(lowest > 0, "lowest", lowest, "positive")
    require(highest >= lowest, "highest", highest, "at least lowest")
    low, high = (torch.full_like(s[..., :1], math.log(bound)) for bound in (lowest, highest))
    for _ in range(60):
        middle = (low + high) / 2
        log_p = (s / middle.exp()).log_softmax(-1)
        divergence = (log_p.exp() * log_p).sum(-1, keepdim=True) + math.log(s.shape[-1])
        too_sharp = divergence > rho
        low, high = torch.where(too_sharp, middle, low), torch.where(too_sharp, high, middle)
    return restore(((low + high) / 2).exp().squeeze(-1), similarity.dtype)


class SogCLR(nn.Module):
    r"""The contrastive loss over the whole dataset, from small batches: moving averages per example.

    .. math:: L_i = \tau \log u_i - s_i^+, \qquad
        u_i \leftarrow (1 - \gamma)\, u_i + \gamma\, \frac1M \sum_j e^{s_j / \tau}

    The logarithm of a mean over a small batch is biased; the average over the batches that an
    example has met is less so. The gradient is that of the mean over the batch, divided by u:
    negatives weigh :math:`e^{s_j/\tau} / u_i`, which does not sum to one. Losses are averaged over
    both views, and the average of both is kept; it starts with the first batch. (The paper's code
    starts at zero and keeps the *sum* of both views, which settles :math:`2 \gamma / (2 \gamma - 1)`
    times as high. This is how the code of its successor does it.)

    Args:
        size: at least 1, the number of examples in the dataset.
        temperature: positive.
        gamma: in (0, 1], the share of the new batch; with 1 it is the batch's own loss.
        gather: whether the batch is that of all ranks, and averages are shared among them.

    Raises:
        ValueError: if an argument is out of range.

    Source: ``yuan2022provable``.

    Pitfall: it needs to know who is who: ``index`` must name the same example in every epoch. An
    example that comes twice in a batch is averaged in once only.

    Example:
        >>> loss = SogCLR(100, temperature=0.5)
        >>> anchor = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> loss(anchor, anchor, torch.tensor([7, 42]))
        tensor(-1.)
    """

    log_average: Tensor

    def __init__(
        self, size: int, *, temperature: float = 0.1, gamma: float = 0.8, gather: bool = False
    ) -> None:
        super().__init__()
        require(size >= 1, "size", size, "at least 1")
        require(temperature > 0, "temperature", temperature, "positive")
        require(0 < gamma <= 1, "gamma", gamma, "in (0, 1]")
        self.gamma, self.gather = gamma, gather
        self.register_buffer("log_average", torch.full((size,), -math.inf))
        self._init_temperature(temperature)

    def _init_temperature(self, temperature: float) -> None:
        self.temperature: float | Tensor = temperature

    def _of(self, index: Tensor, u: Tensor) -> Tensor:
        """The temperatures (N,) of examples."""
        return u.new_full((len(u),), float(self.temperature))

    def _learn(self, index: Tensor, slope: Tensor) -> None:
        """Called in training mode with the slope of the robust loss (at rho = 0) by temperature."""

    def _store(self, name: str, index: Tensor, values: Tensor) -> None:
        """Writes values of the batch, on all ranks those of all ranks."""
        buffer = getattr(self, name)
        values = everyone(values.to(buffer.dtype), self.gather)
        buffer.index_copy_(0, everyone(index, self.gather), values)

    def forward(self, anchor: Tensor, positive: Tensor, index: Tensor) -> Tensor:
        """The loss of views (N, D) of the examples that ``index`` (N,), int64, names.

        In training mode averages move first; in evaluation mode nothing is stored.
        """
        u, v = pair(anchor, positive)
        check_labels(index, len(u), "index")
        size = len(self.log_average)
        if is_concrete(index) and len(index):
            low, high = int(index.min()), int(index.max())
            require(low >= 0 and high < size, "index", (low, high), f"from 0 to {size - 1}")
        tau = self._of(index, u)
        z, keys, skip = both_views(u, v, self.gather)
        require(len(keys) >= 4, "the number of examples", len(keys) // 2, "at least 2")
        tilted = partial(_tilted, keys=keys, attached=False)
        scale = (1 / tau).repeat(2)[:, None]
        log_sums, means = over_rows(tilted, 3 * len(keys), z, scale, skip).view(2, -1, 2).unbind(2)
        log_means = log_sums - math.log(len(keys) - 2)

        past = self.log_average[index].to(u.dtype)
        now = log_means.detach()
        keep = math.log1p(-self.gamma) if self.gamma < 1 else -math.inf
        moved = torch.logaddexp(past + keep, now + math.log(self.gamma))
        average = torch.where(past == -math.inf, now, moved)
        if self.training:
            with torch.no_grad():
                kept = average.logsumexp(0) - math.log(2)
                self._store("log_average", index, kept)
                slope = average - (now - average).exp() * means.detach() / tau
                self._learn(index, slope.mean(0))
        push = tau * (log_means - average).exp()  # of which only the gradient counts
        losses = (tau * average + push - push.detach()).mean(0) - (u * v).sum(1)
        weights = torch.ones_like(losses)
        return reduce_everywhere(losses, weights, "mean", anchor.dtype, self.gather)


class ISogCLR(SogCLR):
    r"""SogCLR with a temperature for each example, which follows the slope of the robust loss.

    .. math:: g_i = \log u_i + \rho - \frac{1}{\tau_i M} \sum_j \frac{e^{s_j / \tau_i}}{u_i} s_j,
        \qquad m_i \leftarrow (1 - \beta)\, m_i + \beta\, g_i,
        \qquad \tau_i \leftarrow \operatorname{clip}(\tau_i - \eta\, m_i,\ \tau_0,\ \tau_1)

    with g the mean over both views, clipped. With u exact it is the slope in the temperature of
    :func:`robust_global_contrastive_loss`, :math:`\rho - \operatorname{KL}`: an example whose
    weights are sharper than the radius allows gets a higher temperature. The value returned is
    :math:`\tau_i \log u_i - s_i^+`, without :math:`\tau_i \rho`. Defaults are those of the released
    code.

    Args:
        size: at least 1, the number of examples in the dataset.
        temperature: in the bounds, where all start.
        gamma: in (0, 1], as in :class:`SogCLR`.
        rho: at least 0, the radius in nats.
        lowest: positive, the lower bound of temperatures.
        highest: at least lowest.
        step_size: positive, the step in temperature.
        momentum: in (0, 1], the share of the new slope.
        clip: positive, the largest slope.
        gather: whether the batch is that of all ranks, and the state is shared among them.

    Raises:
        ValueError: if an argument is out of range.

    Source: ``qiu2023semantics``.

    Pitfall: the radius has to fit the number of negatives of a batch. Near log(M), or above, every
    temperature drifts to the lowest.

    Example:
        >>> loss = ISogCLR(100, rho=0.5)
        >>> anchor = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> _ = loss(anchor, anchor, torch.tensor([0, 1, 2]))
        >>> loss.temperature[:3] > 0.07  # the second has two negatives nearly alike
        tensor([ True, False,  True])
    """

    velocity: Tensor

    def __init__(
        self,
        size: int,
        *,
        temperature: float = 0.07,
        gamma: float = 0.8,
        rho: float = 6.0,
        lowest: float = 0.05,
        highest: float = 1.0,
        step_size: float = 1e-3,
        momentum: float = 0.9,
        clip: float = 3.0,
        gather: bool = False,
    ) -> None:
        require(rho >= 0, "rho", rho, "at least 0")
        require(lowest > 0, "lowest", lowest, "positive")
        require(highest >= lowest, "highest", highest, "at least lowest")
        require(lowest <= temperature <= highest, "temperature", temperature, "in the bounds")
        require(step_size > 0, "step_size", step_size, "positive")
        require(0 < momentum <= 1, "momentum", momentum, "in (0, 1]")
        require(clip > 0, "clip", clip, "positive")
        super().__init__(size, temperature=temperature, gamma=gamma, gather=gather)
        self.rho, self.lowest, self.highest = rho, lowest, highest
        self.step_size, self.momentum, self.clip = step_size, momentum, clip
        self.register_buffer("velocity", torch.zeros(size))

    def _init_temperature(self, temperature: float) -> None:
        self.register_buffer("temperature", torch.full_like(self.log_average, temperature))

    def _of(self, index: Tensor, u: Tensor) -> Tensor:
        assert isinstance(self.temperature, Tensor)
        return self.temperature[index].to(u.dtype)

    def _learn(self, index: Tensor, slope: Tensor) -> None:
        slope = (slope + self.rho).clamp(-self.clip, self.clip)
        velocity = torch.lerp(self.velocity[index].to(slope.dtype), slope, self.momentum)
        tau = (self._of(index, slope) - self.step_size * velocity).clamp(self.lowest, self.highest)
        self._store("velocity", index, velocity)
        self._store("temperature", index, tau)


# --- Several heads, a temperature for each pair -----------------------------------------------


def adaptive_multi_head_loss(
    anchor: Tensor,
    positive: Tensor,
    anchor_traits: Tensor,
    positive_traits: Tensor,
    *,
    beta: float = 0.01,
    lowest: float = 1e-5,
    highest: float = 2.0,
    reduction: str = "mean",
    gather: bool = False,
) -> Tensor:
    r"""Contrastive loss of several projection heads, with a temperature for each pair and head.

    .. math:: L_i = \sum_c -\log \frac{e^{a^c_{ip}}}{\sum_{j \ne i} e^{a^c_{ij}}}, \qquad
        a_{ij} = \frac{s_{ij}}{\tau_{ij}} - \beta\, \Omega(\tau_{ij}), \qquad
        \Omega(\tau) = \frac D2 \log \tau + \frac1\tau

    averaged over both views as anchors; j runs over the other 2 N - 1 embeddings of head c. With
    :math:`\beta = 1` the exponential is the density of a Gaussian with variance :math:`\tau_{ij}`
    around the anchor, and L the negative log posterior of the positive; :math:`\Omega` alone is
    least at :math:`\tau = 2/D`. Temperatures come from a similarity of traits,
    :math:`\tau_{ij} = \tau_0 + (\tau_1 - \tau_0)\, \sigma(-r_i^\top r_j)`.

    From the paper are heads, temperatures by pair and head, and a likelihood of the positives with a
    penalty on temperatures (abstract); :math:`\Omega`, the form of the temperatures and the defaults
    are read in its code. How negatives enter could not be verified: that code takes the mean exponent
    over the most similar negatives, apart from the positive, and sums their penalties, which nothing
    bounds below. The posterior over all candidates is our reading of the stated principle.

    Args:
        anchor: (N, D), or (N, C, D) with C heads; of any length; normalized here.
        positive: as anchor, the second view.
        anchor_traits: (N, E) or (N, C, E), a learned map of the anchors; not normalized.
        positive_traits: as anchor_traits, of the positives.
        beta: at least 0, the weight of the penalty.
        lowest: positive, the lowest temperature.
        highest: positive, the highest temperature, at least the lowest.
        reduction: "none", "mean" or "sum", over the N examples.
        gather: whether the batch is that of all ranks.

    Returns:
        The loss, a scalar in the dtype of the anchors, or (N,) unreduced; at least 0.

    Raises:
        ValueError: on shapes, or a hyperparameter out of range.
        TypeError: if an argument is not floating-point.

    Source: ``wang2023adaptive``.

    Pitfall: without the penalty a network can lower its loss by calling all hard pairs uncertain:
    temperatures run to their bounds.
    """
    h, g = check_float(anchor, "anchor"), check_float(positive, "positive")
    r, q = (
        check_float(anchor_traits, "anchor_traits"),
        check_float(positive_traits, "positive_traits"),
    )
    require(h.ndim in (2, 3), "the shape of anchor", tuple(h.shape), "(N, D) or (N, C, D)")
    require_shape(positive, tuple(anchor.shape), "positive")
    require(r.shape[:-1] == h.shape[:-1] and r.ndim == h.ndim, "the shape of anchor_traits",
            tuple(r.shape), f"{(*h.shape[:-1], 'E')}")  # fmt: skip
    require_shape(positive_traits, tuple(anchor_traits.shape), "positive_traits")
    require(beta >= 0, "beta", beta, "at least 0")
    require(lowest > 0, "lowest", lowest, "positive")
    require(highest >= lowest, "highest", highest, "at least lowest, which is positive")
    check_reduction(reduction)
    if h.ndim == 2:
        h, g, r, q = (x.unsqueeze(1) for x in (h, g, r, q))
    z, keys, columns = both_views(unit(h), unit(g).to(h.dtype), gather)
    traits = torch.cat([r, q]).to(h.dtype)
    key_traits, dimension = everyone(traits, gather), h.shape[2]

    def of_rows(c: int, rows: Tensor, traits_of: Tensor, columns: Tensor) -> Tensor:
        own, partner = columns.split(1, 1)
        score = inner(traits_of, key_traits[:, c])
        tau = lowest + (highest - lowest) * (-score).sigmoid()
        a = inner(rows, keys[:, c]) / tau - beta * (dimension / 2 * tau.log() + 1 / tau)
        others = a.scatter(1, own, torch.finfo(a.dtype).min)
        return others.logsumexp(1) - a.gather(1, partner).squeeze(1)

    losses = h[:, 0, 0] * 0
    if len(h):
        for c in range(h.shape[1]):
            both = over_rows(partial(of_rows, c), 5 * len(keys), z[:, c], traits[:, c], columns)
            losses = losses + both.view(2, -1).mean(0)
    return reduce_everywhere(losses, torch.ones_like(losses), reduction, anchor.dtype, gather)


class AdaptiveMultiHead(nn.Module):
    r""":func:`adaptive_multi_head_loss` with traits from a small network that all heads share.

    .. math:: r = W_2 \operatorname{relu}(W_1 u + b_1) + b_2

    Args:
        dimension: at least 1, D of the embeddings of a head.
        hidden: at least 1, the width of the network; D if not given.
        beta: at least 0, as in the function.
        lowest: positive, as in the function.
        highest: at least lowest, as in the function.
        gather: whether the batch is that of all ranks.

    Raises:
        ValueError: if an argument is out of range.

    Source: ``wang2023adaptive``.

    Pitfall: its parameters must be handed to the optimizer along with the encoder's.
    """

    def __init__(
        self,
        dimension: int,
        *,
        hidden: int | None = None,
        beta: float = 0.01,
        lowest: float = 1e-5,
        highest: float = 2.0,
        gather: bool = False,
    ) -> None:
        super().__init__()
        hidden = dimension if hidden is None else hidden
        require(dimension >= 1, "dimension", dimension, "at least 1")
        require(hidden >= 1, "hidden", hidden, "at least 1")
        require(beta >= 0, "beta", beta, "at least 0")
        require(lowest > 0, "lowest", lowest, "positive")
        require(highest >= lowest, "highest", highest, "at least lowest")
        self.traits = nn.Sequential(
            nn.Linear(dimension, hidden), nn.ReLU(), nn.Linear(hidden, dimension)
        )
        self.beta, self.lowest, self.highest, self.gather = beta, lowest, highest, gather

    def temperature(self, first: Tensor, second: Tensor) -> Tensor:
        """Temperatures (...) of pairs of embeddings (..., D)."""
        score = (self.traits(unit(first)) * self.traits(unit(second))).sum(-1)
        return self.lowest + (self.highest - self.lowest) * (-score).sigmoid()

    def forward(self, anchor: Tensor, positive: Tensor) -> Tensor:
        """The loss of views (N, D) or (N, C, D)."""
        traits = [self.traits(unit(view)) for view in (anchor, positive)]
        return adaptive_multi_head_loss(
            anchor,
            positive,
            traits[0],
            traits[1],
            beta=self.beta,
            lowest=self.lowest,
            highest=self.highest,
            gather=self.gather,
        )


# --- Harder positives, more varied negatives --------------------------------------------------


def _beta(shape: tuple[int, ...], alpha: float, like: Tensor, stream: torch.Generator) -> Tensor:
    """Numbers from Beta(alpha, alpha)."""
    shapes = torch.full((2, *shape), alpha, dtype=torch.float64)
    first, second = torch._standard_gamma(shapes, generator=stream)
    return (first / (first + second)).to(like)


def _mixing(
    weight: Tensor | float | None, alpha: float, like: Tensor, generator: torch.Generator | None
) -> Tensor | float:
    require(alpha > 0, "alpha", alpha, "positive")
    if weight is not None:
        return weight
    return _beta((), alpha, like, generator or torch.default_generator)


def positive_extrapolation(
    anchor: Tensor,
    positive: Tensor,
    *,
    alpha: float = 2.0,
    weight: Tensor | float | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Two views moved apart on the line through them: a harder positive.

    .. math:: u' = \lambda u + (1 - \lambda) v, \qquad v' = \lambda v + (1 - \lambda) u, \qquad
        \lambda - 1 \sim \operatorname{Beta}(\alpha, \alpha)

    For unit vectors with cosine s the new score is

    .. math:: u' \cdot v' = s - 2 \lambda (\lambda - 1) (1 - s) \le s .

    Args:
        anchor: (..., D), of unit length in the paper.
        positive: (..., D).
        alpha: positive, the parameter of the Beta distribution; 2 in the released code.
        weight: lambda itself, which is then not drawn; a number, or of a shape that broadcasts.
        generator: a CPU random stream; torch's own if not given. One lambda serves the batch.

    Returns:
        The two new views, of the shapes and dtypes given; not normalized, as in the released code.

    Raises:
        ValueError: on shapes, or an alpha that is not positive.
        TypeError: if an argument is not floating-point.

    Source: ``zhu2021improving``.

    Pitfall: losses that normalize what they are given see another score,
    :math:`(s - e) / (1 + e)` with :math:`e = 2 \lambda (\lambda - 1)(1 - s)`, harder still; take the
    inner product to have the paper's.

    Example:
        >>> u, v = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
        >>> positive_extrapolation(u, v, weight=1.5)
        (tensor([ 1.5000, -0.5000]), tensor([-0.5000,  1.5000]))
    """
    u, v = check_float(anchor, "anchor"), check_float(positive, "positive")
    require_shape(positive, tuple(anchor.shape), "positive")
    drawn = _mixing(weight, alpha, u, generator)
    mix = drawn if weight is not None else 1 + drawn
    moved = mix * u + (1 - mix) * v, mix * v + (1 - mix) * u
    return restore(moved[0], anchor.dtype), restore(moved[1], positive.dtype)


def negative_interpolation(
    negatives: Tensor,
    *,
    alpha: float = 1.6,
    weight: Tensor | float | None = None,
    order: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Negatives mixed with one another: points that no example has taken.

    .. math:: v'_j = \lambda v_j + (1 - \lambda) v_{\pi(j)}, \qquad
        \lambda \sim \operatorname{Beta}(\alpha, \alpha), \quad \pi \text{ a permutation}

    Args:
        negatives: (M, D).
        alpha: positive, the parameter of the Beta distribution; 1.6 in the released code.
        weight: lambda itself, which is then not drawn.
        order: (M,), int64, the permutation, which is then not drawn.
        generator: a CPU random stream; torch's own if not given. One lambda serves all negatives.

    Returns:
        (M, D), in the dtype of the negatives; not normalized, as in the released code.

    Raises:
        ValueError: on shapes, or an alpha that is not positive.
        TypeError: if negatives are not floating-point, or the order is not int64.

    Source: ``zhu2021improving``.

    Pitfall: a mixture is shorter than what it is made of, so its score is smaller: chords lie
    inside the sphere. Normalizing afterwards makes it a harder negative instead.

    Example:
        >>> queue = torch.eye(2)
        >>> negative_interpolation(queue, weight=0.75, order=torch.tensor([1, 0]))
        tensor([[0.7500, 0.2500],
                [0.2500, 0.7500]])
    """
    x = check_embeddings(negatives, "negatives", "(M, D)")
    if order is None:
        stream = generator or torch.default_generator
        order = torch.randperm(len(x), generator=stream).to(x.device)
    check_labels(order, len(x), "order")
    mix = _mixing(weight, alpha, x, generator)
    return restore(mix * x + (1 - mix) * x[order], negatives.dtype)


class Scores(NamedTuple):
    """What :func:`score_statistics` returns: means and variances of cosines.

    Pitfall: a mean says nothing of the few hard negatives that make most of the gradient.
    """

    positive_mean: Tensor
    positive_variance: Tensor
    negative_mean: Tensor
    negative_variance: Tensor


def score_statistics(anchor: Tensor, positive: Tensor, negatives: Tensor | None = None) -> Scores:
    r"""Means and variances of positive and of negative scores: what to watch while training.

    .. math:: s_i^+ = u_i^\top v_i, \qquad s_{ij}^- = u_i^\top v_j \ (j \ne i)
        \quad\text{or}\quad u_i^\top n_j

    Sums over pairs are taken from sums over embeddings and from their D by D second moments, so
    nothing grows with the number of pairs.

    Args:
        anchor: (N, D), of any length; normalized here. N at least 2 without negatives.
        positive: (N, D).
        negatives: (M, D), a queue; without it the other examples' positives.

    Returns:
        Four scalars in the dtype of the anchors; variances are those of the population.

    Raises:
        ValueError: on shapes, or if there are no pairs.
        TypeError: if an argument is not floating-point.

    Source: ``zhu2021improving``.

    Pitfall: the paper keeps mean and variance over the negatives for each anchor; here they are
    over all pairs, so the variance also holds how anchors differ.
    """
    u, v = (x.double() for x in pair(anchor, positive))
    s = (u * v).sum(1)
    keys = v if negatives is None else unit(check_embeddings(negatives, "negatives", "(M, D)"))
    require(
        keys.shape[1] == u.shape[1], "the dimension of negatives", keys.shape[1], f"{u.shape[1]}"
    )
    keys = keys.double()
    pairs = len(u) * (len(keys) - 1 if negatives is None else len(keys))
    require(pairs >= 1, "the number of negative pairs", pairs, "at least 1")
    total, squares = u.sum(0) @ keys.sum(0), ((u.mT @ u) * (keys.mT @ keys)).sum()
    if negatives is None:
        total, squares = total - s.sum(), squares - s.square().sum()
    mean = total / pairs
    variance = (squares / pairs - mean.square()).clamp(min=0)
    found = (s.mean(), s.var(correction=0), mean, variance)
    return Scores(*(restore(value, anchor.dtype) for value in found))


# --- Negatives that earlier features cannot tell apart ----------------------------------------


def joint_clusters(assignments: Tensor) -> Tensor:
    r"""One cluster for each combination of clusters.

    .. math:: k_i = k_j \iff a_{is} = a_{js} \text{ for all } s

    Args:
        assignments: (N, S), int64, the clusters of N examples in S stages, at least one.

    Returns:
        (N,), int64, at least 0; not necessarily consecutive.

    Raises:
        ValueError: on shapes.
        TypeError: if assignments are not int64.

    Source: ``zhang2024learning``.

    Pitfall: combinations multiply. After a few stages of many clusters most examples are alone and
    have no negatives left.

    Example:
        >>> joint_clusters(torch.tensor([[0, 5], [1, 5], [0, 5]]))
        tensor([0, 1, 0])
    """
    if not isinstance(assignments, Tensor) or assignments.dtype != torch.int64:
        raise TypeError(
            f"assignments must be an int64 tensor, got {getattr(assignments, 'dtype', assignments)}"
        )
    shape = tuple(assignments.shape)
    require(len(shape) == 2 and shape[1] >= 1, "the shape of assignments", shape, "(N, S)")
    joint = groups(assignments[:, 0])
    for stage in assignments.unbind(1)[1:]:
        joint = groups(joint * len(joint) + groups(stage))
    return joint


def multistage_contrastive_loss(
    anchor: Tensor,
    positive: Tensor,
    labels: Tensor,
    *,
    temperature: float = 0.5,
    reduction: str = "mean",
    gather: bool = False,
) -> Tensor:
    r"""NT-Xent whose negatives share the anchor's cluster: what is known already tells none apart.

    .. math:: L_i = -\log \frac{e^{s_{ip} / \tau}}
        {e^{s_{ip} / \tau} + \sum_{j :\, k_j = k_i,\, j \ne i} e^{s_{ij} / \tau}}

    averaged over both views as anchors, j running over both views of the other examples of the
    cluster. The paper trains in stages: cluster what the last stage has learned, train afresh on
    negatives from the anchor's own cluster, or from its :func:`joint_clusters`, and concatenate what
    the stages have learned. Its code draws batches from one cluster at a time
    (:func:`cluster_batches`), in which this is NT-Xent; masking serves any batch. An anchor without
    negatives has loss 0 and does not count in the mean.

    Args:
        anchor: (N, D), of any length; normalized here.
        positive: (N, D), the second view.
        labels: (N,), int64, the cluster of each example.
        temperature: positive; the default is that of NT-Xent, not the paper's.
        reduction: "none", "mean" (over the examples with negatives) or "sum".
        gather: whether the batch is that of all ranks.

    Returns:
        The loss, a scalar in the dtype of the anchors, or (N,) unreduced; at least 0.

    Raises:
        ValueError: on shapes, or a temperature that is not positive.
        TypeError: on embeddings or labels of the wrong dtype.

    Source: ``zhang2024learning``.

    Pitfall: a feature on which the clusters agree does not help any more and is forgotten, which is
    the point; alone, the last stage is a worse representation than the first.

    Example:
        >>> anchor = torch.eye(3)
        >>> multistage_contrastive_loss(anchor, anchor, torch.tensor([0, 0, 1]), temperature=1.0)
        tensor(0.5514)
    """
    u, v = pair(anchor, positive)
    check_labels(labels, len(u))
    require(temperature > 0, "temperature", temperature, "positive")
    check_reduction(reduction)
    z, keys, columns = both_views(u, v, gather)
    clusters = labels.repeat(2)
    key_clusters = everyone(clusters, gather)
    lowest = torch.finfo(u.dtype).min

    def of_rows(rows: Tensor, cluster: Tensor, columns: Tensor) -> Tensor:
        """(n, 2): the loss, and the number of negatives."""
        own, partner = columns.split(1, 1)
        known = cluster[:, None] == key_clusters
        cosines = inner(rows, keys)
        candidates = known.scatter(1, partner, True).scatter(1, own, False)
        losses = cosines.masked_fill(~candidates, lowest).logsumexp(1)
        losses = losses - cosines.gather(1, partner).squeeze(1)
        return torch.stack([losses, candidates.sum(1).to(losses.dtype) - 1], 1)

    losses = counted = u.sum(1)
    if len(u):
        found = over_rows(of_rows, 3 * len(keys), z / temperature, clusters, columns)
        losses, number = found.view(2, -1, 2).mean(0).unbind(1)
        losses, counted = losses.where(number > 0, 0), (number > 0).to(u.dtype)
    return reduce_everywhere(losses, counted, reduction, anchor.dtype, gather)


def cluster_batches(
    clusters: Tensor, *, batch_size: int, generator: torch.Generator | None = None
) -> Iterator[Tensor]:
    """One epoch of batches, each from a single cluster, in random order.

    What does not fill a batch is left out, as in the released code; batches here are shuffled,
    where that code goes round the clusters.

    Args:
        clusters: (N,), int64, the cluster of each example.
        batch_size: at least 1.
        generator: a CPU random stream; torch's own if not given.

    Yields:
        (batch_size,), int64, indices of examples.

    Raises:
        ValueError: on shapes or a batch size below 1.
        TypeError: if clusters are not int64.

    Source: ``zhang2024learning``.

    Pitfall: clusters smaller than a batch are never seen, and the statistics of batch
    normalization are those of one cluster.

    Example:
        >>> [len(b) for b in cluster_batches(torch.tensor([0, 1, 0, 0, 0]), batch_size=2)]
        [2, 2]
    """
    check_labels(clusters, len(clusters), "clusters")
    require(batch_size >= 1, "batch_size", batch_size, "at least 1")
    order = torch.randperm(len(clusters), generator=generator)
    names = clusters.cpu()[order]
    batches = [
        batch
        for name in names.unique()
        for batch in order[names == name].split(batch_size)
        if len(batch) == batch_size
    ]
    for i in torch.randperm(len(batches), generator=generator).tolist():
        yield batches[i].to(clusters.device)


# --- Rehearsal --------------------------------------------------------------------------------


def nspt_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    teacher: Tensor,
    rehearsal: Tensor | None = None,
    temperature: float = 0.1,
    reduction: str = "mean",
) -> Tensor:
    r"""Negatives of the student, positives of the teacher: supervised contrast that remembers.

    .. math:: L_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)} \log \frac{e^{a_i \cdot t_p / \tau}}
        {\sum_{p' \in P(i)} e^{a_i \cdot t_{p'} / \tau} + \sum_{n \in N(i)} e^{a_i \cdot a_n / \tau}}

    for anchors i among the rehearsed examples, with directions a of the network that learns and t
    of its frozen predecessor. P(i) holds the examples of the anchor's class, itself included, and
    N(i) those of other classes, rehearsed or new.

    That anchors are rehearsed examples alone, and that positives are the teacher's and negatives
    the student's, is the paper's (abstract and its reviews); whether the anchor's own teacher embedding
    is among the positives, and the temperature, could not be verified and is our choice.

    Args:
        embeddings: (N, D), of the student, of any length; normalized here.
        labels: (N,), int64, the classes.
        teacher: (N, D), of the same examples; no gradient reaches it.
        rehearsal: (N,), Boolean, which examples are rehearsed; all if not given.
        temperature: positive; the default is ours.
        reduction: "none", "mean" (over rehearsed examples) or "sum".

    Returns:
        The loss, a scalar in the dtype of the embeddings, or (N,) unreduced, 0 for examples that
        are not rehearsed.

    Raises:
        ValueError: on shapes, or a temperature that is not positive.
        TypeError: on arguments of the wrong dtype.

    Source: ``cappellazzo2023continual``.

    Pitfall: it is not zero where the student equals the teacher; it also asks old classes to keep
    apart in the student, which the teacher may never have reached.
    """
    a, t = check_embeddings(embeddings, "embeddings"), check_embeddings(teacher, "teacher")
    check_labels(labels, len(a))
    require_shape(teacher, tuple(embeddings.shape), "teacher")
    require(temperature > 0, "temperature", temperature, "positive")
    check_reduction(reduction)
    if rehearsal is None:
        rehearsal = torch.ones_like(labels, dtype=torch.bool)
    if not isinstance(rehearsal, Tensor) or rehearsal.dtype != torch.bool:
        found = getattr(rehearsal, "dtype", rehearsal)
        raise TypeError(f"rehearsal must be a Boolean tensor, got {found}")
    require_shape(rehearsal, (len(a),), "rehearsal")
    a, t = unit(a), unit(t.detach()).to(a.dtype)

    def of_rows(rows: Tensor, label: Tensor) -> Tensor:
        same = label[:, None] == labels
        exponents = torch.where(same, inner(rows, t), inner(rows, a))
        log_share = exponents.log_softmax(1)
        return -(log_share * same).sum(1) / same.sum(1)

    losses = over_rows(of_rows, 4 * len(a), a / temperature, labels) if len(a) else a.sum(1)
    weights = rehearsal.to(a.dtype)
    return reduce(losses.where(rehearsal, 0), weights, reduction, embeddings.dtype)
