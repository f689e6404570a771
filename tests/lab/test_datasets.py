"""Data with a known truth must have that truth; seeds must decide everything; no network."""

import gzip
import hashlib
import io
import math
import tarfile

import numpy as np
import pytest
import requests
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, ndimage, stats

from lossbook.lab import datasets
from lossbook.lab.datasets import (
    Dataset,
    GaussianMixture,
    breast_cancer,
    cifar10,
    corrupt,
    digits,
    dots,
    fashion_mnist,
    generator,
    long_tail,
    modular_addition,
    moons,
    pair_noise,
    polygon_mixture,
    subsample,
    symmetric_noise,
    wine,
)


def toy(counts, classes=None):
    labels = torch.cat([torch.full((n,), k) for k, n in enumerate(counts)])
    inputs = torch.arange(len(labels)).float()[:, None]
    return Dataset(inputs, labels, classes or len(counts), "toy")


def same(a, b):
    return torch.equal(a.inputs, b.inputs) and torch.equal(a.labels, b.labels)


# Dataset


def test_dataset_take_and_to():
    data = toy([2, 3])
    assert len(data) == 5
    assert data.take([4, 0]).inputs[:, 0].tolist() == [4.0, 0.0]
    assert data.take(data.labels == 1).labels.tolist() == [1, 1, 1]
    assert data.take(slice(0, 2)).classes == 2
    assert data.to("cpu").labels.device.type == "cpu"
    assert digits().to("cpu").test.name == "digits"
    assert repr(data) == "<toy: 5 examples of shape (1,), 2 classes>"


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (torch.zeros(3, dtype=torch.int32), TypeError, "labels must be int64"),
        (torch.zeros(2, dtype=torch.int64), ValueError, "agree in N"),
        (torch.zeros(3, 1, dtype=torch.int64), ValueError, "agree in N"),
        (torch.tensor([0, 1, 2]), ValueError, r"labels must lie in \[0, 2\)"),
        (torch.tensor([0, 1, -1]), ValueError, "labels must lie in"),
    ],
)
def test_dataset_rejects_bad_labels(labels, error, message):
    with pytest.raises(error, match=message):
        Dataset(torch.zeros(3, 1), labels, 2, "bad")


def test_streams_differ_by_seed_and_purpose():
    draws = {
        tuple(torch.rand(3, generator=generator(seed, purpose)).tolist())
        for seed in range(20)
        for purpose in ("a", "b")
    }
    assert len(draws) == 40
    assert torch.equal(
        torch.rand(3, generator=generator(1, "a")), torch.rand(3, generator=generator(1, "a"))
    )


# Real data


@pytest.mark.parametrize(
    ("load", "samples", "features", "classes"),
    [(digits, 1797, 64, 10), (wine, 178, 13, 3), (breast_cancer, 569, 30, 2)],
)
def test_splits_are_stratified_disjoint_and_seeded(load, samples, features, classes):
    split = load(seed=3, test_fraction=0.25)
    assert len(split.train) + len(split.test) == samples
    assert len(split.test) == round(0.25 * samples)
    assert split.train.inputs.shape[1] == features
    assert split.train.inputs.dtype == split.test.inputs.dtype == torch.float32
    train = split.train.labels.bincount(minlength=classes)
    test = split.test.labels.bincount(minlength=classes)
    assert len(train) == classes
    assert ((test - 0.25 * (train + test)).abs() <= 1).all()
    assert same(split.test, load(seed=3, test_fraction=0.25).test)
    assert not same(split.test, load(seed=4, test_fraction=0.25).test)


def test_split_parts_partition_the_digits():
    from sklearn.datasets import load_digits

    everything = torch.tensor(load_digits().data / 16).float()
    split = digits()
    parts = torch.cat([split.train.inputs, split.test.inputs])
    assert torch.equal(
        torch.unique(parts, dim=0, return_counts=True)[0], torch.unique(everything, dim=0)
    )
    assert parts.min() == 0
    assert parts.max() == 1


