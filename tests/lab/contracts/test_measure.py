"""`contract`: of the package's losses and of a reader's own."""

import re
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lossbook.classification import focal_loss
from lossbook.lab.contracts import GROUPS, contract
from lossbook.representation import info_nce_loss

QUICK = ["reductions", "range in float16"]


def test_properties_have_one_name_and_one_definition() -> None:
    names = [name for group in GROUPS.values() for name in group]
    assert len(names) == len(set(names))
    for group in GROUPS.values():
        for name, examine in group.items():
            assert (examine.__doc__ or "").strip(), f"{name} has no definition"


def test_order_and_choice_of_properties() -> None:
    found = contract(focal_loss, properties=QUICK)
    assert list(found.findings) == QUICK
    assert contract(focal_loss, properties=[]).findings == {}


def test_repeatable() -> None:
    """The seeds are fixed, and nobody else's random numbers are taken."""
    torch.manual_seed(1)
    first = contract(info_nce_loss, properties=QUICK)
    second = contract(info_nce_loss, properties=QUICK)
    drawn = torch.randn(3)
    torch.manual_seed(1)
    assert repr(first) == repr(second)
    assert torch.equal(drawn, torch.randn(3))


def test_settings_reach_the_loss_and_are_printed() -> None:
    def own(logits: Tensor, target: Tensor, *, gamma: float = 1.0, phi: object = None) -> Tensor:
        assert gamma == 3.0 and phi is torch.relu
        return logits.sum(1)

    found = contract(own, properties=["range in float64"], gamma=3.0, phi=torch.relu)
    assert found.settings == {"gamma": "3.0", "phi": "relu"}
    assert repr(found).startswith("own(gamma=3.0, phi=relu): a loss of logits, target")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"kind": "logits, labels"}, "kind must be one of logits, target; .*'logits, labels'"),
        ({"properties": ["convex", "nice"]}, r"properties must be among .*got \['nice'\]"),
        ({"trials": 0}, "trials must be at least 1, got 0"),
    ],
)
def test_bad_input(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contract(focal_loss, **options)


def test_unknown_parameters_are_no_kind() -> None:
    with pytest.raises(ValueError, match=r"kind must be one of .*got 'z, y'"):
        contract(lambda z, y: cross_entropy(z, y), properties=QUICK)


def test_own_losses() -> None:
    """A lambda of values, one of the mean, a module, a partial: with a name and without."""
    cases = {
        "each": lambda z, y: cross_entropy(z, y, reduction="none"),
        "mean": lambda z, y: cross_entropy(z, y),
        "module": nn.CrossEntropyLoss(),
        "partial": partial(cross_entropy, label_smoothing=0.1),
    }
    for name, loss in cases.items():
        found = contract(loss, kind="logits, target", name=name, properties=QUICK)
        assert found.loss == name
        assert found["range in float16"].verdict == "not refuted"
        assert found["range in float16"].value == 1e4
    assert contract(cases["partial"], kind="logits, target", properties=[]).loss == "loss"
    assert contract(cases["each"], kind="logits, target", properties=[]).loss == "<lambda>"


def test_own_loss_of_another_kind() -> None:
    found = contract(
        lambda a, b: (a - b).square().sum(1), kind="anchor, positive", properties=["vmap"]
    )
    assert found["vmap"].verdict == "not refuted"


def test_an_error_of_the_loss_names_the_property() -> None:
    def broken(logits: Tensor, target: Tensor) -> Tensor:
        raise RuntimeError("as it is")

    with pytest.raises(RuntimeError, match=re.escape("as it is")) as caught:
        contract(broken, properties=["vmap"])
    assert caught.value.__notes__ == ["raised while 'vmap' of broken was examined"]
