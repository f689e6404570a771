"""Representation: losses on embeddings, and the geometry they give to space."""

from lossbook.representation import contrastive, hypersphere, neural_collapse
from lossbook.representation.contrastive import *  # noqa: F403
from lossbook.representation.hypersphere import *  # noqa: F403
from lossbook.representation.neural_collapse import *  # noqa: F403

__all__ = [*contrastive.__all__, *hypersphere.__all__, *neural_collapse.__all__]
