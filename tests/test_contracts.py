"""What every loss of the package promises, checked on every public loss there is.

Losses are found, not listed: any public function of a chapter whose name ends in ``_loss``, and
``cross_entropy``. The names of its positional parameters say what kind of loss it is, and ``KINDS``
how inputs of that kind are made: with a target of classes, with labels that only say what belongs
together, or with nothing but tensors to differentiate.
"""

import inspect
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lossbook.classification import exponential, logistic, squared, squared_hinge
from lossbook.lab.contracts import kinds
from lossbook.lab.contracts.kinds import KINDS, C, N, kind_of
from lossbook.lab.contracts.kinds import Subject as Case

ROOT = Path(__file__).parent.parent
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]

PUBLIC = kinds.public()
LOSSES = kinds.losses()

# Further settings of hyperparameters under which the same must hold.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "comp_sum_loss": [{"tau": 0.0}, {"tau": 0.5}],
    "crammer_singer_loss": [{"phi": logistic}, {"phi": exponential}],
    "cross_entropy": [{"label_smoothing": 0.1}],
    "dual_focal_loss": [{"gamma": 0.5}, {"gamma": 0.0}],
    "encouraging_loss": [{"end_point": 1.0}],
    "entmax_loss": [{"alpha": 1.0}, {"alpha": 1.25}, {"alpha": 2.0}],
    "focal_loss": [{"gamma": 0.5}, {"gamma": 0.0}],
    "halted_focal_loss": [{"gamma": 0.5}, {"gamma": 0.0}],
    "lee_lin_wahba_loss": [{"phi": squared_hinge}, {"phi": exponential}],
    "ldr_kl_loss": [{"temperature": 0.1, "margin": 0.0}, {"normalize": True}],
    "margin_loss": [{"phi": phi} for phi in (exponential, logistic, squared, squared_hinge)],
    "poly_focal_loss": [{"gamma": 0.0, "alpha": 0.25}, {"gamma": 0.5, "epsilon": -1.0}],
    "poly_loss": [{"epsilon": (-1.0, 0.5)}],
    "rescaled_square_loss": [{"scale": 15.0, "magnitude": 30.0}],
    "smooth_adversarial_comp_sum_loss": [{"tau": 0.0, "rho": 2.0}],
    "sparse_softmax_loss": [{"k": 1}, {"k": 2}],
    "weston_watkins_loss": [{"phi": logistic}, {"phi": exponential}],
    "z_loss": [{"sharpness": 5.0, "offset": 0.5}],
}

# Losses whose unreduced value has an entry per class, each with the weight of its class.
PER_ENTRY = {"poly_focal_loss"}

# Where a promise does not hold, and why.
NO_GRADCHECK = {
    "ens_loss": "its gradient is drawn, not that of its value (stop-gradient by design)"
}
NO_GRADGRADCHECK = NO_GRADCHECK
SATURATES = dict.fromkeys(
    ["brier_loss", "correctness_aware_loss", "proper_loss", "spherical_loss"],
    "a bounded function of probabilities: flat where they are 0 or 1, as its docstring warns",
)


def cases() -> list[Any]:
    found = []
    for name, loss in LOSSES.items():
        if kind_of(loss) not in KINDS:
            continue  # test_every_loss_has_a_known_kind reports it
        for options in [{}, *VARIANTS.get(name, [])]:
            label = name + "".join(f"-{k}={getattr(v, '__name__', v)}" for k, v in options.items())
            found.append(pytest.param(Case(name, loss, kind_of(loss), options), id=label))
    return found


CASES = cases()
CLASS_CASES = [case for case in CASES if case.values[0].kind.classes]
PLAIN = [case for case in CASES if "-" not in case.id]
every_case = pytest.mark.parametrize("case", CASES)
every_class_case = pytest.mark.parametrize("case", CLASS_CASES)
every_loss = pytest.mark.parametrize("case", PLAIN)
every_reducible_case = pytest.mark.parametrize(
    "case", [case for case in CASES if case.values[0].default_reduction]
)
every_target_loss = pytest.mark.parametrize(
    "case", [case for case in PLAIN if case.values[0].kind.target]
)


def test_losses_are_found() -> None:
    assert {"cross_entropy", "poly_loss", "ens_loss", "harmonic_loss"} <= set(LOSSES)


