r"""One training loop for the whole book, and many seeds at the price of little more than one.

:func:`fit` trains the same model from several seeds at once: their weights are stacked to tensors
of shape ``(S, ...)`` and one vectorized pass serves all. The seeds share nothing but the time: each
has its own initial weights, minibatch order and random numbers, and its result is the one that an
ordinary run of that seed alone would give.
"""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from tqdm.auto import tqdm

from lossbook.lab.datasets import Dataset, generator

__all__ = ["Ensemble", "Fit", "accuracy", "device", "fit", "mlp", "predictions", "scale", "set_up"]


def device(name: torch.device | str | None = None) -> torch.device:
    """The device called ``name``; without a name the GPU if CUDA has one, else the CPU.

    Apple's ``"mps"`` has no float64 and is used only by name.
    """
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


_device = device  # for functions with an argument of that name


def scale() -> Literal["small", "full"]:
    """How large the experiments are: ``LOSSBOOK_SCALE``, or "small" if it is not set.

    Raises:
        ValueError: If the variable is neither ``small`` nor ``full``.
    """
    value = os.environ.get("LOSSBOOK_SCALE", "small")
    if value not in ("small", "full"):
        raise ValueError(f"LOSSBOOK_SCALE must be 'small' or 'full', got {value!r}")
    return cast(Literal["small", "full"], value)


def set_up(seed: int = 0) -> None:
    """Begin a chapter: seed torch, and say in one line where and at which scale it runs."""
    torch.manual_seed(seed)
    gpu = f"the GPU ({torch.cuda.get_device_name()})" if torch.cuda.is_available() else "the CPU"
    print(f"running on {gpu} at {scale()} scale")


def mlp(*widths: int, activation: Callable[[], nn.Module] = nn.ReLU) -> Callable[[], nn.Module]:
    """A builder of multilayer perceptrons: ``mlp(64, 32, 10)`` has one hidden layer of 32 units.

    Args:
        widths: Number of inputs, of units in each hidden layer, of outputs. Inputs of more
            dimensions (pictures) are flattened.
        activation: Makes the nonlinearity between two linear layers.

    Example:
        >>> mlp(64, 10)()
        Sequential(
          (0): Flatten(start_dim=1, end_dim=-1)
          (1): Linear(in_features=64, out_features=10, bias=True)
        )
    """
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"widths must be at least two positive numbers, got {widths}")

    def build() -> nn.Module:
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), activation()]
        return nn.Sequential(nn.Flatten(), *layers[:-1])

    return build


