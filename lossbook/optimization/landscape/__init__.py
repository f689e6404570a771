"""Loss landscapes: their surfaces, their curvature, and the stability of training on them."""

from lossbook.optimization.landscape import curvature, stability, surfaces
from lossbook.optimization.landscape.curvature import *  # noqa: F403
from lossbook.optimization.landscape.stability import *  # noqa: F403
from lossbook.optimization.landscape.surfaces import *  # noqa: F403

__all__ = [*curvature.__all__, *stability.__all__, *surfaces.__all__]
