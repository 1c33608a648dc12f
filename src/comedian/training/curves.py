"""Learning curves: validation score against epoch, as numbers and as a picture."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from comedian.files import read_json

Curve = Sequence[tuple[float, float]]

METRIC = "eval_average_map_tight"

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 16, 44
# distinct for colour-blind readers too (Okabe and Ito; grey and brown for a ninth curve)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999", "#7f5539")


def read_curve(state: str | Path) -> list[tuple[float, float]]:
    """Read the `(epoch, score)` pairs of a finished run from its `trainer_state.json`; scores are fractions."""
    history = read_json(state)["log_history"]
    return [(entry["epoch"], entry[METRIC]) for entry in history if METRIC in entry]


def draw_curves(curves: Mapping[str, Curve], spreads: Mapping[str, Sequence[float]] | None = None) -> str:
    """Draw curves of average-mAP in percent against epochs as an SVG picture.

    Args:
        curves: name -> `(epoch, score)` pairs, scores as fractions.
        spreads: name -> half the height of a band around each of the curve's points.

    Returns:
        The picture's text.
    """
    points = [point for curve in curves.values() for point in curve] or [(1.0, 0.0)]
    # a run of a few steps may be evaluated in epoch 0 alone
    last_epoch = max(epoch for epoch, _ in points) or 1.0
    top = max(10, -(-int(100 * max(score for _, score in points) + 3) // 10) * 10)

    def place(epoch: float, score: float) -> str:
        x = LEFT + epoch / last_epoch * (WIDTH - LEFT - RIGHT)
        y = TOP + (1 - 100 * score / top) * (HEIGHT - TOP - BOTTOM)
        return f"{x:.1f},{y:.1f}"

    parts = [_frame(last_epoch, top, place)]
    for index, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[index % len(COLOURS)]
        if spreads and name in spreads:
            band = [place(epoch, score + spread) for (epoch, score), spread in zip(curve, spreads[name], strict=True)]
            low = [place(epoch, score - spread) for (epoch, score), spread in zip(curve, spreads[name], strict=True)]
            parts.append(f'<polygon points="{" ".join(band + low[::-1])}" fill="{colour}" opacity="0.15"/>')
        line = " ".join(place(*point) for point in curve)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        y = TOP + 18 * (index + 1)
        parts.append(f'<line x1="{LEFT + 12}" x2="{LEFT + 36}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{LEFT + 42}" y="{y + 4}">{escape(name)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="13">\n<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _frame(last_epoch: float, top: int, place) -> str:
    """Grid lines, numbers and names of the axes."""
    parts = []
    for percent in range(0, top + 1, 10):
        x, y = place(0, percent / 100).split(",")
        parts.append(f'<line x1="{x}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{float(y) + 4:.1f}" text-anchor="end">{percent}</text>')
    step = max(1, round(last_epoch / 10))
    for epoch in range(0, int(last_epoch) + 1, step):
        x, y = place(epoch, 0).split(",")
        parts.append(f'<text x="{x}" y="{float(y) + 18:.1f}" text-anchor="middle">{epoch}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">epoch of stage 3</text>')
    axis_y = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text x="14" y="{axis_y}" text-anchor="middle" transform="rotate(-90 14 {axis_y})">'
        "validation average-mAP, tight (%)</text>"
    )
    return "\n".join(parts)
