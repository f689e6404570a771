"""The search field and the menus above a long list, the same on every page that has one.

A reader's choice stands in the page's address (``#part=classification&q=focal``), so it can be linked to.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

HERE = Path(__file__).parent


def slug(value: str) -> str:
    """A menu's value as elements carry it in ``data-<menu>``: "not at this scale" is not-at-this-scale."""
    return re.sub(r"[^\w.+-]+", "-", value.strip().lower())


def controls(target: str, menus: dict[str, list[str]]) -> str:
    """A search field and menus that show only some of the elements of a page, as raw HTML.

    Args:
        target: a CSS selector of the elements; each carries ``data-<menu>="value other-value"`` for every
            menu (see `slug`), and its words are what is searched.
        menus: for each menu its values in the order of reading.

    Returns:
        HTML for the place above the elements. Without a script nothing of it is seen, and all elements are.
    """
    chosen = "".join(_menu(name, values) for name, values in menus.items())
    return (
        f"<style>{(HERE / 'filters.css').read_text()}</style>"
        f'<form class="lossbook-filters" role="search" data-target="{escape(target)}" hidden>'
        f'<label>search <input type="search" name="q" autocomplete="off"></label>{chosen}'
        '<button type="reset">show all</button><output aria-live="polite"></output></form>'
        f"<script>{(HERE / 'filters.js').read_text()}</script>"
    )


def _menu(name: str, values: list[str]) -> str:
    # The ids let a link say which choice it means, and a test find out whether there is such a choice.
    options = "".join(
        f'<option id="{name}={slug(value)}" value="{slug(value)}">{escape(value.replace("_", " "))}</option>'
        for value in values
    )
    return f'<label>{name} <select name="{name}"><option value="">all</option>{options}</select></label>'
