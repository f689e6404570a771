"""Write the generated pages of the book. Each module beside this one that has some says what is in them."""

from __future__ import annotations

from pathlib import Path

import atlas
import contracts
import explorer
import ledger
import performance

BOOK = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    for module in (atlas, contracts, explorer, ledger, performance):
        for path, text in module.pages().items():
            (BOOK / path).parent.mkdir(exist_ok=True)
            (BOOK / path).write_text(text, encoding="utf-8")
