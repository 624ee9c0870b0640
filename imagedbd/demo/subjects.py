"""What the demo's pictures can show: one small drawing function for each subject."""

from __future__ import annotations

from collections.abc import Callable

from imagedbd.demo.outlines import (
    arc,
    box,
    circle,
    ellipse,
    heart,
    mirrored,
    moved,
    rounded_box,
    star,
    turned,
)
from imagedbd.demo.palette import Tone
from imagedbd.demo.sketch import Sketch

Drawing = Callable[[Sketch], None]


def _circle(s: Sketch) -> None:
    s.fill(circle(0, 0, 0.85))


def _square(s: Sketch) -> None:
    s.fill(box(-0.75, -0.75, 0.75, 0.75))


def _triangle(s: Sketch) -> None:
    s.fill([(0, -0.85), (0.92, 0.75), (-0.92, 0.75)])


def _star(s: Sketch) -> None:
    s.fill(star(5, 1.0, 0.42))


def _heart(s: Sketch) -> None:
    s.fill(heart())


def _cross(s: Sketch) -> None:
    s.fill(box(-0.28, -0.9, 0.28, 0.9), box(-0.9, -0.28, 0.9, 0.28))


def _arrow(s: Sketch) -> None:
    s.fill(
        [
            (0.95, 0),
            (0.2, -0.65),
            (0.2, -0.26),
            (-0.95, -0.26),
            (-0.95, 0.26),
            (0.2, 0.26),
            (0.2, 0.65),
        ]
    )


def _ring(s: Sketch) -> None:
    s.bar(0.34, arc((0, 0), 0.68, 0.68, 0, 360, points=49))


def _house(s: Sketch) -> None:
    s.fill(box(0.35, -0.85, 0.58, -0.3), tone=Tone.SHADE)
    s.fill(box(-0.72, -0.15, 0.72, 0.85))
    s.fill([(0, -0.95), (0.98, -0.1), (-0.98, -0.1)], tone=Tone.SHADE)
    s.fill(box(-0.5, 0.2, -0.08, 0.6), tone=Tone.PANE)
    s.pen(0.05, [(-0.29, 0.2), (-0.29, 0.6)], [(-0.5, 0.4), (-0.08, 0.4)])
    s.fill(box(0.18, 0.22, 0.52, 0.85), tone=Tone.DETAIL)


def _car(s: Sketch) -> None:
    s.fill(
        [
            (-0.98, 0.4),
            (-0.98, 0.02),
            (-0.62, -0.06),
            (-0.38, -0.52),
            (0.34, -0.52),
            (0.62, -0.06),
            (0.95, 0.04),
            (0.98, 0.4),
        ]
    )
    s.mark(
        [(-0.46, -0.08), (-0.3, -0.4), (-0.06, -0.4), (-0.06, -0.08)],
        [(0.06, -0.08), (0.06, -0.4), (0.26, -0.4), (0.46, -0.08)],
        tone=Tone.PANE,
    )
    for x in (-0.52, 0.54):
        s.fill(circle(x, 0.42, 0.24), tone=Tone.INK)
        s.mark(circle(x, 0.42, 0.11), tone=Tone.PANE)


def _bus(s: Sketch) -> None:
    s.fill(rounded_box(-0.98, -0.62, 0.98, 0.48, 0.14))
    for left in (-0.84, -0.4, 0.04, 0.48):
        s.mark(box(left, -0.42, left + 0.34, -0.04), tone=Tone.PANE)
    s.mark(box(-0.96, 0.12, 0.96, 0.22), tone=Tone.SHADE)
    for x in (-0.56, 0.56):
        s.fill(circle(x, 0.5, 0.2), tone=Tone.INK)
        s.mark(circle(x, 0.5, 0.09), tone=Tone.PANE)


