"""An ensemble must be nothing but its seeds trained alone; everything else is bookkeeping."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lossbook.lab.datasets import Dataset, corrupt, digits, generator, moons, symmetric_noise
from lossbook.lab.training import (
    Ensemble,
    accuracy,
    device,
    fit,
    mlp,
    predictions,
    scale,
)

BUILD = mlp(2, 8, 2)


def double(build=BUILD):
    return lambda: build().double()


def moons64(samples=50, seed=0):
    data = moons(samples, seed=seed)
    return Dataset(data.inputs.double(), data.labels, 2, data.name)


def train(loss=cross_entropy, data=None, build=None, **options):
    options = {"seeds": [3, 1, 7], "steps": 12, "batch_size": 16, "device": "cpu", **options}
    data = moons64() if data is None else data
    return fit(build or double(), loss, data, progress=None, **options)


def weights(run, i):
    return torch.cat([p.detach()[i].flatten() for p in run.ensemble.parameters()])


# Ensemble


def test_seed_s_has_the_weights_of_manual_seed_s():
    ensemble = Ensemble(BUILD, [4, 0])
    for i, seed in enumerate([4, 0]):
        torch.manual_seed(seed)
        expected = BUILD().state_dict()
        actual = ensemble.module(i).state_dict()
        assert expected.keys() == actual.keys()
        assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_forward_equals_module_by_module():
    ensemble = Ensemble(double(), range(3))
    shared = torch.randn(5, 2, dtype=torch.float64, generator=generator(0, "test"))
    own = torch.randn(3, 5, 2, dtype=torch.float64, generator=generator(1, "test"))
    expected = torch.stack([ensemble.module(i)(shared) for i in range(3)])
    torch.testing.assert_close(ensemble(shared), expected)
    expected = torch.stack([ensemble.module(i)(own[i]) for i in range(3)])
    torch.testing.assert_close(ensemble(own, per_seed=True), expected)


def test_parameters_are_leaves_with_a_seed_dimension():
    ensemble = Ensemble(BUILD, range(3)).to("cpu")
    assert [tuple(p.shape) for p in ensemble.parameters()] == [(3, 8, 2), (3, 8), (3, 2, 8), (3, 2)]
    assert all(p.is_leaf and p.requires_grad for p in ensemble.parameters())
    assert len(ensemble) == 3


def test_frozen_weights_stay_frozen_when_moved():
    def build():
        module = BUILD()
        module[1].weight.requires_grad_(False)
        return module

    moved = Ensemble(build, range(2)).to("cpu")
    assert [p.requires_grad for p in moved.parameters()] == [False, True, True, True]


def test_module_is_a_copy():
    ensemble = Ensemble(BUILD, range(2))
    with torch.no_grad():
        ensemble.module(1)[1].weight.zero_()
    assert ensemble.parameters()[0][1].abs().sum() > 0


class Own(nn.Module):
    """A loss called seed by seed."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, logits, target):
        return self.function(logits, target)


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(loss=Own(lambda z, y: cross_entropy(z + torch.rand_like(z), y)))
    assert torch.equal(torch.rand(3), expected)


def test_ensemble_rejects():
    with pytest.raises(ValueError, match="seeds must not be empty"):
        Ensemble(BUILD, [])
    with pytest.raises(ValueError, match="inputs must start with 2 seeds"):
        Ensemble(BUILD, range(2))(torch.zeros(3, 5, 2), per_seed=True)


def test_mlp_layers():
    module = mlp(12, 5, 4, 3, activation=nn.Tanh)()
    kinds = [type(layer).__name__ for layer in module]
    assert kinds == ["Flatten", "Linear", "Tanh", "Linear", "Tanh", "Linear"]
    assert module(torch.zeros(7, 3, 2, 2)).shape == (7, 3)
    for widths in ((3,), (3, 0)):
        with pytest.raises(ValueError, match="widths"):
            mlp(*widths)


# fit


