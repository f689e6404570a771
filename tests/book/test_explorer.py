"""The loss explorer: its formulas against the package, its training against torch, its page in a browser."""

from __future__ import annotations

import inspect
import math
import random
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, Page, expect
from torch import Tensor
from torch.func import grad, vmap

from lossbook.classification import margin_loss
from lossbook.classification.surrogates import margins
from lossbook.lab.contracts.kinds import kind_of, losses

TOOLS = Path(__file__).parents[2] / "book" / "tools"
LOSSES = losses()
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1000, "height": 900}
LOCAL = ("file:", "data:")
BARE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>The explorer alone</title>
<meta name="viewport" content="width=device-width"></head><body>{}</body></html>"""


@pytest.fixture(scope="module")
def explorer() -> Iterator[ModuleType]:
    """The module that makes the page, found as the build's scripts find it."""
    sys.path.insert(0, str(TOOLS))
    try:
        from explorer import explorer as module

        yield module
    finally:
        sys.path.remove(str(TOOLS))


@pytest.fixture(scope="module")
def address(explorer: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The explorer alone on a page."""
    file = tmp_path_factory.mktemp("explorer") / "page.html"
    file.write_text(BARE.format(explorer.element()), encoding="utf-8")
    return file.as_uri()


@contextmanager
def without_network(browser: Browser, address: str) -> Iterator[Page]:
    """A tab on a page where there is no network; anything asked of it, and any complaint, is an error."""
    context = browser.new_context(viewport=DESKTOP)
    context.set_default_timeout(20_000)
    context.route(re.compile("^(?!file:|data:)"), lambda route: route.abort())
    seen: list[str] = []
    context.on("request", lambda r: seen.append(r.url) if not r.url.startswith(LOCAL) else None)
    context.on("console", lambda c: seen.append(c.text) if c.type == "error" else None)
    context.on("weberror", lambda error: seen.append(str(error.error)))
    page = context.new_page()
    page.goto(address)
    yield page
    context.close()
    assert seen == []


@pytest.fixture(scope="module")
def tab(browser: Browser, address: str) -> Iterator[Page]:
    """A tab on the explorer; what it has to complain about fails the last test that used it."""
    with without_network(browser, address) as page:
        yield page


def go(tab: Page, setting: dict[str, Any] | str) -> dict[str, Any]:
    """Sends the tab to a setting and gives the explorer's state."""
    text = setting if isinstance(setting, str) else "&".join(f"{k}={v}" for k, v in setting.items())
    tab.evaluate(
        """(hash) => new Promise((resolve) => {
          if (location.hash === hash) return resolve();
          window.addEventListener("hashchange", () => resolve(), { once: true });
          location.hash = hash;
        })""",
        f"#{text}",
    )
    return tab.evaluate("lossbookExplorer.state()")


# --- Every loss is there, with the package's names, ranges and defaults


def test_every_loss_of_its_kinds_is_there_or_left_out_with_a_reason(explorer: ModuleType) -> None:
    of_kind = {
        kind: {name for name, loss in LOSSES.items() if kind_of(loss) == kind}
        for kind in ("logits, target", "scores, target", "anchor, positive")
    }
    there = {kind: set(entry.losses) for kind, entry in explorer.KINDS.items()}
    out = set(explorer.LEFT_OUT)
    assert there["logits"] | (out & of_kind["logits, target"]) == of_kind["logits, target"]
    assert there["pairs"] == of_kind["anchor, positive"]
    assert of_kind["scores, target"] == {"margin_loss", "ens_loss"} and "ens_loss" in out
    of_margin = {name for name in margins.__all__ if list_of_arguments(name)[:1] == ["margin"]}
    assert there["margins"] == of_margin and len(of_margin) == 8
    assert out == {"proper_loss", "fenchel_young_loss", "ens_loss"}
    assert not out & (there["logits"] | there["pairs"])


def list_of_arguments(name: str) -> list[str]:
    return list(inspect.signature(getattr(margins, name)).parameters)


def test_every_argument_has_a_control_or_a_reason_to_have_none(explorer: ModuleType) -> None:
    used = set()
    for kind in explorer.KINDS.values():
        for name, controls in kind.losses.items():
            parameters = inspect.signature(explorer.function_of(kind, name)).parameters.values()
            keywords = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
            assert set(controls) <= keywords
            assert keywords - set(controls) <= set(explorer.WITHOUT_CONTROL), name
            used |= keywords - set(controls)
    assert used == set(explorer.WITHOUT_CONTROL)


def test_defaults_are_those_of_the_package(explorer: ModuleType) -> None:
    for key, kind in explorer.specification()["kinds"].items():
        for name, entry in kind["losses"].items():
            function = explorer.function_of(explorer.KINDS[key], name)
            for parameter, control in entry["controls"].items():
                expected = inspect.signature(function).parameters[parameter].default
                if expected is inspect.Parameter.empty:
                    assert (name, parameter) == ("instance_nce_loss", "number")
                else:
                    assert python(control["default"]) == expected, (name, parameter)


def python(value: Any) -> Any:
    """A setting as Python has it."""
    if isinstance(value, str):
        return (
            {"true": True, "false": False}.get(value) if value in ("true", "false") else phi(value)
        )
    return value


def phi(name: str) -> Callable[[Tensor], Tensor]:
    return getattr(margins, name)


def test_the_ends_of_every_range_are_within_the_package_s_own(explorer: ModuleType) -> None:
    z, y = torch.tensor([[0.5, -1.0, 0.2]]), torch.tensor([0])
    u, v = torch.nn.functional.normalize(
        torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)), dim=2
    )
    for key, kind in explorer.specification()["kinds"].items():
        for name, entry in kind["losses"].items():
            loss = explorer.function_of(explorer.KINDS[key], name)
            given = {"class_counts": torch.ones(3)} if name == "vector_scaling_loss" else {}
            if name == "instance_nce_loss":
                given = {"noise": v, "number": 50}
            inputs = {"logits": (z, y), "margins": (z,), "pairs": (u, v)}[key]
            for parameter, control in entry["controls"].items():
                options = control["choices"] or [control["low"], control["high"]]
                for option in [*options, *([None] if control["optional"] else [])]:
                    value = loss(*inputs, **given | {parameter: python(option)})
                    assert value.isfinite().all(), (name, parameter, option)
                if control["choices"]:
                    assert control["default"] in options
                elif control["default"] is not None:
                    assert options[0] <= control["default"] <= options[1]


