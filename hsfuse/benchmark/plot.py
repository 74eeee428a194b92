"""Accuracy against time as inline SVG: colours from the page's style, shapes that differ, names beside the points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 84, 12, 42
#: Colours of the style (custom properties --m0, --m1, ...) and shapes: together they tell 24 methods apart.
COLOURS = 6
SHAPES = ("circle", "square", "diamond", "triangle")
#: Size of a line and mean width of a letter of the names, in the picture's units.
LINE_HEIGHT, LETTER = 13, 6.6
TICKS = 5


@dataclass(frozen=True)
class Point:
    """A method's seconds and value; `index` is its place among the methods, for colour and shape."""

    label: str
    index: int
    seconds: float
    value: float


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` on pixels from `start` to `end`, evenly or by their logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Pixel of a value."""
        low, high, v = (
            (math.log10(x) for x in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        return self.start + (v - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values inside."""
        if self.log:
            exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            inside = [m * 10.0**n for n in exponents for m in (1, 2, 5) if self.low <= m * 10.0**n <= self.high]
            powers = [v for v in inside if math.log10(v).is_integer()]
            return powers if len(powers) > 2 else inside
        step = _round_step((self.high - self.low) / TICKS)
        return [n * step for n in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def _round_step(step: float) -> float:
    """1, 2 or 5 times a power of ten, not below the step."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= step * (1 - 1e-9))


def scatter(points: Sequence[Point], title: str, unit: str, *, higher: bool) -> str:
    """An SVG, time to the right on a logarithmic axis; the dashed line joins those that no other beats in both."""
    shown = [p for p in points if math.isfinite(p.value)]
    if not shown:
        return ""
    x = _time_axis([p.seconds for p in shown])
    y = _value_axis([p.value for p in shown])
    named = f"{title}{f', {unit}' if unit else ''} against seconds"
    listed = "; ".join(f"{p.label} {p.value:.4g} in {p.seconds:.3g} s" for p in shown)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{named}: {listed}")}">',
        *_frame(x, y),
        _front(shown, x, y, higher),
        *(_mark(p, x.at(p.seconds), y.at(p.value)) for p in shown),
        *_names(shown, x, y),
        f'<text x="{(x.start + x.end) / 2:.0f}" y="{HEIGHT - 4}" text-anchor="middle">seconds, fit and fuse</text>',
        "</svg>",
    ]
    return "\n".join(parts)


def _time_axis(seconds: Sequence[float]) -> Axis:
    low, high = max(min(seconds), 0.01), max(*seconds, 0.01)
    return Axis(low / 1.6, high * 1.6, LEFT, WIDTH - RIGHT, log=True)


def _value_axis(values: Sequence[float]) -> Axis:
    low, high = min(values), max(values)
    room = 0.1 * (high - low) or 0.05 * abs(high) or 1.0
    return Axis(low - room, high + room, HEIGHT - BOTTOM, TOP)


def _frame(x: Axis, y: Axis) -> list[str]:
    out = []
    for value in y.ticks():
        at = y.at(value)
        out.append(f'<line class="gridline" x1="{x.start}" x2="{x.end}" y1="{at:.1f}" y2="{at:.1f}"/>')
        out.append(f'<text x="{x.start - 6}" y="{at + 4:.1f}" text-anchor="end">{value:.6g}</text>')
    for value in x.ticks():
        at = x.at(value)
        out.append(f'<line class="gridline" x1="{at:.1f}" x2="{at:.1f}" y1="{y.end}" y2="{y.start}"/>')
        out.append(f'<text x="{at:.1f}" y="{y.start + 16}" text-anchor="middle">{value:g}</text>')
    out.append(f'<path class="axis" fill="none" d="M{x.start} {y.end}V{y.start}H{x.end}"/>')
    return out


def _front(points: Sequence[Point], x: Axis, y: Axis, higher: bool) -> str:
    """Line through the points than which no other is both faster and better."""
    best, line = -math.inf, []
    for p in sorted(points, key=lambda p: (p.seconds, -p.value if higher else p.value)):
        worth = p.value if higher else -p.value
        if worth > best:
            best = worth
            line.append(f"{x.at(max(p.seconds, 0.01)):.1f},{y.at(p.value):.1f}")
    return f'<polyline class="hair" fill="none" points="{" ".join(line)}"/>'


def _mark(point: Point, x: float, y: float) -> str:
    shape, r = SHAPES[(point.index + point.index // COLOURS) % len(SHAPES)], 5
    outlines = {
        "circle": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}"',
        "square": f'<rect x="{x - r + 0.5:.1f}" y="{y - r + 0.5:.1f}" width="{2 * r - 1}" height="{2 * r - 1}"',
        "diamond": f'<path d="M{x:.1f} {y - r - 1:.1f}l{r + 1} {r + 1}l{-r - 1} {r + 1}l{-r - 1} {-r - 1}z"',
        "triangle": f'<path d="M{x:.1f} {y - r - 1:.1f}l{r + 1} {2 * r}h{-2 * r - 2}z"',
    }
    told = escape(f"{point.label}: {point.value:.5g}, {point.seconds:.3g} s")
    return f'{outlines[shape]} style="fill:var(--m{point.index % COLOURS})"><title>{told}</title>{_CLOSE[shape]}'


_CLOSE = {"circle": "</circle>", "square": "</rect>", "diamond": "</path>", "triangle": "</path>"}


@dataclass(frozen=True)
class _Box:
    """A rectangle that a name or a mark takes up."""

    left: float
    right: float
    top: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        across = self.left < other.right and self.right > other.left
        return across and self.top < other.bottom and self.bottom > other.top


def _names(points: Sequence[Point], x: Axis, y: Axis) -> list[str]:
    """Names beside their points: on the first side where they cover nothing."""
    spots = [(x.at(p.seconds), y.at(p.value)) for p in points]
    taken = [_Box(a - 7, a + 7, b - 7, b + 7) for a, b in spots]
    out: list[str] = []
    for p, (a, b) in zip(points, spots, strict=True):
        sides = _sides(a, b, LETTER * len(p.label))
        anchor, box = next((s for s in sides if not any(s[1].meets(other) for other in taken)), sides[0])
        taken.append(box)
        at = {"start": box.left, "end": box.right, "middle": (box.left + box.right) / 2}[anchor]
        where = f'x="{at:.1f}" y="{box.bottom - 2:.1f}" text-anchor="{anchor}"'
        out.append(f'<text {where} class="name">{escape(p.label)}</text>')
    return out


def _sides(x: float, y: float, width: float) -> list[tuple[str, _Box]]:
    """Right, left, above and below a point: the text's anchor and its box."""
    half, gap = LINE_HEIGHT / 2, 9
    return [
        ("start", _Box(x + gap, x + gap + width, y - half, y + half)),
        ("end", _Box(x - gap - width, x - gap, y - half, y + half)),
        ("middle", _Box(x - width / 2, x + width / 2, y - 8 - LINE_HEIGHT, y - 8)),
        ("middle", _Box(x - width / 2, x + width / 2, y + 8, y + 8 + LINE_HEIGHT)),
    ]
