"""What is measured of the numbers of a loss, against losses made to have or to lack each property."""

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from lossbook.lab.contracts.finding import Finding
from lossbook.lab.contracts.kinds import KINDS, Subject, kind_of, losses
from lossbook.lab.contracts.numerics import PROPERTIES, LiveBytes, described, ends, hyperparameters

LOSSES = losses()
FIRST_OF_KIND = {kind_of(loss): name for name, loss in reversed(LOSSES.items())}


def find(name: str, loss: str | Callable[..., Tensor], kind: str = "", **settings: Any) -> Finding:
    function = LOSSES[loss] if isinstance(loss, str) else loss
    kind = kind or (kind_of(function) if isinstance(loss, str) else "logits, target")
    called = loss if isinstance(loss, str) else "own"
    return PROPERTIES[name](Subject(called, function, kind, settings), 200)


# Losses that a reader might bring, most of them broken.


def naive(logits: Tensor, target: Tensor) -> Tensor:
    return -logits.softmax(1).log().gather(1, target[:, None]).squeeze(1)


def in_place(logits: Tensor, target: Tensor) -> Tensor:
    logits -= logits.logsumexp(1, keepdim=True)
    return -logits.gather(1, target[:, None]).mean()


def in_numpy(logits: Tensor, target: Tensor) -> Tensor:
    p = np.exp(logits.detach().numpy())
    return torch.from_numpy(-np.log(p[np.arange(len(p)), target.numpy()] / p.sum(1)))


def branching(logits: Tensor, target: Tensor) -> Tensor:
    return cross_entropy(logits, target) if logits.max() > 0 else logits.sum()


