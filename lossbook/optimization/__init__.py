"""Optimization: the landscape of a loss, and how training moves through it."""

from lossbook.optimization import landscape, sharpness
from lossbook.optimization.landscape import *  # noqa: F403
from lossbook.optimization.sharpness import *  # noqa: F403

__all__ = [*landscape.__all__, *sharpness.__all__]