def test_digits_classes_are_renumbered_in_the_given_order():
    whole, pair = digits(), digits(classes=(8, 3))
    assert pair.train.classes == 2
    counts = lambda split: split.train.labels.bincount() + split.test.labels.bincount()  # noqa: E731
    assert counts(pair).tolist() == [int(counts(whole)[8]), int(counts(whole)[3])]
    eights = torch.cat([part.inputs[part.labels == 8] for part in (whole.train, whole.test)])
    first = pair.train.inputs[pair.train.labels == 0][0]
    assert (eights == first).all(dim=1).any()


@pytest.mark.parametrize("load", [wine, breast_cancer])
def test_standardized_by_the_training_part_alone(load):
    split = load()
    mean, deviation = split.train.inputs.mean(dim=0), split.train.inputs.std(dim=0, correction=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-5, rtol=0)
    torch.testing.assert_close(deviation, torch.ones_like(mean), atol=1e-5, rtol=0)
    assert split.test.inputs.mean(dim=0).abs().max() > 1e-3


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_test_fraction_must_be_inside_the_unit_interval(fraction):
    with pytest.raises(ValueError, match="test_fraction"):
        wine(test_fraction=fraction)


@pytest.mark.parametrize("classes", [(), (1, 1), (3, 10)])
def test_digits_rejects_bad_classes(classes):
    with pytest.raises(ValueError, match="classes"):
        digits(classes=classes)


# Choosing examples


@settings(deadline=None, max_examples=50)
@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(lambda c: sum(c) > 0),
    share=st.floats(0.01, 1.0),
    seed=st.integers(0, 1000),
)
def test_subsample_keeps_proportions_without_repeats(counts, share, seed):
    data = toy(counts)
    samples = max(1, round(share * len(data)))
    drawn = subsample(data, samples, seed)
    assert len(drawn) == samples
    assert len(drawn.inputs.unique()) == samples
    expected = torch.tensor(counts) * samples / len(data)
    assert ((drawn.labels.bincount(minlength=len(counts)) - expected).abs() < 1).all()
    assert same(drawn, subsample(data, samples, seed))


def test_subsample_draws_at_random():
    data = toy([50, 50])
    assert not same(subsample(data, 20, seed=0), subsample(data, 20, seed=1))
    for samples in (0, 101):
        with pytest.raises(ValueError, match="samples"):
            subsample(data, samples, seed=0)


def test_long_tail_profile():
    tail = long_tail(toy([1000] * 5), imbalance=100.0)
    expected = [round(1000 * 100 ** (-k / 4)) for k in range(5)]
    assert tail.labels.bincount().tolist() == expected == [1000, 316, 100, 32, 10]
    assert len(tail.inputs.unique()) == len(tail)
    assert not same(tail, long_tail(toy([1000] * 5), seed=1))


def test_long_tail_uses_all_the_data_allow():
    assert long_tail(toy([50, 40, 30]), imbalance=1.0).labels.bincount().tolist() == [30, 30, 30]
    # The middle class is the bottleneck: 10 = n_0 / 2.
    assert long_tail(toy([90, 10, 90]), imbalance=4.0).labels.bincount().tolist() == [20, 10, 5]
    assert long_tail(toy([10, 10]), imbalance=1e6).labels.bincount().tolist() == [10, 1]


def test_long_tail_rejects():
    with pytest.raises(ValueError, match="imbalance"):
        long_tail(toy([5, 5]), imbalance=0.5)
    with pytest.raises(ValueError, match="every class"):
        long_tail(toy([5, 5], classes=3))


# Synthetic


def test_moons_without_noise_lie_on_two_half_circles():
    data = moons(200, noise=0.0)
    x, y = data.inputs.double().unbind(dim=1)
    upper = data.labels == 0
    assert upper.sum() == 100
    torch.testing.assert_close((x**2 + y**2)[upper], torch.ones(100).double(), atol=1e-5, rtol=0)
    lower = ((x - 1) ** 2 + (y - 0.5) ** 2)[~upper]
    torch.testing.assert_close(lower, torch.ones(100).double(), atol=1e-5, rtol=0)
    assert (y[upper] >= -1e-6).all()
    assert (y[~upper] <= 0.5 + 1e-6).all()
    assert x[upper].min() < -0.9
    assert x[~upper].max() > 1.9