class Doubled(torch.autograd.Function):
    """The square, with a gradient twice as large as it is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        return 4 * ctx.saved_tensors[0] * slopes[0]


class Once(Doubled):
    """The square, with the right gradient, through which nothing flows."""

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0].detach() * slopes[0]


# --- The package ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_property_of_every_kind(kind: str) -> None:
    for name, examine in PROPERTIES.items():
        if name in ("compiles", "memory in examples", "range in bfloat16"):
            continue  # these take longest, and are tested elsewhere
        loss = FIRST_OF_KIND[kind]
        finding = examine(Subject(loss, LOSSES[loss], kind), 5)
        assert finding.text
        assert finding.verdict != "refuted" or finding.evidence


def test_every_property_is_defined() -> None:
    for name, examine in PROPERTIES.items():
        first = (examine.__doc__ or "").splitlines()[0]
        assert first.endswith("."), name


# --- Limits -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss, limit, expected",
    [
        ("focal_loss", "gamma -> 0", "cross_entropy and comp_sum_loss"),
        ("focal_loss", "gamma -> inf", "the constant 0"),
        ("dual_focal_loss", "gamma -> 0", "cross_entropy and comp_sum_loss"),
        ("halted_focal_loss", "halt -> 1", "focal_loss"),
        ("halted_focal_loss", "halt -> 0", "cross_entropy and comp_sum_loss"),
        ("poly_loss", "epsilon -> -inf", "diverges like epsilon"),
        ("entmax_loss", "alpha -> 1", "cross_entropy and comp_sum_loss"),
        ("entmax_loss", "alpha -> 2", "sparsemax_loss"),
        ("sparse_softmax_loss", "k -> inf", "cross_entropy and comp_sum_loss"),
        ("cross_entropy", "label_smoothing -> 1", "finite, and the same for all labels"),
        ("rescaled_square_loss", "magnitude -> inf", "diverges like (magnitude)^2"),
        ("info_nce_loss", "temperature -> 0", "diverges like 1/temperature"),
        ("info_nce_loss", "temperature -> inf", f"the constant {math.log(5):.4f}"),
        ("weighted_decoupled_contrastive_loss", "sigma -> inf", "decoupled_contrastive_loss"),
        ("align_uniform_loss", "uniform_weight -> 0", "alignment_loss"),
    ],
)
def test_known_limits(loss: str, limit: str, expected: str) -> None:
    assert limits(loss)[limit] == expected


@cache
def limits(loss: str) -> Mapping[str, str]:
    return find("limits", loss).evidence


def test_a_limit_up_to_a_constant() -> None:
    """LDR-KL has a mean over the 12 classes where cross-entropy has a sum."""
    found = find("limits", "ldr_kl_loss").evidence["margin -> 0"]
    assert found.startswith(f"cross_entropy - {math.log(12):.3f}")


def test_settings_are_kept() -> None:
    """Of the two parameters of halted focal loss the other one stays as it is set."""
    found = find("limits", "halted_focal_loss", gamma=0.0).evidence
    assert found["halt -> 1"].startswith("cross_entropy")


@pytest.mark.parametrize("mean", [False, True])
def test_limits_of_an_own_loss(mean: bool) -> None:
    """Its docstring gives the range; the open end is approached, and the factor 2 is found."""

    def mixed(logits: Tensor, target: Tensor, *, share: float = 0.5, scale: float = 1.0) -> Tensor:
        """A mixture.

        Args:
            share: in (0, 1], of cross-entropy.
            scale (float): positive.
        """
        if not 0 < share <= 1:
            raise ValueError("share must be in (0, 1]")
        brier = (logits.softmax(1) - one_hot(target, logits.shape[1])).square().sum(1)
        value = share * cross_entropy(logits, target, reduction="none") + 2 * (1 - share) * brier
        value = value + math.log(scale)
        return value.mean() if mean else value

    found = find("limits", mixed).evidence
    assert found["share -> 0"] == "2 brier_loss"
    assert found["share -> 1"] == "cross_entropy and comp_sum_loss"
    assert found["scale -> inf"] == "diverges like log(scale)"


def test_limits_without_a_docstring() -> None:
    def own(logits: Tensor, target: Tensor, power: float = 1.0, smoothing: float = 0.1) -> Tensor:
        assert 0 <= smoothing <= 1
        return cross_entropy(logits, target, reduction="none", label_smoothing=smoothing) ** power

    found = find("limits", own).evidence
    assert found["power -> 0"] == "the constant 1"
    assert found["power -> inf"] == "diverges"
    assert found["smoothing -> 0"].startswith("cross_entropy")
    assert found["smoothing -> inf"].startswith("at 1e+06 it raises AssertionError")


def test_no_hyperparameters() -> None:
    assert find("limits", "brier_loss").verdict == "not applicable"


def test_hyperparameters_are_numbers_that_mean_something() -> None:
    def own(
        logits: Tensor,
        target: Tensor,
        ignore_index: int = -100,
        gather: bool = False,
        weight: Tensor | None = None,
        k: int = 3,
        alpha: float | None = None,
    ) -> Tensor:
        return logits.sum()

    subject = Subject("own", own, "logits, target", {"k": 5})
    assert hyperparameters(subject) == {"k": 5, "alpha": None}


@pytest.mark.parametrize(
    "description, expected",
    [
        ("t, positive; 2 in the paper.", (0, math.inf)),
        ("at least 1; at most what there is.", (1, math.inf)),
        ("h, in (0, 1]; positive.", (0, 1)),
        ("A float in [0.0, 1.0]. Specifies", (0, 1)),
        ("any sign. 0 is focal loss.", (-math.inf, math.inf)),
        ("at least 0; below 1 it is small, in (1, 2) large", (0, math.inf)),
        ("", (0, math.inf)),
    ],
)
def test_ranges_are_read(description: str, expected: tuple[float, float]) -> None:
    assert ends(description) == expected


def test_the_entry_of_a_parameter_is_read() -> None:
    def own(logits: Tensor, *, gamma: float, margin: float) -> None:
        """A loss with gamma: this is not its entry.

        Args:
            logits: (N, C).
            gamma (float, optional): at least 0, and
                in [0, 1] for most.
            margin: positive.

        Returns:
            Nothing.
        """

    assert described(own, "gamma") == "at least 0, and in [0, 1] for most."
    assert described(own, "margin") == "positive."
    assert described(own, "tau") == ""


# --- Precision --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_naive_softmax_underflows(dtype: str) -> None:
    finding = find(f"range in {dtype}", naive)
    assert finding.verdict == "refuted"
    evidence = finding.evidence
    logits = torch.tensor(evidence["logits"], dtype=getattr(torch, dtype))
    assert logits.softmax(1)[0, evidence["target"][0]] == 0
    assert "inf" in finding.text
    # The largest logits of each size differ by twice their size: when does their odds underflow?
    smallest = {"float16": 6e-8, "bfloat16": 1e-38, "float32": 1e-45, "float64": 5e-324}[dtype]
    assert math.exp(-2 * min(finding.value or 0, 300)) > smallest
    assert -20 * (finding.value or 0) < math.log(smallest)


def test_cross_entropy_has_the_whole_range() -> None:
    for dtype, largest in [("float64", 1e38), ("float32", 1e38), ("float16", 1e4)]:
        finding = find(f"range in {dtype}", "cross_entropy")
        assert finding.verdict == "not refuted"
        assert finding.value == largest


def test_a_saturated_loss_has_no_gradient() -> None:
    finding = find("range in float32", "brier_loss")
    assert finding.verdict == "refuted" and "gradient" in finding.text
    logits = torch.tensor(finding.evidence["logits"], requires_grad=True)
    label = torch.tensor(finding.evidence["target"])
    assert logits.softmax(1).gather(1, label[:, None]) == 0
    (logits.softmax(1) - one_hot(label, 4)).square().sum().backward()
    assert logits.grad is not None and not logits.grad.any()


def test_overflow_beyond_what_is_promised_is_measured() -> None:
    def fourth(logits: Tensor, target: Tensor) -> Tensor:
        return logits.pow(4).sum(1)

    finding = find("range in float32", fourth)
    assert finding.verdict == "not refuted"
    assert finding.value == 1e9  # 1e36 fits, 1e40 does not
    finding = find("range in float16", fourth)
    assert finding.verdict == "refuted"
    assert finding.value == 10
    assert abs(finding.evidence["logits"][0][0]) == 100


def test_no_gradient_at_zero() -> None:
    def norm(logits: Tensor, target: Tensor) -> Tensor:
        return logits.square().sum(1).sqrt()

    finding = find("range in float64", norm)
    assert finding.verdict == "refuted" and finding.text == "at 0 the gradient is not finite"
    assert finding.evidence["logits"] == [[0, 0, 0, 0]]


def test_what_is_refused_is_not_wrong() -> None:
    finding = find("range in float64", "pairwise_confusion_loss")
    assert finding.verdict == "not refuted"
    assert "refused: ValueError" in finding.text
    assert finding.value == 1


def test_sums_are_not_formed_in_half_precision() -> None:
    """Five values of 40000 are finite in float16; their sum is not the loss's affair."""

    def own(scores: Tensor, target: Tensor) -> Tensor:
        return 4 * scores

    assert find("range in float16", own, "scores, target").value == 1e4


