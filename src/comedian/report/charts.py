"""Charts as inline SVG: numbers in, markup out. Colours and lines of each series are those of `charts.css`."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup

WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 42
# classes of `charts.css`; further series begin again
NUM_STYLES = 6

Point = tuple[float, float]


class Line(NamedTuple):
    """A line of a chart.

    Attributes:
        name: what it shows.
        points: `(x, y)` from left to right.
        marks: `(x, y, text)` of places to mark; the text is shown to who points at one.
    """

    name: str
    points: Sequence[Point]
    marks: Sequence[tuple[float, float, str]] = ()


class Axes(NamedTuple):
    """What the axes show, and from where to where."""

    x_name: str
    y_name: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def place(self, point: Point) -> Point:
        """Return the position of a point in the picture."""
        (x_low, x_high), (y_low, y_high) = self.x_range, self.y_range
        x = LEFT + (point[0] - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - (point[1] - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)
        return x, y


def style_of(index: int) -> str:
    """Return the class of a series, for legends too."""
    return f"series-{index % NUM_STYLES}"


def line_chart(lines: Sequence[Line], axes: Axes, title: str) -> Markup:
    """Draw lines.

    Args:
        lines: in the order of their styles.
        axes: the points lie within their ranges.
        title: accessible description of the picture for screen readers.
    """
    parts = []
    for index, line in enumerate(lines):
        path = _path(axes.place(point) for point in line.points)
        parts.append(Markup('<path class="line {}" d="{}"/>').format(style_of(index), path))
        for x, y, text in line.marks:
            at = axes.place((x, y))
            mark = '<circle class="mark {}" cx="{:.1f}" cy="{:.1f}" r="3.5"><title>{}: {}</title></circle>'
            parts.append(Markup(mark).format(style_of(index), *at, line.name, text))
    return _picture(axes, title, parts)


def histogram(
    centres: Sequence[float], counts: Sequence[Sequence[int]], x_name: str, y_name: str, title: str
) -> Markup:
    """Draw histograms over each other.

    Args:
        centres: of the bins, which have one width.
        counts: of each series, one a bin.
        x_name: of the axis of the bins.
        y_name: of the axis of the counts.
        title: accessible description of the picture for screen readers.
    """
    width = centres[1] - centres[0]
    most = max(1, *(max(row) for row in counts))
    axes = Axes(x_name, y_name, (centres[0] - width / 2, centres[-1] + width / 2), (0, 1.05 * most))
    parts = []
    for index, row in enumerate(counts):
        outline = [(centres[0] - width / 2, 0.0)]
        for centre, count in zip(centres, row, strict=True):
            outline += [(centre - width / 2, count), (centre + width / 2, count)]
        outline.append((centres[-1] + width / 2, 0.0))
        path = _path(axes.place(point) for point in outline)
        parts.append(Markup('<path class="area {}" d="{}"/>').format(style_of(index), path))
    return _picture(axes, title, parts, whole=True)


def ticks(low: float, high: float, count: int = 6, smallest: float = 0.0) -> Iterator[float]:
    """Yield round numbers from `low` to `high`, at most about `count` of them, steps of `smallest` or more apart."""
    rough = max((high - low) / count, smallest)
    power = 10 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough * (1 - 1e-9))
    for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        yield number * step


def _path(points: Iterable[Point]) -> str:
    """Return the `d` attribute of a path; empty without points."""
    return "".join(f"{'L' if index else 'M'}{x:.1f} {y:.1f}" for index, (x, y) in enumerate(points))


def _picture(axes: Axes, title: str, parts: Sequence[Markup], whole: bool = False) -> Markup:
    """A picture with grid, numbers (`whole` ones upwards) and names of the axes, and `parts` on it."""
    grid = []
    for x in ticks(*axes.x_range):
        at, bottom = axes.place((x, axes.y_range[0]))
        grid.append(Markup('<text x="{:.1f}" y="{:.1f}" class="middle">{:g}</text>').format(at, bottom + 16, x))
    for y in ticks(*axes.y_range, smallest=1.0 if whole else 0.0):
        left, at = axes.place((axes.x_range[0], y))
        grid.append(Markup('<line x1="{:.1f}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(left, WIDTH - RIGHT, at, at))
        grid.append(Markup('<text x="{:.1f}" y="{:.1f}" class="end">{:g}</text>').format(left - 6, at + 4, y))
    x, y = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    grid.append(Markup('<text x="{:.1f}" y="{}" class="middle">{}</text>').format(x, HEIGHT - 6, axes.x_name))
    name = '<text x="12" y="{:.1f}" class="middle" transform="rotate(-90 12 {:.1f})">{}</text>'
    grid.append(Markup(name).format(y, y, axes.y_name))
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">\n{}\n</svg>').format(
        WIDTH, HEIGHT, title, Markup("\n").join([*grid, *parts])
    )