def test_every_loss_has_a_known_kind() -> None:
    for name, loss in LOSSES.items():
        assert kind_of(loss) in KINDS, (
            f"{name}{inspect.signature(loss)} is a new kind of loss: add {kind_of(loss)!r}, "
            f"its positional parameters, to KINDS in {kinds.__name__}, with a maker of inputs"
        )


def test_variants_belong_to_losses() -> None:
    assert {*VARIANTS, *PER_ENTRY, *NO_GRADCHECK, *NO_GRADGRADCHECK, *SATURATES} <= set(LOSSES)


def moved(options: dict[str, Any], device: torch.device | str) -> dict[str, Any]:
    """Keyword arguments with their tensors on a device."""
    return {k: x.to(device) if isinstance(x, Tensor) else x for k, x in options.items()}


def gradients(value: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value.sum(), inputs)


def leaves(inputs: tuple[Tensor, ...], dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    return tuple(x.to(dtype).requires_grad_() for x in inputs)


# --- Values -----------------------------------------------------------------------------------


@every_reducible_case
def test_reductions_agree(case: Case) -> None:
    inputs, target = case.inputs(), case.target()
    none = case(inputs, target, reduction="none")
    assert none.shape[0] == N or not case.kind.elements
    reduced = {"sum": none.sum(), "mean": none.mean()}
    for reduction, expected in reduced.items():
        torch.testing.assert_close(case(inputs, target, reduction=reduction), expected)
    torch.testing.assert_close(case(inputs, target), reduced[case.default_reduction])
    assert none.std() > 1e-3  # examples differ, or the sums above would prove little


@every_case
def test_further_dimensions_are_elements(case: Case) -> None:
    if not case.kind.dense:
        pytest.skip("has no further dimensions")
    inputs, target = case.inputs(2, 3), case.target(2, 3)
    flat = tuple(x.movedim(1, -1).reshape(-1, C) for x in inputs)
    expected = case(flat, target.reshape(-1), reduction="none")
    actual = case(inputs, target, reduction="none")
    if case.name in PER_ENTRY:
        actual = actual.movedim(1, -1).reshape(-1, C)
    torch.testing.assert_close(actual.reshape(expected.shape), expected)


@every_class_case
def test_one_hot_soft_target_equals_index(case: Case) -> None:
    inputs, target = case.inputs(), case.target()
    one_hot = torch.nn.functional.one_hot(target, C).double()
    weight = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    for options in ({}, {"weight": weight}, {"weight": weight, "reduction": "none"}):
        torch.testing.assert_close(
            case(inputs, one_hot, **options), case(inputs, target, **options)
        )


@every_class_case
def test_soft_target_is_an_expectation(case: Case) -> None:
    inputs = case.inputs()
    q = torch.randn(N, C, dtype=torch.float64).softmax(1)
    expected = sum(
        q[:, k] * per_example(case(inputs, torch.full((N,), k), reduction="none")) for k in range(C)
    )
    torch.testing.assert_close(per_example(case(inputs, q, reduction="none")), expected)


def per_example(losses: Tensor) -> Tensor:
    return losses if losses.ndim == 1 else losses.sum(1)


@every_class_case
def test_ignored_elements_count_for_nothing(case: Case) -> None:
    inputs, target = case.inputs(), case.target()
    for ignore_index in (-100, 1):
        holes = target.clone()
        holes[1], holes[3] = ignore_index, ignore_index
        valid = holes != ignore_index
        kept = tuple(x[valid] for x in inputs)
        for weight in (None, torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)):
            options = {"ignore_index": ignore_index, "weight": weight}
            torch.testing.assert_close(
                case(inputs, holes, **options), case(kept, target[valid], weight=weight)
            )
        none = case(inputs, holes, ignore_index=ignore_index, reduction="none")
        assert (none[~valid] == 0).all()


@every_class_case
def test_all_ignored_is_zero_with_zero_gradient(case: Case) -> None:
    inputs, target = leaves(case.inputs()), torch.full((N,), -100)
    for reduction in ("mean", "sum"):
        value = case(inputs, target, reduction=reduction)
        assert value == 0
        assert all((g == 0).all() for g in gradients(value, inputs))