def test_moons_noise_has_the_given_size():
    blur = (moons(20_000, noise=0.3).inputs - moons(20_000, noise=0.0).inputs).std()
    assert abs(float(blur) - 0.3) < 0.01
    assert not same(moons(10, seed=0), moons(10, seed=1))
    with pytest.raises(ValueError, match="noise"):
        moons(10, noise=-1.0)
    with pytest.raises(ValueError, match="samples"):
        moons(0)


PRIORS = torch.tensor([0.5, 0.3, 0.2])
SKEWED = GaussianMixture(torch.tensor([[0.0, 0.0], [1.5, 0.0], [0.5, 2.0]]), 0.8, PRIORS)


def test_posterior_is_bayes_rule():
    x = np.array([[0.3, 0.7], [5.0, -3.0], [0.0, 0.0]])
    joint = np.array(
        [
            [
                p * stats.multivariate_normal(m, 0.8**2).pdf(row)
                for p, m in zip(PRIORS.tolist(), SKEWED.means.tolist(), strict=True)
            ]
            for row in x
        ]
    )
    expected = joint / joint.sum(axis=1, keepdims=True)
    posterior = SKEWED.posterior(torch.tensor(x))
    np.testing.assert_allclose(posterior.numpy(), expected, rtol=1e-6)
    assert SKEWED.posterior(torch.tensor(x).float()).dtype == torch.float32
    far = SKEWED.posterior(torch.tensor([[1e4, 0.0]]))
    assert far.isfinite().all()


def test_samples_follow_the_mixture():
    data = SKEWED.sample(50_000, seed=1)
    share = data.labels.bincount() / len(data)
    torch.testing.assert_close(share, PRIORS, atol=0.01, rtol=0)
    for k in range(3):
        points = data.inputs[data.labels == k]
        torch.testing.assert_close(points.mean(dim=0), SKEWED.means[k], atol=0.03, rtol=0)
        torch.testing.assert_close(points.std(dim=0), torch.full((2,), 0.8), atol=0.03, rtol=0)
    assert same(SKEWED.sample(10, seed=2), SKEWED.sample(10, seed=2))
    assert not same(SKEWED.sample(10, seed=2), SKEWED.sample(10, seed=3))


def brute_force_risk(mixture, half_width=9.0):
    """1 - integral of max_c pi_c N(x; mu_c), by a grid of midpoints (1-D or 2-D)."""
    means, scale = mixture.means.double().numpy(), mixture.scale
    count = 200_001 if means.shape[1] == 1 else 1500
    axes = []
    for m in means.T:
        edges = np.linspace(m.min() - half_width * scale, m.max() + half_width * scale, count + 1)
        axes.append((edges[1:] + edges[:-1]) / 2)
    cell = math.prod(axis[1] - axis[0] for axis in axes)
    priors = np.ones(len(means)) if mixture.priors is None else mixture.priors.double().numpy()
    priors = priors / priors.sum()  # 0.9 and 0.1 in float32 do not quite sum to one
    best = np.zeros(1)
    for prior, mean in zip(priors, means, strict=True):
        density = prior
        for axis, m in zip(np.meshgrid(*axes, indexing="ij", sparse=True), mean, strict=True):
            density = density * stats.norm.pdf(axis, m, scale)
        best = np.maximum(best, density)
    return 1 - best.sum() * cell


@pytest.mark.parametrize(
    "mixture",
    [
        GaussianMixture(torch.tensor([[-1.0], [1.0]]), 1.0),
        GaussianMixture(torch.tensor([[-0.3], [0.4]]), 0.7, torch.tensor([0.9, 0.1])),
        GaussianMixture(torch.tensor([[-2.0], [0.0], [0.5], [3.0]]), 0.7),
        SKEWED,
        polygon_mixture(5, radius=1.5),
        # A class whose mean lies where another one wins, and one that never wins.
        GaussianMixture(
            torch.tensor([[0.0, 0.0], [0.4, 0.1], [2.0, 1.0]]), 1.0, torch.tensor([0.7, 0.2, 0.1])
        ),
        GaussianMixture(
            torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]), 1.0, torch.tensor([0.4, 0.4, 0.2])
        ),
    ],
)
def test_bayes_risk_equals_integration(mixture):
    risk = mixture.bayes_risk()
    assert risk.standard_error == 0
    tolerance = 1e-8 if mixture.means.shape[1] == 1 else 2e-5
    assert abs(risk.value - brute_force_risk(mixture)) < tolerance


