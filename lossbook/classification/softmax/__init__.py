"""The softmax and what stands in for it: maps, their losses, sampling, gates, attention, trees."""

from lossbook.classification.softmax import attention, gating, losses, maps, sampling, trees
from lossbook.classification.softmax.attention import *  # noqa: F403
from lossbook.classification.softmax.gating import *  # noqa: F403
from lossbook.classification.softmax.losses import *  # noqa: F403
from lossbook.classification.softmax.maps import *  # noqa: F403
from lossbook.classification.softmax.sampling import *  # noqa: F403
from lossbook.classification.softmax.trees import *  # noqa: F403

__all__ = [
    *attention.__all__,
    *gating.__all__,
    *losses.__all__,
    *maps.__all__,
    *sampling.__all__,
    *trees.__all__,
]
