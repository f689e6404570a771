"""Runs in the kernel of a submission: puts back what the student's code replaced, before every check.

A check is only as good as the functions that it calls. At the start everything that checks use is noted down;
before each check it is compared, put back, and what was replaced is named.
"""

import builtins
import importlib
import math
import pkgutil
import sys
from typing import Any

# Replaced by the kernel itself, for each cell, and by torch when it first compiles.
CHANGING = {"input", "manual_seed"}


def watched() -> dict[str, Any]:
    """The modules and classes that checks rely on."""
    import numpy
    import torch

    import lossbook

    for module in pkgutil.walk_packages(lossbook.__path__, "lossbook."):
        importlib.import_module(module.name)
    places = [builtins, math, numpy, torch, torch.Tensor, torch.nn.functional, torch.testing]
    places += [torch.autograd, torch.func, torch.linalg]
    places += [m for name, m in sys.modules.items() if name.split(".")[0] == "lossbook"]
    return {getattr(place, "__name__", str(place)): place for place in places}


def functions(place: object) -> dict[str, Any]:
    """What can be called there: other values, such as caches, may change by themselves."""
    named = vars(place).items()
    return {name: value for name, value in named if callable(value) and name not in CHANGING}


def take(name: str) -> dict[str, Any]:
    """What there is now, by the name of its place."""
    shell: Any = globals()["get_ipython"]()  # put there by the first cell
    hooks = ("input_transformers_cleanup", "input_transformers_post", "ast_transformers")
    return {
        "name": name,
        "places": {key: (place, functions(place)) for key, place in watched().items()},
        "hooks": {hook: (getattr(shell, hook), list(getattr(shell, hook))) for hook in hooks},
    }


def restore(
    before: dict[str, Any],
    # Our own names for what a student's code could replace.
    vars: Any = vars,
    setattr: Any = setattr,
    delattr: Any = delattr,
    print: Any = print,
    sorted: Any = sorted,
    callable: Any = callable,
    isinstance: Any = isinstance,
    type: Any = type,
    changing: Any = CHANGING,
    modules: Any = sys,
) -> None:
    """Puts everything back, says what had been replaced, and that it has run."""
    replaced = []
    modules.settrace(None)
    for hook, (now, then) in before["hooks"].items():
        if now != then:
            replaced.append(f"IPython's {hook}")
            now[:] = then
    for key, (place, then) in before["places"].items():
        now = vars(place)
        for name, value in then.items():
            if now.get(name, before) is not value:
                replaced.append(f"{key}.{name}")
                setattr(place, name, value)
        # A new name can hide an inherited or a built-in one. Modules of others may import more as they go.
        if isinstance(place, type) or key.startswith("lossbook"):
            for name in [
                n for n in now if callable(now[n]) and n not in then and n not in changing
            ]:
                replaced.append(f"{key}.{name}")
                delattr(place, name)
    print(before["name"], *sorted(replaced))
