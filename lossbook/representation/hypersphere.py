"""Hyperspheres and hyperbolic space."""

__all__: list[str] = []