def _boat(s: Sketch) -> None:
    s.bar(0.05, [(0, -0.9), (0, 0.4)], tone=Tone.INK)
    s.fill([(0.08, -0.9), (0.8, 0.22), (0.08, 0.22)])
    s.fill([(-0.08, -0.65), (-0.08, 0.22), (-0.62, 0.22)], tone=Tone.TINT)
    s.fill([(-0.95, 0.36), (0.98, 0.36), (0.62, 0.86), (-0.6, 0.86)])


def _bicycle(s: Sketch) -> None:
    for x in (-0.56, 0.56):
        s.bar(0.1, arc((x, 0.3), 0.36, 0.36, 0, 360, points=33))
    s.bar(
        0.1,
        [(-0.56, 0.3), (-0.22, -0.28), (0.38, -0.28), (0.02, 0.3), (-0.56, 0.3)],
        [(-0.28, -0.44), (0.02, 0.3)],
        [(0.56, 0.3), (0.34, -0.55), (0.58, -0.62)],
        [(-0.44, -0.46), (-0.12, -0.46)],
    )


def _airplane(s: Sketch) -> None:
    s.fill(
        ellipse(0, 0, 0.98, 0.17),
        [(0.22, 0), (-0.3, -0.92), (-0.5, -0.92), (-0.22, 0)],
        [(0.22, 0), (-0.3, 0.92), (-0.5, 0.92), (-0.22, 0)],
        [(-0.66, 0), (-0.86, -0.4), (-0.98, -0.4), (-0.92, 0)],
        [(-0.66, 0), (-0.86, 0.4), (-0.98, 0.4), (-0.92, 0)],
    )
    s.mark(ellipse(0.72, 0, 0.12, 0.09), tone=Tone.PANE)


def _rocket(s: Sketch) -> None:
    s.fill([(-0.14, 0.55), (0.14, 0.55), (0, 0.98)], tone=Tone.PANE)
    s.fill(
        [(-0.26, 0.05), (-0.66, 0.72), (-0.26, 0.56)],
        [(0.26, 0.05), (0.66, 0.72), (0.26, 0.56)],
        tone=Tone.SHADE,
    )
    nose = arc((0, -0.1), 0.34, 0.88, 180, 360, points=20)
    s.fill([*nose, (0.26, 0.58), (-0.26, 0.58)])
    s.fill(circle(0, -0.26, 0.15), tone=Tone.PANE)


def _umbrella(s: Sketch) -> None:
    hook = arc((0.17, 0.72), 0.17, 0.18, 180, 20, points=12)
    s.bar(0.07, [(0, -0.9), (0, 0.72), *hook], tone=Tone.SHADE)
    canopy = arc((0, 0.08), 0.95, 0.9, 180, 360, points=30)
    scallops = [
        point
        for x in (0.7125, 0.2375, -0.2375, -0.7125)
        for point in arc((x, 0.08), 0.2375, 0.14, 0, -180, points=9)
    ]
    s.fill([*canopy, *scallops])
    s.pen(0.04, [(0, -0.78), (-0.46, 0.06)], [(0, -0.78), (0.46, 0.06)])


def _cup(s: Sketch) -> None:
    s.bar(0.15, arc((0.48, 0.0), 0.36, 0.34, -90, 90, points=20))
    s.fill([(-0.75, -0.55), (0.55, -0.55), (0.42, 0.75), (-0.62, 0.75)])
    s.fill(ellipse(-0.1, -0.55, 0.65, 0.17), tone=Tone.SHADE)


def _key(s: Sketch) -> None:
    s.bar(0.2, arc((-0.55, 0), 0.32, 0.34, 0, 360, points=33), [(-0.2, 0), (0.92, 0)])
    s.bar(0.2, [(0.84, 0), (0.84, 0.34)], [(0.5, 0), (0.5, 0.28)])
    s.pen(0.2, [(-0.2, 0), (0.92, 0)], tone=Tone.BODY)


def _lamp(s: Sketch) -> None:
    s.fill(box(-0.06, 0.0, 0.06, 0.8), tone=Tone.SHADE)
    s.fill(ellipse(0, 0.82, 0.44, 0.13))
    s.fill([(-0.34, -0.9), (0.34, -0.9), (0.74, 0.1), (-0.74, 0.1)])


