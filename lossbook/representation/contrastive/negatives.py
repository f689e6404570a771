"""negatives."""

__all__: list[str] = []