@every_case
def test_empty_batch_is_as_in_torch(case: Case) -> None:
    inputs, target = tuple(x[:0] for x in case.inputs()), case.target()[:0]
    if case.default_reduction is None or case.arguments == ("prototypes",):
        with pytest.raises(ValueError, match=f"number of {case.arguments[0]}"):
            case(inputs, target)
        return
    assert case(inputs, target, reduction="mean").isnan()
    assert case(inputs, target, reduction="sum") == 0
    assert case(inputs, target, reduction="none").numel() == 0


@every_class_case
def test_class_weights(case: Case) -> None:
    inputs, target = case.inputs(), case.target()
    weight = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    plain = case(inputs, target, reduction="none")
    weights = weight.expand(N, C) if case.name in PER_ENTRY else weight[target]
    if "label_smoothing" not in case.settings:  # smoothing weighs every class, as torch does
        torch.testing.assert_close(
            case(inputs, target, weight=weight, reduction="none"), plain * weights
        )
        expected = (plain * weights).sum() / weights.sum()
        torch.testing.assert_close(case(inputs, target, weight=weight), expected)
    torch.testing.assert_close(
        case(inputs, target, weight=7 * weight), case(inputs, target, weight=weight)
    )


@every_loss
def test_single_class(case: Case) -> None:
    if not (case.kind.classes and case.kind.dense):
        pytest.skip("has no classes to reduce")
    inputs = leaves(tuple(x[:, :1] for x in case.inputs()))
    value = case(inputs, torch.zeros(N, dtype=torch.int64))
    assert value.isfinite()
    assert all(g.isfinite().all() for g in gradients(value, inputs))


# --- Numbers ----------------------------------------------------------------------------------


@every_case
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtype_is_kept(case: Case, dtype: torch.dtype) -> None:
    inputs, target = tuple(x.to(dtype) for x in case.inputs()), case.target()
    exact = case(tuple(x.double() for x in inputs), target)
    leaf = leaves(inputs, dtype)
    value = case(leaf, target)
    assert value.dtype == dtype
    assert all(g.dtype == dtype for g in gradients(value, leaf))
    # One rounding of the result, and of the random keys and prototypes where there are some.
    tolerance = 1e-12 if dtype == torch.float64 else 8 * torch.finfo(dtype).eps
    assert abs(value.item() - exact.item()) <= tolerance * max(1, abs(exact.item()))


@every_case
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_finite_at_the_extremes(case: Case, dtype: torch.dtype) -> None:
    target = torch.zeros(N, dtype=torch.int64)
    wrong = case.kind.wrong()
    right = tuple(1e4 + x if "distances" in case.arguments else -x for x in wrong)
    right = case.kind.right() if case.kind.right else right
    for inputs in (wrong, right):
        leaf = leaves(inputs, dtype)
        value = case(leaf, target)
        assert value.isfinite()
        assert all(g.isfinite().all() for g in gradients(value, leaf))


@every_case
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_badly_wrong_examples_have_a_gradient(case: Case, dtype: torch.dtype) -> None:
    if case.name in SATURATES:
        pytest.skip(SATURATES[case.name])
    inputs, target = leaves(case.kind.wrong(), dtype), torch.zeros(N, dtype=torch.int64)
    if case.arguments[-1] == "labels":
        target[-1] = 1  # a batch of one class alone may have nothing to learn
    value = case(inputs, target)
    assert all((g != 0).any() for g in gradients(value, inputs[:1]))


@every_loss
def test_autocast_does_not_round(case: Case) -> None:
    """Half precision divided by a small temperature is no similarity any more."""
    inputs, target = leaves(case.inputs(), torch.float32), case.target()
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value = case(inputs, target)
        results.append((value, *gradients(value, inputs)))
    for plain, cast in zip(*results, strict=True):
        torch.testing.assert_close(cast, plain)


# --- Derivatives and transformations ----------------------------------------------------------


@every_case
def test_gradcheck(case: Case) -> None:
    if case.name in NO_GRADCHECK:
        pytest.skip(NO_GRADCHECK[case.name])
    target = case.target()
    assert torch.autograd.gradcheck(lambda *x: case(x, target), leaves(case.inputs()))


@every_case
def test_gradgradcheck(case: Case) -> None:
    if case.name in NO_GRADGRADCHECK:
        pytest.skip(NO_GRADGRADCHECK[case.name])
    inputs = leaves(tuple(x[:4] for x in case.inputs()))
    target = case.target()[:4]
    assert torch.autograd.gradgradcheck(lambda *x: case(x, target), inputs)