def run_alone(seed, data, make_optimizer, steps, batch_size, loss=cross_entropy):
    """An ordinary training run, written without any of the vectorized machinery."""
    torch.manual_seed(seed)
    model = BUILD().double()
    optimizer = make_optimizer(model.parameters())
    order, history = [], []
    stream = generator(seed, "minibatches")
    for _ in range(steps):
        if len(order) < batch_size:
            order = torch.randperm(len(data), generator=stream).tolist()
        batch, order = order[:batch_size], order[batch_size:]
        value = loss(model(data.inputs[batch]), data.labels[batch])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        history.append(value.item())
    return torch.cat([p.detach().flatten() for p in model.parameters()]), history


OPTIMIZERS = {
    "sgd": lambda p, lr, weight_decay: torch.optim.SGD(
        p, lr=lr, momentum=0.9, weight_decay=weight_decay
    ),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_ensemble_of_three_equals_three_ordinary_runs(name):
    data, optimizer = moons64(), OPTIMIZERS[name]
    options = {"learning_rate": 0.03, "weight_decay": 0.02}
    run = train(data=data, optimizer=optimizer, steps=40, every=1, **options)
    for i, seed in enumerate([3, 1, 7]):
        expected, history = run_alone(
            seed, data, lambda p: optimizer(p, lr=0.03, weight_decay=0.02), 40, 16
        )
        torch.testing.assert_close(weights(run, i), expected)
        torch.testing.assert_close(run.history["loss"][:, i], torch.tensor(history).double())


@pytest.mark.parametrize(
    "loss",
    [
        cross_entropy,
        # couples the examples of a batch
        lambda z, y: cross_entropy(z - z.mean(dim=0), y),
        # draws random numbers
        Own(lambda z, y: (cross_entropy(z, y, reduction="none") * torch.rand(len(z))).mean()),
    ],
)
def test_a_seed_does_not_depend_on_its_neighbors(loss):
    together, alone = train(loss), train(loss, seeds=[1])
    torch.testing.assert_close(weights(together, 1), weights(alone, 0), rtol=1e-9, atol=1e-12)
    assert not torch.allclose(weights(together, 0), weights(together, 1))


def test_a_loss_draws_new_numbers_for_each_seed_and_step():
    drawn = []

    def loss(logits, target):
        drawn.append(torch.rand(()).item())
        return cross_entropy(logits, target)

    train(Own(loss))
    assert len(set(drawn)) == len(drawn) == 3 * 12


def test_a_function_is_vectorized_and_says_so_when_it_cannot_be():
    calls = []
    train(lambda z, y: (calls.append(z.shape), cross_entropy(z, y))[1], steps=4)
    assert len(calls) == 4  # once a step, not once a seed
    with pytest.raises(RuntimeError, match="random"):
        train(lambda z, y: cross_entropy(z + torch.rand_like(z), y))


def test_vectorized_and_one_by_one_agree():
    vectorized, apart = train(cross_entropy), train([cross_entropy] * 3)
    torch.testing.assert_close(weights(vectorized, 2), weights(apart, 2), rtol=1e-9, atol=1e-12)


def test_equal_seeds_give_equal_runs():
    assert torch.equal(train().history["loss"], train().history["loss"])


class Counting(nn.Module):
    """A loss with state (its calls) and a parameter (a temperature)."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.temperature = nn.Parameter(torch.ones(()))

    def forward(self, logits, target):
        self.calls += 1
        return cross_entropy(logits / self.temperature / self.calls.sqrt(), target)


def test_each_seed_has_its_own_copy_of_a_stateful_loss():
    loss = Counting()
    together, alone = train(loss), train(loss, seeds=[1])
    assert [copy.calls.item() for copy in together.losses] == [12, 12, 12]
    assert loss.calls == 0
    torch.testing.assert_close(weights(together, 1), weights(alone, 0))
    temperatures = [copy.temperature.item() for copy in together.losses]
    assert len({1.0, *temperatures}) == 4  # trained, and each on its own
    assert math.isclose(temperatures[1], alone.losses[0].temperature.item(), rel_tol=1e-5)


def test_one_loss_per_seed():
    calls = []
    losses = [lambda z, y, s=s: (calls.append(s), cross_entropy(z, y))[1] for s in range(3)]
    train(losses, steps=2)
    assert calls == [0, 1, 2, 0, 1, 2]
    with pytest.raises(ValueError, match=r"loss must be one or 3 \(one per seed\), got 2"):
        train(losses[:2])


def test_one_dataset_per_seed_equals_runs_apart():
    clean = moons64()
    noisy = [corrupt(clean, symmetric_noise(2, 0.4), seed=s)[0] for s in range(3)]
    together = train(data=noisy)
    for i, seed in enumerate([3, 1, 7]):
        alone = train(data=noisy[i], seeds=[seed])
        torch.testing.assert_close(weights(together, i), weights(alone, 0))
    with pytest.raises(ValueError, match=r"data must be one or 3 \(one per seed\), got 2"):
        train(data=noisy[:2])
    with pytest.raises(ValueError, match="data must have the same shape"):
        train(data=[clean, clean, moons64(40)])


def test_index_names_the_examples_and_epochs_visit_each_once():
    data, seen = moons64(50), {}

    def loss(logits, target, index):
        assert torch.equal(target, data.labels[index])
        seen.setdefault(current[0], []).append(index.tolist())
        current[0] = (current[0] + 1) % 2
        return cross_entropy(logits, target)

    current = [0]
    train([loss, loss], data, seeds=[0, 1], steps=6, batch_size=16, indexed=True)
    for batches in seen.values():
        assert [len(batch) for batch in batches] == [16] * 6
        for epoch in (batches[:3], batches[3:]):
            assert len({i for batch in epoch for i in batch}) == 48
    assert seen[0] != seen[1]


def test_a_batch_larger_than_the_data_is_the_data():
    sizes = []
    train(lambda z, y: (sizes.append(len(y)), cross_entropy(z, y))[1], steps=2, batch_size=999)
    assert set(sizes) == {50}


def test_history_records_means_and_the_end():
    data = moons64()
    measure = {
        "accuracy": lambda e: accuracy(e, data),
        "first": lambda e: e.parameters()[0][:, 0, 0],
    }
    run = train(data=data, steps=12, every=5, measure=measure)
    assert run.history["step"].tolist() == [5, 10, 12]
    assert set(run.history) == {"step", "loss", "accuracy", "first"}
    each = train(data=data, steps=12, every=1).history["loss"]
    expected = torch.stack([each[:5].mean(0), each[5:10].mean(0), each[10:].mean(0)])
    torch.testing.assert_close(run.history["loss"], expected)
    assert run.history["accuracy"].shape == (3, 3)
    assert torch.equal(run.history["first"][-1], run.ensemble.parameters()[0][:, 0, 0].detach())
    assert not run.history["first"].requires_grad
    with pytest.raises(ValueError, match=r"measure 'bad' must give shape \(3,\)"):
        train(measure={"bad": lambda e: torch.zeros(2)})


def test_batch_statistics_are_kept_per_seed():
    build = lambda: nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()  # noqa: E731
    together, alone = train(build=build), train(build=build, seeds=[1])
    expected, actual = (
        alone.ensemble.module(0).state_dict(),
        together.ensemble.module(1).state_dict(),
    )
    assert actual["1.num_batches_tracked"] == 12
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name])
    data = moons64()
    module = together.ensemble.module(1).eval()
    torch.testing.assert_close(
        predictions(together.ensemble, data)[1], module(data.inputs), check_dtype=True
    )
    assert together.ensemble.training


def test_dropout_trains_and_is_off_in_predictions():
    build = lambda: nn.Sequential(nn.Linear(2, 64), nn.Dropout(), nn.Linear(64, 2)).double()  # noqa: E731
    first = train(build=build)
    torch.rand(1)  # must not matter
    again = train(build=build)
    assert torch.equal(weights(first, 0), weights(again, 0))
    data = moons64()
    assert torch.equal(predictions(first.ensemble, data), predictions(first.ensemble, data))
    assert not torch.equal(first.ensemble(data.inputs), first.ensemble(data.inputs))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_step_and_seed(bad):
    def spoiled(z, y):
        calls.append(1)
        return cross_entropy(z, y) * (bad if len(calls) == 4 else 1)

    calls = []
    with pytest.raises(FloatingPointError, match=rf"loss is {bad} at step 4 of seed 1"):
        train([cross_entropy, spoiled, cross_entropy])


def test_fit_rejects():
    for name in ("steps", "batch_size", "every"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1"):
            train(**{name: 0})
    with pytest.raises(
        ValueError, match=r"loss must give a scalar per minibatch, got shape \(16,\)"
    ):
        train(lambda z, y: cross_entropy(z, y, reduction="none"))
    with pytest.raises(ValueError, match="data must not be empty"):
        train(data=moons64().take(slice(0, 0)))


def test_it_learns_the_digits():
    split = digits()
    run = fit(mlp(64, 32, 10), cross_entropy, split.train, seeds=range(3), progress=None)
    assert (accuracy(run.ensemble, split.test) > 0.93).all()


def test_progress_bar_only_where_someone_can_see_it_move(monkeypatch, capsys):
    run = lambda text: fit(BUILD, cross_entropy, moons(20), seeds=[0], steps=2, progress=text)  # noqa: E731
    monkeypatch.delenv("LOSSBOOK_STATIC", raising=False)
    run("two moons")
    assert "two moons: 100%" in capsys.readouterr().err
    run(None)
    monkeypatch.setenv("LOSSBOOK_STATIC", "1")
    run("two moons")
    assert capsys.readouterr().err == ""


# Evaluation and environment


class Fixed(nn.Module):
    """Adds a parameter to the inputs: its outputs are what the data say."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x + self.shift


def test_accuracy_counts_right_answers():
    ensemble = Ensemble(Fixed, range(2))
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 1.0, 5.0], [9.0, 0.0, 0.0]])
    labels = torch.tensor([0, 1, 2, 2])
    assert accuracy(ensemble, Dataset(logits, labels, 3, "")).tolist() == [0.75, 0.75]
    scores = torch.tensor([1.0, -1.0, 2.0, -3.0])
    binary = torch.tensor([1, 0, 0, 0])
    for inputs in (scores, scores[:, None]):
        assert accuracy(ensemble, Dataset(inputs, binary, 2, "")).tolist() == [0.75, 0.75]
    with pytest.raises(ValueError, match=r"outputs must have shape \(S, N, 4\)"):
        accuracy(ensemble, Dataset(logits, labels, 4, ""))
    with pytest.raises(ValueError, match="outputs must have shape"):
        accuracy(ensemble, Dataset(scores, labels, 3, ""))


def test_predictions_of_more_than_one_chunk():
    ensemble, data = Ensemble(BUILD, range(2)), moons(2500)
    outputs = predictions(ensemble, data)
    assert outputs.shape == (2, 2500, 2)
    assert not outputs.requires_grad
    torch.testing.assert_close(outputs[1], ensemble.module(1)(data.inputs).detach())


def test_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device() == torch.device("cuda")
    assert device("cpu") == torch.device("cpu")
    assert device("mps") == torch.device("mps")


def test_scale(monkeypatch):
    monkeypatch.delenv("LOSSBOOK_SCALE", raising=False)
    assert scale() == "small"
    for value in ("small", "full"):
        monkeypatch.setenv("LOSSBOOK_SCALE", value)
        assert scale() == value
    for value in ("large", "", "FULL"):
        monkeypatch.setenv("LOSSBOOK_SCALE", value)
        with pytest.raises(
            ValueError, match=f"LOSSBOOK_SCALE must be 'small' or 'full', got '{value}'"
        ):
            scale()
