"""Neural collapse."""

__all__: list[str] = []
