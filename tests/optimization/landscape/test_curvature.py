"""Curvature tools against dense matrices: what torch.func, loops and closed forms say."""

from __future__ import annotations

import copy
import math
import warnings
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, mse_loss

from lossbook.optimization.landscape import curvature
from lossbook.optimization.landscape.curvature import (
    MFAC,
    Operator,
    Spectrum,
    classwise_hessians,
    diagonal,
    fisher,
    flatten,
    gauss_newton,
    gauss_newton_bound,
    hessian,
    inverse_fisher_diagonal,
    inverse_fisher_product,
    landscape_increment_bound,
    landscape_increments,
    obs_scores,
    obs_update,
    per_example_gradients,
    recursive_inverse_fisher_product,
    spectral_density,
    spectrum_criteria,
    top_eigenpairs,
    trace,
    unflatten,
)

OPERATORS = [hessian, gauss_newton, fisher]


def net(*widths: int, activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    torch.manual_seed(1)
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), activation()]
    return nn.Sequential(*layers[:-1]).double()


def data(n: int = 14, inputs: int = 4, classes: int = 3) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(2)
    x = torch.randn(n, inputs, generator=g, dtype=torch.float64)
    return x, torch.arange(n) % classes


def as_function(model: nn.Module, outputs):
    """``outputs(call)`` as a function of the vector of parameters, and that vector."""
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    vector = torch.cat([p.detach().reshape(-1) for p in named.values()])

    def function(w: Tensor) -> Tensor:
        parts, start = {}, 0
        for name, p in named.items():
            parts[name] = w[start : start + p.numel()].reshape(p.shape)
            start += p.numel()
        return outputs(lambda x: functional_call(model, parts, (x,)))

    return function, vector


def dense_hessian(model, x, y, loss=cross_entropy) -> Tensor:
    function, w = as_function(model, lambda call: loss(call(x), y))
    return torch.func.hessian(function)(w)


def dense_jacobian(model, x) -> Tensor:
    function, w = as_function(model, lambda call: call(x))
    return torch.func.jacrev(function)(w)  # (N, C, P)


