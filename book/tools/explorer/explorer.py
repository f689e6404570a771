"""The loss explorer: two losses of a kind side by side, in the page alone.

Formulas stand in ``losses.js``. What a loss takes, and with which defaults, is read from the package.
"""

from __future__ import annotations

import html
import inspect
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lossbook.classification.surrogates import margins
from lossbook.lab import plots
from lossbook.lab.contracts.kinds import losses

HERE = Path(__file__).parent
SCRIPTS = ("jets", "losses", "toys", "explorer")  # in reading order


@dataclass(frozen=True)
class Control:
    """A control of the page: a range, or one of several choices.

    Attributes:
        label: what the reader reads.
        default: where it starts; for a hyperparameter it comes from the package.
        low, high: the ends of a range.
        scale: how a slider divides the range; one of "stops" goes over the choices.
        optional: whether it may also be switched off, which is None in Python.
        choices: for each value what the reader reads, in place of a range.
    """

    label: str
    default: Any = None
    low: float = 0.0
    high: float = 1.0
    scale: Literal["linear", "log", "whole", "stops"] = "linear"
    optional: bool = False
    choices: dict[str, str] | None = None


def linear(low: float, high: float, label: str = "", default: Any = None) -> Control:
    return Control(label, default, low, high)


def log(low: float, high: float, label: str = "", default: Any = None) -> Control:
    return Control(label, default, low, high, "log")


def whole(low: int, high: int, label: str = "", default: Any = None) -> Control:
    return Control(label, default, low, high, "whole")


def one_of(choices: dict[str, str], label: str = "", default: Any = None) -> Control:
    return Control(label, default, choices=choices)


PHI = [
    name
    for name in margins.__all__
    if "margin" in inspect.signature(getattr(margins, name)).parameters
]
WHICH_PHI = one_of({name: name.replace("_", " ") for name in PHI})
SWITCH = one_of({"true": "yes", "false": "no"})
TEMPERATURE = log(0.02, 5)
GAMMA = linear(0, 8)

LOGITS: dict[str, dict[str, Control]] = {
    "brier_loss": {},
    "comp_sum_loss": {"tau": linear(0, 3)},
    "correctness_aware_loss": {},
    "crammer_singer_loss": {"phi": WHICH_PHI},
    "cross_entropy": {"label_smoothing": linear(0, 1)},
    "dual_focal_loss": {"gamma": linear(0, 10)},
    "encouraging_loss": {"end_point": linear(0.05, 1)},
    "entmax_loss": {"alpha": linear(1, 2)},
    "focal_loss": {"gamma": GAMMA},
    "halted_focal_loss": {"gamma": GAMMA, "halt": linear(0.05, 1)},
    "ldr_kl_loss": {"temperature": log(0.05, 20), "margin": linear(0, 5), "normalize": SWITCH},
    "lee_lin_wahba_loss": {"phi": WHICH_PHI},
    "poly_focal_loss": {
        "epsilon": linear(-2, 5),
        "gamma": GAMMA,
        "alpha": Control("", None, 0, 1, optional=True),
    },
    "poly_loss": {"epsilon": linear(-2, 5)},
    "rescaled_square_loss": {"scale": log(0.1, 20), "magnitude": log(0.1, 20)},
    "sparse_softmax_loss": {"k": whole(1, 20)},
    "sparsemax_loss": {},
    "spherical_loss": {},
    "spherical_softmax_loss": {"epsilon": log(1e-6, 1)},
    "squentropy_loss": {},
    "vector_scaling_loss": {"gamma": linear(0, 2), "tau": linear(0, 3)},
    "weston_watkins_loss": {"phi": WHICH_PHI},
    "z_loss": {"sharpness": log(0.1, 10), "offset": linear(-3, 10)},
}
MARGINS: dict[str, dict[str, Control]] = {name: {} for name in PHI} | {
    "ramp": {"s": linear(-3, 0.9)}
}
PAIRS: dict[str, dict[str, Control]] = {
    "align_uniform_loss": {
        "alpha": log(0.25, 8),
        "t": log(0.1, 20),
        "uniform_weight": linear(0, 5),
    },
    "alignment_loss": {"alpha": log(0.25, 8)},
    "cacr_loss": {"t_neg": linear(0, 10), "attached": SWITCH},
    "cross_correlation_loss": {"redundancy_weight": log(1e-4, 1)},
    "decoupled_contrastive_loss": {"temperature": TEMPERATURE},
    "hard_contrastive_loss": {"temperature": TEMPERATURE, "share": linear(0.01, 1)},
    "hybrid_contrastive_loss": {
        "mix": linear(0, 1),
        "temperature": TEMPERATURE,
        "c": linear(0, 0.95),
    },
    "info_loob_loss": {"temperature": TEMPERATURE},
    "info_nce_loss": {"temperature": TEMPERATURE},
    # The package has no default for the number of instances.
    "instance_nce_loss": {"number": whole(1, 1000, "", 50), "temperature": TEMPERATURE},
    "nt_xent_loss": {"temperature": TEMPERATURE},
    "robust_global_contrastive_loss": {"temperature": TEMPERATURE, "rho": linear(0, 10)},
    "weighted_decoupled_contrastive_loss": {"temperature": TEMPERATURE, "sigma": log(0.1, 10)},
}

