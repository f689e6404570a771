"""Supervision: losses for labels that are rare, wrong, many or missing."""

from lossbook.supervision.imbalance import *  # noqa: F403
from lossbook.supervision.imbalance import __all__  # noqa: F401
