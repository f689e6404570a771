"""Contrastive learning."""

__all__: list[str] = []