def with_spectrum(values, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    values = torch.as_tensor(values, dtype=torch.float64)
    q = torch.linalg.qr(torch.randn(len(values), len(values), generator=g, dtype=torch.float64)).Q
    matrix = q @ torch.diag(values) @ q.T
    return (matrix + matrix.T) / 2


# --- operators


def test_the_hessian_is_the_dense_one_whatever_the_batches() -> None:
    model, (x, y) = net(4, 5, 3), data()
    dense = dense_hessian(model, x, y)
    for cut in (14, 9, 1):  # unequal batches: the mean is over examples
        batches = [(x[:cut], y[:cut]), (x[cut:], y[cut:])][: 1 if cut == 14 else 2]
        for retain in (True, False):
            torch.testing.assert_close(
                hessian(cross_entropy, model, batches, retain=retain).dense(), dense
            )


def test_gauss_newton_and_fisher_are_sums_over_examples() -> None:
    model, (x, y) = net(4, 5, 3), data()
    jacobian = dense_jacobian(model, x)
    p = model(x).detach().softmax(1)
    ggn, exact, empirical = (
        torch.zeros(jacobian.shape[2], jacobian.shape[2]).double() for _ in "123"
    )
    for i in range(len(x)):
        for a in range(3):
            for b in range(3):
                curved = p[i, a] * (a == b) - p[i, a] * p[i, b]
                ggn += curved * torch.outer(jacobian[i, a], jacobian[i, b])
        for label in range(3):
            slope = p[i] - torch.eye(3).double()[label]
            g = slope @ jacobian[i]
            exact += p[i, label] * torch.outer(g, g)
            if label == y[i]:
                empirical += torch.outer(g, g)
    batches = [(x[:5], y[:5]), (x[5:], y[5:])]
    torch.testing.assert_close(gauss_newton(cross_entropy, model, batches).dense(), ggn / len(x))
    torch.testing.assert_close(fisher(cross_entropy, model, batches).dense(), exact / len(x))
    found = fisher(cross_entropy, model, batches, kind="empirical").dense()
    torch.testing.assert_close(found, empirical / len(x))
    torch.testing.assert_close(ggn, exact)  # for cross-entropy they are one matrix
    assert not torch.allclose(exact, empirical, rtol=0.1)


def test_the_hessian_is_gauss_newton_and_a_residual_part() -> None:
    """A linear model has no curvature of its own; nor has any model without residuals."""
    x, y = data()
    linear = net(4, 3)
    torch.testing.assert_close(
        hessian(cross_entropy, linear, [(x, y)]).dense(),
        gauss_newton(cross_entropy, linear, [(x, y)]).dense(),
    )
    model = net(4, 5, 2)
    perfect = [(x, model(x).detach())]
    torch.testing.assert_close(
        hessian(mse_loss, model, perfect).dense(), gauss_newton(mse_loss, model, perfect).dense()
    )
    assert not torch.allclose(
        hessian(mse_loss, model, [(x, perfect[0][1] + 1)]).dense(),
        gauss_newton(mse_loss, model, perfect).dense(), rtol=1e-2,
    )  # fmt: skip


def test_only_parameters_that_require_a_gradient_count() -> None:
    model, (x, y) = net(4, 5, 3), data()
    for p in model[0].parameters():
        p.requires_grad_(False)
    dense = dense_hessian(model, x, y)
    assert hessian(cross_entropy, model, [(x, y)]).dimension == 18 == len(dense)
    torch.testing.assert_close(hessian(cross_entropy, model, [(x, y)]).dense(), dense)


def test_parameters_that_the_loss_does_not_see_get_zeros() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Parameter(torch.ones(2, dtype=torch.float64))
            self.own = net(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.own(x)

    x, y = data()
    inner = hessian(cross_entropy, net(4, 3), [(x, y)]).dense()
    for make in OPERATORS:
        dense = make(cross_entropy, Idle(), [(x, y)]).dense()
        assert dense[:2].abs().max() == dense[:, :2].abs().max() == 0
        torch.testing.assert_close(dense[2:, 2:], inner)


def test_a_loss_that_is_linear_in_the_parameters_has_no_curvature() -> None:
    x, y = data()

    def mean(z: Tensor, _: Tensor) -> Tensor:
        return z.mean()

    for make in (hessian, gauss_newton):
        assert (make(mean, net(4, 3), [(x, y)]) @ torch.ones(15).double()).abs().max() == 0


def test_shared_weights_count_once() -> None:
    layer = net(3, 3)[0]
    model, (x, y) = nn.Sequential(layer, nn.Tanh(), layer), data(inputs=3)
    torch.testing.assert_close(
        hessian(cross_entropy, model, [(x, y)]).dense(), dense_hessian(model, x, y)
    )


def test_attention_can_be_differentiated_twice() -> None:
    torch.manual_seed(0)

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2).double()

        def forward(self, x: Tensor) -> Tensor:
            h = self.inner(x.reshape(-1, 1, 2, 2))
            return nn.functional.scaled_dot_product_attention(h, h, h).flatten(1)

    x, y = data()
    operator = hessian(cross_entropy, Attends(), [(x, y)])
    dense = operator.dense()
    torch.testing.assert_close(dense, dense.T)
    assert dense.abs().max() > 1e-3


def test_products_take_columns_and_give_the_vectors_dtype() -> None:
    model, (x, y) = net(4, 3), data()
    operator = hessian(cross_entropy, model, [(x, y)])
    v = torch.randn(15, 4, dtype=torch.float64)
    kept = v.clone()
    torch.testing.assert_close(operator @ v, torch.stack([operator @ c for c in v.T], 1))
    assert (operator @ v.float()).dtype == torch.float32
    assert torch.equal(v, kept)


def test_products_are_right_under_no_grad_and_leave_no_gradients() -> None:
    model, (x, y) = net(4, 3), data()
    with torch.no_grad():
        found = hessian(cross_entropy, model, [(x, y)]).dense()
    torch.testing.assert_close(found, dense_hessian(model, x, y))
    assert all(p.grad is None for p in model.parameters())


def test_half_precision_models_have_float32_vectors() -> None:
    model, (x, y) = net(4, 8, 3), data()
    half = copy.deepcopy(model).bfloat16()
    for make in OPERATORS:
        exact = make(cross_entropy, model, [(x, y)])
        rough = make(cross_entropy, half, [(x.bfloat16(), y)])
        assert rough.dtype == torch.float32
        values = top_eigenpairs(rough, 2, tolerance=1e-2).values
        torch.testing.assert_close(values, top_eigenpairs(exact, 2).values, rtol=0.05, atol=0)


def test_old_graphs_refuse_new_weights() -> None:
    model, (x, y) = net(4, 5, 3), data()
    operator = hessian(cross_entropy, model, [(x, y)])
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        operator @ torch.ones(operator.dimension).double()


@pytest.mark.parametrize("make", OPERATORS)
def test_operators_name_what_is_wrong(make) -> None:
    model, (x, y) = net(4, 3), data()
    with pytest.raises(ValueError, match="batches must be at least one batch"):
        make(cross_entropy, model, [])
    with pytest.raises(ValueError, match="each batch in batches must be not empty"):
        make(cross_entropy, model, [(x, y), (x[:0], y[:0])])
    with pytest.raises(ValueError, match="model must be a module with at least one parameter"):
        make(cross_entropy, nn.Flatten(), [(x, y)])
    with pytest.raises(ValueError, match="the shape of loss's value must be"):
        make(lambda z, t: cross_entropy(z, t, reduction="none"), model, [(x, y)])
    with pytest.raises(ValueError, match="the shape of vectors"):
        make(cross_entropy, model, [(x, y)]) @ torch.ones(14).double()
    with pytest.raises(TypeError, match="vectors must have a floating-point dtype"):
        make(cross_entropy, model, [(x, y)]) @ torch.ones(15, dtype=torch.int64)


def test_fisher_names_what_is_wrong() -> None:
    model, (x, y) = net(4, 3), data()
    with pytest.raises(ValueError, match="kind must be 'exact' or 'empirical'"):
        fisher(cross_entropy, model, [(x, y)], kind="true")  # type: ignore[arg-type]
    deep = nn.Sequential(model, nn.Unflatten(1, (3, 1)))
    with pytest.raises(ValueError, match="the shape of model's outputs"):
        fisher(cross_entropy, deep, [(x, y[:, None])])


def test_classwise_hessians_add_up() -> None:
    model, (x, y) = net(4, 5, 3), data()
    parts = classwise_hessians(cross_entropy, model, [(x[:6], y[:6]), (x[6:], y[6:])], range(3))
    for c, part in enumerate(parts):
        torch.testing.assert_close(part.dense(), dense_hessian(model, x[y == c], y[y == c]))
    whole = sum((y == c).double().mean() * part.dense() for c, part in enumerate(parts))
    torch.testing.assert_close(whole, dense_hessian(model, x, y))
    with pytest.raises(
        ValueError, match="classes must be classes with at least one example, got 3"
    ):
        classwise_hessians(cross_entropy, model, [(x, y)], [3])
    with pytest.raises(ValueError, match="batches must be"):
        classwise_hessians(cross_entropy, model, [], [0])


def test_flatten_and_unflatten() -> None:
    tensors = [torch.randn(2, 3), torch.randn(()), torch.randn(4)]
    for part, tensor in zip(unflatten(flatten(tensors), tensors), tensors, strict=True):
        assert torch.equal(part, tensor)
    with pytest.raises(ValueError, match="the number of tensors"):
        flatten([])
    with pytest.raises(ValueError, match="the shape of vector"):
        unflatten(torch.ones(10), tensors)


def test_curvlinops_agrees() -> None:
    curvlinops = pytest.importorskip("curvlinops")
    model, (x, y) = net(4, 5, 3), data()
    batches = [(x[:6], y[:6]), (x[6:], y[6:])]
    v = torch.randn(43, dtype=torch.float64)
    pairs = [
        (hessian, curvlinops.HessianLinearOperator),
        (gauss_newton, curvlinops.GGNLinearOperator),
    ]
    for ours, theirs in pairs:
        other = theirs(
            model,
            nn.CrossEntropyLoss(),
            list(model.parameters()),
            batches,
            check_deterministic=False,
        )
        torch.testing.assert_close(ours(cross_entropy, model, batches) @ v, other @ v)


# --- eigenvalues


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
def test_eigenpairs_of_a_network(which) -> None:
    model, (x, y) = net(4, 8, 3), data()
    dense = dense_hessian(model, x, y)
    exact = torch.linalg.eigvalsh(dense)
    key = {"largest": exact, "smallest": -exact, "magnitude": exact.abs()}[which]
    expected = exact[key.argsort(descending=True)][:4]
    found = top_eigenpairs(hessian(cross_entropy, model, [(x, y)]), 4, which)
    assert found.converged.all()
    torch.testing.assert_close(found.values, expected, rtol=1e-6, atol=0)
    error = (dense @ found.vectors - found.vectors * found.values).norm(dim=0)
    assert (error <= 1.01 * found.residuals + 1e-13).all()  # the bound is one
    assert (found.residuals <= 1e-4 * found.values.abs() + 1e-13).all()
    torch.testing.assert_close(found.vectors.T @ found.vectors, torch.eye(4).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("values", "k"),
    [
        ([5, 5, 5, 3, 3] + [1] * 20 + [0] * 15, 5),  # multiplicities among the wanted
        ([4, 4, 2, 1.9] + [0.5] * 30, 3),
        ([7] + [1] * 20, 4),  # copies of the bulk
        ([1] * 12, 12),  # the identity
        ([0] * 6, 2),  # nothing
        ([3], 1),
        (list(range(1, 9)), 8),  # all of them
    ],
)
def test_multiple_eigenvalues_are_found(values, k, dtype) -> None:
    found = top_eigenpairs(with_spectrum(values).to(dtype), k)
    assert found.converged.all()
    expected = torch.tensor(sorted(values, reverse=True)[:k], dtype=torch.float64)
    torch.testing.assert_close(found.values, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        found.vectors.T @ found.vectors, torch.eye(k, dtype=dtype), rtol=0, atol=1e-5
    )


def test_copies_are_found_for_every_start() -> None:
    matrix = with_spectrum([2, 2, 2] + [x / 40 for x in range(40)])
    for seed in range(20):
        found = top_eigenpairs(matrix, 3, seed=seed)
        torch.testing.assert_close(found.values, torch.full((3,), 2.0).double(), rtol=1e-6, atol=0)


def test_residuals_are_true_after_several_searches() -> None:
    """Vectors of separate searches disturb each other; what is reported includes that."""
    matrix = with_spectrum([3, 3, 3, 2.5, 2.5] + [x / 30 for x in range(60)])
    for seed in range(10):
        found = top_eigenpairs(matrix, 5, tolerance=0.05, seed=seed)
        error = (matrix @ found.vectors - found.vectors * found.values).norm(dim=0)
        assert (error <= 1.001 * found.residuals + 1e-12).all()


def test_both_ends_and_magnitude() -> None:
    matrix = with_spectrum([-6, -6, 5, 1, 0.5] + [0.1] * 20)
    for which, expected in {
        "largest": [5, 1, 0.5], "smallest": [-6, -6, 0.1], "magnitude": [-6, -6, 5]
    }.items():  # fmt: skip
        found = top_eigenpairs(matrix, 3, which)  # type: ignore[arg-type]
        torch.testing.assert_close(
            found.values, torch.tensor(expected).double(), rtol=1e-6, atol=1e-9
        )


def test_it_says_when_it_has_not_converged() -> None:
    matrix = torch.diag(torch.linspace(0, 1, 400, dtype=torch.float64))
    with pytest.warns(UserWarning, match="only 0 of 3 eigenvalues converged"):
        found = top_eigenpairs(matrix, 3, max_steps=10)
    assert not found.converged.any() and found.products == 10
    # What it has is a lower bound, and its residuals tell the truth.
    assert (found.values < torch.tensor([1, 399 / 400, 398 / 400]).double()).all()
    error = (matrix @ found.vectors - found.vectors * found.values).norm(dim=0)
    torch.testing.assert_close(error, found.residuals)


def test_a_basis_that_is_too_short_for_k_is_reported() -> None:
    with pytest.warns(UserWarning, match="only 0 of 5"):
        found = top_eigenpairs(with_spectrum(range(1, 41)), 5, max_steps=3)
    assert len(found.values) == 3


def test_converged_runs_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        top_eigenpairs(with_spectrum([5, 2] + [0.1] * 30), 2)


def test_orthogonality_holds_over_many_steps_in_float32() -> None:
    values = torch.cat([torch.linspace(0, 1, 300), torch.tensor([50.0, 40, 30])])
    space = curvature._Lanczos(
        curvature._as_operator(torch.diag(values)), torch.ones(303) / 303**0.5
    )
    for _ in range(150):
        space.step()
    basis = space._rows[:150].double()
    assert (basis @ basis.T - torch.eye(150)).abs().max() < 5e-6
    # The tridiagonal matrix has no ghost copies of the outliers.
    assert (space.ritz()[0] > 29).sum() == 3


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(-10, 10), min_size=2, max_size=25),
    st.integers(0, 100),
    st.sampled_from(["largest", "smallest", "magnitude"]),
)
def test_any_small_spectrum(values, seed, which) -> None:
    matrix = with_spectrum(values, seed)
    exact = torch.linalg.eigvalsh(matrix)
    key = {"largest": exact, "smallest": -exact, "magnitude": exact.abs()}[which]
    k = min(3, len(values))
    found = top_eigenpairs(matrix, k, which, tolerance=1e-8)
    mine = {"largest": found.values, "smallest": -found.values, "magnitude": found.values.abs()}[
        which
    ]
    # Signs of equal magnitude may come in either order.
    torch.testing.assert_close(mine, key.sort(descending=True).values[:k], rtol=1e-5, atol=2e-4)


