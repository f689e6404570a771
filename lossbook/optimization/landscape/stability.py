"""stability"""

__all__: list[str] = []
