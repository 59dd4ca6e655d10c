"""Synthetic infrared backgrounds: sky, clouds, sea and ground from random fields with power-law spectra.

A background is radiance (H,W) float32 in grey levels, about 0..255, before the sensor adds its faults.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Shape = tuple[int, int]


def power_law(
    rng: np.random.Generator, shape: Shape, slope: float, stretch: float = 1.0, tile: bool = False
) -> np.ndarray:
    """A Gaussian random field whose power falls with spatial frequency as f^-slope.

    Args:
        rng: the source of randomness.
        shape: (H,W).
        slope: 0 is white noise, 2 is rough ground, 3 to 4 is cloud.
        stretch: ratio of the width of structures to their height.
        tile: whether the field wraps around at its borders; otherwise it is cut from a larger one.

    Returns:
        (H,W) float32 of mean 0 and standard deviation 1.
    """
    height, width = shape if tile else (shape[0] * 3 // 2, shape[1] * 3 // 2)
    rows = np.fft.fftfreq(height)[:, None]
    columns = np.fft.rfftfreq(width)[None] * stretch
    frequency = np.sqrt(rows**2 + columns**2)
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((height, width))) * frequency ** (-slope / 2)
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, (height, width))[: shape[0], : shape[1]]
    standardised: np.ndarray = ((field - field.mean()) / field.std()).astype(np.float32)
    return standardised


def smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth in between."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def warp(rng: np.random.Generator, image: np.ndarray, reach: float, slope: float = 3.5) -> np.ndarray:
    """Displace pixels by a smooth random flow of `reach` pixels (standard deviation), into billows and wisps."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    rows += reach * power_law(rng, image.shape, slope)
    columns += reach * power_law(rng, image.shape, slope)
    return cv2.remap(image, columns, rows, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)


