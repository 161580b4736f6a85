"""How long tests look for faults: by default on a sample that is the same each time; with the profile `deep`, everywhere."""

import os

PROFILE = os.environ.get("METERLAKE_HYPOTHESIS_PROFILE", "ci")
DEEP = PROFILE == "deep"


def evenly(last: int, count: int, offset: int = 0) -> list[int]:
    """So many of the numbers from 1 to `last`, evenly spread, or all of them with the profile `deep`.

    Another offset gives other numbers between them.
    """
    step = 1 if DEEP else max(1, last // count)
    return [*range(1 + offset % step, last + 1, step)]