# --- Reductions and derivatives ---------------------------------------------------------------


def test_reductions() -> None:
    def wrong(logits: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
        none = cross_entropy(logits, target, reduction="none")
        return {"none": none, "sum": none.sum(), "mean": none.sum() / logits.numel()}[reduction]

    assert find("reductions", "cross_entropy").verdict == "not refuted"
    assert find("reductions", "supervised_contrastive_loss").verdict == "not refuted"
    assert find("reductions", naive).verdict == "not applicable"
    finding = find("reductions", wrong)
    assert finding.verdict == "refuted"
    logits = torch.tensor(finding.evidence["logits"])
    none = cross_entropy(logits, torch.tensor(finding.evidence["target"]), reduction="none")
    torch.testing.assert_close(torch.tensor(finding.evidence["none"]), none)
    assert finding.evidence["mean"] == pytest.approx(none.mean().item() / 4)


def test_derivatives() -> None:
    def doubled(logits: Tensor, target: Tensor) -> Tensor:
        return Doubled.apply(logits).sum(1)

    def once(logits: Tensor, target: Tensor) -> Tensor:
        return Once.apply(logits).sum(1)

    def linear(logits: Tensor, target: Tensor) -> Tensor:
        return 2 * logits.sum(1) - logits.detach().sum(1)

    verdicts = {
        loss: [find(name, loss).verdict for name in ("gradcheck", "gradgradcheck")]
        for loss in (doubled, once, linear, naive)
    }
    assert verdicts[doubled][0] == verdicts[linear][0] == "refuted"
    assert verdicts[once] == ["not refuted", "refuted"]
    assert verdicts[naive] == ["not refuted", "not refuted"]
    finding = find("gradcheck", doubled)
    assert "Jacobian mismatch" in finding.evidence["error"]
    assert len(finding.evidence["logits"]) == 5


# --- Transformations --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss, name, message",
    [
        (in_place, "compiles", "fake tensor"),
        (in_place, "vmap", "in-place operation"),
        (in_numpy, "compiles", "does not require grad"),
        (in_numpy, "vmap", "data pointer"),
        (branching, "compiles", "ranching"),
        (branching, "vmap", "control flow"),
    ],
)
def test_losses_that_cannot_be_transformed(
    loss: Callable[..., Tensor], name: str, message: str
) -> None:
    finding = find(name, loss)
    assert finding.verdict == "refuted"
    assert message in finding.text
    assert "\n" not in finding.text
    assert set(finding.evidence) == {"logits", "target"}


