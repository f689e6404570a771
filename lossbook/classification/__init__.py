"""Classification: losses on the scores of classes."""

from lossbook.classification.cross_entropy import *  # noqa: F403
from lossbook.classification.cross_entropy import __all__  # noqa: F401