def test_bayes_risk_of_the_square_has_a_closed_form():
    # Four corners: the cells are quadrants, so two independent coordinates must both be right.
    risk = polygon_mixture(4, radius=2.0, scale=0.9).bayes_risk().value
    assert abs(risk - (1 - stats.norm.cdf(math.sqrt(2) / 0.9) ** 2)) < 1e-8


def test_bayes_risk_of_equidistant_points_on_a_line_has_a_closed_form():
    risk = GaussianMixture(torch.tensor([[-1.0], [0.0], [1.0]]), 0.5).bayes_risk().value
    assert abs(risk - 4 / 3 * stats.norm.cdf(-1)) < 1e-8


def test_bayes_risk_of_a_mixture_in_space():
    # One axis per class: integrate over the winner's coordinate what the losers stay below.
    mixture = GaussianMixture(2 * torch.eye(5), 1.0)
    right, _ = integrate.quad(lambda u: stats.norm.pdf(u - 2) * stats.norm.cdf(u) ** 4, -10, 12)
    risk = mixture.bayes_risk()
    assert 0 < risk.standard_error < 1e-3
    assert abs(risk.value - (1 - right)) < 4 * risk.standard_error
    assert risk == mixture.bayes_risk()


def test_bayes_risk_does_not_change_by_rotation_into_more_dimensions():
    rotation = torch.linalg.qr(torch.randn(7, 7, generator=generator(0, "rotation")).double()).Q
    means = torch.nn.functional.pad(SKEWED.means.double(), (0, 5)) @ rotation + 3
    rotated = GaussianMixture(means, 0.8, PRIORS).bayes_risk()
    assert rotated.standard_error == 0
    assert abs(rotated.value - SKEWED.bayes_risk().value) < 1e-8


def test_bayes_risk_of_coinciding_classes():
    two = GaussianMixture(torch.zeros(2, 3), 1.0, torch.tensor([0.7, 0.3])).bayes_risk()
    assert abs(two.value - 0.3) < 1e-7
    assert abs(GaussianMixture(torch.zeros(3, 2), 1.0).bayes_risk().value - 2 / 3) < 1e-9


def test_bayes_risk_is_what_the_best_classifier_errs():
    data = SKEWED.sample(100_000, seed=5)
    wrong = (SKEWED.posterior(data.inputs).argmax(dim=1) != data.labels).float().mean()
    assert abs(float(wrong) - SKEWED.bayes_risk().value) < 0.005


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3), 1.0), "means"),
        ((torch.zeros(1, 2), 1.0), "means"),
        ((torch.full((2, 2), math.nan), 1.0), "means"),
        ((torch.zeros(2, 2), 0.0), "scale"),
        ((torch.zeros(2, 2), 1.0, torch.ones(3) / 3), "priors"),
        ((torch.zeros(2, 2), 1.0, torch.tensor([1.0, 0.0])), "priors"),
        ((torch.zeros(2, 2), 1.0, torch.tensor([0.5, 0.6])), "priors must sum to one"),
    ],
)
def test_mixture_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(*arguments)


def test_mixture_rejects_inputs_of_another_dimension():
    with pytest.raises(ValueError, match=r"inputs must have shape \(N, 2\)"):
        SKEWED.posterior(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="classes"):
        polygon_mixture(1)


def test_polygon_corners():
    means = polygon_mixture(6, radius=3.0).means
    torch.testing.assert_close(means.norm(dim=1), torch.full((6,), 3.0))
    torch.testing.assert_close((means - means.roll(1, 0)).norm(dim=1), torch.full((6,), 3.0))