def test_eigenpairs_name_what_is_wrong() -> None:
    matrix = torch.eye(4)
    for arguments, name in [
        ({"k": 5}, "k must be from 1 to the dimension 4, got 5"),
        ({"k": 0}, "k must be"),
        ({"which": "top"}, "which must be"),
        ({"tolerance": 0}, "tolerance must be"),
        ({"max_steps": 0}, "max_steps must be"),
    ]:
        with pytest.raises(ValueError, match=name):
            top_eigenpairs(matrix, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the shape of operator"):
        top_eigenpairs(torch.ones(3, 4))
    with pytest.raises(TypeError, match="operator must be a tensor"):
        top_eigenpairs([[1.0]])  # type: ignore[arg-type]
    broken = Operator(lambda v: v * math.nan, 4, torch.float32, torch.device("cpu"))
    with pytest.raises(FloatingPointError, match="not finite"):
        top_eigenpairs(broken)


# --- trace, diagonal, density


@pytest.mark.parametrize("method", ["hutchinson", "hutch++"])
def test_the_trace_is_unbiased_and_knows_its_error(method) -> None:
    values = torch.cat([torch.tensor([30.0, 20, 10]), torch.linspace(-1, 2, 60)]).double()
    matrix = with_spectrum(values)
    runs = [trace(matrix, 24, method=method, seed=s) for s in range(60)]
    estimates = torch.stack([run.value for run in runs])
    spread = estimates.std()
    assert (estimates.mean() - values.sum()).abs() < 4 * spread / 60**0.5
    told = torch.stack([run.standard_error for run in runs]).square().mean().sqrt()
    assert 0.7 < told / spread < 1.4


def test_hutch_plus_plus_is_exact_on_low_rank_and_better_on_outliers() -> None:
    low = with_spectrum([9, 4, 2] + [0] * 40)
    torch.testing.assert_close(trace(low, 15, method="hutch++").value, torch.tensor(15.0).double())
    matrix = with_spectrum([90, 40, 20] + [0.1] * 40)
    errors = [
        torch.stack([trace(matrix, 21, method=m, seed=s).value - 154 for s in range(20)])
        .square()
        .mean()  # type: ignore[arg-type]
        for m in ("hutchinson", "hutch++")
    ]
    assert errors[1] < 0.01 * errors[0]


def test_hutchinson_by_hand() -> None:
    matrix = with_spectrum([3, 1, -2, 0.5])
    signs = [s.double() for s in curvature._probes(curvature._as_operator(matrix), 5, 7)]
    by_hand = [sum(s[i] * matrix[i, j] * s[j] for i in range(4) for j in range(4)) for s in signs]
    found = trace(matrix, 5, seed=7)
    torch.testing.assert_close(found.value, torch.stack(by_hand).mean())
    torch.testing.assert_close(found.standard_error, torch.stack(by_hand).std() / 5**0.5)
    assert trace(matrix, 1).standard_error.isnan()


def test_the_diagonal_is_unbiased_with_the_stated_variance() -> None:
    matrix = with_spectrum(torch.linspace(-1, 3, 12))
    runs = torch.stack([diagonal(matrix, 20, seed=s).value for s in range(200)])
    variance = (matrix.square().sum(1) - matrix.diag().square()) / 20
    assert ((runs.mean(0) - matrix.diag()).abs() < 4.5 * (variance / 200).sqrt()).all()
    torch.testing.assert_close(runs.var(0), variance, rtol=0.5, atol=0)
    torch.testing.assert_close(diagonal(torch.diag(matrix.diag()), 2).value, matrix.diag())


def test_too_few_probes_are_refused() -> None:
    eye = torch.eye(4)
    with pytest.raises(ValueError, match="probes must be at least 1 for hutchinson, got 0"):
        trace(eye, 0)
    with pytest.raises(ValueError, match=r"probes must be at least 3 for hutch\+\+"):
        trace(eye, 2, method="hutch++")
    with pytest.raises(ValueError, match="method must be"):
        trace(eye, method="exact")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="probes must be at least 1"):
        diagonal(eye, 0)
    with pytest.raises(ValueError, match="probes must be at least 1"):
        spectral_density(eye, probes=0)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        spectral_density(eye, steps=0)


