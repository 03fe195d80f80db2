"""The few colours that sheets, plots and pages share, for light and for dark surroundings."""

from __future__ import annotations

INK = "#1d2227"
MUTED = "#6b727b"
LINE = "#dcdfe3"
PAPER = "#fdfdfb"
PANEL = "#f4f4f1"
BLUE = "#2c63b8"
ORANGE = "#c4631c"
GREEN = "#2b7f62"
PURPLE = "#8a4a9e"


# CSS variable: (light, dark). The series colours keep their contrast for colour-blind readers.
THEME = {
    "ink": (INK, "#e4e6e9"),
    "muted": (MUTED, "#989fa8"),
    "line": (LINE, "#33383f"),
    "paper": (PAPER, "#14171a"),
    "panel": (PANEL, "#1d2125"),
    "blue": (BLUE, "#82aef2"),
    "orange": (ORANGE, "#eea465"),
    "green": (GREEN, "#74c7a4"),
    "purple": (PURPLE, "#cf9be0"),
}
