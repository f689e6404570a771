"""Views, the training on them, and the measures of embeddings against plain loops."""

import math

import pytest
import torch
from torch import Tensor, nn

from lossbook.lab import datasets, training, views


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


PICTURES = datasets.digits().train.inputs[:40]
MAKERS = {
    "moved": views.moved(),
    "noisy": views.noisy(),
    "dimmed": views.dimmed(),
    "erased": views.erased(),
    "chain": views.chain(views.moved(), views.noisy()),
}


@pytest.mark.parametrize("view", MAKERS.values(), ids=MAKERS)
def test_views_are_drawn_from_their_stream_alone(view: views.View) -> None:
    before, kept = torch.get_rng_state(), PICTURES.clone()
    first, second = view(PICTURES, stream()), view(PICTURES, stream())
    assert torch.equal(first, second) and first.shape == PICTURES.shape
    assert not torch.equal(first, view(PICTURES, stream(1)))
    assert (first != PICTURES).any(1).float().mean() > 0.8
    assert torch.equal(torch.get_rng_state(), before) and torch.equal(PICTURES, kept)


def test_views_of_size_zero_change_nothing() -> None:
    for view in (views.moved(0, 0), views.noisy(0), views.dimmed(0), views.erased(0)):
        torch.testing.assert_close(view(PICTURES, stream()), PICTURES, atol=1e-6, rtol=0)


def test_each_view_does_what_it_says() -> None:
    one = torch.ones(200, 64)
    noise = views.noisy(0.3)(one, stream()) - 1
    assert noise.std().item() == pytest.approx(0.3, rel=0.05)
    factors = views.dimmed(0.5)(one, stream())
    assert (factors == factors[:, :1]).all()
    assert 0.5 <= factors.min() < 0.55 and 1.45 < factors.max() <= 1.5
    assert (views.erased(3)(one, stream()) == 0).sum(1).eq(9).all()
    dot = torch.zeros(200, 64)
    dot[:, 27] = 1.0  # row 3, column 3
    where = views.moved(2, 0)(dot, stream())
    rows, columns = torch.arange(8.0).repeat_interleave(8), torch.arange(8.0).repeat(8)
    for axis in (rows, columns):
        shift = (where * axis).sum(1) / where.sum(1) - 3
        assert shift.abs().max() <= 2 + 1e-4 and shift.min() < -1.8 and shift.max() > 1.8


def test_several_views_are_independent() -> None:
    seen = views.several(views.noisy(), 3)(PICTURES, stream())
    assert seen.shape == (3, *PICTURES.shape)
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])