def test_quadrature_is_exact_for_its_probe_up_to_its_degree() -> None:
    matrix = with_spectrum(torch.linspace(-1, 3, 30))
    spectrum = spectral_density(matrix, steps=6, probes=3, seed=4)
    torch.testing.assert_close(spectrum.weights.sum(1), torch.ones(3).double())
    probes = list(curvature._probes(curvature._as_operator(matrix), 3, 4))
    for power in range(12):  # below 2 steps
        expected = [
            v @ torch.linalg.matrix_power(matrix, power) @ v / 30
            for v in (p.double() for p in probes)
        ]
        torch.testing.assert_close(spectrum.moment(power), torch.stack(expected).mean())
    beyond = torch.stack(
        [p.double() @ torch.linalg.matrix_power(matrix, 12) @ p.double() / 30 for p in probes]
    )
    assert not torch.isclose(spectrum.moment(12), beyond.mean(), rtol=1e-6)


def test_the_density_of_a_known_spectrum() -> None:
    values = torch.cat([torch.zeros(150), torch.full((50,), 4.0), torch.tensor([20.0])]).double()
    spectrum = spectral_density(with_spectrum(values), steps=20, probes=40)
    assert abs(float(spectrum.share(-0.5, 0.5)) - 150 / 201) < 0.03
    assert abs(float(spectrum.share(3.5, 4.5)) - 50 / 201) < 0.03
    grid = torch.linspace(-3, 23, 4000, dtype=torch.float64)
    density = spectrum.density(grid, 0.3)
    assert abs(float(torch.trapezoid(density, grid)) - 1) < 1e-6
    exact = sum(
        torch.exp(-((grid - v) ** 2) / (2 * 0.3**2)) / (0.3 * (2 * math.pi) ** 0.5) for v in values
    ) / len(values)
    assert (density - exact).abs().max() < 0.06 * exact.max()
    span = spectrum.grid()
    assert span[0] < 0 and span[-1] > 20 and len(span) == 400


