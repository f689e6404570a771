"""Classification: losses on the scores of classes."""

from lossbook.classification import calibration, softmax, surrogates
from lossbook.classification import cross_entropy as _cross_entropy
from lossbook.classification.calibration import *  # noqa: F403
from lossbook.classification.cross_entropy import *  # noqa: F403
from lossbook.classification.softmax import *  # noqa: F403
from lossbook.classification.surrogates import *  # noqa: F403

__all__ = [*_cross_entropy.__all__, *calibration.__all__, *softmax.__all__, *surrogates.__all__]
