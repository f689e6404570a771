"""surfaces"""

__all__: list[str] = []
