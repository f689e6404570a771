"""What a loss says of labels and probabilities: noise, honesty, decisions, and what leaves it unchanged.

Three classes are played with, or the two of a loss of one score. The conditional risk of logits z under label
probabilities q is

    R(z; q) = sum_k q_k loss(z, k),

what an example costs on average whose label is drawn from q. All distributions, and all starts of the search
for minima, are one batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossbook.classification import entmax, sparse_softmax, sparsemax
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
)

CLASSES = 3
# Differences below this, relative to the numbers compared, may be rounding.
ROUNDING = 1e-9
# A decision is wrong if its class has at least so much less probability than the best: with less, the
# difference in risk would be too small to tell from none.
LEAD = 0.1
# By how much a wrong class leads at least, so that no tie-breaking makes it right.
STRICT = 1e-6
# Wrong decisions that cost at most so much more than the best logits found cost nothing: what the search
# and the strict lead leave over, times the size of the risk.
FREE = 1e-5
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


#: How a loss's inputs are read as probabilities, (M, C) to (M, C), given its hyperparameters: for losses whose
#: reading is not the softmax (for one score, the sigmoid). Add your own loss by its name.
LINKS: dict[str, Callable[..., Tensor]] = {
    "entmax_loss": lambda x, *, alpha=1.5, **_: entmax(x, alpha=alpha),
    "fenchel_young_loss": _conjugate_gradient,
    "harmonic_loss": _harmonic,
    "poly_focal_loss": lambda x, **_: x.sigmoid(),
    "sparse_softmax_loss": lambda x, *, k=10, **_: sparse_softmax(x, k=k),
    "sparsemax_loss": lambda x, **_: sparsemax(x),
    "spherical_softmax_loss": _spherical,
}


# --- Scores of classes ------------------------------------------------------------------------


class Game(NamedTuple):
    """A loss of class scores z (M, C), whatever it calls them: the larger, the likelier its class.

    ``inputs`` makes of scores what the loss takes: one score for two classes is the second less the first,
    distances and the even inputs of the spherical softmax are exponentials.
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
        own = LINKS.get(subject.name, lambda f, **_: f.sigmoid())

        def link(z: Tensor) -> Tensor:
            p = own(z[:, 1] - z[:, 0], **settings)
            return torch.stack([1 - p, p], 1)

        return Game(2, lambda z: z[:, 1] - z[:, 0], table_of(subject, 2), link)
    inputs: Callable[[Tensor], Tensor] = lambda z: z  # noqa: E731
    if "distances" in subject.arguments:
        inputs = lambda z: (-z).exp()  # noqa: E731
    elif subject.name == "spherical_softmax_loss":
        inputs = torch.exp
    map_to = LINKS.get(subject.name, _softmax)
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
    best: Tensor  # (T, C), the scores of the lowest risk found
    least: Tensor  # (T,), that risk
    wrong: Tensor  # (T, C, C): by class, the best scores at which it leads all others
    wrong_least: Tensor  # (T, C)
    ends: Tensor  # (T, F, C), where the descents without constraints ended
    ends_risk: Tensor  # (T, F)
    starts: int