@pytest.mark.parametrize("shape", ["disc", "square", "ring"])
@pytest.mark.parametrize("radius", [0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("inverted", [False, True])
def test_dots_can_be_counted(shape, radius, inverted):
    data = dots(60, size=24, radius=radius, shape=shape, inverted=inverted, seed=1)
    assert data.inputs.shape == (60, 1, 24, 24)
    assert set(data.inputs.unique().tolist()) == {0.0, 1.0}
    assert data.labels.bincount().tolist() == [10] * 6
    ink = 1 - data.inputs if inverted else data.inputs
    pixels = {  # of a single dot, from the definition
        "disc": lambda r, c: math.hypot(r, c) <= radius,
        "square": lambda r, c: max(abs(r), abs(c)) <= radius,
        "ring": lambda r, c: abs(math.hypot(r, c) - radius) <= 0.5,
    }[shape]
    area = sum(pixels(r, c) for r in range(-5, 6) for c in range(-5, 6))
    for image, label in zip(ink, data.labels.tolist(), strict=True):
        _, number = ndimage.label(image[0].numpy(), structure=np.ones((3, 3)))
        assert number == label + 1
        assert image.sum() == area * number


def test_dots_places_reach_the_border_and_follow_the_seed():
    data = dots(600)
    assert (data.inputs.sum(dim=(0, 1))[0, 1:-1] > 0).all()
    assert same(data, dots(600))
    assert not same(data, dots(600, seed=1))
    assert (dots(20, counts=1).labels == 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 0}, "samples"),
        ({"counts": 0}, "counts"),
        ({"radius": 0.2}, "radius"),
        ({"shape": "star"}, "shape"),
        ({"size": 2}, "size"),
        ({"counts": 30}, "30 dots do not fit"),
    ],
)
def test_dots_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        dots(**{"samples": 30, **arguments})


def test_modular_addition_is_the_whole_table():
    data = modular_addition(7)
    table = {
        (a, b): y for (a, b), y in zip(data.inputs.tolist(), data.labels.tolist(), strict=True)
    }
    assert table == {(a, b): (a + b) % 7 for a in range(7) for b in range(7)}
    assert data.inputs.dtype == torch.int64
    with pytest.raises(ValueError, match="modulus"):
        modular_addition(0)


# Label noise


def test_symmetric_noise_matrix():
    expected = [[0.7 if i == j else 0.1 for j in range(4)] for i in range(4)]
    torch.testing.assert_close(symmetric_noise(4, 0.3), torch.tensor(expected))


def test_pair_noise_matrix():
    expected = torch.tensor([[0.6, 0.4, 0.0], [0.0, 0.6, 0.4], [0.4, 0.0, 0.6]])
    torch.testing.assert_close(pair_noise(3, 0.4), expected)


@pytest.mark.parametrize("noise", [symmetric_noise, pair_noise])
def test_noise_rejects(noise):
    with pytest.raises(ValueError, match="classes"):
        noise(1, 0.1)
    for rate in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="rate"):
            noise(3, rate)


def test_corrupt_follows_the_matrix():
    data = toy([20_000, 20_000, 20_000])
    transition = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.0, 0.0, 1.0]])
    noisy, flipped = corrupt(data, transition, seed=0)
    for i in range(3):
        share = noisy.labels[data.labels == i].bincount(minlength=3) / 20_000
        torch.testing.assert_close(share, transition[i], atol=0.015, rtol=0)
    assert torch.equal(flipped, noisy.labels != data.labels)
    assert torch.equal(noisy.inputs, data.inputs)
    assert torch.equal(data.labels, toy([20_000] * 3).labels)
    assert same(noisy, corrupt(data, transition, seed=0)[0])
    assert not same(noisy, corrupt(data, transition, seed=1)[0])


def test_noise_of_one_seed_does_not_follow_the_sample_of_that_seed():
    mixture = polygon_mixture(4)
    data = mixture.sample(4000, seed=3)
    _, flipped = corrupt(data, symmetric_noise(4, 0.5), seed=3)
    for column in (*data.inputs.unbind(dim=1), data.labels.float()):
        correlation = torch.corrcoef(torch.stack([column, flipped.float()]))[0, 1]
        assert abs(float(correlation)) < 0.06


