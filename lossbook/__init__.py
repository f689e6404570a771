"""Loss functions explained, implemented and measured.

Each part of the book is a subpackage (``lossbook.classification``, ...), each chapter a module in it.
``lossbook.lab`` holds what the chapters need beside the losses and is imported only on request.
"""

__version__ = "0.1.0"
