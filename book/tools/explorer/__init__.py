"""The loss explorer, a page of the book."""

from .explorer import pages as pages
