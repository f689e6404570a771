r"""The curvature of a loss: products with its Hessian and Gauss-Newton matrices, and their spectra.

A network with P parameters has a Hessian of P x P numbers, too many to store. Everything here needs
only its products with vectors. An :class:`Operator` is such a matrix: :func:`hessian`,
:func:`gauss_newton` and :func:`fisher` make one from ``loss, model, batches``, and
:func:`top_eigenpairs`, :func:`trace`, :func:`diagonal` and :func:`spectral_density` ask it what a
dense matrix would be asked. They take any symmetric dense matrix as well.

``loss(outputs, targets)`` is the mean over a batch, ``batches`` are pairs ``(inputs, targets)``,
and all quantities are means over the *examples* of all batches. Only parameters that require a
gradient count, in the order of ``model.parameters()``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from lossbook._contract import check_float, promote, require, require_shape

__all__ = [
    "MFAC",
    "Eigenpairs",
    "Estimate",
    "Operator",
    "Spectrum",
    "classwise_hessians",
    "diagonal",
    "fisher",
    "flatten",
    "gauss_newton",
    "gauss_newton_bound",
    "hessian",
    "inverse_fisher_diagonal",
    "inverse_fisher_product",
    "landscape_increment_bound",
    "landscape_increments",
    "obs_scores",
    "obs_update",
    "per_example_gradients",
    "recursive_inverse_fisher_product",
    "spectral_density",
    "spectrum_criteria",
    "top_eigenpairs",
    "trace",
    "unflatten",
]

Loss = Callable[[Tensor, Tensor], Tensor]
Batches = Iterable[tuple[Tensor, Tensor]]
Which = Literal["largest", "smallest", "magnitude"]


# -------------------------------------------------------------------------------- operators


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    """Tensors laid end to end in one vector (P,).

    Raises:
        ValueError: If there are none.

    Pitfall: the order of the tensors is part of the vector's meaning: parameters go in the
    order of ``model.parameters()``.

    Example:
        >>> flatten([torch.zeros(2, 3), torch.ones(4)]).shape
        torch.Size([10])
    """
    parts = [tensor.reshape(-1) for tensor in tensors]
    require(len(parts) > 0, "the number of tensors", 0, "at least 1")
    return torch.cat(parts)


def unflatten(vector: Tensor, like: Iterable[Tensor]) -> list[Tensor]:
    """The inverse of :func:`flatten`: views of the vector (P,) in the shapes of ``like``.

    Raises:
        ValueError: If the vector has not as many numbers as ``like``.

    Pitfall: they are views: to write into them is to write into the vector.
    """
    shapes = [tensor.shape for tensor in like]
    sizes = [shape.numel() for shape in shapes]
    require_shape(vector, (sum(sizes),), "vector")
    return [part.view(shape) for part, shape in zip(vector.split(sizes), shapes, strict=True)]


@dataclass(frozen=True, eq=False)
class Operator:
    """A symmetric P x P matrix that is known by its products with vectors.

    Attributes:
        product: Maps a vector (P,) to the matrix times it; must not keep or change its argument.
        dimension: P.
        dtype: Of the product's argument and result; others are converted and converted back.
        device: Where the vectors live.

    Pitfall: a product costs about two gradients; hundreds of them, for a dense matrix, are
    rarely what is wanted.
    """

    product: Callable[[Tensor], Tensor]
    dimension: int
    dtype: torch.dtype
    device: torch.device

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """The matrix times a vector (P,) or times each column of (P, K)."""
        check_float(vectors, "vectors")
        shape = tuple(vectors.shape)
        require(
            vectors.ndim in (1, 2) and shape[0] == self.dimension,
            "the shape of vectors", shape, f"({self.dimension},) or ({self.dimension}, K)",
        )  # fmt: skip
        given = vectors.to(self.dtype)
        if vectors.ndim == 1:
            return self.product(given).to(vectors.dtype)
        result = torch.empty_like(given)
        for k, column in enumerate(given.unbind(1)):
            result[:, k] = self.product(column.contiguous())
        return result.to(vectors.dtype)

    def dense(self) -> Tensor:
        """The matrix itself, by P products: for small P."""
        return self @ torch.eye(self.dimension, dtype=self.dtype, device=self.device)


def _as_operator(operator: Operator | Tensor) -> Operator:
    """A dense symmetric matrix as an operator; an operator as it is."""
    if isinstance(operator, Operator):
        return operator
    matrix = check_float(operator, "operator")
    shape = tuple(matrix.shape)
    square = len(shape) == 2 and shape[0] == shape[1] and shape[0] > 0
    require(square, "the shape of operator", shape, "(P, P)")
    return Operator(matrix.mv, shape[0], matrix.dtype, matrix.device)


class _Problem:
    """The checked arguments of an operator, and the mean of its batches' products."""

    def __init__(self, loss: Loss, model: nn.Module, batches: Batches) -> None:
        self.loss, self.model, self.batches = loss, model, list(batches)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        require(len(self.parameters) > 0, "model", type(model).__name__,
                "a module with at least one parameter that requires a gradient")  # fmt: skip
        require(len(self.batches) > 0, "batches", [], "at least one batch")
        for inputs, _ in self.batches:
            require(len(inputs) > 0, "each batch in batches", tuple(inputs.shape), "not empty")
        self.examples = sum(len(inputs) for inputs, _ in self.batches)

    def outputs(self, inputs: Tensor) -> Tensor:
        # Fused attention has no second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            return self.model(inputs)

    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        value = self.loss(outputs, targets)
        require(value.ndim == 0, "the shape of loss's value", tuple(value.shape), "() (a mean)")
        return value

    def operator(self, graph: Callable[[Tensor, Tensor], _Linear], retain: bool) -> Operator:
        """The mean of the products that ``graph`` builds for each batch."""
        kept = [graph(*batch) for batch in self.batches] if retain else None

        def multiply(own: _Linear, vector: Tensor) -> Tensor:
            # Half precision only inside the model: vectors and sums are float32 or better.
            pairs = zip(unflatten(vector, self.parameters), self.parameters, strict=True)
            return flatten(part.to(vector.dtype) for part in own([v.to(p.dtype) for v, p in pairs]))

        def product(vector: Tensor) -> Tensor:
            if kept and len(kept) == 1:
                return multiply(kept[0], vector)
            total = torch.zeros_like(vector)
            for i, batch in enumerate(self.batches):
                own = kept[i] if kept else graph(*batch)
                total.add_(multiply(own, vector), alpha=len(batch[0]) / self.examples)
            return total

        first = promote(self.parameters[0])
        size = sum(p.numel() for p in self.parameters)
        return Operator(product, size, first.dtype, first.device)