def test_losses_that_can() -> None:
    for name in ("compiles", "vmap"):
        for loss in ("cross_entropy", naive):
            assert find(name, loss).verdict == "not refuted"


def test_other_values_when_transformed() -> None:
    def own(logits: Tensor, target: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return 2 * logits.sum(1)
        wrapped = torch._C._functorch.is_functorch_wrapped_tensor(logits)
        return (2 if wrapped else 1) * logits.sum(1)

    for name in ("compiles", "vmap"):
        finding = find(name, own)
        assert finding.verdict == "refuted" and finding.text.startswith("off by")


def test_a_loss_that_fails_when_called_is_no_finding() -> None:
    def broken(logits: Tensor, target: Tensor) -> Tensor:
        raise ZeroDivisionError("broken")

    for name in ("gradcheck", "compiles", "vmap", "memory in examples"):
        with pytest.raises(ZeroDivisionError, match="broken"):
            find(name, broken)


# --- Memory -----------------------------------------------------------------------------------


def test_live_bytes_are_counted() -> None:
    x = torch.randn(1000, dtype=torch.float64, requires_grad=True)
    with LiveBytes() as counter:
        torch.autograd.grad(x.exp().sum(), x)
    assert 2 * 8000 <= counter.peak < 2 * 8000 + 100  # exp is kept for the gradient; the gradient


def test_what_is_dead_is_not_counted() -> None:
    x = torch.randn(1000, dtype=torch.float64)
    with LiveBytes() as counter:
        for _ in range(10):
            (x * 2).view(10, 100)[1:].sum()
    assert 8000 <= counter.peak < 8000 + 100


def test_memory() -> None:
    def of_pairs(logits: Tensor, target: Tensor) -> Tensor:
        return (logits @ logits.mT).exp().mean()

    def of_classes(logits: Tensor, target: Tensor) -> Tensor:
        return (logits.mT @ logits).exp().mean()

    def powers(loss: str | Callable[..., Tensor]) -> list[float]:
        names = ("memory in examples", "memory in classes")
        return [round(find(name, loss).value or 0) for name in names]

    assert powers("cross_entropy") == [1, 1]
    assert powers(of_pairs) == [2, 1]
    assert powers(of_classes) == [1, 2]


def test_memory_of_pairs_in_blocks() -> None:
    finding = find("memory in examples", "info_nce_loss")
    assert finding.value == pytest.approx(1, abs=0.1)
    assert "while they are fewer" in finding.text
    assert find("memory in classes", "info_nce_loss").verdict == "not applicable"


def test_memory_of_what_has_no_gradient() -> None:
    finding = find("memory in examples", in_numpy)
    assert finding.verdict == "not applicable"
    assert "does not require grad" in finding.text
