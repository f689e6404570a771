"""Surrogates: what is minimized instead of the error rate, and what that says about the error rate."""

from lossbook.classification.surrogates import consistency, learners, margins, rejection
from lossbook.classification.surrogates.consistency import *  # noqa: F403
from lossbook.classification.surrogates.learners import *  # noqa: F403
from lossbook.classification.surrogates.margins import *  # noqa: F403
from lossbook.classification.surrogates.rejection import *  # noqa: F403

__all__ = [*consistency.__all__, *learners.__all__, *margins.__all__, *rejection.__all__]
