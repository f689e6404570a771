"""The controls of an explorable figure: their stops, how a page shows them, how a notebook does."""

from __future__ import annotations

import base64
import html
import inspect
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from IPython.display import display
from matplotlib.figure import Figure
from torch import Tensor

from lossbook.lab import plots

#: The value of every control by its name.
Settings = Mapping[str, float | str]


@dataclass(frozen=True)
class Control:
    """A control with its stops: a slider over numbers, or a choice among names."""

    label: str
    stops: tuple[float | str, ...]
    start: int

    @property
    def shown(self) -> list[str]:
        """The stops as the reader sees them."""
        return [stop if isinstance(stop, str) else f"{stop:.4g}" for stop in self.stops]


def slider(label: str, stops: Iterable[float] | Tensor, start: float) -> Control:
    """A slider over the numbers `stops`, first at the stop nearest to `start`."""
    numbers = tuple(float(stop) for stop in stops)
    nearest = min(range(len(numbers)), key=lambda i: abs(numbers[i] - start))
    return Control(label, numbers, nearest)


def choice(label: str, options: Sequence[str], start: str) -> Control:
    """A menu of names, first at `start`."""
    return Control(label, tuple(options), list(options).index(start))


def taken(function: Callable[..., object], controls: Mapping[str, Control]) -> tuple[str, ...]:
    """The names of the controls among the parameters of `function`."""
    return tuple(name for name in inspect.signature(function).parameters if name in controls)


def combinations(controls: Mapping[str, Control], names: Sequence[str]) -> Iterator[Settings]:
    """All settings of the named controls, the last one changing fastest."""
    for stops in itertools.product(*(controls[name].stops for name in names)):
        yield dict(zip(names, stops, strict=True))


def encode(values: Tensor) -> str:
    """The values as little-endian float32 in base64, row-major."""
    return base64.b64encode(values.detach().cpu().float().numpy().astype("<f4").tobytes()).decode()


def element(name: str, control: Control) -> str:
    """A control as HTML: a native range input or a native menu."""
    label = html.escape(control.label)
    if isinstance(control.stops[0], str):
        options = "".join(
            f'<option value="{i}"{" selected" if i == control.start else ""}>{html.escape(text)}</option>'
            for i, text in enumerate(control.shown)
        )
        # Every control has an output, so that controls and outputs pair up; a menu shows its own value.
        return (
            f'<label>{label} <select data-control="{name}">{options}</select>'
            f"<output data-output hidden></output></label>"
        )
    return (
        f'<label>{label} <input type="range" data-control="{name}" min="0" '
        f'max="{len(control.stops) - 1}" step="1" value="{control.start}">'
        f"<output data-output>{control.shown[control.start]}</output></label>"
    )


def show_widgets(
    controls: Mapping[str, Control],
    picture: Callable[[Settings], Figure],
    alt: str,
    while_dragged: bool = True,
) -> None:
    """Display the controls as ipywidgets, and under them the picture, drawn afresh at every move.

    Args:
        controls: the controls by name.
        picture: draws the figure at the settings of all controls.
        alt: what the picture shows and how it changes, in words.
        while_dragged: whether to draw while a slider is still dragged, or only when it is let go.
    """
    import ipywidgets as widgets

    boxes = {
        name: widgets.SelectionSlider(
            options=list(zip(control.shown, control.stops, strict=True)),
            index=control.start,
            description=control.label,
            style={"description_width": "initial"},
            continuous_update=while_dragged,
        )
        if not isinstance(control.stops[0], str)
        else widgets.Dropdown(
            options=control.stops,
            index=control.start,
            description=control.label,
            style={"description_width": "initial"},
        )
        for name, control in controls.items()
    }
    output = widgets.Output()

    def draw(_: object = None) -> None:
        with output:
            output.clear_output(wait=True)
            plots.show(picture({name: box.value for name, box in boxes.items()}), alt)

    for box in boxes.values():
        box.observe(draw, names="value")
    display(widgets.VBox([*boxes.values(), output]))
    draw()


def play(picture: Callable[..., Figure], alt: str, **controls: Control) -> None:
    """A picture that is made afresh, training included, whenever one of its controls is moved.

    For what takes too long to be computed for every position beforehand, as an explorable figure is. A
    slider acts when it is let go. In the rendered book (``LOSSBOOK_STATIC`` is set) there is no kernel to
    compute with, and the picture of the starting position stands alone.

    Args:
        picture: takes the value of each control by name, and gives a matplotlib figure.
        alt: what the picture shows and how it changes, in words.
        **controls: `slider` or `choice` for each of the arguments of `picture`.

    Raises:
        ValueError: the controls are not the arguments of `picture`.
    """
    wanted = list(inspect.signature(picture).parameters)
    if sorted(wanted) != sorted(controls):
        raise ValueError(f"controls must be the picture's arguments {wanted}, got {list(controls)}")
    if os.environ.get("LOSSBOOK_STATIC"):
        plots.show(picture(**{name: c.stops[c.start] for name, c in controls.items()}), alt)
    else:
        show_widgets(controls, lambda settings: picture(**settings), alt, while_dragged=False)