# What a loss takes beyond its controls, and what the explorer gives it.
WITHOUT_CONTROL = {
    "weight": "as classes weigh the same",
    "ignore_index": "as nothing is ignored",
    "reduction": "as one example's loss is drawn and the mean is trained",
    "gather": "as there is one process",
    "class_counts": "taken from the imbalance, and in training from the labels",
    "negatives": "which are the other examples of the batch",
    "noise": "which is the other positives of the batch",
    "log_partition": "which is estimated from the noise",
    "t_pos": "which has nothing to weigh where there is one positive",
}

# Losses of these kinds that are not here.
LEFT_OUT = {
    "proper_loss": "is as many losses as there are convex functions",
    "fenchel_young_loss": "is as many losses as there are entropies",
    "ens_loss": "draws its slopes at random and has no value that means anything",
}

# Losses that a batch has, and an example of it has not.
WHOLE_BATCH = ("align_uniform_loss", "cross_correlation_loss")

RATE = log(0.01, 30, "step size", 1.0)
STEPS = whole(10, 1000, "steps", 300)
SEED = whole(0, 99, "seed", 0)
FEATURES = {"straight": "straight", "curved": "curved", "bumps": "36 bumps"}
NOISE = linear(0, 0.5, "share of flipped labels", 0.3)
IMBALANCE = log(1, 30, "commonest class to rarest", 1.0)
BOUNDARY = one_of(FEATURES, "boundary", "bumps")
EXAMPLES = 12  # in a batch of the toy problem of pairs
TWINS = {
    str(n): f"{(n - 1) / (EXAMPLES - 1):.0%}".replace("%", "\N{NO-BREAK SPACE}%")
    for n in (1, 2, 3, 4, 6)
}


@dataclass(frozen=True)
class KindOfLoss:
    """One kind: its losses with their controls, and the controls of what both losses are shown on."""

    title: str
    module_loss: str | None  # the loss of which the entries are the phi, if they are
    losses: dict[str, dict[str, Control]]
    first: tuple[str, str]
    scene: dict[str, Control]
    toy: dict[str, Control]


KINDS = {
    "logits": KindOfLoss(
        "several classes: logits",
        None,
        LOGITS,
        ("cross_entropy", "focal_loss"),
        {
            "classes": Control("classes", 10, 2, 100, "whole"),
            "spread": linear(0, 5, "spread of the rivals", 1.0),
        },
        {
            "toy_classes": one_of({"2": "2", "3": "3"}, "classes", "3"),
            "feature": BOUNDARY,
            "noise": NOISE,
            "imbalance": IMBALANCE,
            "seed": SEED,
            "rate": RATE,
            "steps": STEPS,
        },
    ),
    "margins": KindOfLoss(
        "two classes: one margin",
        "margin_loss",
        MARGINS,
        ("logistic", "hinge"),
        {},
        {
            "feature": BOUNDARY,
            "noise": NOISE,
            "imbalance": IMBALANCE,
            "seed": SEED,
            "rate": RATE,
            "steps": STEPS,
        },
    ),
    "pairs": KindOfLoss(
        "pairs of embeddings: contrastive",
        None,
        PAIRS,
        ("info_nce_loss", "decoupled_contrastive_loss"),
        {
            "moves": one_of(
                {"positive": "the positive", "negative": "a negative"}, "what moves", "positive"
            ),
            "negatives": whole(1, 32, "negatives", 8),
            "hardest": linear(-0.5, 0.99, "similarity of the hardest negative", 0.8),
            "positive": linear(-0.9, 0.99, "similarity of the positive", 0.8),
        },
        {
            "twins": Control("share of false negatives", "3", scale="stops", choices=TWINS),
            "seed": SEED,
            "rate": log(0.001, 3, "step size", 0.05),
            "steps": STEPS,
        },
    ),
}


def function_of(kind: KindOfLoss, name: str) -> Any:
    return getattr(margins, name) if kind.module_loss else losses()[name]


def default(function: Any, parameter: str) -> Any:
    """The package's default, as the page writes it."""
    value = inspect.signature(function).parameters[parameter].default
    if callable(value) and value is not inspect.Parameter.empty:
        return value.__name__
    return str(value).lower() if isinstance(value, bool) else value


@dataclass(frozen=True)
class Preset:
    """A setting worth a look, with the question that it answers."""

    title: str
    question: str
    address: str


