"""How long tests look for faults: by default on a sample that is the same each time; with the profile `deep`, everywhere."""

import os

PROFILE = os.environ.get("METERLAKE_HYPOTHESIS_PROFILE", "ci")
DEEP = PROFILE == "deep"