# --- The curves, at random settings, against the package with automatic differentiation


def random_value(control: dict[str, Any], stream: random.Random) -> Any:
    if control["choices"]:
        return stream.choice(list(control["choices"]))
    if control["optional"] and stream.random() < 0.3:
        return "none"
    low, high = control["low"], control["high"]
    if control["scale"] == "whole":
        return stream.randint(low, high)
    if control["scale"] == "log":
        # Where its argument is above 20, torch's softplus is off by 2e-9, and its curvature by that over the
        # square of the temperature.
        low = max(low, 0.05) if control["label"] == "temperature" else low
        return low * (high / low) ** stream.random()
    return stream.choice([low, high]) if stream.random() < 0.1 else stream.uniform(low, high)


def random_settings(specification: dict[str, Any], kind: str, number: int) -> list[dict[str, Any]]:
    """Settings of all controls in which every loss of the kind comes up."""
    stream, of_kind = random.Random(f"{kind} 6"), specification["kinds"][kind]
    names = list(of_kind["losses"])
    queue = [name for _ in range(9) for name in stream.sample(names, len(names))]
    settings = []
    for _ in range(number):
        setting: dict[str, Any] = {"kind": kind, "a": queue.pop(), "b": queue.pop()}
        for side in "ab":
            for name, control in of_kind["losses"][setting[side]]["controls"].items():
                setting[f"{side}.{name}"] = random_value(control, stream)
        for name, control in {**of_kind["scene"], **of_kind["toy"]}.items():
            setting[name] = random_value(control, stream)
        settings.append(setting | {"steps": 10})
    return settings


SHARES = {"logits": 25, "margins": 8, "pairs": 17}
CASES = [(kind, index) for kind, number in SHARES.items() for index in range(number)]


@pytest.fixture(scope="module")
def cases(explorer: ModuleType) -> dict[str, list[dict[str, Any]]]:
    specification = explorer.specification()
    drawn = {kind: random_settings(specification, kind, n) for kind, n in SHARES.items()}
    for kind, settings in drawn.items():
        assert {s[side] for s in settings for side in "ab"} == set(explorer.KINDS[kind].losses)
    return drawn