def _flag(s: Sketch) -> None:
    s.bar(0.09, [(-0.7, -0.92), (-0.7, 0.95)], tone=Tone.INK)
    s.fill(
        [
            (-0.62, -0.85),
            (-0.2, -0.95),
            (0.25, -0.78),
            (0.9, -0.9),
            (0.9, 0.02),
            (0.25, 0.14),
            (-0.2, -0.03),
            (-0.62, 0.08),
        ]
    )


def _balloon(s: Sketch) -> None:
    s.bar(
        0.04,
        [(0, 0.4), (0.08, 0.55), (-0.06, 0.72), (0.06, 0.86), (0, 0.98)],
        tone=Tone.INK,
    )
    s.fill([(0, 0.2), (0.13, 0.42), (-0.13, 0.42)])
    s.fill(ellipse(0, -0.32, 0.54, 0.65))
    s.mark(ellipse(-0.22, -0.55, 0.08, 0.18, 25), tone=Tone.PANE)


def _chair(s: Sketch) -> None:
    s.fill(
        box(-0.6, -0.95, -0.38, 0.95),
        box(-0.6, 0.05, 0.6, 0.27),
        box(0.38, 0.05, 0.6, 0.95),
    )
    s.fill(box(-0.6, -0.95, -0.38, 0.05), tone=Tone.BODY)
    s.fill(box(-0.22, 0.27, -0.06, 0.8), box(0.14, 0.27, 0.28, 0.8), tone=Tone.SHADE)
    s.fill(box(-0.66, -0.02, 0.68, 0.24))


def _clock(s: Sketch) -> None:
    s.fill(circle(0, 0, 0.92))
    s.fill(circle(0, 0, 0.56), tone=Tone.PANE)
    s.pen(0.08, [(0, 0), (0, -0.42)], [(0, 0), (0.3, 0.16)], tone=Tone.INK)


def _kite(s: Sketch) -> None:
    s.bar(0.04, [(0, 0.4), (0.18, 0.62), (-0.1, 0.78), (0.1, 0.98)], tone=Tone.INK)
    s.fill([(0, -0.98), (0.58, -0.3), (0, 0.52), (-0.58, -0.3)])
    s.pen(0.04, [(0, -0.98), (0, 0.52)], [(-0.58, -0.3), (0.58, -0.3)])
    for x, y in ((0.14, 0.64), (0.0, 0.86)):
        s.fill(
            [(x, y), (x - 0.2, y - 0.1), (x - 0.2, y + 0.1)],
            [(x, y), (x + 0.2, y - 0.1), (x + 0.2, y + 0.1)],
        )


def _hat(s: Sketch) -> None:
    s.fill(ellipse(0, 0.5, 0.98, 0.22))
    s.fill([(-0.5, -0.72), (0.5, -0.72), (0.56, 0.44), (-0.56, 0.44)])
    s.fill(ellipse(0, -0.7, 0.5, 0.12), tone=Tone.TINT)
    s.mark(
        [(-0.54, 0.1), (0.54, 0.1), (0.56, 0.4), (-0.56, 0.4)],
        tone=Tone.SHADE,
    )


def _bell(s: Sketch) -> None:
    s.bar(0.1, arc((0, -0.82), 0.12, 0.12, 0, 360, points=20))
    s.fill(circle(0, 0.72, 0.19), tone=Tone.SHADE)
    dome = arc((0, -0.12), 0.5, 0.6, 180, 360, points=20)
    s.fill([*dome, (0.6, 0.35), (0.86, 0.66), (-0.86, 0.66), (-0.6, 0.35)])
    s.pen(0.05, [(-0.62, 0.4), (0.62, 0.4)])


