"""The softmax and what stands in for it: maps, their losses, sampling, gates, attention, trees."""

from lossbook.classification.softmax import losses, maps
from lossbook.classification.softmax.losses import *  # noqa: F403
from lossbook.classification.softmax.maps import *  # noqa: F403

__all__ = [*losses.__all__, *maps.__all__]