@every_case
def test_vmap(case: Case) -> None:
    stack = [case.kind.inputs(torch.Size((N, C))) for _ in range(3)]
    batched = tuple(torch.stack(x) for x in zip(*stack, strict=True))
    target = case.target()
    targets = torch.stack([target, target.flip(0), target])
    expected = torch.stack([case(x, t) for x, t in zip(stack, targets, strict=True)])
    actual = torch.func.vmap(lambda x, t: case(x, t))(batched, targets)
    torch.testing.assert_close(actual, expected)
    shared = torch.func.vmap(lambda x: case(x, target))(batched)
    torch.testing.assert_close(shared[0], expected[0])
    # Under grad the same, which is how ensembles are trained.
    slopes = torch.func.vmap(torch.func.grad(lambda x, t: case(x, t)))(batched, targets)
    one = leaves(stack[1])
    torch.testing.assert_close(slopes[0][1], gradients(case(one, targets[1]), one)[0])


@every_loss
def test_compiles_to_one_graph(case: Case) -> None:
    torch._dynamo.reset()
    inputs, target = leaves(case.inputs()), case.target()
    value = case(inputs, target)
    compiled = torch.compile(lambda *x: case(x, target), fullgraph=True, backend="aot_eager")
    again = compiled(*inputs)
    torch.testing.assert_close(again, value)
    for expected, actual in zip(gradients(value, inputs), gradients(again, inputs), strict=True):
        torch.testing.assert_close(actual, expected)


@every_case
def test_inputs_are_not_modified(case: Case) -> None:
    inputs, target = case.inputs(), case.target()
    before = [x.clone() for x in (*inputs, target)]
    case(inputs, target)
    assert all(torch.equal(x, y) for x, y in zip((*inputs, target), before, strict=True))


@every_case
def test_no_value_is_read_on_an_accelerator(case: Case) -> None:
    """Tensors of the meta device have no values: looking at one raises, as does mixing devices."""
    inputs = tuple(x.to("meta").requires_grad_() for x in case.inputs())
    target = case.target().to("meta")
    options = {"weight": torch.ones(C, device="meta")} if case.kind.classes else {}
    extra = {
        name: x.to("meta") if isinstance(x, Tensor) else x
        for name, x in case.extra(case.inputs()[0]).items()
    }
    arguments = (*inputs, target) if case.kind.target else inputs
    value = case.loss(*arguments, **{**extra, **case.settings, **options})
    gradients(value, inputs)
    assert value.shape == () and value.is_meta


# --- Bad input --------------------------------------------------------------------------------


@every_loss
def test_wrong_number_of_dimensions(case: Case) -> None:
    with pytest.raises(ValueError, match=r"\([NCR],"):
        case(tuple(torch.tensor(1.0) for _ in case.inputs()), torch.tensor(0))
    if case.kind.classes:
        with pytest.raises(ValueError, match=r"\(N"):
            case(tuple(x[0] for x in case.inputs()), torch.tensor(0))


@every_target_loss
def test_wrong_target_shape(case: Case) -> None:
    name = case.arguments[-1]
    with pytest.raises(ValueError, match=name):
        case(case.inputs(), case.target()[:-1])
    with pytest.raises(ValueError, match=name):
        case(case.inputs(), case.target().unsqueeze(1))


@every_loss
def test_rows_that_do_not_pair_up(case: Case) -> None:
    if case.arguments != ("anchor", "positive"):
        pytest.skip("has no pairs")
    first, second = case.inputs()
    with pytest.raises(ValueError, match="positive"):
        case((first, second[:-1]), case.target())


@every_loss
def test_integer_scores(case: Case) -> None:
    with pytest.raises(TypeError, match=case.arguments[0]):
        case(tuple(x.long() for x in case.inputs()), case.target())


@every_target_loss
def test_label_out_of_range(case: Case) -> None:
    if case.arguments[-1] == "labels":
        pytest.skip("knows no number of classes: any integers tell examples apart")
    for label in (-1, C):
        with pytest.raises(ValueError, match="target"):
            case(case.inputs(), torch.full((N,), label))


@every_target_loss
def test_wrong_target_dtype(case: Case) -> None:
    name = case.arguments[-1]
    if not case.kind.classes and name == "target":
        pytest.skip("any dtype can hold 0 and 1")
    with pytest.raises(TypeError, match=name):
        case(case.inputs(), case.target().int())
    with pytest.raises(TypeError, match=name):
        case(case.inputs(), [0] * N)