PRESETS = [
    Preset(
        "Why focal?",
        "From which probability on does an example hardly count any more? Move B's gamma.",
        "kind=logits",
    ),
    Preset(
        "Does MAE survive noise?",
        "B is the mean absolute error. At which share of flipped labels does A begin to reproduce them?",
        "b=comp_sum_loss&b.tau=2&noise=0.4&rate=10&steps=600",
    ),
    Preset(
        "Cross-entropy against hinge",
        "Which of the two goes on pulling at examples that are right already, and how far?",
        "kind=margins&feature=straight&noise=0.1",
    ),
    Preset(
        "One wrong label, far out",
        "What is the pull of an example at margin −4 in each? Raise the noise and watch A's boundary.",
        "kind=margins&a=exponential&b=ramp&noise=0.2&feature=curved&rate=0.3",
    ),
    Preset(
        "Temperature and hard negatives",
        "Which share of the push goes to the hardest negative? Move B's temperature until it is even.",
        "kind=pairs&b=info_nce_loss&b.temperature=0.5",
    ),
    Preset(
        "Rare classes",
        "How many of the rarest class does each find? Move B's tau.",
        "b=vector_scaling_loss&b.gamma=0&imbalance=20&noise=0&feature=curved",
    ),
    Preset(
        "When is enough enough?",
        "At which margin is the sparsemax loss exactly zero? And entmax, between the two?",
        "b=sparsemax_loss&classes=3&noise=0",
    ),
    Preset(
        "False negatives",
        "How near do examples of one thing stay, which both losses push apart?",
        "kind=pairs&b=cacr_loss&twins=4",
    ),
]


def specification() -> dict[str, Any]:
    """What the page's script reads: kinds, losses, controls, colors."""

    def control(one: Control, label: str, value: Any) -> dict[str, Any]:
        return asdict(one) | {"label": one.label or label, "default": value}

    kinds = {}
    for key, kind in KINDS.items():
        entries = {}
        for name, controls in kind.losses.items():
            function = function_of(kind, name)
            entries[name] = {
                "title": name.removesuffix("_loss").replace("_", " "),
                "link": f"{function.__module__}.{name}",
                "controls": {
                    parameter: control(
                        one,
                        parameter.replace("_", " "),
                        one.default if one.default is not None else default(function, parameter),
                    )
                    for parameter, one in controls.items()
                },
            }
        scenes = {
            part: {name: control(one, "", one.default) for name, one in getattr(kind, part).items()}
            for part in ("scene", "toy")
        }
        kinds[key] = {"title": kind.title, "losses": entries, "first": kind.first, **scenes}
    return {"kinds": kinds, "palette": plots.PALETTE[:2], "classes": plots.PALETTE[2:5]}


def element() -> str:
    """The explorer: everything that it needs, in one piece of HTML."""
    scripts = "\n".join(
        (HERE / f"{name}.js").read_text() for name in ("jets", "losses", "toys", "explorer")
    )
    kinds = "".join(
        f'<option value="{key}">{html.escape(kind.title)}</option>' for key, kind in KINDS.items()
    )
    presets = "".join(
        f'<li><a href="#{html.escape(preset.address)}">{html.escape(preset.title)}</a> '
        f"<span>{html.escape(preset.question)}</span></li>"
        for preset in PRESETS
    )
    return filled(
        "explorer.html",
        KINDS=kinds,
        PRESETS=presets,
        STYLE=(HERE / "explorer.css").read_text(),
        SPECIFICATION=json.dumps(specification()).replace("</", "<\\/"),
        SCRIPT=f'"use strict";\n(() => {{\n{scripts}\n}})();',
    )


def filled(template: str, **parts: str) -> str:
    """One of the files beside this one, with its marks such as {SCRIPT} filled in."""
    text = (HERE / template).read_text()
    for mark, part in parts.items():
        text = text.replace(f"{{{mark}}}", part)
    return text


def reference(function: Any) -> str:
    return f"{{py:func}}`{function.__name__} <{function.__module__}.{function.__name__}>`"


def pages() -> dict[str, str]:
    """The page, by its path under book/."""
    lists = []
    for kind in KINDS.values():
        entries = ", ".join(reference(function_of(kind, name)) for name in kind.losses)
        through = f", each by {reference(losses()[kind.module_loss])}" if kind.module_loss else ""
        lists.append(f"- {kind.title[0].upper()}{kind.title[1:]}{through}: {entries}.")
    found = losses()
    left_out = "; ".join(f"{reference(found[name])}, which {why}" for name, why in LEFT_OUT.items())
    batches = " and ".join(reference(found[name]) for name in WHOLE_BATCH)
    return {
        "explorer.md": filled(
            "page.md",
            LOSSES="\n".join(lists),
            LEFT_OUT=left_out,
            WITHOUT_CONTROL="; ".join(f"`{name}`, {why}" for name, why in WITHOUT_CONTROL.items()),
            BATCHES=batches,
            ELEMENT=element(),
        )
    }