def _envelope(s: Sketch) -> None:
    s.fill(box(-0.95, -0.6, 0.95, 0.64))
    s.pen(0.06, [(-0.92, -0.57), (0, 0.14), (0.92, -0.57)])
    s.pen(0.06, [(-0.92, 0.6), (-0.26, -0.02)], [(0.92, 0.6), (0.26, -0.02)])


def _candle(s: Sketch) -> None:
    s.fill(
        [(0, -0.98), (0.15, -0.7), (0.1, -0.52), (-0.1, -0.52), (-0.15, -0.7)],
        tone=Tone.PANE,
    )
    s.fill(box(-0.26, -0.42, 0.26, 0.72))
    s.bar(0.04, [(0, -0.6), (0, -0.42)], tone=Tone.INK)
    s.fill(ellipse(0, 0.78, 0.62, 0.16), tone=Tone.SHADE)


def _anchor(s: Sketch) -> None:
    s.bar(
        0.17,
        arc((0, -0.68), 0.17, 0.17, 0, 360, points=20),
        [(0, -0.5), (0, 0.8)],
        [(-0.4, -0.25), (0.4, -0.25)],
        arc((0, 0.05), 0.75, 0.76, 5, 175, points=30),
    )
    s.fill(
        [(-0.98, 0.24), (-0.72, -0.18), (-0.48, 0.24)],
        [(0.98, 0.24), (0.72, -0.18), (0.48, 0.24)],
    )


def _cat(s: Sketch) -> None:
    s.fill(
        [(-0.82, -0.95), (-0.2, -0.52), (-0.74, -0.02)],
        [(0.82, -0.95), (0.2, -0.52), (0.74, -0.02)],
        ellipse(0, 0.12, 0.86, 0.72),
    )
    for side in (-1, 1):
        s.mark(ellipse(side * 0.34, -0.02, 0.1, 0.15))
        s.pen(
            0.04,
            [(side * 0.3, 0.34), (side * 0.78, 0.24)],
            [(side * 0.3, 0.42), (side * 0.78, 0.46)],
        )
    s.mark([(-0.1, 0.24), (0.1, 0.24), (0, 0.36)])
    s.pen(0.04, [(-0.18, 0.5), (0, 0.4), (0.18, 0.5)])


def _dog(s: Sketch) -> None:
    s.fill(ellipse(0, -0.02, 0.62, 0.76))
    for side in (-1, 1):
        s.fill(ellipse(side * 0.68, 0.0, 0.24, 0.6, side * -12), tone=Tone.SHADE)
        s.mark(circle(side * 0.24, -0.2, 0.1))
    s.fill(ellipse(0, 0.45, 0.4, 0.36), tone=Tone.TINT)
    s.mark(ellipse(0, 0.26, 0.18, 0.12))
    s.pen(0.05, [(0, 0.3), (0, 0.52)], arc((0, 0.46), 0.2, 0.16, 20, 160, points=12))


def _rabbit(s: Sketch) -> None:
    for side in (-1, 1):
        s.fill(ellipse(side * 0.28, -0.52, 0.19, 0.48, side * 10))
        s.mark(ellipse(side * 0.28, -0.5, 0.08, 0.32, side * 10), tone=Tone.SHADE)
    s.fill(ellipse(0, 0.4, 0.6, 0.56))
    for side in (-1, 1):
        s.mark(circle(side * 0.24, 0.26, 0.08))
    s.mark(ellipse(0, 0.46, 0.1, 0.07))
    s.mark(box(-0.1, 0.62, 0.1, 0.84), tone=Tone.PANE)


def _fish(s: Sketch) -> None:
    s.fill(
        ellipse(0.16, 0, 0.76, 0.5),
        [(-0.42, 0), (-0.96, -0.5), (-0.84, 0), (-0.96, 0.5)],
        [(-0.1, -0.4), (0.12, -0.76), (0.48, -0.36)],
    )
    s.mark(circle(0.58, -0.12, 0.09))
    s.pen(0.05, arc((0.16, 0), 0.2, 0.34, -70, 70, points=12))
    s.pen(0.05, arc((-0.18, 0), 0.2, 0.3, -70, 70, points=12))