def test_the_density_of_a_network_has_its_moments() -> None:
    model, (x, y) = net(4, 8, 3), data()
    dense = dense_hessian(model, x, y)
    spectrum = spectral_density(hessian(cross_entropy, model, [(x, y)]), steps=15, probes=60)
    exact = torch.linalg.eigvalsh(dense)
    for power in (1, 2, 3):
        mean = (exact**power).mean()
        assert abs(spectrum.moment(power) - mean) < 0.2 * (exact.abs() ** power).mean()


def test_exhausted_spaces_carry_no_ghosts() -> None:
    spectrum = spectral_density(torch.eye(9) * 3, steps=5, probes=2)
    assert spectrum.nodes.shape == (2, 5)
    torch.testing.assert_close(spectrum.nodes, torch.full((2, 5), 3.0).double())
    torch.testing.assert_close(spectrum.moment(2), torch.tensor(9.0).double())
    with pytest.raises(ValueError, match="width must be positive"):
        spectrum.density(spectrum.grid(), 0)


def test_the_criteria_by_hand() -> None:
    spectrum = Spectrum(
        torch.tensor([[-1.0, 0.0, 4.0], [-2.0, 1.0, 2.0]]).double(),
        torch.tensor([[0.25, 0.5, 0.25], [0.5, 0.25, 0.25]]).double(),
    )
    ratio, mass = spectrum_criteria(spectrum)
    assert float(ratio) == (1 / 4 + 2 / 2) / 2
    by_hand = (0.25**0.5 / 1 + 1 / (0.25**0.5 + 0.5**0.5)) / 2
    torch.testing.assert_close(float(mass), by_hand)
    positive = Spectrum(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.5]]))
    assert float(spectrum_criteria(positive)[1]) == 0
    with pytest.raises(ValueError, match="power must be"):
        spectrum_criteria(spectrum, power=0)


