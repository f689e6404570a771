"""Proper losses and calibration: to say what one believes, to measure and to repair what was said."""

from lossbook.classification.calibration import conformal, measurement, repair, scores, training
from lossbook.classification.calibration.conformal import *  # noqa: F403
from lossbook.classification.calibration.measurement import *  # noqa: F403
from lossbook.classification.calibration.repair import *  # noqa: F403
from lossbook.classification.calibration.scores import *  # noqa: F403
from lossbook.classification.calibration.training import *  # noqa: F403

__all__ = [
    *conformal.__all__,
    *measurement.__all__,
    *repair.__all__,
    *scores.__all__,
    *training.__all__,
]
