"""A picture in SVG: a card, light or dark as the reader's system is, that needs nothing from outside."""

from __future__ import annotations

from html import escape

LIGHT = {
    "card": "#ffffff",
    "edge": "#d0d7de",
    "text": "#1f2328",
    "quiet": "#59636e",
    "line": "#818b98",
    "grey": "#f0f2f5",
    "blue": "#ddf4ff",
    "blue-line": "#0969da",
    "green": "#dafbe1",
    "green-line": "#1a7f37",
    "amber": "#fff3c4",
    "amber-line": "#9a6700",
    "red": "#ffebe9",
    "red-line": "#cf222e",
}
DARK = {
    "card": "#161b22",
    "edge": "#30363d",
    "text": "#e6edf3",
    "quiet": "#9ba6b2",
    "line": "#6e7681",
    "grey": "#21262d",
    "blue": "#10294a",
    "blue-line": "#58a6ff",
    "green": "#12321d",
    "green-line": "#3fb950",
    "amber": "#3a2d0c",
    "amber-line": "#d29922",
    "red": "#451a1d",
    "red-line": "#f85149",
}
SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
MONO_WIDTH = 0.61  # of a character, in heights


class Picture:
    """Shapes, in the order in which they are drawn. Lengths are pixels; colours are the keys of `LIGHT`."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self._shapes: list[str] = []
        self.box(0.5, 0.5, width - 1, height - 1, "card", "edge", radius=10)

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str = "grey",
        stroke: str = "",
        *,
        radius: float = 6,
        dashed: bool = False,
    ) -> None:
        """A rectangle; its `x` and `y` are the upper left corner."""
        style = f"f-{fill}" + (f" s-{stroke}" if stroke else "") + (" dashed" if dashed else "")
        self._shapes.append(
            f'<rect class="{style}" x="{x:g}" y="{y:g}" '
            f'width="{width:g}" height="{height:g}" rx="{radius:g}"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        color: str = "text",
        *,
        size: float = 13,
        anchor: str = "start",
        mono: bool = False,
        bold: bool = False,
    ) -> None:
        """One line of text; `y` is its base line. In `mono` every space counts."""
        if mono:
            text = text.replace(" ", "\N{NO-BREAK SPACE}")
        style = f"f-{color}" + (" mono" if mono else "") + (" bold" if bold else "")
        self._shapes.append(
            f'<text class="{style}" x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}">'
            f"{escape(text, quote=False)}</text>"
        )

    def path(
        self, d: str, stroke: str = "line", *, arrow: bool = False, dashed: bool = False, width: float = 1.5
    ) -> None:
        """A line along a path, with a head at its end if it is an `arrow`."""
        style = f"line s-{stroke}" + (" dashed" if dashed else "")
        head = f' marker-end="url(#to-{stroke})"' if arrow else ""
        self._shapes.append(f'<path class="{style}" d="{d}" stroke-width="{width:g}"{head}/>')

    def dot(self, x: float, y: float, fill: str, radius: float = 5) -> None:
        """A filled circle."""
        self._shapes.append(f'<circle class="f-{fill}" cx="{x:g}" cy="{y:g}" r="{radius:g}"/>')

    def svg(self, *, dark: bool = False) -> str:
        """The file. `dark`: dark in any case, to look at it."""
        base = _colors(DARK if dark else LIGHT)
        heads = "".join(
            f'<marker id="to-{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path class="f-{name}" d="M0 0.5 L8 4 L0 7.5 z"/></marker>'
            for name in LIGHT
            if name.endswith("line") and f"#to-{name})" in "".join(self._shapes)
        )
        width, height = f"{self.width:g}", f"{self.height:g}"
        size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>{escape(self.title, quote=False)}</title>",
            "<style>",
            f"text {{ font-family: {SANS}; }}",
            f".mono {{ font-family: {MONO}; }}",
            ".bold { font-weight: 600; }",
            ".line { fill: none; }",
            ".dashed { stroke-dasharray: 4 4; }",
            base,
            *([] if dark else ["@media (prefers-color-scheme: dark) {", _colors(DARK), "}"]),
            "</style>",
            *([f"<defs>{heads}</defs>"] if heads else []),
            *self._shapes,
            "</svg>",
        ]
        return "\n".join(lines) + "\n"


def _colors(palette: dict[str, str]) -> str:
    return "\n".join(
        f".f-{name} {{ fill: {value}; }} .s-{name} {{ stroke: {value}; }}" for name, value in palette.items()
    )