# --- one more example


def test_increments_are_differences_of_means() -> None:
    losses = torch.rand(3, 40, dtype=torch.float64)
    found = landscape_increments(losses)
    for row in range(3):
        for k in range(1, 40):
            expected = losses[row, : k + 1].mean() - losses[row, :k].mean()
            assert abs(found[row, k - 1] - expected) < 1e-15
    torch.testing.assert_close(
        losses[:, :1] + found.cumsum(1)[:, -1:], losses.mean(1, keepdim=True)
    )
    assert landscape_increments(losses.half()).dtype == torch.float16
    for bad in (torch.tensor(1.0), torch.ones(3, 1)):
        with pytest.raises(ValueError, match="the shape of losses"):
            landscape_increments(bad)


def test_the_increment_bound_holds_and_is_tight_on_quadratics() -> None:
    g = torch.Generator().manual_seed(0)
    n, size, radius = 12, 4, 0.7
    factors = torch.randn(n, size, size, generator=g, dtype=torch.float64)
    hessians = factors @ factors.mT
    at_minimum = torch.rand(n, generator=g, dtype=torch.float64)
    distances = torch.stack(
        [torch.linalg.matrix_norm(hessians[k] - hessians[:k].mean(0), 2) for k in range(1, n)]
    )
    bound = landscape_increment_bound(at_minimum, distances, radius)
    directions = torch.randn(2000, size, generator=g, dtype=torch.float64)
    shifts = radius * directions / directions.norm(dim=1, keepdim=True)
    losses = at_minimum + torch.einsum("sa,iab,sb->si", shifts, hessians, shifts) / 2
    reached = landscape_increments(losses).abs().amax(0)
    assert (reached <= bound + 1e-12).all()
    # Where both parts have one sign, the worst direction comes close.
    assert (reached / bound).max() > 0.95
    for bad in (
        {"hessian_distances": -1.0, "radius": 1.0},
        {"hessian_distances": 1.0, "radius": -1.0},
    ):
        with pytest.raises(ValueError, match="must be at least 0"):
            landscape_increment_bound(at_minimum, **bad)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.floats(0.05, 3), st.booleans(), st.integers(0, 1000))
def test_the_gauss_newton_bound_holds(depth, size, biased, seed) -> None:
    torch.manual_seed(seed)
    widths, layers = [3, 5, 4, 3], []
    for inputs, outputs in pairwise([*widths[:depth], 3]):
        layers += [nn.Linear(inputs, outputs, bias=biased).double(), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    for p in model.parameters():
        nn.init.normal_(p, std=size)
    x = torch.randn(1, 3, dtype=torch.float64)
    dense = gauss_newton(cross_entropy, model, [(x, torch.tensor([0]))]).dense()
    parts = {
        kind: [p.detach() for n, p in model.named_parameters() if n.endswith(kind)]
        for kind in ("weight", "bias")
    }
    bound = gauss_newton_bound(
        parts["weight"], float(x.norm()), biases=parts["bias"] if biased else None
    )
    assert torch.linalg.matrix_norm(dense, 2) <= bound * (1 + 1e-9)


@pytest.mark.parametrize("biased", [False, True])
def test_the_gauss_newton_bound_where_the_published_one_fails(biased) -> None:
    """With zero weights and two classes our bound is the norm itself."""
    model, x = nn.Linear(3, 2, bias=biased).double(), torch.tensor([[0.6, 0.0, 0.8]]).double()
    for p in model.parameters():
        nn.init.zeros_(p)
    dense = gauss_newton(cross_entropy, model, [(x, torch.tensor([0]))]).dense()
    norm = torch.linalg.matrix_norm(dense, 2)
    biases = [model.bias.detach()] if biased else None
    torch.testing.assert_close(
        norm, gauss_newton_bound([model.weight.detach()], 1.0, biases=biases)
    )
    published = 2**0.5 * (0 + 0)  # every term has a factor of the weights' norm
    assert norm > published


def test_the_gauss_newton_bound_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="the number of weights"):
        gauss_newton_bound([], 1.0)
    with pytest.raises(ValueError, match="the number of biases"):
        gauss_newton_bound([torch.eye(2)], 1.0, biases=[])
    with pytest.raises(ValueError, match="radius"):
        gauss_newton_bound([torch.eye(2)], -1.0)