def test_corrupt_rejects():
    data = toy([2, 2])
    with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
        corrupt(data, torch.eye(3))
    for bad in (torch.tensor([[1.5, -0.5], [0.0, 1.0]]), torch.ones(2, 2)):
        with pytest.raises(ValueError, match="summing to one"):
            corrupt(data, bad)


# Downloads: a stand-in for pooch serves tiny files of the official formats


def serve(monkeypatch, files):
    requested = {}

    def retrieve(url, known_hash, path):
        name = url.rsplit("/", 1)[-1]
        requested[name] = known_hash
        assert url.startswith("https://")
        return str(files[name])

    monkeypatch.setattr("pooch.retrieve", retrieve)
    return requested


def test_fashion_mnist_reads_the_idx_format(monkeypatch, tmp_path):
    files = {}
    for part, n in (("train", 3), ("t10k", 2)):
        images = np.arange(n * 784, dtype=np.int64).astype(np.uint8)
        labels = np.arange(n, dtype=np.uint8)
        for kind, body in (("images-idx3", bytes(16)), ("labels-idx1", bytes(8))):
            path = tmp_path / f"{part}-{kind}-ubyte.gz"
            content = body + (images if "images" in kind else labels).tobytes()
            path.write_bytes(gzip.compress(content))
            files[path.name] = path
    requested = serve(monkeypatch, files)
    split = fashion_mnist()
    assert split.train.inputs.shape == (3, 1, 28, 28)
    assert split.test.labels.tolist() == [0, 1]
    assert split.train.inputs[1, 0, 2, 5] == ((784 + 2 * 28 + 5) % 256) / 255
    assert len(requested) == 4
    assert requested["t10k-labels-idx1-ubyte.gz"] == "md5:bb300cfdad3c16e7a12a480ee83cd310"


def test_cifar10_reads_the_binary_format(monkeypatch, tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for number, name in enumerate([f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]):
            record = np.full(3073, number, dtype=np.uint8)
            record[1 + 1024 + 32 * 4 + 7] = 255  # green, row 4, column 7
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            entry.size = len(record)
            archive.addfile(entry, io.BytesIO(record.tobytes()))
    requested = serve(monkeypatch, {path.name: path})
    split = cifar10()
    assert split.train.inputs.shape == (5, 3, 32, 32)
    assert split.train.labels.tolist() == [0, 1, 2, 3, 4]
    assert split.test.labels.tolist() == [5]
    assert (split.train.inputs == 1).nonzero()[0].tolist() == [0, 1, 4, 7]
    assert requested == {path.name: "md5:c32a1d4ab5d03f1284b67883e8d87530"}


@pytest.mark.parametrize("load", [fashion_mnist, cifar10])
def test_without_a_network_the_digits_and_one_warning(monkeypatch, load):
    def refuse(*_, **__):
        raise requests.ConnectionError("no route")

    monkeypatch.setattr("pooch.retrieve", refuse)
    with pytest.warns(UserWarning, match=r"cannot be downloaded \(ConnectionError\)") as caught:
        split = load()
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert split.train.name == "digits"
    assert torch.equal(split.test.inputs.flatten(1), digits().test.inputs)
    assert split.train.inputs.shape[1:] == (1, 8, 8)


def test_a_wrong_checksum_is_an_error_not_a_fallback(monkeypatch):
    def mismatch(*_, **__):
        raise ValueError("hash of downloaded file does not match")

    monkeypatch.setattr("pooch.retrieve", mismatch)
    with pytest.raises(ValueError, match="does not match"):
        fashion_mnist()


def test_the_documented_checksums_are_the_used_ones(pytestconfig):
    readme = (pytestconfig.rootpath / "data" / "README.md").read_text(encoding="utf-8")
    used = {*datasets._FASHION_MNIST_MD5.values(), datasets._CIFAR10_MD5}
    assert all(f"`{md5}`" in readme and len(md5) == hashlib.md5().digest_size * 2 for md5 in used)