def _whale(s: Sketch) -> None:
    s.fill(
        [
            (-0.5, 0.3),
            (-0.86, -0.2),
            (-0.98, -0.62),
            (-0.68, -0.42),
            (-0.5, -0.66),
            (-0.5, -0.3),
            (-0.2, 0.1),
        ],
        [*arc((0.18, 0.25), 0.78, 0.6, 180, 360, points=24), *arc((0.18, 0.25), 0.78, 0.42, 0, 180)],
    )
    s.mark(arc((0.22, 0.34), 0.66, 0.28, 5, 150, points=16), tone=Tone.TINT)
    s.mark(circle(0.62, 0.1, 0.07))
    s.bar(
        0.06,
        [(0.2, -0.48), (0.2, -0.66), (0.02, -0.86)],
        [(0.2, -0.66), (0.4, -0.86)],
        tone=Tone.PANE,
    )


def _bird(s: Sketch) -> None:
    s.bar(0.05, [(-0.1, 0.5), (-0.1, 0.92)], [(0.14, 0.5), (0.14, 0.92)], tone=Tone.INK)
    s.fill([(0.74, -0.5), (0.99, -0.36), (0.7, -0.26)], tone=Tone.PANE)
    s.fill(
        ellipse(-0.02, 0.16, 0.56, 0.44, -20),
        circle(0.48, -0.4, 0.33),
        [(-0.38, 0.1), (-0.98, 0.34), (-0.9, 0.58), (-0.3, 0.46)],
    )
    s.fill(ellipse(-0.14, 0.16, 0.36, 0.2, 22), tone=Tone.SHADE)
    s.mark(circle(0.56, -0.46, 0.07))


def _butterfly(s: Sketch) -> None:
    upper, lower = ellipse(-0.5, -0.36, 0.5, 0.4, 35), ellipse(-0.4, 0.42, 0.38, 0.34, -30)
    s.fill(upper, lower, mirrored(upper), mirrored(lower))
    for side in (-1, 1):
        s.mark(circle(side * 0.56, -0.38, 0.16), tone=Tone.PANE)
        s.mark(circle(side * 0.44, 0.44, 0.12), tone=Tone.PANE)
        s.bar(0.03, [(0, -0.5), (side * 0.2, -0.92)], tone=Tone.INK)
    s.fill(ellipse(0, 0, 0.09, 0.6), tone=Tone.INK)


def _snail(s: Sketch) -> None:
    s.bar(0.05, [(0.74, 0.2), (0.6, -0.3)], [(0.82, 0.2), (0.94, -0.28)], tone=Tone.SHADE)
    s.fill(
        [
            (-0.98, 0.78),
            (-0.5, 0.5),
            (0.5, 0.5),
            (0.6, 0.2),
            (0.78, 0.06),
            (0.98, 0.2),
            (0.92, 0.6),
            (0.7, 0.78),
        ],
        tone=Tone.TINT,
    )
    s.fill(circle(-0.14, 0.0, 0.62))
    spiral = [turned([(0.5 * (1 - index / 40), 0.0)], index * 20)[0] for index in range(36)]
    s.pen(0.07, moved(spiral, -0.14, 0.0))


def _turtle(s: Sketch) -> None:
    s.fill(
        ellipse(0.82, 0.16, 0.2, 0.2),
        box(0.4, 0.1, 0.8, 0.32),
        ellipse(-0.46, 0.56, 0.16, 0.26, 15),
        ellipse(0.42, 0.56, 0.16, 0.26, -15),
        [(-0.6, 0.3), (-0.98, 0.5), (-0.6, 0.5)],
        tone=Tone.SHADE,
    )
    s.fill([*arc((0, 0.42), 0.78, 0.92, 180, 360, points=28), (0.78, 0.46), (-0.78, 0.46)])
    s.pen(0.06, [(-0.76, 0.2), (0.76, 0.2)])
    s.pen(0.06, [(-0.3, 0.2), (-0.2, -0.42)], [(0.3, 0.2), (0.2, -0.42)])
    s.mark(circle(0.88, 0.12, 0.05))