@every_loss
def test_soft_target_that_is_no_distribution(case: Case) -> None:
    if not case.kind.classes:
        pytest.skip("has no soft targets")
    with pytest.raises(ValueError, match="target"):
        case(case.inputs(), torch.full((N, C), 1.5, dtype=torch.float64))
    with pytest.raises(ValueError, match="target"):
        case(case.inputs(), torch.tensor([[-0.5, 1.5, 0.0, 0.0]] * N, dtype=torch.float64))


@every_loss
def test_wrong_weight(case: Case) -> None:
    if not case.kind.classes:
        pytest.skip("has no class weights")
    with pytest.raises(ValueError, match="weight"):
        case(case.inputs(), case.target(), weight=torch.ones(C + 1))
    with pytest.raises(ValueError, match="weight"):
        case(case.inputs(), case.target(), weight=-torch.ones(C))
    with pytest.raises(TypeError, match="weight"):
        case(case.inputs(), case.target(), weight=[1.0] * C)


@every_loss
def test_unknown_reduction(case: Case) -> None:
    if case.default_reduction is None:
        pytest.skip("has no reduction")
    with pytest.raises(ValueError, match="reduction"):
        case(case.inputs(), case.target(), reduction="average")


RANGES = {
    "positive": (0.0, -1.0, math.nan),
    "at least 0": (-0.5, math.nan),
    "at least 1": (0, -1),
    "above 1": (1.0, 0.5),
    "in [0, 1]": (-0.1, 1.1),
    "in [1, 2]": (0.9, 2.1),
    "in (0, 1)": (0.0, 1.0, -0.1),
    "in (0, 1]": (0.0, -0.1, 1.1),
    "any sign": (),
}


def described(loss: Callable[..., Tensor], parameter: str) -> str:
    """The entry of a parameter in the Args of a docstring."""
    text = inspect.cleandoc(loss.__doc__ or "")
    match = re.search(
        rf"^    {parameter}: (.*?)(?=^    \w+: |^\S|\Z)", text, re.MULTILINE | re.DOTALL
    )
    return " ".join(match[1].split()) if match else ""


@every_loss
def test_hyperparameters_out_of_range(case: Case) -> None:
    loss = case.loss
    for name, parameter in inspect.signature(loss).parameters.items():
        numeric = isinstance(parameter.default, float) or "float" in str(parameter.annotation)
        if parameter.kind is not parameter.KEYWORD_ONLY or not numeric:
            continue
        entry = described(loss, name)
        given = [phrase for phrase in RANGES if phrase in entry]
        assert given, f"the docstring gives no range for {name}: say one of {list(RANGES)}"
        for value in RANGES[given[0]]:
            with pytest.raises(ValueError, match=name):
                case(case.inputs(), case.target(), **{name: value})


# --- Docstrings -------------------------------------------------------------------------------


def bibliography() -> set[str]:
    path = ROOT / "book" / "references.bib"
    return (
        set(re.findall(r"^@\w+\{([^,\s]+)", path.read_text(), re.MULTILINE))
        if path.exists()
        else set()
    )


@every_loss
def test_docstring(case: Case) -> None:
    loss = case.loss
    text = inspect.cleandoc(loss.__doc__ or "")
    for part in (".. math::", "Args:", "Returns:", "Raises:", "Pitfall: "):
        assert part in text, f"the docstring of {case.name} has no {part!r}"
    for name in inspect.signature(loss).parameters:
        assert described(loss, name), f"the docstring of {case.name} does not describe {name}"
    source = re.search(r"^Source: ``(\w+)``", text, re.MULTILINE)
    assert source, f"the docstring of {case.name} names no paper: Source: ``key``."
    if known := bibliography():
        assert source[1] in known, f"{source[1]} is not in references.bib"


@pytest.mark.parametrize("name, thing", PUBLIC.items())
def test_every_public_name_is_documented(name: str, thing: object) -> None:
    text = inspect.cleandoc(inspect.getdoc(thing) or "")
    assert "Pitfall: " in text, f"the docstring of {name} warns of no pitfall"
    for key in re.findall(r"^Source: ``(\w+)``", text, re.MULTILINE):
        assert key in bibliography() or not bibliography(), f"{key} is not in references.bib"
