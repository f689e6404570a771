"""transfer."""

__all__: list[str] = []