class Ensemble:
    """The same model from several seeds, evaluated in one vectorized pass.

    Args:
        build: Makes a module with fresh random weights.
        seeds: Seed s has the weights of ``torch.manual_seed(s); build()``. Torch's global random
            state is left as it was.

    Raises:
        ValueError: If ``seeds`` is empty.

    Pitfall: random layers (dropout) work, but one draw serves all seeds, so a seed's numbers then
    depend on how many others stand beside it.
    """

    def __init__(self, build: Callable[[], nn.Module], seeds: Sequence[int]) -> None:
        self.seeds = tuple(seeds)
        if not self.seeds:
            raise ValueError("seeds must not be empty")
        modules = []
        with torch.random.fork_rng():
            for seed in self.seeds:
                torch.manual_seed(seed)
                modules.append(build())
        self._stacked, self._buffers = stack_module_state(modules)
        self._skeleton = modules[0]

    def __len__(self) -> int:
        return len(self.seeds)

    def __call__(self, inputs: Tensor, per_seed: bool = False) -> Tensor:
        """Outputs of all seeds.

        Args:
            inputs: Shape ``(N, ...)``, the same for all, or ``(S, N, ...)`` if ``per_seed``.
            per_seed: Whether the first dimension of ``inputs`` counts the seeds.

        Returns:
            Shape ``(S, N, ...)``, computed where the weights are, returned where the inputs are.
        """
        if per_seed and len(inputs) != len(self):
            raise ValueError(
                f"inputs must start with {len(self)} seeds, got shape {tuple(inputs.shape)}"
            )

        def forward(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(self._skeleton, (parameters, buffers), (x,))

        vectorized = vmap(forward, (0, 0, 0 if per_seed else None), randomness="different")
        place = self.parameters()[0].device if self.parameters() else inputs.device
        return vectorized(self._stacked, self._buffers, inputs.to(place)).to(inputs.device)

    def parameters(self) -> list[Tensor]:
        """The weights of all seeds, leaf tensors of shape ``(S, ...)``."""
        return list(self._stacked.values())

    def first(self, layers: int) -> Ensemble:
        """The first layers of sequential models, or without the last few if negative; weights shared."""
        if not isinstance(self._skeleton, nn.Sequential):
            raise TypeError(f"the models must be sequential, got {type(self._skeleton).__name__}")
        part = copy.copy(self)
        part._skeleton = self._skeleton[:layers]
        part._stacked, part._buffers = (
            {
                name: tensor
                for name, tensor in tensors.items()
                if name in part._skeleton.state_dict()
            }
            for tensors in (self._stacked, self._buffers)
        )
        return part

    def module(self, i: int) -> nn.Module:
        """An ordinary module with a copy of the weights of the i-th seed."""
        module = copy.deepcopy(self._skeleton)
        state = self._stacked | self._buffers
        with torch.no_grad():
            for name, tensor in chain(module.named_parameters(), module.named_buffers()):
                tensor.copy_(state[name][i])
        return module

    @property
    def training(self) -> bool:
        """Whether random layers and batch statistics are on, as in ``nn.Module``."""
        return self._skeleton.training

    def train(self, mode: bool = True) -> Ensemble:
        """Training mode (dropout, batch statistics) on or off, as in ``nn.Module``."""
        self._skeleton.train(mode)
        return self

    def to(self, device: torch.device | str) -> Ensemble:
        """Move all weights, in place; call it before an optimizer takes hold of them."""
        self._skeleton.to(device)
        for name, tensor in self._stacked.items():
            moved = tensor.detach().to(device)
            self._stacked[name] = moved.requires_grad_(tensor.requires_grad)
        self._buffers = {name: tensor.to(device) for name, tensor in self._buffers.items()}
        return self


def predictions(ensemble: Ensemble, dataset: Dataset) -> Tensor:
    """Outputs for a whole dataset in evaluation mode, without gradient, shape ``(S, N, ...)``.

    They are where the dataset is.
    """
    chunks = dataset.inputs.split(1024)
    training = ensemble.training
    try:
        ensemble.train(False)
        with torch.no_grad():
            return torch.cat([ensemble(chunk) for chunk in chunks], dim=1)
    finally:
        ensemble.train(training)


def accuracy(ensemble: Ensemble, dataset: Dataset) -> Tensor:
    """Share of right answers of each seed, shape ``(S,)``.

    The answer is the class with the largest output; a model of two classes with a single output
    answers 1 where that is positive.

    Raises:
        ValueError: If the model has too few outputs for the classes.
    """
    scores = predictions(ensemble, dataset)
    if scores.ndim == 3 and scores.shape[2] >= dataset.classes:
        answers = scores.argmax(dim=2)
    elif scores.shape[2:] in ((), (1,)) and dataset.classes == 2:
        answers = (scores.flatten(1) > 0).long()
    else:
        raise ValueError(
            f"outputs must have shape (S, N, {dataset.classes}), got {tuple(scores.shape)}"
        )
    return (answers == dataset.labels).float().mean(dim=1)


@dataclass(frozen=True, eq=False)
class Fit:
    """What :func:`fit` returns.

    Attributes:
        ensemble: The trained models.
        history: On the CPU: ``"step"`` of shape ``(T,)``, steps done at each record; ``"loss"`` of
            shape ``(T, S)``, the mean minibatch loss since the record before; each measure,
            shape ``(T, S)``.
        losses: The loss of each seed, with the state it has reached.
    """

    ensemble: Ensemble
    history: dict[str, Tensor]
    losses: list[Callable[..., Tensor]]


def fit(
    build: Callable[[], nn.Module],
    loss: Callable[..., Tensor] | Sequence[Callable[..., Tensor]],
    data: Dataset | Sequence[Dataset],
    *,
    seeds: Sequence[int] = range(5),
    steps: int = 300,
    batch_size: int = 64,
    learning_rate: float = 1e-2,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    weight_decay: float = 0.0,
    indexed: bool = False,
    views: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    measure: dict[str, Callable[[Ensemble], Tensor]] | None = None,
    every: int = 50,
    device: torch.device | str | None = None,
    progress: str | None = "training",
) -> Fit:
    """Train one model per seed, all at once, by minibatch gradient descent.

    Args:
        build: Makes a module with fresh weights, for instance ``mlp(64, 64, 10)``.
        loss: ``loss(logits, target)`` gives a scalar for one seed's minibatch. A plain function (or
            ``partial`` of one) is vectorized over the seeds by ``torch.func.vmap``, which forbids
            random numbers, state and branches on values. A module, or a sequence with one loss
            per seed, is called seed by seed and may do all three. Each seed gets a deep copy of a
            module; its parameters are trained along.
        data: One dataset for all, or one per seed, of the same shape.
        seeds: Of the initial weights, minibatches and random numbers.
        steps: Number of updates.
        batch_size: Examples in a minibatch; all of them if there are fewer. An epoch's incomplete
            last minibatch is left out.
        learning_rate: Passed to the optimizer.
        optimizer: A class (or partial) of ``torch.optim`` that works element by element: SGD, Adam,
            AdamW. One that looks across a tensor (LBFGS, Muon) would mix the seeds.
        weight_decay: Passed to the optimizer.
        indexed: Call ``loss(logits, target, index)`` with the examples' places in the dataset.
        views: Makes V views of a minibatch, ``views(inputs, stream)`` of shape ``(V, N, ...)``, from
            the seed's own CPU random stream; see :mod:`lossbook.lab.views`. The loss is then given
            all their outputs at once, ``(V, N, ...)``.
        measure: Name to function of the ensemble that gives one number per seed, shape ``(S,)``.
        every: Record history after this many steps, and at the end.
        device: Where to train; :func:`device` chooses if not given.
        progress: Text of the progress bar, or None for no bar. There is none either where the
            environment variable ``LOSSBOOK_STATIC`` is set.

    Raises:
        ValueError: If an argument is out of range, numbers of seeds, losses and datasets differ, or
            a loss or measure has the wrong shape.
        FloatingPointError: If a loss is not finite; names the step and the seed.

    Pitfall: vectorized, a loss cannot see values, so it does not report labels out of range; try a
    new loss on one minibatch first.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> from lossbook.lab.datasets import moons
        >>> run = fit(mlp(2, 16, 2), cross_entropy, moons(100), seeds=[0, 1], progress=None)
        >>> run.history["loss"].shape
        torch.Size([6, 2])
    """
    for name, number in {"steps": steps, "batch_size": batch_size, "every": every}.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number!r}")
    place = _device(device)
    ensemble = Ensemble(build, seeds).to(place).train()
    losses = _one_per_seed("loss", loss, len(ensemble), copy.deepcopy)
    vectorized = vmap(losses[0]) if _is_function(loss) else None
    datasets = _one_per_seed("data", data, len(ensemble), lambda dataset: dataset)
    inputs, labels = _stack(datasets, place)
    learned = [part.to(place) for part in losses if isinstance(part, nn.Module)]
    trained = [*ensemble.parameters(), *(p for part in learned for p in part.parameters())]
    # Any: torch.optim.Optimizer itself promises neither argument.
    updates = cast(Any, optimizer)(trained, lr=learning_rate, weight_decay=weight_decay)

    batches = [_minibatches(len(datasets[0]), batch_size, seed) for seed in ensemble.seeds]
    streams = [_streams(seed, place) for seed in ensemble.seeds]
    draws = [generator(seed, "views") for seed in ensemble.seeds]
    rows = torch.arange(len(ensemble), device=place)[:, None]
    history: dict[str, list[Tensor]] = {"step": [], "loss": [], **{n: [] for n in measure or {}}}
    recent: list[Tensor] = []

    hidden = progress is None or bool(os.environ.get("LOSSBOOK_STATIC"))
    with torch.random.fork_rng():
        torch.manual_seed(ensemble.seeds[0])
        for step in tqdm(range(1, steps + 1), desc=progress, disable=hidden):
            index = torch.stack([next(batch) for batch in batches]).to(place)
            batch = inputs[rows, index]
            if views is None:
                logits = ensemble(batch, per_seed=True)
            else:
                seen = torch.stack([views(x, d) for x, d in zip(batch, draws, strict=True)])
                logits = ensemble(seen.flatten(1, 2), per_seed=True).unflatten(1, seen.shape[1:3])
            target = labels[rows, index]
            arguments = (logits, target, index)[: 3 if indexed else 2]
            if vectorized:
                value = vectorized(*arguments)
                _check_scalar(value[0])
            else:
                values = []
                for s, own in enumerate(zip(*arguments, strict=True)):
                    with _drawing_from(streams[s]):
                        values.append(losses[s](*own))
                    _check_scalar(values[-1])
                value = torch.stack(values)
            _check_finite(value.detach(), step, ensemble.seeds)
            updates.zero_grad()
            value.sum().backward()
            updates.step()

            recent.append(value.detach())
            if step % every == 0 or step == steps:
                history["step"].append(torch.tensor(step))
                history["loss"].append(torch.stack(recent).mean(dim=0).cpu())
                for name, function in (measure or {}).items():
                    history[name].append(_measured(name, function, ensemble))
                recent.clear()
    return Fit(ensemble, {name: torch.stack(values) for name, values in history.items()}, losses)


