"""Contrastive learning: one against many, whom to push away, and when what was learned transfers."""

from lossbook.representation.contrastive import infonce, negatives, neighbors, transfer
from lossbook.representation.contrastive.infonce import *  # noqa: F403
from lossbook.representation.contrastive.negatives import *  # noqa: F403
from lossbook.representation.contrastive.neighbors import *  # noqa: F403
from lossbook.representation.contrastive.transfer import *  # noqa: F403

__all__ = [*infonce.__all__, *negatives.__all__, *neighbors.__all__, *transfer.__all__]