_Linear = Callable[[list[Tensor]], list[Tensor]]


def _differentiable(value: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The gradient as a function that can be differentiated again, zeros where nothing depends."""
    with torch.enable_grad():
        if not value.requires_grad:
            return [torch.zeros_like(tensor) for tensor in inputs]
        return list(
            torch.autograd.grad(
                value, inputs, create_graph=True, allow_unused=True, materialize_grads=True
            )
        )


def _pull(outputs: Sequence[Tensor], inputs: Sequence[Tensor], by: Sequence[Tensor]) -> Any:
    """The vector-Jacobian product over a graph that is kept; outputs that are constant add zero."""
    pairs = [(o, v) for o, v in zip(outputs, by, strict=True) if o.requires_grad]
    if not pairs:
        return [torch.zeros_like(tensor) for tensor in inputs]
    live, vectors = zip(*pairs, strict=True)
    return torch.autograd.grad(
        live, inputs, vectors, retain_graph=True, allow_unused=True, materialize_grads=True
    )


def hessian(loss: Loss, model: nn.Module, batches: Batches, *, retain: bool = True) -> Operator:
    r"""The Hessian of the mean loss with respect to the parameters.

    .. math:: H = \nabla^2 L(w), \qquad L(w) = \frac1n \sum_i \ell(f_w(x_i), y_i), \qquad
        H v = \nabla_w \langle \nabla_w L(w), v \rangle

    The gradient's graph is built once and every product only walks back through it, which is what
    makes a product several times cheaper than starting from the loss.

    Args:
        loss: ``loss(outputs, targets)``, the mean over a batch; must be twice differentiable.
        model: Its parameters that require a gradient are the P variables.
        batches: Pairs ``(inputs, targets)``, on the model's device.
        retain: Keep the graphs of all batches. Without it each product builds them anew, in the
            memory of one batch.

    Returns:
        An :class:`Operator` of dimension P.

    Raises:
        ValueError: If there is no batch, an empty one, no parameter, or a loss that is no scalar.

    Pitfall: the graphs belong to the weights of this moment: make a new operator after a step of
    training. In training mode dropout and batch statistics are part of the function, and running
    averages are updated.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> half_square = lambda z, y: (z - y).square().mean() / 2
        >>> hessian(half_square, model, [(x, torch.zeros(2, 1))]).dense()
        tensor([[0.5000, 0.0000],
                [0.0000, 2.0000]])
    """
    problem = _Problem(loss, model, batches)

    def graph(inputs: Tensor, targets: Tensor) -> _Linear:
        with torch.enable_grad():
            value = problem.value(problem.outputs(inputs), targets)
        gradient = _differentiable(value, problem.parameters)
        return lambda vectors: _pull(gradient, problem.parameters, vectors)

    return problem.operator(graph, retain)


def gauss_newton(
    loss: Loss, model: nn.Module, batches: Batches, *, retain: bool = True
) -> Operator:
    r"""The generalized Gauss-Newton matrix: the Hessian without the curvature of the model.

    .. math:: G = \frac1n \sum_i J_i^\top \, \nabla_z^2 \ell(z_i, y_i) \, J_i, \qquad
        J_i = \frac{\partial f_w(x_i)}{\partial w}

    It is positive semidefinite where the loss is convex in the outputs, and equals the Hessian
    where the loss is at its minimum for every example, or the model linear.

    Args: as in :func:`hessian`.

    Pitfall: for cross-entropy this is also the exact Fisher matrix; it is not the *empirical* one.
    """
    problem = _Problem(loss, model, batches)

    def graph(inputs: Tensor, targets: Tensor) -> _Linear:
        push, pull, outputs = _jacobian(problem, inputs)
        leaf = outputs.detach().requires_grad_()
        with torch.enable_grad():
            value = problem.value(leaf, targets)
        (slope,) = _differentiable(value, [leaf])
        return lambda vectors: pull(_pull([slope], [leaf], [push(vectors)])[0])

    return problem.operator(graph, retain)


def fisher(
    loss: Loss,
    model: nn.Module,
    batches: Batches,
    *,
    kind: Literal["exact", "empirical"] = "exact",
    retain: bool = True,
) -> Operator:
    r"""The Fisher matrix: the mean outer product of the examples' gradients.

    .. math:: F = \frac1n \sum_i \mathbb{E}_{y \sim q_i} \left[
        \nabla_w \ell(f_w(x_i), y) \, \nabla_w \ell(f_w(x_i), y)^\top \right]

    *Exact*: labels are drawn from the model's own probabilities, :math:`q_i = \softmax(f_w(x_i))`,
    and the expectation is a sum over the C classes. For cross-entropy it equals
    :func:`gauss_newton`. *Empirical*: the label is the target, :math:`q_i = [y = y_i]`.

    Args:
        loss: The mean over a batch of a loss of each example's outputs, ``(N, C)`` logits if exact.
        model, batches, retain: As in :func:`hessian`.
        kind: ``"exact"`` or ``"empirical"``.

    Raises:
        ValueError: If ``kind`` is unknown, or exact is asked of outputs that are not (N, C).

    Pitfall: the examples must not see each other: no batch normalization in training mode, and no
    loss with a regularizer or with weights that depend on the batch.
    """
    require(kind in ("exact", "empirical"), "kind", kind, "'exact' or 'empirical'")
    problem = _Problem(loss, model, batches)

    def graph(inputs: Tensor, targets: Tensor) -> _Linear:
        push, pull, outputs = _jacobian(problem, inputs)
        leaf = outputs.detach().requires_grad_()
        if kind == "empirical":
            labels, shares = [targets], [torch.ones_like(leaf[:, :1])]
        else:
            require(leaf.ndim == 2, "the shape of model's outputs", tuple(leaf.shape), "(N, C)")
            classes = range(leaf.shape[1])
            labels = [torch.full_like(leaf[:, 0], c, dtype=torch.int64) for c in classes]
            shares = list(leaf.detach().softmax(1).split(1, 1))
        # (K, N, D): each example's gradient for each label it could have.
        slopes, n = [], len(leaf)
        for label in labels:
            with torch.enable_grad():
                value = n * problem.value(leaf, label)
            slopes.append(torch.autograd.grad(value, leaf)[0].reshape(n, -1))
        slope = torch.stack(slopes)
        weight = torch.stack(shares).reshape(len(labels), n, 1) / n

        def product(vectors: list[Tensor]) -> list[Tensor]:
            pushed = push(vectors).reshape(n, -1)
            along = weight * (slope * pushed).sum(2, keepdim=True)
            return pull((along * slope).sum(0).reshape(outputs.shape))

        return product

    return problem.operator(graph, retain)


def _jacobian(
    problem: _Problem, inputs: Tensor
) -> tuple[Callable[[list[Tensor]], Tensor], Callable[[Tensor], list[Tensor]], Tensor]:
    """J v and J^T u of a batch's outputs over one graph, and the outputs."""
    with torch.enable_grad():
        outputs = problem.outputs(inputs)
    # J^T u is linear in u, so its own vector-Jacobian product with v is J v.
    dummy = torch.zeros_like(outputs, requires_grad=True)
    transposed = list(
        torch.autograd.grad(
            outputs, problem.parameters, dummy,
            create_graph=True, allow_unused=True, materialize_grads=True,
        )
    )  # fmt: skip

    def push(vectors: list[Tensor]) -> Tensor:
        return _pull(transposed, [dummy], vectors)[0]

    def pull(vector: Tensor) -> list[Tensor]:
        return _pull([outputs], problem.parameters, [vector])

    return push, pull, outputs


def classwise_hessians(
    loss: Loss, model: nn.Module, batches: Batches, classes: Iterable[int], *, retain: bool = True
) -> list[Operator]:
    r"""The Hessian of each class's own mean loss.

    .. math:: H_c = \nabla^2 \frac{1}{n_c} \sum_{i : y_i = c} \ell(f_w(x_i), y_i)

    Weighed by the classes' shares they add up to the whole: :math:`H = \sum_c \frac{n_c}{n} H_c`.

    Args:
        loss, model, retain: As in :func:`hessian`.
        batches: Pairs ``(inputs, targets)`` with class indices (N,) as targets.
        classes: Which classes, in which order.

    Raises:
        ValueError: If a class has no example.

    Source: ``rangwani2022escaping``.

    Pitfall: with ``retain`` the graphs of all classes are kept at once.
    """
    batches = list(batches)
    require(len(batches) > 0, "batches", [], "at least one batch")
    operators = []
    for c in classes:
        own = [(x[y == c], y[y == c]) for x, y in batches]
        own = [(x, y) for x, y in own if len(y)]
        require(len(own) > 0, "classes", c, "classes with at least one example")
        operators.append(hessian(loss, model, own, retain=retain))
    return operators


# --------------------------------------------------------------------------- eigenvalues


class _Lanczos:
    """A Krylov space that grows by one product a step, orthogonal to itself and to ``locked``."""

    def __init__(self, operator: Operator, start: Tensor, locked: Tensor | None = None) -> None:
        self.operator = operator
        self.alphas: list[float] = []
        self.betas: list[float] = []
        self.exhausted = False
        self._locked = 0 if locked is None else len(locked)
        self._rows = start.new_empty(self._locked + 16, operator.dimension)
        if locked is not None:
            self._rows[: self._locked] = locked
        for _ in range(2):
            start = self._orthogonal(start, self._locked)
        self._rows[self._locked] = start / start.norm()

    def __len__(self) -> int:
        return len(self.alphas)

    def _orthogonal(self, vector: Tensor, rows: int) -> Tensor:
        basis = self._rows[:rows]
        return torch.addmv(vector, basis.T, basis @ vector, alpha=-1)

    def step(self) -> None:
        last = self._locked + len(self)
        if last + 1 == len(self._rows):
            self._rows = torch.cat([self._rows, torch.empty_like(self._rows)])
        v = self._rows[last]
        w = self.operator @ v
        alpha = w @ v
        w = w - alpha * v
        if self.betas:
            w = w.sub_(self._rows[last - 1], alpha=self.betas[-1])
        before = w.norm()
        # The three-term recurrence alone loses orthogonality as soon as a Ritz value converges.
        w = self._orthogonal(w, last + 1)
        # One transfer a step: these numbers are the tridiagonal matrix, which lives on the host.
        a, b, size = torch.stack([alpha, w.norm(), before]).tolist()
        if not math.isfinite(a + b):
            raise FloatingPointError(f"the product with the operator is not finite ({a}, {b})")
        if b < 0.1 * size:  # mostly cancelled, so what is left is mostly rounding
            w = self._orthogonal(w, last + 1)
            b = float(w.norm())
        self.alphas.append(a)
        self.betas.append(b)
        scale = max(map(abs, self.alphas + self.betas))
        noise = 10 * torch.finfo(w.dtype).eps * scale
        self.exhausted = b <= noise or last + 1 == self.operator.dimension
        if not self.exhausted:
            torch.div(w, b, out=self._rows[last + 1])

    def ritz(self) -> tuple[Tensor, Tensor, Tensor]:
        """Eigenvalues (m,) and eigenvectors (m, m) of the tridiagonal matrix, residual norms."""
        matrix = torch.diag(torch.tensor(self.alphas, dtype=torch.float64))
        beside = torch.tensor(self.betas, dtype=torch.float64)
        matrix += torch.diag(beside[:-1], 1) + torch.diag(beside[:-1], -1)
        values, vectors = torch.linalg.eigh(matrix)
        return values, vectors, (beside[-1] * vectors[-1]).abs()

    def lift(self, vectors: Tensor) -> Tensor:
        """Coordinates (m, k) in the Krylov basis to rows (k, P)."""
        basis = self._rows[self._locked : self._locked + len(self)]
        return vectors.T.to(basis) @ basis


_SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "largest": lambda values: values,
    "smallest": lambda values: -values,
    "magnitude": torch.abs,
}


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """What :func:`top_eigenpairs` returns.

    Attributes:
        values: (k,) float64, the wanted first.
        vectors: (P, k), orthonormal columns.
        residuals: (k,) norms of A v - value v: an eigenvalue lies within this distance of each
            value.
        converged: (k,) Boolean, whether the residual is within the tolerance.
        products: How many products with the matrix it took.

    Pitfall: a small residual says that the value is *an* eigenvalue, not that no larger one was
    missed.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    converged: Tensor
    products: int


def top_eigenpairs(
    operator: Operator | Tensor,
    k: int = 1,
    which: Which = "largest",
    *,
    tolerance: float = 1e-4,
    max_steps: int = 300,
    seed: int = 0,
) -> Eigenpairs:
    r"""The k outermost eigenvalues by Lanczos with full reorthogonalization.

    After m products the matrix is known on a Krylov space, where it is tridiagonal,
    :math:`A V_m = V_m T_m + \beta_m v_{m+1} e_m^\top`. An eigenpair :math:`(\theta, s)` of
    :math:`T_m` gives the Ritz pair :math:`(\theta, V_m s)` with the residual
    :math:`\|A V_m s - \theta V_m s\| = |\beta_m s_m|`, known without another product, and some
    eigenvalue of A lies that close to :math:`\theta`. The run ends when
    :math:`|\beta_m s_m| \le \text{tolerance} \cdot |\theta|` for the k wanted.

    A Krylov space holds one vector of a multiple eigenvalue. So the space orthogonal to what was
    found is searched again, and again, until nothing that belongs to the k outermost turns up.

    Args:
        operator: An :class:`Operator`, or a symmetric matrix (P, P).
        k: How many, 1 to P.
        which: ``"largest"``, ``"smallest"`` (most negative) or ``"magnitude"`` (largest absolute).
        tolerance: Largest residual, relative to the eigenvalue. The eigenvalue's own error is about
            the residual squared over the gap to the next, much smaller.
        max_steps: Most products in one search; their basis of (max_steps, P) may have to be stored.
        seed: Of the random start.

    Returns:
        :class:`Eigenpairs`, fewer than k if ``max_steps`` is below k. Where ``converged`` is false
        the value is only a lower bound of what was asked for (an upper one for the smallest), and a
        warning says so.

    Raises:
        ValueError: If an argument is out of range.
        FloatingPointError: If a product is not finite.

    Pitfall: in float32 a residual below about 1e-6 of the largest eigenvalue is out of reach, so an
    eigenvalue that is that much smaller cannot converge.

    Example:
        >>> pairs = top_eigenpairs(torch.diag(torch.tensor([3.0, 3.0, 1.0, -5.0])), 2)
        >>> pairs.values.round(decimals=4)
        tensor([3., 3.], dtype=torch.float64)
    """
    operator = _as_operator(operator)
    size = operator.dimension
    require(which in _SCORES, "which", which, "'largest', 'smallest' or 'magnitude'")
    require(1 <= k <= size, "k", k, f"from 1 to the dimension {size}")
    require(tolerance > 0, "tolerance", tolerance, "positive")
    require(max_steps >= 1, "max_steps", max_steps, "at least 1")
    search = _Search(operator, k, _SCORES[which], tolerance, max_steps, seed)
    search.run()
    order = search.score(search.values).argsort(descending=True)[:k]
    values, residuals = search.values[order], search.residuals[order]
    converged = search.settled(values, residuals)
    if len(order) < k or not bool(converged.all()):
        warnings.warn(
            f"only {int(converged.sum())} of {k} eigenvalues converged to a relative residual of "
            f"{tolerance:g} in {search.products} products; raise max_steps or tolerance",
            stacklevel=2,
        )
    return Eigenpairs(values, search.rows[order].T, residuals, converged, search.products)


class _Search:
    """The searches of :func:`top_eigenpairs` and what they have found."""

    def __init__(
        self, operator: Operator, k: int, score: Callable[[Tensor], Tensor],
        tolerance: float, max_steps: int, seed: int,
    ) -> None:  # fmt: skip
        self.operator, self.k, self.score = operator, k, score
        self.tolerance, self.max_steps = tolerance, max_steps
        self.random = torch.Generator().manual_seed(seed)
        self.rows = torch.empty(0, operator.dimension, dtype=operator.dtype, device=operator.device)
        self.values = self.residuals = torch.empty(0, dtype=torch.float64)
        self.products, self.scale = 0, 0.0

    def settled(self, values: Tensor, residuals: Tensor) -> Tensor:
        """Whether residuals are within the tolerance, or as small as rounding lets them be."""
        floor = 10 * torch.finfo(self.operator.dtype).eps * self.scale
        return residuals <= (self.tolerance * values.abs()).clamp(min=floor)

    def run(self) -> None:
        sight, searches = self.outermost(self.space(), self.k), 1
        while len(self.rows) < self.operator.dimension:
            if not bool(self.settled(self.values, self.residuals).all()):
                break
            missing, space = self.k - len(self.rows), self.space()
            if missing > 0:
                sight = self.outermost(space, missing)
            elif self.overlooked(space, *sight):
                self.outermost(space, 1)
            else:
                break
            searches += 1
        if searches > 1:
            self.combine()

    def space(self) -> _Lanczos:
        """A new Krylov space in what is orthogonal to everything found."""
        start = torch.randn(self.operator.dimension, generator=self.random, dtype=torch.float64)
        return _Lanczos(self.operator, start.to(self.rows), self.rows)

    def ritz(self, space: _Lanczos) -> tuple[Tensor, Tensor, Tensor]:
        """The Ritz pairs and residuals, the outermost first."""
        values, vectors, residuals = space.ritz()
        self.scale = max(self.scale, float(values.abs().max()))
        order = self.score(values).argsort(descending=True)
        return values[order], vectors[:, order], residuals[order]

    def outermost(self, space: _Lanczos, count: int) -> tuple[float, int]:
        """Finds the ``count`` outermost of a space.

        Returns the score of the one after them, and how many steps it took until the last of them
        stood out: until its Ritz value was more than half way from there to where it ended.
        """
        path = []
        while True:
            if not space.exhausted:
                space.step()
                self.products += 1
            steps, last = len(space), space.exhausted or len(space) >= self.max_steps
            # The tridiagonal problem is small; looking at it this often costs next to nothing.
            if (steps < count or steps % (1 + steps // 16)) and not last:
                continue
            values, vectors, residuals = self.ritz(space)
            scores = self.score(values)[: count + 1].tolist()
            path.append((steps, scores[min(count, steps) - 1]))
            if last or bool(self.settled(values[:count], residuals[:count]).all()):
                break
        self.rows = torch.cat([self.rows, space.lift(vectors[:, :count])])
        self.values = torch.cat([self.values, values[:count]])
        self.residuals = torch.cat([self.residuals, residuals[:count]])
        if steps <= count:
            return -math.inf, steps
        level = (scores[count - 1] + scores[count]) / 2
        return scores[count], next(step for step, score in path if score >= level)

    def overlooked(self, space: _Lanczos, runner_up: float, steps: int) -> bool:
        """Whether a new space holds an eigenvalue that belongs to the k outermost.

        From another random start a copy of an outermost eigenvalue comes into sight after about as
        many steps as the outermost themselves took; what then stands out from the runner-up is
        followed until it is settled on which side of the k-th it lies.
        """
        bar = float(self.score(self.values).sort().values[-self.k])
        above = bar + self.tolerance * abs(bar) + 1e-5 * self.scale
        while not space.exhausted and len(space) < self.max_steps:
            space.step()
            self.products += 1
            if len(space) < steps + 2 and not space.exhausted:
                continue
            values, _, residuals = self.ritz(space)
            best, bound = float(self.score(values)[0]), float(residuals[0])
            if best > above:
                return True
            if best < (bar + runner_up) / 2 or best + bound < above:
                break
        return False

    def combine(self) -> None:
        """Rayleigh-Ritz on all that was found, whose residuals may overlap."""
        basis = torch.linalg.qr(self.rows.T.double()).Q
        image = (self.operator @ basis.to(self.rows.dtype)).double()
        self.products += len(self.rows)
        projected = basis.T @ image
        values, vectors = torch.linalg.eigh((projected + projected.T) / 2)
        self.residuals = (image @ vectors - basis @ (vectors * values)).norm(dim=0).cpu()
        self.values, self.rows = values.cpu(), (basis @ vectors).T.to(self.rows.dtype)


# ------------------------------------------------------------------- trace, diagonal, density


@dataclass(frozen=True, eq=False)
class Estimate:
    """A random estimate.

    Attributes:
        value: float64.
        standard_error: Of the value, from the spread of the probes; nan with a single one.

    Pitfall: the standard error covers the draw of the probes, not that of the data.
    """

    value: Tensor
    standard_error: Tensor


def _probes(operator: Operator, count: int, seed: int) -> Iterator[Tensor]:
    """Random signs (P,): of all probes with unit covariance those of least variance."""
    random = torch.Generator().manual_seed(seed)
    for _ in range(count):
        signs = torch.randint(2, (operator.dimension,), generator=random) * 2 - 1
        yield signs.to(operator.device, operator.dtype)


def _estimate(samples: Tensor) -> Estimate:
    spread = samples.std(0) if len(samples) > 1 else torch.full_like(samples[0], math.nan)
    return Estimate(samples.mean(0), spread / len(samples) ** 0.5)


def trace(
    operator: Operator | Tensor,
    probes: int = 30,
    *,
    method: Literal["hutchinson", "hutch++"] = "hutchinson",
    seed: int = 0,
) -> Estimate:
    r"""The trace from products with random vectors.

    .. math:: \operatorname{tr} A = \mathbb{E}\, v^\top A v, \qquad \mathbb{E}\, v v^\top = I

    Hutchinson's estimator averages this over random signs. Its variance
    :math:`2 \sum_{i \ne j} A_{ij}^2` is dominated by the largest eigenvalues; *Hutch++* spends a
    third of the products to find their space Q, a third for the exact :math:`\operatorname{tr}
    Q^\top A Q`, and estimates only the trace of what remains.

    Args:
        operator: An :class:`Operator`, or a symmetric matrix (P, P).
        probes: How many products to spend, at least 1; at least 3 for Hutch++.
        method: ``"hutchinson"`` or ``"hutch++"``.
        seed: Of the probes.

    Returns:
        :class:`Estimate` with scalars.

    Raises:
        ValueError: If there are too few probes or the method is unknown.

    Pitfall: the standard error is itself an estimate, and a poor one with few probes.

    Example:
        >>> trace(torch.eye(5), 3).value
        tensor(5., dtype=torch.float64)
    """
    operator = _as_operator(operator)
    require(method in ("hutchinson", "hutch++"), "method", method, "'hutchinson' or 'hutch++'")
    least = 1 if method == "hutchinson" else 3
    require(probes >= least, "probes", probes, f"at least {least} for {method}")
    if method == "hutchinson":
        return _estimate(_quadratic_forms(operator, _probes(operator, probes, seed)))
    rank = min(probes // 3, operator.dimension)
    draws = _probes(operator, rank + probes - 2 * (probes // 3), seed)
    sketch = operator @ torch.stack([next(draws) for _ in range(rank)], 1)
    basis = torch.linalg.qr(sketch.double()).Q.to(operator.dtype)
    exact = (basis.double() * (operator @ basis).double()).sum().cpu()
    # Projected twice, a probe is orthogonal to the basis up to rounding.
    rest = (v - basis @ (basis.T @ v) for v in draws)
    remainder = _estimate(_quadratic_forms(operator, (v - basis @ (basis.T @ v) for v in rest)))
    return Estimate(exact + remainder.value, remainder.standard_error)


def _quadratic_forms(operator: Operator, vectors: Iterable[Tensor]) -> Tensor:
    return torch.stack([(v * (operator @ v)).sum(dtype=torch.float64) for v in vectors]).cpu()


def diagonal(operator: Operator | Tensor, probes: int = 30, *, seed: int = 0) -> Estimate:
    r"""The diagonal from products with random signs.

    .. math:: \operatorname{diag} A = \mathbb{E}\, v \odot A v

    Args:
        operator: An :class:`Operator`, or a symmetric matrix (P, P).
        probes: How many products, at least 1.
        seed: Of the probes.

    Returns:
        :class:`Estimate` with vectors (P,). An entry's variance is the sum of its row's other
        squared entries over the number of probes.

    Pitfall: a diagonal that is small beside the rest of its row needs very many probes.

    Example:
        >>> diagonal(torch.diag(torch.tensor([1.0, 2.0])), 2).value
        tensor([1., 2.], dtype=torch.float64)
    """
    operator = _as_operator(operator)
    require(probes >= 1, "probes", probes, "at least 1")
    vectors = _probes(operator, probes, seed)
    return _estimate(torch.stack([(v * (operator @ v)).double() for v in vectors]))


@dataclass(frozen=True, eq=False)
class Spectrum:
    r"""A spectral density as what :func:`spectral_density` measures: weighted points.

    Attributes:
        nodes: (n, m) float64, the m Ritz values of each of n probes.
        weights: (n, m), the share of the spectrum at each, summing to one for each probe.

    Pitfall: an outlier is one eigenvalue among P, so its weight is about 1 / P: on a linear
    axis it does not show.
    """

    nodes: Tensor
    weights: Tensor

    def grid(self, points: int = 400) -> Tensor:
        """Points (points,) that span the nodes with a margin of a twentieth at both ends."""
        seen = self.nodes[self.weights > 0]
        low, high = float(seen.min()), float(seen.max())
        margin = 0.05 * ((high - low) or max(abs(high), 1.0))
        return torch.linspace(low - margin, high + margin, points, dtype=torch.float64)

    def density(self, grid: Tensor, width: float) -> Tensor:
        r"""The density on a grid (G,), each node a Gaussian of standard deviation ``width``.

        .. math:: \phi(t) = \frac1n \sum_{v} \sum_{i} \tau_i^{(v)}\,
            \mathcal{N}(t; \theta_i^{(v)}, \sigma^2)
        """
        require(width > 0, "width", width, "positive")
        z = (grid.double().cpu()[:, None] - self.nodes.flatten()) / width
        bells = (-z.square() / 2).exp() / (width * math.sqrt(2 * math.pi))
        return bells @ self.weights.flatten() / len(self.nodes)

    def moment(self, power: int) -> Tensor:
        r"""The estimate of :math:`\operatorname{tr} A^p / P`; unbiased while p < 2 m."""
        return (self.weights * self.nodes**power).sum(1).mean()

    def share(self, low: float = -math.inf, high: float = math.inf) -> Tensor:
        """The share of eigenvalues in [low, high]."""
        inside = (self.nodes >= low) & (self.nodes <= high)
        return (self.weights * inside).sum(1).mean()


def spectral_density(
    operator: Operator | Tensor, *, steps: int = 50, probes: int = 5, seed: int = 0
) -> Spectrum:
    r"""The spectral density by stochastic Lanczos quadrature.

    A Krylov space grown from a random vector v sees the spectrum through v's eyes: the Ritz values
    :math:`\theta_i` with the squares of the first entries of their eigenvectors as weights
    :math:`\tau_i` are a Gauss quadrature for :math:`v^\top f(A) v / \|v\|^2`, exact for polynomials
    of degree below 2 ``steps``; the mean over random v is :math:`\operatorname{tr} f(A) / P`.

    Args:
        operator: An :class:`Operator`, or a symmetric matrix (P, P).
        steps: m, Ritz values for each probe; more resolve more. Fewer where the space is exhausted.
        probes: n, random sign vectors.
        seed: Of the probes.

    Returns:
        :class:`Spectrum`.

    Raises:
        ValueError: If there are no steps or no probes.

    Pitfall: a single outlier has the weight 1/P, which few probes measure badly though its place is
    exact; count outliers with :func:`top_eigenpairs`.

    Source: ``gabdullin2024investigating``.
    """
    operator = _as_operator(operator)
    require(steps >= 1, "steps", steps, "at least 1")
    require(probes >= 1, "probes", probes, "at least 1")
    nodes = torch.zeros(probes, min(steps, operator.dimension), dtype=torch.float64)
    weights = torch.zeros_like(nodes)
    for n, start in enumerate(_probes(operator, probes, seed)):
        space = _Lanczos(operator, start)
        while not space.exhausted and len(space) < steps:
            space.step()
        values, vectors, _ = space.ritz()
        nodes[n, : len(space)], weights[n, : len(space)] = values, vectors[0].square()
        nodes[n, len(space) :] = values[-1]
    return Spectrum(nodes, weights)


def spectrum_criteria(spectrum: Spectrum, *, power: float = 0.5) -> tuple[Tensor, Tensor]:
    r"""Two summaries of how much of a spectrum is negative.

    .. math:: r_e = \frac1n \sum_v \left| \frac{\min_i \theta_i^{(v)}}{\max_i \theta_i^{(v)}}
        \right|, \qquad K = \frac1n \sum_v
        \frac{\sum_{\theta_i < 0} |\theta_i \tau_i|^p}{\sum_{\theta_i > 0} (\theta_i \tau_i)^p}

    with the nodes :math:`\theta` and weights :math:`\tau` of each of n probes. Both are 0 at a
    minimum and grow with the negative part.

    Args:
        spectrum: Of a Hessian, from :func:`spectral_density`.
        power: p in (0, 1]; below one it lifts the many small terms of the bulk.

    Returns:
        :math:`r_e` and K, scalars.

    Raises:
        ValueError: If the power is out of range.

    Source: ``gabdullin2024investigating``; the formulas as in the author's library.

    Pitfall: K sums powers of weights, so it depends on the number of Lanczos steps: compare spectra
    of equally many.
    """
    require(0 < power <= 1, "power", power, "in (0, 1]")
    nodes, weights = spectrum.nodes, spectrum.weights
    ratio = (nodes.amin(1) / nodes.amax(1)).abs()
    terms = (nodes * weights).abs() ** power
    negative = torch.where(nodes < 0, terms, 0).sum(1)
    positive = torch.where(nodes > 0, terms, 0).sum(1)
    return ratio.mean(), (negative / positive).mean()


# --------------------------------------------------------------- one more example


def landscape_increments(losses: Tensor) -> Tensor:
    r"""How much the mean loss changes with each further example.

    .. math:: L_{k+1}(w) - L_k(w) = \frac{\ell_{k+1}(w) - L_k(w)}{k + 1}, \qquad
        L_k(w) = \frac1k \sum_{i \le k} \ell_i(w)

    Args:
        losses: (..., N), the losses of N >= 2 examples in their order, at any number of weights.

    Returns:
        (..., N - 1), the increments for k = 1 to N - 1.

    Raises:
        ValueError: If there are fewer than two examples.

    Source: ``kiselev2024unraveling``.

    Pitfall: taken as a difference of two means of float32 the increment drowns in rounding from
    about k = 1000 on; the right-hand side does not.

    Example:
        >>> landscape_increments(torch.tensor([1.0, 3.0, 2.0]))
        tensor([1., 0.])
    """
    values = check_float(losses, "losses")
    shape = tuple(values.shape)
    require(bool(shape) and shape[-1] >= 2, "the shape of losses", shape, "(..., N) with N >= 2")
    k = torch.arange(1, shape[-1], device=values.device, dtype=values.dtype)
    means = values[..., :-1].cumsum(-1) / k
    return ((values[..., 1:] - means) / (k + 1)).to(losses.dtype)


def landscape_increment_bound(
    losses: Tensor, hessian_distances: Tensor | float, radius: Tensor | float
) -> Tensor:
    r"""A bound on the increments of :func:`landscape_increments` around a common minimum.

    Where both :math:`L_k` and :math:`L_{k+1}` are quadratic with their minimum at :math:`w^*`,

    .. math:: |L_{k+1}(w) - L_k(w)| \le \frac{1}{k + 1} \left( |\ell_{k+1}(w^*) - L_k(w^*)| +
        \tfrac12 \|w - w^*\|^2 \, \Bigl\| H_{k+1} - \frac1k \sum_{i \le k} H_i \Bigr\|_2 \right)

    with the Hessians :math:`H_i` of single examples at :math:`w^*`.

    Args:
        losses: (N,), at the minimum, N >= 2.
        hessian_distances: (N - 1,), the spectral norms, or a bound on all.
        radius: The largest :math:`\|w - w^*\|`.

    Returns:
        (N - 1,).

    Raises:
        ValueError: If there are fewer than two examples or a distance or radius is negative.

    Source: ``kiselev2024unraveling``, who leave out the factor one half.

    Pitfall: the two minima never coincide exactly, and beyond the quadratic region nothing holds.
    """
    require(losses.ndim == 1, "the shape of losses", tuple(losses.shape), "(N,)")
    at_minimum = landscape_increments(losses).abs()
    distances = torch.as_tensor(hessian_distances, dtype=losses.dtype, device=losses.device)
    require(bool((distances >= 0).all()), "hessian_distances", hessian_distances, "at least 0")
    require(bool(torch.as_tensor(radius) >= 0), "radius", radius, "at least 0")
    k = torch.arange(1, len(losses), device=losses.device, dtype=losses.dtype)
    return at_minimum + radius**2 * distances / 2 / (k + 1)


def gauss_newton_bound(
    weights: Sequence[Tensor], radius: float, *, biases: Sequence[Tensor] | None = None
) -> Tensor:
    r"""A bound on the Gauss-Newton norm of one example, for ReLU perceptrons with cross-entropy.

    .. math:: \|G_i\|_2 \le \frac12 \sum_{p=1}^{L} \Bigl( \prod_{q > p} \|W_q\|_2^2 \Bigr)
        \bigl( r_{p-1}^2 + b \bigr), \qquad r_p = \|W_p\|_2\, r_{p-1} + \|b_p\|, \quad r_0 = \|x_i\|

    The sum runs over layers: G is :math:`J^\top A J`, the curvature A of cross-entropy has norm at
    most 1/2, and the Jacobian of layer p is a product of the later weights with that layer's input,
    whose norm is at most :math:`r_{p-1}`. The bias as a parameter adds b = 1, without biases b = 0.

    Args:
        weights: The weight matrices :math:`W_p` (outputs, inputs), first layer first.
        radius: :math:`r_0`, the largest norm of an input.
        biases: The biases :math:`b_p`, one for each layer; None if the layers have none.

    Returns:
        A scalar.

    Raises:
        ValueError: If there are no weights, as many biases are not given, or the radius is
            negative.

    Source: after ``kiselev2024unraveling``, whose bound has one more factor of the squared weight
    norm and a larger constant. It can fail: with weights of zero the matrix of a linear model is
    not zero, but that bound is.

    Pitfall: products of norms grow with depth: for deep networks the bound says nothing.
    """
    require(len(weights) > 0, "the number of weights", 0, "at least 1")
    require(radius >= 0, "radius", radius, "at least 0")
    if biases is not None:
        require(len(biases) == len(weights), "the number of biases", len(biases), f"{len(weights)}")
    norms = [torch.linalg.matrix_norm(weight, 2) for weight in weights]
    after = [math.prod(norms[p + 1 :], start=torch.ones_like(norms[0])) for p in range(len(norms))]
    reach, total = torch.full_like(norms[0], radius), torch.zeros_like(norms[0])
    for p, norm in enumerate(norms):
        total = total + after[p].square() * (reach.square() + (biases is not None))
        reach = norm * reach + (0 if biases is None else biases[p].norm())
    return total / 2


# --------------------------------------------------------------------- inverse Fisher products


def per_example_gradients(loss: Loss, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """The gradient of each example's own loss, in one vectorized pass.

    Args:
        loss: ``loss(outputs, targets)``, the mean over a batch.
        model: Its parameters that require a gradient are the P variables. No batch statistics.
        inputs, targets: Of N examples.

    Returns:
        (N, P).

    Raises:
        ValueError: If the batch is empty or the model has no parameter.

    Pitfall: N x P numbers: take large sets in parts.
    """
    problem = _Problem(loss, model, [(inputs, targets)])
    named = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}

    def own(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            outputs = functional_call(model, parameters, (x[None],))
        return problem.value(outputs, y[None])

    gradients = vmap(grad(own), (None, 0, 0))(named, inputs, targets)
    return torch.cat([gradients[name].flatten(1) for name in named], 1)


def inverse_fisher_product(gradients: Tensor, vectors: Tensor, *, damping: float = 1e-5) -> Tensor:
    r"""The inverse of a damped empirical Fisher matrix times vectors, without any P x P matrix.

    .. math:: F = \lambda I + \frac1m G^\top G, \qquad F^{-1} v = \frac1\lambda \left( v - G^\top
        (m \lambda I + G G^\top)^{-1} G v \right)

    by the Woodbury identity: O(m P) for the products and O(m^3) for the small system.

    Args:
        gradients: G, (m, P), a gradient in each row.
        vectors: (P,) or (P, K).
        damping: :math:`\lambda`, positive.

    Returns:
        The shape of ``vectors``.

    Raises:
        ValueError: If a shape does not fit or the damping is not positive.

    Source: ``frantar2021mfac``.

    Pitfall: v and its projection nearly cancel if the damping is far below the gradients' size, so
    float32 loses digits: about the ratio of the two.

    Example:
        >>> inverse_fisher_product(torch.tensor([[1.0, 0.0]]), torch.ones(2), damping=1.0)
        tensor([0.5000, 1.0000])
    """
    g = _check_gradients(gradients, damping)
    check_float(vectors, "vectors")
    shape = tuple(vectors.shape)
    require(vectors.ndim in (1, 2) and shape[0] == g.shape[1], "the shape of vectors", shape,
            f"({g.shape[1]},) or ({g.shape[1]}, K)")  # fmt: skip
    v = vectors.to(g.dtype).reshape(len(vectors), -1)
    result = (v - g.T @ torch.linalg.solve(_kernel(g, damping), g @ v)) / damping
    return result.reshape(shape).to(vectors.dtype)


def recursive_inverse_fisher_product(
    gradients: Tensor, vector: Tensor, *, damping: float = 1e-5
) -> Tensor:
    r"""The product of :func:`inverse_fisher_product`, gradient by gradient.

    .. math:: F_i^{-1} v = F_{i-1}^{-1} v - \frac{F_{i-1}^{-1} g_i \; (F_{i-1}^{-1} g_i)^\top v}
        {m + g_i^\top F_{i-1}^{-1} g_i}, \qquad F_0 = \lambda I

    The form of the paper's static algorithm: the vectors :math:`F_{i-1}^{-1} g_i` are made once, in
    O(m^2 P), and serve every later v. Here they are made at each call: it is the form to read.

    Args, Returns, Raises: as in :func:`inverse_fisher_product`, for a vector (P,).

    Source: ``frantar2021mfac``.

    Pitfall: O(m^2 P) in time where the Woodbury form shares one kernel between all vectors; it
    is here for its use with gradients that arrive one by one.
    """
    g = _check_gradients(gradients, damping)
    require_shape(vector, (g.shape[1],), "vector")
    directions: list[Tensor] = []
    denominators: list[Tensor] = []

    def product(v: Tensor) -> Tensor:
        result = v / damping
        for direction, denominator in zip(directions, denominators, strict=True):
            result = result - direction * (direction @ v) / denominator
        return result

    for row in g:
        direction = product(row)
        denominators.append(len(g) + row @ direction)
        directions.append(direction)
    return product(vector.to(g.dtype)).to(vector.dtype)


def inverse_fisher_diagonal(gradients: Tensor, *, damping: float = 1e-5) -> Tensor:
    r"""The diagonal of :math:`F^{-1}`, see :func:`inverse_fisher_product`, in O(m^2 P).

    Args:
        gradients: G, (m, P).
        damping: :math:`\lambda`, positive.

    Returns:
        (P,), positive.

    Source: ``frantar2021mfac``.

    Pitfall: where all gradients of a weight are zero it is ``1 / damping``, a number about the
    damping alone.
    """
    g = _check_gradients(gradients, damping)
    # With the Cholesky factor of the small system the correction is a sum of squares.
    half = torch.linalg.solve_triangular(torch.linalg.cholesky(_kernel(g, damping)), g, upper=False)
    return ((1 - half.square().sum(0)) / damping).to(gradients.dtype)


def _check_gradients(gradients: Tensor, damping: float) -> Tensor:
    g = check_float(gradients, "gradients")
    shape = tuple(g.shape)
    require(g.ndim == 2 and min(shape) > 0, "the shape of gradients", shape, "(m, P), not empty")
    require(damping > 0, "damping", damping, "positive")
    return g


def _kernel(g: Tensor, damping: float) -> Tensor:
    """The m x m system m lambda I + G G^T."""
    kernel = g @ g.T
    return kernel + len(g) * damping * torch.eye(len(g), dtype=g.dtype, device=g.device)


def obs_scores(weights: Tensor, gradients: Tensor, *, damping: float = 1e-5) -> Tensor:
    r"""How much the loss is expected to grow if a weight is set to zero and the others make up.

    .. math:: \rho_i = \frac{w_i^2}{2\, [F^{-1}]_{ii}}

    the optimal brain surgeon's saliency with the damped empirical Fisher matrix as the Hessian.

    Args:
        weights: (P,), of a trained model.
        gradients: (m, P).
        damping: Of the matrix, positive.

    Returns:
        (P,), at least 0; prune the smallest.

    Raises:
        ValueError: If a shape does not fit or the damping is not positive.

    Source: ``frantar2021mfac``.

    Pitfall: the scores of single weights do not add up: prune many in several rounds.
    """
    diagonal_of_inverse = inverse_fisher_diagonal(gradients, damping=damping)
    require_shape(weights, (gradients.shape[1],), "weights")
    return weights.square() / (2 * diagonal_of_inverse.to(weights.dtype))


def obs_update(
    weights: Tensor, gradients: Tensor, pruned: Tensor, *, damping: float = 1e-5
) -> Tensor:
    r"""The weights after pruning, with the others moved to make up for the loss.

    .. math:: w + \delta w, \qquad \delta w = -F^{-1} \sum_{i \in \text{pruned}}
        \frac{w_i}{[F^{-1}]_{ii}}\, e_i, \qquad w_i + \delta w_i := 0 \text{ where pruned}

    For a single weight this is the optimal brain surgeon's update; for many the paper adds up
    single updates.

    Args:
        weights: (P,), of a trained model.
        gradients: (m, P).
        pruned: (P,), Boolean, which weights go.
        damping: Of the matrix, positive.

    Returns:
        (P,).

    Raises:
        TypeError: If ``pruned`` is not Boolean.
        ValueError: If a shape does not fit or the damping is not positive.

    Source: ``frantar2021mfac``.

    Pitfall: as single updates know nothing of each other, their sum overshoots if many strongly
    coupled weights go at once.
    """
    if pruned.dtype != torch.bool:
        raise TypeError(f"pruned must be Boolean, got {pruned.dtype}")
    require_shape(weights, (gradients.shape[1],), "weights")
    require_shape(pruned, tuple(weights.shape), "pruned")
    diagonal_of_inverse = inverse_fisher_diagonal(gradients, damping=damping).to(weights.dtype)
    push = torch.where(pruned, weights / diagonal_of_inverse, 0)
    moved = weights - inverse_fisher_product(gradients, push, damping=damping)
    return torch.where(pruned, 0, moved)


class MFAC(torch.optim.Optimizer):
    r"""Gradient descent preconditioned by the inverse Fisher matrix of a window of gradients.

    .. math:: w \leftarrow w - \eta\, u, \qquad u \leftarrow \mu\, u + (1 - \mu)\, F^{-1} g, \qquad
        F = \lambda I + \frac1m \sum_{j=1}^{m} g_j g_j^\top

    where :math:`g_1, \dots, g_m` are the last m gradients, g among them; before there are m the
    missing ones count as zero. The products between gradients are kept, so a step costs two
    products with the m x P window and a solution of an m x m system.

    Args:
        params: Parameters or groups of them; all groups share the window.
        lr: :math:`\eta`.
        momentum: :math:`\mu` in [0, 1).
        weight_decay: Adds this multiple of the weights to the gradient.
        window: m, how many gradients.
        damping: :math:`\lambda`, positive.

    Raises:
        ValueError: If an argument is out of range.

    Source: ``frantar2021mfac``; defaults and momentum as in the authors' code.

    Pitfall: where the window knows no curvature the step is :math:`\eta / \lambda` times the
    gradient, so choose the damping with the rate.
    """

    def __init__(
        self, params: Any, lr: float = 1e-3, *, momentum: float = 0.0, weight_decay: float = 0.0,
        window: int = 1024, damping: float = 1e-5,
    ) -> None:  # fmt: skip
        require(lr >= 0, "lr", lr, "at least 0")
        require(0 <= momentum < 1, "momentum", momentum, "in [0, 1)")
        require(weight_decay >= 0, "weight_decay", weight_decay, "at least 0")
        require(window >= 1, "window", window, "at least 1")
        require(damping > 0, "damping", damping, "positive")
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self._momentum, self._window, self._damping = momentum, window, damping

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Moves the parameters along the preconditioned gradient."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        parts = []
        for group in self.param_groups:
            for p in group["params"]:
                own = torch.zeros_like(p) if p.grad is None else p.grad
                parts.append(own + group["weight_decay"] * p)
        g = flatten(parts)
        # The window belongs to all parameters; it is kept with the first, so that it is saved.
        state = self.state[self.param_groups[0]["params"][0]]
        if not state:
            state["count"] = 0
            state["gradients"] = g.new_zeros(self._window, len(g))
            state["kernel"] = g.new_zeros(self._window, self._window)
            state["direction"] = torch.zeros_like(g)
        row = state["count"] % self._window
        state["gradients"][row] = g
        along = state["gradients"] @ g
        state["kernel"][row] = along
        state["kernel"][:, row] = along
        ridge = self._window * self._damping * torch.eye(self._window).to(along)
        solved = torch.linalg.solve(state["kernel"] + ridge, along)
        fresh = (g - solved @ state["gradients"]) / self._damping
        state["direction"] = self._momentum * state["direction"] + (1 - self._momentum) * fresh
        state["count"] += 1
        pieces = iter(unflatten(state["direction"], parts))
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(next(pieces), alpha=group["lr"])
        return value