def _one_per_seed(name: str, given: Any, seeds: int, share: Callable[[Any], Any]) -> list[Any]:
    if not isinstance(given, Sequence):
        return [share(given) for _ in range(seeds)]
    if len(given) != seeds:
        raise ValueError(f"{name} must be one or {seeds} (one per seed), got {len(given)}")
    return list(given)


def _stack(datasets: Sequence[Dataset], place: torch.device) -> tuple[Tensor, Tensor]:
    """Inputs (S, N, ...) and labels (S, N); a dataset that all share is not copied."""
    first = datasets[0]
    if any(dataset.inputs.shape != first.inputs.shape for dataset in datasets):
        shapes = [tuple(dataset.inputs.shape) for dataset in datasets]
        raise ValueError(f"data must have the same shape for all seeds, got {shapes}")
    if len(first) == 0:
        raise ValueError("data must not be empty")
    inputs, labels = (
        tensors[0].to(place).expand(len(tensors), *tensors[0].shape)
        if all(tensor is tensors[0] for tensor in tensors)
        else torch.stack(tensors).to(place)
        for tensors in ([d.inputs for d in datasets], [d.labels for d in datasets])
    )
    return inputs, labels


def _minibatches(samples: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Endless indices: every epoch a new order, cut into full minibatches."""
    size = min(batch_size, samples)
    stream = generator(seed, "minibatches")
    while True:
        yield from torch.randperm(samples, generator=stream).split(size)[: samples // size]


def _streams(seed: int, place: torch.device) -> list[torch.Generator]:
    """Random streams for one seed's loss, one for each device it may draw on."""
    stream = generator(seed, "loss")
    if place.type != "cuda":
        return [stream]
    return [stream, torch.Generator(place).manual_seed(stream.initial_seed())]


@contextmanager
def _drawing_from(streams: Sequence[torch.Generator]) -> Iterator[None]:
    """Meanwhile, torch's global generators continue ``streams``: what a loss draws is its own."""
    defaults = [
        torch.default_generator
        if stream.device.type == "cpu"
        else torch.cuda.default_generators[stream.device.index or 0]
        for stream in streams
    ]
    before = [default.get_state() for default in defaults]
    try:
        for default, stream in zip(defaults, streams, strict=True):
            default.set_state(stream.get_state())
        yield
    finally:
        for default, stream, state in zip(defaults, streams, before, strict=True):
            stream.set_state(default.get_state())
            default.set_state(state)


def _is_function(loss: object) -> bool:
    while isinstance(loss, partial):
        loss = loss.func
    return inspect.isroutine(loss)


def _check_scalar(value: Tensor) -> None:
    if value.ndim:
        raise ValueError(f"loss must give a scalar per minibatch, got shape {tuple(value.shape)}")


def _check_finite(value: Tensor, step: int, seeds: Sequence[int]) -> None:
    if not value.isfinite().all():
        s = int((~value.isfinite()).nonzero()[0])
        raise FloatingPointError(f"loss is {float(value[s])} at step {step} of seed {seeds[s]}")


def _measured(name: str, function: Callable[[Ensemble], Tensor], ensemble: Ensemble) -> Tensor:
    result = function(ensemble).detach().cpu()
    if result.shape != (len(ensemble),):
        raise ValueError(
            f"measure {name!r} must give shape ({len(ensemble)},), got {tuple(result.shape)}"
        )
    return result