def _truths(game: Game, trials: int) -> Tensor:
    """Scores whose probabilities are of all sorts: even, without a majority, all but certain."""
    generator = torch.Generator().manual_seed(SEED)
    shape = (trials, game.classes)
    odds = torch.rand(shape, generator=generator, dtype=torch.float64).clamp(min=1e-3)
    z = (
        -odds.log()
    ).log()  # logarithms of exponential numbers: their softmax is uniform on the simplex
    z = z - z.mean(1, keepdim=True)
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
    """Minimizes the conditional risk: of all scores, of those that are the truth but for a shift, and of those
    that decide for a given class."""
    game = game_of(subject)
    classes = game.classes
    truth = _truths(game, trials)
    q = game.link(truth)
    q = q / q.sum(1, keepdim=True)
    generator = torch.Generator().manual_seed(SEED + 1)
    random = torch.randn(2, trials, classes, generator=generator, dtype=truth.dtype)
    top = torch.nn.functional.one_hot(q.argmax(1), classes).to(truth)
    free = [truth, torch.zeros_like(truth), 3 * top, *random, 3 * random.flip(0)[0]]

    # Rows of one batch; of those with a leader, it has x_k and the others x_k - x_j^2 - STRICT.
    rows, leaders, origins = list(free), [-1] * len(free), torch.arange(trials)
    rows.append(torch.zeros_like(truth))  # the shift of the truth
    leaders.append(-2)
    for k in range(classes):
        for z in (truth, random[0]):
            highest = z.amax(1, keepdim=True)
            root = (highest - z + 0.01).sqrt()
            root[:, k] = highest[:, 0]
            rows.append(root)
            leaders.append(k)
    leader = torch.tensor(leaders).repeat_interleave(trials).unsqueeze(1)
    weights, origin = q.repeat(len(rows), 1), truth.repeat(len(rows), 1)
    column = torch.arange(classes)

    def scores(x: Tensor) -> Tensor:
        ahead = x.gather(1, leader.clamp(min=0))
        led = torch.where(column == leader, x, ahead - x.square() - STRICT)
        shifted = origin + x.mean(1, keepdim=True)
        return torch.where(leader == -1, x, torch.where(leader == -2, shifted, led))

    x, risk = descend(lambda x: game.risk(scores(x), weights), torch.cat(rows))
    z, risk = scores(x).unflatten(0, (-1, trials)), risk.unflatten(0, (-1, trials))

    count = len(free)
    still_true = (game.link(z[count]) - q).abs().sum(1) < ROUNDING
    start = game.risk(truth, q)
    honest = torch.where(still_true, torch.minimum(risk[count], start), start)
    truth = torch.where((still_true & (risk[count] < start)).unsqueeze(1), z[count], truth)
    least, which = risk.min(0)
    pairs = risk[count + 1 :].unflatten(0, (classes, -1))
    wrong_least, better = pairs.min(1)
    wrong = z[count + 1 :].unflatten(0, (classes, -1))
    wrong = wrong.gather(1, better[:, None, :, None].expand(-1, 1, -1, classes)).squeeze(1)
    return Minima(
        game, q, truth, honest, z[which, origins], least, wrong.transpose(0, 1), wrong_least.T,
        z[:count].transpose(0, 1), risk[:count].T, len(rows),
    )  # fmt: skip


def distance(p: Tensor, q: Tensor) -> Tensor:
    """Total variation."""
    return (p - q).abs().sum(-1) / 2


# --- Noise ------------------------------------------------------------------------------------


