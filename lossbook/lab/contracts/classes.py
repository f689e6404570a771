"""What a loss makes of labels and probabilities: noise, honesty, decisions, invariances.

Three classes are played with, or the two of a loss of one score. The conditional risk of logits z
under label probabilities q is

    R(z; q) = sum_k q_k loss(z, k),

what an example costs on average whose label is drawn from q. All distributions, and all starts of
the search for minima, are one batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from lossbook.classification.softmax import entmax, sparse_softmax, sparsemax
from lossbook.lab.contracts.finding import Finding
from lossbook.lab.contracts.kinds import C, Subject
from lossbook.lab.contracts.search import (
    SEED,
    by_example,
    descend,
    draw,
    gradient,
    hessian,
    numbers,
    once,
    per_example,
    sparing,
)

CLASSES = 3
# Differences below this, relative to the numbers compared, may be rounding.
ROUNDING = 1e-9
# A decision is wrong if its class has at least so much less probability than the best: with less,
# the difference in risk would be too small to tell from none.
LEAD = 0.1
# By how much a wrong class leads at least, so that no tie-breaking makes it right.
STRICT = 1e-6
# Wrong decisions that cost at most so much more than the best logits found cost nothing: what the
# search and the strict lead leave over, times how much the loss varies over logits of 0 and 1.
FREE = 1e-5
# Who leads in a row of the search: a class, or
ANYONE, SHIFTED = -1, -2
# Probabilities that differ by less in total variation are one forecast.
SAME = 0.01


# --- Links ------------------------------------------------------------------------------------


def _softmax(x: Tensor, **_: Any) -> Tensor:
    return x.softmax(1)


def _spherical(x: Tensor, *, epsilon: float = 1e-4, **_: Any) -> Tensor:
    square = x.square() + epsilon
    return square / square.sum(1, True)


def _harmonic(x: Tensor, *, exponent: float = 2.0, epsilon: float = 1e-4, **_: Any) -> Tensor:
    return (-exponent / 2 * (x.square() + epsilon).log()).softmax(1)


def _conjugate_gradient(x: Tensor, *, conjugate: Callable[[Tensor], Tensor], **_: Any) -> Tensor:
    return gradient(conjugate, x)


#: How a loss's inputs are read as probabilities, (M, C) to (M, C), given its hyperparameters: for
#: losses whose reading is not the softmax (for one score, the sigmoid). Add your own loss by its
#: name.
LINKS: dict[str, Callable[..., Tensor]] = {
    "entmax_loss": lambda x, *, alpha=1.5, **_: entmax(x, alpha=alpha),
    "fenchel_young_loss": _conjugate_gradient,
    "harmonic_loss": _harmonic,
    "poly_focal_loss": lambda x, **_: x.sigmoid(),
    "sparse_softmax_loss": lambda x, *, k=10, **_: sparse_softmax(x, k=k),
    "sparsemax_loss": lambda x, **_: sparsemax(x),
    "spherical_softmax_loss": _spherical,
}


def _link_name(subject: Subject) -> str:
    if subject.link is not None or subject.name in LINKS:
        return "its own link"
    return "the sigmoid" if subject.kind_name == "scores, target" else "the softmax"


def _link(subject: Subject, usual: Callable[..., Tensor]) -> Callable[..., Tensor]:
    if subject.link is not None:
        return lambda x, **_: cast(Callable[[Tensor], Tensor], subject.link)(x)
    return LINKS.get(subject.name, usual)


# --- Scores of classes ------------------------------------------------------------------------


class Game(NamedTuple):
    """A loss of class scores z (M, C), whatever it calls them: the larger, the likelier its class.

    ``inputs`` makes of scores what the loss takes: one score for two classes is the second less the
    first, distances and the even inputs of the spherical softmax are exponentials.
    """

    classes: int
    inputs: Callable[[Tensor], Tensor]
    table: Callable[[Tensor], Tensor]  # inputs (M, ...) to the loss under every label (M, C)
    link: Callable[[Tensor], Tensor]  # scores (M, C) to probabilities (M, C)

    def losses(self, z: Tensor) -> Tensor:
        return self.table(self.inputs(z))

    def risk(self, z: Tensor, q: Tensor) -> Tensor:
        return (q * self.losses(z)).sum(1)


def why_no_game(subject: Subject) -> str:
    """Why a loss is none of class scores; empty if it is one."""
    if subject.kind_name not in ("logits, target", "distances, target", "scores, target"):
        return f"its inputs ({', '.join(subject.arguments)}) are no scores, one for each class"
    return "" if by_example(subject) else "the loss of an example depends on its batch"


def table_of(subject: Subject, classes: int) -> Callable[..., Tensor]:
    """The loss of inputs (M, ...) under every label, (M, C)."""

    def table(*inputs: Tensor) -> Tensor:
        rows = tuple(x.repeat_interleave(classes, 0) for x in inputs)
        labels = torch.arange(classes).repeat(len(inputs[0]))
        return per_example(subject, rows, labels).unflatten(0, (-1, classes))

    return table


def game_of(subject: Subject) -> Game:
    settings = {**subject.extra(torch.zeros(1, CLASSES)), **subject.settings}
    if subject.kind_name == "scores, target":
        own = _link(subject, lambda f, **_: f.sigmoid())

        def link(z: Tensor) -> Tensor:
            p = own(z[:, 1] - z[:, 0], **settings)
            return torch.stack([1 - p, p], 1)

        return Game(2, lambda z: z[:, 1] - z[:, 0], table_of(subject, 2), link)
    inputs: Callable[[Tensor], Tensor] = lambda z: z  # noqa: E731
    if "distances" in subject.arguments:
        inputs = lambda z: (-z).exp()  # noqa: E731
    elif subject.name == "spherical_softmax_loss":
        inputs = torch.exp
    map_to = _link(subject, _softmax)
    return Game(
        CLASSES, inputs, table_of(subject, CLASSES), lambda z: map_to(inputs(z), **settings)
    )


# --- Minima -----------------------------------------------------------------------------------


class Minima(NamedTuple):
    """For each of T distributions, the lowest risks found."""

    game: Game
    q: Tensor  # (T, C)
    truth: Tensor  # (T, C), scores that the link reads as q
    honest: Tensor  # (T,), their risk
    led: Tensor  # (T, C, C): for each class, the best scores found at which it leads
    led_risk: Tensor  # (T, C)
    ends: Tensor  # (T, F, C), where descents without constraints ended
    ends_risk: Tensor  # (T, F)

    @property
    def best(self) -> Tensor:
        """The scores of the lowest risk found, (T, C): the smallest, of those that tie."""
        tied = self.ends_risk <= (self.least + 1e-12 * (1 + self.least.abs())).unsqueeze(1)
        which = torch.where(tied, self.ends.abs().amax(2), torch.inf).argmin(1)
        return self.ends[torch.arange(len(self.q)), which]

    @property
    def least(self) -> Tensor:
        return self.ends_risk.amin(1)


def _truths(game: Game, trials: int) -> Tensor:
    """Scores whose probabilities are of all sorts: even, without a majority, all but certain."""
    generator = torch.Generator().manual_seed(SEED)
    odds = torch.rand(trials, game.classes, generator=generator, dtype=torch.float64).clamp(
        min=1e-3
    )
    z = (-odds.log()).log()  # so that their softmax is uniform on the simplex
    z = z - z.mean(1, keepdim=True)
    for _ in range(10):  # where the link is certain it says no more than that
        z = torch.where(game.link(z).amax(1, keepdim=True) >= 1, z / 2, z)
    low, high = torch.full_like(z[:, :1], -50.0), torch.full_like(z[:, :1], 50.0)
    if (game.link(z).sum(1) - 1).abs().max() > ROUNDING:  # a probability for each class by itself
        for _ in range(100):
            middle = (low + high) / 2
            above = game.link(z + middle).sum(1, keepdim=True) > 1
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        z = z + middle
    return z


@once
def minima(subject: Subject, trials: int) -> Minima:
    """Minimizes the conditional risk over all scores, and over those at which a given class leads.

    The shift of the truth that costs least is found as well. All distributions and starts are one
    batch. In the end the search goes on, over all scores, from the least risk at which a less
    likely class led: lest this be taken for a minimum because others did not come as far.
    """
    game = game_of(subject)
    classes = game.classes
    truth = _truths(game, trials)
    q = game.link(truth)
    q = q / q.sum(1, keepdim=True)
    generator = torch.Generator().manual_seed(SEED + 1)
    random = torch.randn(trials, classes, generator=generator, dtype=truth.dtype)
    top = torch.nn.functional.one_hot(q.argmax(1), classes).to(truth)

    # For each row who leads (ANYONE, or the truth is shifted), where it starts, and its first step.
    plan = [
        *((ANYONE, z, 1.0) for z in (truth, torch.zeros_like(truth), 3 * top)),
        *((ANYONE, z, 10.0) for z in (truth, random)),
        (SHIFTED, torch.zeros_like(truth), 1.0),
    ]
    for k in range(classes):
        for z, pace in ((truth, 1.0), (random, 10.0)):
            start = z.amax(1, keepdim=True) - z
            start[:, k] = z.amax(1)
            plan.append((k, start, pace))
    leader = torch.tensor([k for k, _, _ in plan]).repeat_interleave(trials).unsqueeze(1)
    weights, origin = q.repeat(len(plan), 1), truth.repeat(len(plan), 1)

    def scores(x: Tensor) -> Tensor:
        """A leader k has x_k, the others x_k - |x_j| - STRICT."""
        leading = x.gather(1, leader.clamp(min=0))
        led = torch.where(torch.arange(classes) == leader, x, leading - x.abs() - STRICT)
        shifted = origin + x.mean(1, keepdim=True)
        return torch.where(leader == ANYONE, x, torch.where(leader == SHIFTED, shifted, led))

    x, risk = descend(
        lambda x: game.risk(scores(x), weights),
        torch.cat([z for _, z, _ in plan]),
        first=_paces([pace for _, _, pace in plan], trials),
    )
    z, risk = (y.unflatten(0, (-1, trials)).transpose(0, 1) for y in (scores(x), risk))
    free = sum(k == ANYONE for k, _, _ in plan)

    start, shift = game.risk(truth, q), z[:, free]
    better = (risk[:, free] < start) & ((game.link(shift) - q).abs().sum(1) < ROUNDING)
    honest = torch.where(better, risk[:, free], start)
    truth = torch.where(better.unsqueeze(1), shift, truth)

    led, led_risk = (y[:, free + 1 :].unflatten(1, (classes, -1)) for y in (z, risk))
    led_risk, which = led_risk.min(2)
    led = led.gather(2, which[..., None, None].expand(-1, -1, 1, classes)).squeeze(2)

    wrong = torch.where(_lead(q) >= LEAD, led_risk, torch.inf).argmin(1)
    again = led[torch.arange(trials), wrong].repeat(2, 1)
    more, more_risk = descend(
        lambda z: game.risk(z, q.repeat(2, 1)), again, first=_paces([0.1, 1.0], trials)
    )
    more, more_risk = (y.unflatten(0, (2, trials)).transpose(0, 1) for y in (more, more_risk))
    ends, ends_risk = torch.cat([z[:, :free], more], 1), torch.cat([risk[:, :free], more_risk], 1)
    return Minima(game, q, truth, honest, led, led_risk, ends, ends_risk)


def _paces(first: list[float], trials: int) -> Tensor:
    """First steps for :func:`descend`, each for as many rows as there are trials."""
    return torch.tensor(first, dtype=torch.float64).repeat_interleave(trials)[:, None, None]


def _lead(q: Tensor) -> Tensor:
    """How much less likely each class is than the likeliest."""
    return q.amax(1, keepdim=True) - q


def distance(p: Tensor, q: Tensor) -> Tensor:
    """Total variation."""
    return (p - q).abs().sum(-1) / 2


# --- Noise ------------------------------------------------------------------------------------


def symmetric(subject: Subject, trials: int) -> Finding:
    """The losses of an example under all labels add up to a constant.

    Then flipping labels evenly moves no minimizer of the risk (Ghosh, Kumar and Sastry, 2017).
    Tried at 0.01 to 100 times ordinary inputs; refuted by two of them with different sums.
    """
    if subject.arguments[-1] != "target" or not by_example(subject):
        return Finding("not applicable", "no loss of one example under every label")
    classes = C if subject.kind.classes else 2
    inputs = draw(subject, (trials, C))
    scale = torch.logspace(-2, 2, trials, dtype=torch.float64)
    inputs = tuple(x * scale.reshape(-1, *[1] * (x.ndim - 1)) for x in inputs)
    sums = table_of(subject, classes)(*inputs).detach().sum(1)
    low, high = int(sums.argmin()), int(sums.argmax())
    spread = float(sums[high] - sums[low])
    evidence = {
        "inputs": [numbers(x[low]) for x in inputs],
        "their sum": float(sums[low]),
        "other inputs": [numbers(x[high]) for x in inputs],
        "the sum of those": float(sums[high]),
    }
    if spread > ROUNDING * (1 + float(sums.abs().max())):
        text = f"the sum over labels is {sums[low]:.4g} at one point, {sums[high]:.4g} at another"
        return Finding("refuted", text, trials, spread, evidence)
    text = f"the sum over labels is {sums[low]:.4g}, to within {spread:.0e}"
    return Finding("not refuted", text, trials, spread, evidence)


# --- Honesty ----------------------------------------------------------------------------------


def proper(subject: Subject, trials: int) -> Finding:
    """The truth is a best forecast: logits read as q minimize the expected loss under q.

    The link is the softmax (the sigmoid for one score) unless the loss has its own, in `LINKS`, or one is
    given.
    Refuted by a q and logits whose risk is below that of the truth's, at any shift of these that
    leaves them the truth. The value is the largest total variation between q and what the link
    reads in the best logits found.
    """
    if why := why_no_game(subject):
        return Finding("not applicable", why)
    found = minima(subject, trials)
    bias = distance(found.game.link(found.best), found.q)
    gain = found.honest - found.least
    gain = torch.where(gain > ROUNDING * (1 + found.honest.abs()), gain, 0)
    evidence: dict[str, Any] = {"distributions": float(trials), "link": _link_name(subject)}
    largest = float(bias.max())
    if gain.max() > 0:
        i = int(gain.argmax())
        forecast = found.game.link(found.best[i : i + 1])[0]
        return Finding(
            "refuted",
            f"read by {_link_name(subject)}, the best forecast found is off by up to {largest:.2g}; "
            f"it gains up to {gain[i]:.2g}",
            trials,
            largest,
            {
                **_pair(found, i, found.best[i], found.least[i]),
                "forecast at the minimizer": numbers(forecast),
                **evidence,
            },
        )
    return Finding(
        "not refuted",
        f"read by {_link_name(subject)}, nothing found is below the risk of the truth; "
        f"the minimizers are off by up to {largest:.1g}",
        trials,
        largest,
        {**evidence, "closest call": float((found.honest - found.least).max())},
    )


def _pair(found: Minima, i: int, other: Tensor, risk: Tensor) -> dict[str, Any]:
    return {
        "q": numbers(found.q[i]),
        "logits of the truth": numbers(found.game.inputs(found.truth[i : i + 1])[0]),
        "their risk": float(found.honest[i]),
        "other logits": numbers(found.game.inputs(other[None])[0]),
        "risk of those": float(risk),
    }


def strictly_proper(subject: Subject, trials: int) -> Finding:
    """The truth is the only best forecast: what minimizes the expected loss under q is read as q.

    Refuted where the loss is not proper, and else by logits that cost no more than the truth's and
    are read as a forecast at least 0.01 away in total variation.
    """
    if why := why_no_game(subject):
        return Finding("not applicable", why)
    first = proper(subject, trials)
    if first.verdict == "refuted":
        return Finding("refuted", "not proper", trials, first.value, first.evidence)
    found = minima(subject, trials)
    forecasts = found.game.link(found.ends.flatten(0, 1)).unflatten(0, found.ends.shape[:2])
    away = distance(forecasts, found.q[:, None])
    excess = found.ends_risk - found.honest[:, None]
    tied = (excess <= ROUNDING * (1 + found.honest[:, None].abs())) & (away > SAME)
    if tied.any():
        i, j = divmod(int(torch.where(tied, away, 0).argmax()), away.shape[1])
        return Finding(
            "refuted",
            f"a forecast {away[i, j]:.2g} away from the truth costs no more",
            trials,
            float(away[i, j]),
            {
                **_pair(found, i, found.ends[i, j], found.ends_risk[i, j]),
                "its forecast": numbers(forecasts[i, j]),
            },
        )
    largest = float(torch.where(excess <= ROUNDING, away, 0).max())
    return Finding(
        "not refuted",
        f"all minimizers found are within {largest:.1g} of the truth",
        trials,
        largest,
        {"minimizers": float(found.ends_risk.numel())},
    )


# --- Decisions --------------------------------------------------------------------------------


def calibrated(subject: Subject, trials: int) -> Finding:
    """Wrong decisions cost: where a less likely class leads, the expected loss is not the lowest.

    For each q and each class k with at least 0.1 less probability than the likeliest, the risk is
    minimized over all logits and over those with the largest at k. Refuted where the second is no
    larger, but for what the search leaves over. The value is the smallest difference found.
    """
    if why := why_no_game(subject):
        return Finding("not applicable", why)
    found = minima(subject, trials)
    gap = torch.where(_lead(found.q) >= LEAD, found.led_risk - found.least[:, None], torch.inf)
    i, k = divmod(int(gap.argmin()), gap.shape[1])
    smallest, lead = float(gap[i, k]), float(_lead(found.q)[i, k])
    likeliest = int(found.q[i].argmax())

    def logits(z: Tensor) -> Any:
        return numbers(found.game.inputs(z[None])[0])

    evidence = {
        "q": numbers(found.q[i]),
        "logits that decide for a less likely class": logits(found.led[i, k]),
        "their risk": float(found.led_risk[i, k]),
        "best logits found": logits(found.best[i]),
        "risk of those": float(found.least[i]),
        "best logits found that decide for the likeliest": logits(found.led[i, likeliest]),
        "risk of these": float(found.led_risk[i, likeliest]),
    }
    usual = found.game.losses(torch.eye(found.game.classes, dtype=found.q.dtype)).detach()
    cases = int((_lead(found.q) >= LEAD).sum())
    if smallest <= FREE * float(usual.max() - usual.min()):
        text = f"to decide for a class {lead:.2g} less likely than the best costs nothing"
        return Finding("refuted", text, cases, smallest, evidence)
    text = (
        f"to decide for a less likely class costs at least {smallest:.2g} ({lead:.2g} less likely)"
    )
    return Finding("not refuted", text, cases, smallest, evidence)


# --- Invariances ------------------------------------------------------------------------------


def _points(subject: Subject, game: Game, trials: int) -> Tensor:
    generator = torch.Generator().manual_seed(SEED)
    z = 2 * torch.randn(trials, game.classes, generator=generator, dtype=torch.float64)
    return game.inputs(z)


def _unchanged(
    before: Tensor, after: Tensor, points: Tensor, moved: Tensor, how: str, trials: int
) -> Finding:
    """Compares losses under every label (M, C) at points and at what became of them."""
    change = (after - before).abs()
    worst = int(change.amax(1).argmax())
    k = int(change[worst].argmax())
    size = float(change[worst, k])
    evidence = {
        "inputs": numbers(points[worst]),
        "moved to": numbers(moved[worst]),
        "label": float(k),
        "losses": [float(before[worst, k]), float(after[worst, k])],
    }
    if size > ROUNDING * (1 + float(before.abs().max())):
        text = f"{how}, from {before[worst, k]:.4g} to {after[worst, k]:.4g}"
        return Finding("refuted", text, trials, size, evidence)
    return Finding("not refuted", f"largest change {size:.0e}", trials, size, evidence)


def shift_invariant(subject: Subject, trials: int) -> Finding:
    """Adding one number to all logits changes nothing: loss(z + c, y) = loss(z, y).

    Tried with numbers c from 0.1 to 10, also negative ones where the inputs may be.
    """
    if why := why_no_game(subject):
        return Finding("not applicable", why)
    if subject.kind_name == "scores, target":
        return Finding("not applicable", "one score has no constant in common with others")
    game = game_of(subject)
    x = _points(subject, game, trials)
    c = torch.logspace(-1, 1, trials, dtype=x.dtype).unsqueeze(1)
    if "distances" not in subject.arguments:
        c[::2] *= -1
    before, after = game.table(x).detach(), game.table(x + c).detach()
    return _unchanged(before, after, x, x + c, "a shift changes the loss", trials)


def scale_invariant(subject: Subject, trials: int) -> Finding:
    """Multiplying the logits by a positive number changes nothing: loss(t z, y) = loss(z, y).

    Tried with factors t from 0.1 to 10.
    """
    if why := why_no_game(subject):
        return Finding("not applicable", why)
    game = game_of(subject)
    x = _points(subject, game, trials)
    t = torch.logspace(-1, 1, trials, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    before, after = game.table(x).detach(), game.table(t * x).detach()
    return _unchanged(before, after, x, t * x, "a factor changes the loss", trials)


def permutation_equivariant(subject: Subject, trials: int) -> Finding:
    """Classes have no names that matter: renaming them in logits and label changes nothing.

    loss(z_pi, pi(y)) = loss(z, y), tried with every permutation pi; for one score, loss(-f, 1 - y)
    = loss(f, y).
    """
    if why := why_no_game(subject):
        return Finding("not applicable", why)
    game = game_of(subject)
    x = _points(subject, game, trials)
    before = game.table(x).detach()
    if x.ndim == 1:
        return _unchanged(
            before,
            game.table(-x).detach().flip(1),
            x,
            -x,
            "swapping the classes changes the loss",
            trials,
        )
    orders = torch.stack(list(torch.cartesian_prod(*[torch.arange(game.classes)] * game.classes)))
    orders = orders[(orders.sort(1).values == torch.arange(game.classes)).all(1)]
    order = orders[torch.arange(trials) % len(orders)]
    moved = x.gather(1, order)
    after = torch.empty_like(before).scatter(1, order, game.table(moved).detach())
    return _unchanged(before, after, x, moved, "renaming changes the loss", trials)


# --- Gradients --------------------------------------------------------------------------------


def _norm_at(subject: Subject, right: bool) -> Finding:
    if why := why_no_game(subject):
        return Finding("not applicable", why)
    game = game_of(subject)
    z = [10.0, 0.0, 0.0] if right else [0.0, 10.0, 10.0]
    x = torch.tensor([z[: game.classes]], dtype=torch.float64)
    if game.classes == 2:
        x = game.inputs(x)
    if "distances" in subject.arguments:
        x = x.amax() + 0.1 - x
    slope = gradient(lambda x: game.table(x)[:, 0], x)
    norm = float(slope.norm())
    value = float(game.table(x)[0, 0])
    return Finding(
        "measured",
        f"norm {norm:.3g}, where the loss is {value:.3g}",
        1,
        norm,
        {"inputs": numbers(x[0]), "label": 0.0, "loss": value, "gradient": numbers(slope[0])},
    )


def gradient_when_right(subject: Subject, trials: int) -> Finding:
    """The norm of the gradient where the label's logit is 10 above all others, which are 0.

    Of distances, where the label's is 0.1 and all others are 10.1. A loss that neither shift nor
    scale changes is at its least there, without a slope.
    """
    return _norm_at(subject, right=True)


def gradient_when_wrong(subject: Subject, trials: int) -> Finding:
    """The norm of the gradient where the label's logit is 0 and all others are 10.

    Of distances, where the label's is 10.1 and all others are 0.1.
    """
    return _norm_at(subject, right=False)


def gradient_at_the_optimum(subject: Subject, trials: int) -> Finding:
    """The gradient's norm at the lowest expected loss found, and how flat it is there.

    Zero at a smooth minimum, or far out where the loss is flat; not at a kink. Flat directions are
    counted by eigenvalues of the Hessian below a millionth of the largest, or of 1. The value is
    the median norm.
    """
    if why := why_no_game(subject):
        return Finding("not applicable", why)
    found = minima(subject, trials)

    inputs = found.game.inputs(found.best)

    def risk(flat: Tensor) -> Tensor:
        return (found.q * found.game.table(flat.reshape(inputs.shape))).sum(1)

    points = inputs.reshape(trials, -1)
    norms = gradient(risk, points).norm(dim=1)
    spectrum = torch.linalg.eigvalsh(hessian(risk, points).nan_to_num(0, 0, 0)).abs()
    flat = (spectrum <= 1e-6 * spectrum.amax(1, keepdim=True).clamp(min=1)).sum(1).double()
    one = points.shape[1] == 1
    spread = points.abs().amax(1) if one else points.amax(1) - points.amin(1)
    median = float(norms.median())
    return Finding(
        "measured",
        f"median norm {median:.1g}; flat in {flat.median():.0f} of {points.shape[1]} directions; "
        f"inputs {'of' if one else 'apart by'} {spread.median():.3g}",
        trials,
        median,
        {
            "largest norm": float(norms.max()),
            "median of the largest curvature": float(spectrum.amax(1).median()),
            "median number of flat directions": float(flat.median()),
            "median spread of the inputs": float(spread.median()),
        },
    )


PROPERTIES: dict[str, Callable[[Subject, int], Finding]] = {
    "symmetric": sparing(symmetric),
    "proper": sparing(proper),
    "strictly proper": sparing(strictly_proper),
    "calibrated": sparing(calibrated),
    "shift invariant": sparing(shift_invariant),
    "scale invariant": sparing(scale_invariant),
    "permutation equivariant": sparing(permutation_equivariant),
    "gradient when right": sparing(gradient_when_right),
    "gradient when wrong": sparing(gradient_when_wrong),
    "gradient at the optimum": sparing(gradient_at_the_optimum),
}
