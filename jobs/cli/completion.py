"""Complete the names of meters in the shell; the library completes commands and options. Imports nothing heavy."""

from __future__ import annotations

import re

import typer

# A name with other characters would have to be quoted, for each shell in its way.
NEEDS_NO_QUOTES = re.compile(r"[\w.,@%+-]+")


def complete_meter(context: typer.Context, incomplete: str) -> list[str]:
    """Return the meters of the lake that begin with this; none, silently, if the lake can't be read at once."""
    url = context.find_root().params.get("lake")
    # Another storage may take long to answer, or to say no.
    if not url or "://" in url:
        return []
    from lake.meters import meter_names
    from lake.storage import open_storage
    from schemas.errors import MeterlakeError

    try:
        names = meter_names(open_storage(url))
    except MeterlakeError:
        return []
    return [name for name in names if name.startswith(incomplete) and NEEDS_NO_QUOTES.fullmatch(name)]