def _crab(s: Sketch) -> None:
    for side in (-1, 1):
        for y in (0.3, 0.5, 0.68):
            s.bar(
                0.08,
                [(side * 0.4, y - 0.1), (side * 0.8, y), (side * 0.94, y + 0.18)],
                tone=Tone.SHADE,
            )
        s.bar(0.12, [(side * 0.5, 0.1), (side * 0.74, -0.3)])
        claw = arc((side * 0.68, -0.6), 0.28, 0.32, -60, 240, points=20)
        s.fill([*claw, (side * 0.68, -0.5)])
        s.bar(0.06, [(side * 0.18, 0.0), (side * 0.2, -0.26)])
    s.fill(ellipse(0, 0.26, 0.66, 0.42))
    for side in (-1, 1):
        s.mark(circle(side * 0.2, 0.14, 0.08))


def _tree(s: Sketch) -> None:
    s.fill(box(-0.15, 0.1, 0.15, 0.98), tone=Tone.SHADE)
    s.fill(
        circle(0, -0.52, 0.44),
        circle(-0.42, -0.16, 0.4),
        circle(0.42, -0.16, 0.4),
        circle(0, 0.02, 0.36),
    )


def _flower(s: Sketch) -> None:
    s.bar(0.07, [(0, 0), (0, 0.95)], tone=Tone.SHADE)
    s.fill(
        ellipse(-0.26, 0.66, 0.26, 0.11, 25),
        ellipse(0.26, 0.66, 0.26, 0.11, -25),
        tone=Tone.SHADE,
    )
    petal = ellipse(0, -0.34, 0.2, 0.28)
    s.fill(*(moved(turned(petal, 60 * k), 0, -0.34) for k in range(6)))
    s.fill(circle(0, -0.34, 0.18), tone=Tone.PANE)


def _mushroom(s: Sketch) -> None:
    s.fill([(-0.24, 0.0), (0.24, 0.0), (0.34, 0.88), (-0.34, 0.88)], tone=Tone.PANE)
    s.fill([*arc((0, 0.1), 0.95, 0.95, 180, 360, points=30), *arc((0, 0.1), 0.95, 0.14, 0, 180)])
    s.mark(
        circle(-0.44, -0.22, 0.14),
        circle(0.1, -0.5, 0.15),
        circle(0.5, -0.12, 0.13),
        tone=Tone.PANE,
    )


def _cactus(s: Sketch) -> None:
    s.bar(
        0.3,
        [(0, -0.72), (0, 0.5)],
        [(0, 0.12), (-0.58, 0.12), (-0.58, -0.3)],
        [(0, -0.06), (0.58, -0.06), (0.58, -0.5)],
    )
    s.fill([(-0.44, 0.46), (0.44, 0.46), (0.32, 0.96), (-0.32, 0.96)], tone=Tone.SHADE)


def _leaf(s: Sketch) -> None:
    s.bar(0.08, [(0, 0.4), (0, 0.98)], tone=Tone.SHADE)
    right = [(0, -0.98), (0.36, -0.6), (0.54, -0.14), (0.44, 0.34), (0, 0.66)]
    left = mirrored(right[-2:0:-1])
    s.fill([*right, *left])
    s.pen(
        0.05,
        [(0, -0.7), (0, 0.6)],
        [(-0.3, -0.3), (0, 0.0), (0.3, -0.3)],
        [(-0.3, 0.06), (0, 0.36), (0.3, 0.06)],
    )


def _apple(s: Sketch) -> None:
    s.bar(0.08, [(0, -0.4), (0.1, -0.85)], tone=Tone.INK)
    s.fill(ellipse(0.36, -0.74, 0.28, 0.13, -20), tone=Tone.SHADE)
    s.fill(ellipse(-0.32, 0.16, 0.5, 0.66, 8), ellipse(0.32, 0.16, 0.5, 0.66, -8))
    s.mark(ellipse(-0.46, -0.1, 0.09, 0.2, 20), tone=Tone.PANE)