def clear_sky(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """A calm sky that brightens in some direction, with faint structure and sometimes the glow of the sun."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] / np.array(shape)[:, None, None] - 0.5
    angle = rng.normal(np.pi / 2, 0.5)
    ramp = rows * np.sin(angle) + columns * np.cos(angle)
    sky: np.ndarray = rng.uniform(30, 140) + rng.uniform(0, 60) * ramp
    sky += rng.uniform(0.3, 3.5) * power_law(rng, shape, rng.uniform(3, 4), rng.uniform(1, 2.5))
    if rng.random() < 0.2:
        centre = rng.uniform(-0.7, 0.7, 2)
        centre[np.abs(centre).argmax()] = rng.choice([-0.6, 0.6])
        distance = np.hypot(rows - centre[0], columns - centre[1])
        sky += rng.uniform(60, 150) * np.exp(-((distance / rng.uniform(0.15, 0.4)) ** 1.5))
    sky = sky.astype(np.float32)
    return sky


def clouds(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """A sky with one kind of cloud: heaps with hard edges, veils or wisps."""
    sky = clear_sky(rng, shape)
    kind = rng.choice(["heaps", "veils", "wisps"])
    stretch = {"heaps": rng.uniform(1, 1.8), "veils": rng.uniform(1.5, 3), "wisps": rng.uniform(2, 4)}[kind]
    field = power_law(rng, shape, rng.uniform(3.2, 4.0), stretch)
    if kind == "wisps":
        streaks = power_law(rng, shape, 3.0, 3 * stretch)
        field = warp(rng, 0.7 * field + 0.35 * streaks, rng.uniform(8, 20))
    else:
        field = warp(rng, field, rng.uniform(3, 10), 2.8)
    threshold = float(np.quantile(field, rng.uniform(0.35, 0.85)))
    softness = {"heaps": rng.uniform(0.15, 0.4), "veils": rng.uniform(1.0, 2.0), "wisps": rng.uniform(0.8, 1.6)}[kind]
    cover = smoothstep(field, threshold, threshold + softness)
    lit = 0.65 + 0.25 * np.clip(field - threshold, 0, 2) / 2 + 0.1 * power_law(rng, shape, 3.2)
    strength = rng.uniform(70, 190) if kind == "heaps" else rng.uniform(40, 150)
    return sky + strength * cover * lit


def perspective(rng: np.random.Generator, shape: Shape, horizon: int, slope: float, stretch: float) -> np.ndarray:
    """A rough plane up to a horizon: its structures become smaller and fainter with distance.

    Returns:
        (H - horizon, W) float32, of standard deviation about 1 in the foreground.
    """
    side = 512
    texture = power_law(rng, (side, side), slope, stretch, tile=True)
    below = shape[0] - horizon
    rows = np.arange(below, dtype=np.float32)[:, None] + 0.12 * below + 2
    nearness = rows / rows[-1]
    columns = np.arange(shape[1], dtype=np.float32)[None] - shape[1] / 2
    across = (columns / nearness).astype(np.float32)
    away = np.broadcast_to(shape[0] * 0.6 / nearness, across.shape).astype(np.float32)
    offset = rng.uniform(0, side, 2).astype(np.float32)
    plane = cv2.remap(
        texture, np.mod(across + offset[0], side), np.mod(away + offset[1], side), cv2.INTER_LINEAR, None,
        cv2.BORDER_WRAP,
    )  # fmt: skip
    fading: np.ndarray = plane * nearness**0.7
    return fading


def sea(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Waves with glints up to a horizon, perhaps with land far off; or the open sea from above."""
    if rng.random() < 0.25:
        waves = power_law(rng, shape, rng.uniform(1.8, 2.6), rng.uniform(1.5, 3.5))
        return rng.uniform(60, 110) + rng.uniform(6, 14) * (waves + 0.8 * np.clip(waves - 1.6, 0, None))
    horizon = int(shape[0] * rng.uniform(0.2, 0.6))
    scene = clouds(rng, shape) if rng.random() < 0.3 else clear_sky(rng, shape)
    level = float(np.clip(scene[horizon].mean() + rng.normal(0, 22), 40, 170))
    waves = 0.8 * perspective(rng, shape, horizon, rng.uniform(1.2, 2.0), rng.uniform(2, 4))
    waves += 0.4 * perspective(rng, shape, horizon, 2.4, 4)
    glints = np.clip(waves - rng.uniform(0.9, 1.3), 0, None)
    shade = np.linspace(0, rng.uniform(-25, 15), shape[0] - horizon)[:, None]
    if rng.random() < 0.5:
        ridge = _ridge(rng, shape, horizon, rng.uniform(0.0, 0.05), 3.0)
        scene = _in_front(scene, ridge, level + rng.uniform(-5, 30))
    scene[horizon:] = level + shade + rng.uniform(4, 11) * waves + rng.uniform(10, 35) * glints
    return scene


def ground(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Fields and hills to a horizon under a sky; or country seen from above."""
    if rng.random() < 0.3:
        return _from_above(rng, shape)
    horizon = int(shape[0] * rng.uniform(0.35, 0.75))
    scene = clouds(rng, shape) if rng.random() < 0.35 else clear_sky(rng, shape)
    level = float(np.clip(scene[horizon].mean() + rng.normal(15, 30), 50, 180))
    for distance in (0.1, 0.04)[: rng.integers(1, 3)]:
        scene = _in_front(scene, _ridge(rng, shape, horizon, distance, 3.2), level - 120 * distance)
    rough = perspective(rng, shape, horizon, rng.uniform(1.8, 2.4), 1.5)
    plots = perspective(rng, shape, horizon, 3.0, 1.2)
    plots = smoothstep(plots, -0.15, 0.15) + 0.6 * smoothstep(plots, 0.6, 0.75)
    plain = level + rng.uniform(10, 28) * (plots - 0.5) + rng.uniform(5, 12) * rough
    scene[horizon:] = plain
    return scene


def treetops(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """A sky over the crowns of trees or the roofs of a town."""
    scene = clouds(rng, shape) if rng.random() < 0.35 else clear_sky(rng, shape)
    if rng.random() < 0.5:
        ridge = _ridge(
            rng, shape, int(shape[0] * rng.uniform(0.65, 0.9)), rng.uniform(0.04, 0.12), rng.uniform(1.7, 2.5)
        )
    else:
        ridge = _roofs(rng, shape)
    level = float(np.clip(scene.mean() + rng.choice([-1, 1], p=[0.3, 0.7]) * rng.uniform(25, 80), 15, 225))
    leaves = power_law(rng, shape, rng.uniform(1.8, 2.4))
    front = level + rng.uniform(3, 12) * leaves + rng.uniform(0, 12) * power_law(rng, shape, 3.2)
    return _in_front(scene, ridge, front)


def _from_above(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    patches = warp(rng, power_law(rng, shape, 3.2), 4, 2.5)
    scene = rng.uniform(60, 130) + rng.uniform(8, 25) * (smoothstep(patches, -0.2, 0.2) + 0.3 * patches)
    scene = scene + rng.uniform(4, 10) * power_law(rng, shape, rng.uniform(1.8, 2.4))
    for _ in range(rng.integers(0, 3)):  # roads
        road = np.zeros(shape, np.float32)
        course = np.cumsum(rng.normal(0, 8, 12)) + rng.uniform(0, shape[0])
        knots = np.stack([np.linspace(-10, shape[1] + 10, 12), course], axis=1)
        cv2.polylines(road, [np.rint(knots).astype(np.int32)], False, 1.0, int(rng.integers(1, 4)))
        scene += rng.uniform(-25, 35) * cv2.GaussianBlur(road, (0, 0), 0.8)
    return scene.astype(np.float32)


def _ridge(rng: np.random.Generator, shape: Shape, base: int, height: float, slope: float) -> np.ndarray:
    """Rows (W,) of a fractal skyline that rises above row `base` by about a share `height` of the image."""
    line = power_law(rng, (2, shape[1]), slope)[0]
    rows: np.ndarray = base - shape[0] * height * (1 + 0.6 * line)
    return rows


def _roofs(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Rows (W,) of a skyline of blocks."""
    rows, column = np.empty(shape[1]), 0
    while column < shape[1]:
        width = int(rng.integers(8, max(10, shape[1] // 5)))
        rows[column : column + width] = shape[0] * rng.uniform(0.7, 0.93)
        if rng.random() < 0.3:  # a mast or chimney
            at = min(column + int(rng.integers(1, width)), shape[1] - 1)
            rows[at : at + int(rng.integers(1, 4))] -= shape[0] * rng.uniform(0.02, 0.1)
        column += width
    return rows


def _in_front(scene: np.ndarray, skyline: np.ndarray, front: np.ndarray | float) -> np.ndarray:
    """Cover a scene with `front` from its skyline downwards, with an edge one pixel wide."""
    cover = np.clip(np.arange(len(scene))[:, None] - skyline[None] + 0.5, 0, 1)
    covered: np.ndarray = (scene + cover * (front - scene)).astype(np.float32)
    return covered


BACKGROUNDS: dict[str, Callable[[np.random.Generator, Shape], np.ndarray]] = {
    "sky": clear_sky,
    "clouds": clouds,
    "sea": sea,
    "ground": ground,
    "treetops": treetops,
}
