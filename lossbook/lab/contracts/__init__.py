"""The mathematical contract of a loss, measured: of the package's losses, and of a reader's own.

>>> from lossbook.classification import cross_entropy
>>> contract(cross_entropy, properties=["symmetric"])["symmetric"].verdict
'refuted'
"""

from lossbook.lab.contracts.finding import Contract, Finding
from lossbook.lab.contracts.measure import GROUPS, contract

__all__ = ["GROUPS", "Contract", "Finding", "contract"]
