"""Findings and contracts: what they print, show and keep."""

import json
import math

import pytest
from bs4 import BeautifulSoup

from lossbook.lab.contracts import Contract, Finding
from lossbook.lab.contracts.finding import SIGNS, VERDICTS, shown

CONTRACT = Contract(
    "my <loss>",
    "logits, target",
    {"gamma": "2.0"},
    {
        "convex": Finding(
            "refuted", "bends <down> & away", 7, -0.5, {"logits": [1.0, -2.0], "why": "<b>"}
        ),
        "bounded below": Finding("not refuted", "0 at least", 200, 0.0),
        "Lipschitz": Finding("measured", "grows", 3, math.inf, {"slopes": [math.inf, math.nan]}),
        "symmetric": Finding("not applicable", "it has no classes"),
    },
)


def test_unknown_verdict() -> None:
    with pytest.raises(ValueError, match=r"verdict must be one of .* 'proved'"):
        Finding("proved", "beyond doubt")


def test_every_verdict_has_a_sign() -> None:
    assert set(SIGNS) == set(VERDICTS)
    assert len(set(SIGNS.values())) == len(VERDICTS)


def test_a_finding_says_how_much_was_tried() -> None:
    short = {name: finding.short for name, finding in CONTRACT.findings.items()}
    assert short == {
        "convex": "refuted",
        "bounded below": "not refuted in 200 trials",
        "Lipschitz": "measured",
        "symmetric": "not applicable",
    }


def test_printing() -> None:
    assert repr(CONTRACT).splitlines() == [
        "my <loss>(gamma=2.0): a loss of logits, target",
        "  ✗ convex         refuted: bends <down> & away",
        "  ✓ bounded below  not refuted in 200 trials: 0 at least",
        "  ≈ Lipschitz      measured: grows",
        "  · symmetric      not applicable: it has no classes",
    ]
    assert repr(Contract("own", "logits, target", {}, {})) == "own: a loss of logits, target"


def test_card() -> None:
    """Names and texts are escaped; what has evidence opens on it, and nothing else opens."""
    card = BeautifulSoup(CONTRACT._repr_html_(), "html.parser")
    assert "my <loss>(gamma=2.0)" in card.get_text()
    assert [row.find("strong").get_text() for row in card.select("details")] == [
        "convex",
        "Lipschitz",
    ]
    convex = card.select_one("details")
    assert convex is not None and convex.summary is not None
    assert convex.summary.get_text() == "✗ convex refuted bends <down> & away"
    assert [item.get_text() for item in convex.select("li")] == ["logits: [1, -2]", "why: <b>"]
    assert not card.select("b")
    for name, finding in CONTRACT.findings.items():
        assert name in card.get_text() and finding.text in card.get_text()


def test_a_finding_by_its_name() -> None:
    assert CONTRACT["convex"].value == -0.5
    with pytest.raises(KeyError, match="'concave' was not examined; there are convex, bounded"):
        CONTRACT["concave"]


def test_json_and_back() -> None:
    """Infinities and nan too: nan is not equal to itself, so what is printed is compared."""
    again = Contract.from_json(json.loads(json.dumps(CONTRACT.to_json())))
    assert again.findings["Lipschitz"].value == math.inf
    assert math.isnan(again["Lipschitz"].evidence["slopes"][1])
    assert again["convex"] == CONTRACT["convex"]
    assert repr(again) == repr(CONTRACT)
    assert again._repr_html_() == CONTRACT._repr_html_()
    assert again.to_json().keys() == CONTRACT.to_json().keys()


def test_contracts_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        CONTRACT["convex"].value = 1.0


@pytest.mark.parametrize(
    "value, expected",
    [
        (0.123456, "0.1235"),
        (1e-7, "1e-07"),
        (math.inf, "inf"),
        (math.nan, "nan"),
        (3, "3"),
        ("softmax", "softmax"),
        ([1.0, [0.25, -math.inf]], "[1, [0.25, -inf]]"),
        ((1.5,), "[1.5]"),
    ],
)
def test_values_are_shown_to_four_digits(value: object, expected: str) -> None:
    assert shown(value) == expected
