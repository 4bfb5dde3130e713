"""What the surroundings may not decide: colours and widths that a terminal or a CI asks for."""

import os

for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "NO_COLOR", "PY_COLORS", "COLUMNS", "LINES"):
    os.environ.pop(name, None)
