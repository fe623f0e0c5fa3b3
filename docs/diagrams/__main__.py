"""Draw the pictures of the site: `python docs/diagrams`. A test says when one is out of date.

`--look DIRECTORY` writes both versions of each, light and dark, there instead.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from diagrams import PICTURES, images

if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            for path, svg in images().items():
                path.write_text(svg, "utf-8")
        case ["--look", directory]:
            for name, draw in PICTURES.items():
                for dark in (False, True):
                    path = Path(directory) / f"{name}-{'dark' if dark else 'light'}.svg"
                    path.write_text(draw().svg(dark=dark), "utf-8")
        case _:
            sys.exit(__doc__)
