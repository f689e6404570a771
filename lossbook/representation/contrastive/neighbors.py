"""neighbors."""

__all__: list[str] = []