def test_a_cue_is_a_bright_border() -> None:
    blank = torch.zeros(4, 64)
    shown = views.with_cue(blank, torch.arange(4), 2.0).view(4, 8, 8)
    assert shown.sum((1, 2)).tolist() == [16.0] * 4
    edges = (shown[0, 0], shown[1, :, -1], shown[2, -1], shown[3, :, 0])
    for square, edge in zip(shown, edges, strict=True):
        assert (edge == 2).all() and square.max() == 2


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: views.moved(-1.0), "shift"),
        (lambda: views.noisy(math.nan), "deviation"),
        (lambda: views.several(views.noisy(), 0), "number"),
        (lambda: views.moved()(torch.ones(3, 60), stream()), "pictures"),
        (lambda: views.with_cue(PICTURES, torch.zeros(3, dtype=torch.int64)), "cue"),
    ],
)
def test_bad_input(call, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        call()


# --- Measures -----------------------------------------------------------------------------------


def clouds(seed: int, n: int = 30) -> tuple[Tensor, Tensor]:
    labels = torch.arange(n) % 3
    x = torch.randn(2, n, 4, generator=stream(seed)) + 2.0 * torch.eye(3, 4)[labels]
    return x, labels


def test_knn_votes_by_hand() -> None:
    (train, y), (test, z) = clouds(0), clouds(1, 12)
    ours = views.knn_accuracy(train, y, test, z, neighbors=5, temperature=0.2)
    for s in range(2):
        right = 0
        for query, label in zip(test[s], z, strict=True):
            cosines = [float(torch.cosine_similarity(query, x, 0)) for x in train[s]]
            nearest = sorted(range(len(y)), key=lambda i: -cosines[i])[:5]
            votes = [
                sum(math.exp(cosines[i] / 0.2) for i in nearest if y[i] == c) for c in range(3)
            ]
            right += votes.index(max(votes)) == int(label)
        assert ours[s].item() == pytest.approx(right / 12)
    assert 0.4 < ours.mean() < 1


def test_probe_is_a_ridge_regression() -> None:
    from sklearn.linear_model import Ridge

    (train, y), (test, z) = clouds(2), clouds(3, 60)
    y, z = y.clone(), z
    keep = torch.ones(30, dtype=torch.bool)
    keep[:18:3] = False  # a class with fewer examples counts as much
    train, y = train[:, keep], y[keep]
    ours = views.probe_accuracy(train, y, test, z, ridge=0.05)
    weight = (1 / y.bincount().double())[y] / 3
    for s in range(2):
        mean, deviation = train[s].double().mean(0), train[s].double().std(0)
        model = Ridge(alpha=0.05).fit(
            ((train[s] - mean) / deviation).numpy(),
            torch.eye(3)[y].numpy(),
            sample_weight=weight.numpy(),
        )
        answers = model.predict(((test[s] - mean) / deviation).numpy()).argmax(1)
        assert ours[s].item() == pytest.approx(float((torch.tensor(answers) == z).float().mean()))
    assert ours.mean() > 0.5


def test_a_probe_survives_dead_units() -> None:
    (train, y), (test, z) = clouds(4), clouds(5, 60)
    dead = [torch.cat([x, torch.full((*x.shape[:2], 2), 3.0)], 2) for x in (train, test)]
    expected = views.probe_accuracy(train, y, test, z)
    assert torch.equal(views.probe_accuracy(dead[0], y, dead[1], z), expected)


# --- Training -----------------------------------------------------------------------------------


def test_fit_gives_the_loss_all_views() -> None:
    data = datasets.digits().train.take(slice(0, 96))
    shapes, seen = [], []

    def pairs(inputs: Tensor, draws: torch.Generator) -> Tensor:
        seen.append(views.several(views.noisy(), 2)(inputs, draws))
        return seen[-1]

    def loss(h: Tensor, target: Tensor, index: Tensor) -> Tensor:
        shapes.append((h.shape, target.shape, index.shape))
        return (h[0] - h[1]).square().mean()

    build = training.mlp(64, 16, 4)
    options = {"steps": 3, "batch_size": 32, "indexed": True, "progress": None, "device": "cpu"}
    run = training.fit(build, loss, data, seeds=[0, 1], views=pairs, **options)
    assert set(shapes) == {((2, 32, 4), (32,), (32,))}
    assert len(seen) == 6 and not torch.equal(seen[0], seen[1])
    # A seed alone sees the same views and ends with the same weights.
    alone = training.fit(build, loss, data, seeds=[1], views=pairs, **options)
    for both, one in zip(run.ensemble.parameters(), alone.ensemble.parameters(), strict=True):
        torch.testing.assert_close(both[1], one[0])


def test_first_layers_share_their_weights() -> None:
    ensemble = training.Ensemble(training.mlp(64, 16, 8, 4), [0, 1])
    body = ensemble.first(-2)
    expected = torch.stack([ensemble.module(s)[:-2](PICTURES) for s in range(2)])
    torch.testing.assert_close(body(PICTURES), expected)
    with torch.no_grad():
        ensemble.parameters()[0].zero_()
    assert not torch.allclose(body(PICTURES), expected)
    linear = training.Ensemble(lambda: nn.Linear(64, 4), [0])
    with pytest.raises(TypeError, match="sequential"):
        linear.first(1)
