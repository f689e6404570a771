"""Classification: losses on the scores of classes."""

from lossbook.classification import cross_entropy as _cross_entropy
from lossbook.classification import softmax
from lossbook.classification.cross_entropy import *  # noqa: F403
from lossbook.classification.softmax import *  # noqa: F403

__all__ = [*_cross_entropy.__all__, *softmax.__all__]
