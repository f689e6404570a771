"""Sharpness-aware training."""

__all__: list[str] = []