# --- inverse Fisher products


def dense_fisher(gradients: Tensor, damping: float) -> Tensor:
    m, size = gradients.shape
    matrix = damping * torch.eye(size, dtype=gradients.dtype)
    for g in gradients:
        matrix = matrix + torch.outer(g, g) / m
    return matrix


@pytest.mark.parametrize(("m", "size"), [(1, 1), (5, 20), (30, 8)])
@pytest.mark.parametrize("damping", [1e-5, 0.3])
def test_inverse_products_are_dense_solves(m, size, damping) -> None:
    g = torch.Generator().manual_seed(m)
    gradients = torch.randn(m, size, generator=g, dtype=torch.float64)
    v = torch.randn(size, 3, generator=g, dtype=torch.float64)
    matrix = dense_fisher(gradients, damping)
    expected = torch.linalg.solve(matrix, v)
    tolerance = {"rtol": 1e-8, "atol": 1e-8 / damping}
    torch.testing.assert_close(
        inverse_fisher_product(gradients, v, damping=damping), expected, **tolerance
    )
    torch.testing.assert_close(
        recursive_inverse_fisher_product(gradients, v[:, 0], damping=damping),
        expected[:, 0],
        **tolerance,
    )
    torch.testing.assert_close(
        inverse_fisher_diagonal(gradients, damping=damping),
        torch.linalg.inv(matrix).diag(),
        **tolerance,
    )


def test_inverse_products_can_be_differentiated() -> None:
    gradients = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    v = torch.randn(5, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda g, v: inverse_fisher_product(g, v, damping=0.5), (gradients, v))
    torch.autograd.gradcheck(lambda g: inverse_fisher_diagonal(g, damping=0.5), (gradients,))


def test_inverse_products_name_what_is_wrong() -> None:
    gradients = torch.randn(3, 5)
    with pytest.raises(ValueError, match="the shape of vectors"):
        inverse_fisher_product(gradients, torch.ones(4))
    with pytest.raises(ValueError, match="the shape of vector"):
        recursive_inverse_fisher_product(gradients, torch.ones(4))
    with pytest.raises(ValueError, match="damping must be positive"):
        inverse_fisher_product(gradients, torch.ones(5), damping=0)
    for bad in (torch.empty(0, 5), torch.ones(5)):
        with pytest.raises(ValueError, match="the shape of gradients"):
            inverse_fisher_product(bad, torch.ones(5))


def test_gradients_of_single_examples() -> None:
    model, (x, y) = net(4, 5, 3), data()
    model[0].bias.requires_grad_(False)
    found = per_example_gradients(cross_entropy, model, x, y)
    live = [p for p in model.parameters() if p.requires_grad]
    for i in range(len(x)):
        own = torch.autograd.grad(cross_entropy(model(x[i : i + 1]), y[i : i + 1]), live)
        torch.testing.assert_close(found[i], flatten(own))
    empirical = fisher(cross_entropy, model, [(x, y)], kind="empirical").dense()
    torch.testing.assert_close(found.T @ found / len(x), empirical)
    with pytest.raises(ValueError, match="each batch"):
        per_example_gradients(cross_entropy, model, x[:0], y[:0])


def test_one_pruned_weight_is_the_constrained_minimum() -> None:
    """The surgeon solves min of the quadratic under w_i = 0: score and update from the multiplier."""
    g = torch.Generator().manual_seed(3)
    gradients = torch.randn(9, 6, generator=g, dtype=torch.float64)
    w = torch.randn(6, generator=g, dtype=torch.float64)
    matrix = dense_fisher(gradients, 0.1)
    scores = obs_scores(w, gradients, damping=0.1)
    for i in range(6):
        rest = [j for j in range(6) if j != i]
        best = torch.zeros(6).double()
        best[i] = -w[i]
        best[rest] = torch.linalg.solve(matrix[rest][:, rest], -matrix[rest, i] * best[i])
        torch.testing.assert_close(scores[i], best @ matrix @ best / 2)
        pruned = torch.arange(6) == i
        torch.testing.assert_close(obs_update(w, gradients, pruned, damping=0.1), w + best)


