"""Class imbalance and long tails."""

__all__: list[str] = []