def symmetric(subject: Subject, trials: int) -> Finding:
    """The losses of an example under all labels add up to a constant.

    Then flipping labels evenly moves no minimizer of the risk (Ghosh, Kumar and Sastry, 2017). Tried at inputs
    from 0.1 to 10 times ordinary ones; refuted by two of them with different sums.
    """
    if subject.arguments[-1] != "target" or not by_example(subject):
        return Finding("not applicable", "no loss of one example under every label")
    classes = C if subject.kind.classes else 2
    inputs = draw(subject, (trials, C))
    scale = torch.logspace(-1, 1, trials, dtype=torch.float64)
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
    """The truth is a best forecast: logits that the link reads as q minimize the expected loss under q.

    The link is the softmax (the sigmoid for one score) unless the loss has its own, in `LINKS`. Refuted by a q
    and logits whose risk is below that of the truth's, at any shift of these that leaves them the truth. The
    value is the largest total variation between q and what the link reads in the best logits found.
    """
    if why := why_no_game(subject):
        return Finding("not applicable", why)
    found = minima(subject, trials)
    bias = distance(found.game.link(found.best), found.q)
    gain = found.honest - found.least
    gain = torch.where(gain > ROUNDING * (1 + found.honest.abs()), gain, 0)
    evidence: dict[str, Any] = {"distributions": float(trials), "starts each": float(found.starts)}
    largest = float(bias.max())
    if gain.max() > 0:
        i = int(gain.argmax())
        forecast = found.game.link(found.best[i : i + 1])[0]
        return Finding(
            "refuted",
            f"the best forecast found is off by up to {largest:.2g}; here {gain[i]:.2g} is gained by it",
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
        f"no logits found below the risk of the truth's; the minimizers are off by up to {largest:.1g}",
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
    """The truth is the only best forecast: whatever minimizes the expected loss under q, the link reads as q.

    Refuted where the loss is not proper, and else by logits that cost no more than the truth's and are read as a
    forecast at least 0.01 away in total variation.
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
    """Wrong decisions cost: logits that put a less likely class first stay above the lowest expected loss.

    For each q and each class k with at least 0.1 less probability than the likeliest, the risk is minimized over
    all logits and over those with the largest at k. Refuted where the second is no larger, but for what the
    search leaves over. The value is the smallest difference found.
    """
    if why := why_no_game(subject):
        return Finding("not applicable", why)
    found = minima(subject, trials)
    lead = found.q.amax(1, keepdim=True) - found.q
    gap = torch.where(lead >= LEAD, found.wrong_least - found.least[:, None], torch.inf)
    size = found.game.risk(torch.zeros_like(found.q), found.q) - found.least
    i, k = divmod(int(gap.argmin()), gap.shape[1])
    smallest = float(gap[i, k])
    evidence = {
        "q": numbers(found.q[i]),
        "best logits": numbers(found.game.inputs(found.best[i : i + 1])[0]),
        "their risk": float(found.least[i]),
        "the wrong class": float(k),
        "logits that decide for it": numbers(found.game.inputs(found.wrong[i, k : k + 1])[0]),
        "risk of those": float(found.wrong_least[i, k]),
        "starts each": float(found.starts),
    }
    cases = int((lead >= LEAD).sum())
    if smallest <= FREE * max(1.0, float(size[i].abs())):
        return Finding(
            "refuted",
            f"deciding for a class {lead[i, k]:.2g} less likely than the best costs nothing "
            f"(a difference in risk of {smallest:.0e})",
            cases,
            smallest,
            evidence,
        )
    return Finding(
        "not refuted",
        f"wrong decisions cost at least {smallest:.2g} more than the best logits",
        cases,
        smallest,
        evidence,
    )


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

    loss(z_pi, pi(y)) = loss(z, y), tried with every permutation pi; for one score, loss(-f, 1 - y) = loss(f, y).
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
    z = [10.0, 0.0, -1.0] if right else [0.0, 10.0, 11.0]
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
    """The norm of the gradient where the label's logit is 10 above all others.

    Of distances, where the label's is 10 below all others.
    """
    return _norm_at(subject, right=True)


def gradient_when_wrong(subject: Subject, trials: int) -> Finding:
    """The norm of the gradient where the label's logit is 10 below all others.

    Of distances, where the label's is 10 above all others.
    """
    return _norm_at(subject, right=False)


def gradient_at_the_optimum(subject: Subject, trials: int) -> Finding:
    """The norm of the gradient of the expected loss at the best logits found, and how flat it is there.

    Zero at a smooth minimum, or far out where the loss is flat; not at a kink. Flat directions are counted by
    eigenvalues of the Hessian below a millionth of the largest, or of 1. The value is the median norm.
    """
    if why := why_no_game(subject):
        return Finding("not applicable", why)
    found = minima(subject, trials)

    def risk(z: Tensor) -> Tensor:
        return found.game.risk(z, found.q)

    norms = gradient(risk, found.best).norm(dim=1)
    spectrum = torch.linalg.eigvalsh(hessian(risk, found.best).nan_to_num(0, 0, 0)).abs()
    flat = (spectrum <= 1e-6 * spectrum.amax(1, keepdim=True).clamp(min=1)).sum(1).double()
    size = found.best.abs().amax(1)
    median = float(norms.median())
    return Finding(
        "measured",
        f"median norm {median:.1g}; flat in {flat.median():.0f} of {found.game.classes} directions; "
        f"logits up to {size.median():.3g}",
        trials,
        median,
        {
            "largest norm": float(norms.max()),
            "median of the largest curvature": float(spectrum.amax(1).median()),
            "median number of flat directions": float(flat.median()),
            "median of the largest logit": float(size.median()),
        },
    )


PROPERTIES: dict[str, Callable[[Subject, int], Finding]] = {
    "symmetric": symmetric,
    "proper": proper,
    "strictly proper": strictly_proper,
    "calibrated": calibrated,
    "shift invariant": shift_invariant,
    "scale invariant": scale_invariant,
    "permutation equivariant": permutation_equivariant,
    "gradient when right": gradient_when_right,
    "gradient when wrong": gradient_when_wrong,
    "gradient at the optimum": gradient_at_the_optimum,
}
