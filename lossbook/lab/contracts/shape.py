"""Being written."""

from __future__ import annotations

from collections.abc import Callable

from lossbook.lab.contracts.finding import Finding
from lossbook.lab.contracts.kinds import Subject

PROPERTIES: dict[str, Callable[[Subject, int], Finding]] = {}