def test_many_pruned_weights_are_the_sum_of_single_updates() -> None:
    g = torch.Generator().manual_seed(4)
    gradients = torch.randn(9, 6, generator=g, dtype=torch.float64)
    w, pruned = torch.randn(6, generator=g).double(), torch.tensor([1, 0, 1, 0, 0, 1]).bool()
    inverse = torch.linalg.inv(dense_fisher(gradients, 0.1))
    expected = w.clone()
    for i in pruned.nonzero()[:, 0]:
        expected = expected - w[i] * inverse[:, i] / inverse[i, i]
    expected[pruned] = 0
    torch.testing.assert_close(obs_update(w, gradients, pruned, damping=0.1), expected)
    none = torch.zeros(6).bool()
    torch.testing.assert_close(obs_update(w, gradients, none, damping=0.1), w)
    with pytest.raises(TypeError, match="pruned must be Boolean"):
        obs_update(w, gradients, pruned.long())
    with pytest.raises(ValueError, match="the shape of weights"):
        obs_scores(w[:5], gradients)
    with pytest.raises(ValueError, match="the shape of pruned"):
        obs_update(w, gradients, pruned[:5])


def test_mfac_steps_along_the_inverse_fisher_of_its_window() -> None:
    """A window of three over seven steps, against dense matrices made anew at every step."""
    model, (x, y) = net(4, 5, 3), data()
    twin = copy.deepcopy(model)
    settings = {"lr": 0.02, "momentum": 0.6, "weight_decay": 0.1}
    optimizer = MFAC(model.parameters(), **settings, window=3, damping=0.5)  # type: ignore[arg-type]
    past: list[Tensor] = []
    velocity = torch.zeros(43).double()
    for step in range(7):
        part = (torch.arange(14) + step) % 14 < 5
        optimizer.zero_grad()
        cross_entropy(model(x[part]), y[part]).backward()
        optimizer.step()

        own = torch.autograd.grad(cross_entropy(twin(x[part]), y[part]), list(twin.parameters()))
        w = flatten(twin.parameters()).detach()
        g = flatten(own) + 0.1 * w
        past = [*past, g][-3:]
        matrix = 0.5 * torch.eye(43).double() + sum(torch.outer(h, h) for h in past) / 3
        velocity = 0.6 * velocity + 0.4 * torch.linalg.solve(matrix, g)
        with torch.no_grad():
            for p, new in zip(
                twin.parameters(),
                unflatten(w - 0.02 * velocity, list(twin.parameters())),
                strict=True,
            ):
                p.copy_(new)
        torch.testing.assert_close(flatten(model.parameters()), flatten(twin.parameters()))


def test_mfac_saves_its_window_and_takes_a_closure() -> None:
    model, (x, y) = net(4, 3), data()
    optimizer = MFAC(model.parameters(), window=4, damping=0.1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = cross_entropy(model(x), y)
        value.backward()
        return value

    for _ in range(3):
        first = optimizer.step(closure)
    assert first is not None and first > 0
    twin = copy.deepcopy(model)
    other = MFAC(twin.parameters(), window=4, damping=0.1)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    optimizer.step(closure)
    other.zero_grad()
    cross_entropy(twin(x), y).backward()
    other.step()
    torch.testing.assert_close(flatten(twin.parameters()), flatten(model.parameters()))


def test_mfac_without_a_gradient_stands_still() -> None:
    w = nn.Parameter(torch.ones(3))
    MFAC([w], window=2).step()
    assert torch.equal(w.data, torch.ones(3))


@pytest.mark.parametrize(
    "bad", [{"lr": -1}, {"momentum": 1}, {"weight_decay": -1}, {"window": 0}, {"damping": 0}]
)
def test_mfac_names_what_is_wrong(bad) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must be"):
        MFAC([nn.Parameter(torch.ones(1))], **bad)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_cuda_in_float32_agrees_with_the_cpu_in_float64() -> None:
    model, (x, y) = net(4, 8, 3), data()
    exact = top_eigenpairs(hessian(cross_entropy, model, [(x, y)]), 3)
    moved = copy.deepcopy(model).float().cuda()
    operator = hessian(cross_entropy, moved, [(x.float().cuda(), y.cuda())])
    found = top_eigenpairs(operator, 3)
    torch.testing.assert_close(found.values, exact.values, rtol=1e-4, atol=0)
    assert found.vectors.device.type == "cuda"
    dense = dense_hessian(model, x, y)
    assert abs(trace(operator, 200).value - dense.trace()) < 5 * trace(operator, 200).standard_error
    spectrum = spectral_density(operator, steps=20, probes=3)
    same = spectral_density(hessian(cross_entropy, model, [(x, y)]), steps=20, probes=3)
    torch.testing.assert_close(spectrum.moment(2), same.moment(2), rtol=1e-4, atol=0)