def _mountain(s: Sketch) -> None:
    s.fill([(0.42, -0.34), (0.99, 0.78), (-0.2, 0.78)], tone=Tone.SHADE)
    s.fill([(-0.22, -0.82), (0.66, 0.78), (-0.99, 0.78)])
    s.mark(
        [(-0.22, -0.8), (0.0, -0.4), (-0.14, -0.46), (-0.24, -0.28), (-0.36, -0.44), (-0.47, -0.3)],
        tone=Tone.PANE,
    )


def _cloud(s: Sketch) -> None:
    s.bar(
        0.09,
        *([(x, 0.48), (x - 0.14, 0.86)] for x in (-0.42, 0.04, 0.5)),
        tone=Tone.BODY,
    )
    s.fill(
        circle(-0.5, 0.0, 0.36),
        circle(-0.06, -0.34, 0.46),
        circle(0.48, -0.06, 0.4),
        rounded_box(-0.84, 0.0, 0.86, 0.36, 0.17),
    )


def _lightning(s: Sketch) -> None:
    s.fill(
        [
            (0.24, -0.98),
            (-0.56, 0.14),
            (-0.08, 0.14),
            (-0.3, 0.98),
            (0.56, -0.22),
            (0.08, -0.22),
            (0.56, -0.98),
        ]
    )


def _snowflake(s: Sketch) -> None:
    arm = [(0.0, 0.0), (0.0, -0.9)]
    twig = [(-0.26, -0.78), (0.0, -0.5), (0.26, -0.78)]
    turns = [60 * k for k in range(6)]
    s.bar(0.13, *(turned(line, turn) for turn in turns for line in (arm, twig)))


def _sun(s: Sketch) -> None:
    ray = [(-0.14, -0.62), (0.14, -0.62), (0.0, -0.99)]
    s.fill(*(turned(ray, 45 * k) for k in range(8)))
    s.fill(circle(0, 0, 0.54))


def _moon(s: Sketch) -> None:
    outer = arc((0, 0), 0.92, 0.92, 50, 310, points=36)
    inner = arc((0.36, 0), 0.74, 0.74, 290, 70, points=30)
    s.fill([*outer, *inner])


SUBJECTS: dict[str, Drawing] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "cross": _cross,
    "arrow": _arrow,
    "ring": _ring,
    "house": _house,
    "car": _car,
    "bus": _bus,
    "boat": _boat,
    "bicycle": _bicycle,
    "airplane": _airplane,
    "rocket": _rocket,
    "umbrella": _umbrella,
    "cup": _cup,
    "key": _key,
    "lamp": _lamp,
    "flag": _flag,
    "balloon": _balloon,
    "chair": _chair,
    "clock": _clock,
    "kite": _kite,
    "hat": _hat,
    "bell": _bell,
    "envelope": _envelope,
    "candle": _candle,
    "anchor": _anchor,
    "cat": _cat,
    "dog": _dog,
    "rabbit": _rabbit,
    "fish": _fish,
    "whale": _whale,
    "bird": _bird,
    "butterfly": _butterfly,
    "snail": _snail,
    "turtle": _turtle,
    "crab": _crab,
    "tree": _tree,
    "flower": _flower,
    "mushroom": _mushroom,
    "cactus": _cactus,
    "leaf": _leaf,
    "apple": _apple,
    "mountain": _mountain,
    "cloud": _cloud,
    "lightning bolt": _lightning,
    "snowflake": _snowflake,
    "sun": _sun,
    "moon": _moon,
}


def sketch_of(subject: str) -> Sketch:
    """Return the drawing of a named subject in its unit box."""
    sketch = Sketch()
    SUBJECTS[subject](sketch)
    return sketch