def arguments(state: dict[str, Any], side: str) -> dict[str, Any]:
    given = {k.removeprefix(f"{side}."): v for k, v in state.items() if k.startswith(f"{side}.")}
    return {name: python(value) for name, value in given.items()}


def tail(classes: int, ratio: float) -> Tensor:
    """Numbers of examples that fall evenly on a logarithmic scale."""
    return ratio ** -torch.linspace(0, 1, classes, dtype=torch.float64)


def rivals(state: dict[str, Any]) -> Tensor:
    steps = torch.arange(state["classes"] - 1, dtype=torch.float64)
    return -state["spread"] * steps / max(state["classes"] - 2, 1)


def of_margin(state: dict[str, Any], side: str) -> Callable[[Tensor], Tensor]:
    """The loss of one example as a function of its margin."""
    name, given = state[side], arguments(state, side)
    if state["kind"] == "margins":
        one = torch.ones(1)
        return lambda t: margin_loss(t[None], one, phi=lambda m: phi(name)(m, **given))
    label = torch.tensor([state["classes"] - 1])
    if name == "vector_scaling_loss":
        given["class_counts"] = tail(state["classes"], state["imbalance"])
    return lambda t: LOSSES[name](torch.cat([rivals(state), t[None]])[None], label, **given)


def negatives(state: dict[str, Any]) -> Tensor:
    steps = torch.arange(state["negatives"], dtype=torch.float64)
    return state["hardest"] - (state["hardest"] + 0.95) * steps / max(state["negatives"] - 1, 1)


