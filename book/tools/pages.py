"""Write the generated pages of the book. Each module beside this one that has some says what is in them."""

from __future__ import annotations

import shutil
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
    # A notebook that runs again, as a test, writes its numbers over those that the pages were made from.
    shutil.copytree(ledger.LEDGER, ledger.LEDGER.with_name("book"), dirs_exist_ok=True)