def of_pairs(state: dict[str, Any], side: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of an anchor as a function of the similarities of its positive and its negatives."""
    name, given = state[side], arguments(state, side)

    def loss(positive: Tensor, others: Tensor) -> Tensor:
        sine, sines = (1 - positive**2).sqrt(), (1 - others**2).sqrt()
        zero, zeros = torch.zeros_like(sine), torch.zeros_like(sines)
        rest = torch.stack([others, zeros, sines], 1)
        u = torch.cat([torch.tensor([[1.0, 0, 0]], dtype=torch.float64), rest])
        v = torch.cat([torch.stack([positive, sine, zero])[None], rest])
        if name == "instance_nce_loss":
            given["noise"] = noise(v)
        if "reduction" in inspect.signature(LOSSES[name]).parameters:
            return LOSSES[name](u, v, reduction="none", **given)[0]
        return LOSSES[name](u, v, **given)

    return loss


def noise(positives: Tensor) -> Tensor:
    """For each anchor the positives of the others."""
    n = len(positives)
    return torch.stack([positives[[j for j in range(n) if j != i]] for i in range(n)])


def of_similarity(
    state: dict[str, Any], loss: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """The loss as a function of what moves."""
    fixed, place = torch.tensor(state["positive"], dtype=torch.float64), negatives(state)
    if state["moves"] == "positive":
        return lambda t: loss(t, place)
    return lambda t: loss(fixed, torch.cat([t[None], place[1:]]))


def expected_curves(state: dict[str, Any], curves: list[dict[str, Any]]) -> dict[str, list[Tensor]]:
    """What torch has for every panel: both losses at the page's points."""
    x = {curve["name"]: torch.tensor(curve["x"], dtype=torch.float64) for curve in curves}
    found: dict[str, list[Tensor]] = {name: [] for name in x}
    for side in "ab":
        if state["kind"] == "pairs":
            loss, place = of_pairs(state, side), negatives(state)
            fixed = torch.tensor(state["positive"], dtype=torch.float64)
            torch.testing.assert_close(x["weight"], place)
            force = grad(loss, 1)(fixed, place)
            found["weight"].append(force / force.abs().sum().clamp(min=1e-300))
            curve = of_similarity(state, loss)
        else:
            curve, p = of_margin(state, side), x["weight"]
            shift = rivals(state).logsumexp(0) if state["kind"] == "logits" else 0
            found["weight"].append(-vmap(grad(curve))(p.logit() + shift))
        t = x["value"]
        found["value"].append(vmap(curve)(t))
        found["gradient"].append(vmap(grad(curve))(t))
        found["curvature"].append(vmap(grad(grad(curve)))(t))
    return found


@pytest.mark.parametrize(("kind", "index"), CASES)
def test_curves_equal_torch(
    tab: Page, cases: dict[str, list[dict[str, Any]]], kind: str, index: int
) -> None:
    state = go(tab, cases[kind][index])
    curves = tab.evaluate("lossbookExplorer.curves()")
    expected = expected_curves(state, curves)
    assert [curve["name"] for curve in curves] == ["value", "gradient", "curvature", "weight"]
    panels = tab.locator("svg[data-panel]")
    for panel, curve in enumerate(curves):
        axes = panels.nth(panel).get_attribute("data-axes")
        x = torch.tensor(curve["x"], dtype=torch.float64)
        assert len(x) == (
            state["negatives"] if curve["name"] == "weight" and kind == "pairs" else 200
        )
        for row, (line, value) in enumerate(
            zip(curve["lines"], expected[curve["name"]], strict=True)
        ):
            ours = torch.tensor(line, dtype=torch.float64)
            size = value.abs().clamp(min=1)
            assert ours.isfinite().all() and len(ours) == len(x)
            torch.testing.assert_close(ours / size, value / size, rtol=0, atol=1e-6)
            points = (
                panels.nth(panel).locator(f'polyline[data-curve="{row}"]').get_attribute("points")
            )
            check_line(points, axes, x, ours)


def check_line(points: str, axes: str, x: Tensor, y: Tensor) -> None:
    """The points of a polyline are x and y in the units of the axes, as far as a renderer can reach."""
    left, bottom, across, up = map(float, axes.split())
    drawn = [[float(number) for number in pair.split(",")] for pair in points.split()]
    pixels = torch.stack([left + across * x, (bottom + up * y).clamp(-1e7, 1e7)], 1)
    torch.testing.assert_close(
        torch.tensor(drawn, dtype=torch.float64), pixels, rtol=1e-9, atol=1e-9
    )


def test_every_formula_belongs_to_a_loss_of_the_page(explorer: ModuleType) -> None:
    text = (TOOLS / "explorer" / "losses.js").read_text()
    named = {
        kind: set(re.findall(r"^  (\w+)(?:\(|: \()", block, re.MULTILINE))
        for kind, block in re.findall(
            r"^const (\w+) = \{\n(.*?)^\};", text, re.MULTILINE | re.DOTALL
        )
    }
    assert named["logits"] == set(explorer.KINDS["logits"].losses)
    assert named["margins"] == set(explorer.KINDS["margins"].losses)
    assert named["batches"] == set(explorer.WHOLE_BATCH)
    assert named["pairs"] | named["batches"] == set(explorer.KINDS["pairs"].losses)


# --- What is trained in the page, against the same training in torch

# At step sizes that make training chaotic, rounding decides where it ends: these are none of them.
TRAININGS = {
    "two smooth ones": "b=focal_loss&noise=0.3&imbalance=4&seed=3&steps=200",
    "bounded, on curves": "a=comp_sum_loss&a.tau=2&b=brier_loss&feature=curved&rate=0.5&steps=300",
    "two classes of three": "a=vector_scaling_loss&b=poly_focal_loss&toy_classes=2&imbalance=20&noise=0.1",
    "with kinks": "a=crammer_singer_loss&b=weston_watkins_loss&feature=straight&rate=0.3",
    "sparse": "a=sparsemax_loss&b=entmax_loss&seed=12",
    "of standardized scores": "a=z_loss&b=spherical_softmax_loss&rate=0.01&steps=50",
    "margins": "kind=margins&noise=0.2&imbalance=5",
    "margins far out": "kind=margins&a=exponential&b=ramp&b.s=-0.5&feature=curved&rate=0.2&seed=5",
    "pairs": "kind=pairs&twins=4&steps=100",
    "pairs, near and far": "kind=pairs&a=nt_xent_loss&b=hard_contrastive_loss&b.share=0.4&steps=50",
    "pairs by distance": "kind=pairs&a=hybrid_contrastive_loss&a.temperature=0.5&b=cacr_loss&steps=40",
    "pairs and noise": "kind=pairs&a=instance_nce_loss&b=weighted_decoupled_contrastive_loss&steps=30",
    "batches": "kind=pairs&a=align_uniform_loss&b=cross_correlation_loss&seed=7&steps=100",
}


def trained(tab: Page, setting: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    state = go(tab, setting)
    tab.wait_for_function("lossbookExplorer.training().done")
    return state, tab.evaluate("lossbookExplorer.training().models")


def features(place: Tensor, feature: str) -> Tensor:
    x, y = place.unbind(1)
    rows = [torch.ones_like(x)]
    if feature != "bumps":
        rows += [x, y]
    if feature == "curved":
        rows += [x * x, x * y, y * y]
    if feature == "bumps":
        grid = torch.arange(-2.5, 3, 1, dtype=torch.float64)
        rows += [(-((x - a) ** 2) - (y - b) ** 2).exp() for a in grid for b in grid]
    return torch.stack(rows, 1)


def mean_loss(
    state: dict[str, Any], side: str, model: dict[str, Any]
) -> Callable[[Tensor], Tensor]:
    """The training loss as a function of the weights."""
    name, given = state[side], arguments(state, side)
    if state["kind"] == "pairs":
        views = torch.tensor(
            [e["views"] for e in model["examples"]], dtype=torch.float64
        ).T.flatten()
        rows = (-((14 * views[:, None] - torch.arange(14) - 0.5) ** 2) / 2).exp()

        def of_encoder(weights: Tensor) -> Tensor:
            angle = rows @ weights[0]
            u, v = torch.stack([angle.cos(), angle.sin()], 1).chunk(2)
            if name == "instance_nce_loss":
                given["noise"] = noise(v)
            return LOSSES[name](u, v, **given)

        return of_encoder
    place = torch.tensor([p["place"] for p in model["train"]], dtype=torch.float64)
    label = torch.tensor([p["label"] for p in model["train"]])
    rows = features(place, state["feature"])
    if state["kind"] == "margins":
        return lambda w: margin_loss(rows @ w[0], label, phi=lambda m: phi(name)(m, **given))
    if name == "vector_scaling_loss":
        given["class_counts"] = label.bincount(minlength=int(state["toy_classes"])).clamp(min=1)
    return lambda w: LOSSES[name](rows @ w.T, label, **given)


@pytest.mark.parametrize("name", TRAININGS)
def test_training_equals_torch(tab: Page, name: str) -> None:
    state, models = trained(tab, TRAININGS[name])
    for side, model in zip("ab", models, strict=True):
        loss, w = mean_loss(state, side, model), torch.tensor(model["start"], dtype=torch.float64)
        before = float(loss(w))
        for _ in range(state["steps"]):
            w = w - state["rate"] * grad(loss)(w)
        ours = torch.tensor(model["weights"], dtype=torch.float64)
        torch.testing.assert_close(ours, w, rtol=1e-9, atol=1e-9)
        assert float(loss(w)) < before


def test_both_losses_see_the_same_data_and_start_alike(tab: Page) -> None:
    for setting in ("noise=0.2&steps=10", "kind=pairs&twins=3&steps=10", "kind=margins&steps=10"):
        _, (a, b) = trained(tab, setting)
        for name in ("start", "rows", "train", "fresh", "examples"):
            assert a.get(name) == b.get(name)
        assert a["weights"] != b["weights"]


def test_toy_data_are_what_their_controls_say(tab: Page) -> None:
    _, (clean, _) = trained(tab, "noise=0&seed=4&steps=10")
    assert all(p["label"] == p["truth"] for p in clean["train"]) and len(clean["train"]) == 180
    assert len(clean["fresh"]) == 900
    _, (noisy, _) = trained(tab, "noise=0.5&seed=4&steps=10")
    flips = [p for p in noisy["train"] if p["label"] != p["truth"]]
    assert abs(len(flips) / 180 - 0.5) < 0.12  # three standard deviations
    assert {(p["truth"], p["label"]) for p in flips} == {
        (i, j) for i in range(3) for j in range(3) if i != j
    }
    assert [p["place"] for p in noisy["train"]] == [p["place"] for p in clean["train"]]
    _, (less, _) = trained(tab, "noise=0.2&seed=4&steps=10")
    for few, many in zip(less["train"], noisy["train"], strict=True):  # noise only adds flips
        assert few["label"] in (few["truth"], many["label"])
    _, (rare, _) = trained(tab, "noise=0&seed=4&imbalance=16&steps=10")
    counts = torch.tensor([p["truth"] for p in rare["train"]]).bincount()
    assert counts.tolist() == [60, 15, 4]
    assert all(p in clean["train"] for p in rare["train"])
    _, (other, _) = trained(tab, "noise=0&seed=5&steps=10")
    assert other["train"][0]["place"] != clean["train"][0]["place"]
    _, (pairs, _) = trained(tab, "kind=pairs&twins=4&steps=10")
    assert [e["thing"] for e in pairs["examples"]] == [0] * 4 + [1] * 4 + [2] * 4


def test_the_stream_of_the_toys_is_even_and_normal(tab: Page) -> None:
    """Places in the plane are clouds of standard deviation 0.75 about points on a circle."""
    _, (model, _) = trained(tab, "steps=10&seed=8")
    for truth in range(3):
        x = torch.tensor([p["place"] for p in model["fresh"] if p["truth"] == truth]).double()
        angle = math.pi * (2 * truth / 3 + 1 / 2)
        center = 1.15 * torch.tensor([math.cos(angle), math.sin(angle)]).double()
        assert ((x.mean(0) - center).abs() < 4 * 0.75 / 300**0.5).all()
        assert ((x.std(0) - 0.75).abs() < 4 * 0.75 / 600**0.5).all()


def test_measures_of_the_toy_are_those_of_its_models(tab: Page) -> None:
    state, models = trained(
        tab, "b=spherical_softmax_loss&noise=0.3&imbalance=8&rate=0.5&steps=100"
    )
    rows = tab.locator("[data-results] tr")
    for index, model in enumerate(models):
        w = torch.tensor(model["weights"], dtype=torch.float64)

        def says(points: list[dict[str, Any]], w: Tensor = w, squared: bool = index == 1) -> Tensor:
            place = torch.tensor([p["place"] for p in points], dtype=torch.float64)
            scores = features(place, state["feature"]) @ w.T
            return (scores.square() if squared else scores).argmax(1)  # its scores are read squared

        truth = torch.tensor([p["truth"] for p in model["fresh"]])
        right = says(model["fresh"]) == truth
        flipped = [p for p in model["train"] if p["label"] != p["truth"]]
        learned = says(flipped) == torch.tensor([p["label"] for p in flipped])
        shares = [right.double().mean(), right[truth == 2].double().mean(), learned.double().mean()]
        shown = rows.nth(index + 1).locator("td").all_text_contents()
        assert shown == [f"{100 * float(share):.1f}\N{NO-BREAK SPACE}%" for share in shares]


def test_flipped_points_are_hollow_and_boundaries_separate_decisions(tab: Page) -> None:
    _, models = trained(tab, "noise=0.3&steps=200")
    flips = sum(p["label"] != p["truth"] for p in models[0]["train"])
    plane = tab.locator("[data-plane]")
    assert plane.locator(".flipped[fill='none']").count() == flips > 0
    for index, model in enumerate(models):
        line = plane.locator(f'[data-boundary="{index}"]')
        assert bool(line.get_attribute("stroke-dasharray")) == (index == 1)
        numbers = torch.tensor([float(x) for x in re.findall(r"-?[\d.]+", line.get_attribute("d"))])
        pixels = numbers.double().reshape(-1, 2)
        place = torch.stack([(pixels[:, 0] - 180), (180 - pixels[:, 1])], 1) * 3.1 / 170
        scores = features(place, "bumps") @ torch.tensor(model["weights"], dtype=torch.float64).T
        first, second = scores.topk(2).values.unbind(1)
        assert len(place) > 50 and (first - second).max() < 0.05 * (scores.max() - scores.min())


def test_a_model_that_diverges_is_told_of(tab: Page) -> None:
    trained(tab, "kind=margins&a=squared&feature=curved&rate=30&steps=1000")
    expect(tab.locator("[data-toy-seen]")).to_contain_text("diverged")
    assert tab.locator("[data-results] tr").nth(1).locator("td").first.text_content() == "diverged"


# --- What is said about it


def test_the_sentence_has_the_numbers_of_torch(tab: Page) -> None:
    state = go(tab, "b=focal_loss&classes=10")
    says = tab.locator("[data-seen]").text_content()
    points = torch.tensor([0.1, 0.9], dtype=torch.float64)
    margin = points.logit() + rivals(state).logsumexp(0)
    (hard_a, easy_a), (hard_b, easy_b) = (-vmap(grad(of_margin(state, s)))(margin) for s in "ab")
    assert says == (
        f"At p = 0.9, cross entropy weighs an example {easy_a:.2g}, focal {easy_b:.2g}. A hard one, at 0.1: "
        f"under A {hard_a:.2g}, {hard_a / easy_a:.2g} times an easy one; "
        f"under B {hard_b:.2g}, {float(f'{hard_b / easy_b:.2g}'):g} times an easy one."
    )
    state = go(tab, "kind=pairs&negatives=4&hardest=0.5")
    force = expected_curves(state, tab.evaluate("lossbookExplorer.curves()"))["weight"]
    shares = [f"{100 * float(f[0]):.1f}\N{NO-BREAK SPACE}%" for f in force]
    says = tab.locator("[data-seen]").text_content()
    assert f"info nce {shares[0]}, decoupled contrastive {shares[1]}" in says and "25.0" in says


# --- The address


def test_a_setting_survives_in_the_address(
    tab: Page, address: str, cases: dict[str, list[dict[str, Any]]]
) -> None:
    for setting in [cases["logits"][3], cases["margins"][1], cases["pairs"][5]]:
        state = go(tab, setting)
        for name, value in setting.items():
            assert value == state[name] or (value, state[name]) == ("none", None)
        slider = tab.locator("input[data-control='seed']")
        slider.press(
            "ArrowRight" if state["seed"] < 99 else "ArrowLeft"
        )  # the page writes its address
        state, written = tab.evaluate("[lossbookExplorer.state(), location.hash]")
        assert state["seed"] != setting["seed"]
        tab.goto("about:blank")
        tab.goto(address + written)
        assert tab.evaluate("lossbookExplorer.state()") == state
        for element in tab.locator("select[data-control]").all():
            assert element.input_value() == state[element.get_attribute("data-control")]


def test_the_address_says_what_differs_from_the_defaults(tab: Page) -> None:
    go(tab, "kind=logits&a=cross_entropy&b.gamma=2&classes=10")
    slider = tab.locator("input[data-control='classes']")
    slider.press("ArrowRight")
    assert tab.evaluate("location.hash") == "#classes=11"
    slider.press("ArrowLeft")
    assert tab.evaluate("location.hash") == ""


def test_nonsense_in_the_address_is_passed_over(tab: Page) -> None:
    plain = go(tab, "kind=logits")
    nonsense = "a=no_loss&b=hinge&classes=many&noise=&seed=1e999&&=&%&spread=%2&b.alpha=0&kind=x"
    assert go(tab, nonsense) == plain
    assert go(tab, "classes=1000&spread=-3&noise=7")["classes"] == 100
    state = tab.evaluate("lossbookExplorer.state()")
    assert (state["spread"], state["noise"]) == (0, 0.5)


def test_back_returns_to_the_choice_before_and_not_to_every_move(tab: Page) -> None:
    go(tab, "kind=logits")
    menu, slider = (
        tab.locator("select[data-control='b']"),
        tab.locator("input[data-control='spread']"),
    )
    menu.select_option("brier_loss")
    length = tab.evaluate("history.length")
    for _ in range(5):
        slider.press("ArrowRight")
    assert tab.evaluate("history.length") == length
    moved = tab.evaluate("lossbookExplorer.state()")
    menu.select_option("poly_loss")
    assert tab.evaluate("lossbookExplorer.state()")["b"] == "poly_loss"
    tab.go_back()
    tab.wait_for_function("lossbookExplorer.state().b === 'brier_loss'")
    assert tab.evaluate("lossbookExplorer.state()") == moved
    expect(menu).to_have_value("brier_loss")
    tab.go_forward()
    tab.wait_for_function("lossbookExplorer.state().b === 'poly_loss'")


def test_every_preset_leads_where_it_says(tab: Page, explorer: ModuleType) -> None:
    for preset in explorer.PRESETS:
        go(tab, "seed=99")
        tab.get_by_role("link", name=preset.title).click()
        tab.wait_for_function("lossbookExplorer.state().seed !== 99")
        state = tab.evaluate("lossbookExplorer.state()")
        for entry in preset.address.split("&"):
            name, value = entry.split("=")
            assert str(state[name]) == value, preset.title
        assert preset.question.endswith(("?", "."))
    assert len({preset.address for preset in explorer.PRESETS}) == len(explorer.PRESETS) >= 6


# --- Used by hand


def test_it_can_be_used_with_the_keyboard_alone(tab: Page) -> None:
    go(tab, "kind=logits")
    tab.locator(".presets summary").focus()
    reached = []
    for _ in range(60):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.dataset.control ?? null"))
        if reached[-1] == "b.gamma":
            break
    assert [r for r in reached if r] == ["kind", "a", "a.label_smoothing", "b", "b.gamma"]
    before = tab.evaluate("lossbookExplorer.curves()[0].lines[1]")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("End")
    assert tab.evaluate("lossbookExplorer.state()['b.gamma']") == 8
    assert tab.evaluate("lossbookExplorer.curves()[0].lines[1]") != before
    slider = tab.locator("input[data-control='b.gamma']")
    expect(slider).to_be_focused()
    expect(slider).to_have_attribute("aria-valuetext", "8")
    tab.keyboard.press("Shift+Tab")
    tab.keyboard.press("z")  # a menu finds by its first letter
    assert tab.evaluate("lossbookExplorer.state().b") == "z_loss"
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.dataset.control") == "b.sharpness"


def test_every_control_moves_what_it_names(tab: Page, explorer: ModuleType) -> None:
    for kind in explorer.KINDS:
        go(tab, f"kind={kind}&steps=10")
        for control in tab.locator("[data-scene] [data-control], [data-toy] [data-control]").all():
            name, before = (
                control.get_attribute("data-control"),
                tab.evaluate("lossbookExplorer.state()"),
            )
            if control.evaluate("(element) => element.tagName") == "SELECT":
                control.select_option(
                    index=0
                    if before[name] != control.locator("option").first.get_attribute("value")
                    else 1
                )
            else:
                control.press("ArrowLeft" if name in ("hardest", "positive") else "ArrowRight")
            after = tab.evaluate("lossbookExplorer.state()")
            assert {key for key in after if after[key] != before[key]} == {name}


def test_pointing_at_a_panel_reads_the_curves_off(tab: Page) -> None:
    go(tab, "kind=margins")
    tab.locator("svg[data-panel]").first.hover()
    readout = tab.locator("[data-readout]")
    expect(readout).to_have_text(re.compile(r"^at [−\d.]+: A [−\d.]+, B [−\d.]+"))
    tab.locator("[data-results]").hover()
    expect(readout).to_have_text("")


def test_pictures_say_what_they_show(tab: Page) -> None:
    for setting in ("kind=logits&steps=10", "kind=pairs&steps=10"):
        trained(tab, setting)
        for picture in tab.locator("svg[role='img']:visible").all():
            assert len(picture.get_attribute("aria-label")) > 30


def test_a_phone_need_not_scroll_sideways(tab: Page, explorer: ModuleType) -> None:
    tab.set_viewport_size(PHONE)
    for kind in explorer.KINDS:
        trained(tab, f"kind={kind}&steps=10")
        assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    tab.set_viewport_size(DESKTOP)


def test_it_is_small_and_quick(tab: Page, address: str, explorer: ModuleType) -> None:
    assert len(explorer.element().encode()) < 300_000
    tab.goto("about:blank")
    tab.goto(address)
    painted = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    tab.wait_for_function(painted)
    assert tab.evaluate(painted) < 1000
    for setting in ("classes=30", "kind=pairs&negatives=16"):
        go(tab, setting + "&steps=10")
        times = tab.evaluate(
            """() => Array.from({ length: 12 }, () => {
              const slider = document.querySelector("[data-settings='b'] input"), began = performance.now();
              slider.stepDown();
              slider.dispatchEvent(new Event("input", { bubbles: true }));
              return performance.now() - began;
            })"""
        )
        assert min(times) < 50  # the least, as a machine may be busy


# --- In the book


def test_the_page_links_every_loss_to_the_reference(
    vendored: None, browser: Browser, site: Path, explorer: ModuleType
) -> None:
    file = site / "book" / "explorer.html"
    with without_network(browser, file.as_uri()) as page:
        for key, kind in explorer.specification()["kinds"].items():
            for name, entry in kind["losses"].items():
                go(page, f"kind={key}&a={name}&steps=10")
                links = page.locator("[data-link='a'] a")
                expect(links).to_have_text(entry["link"].rpartition(".")[2])
                path, _, anchor = links.get_attribute("href").partition("#")
                target = file.parent / path
                assert f'id="{anchor}"' in target.read_text(encoding="utf-8")
