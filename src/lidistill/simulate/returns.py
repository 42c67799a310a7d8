"""From hits to returns: range noise, intensity, and lost returns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lidistill.simulate.ground import Ground
from lidistill.simulate.primitives import CYLINDER, ELLIPSOID, Primitives
from lidistill.simulate.raycast import GROUND, Hits
from lidistill.simulate.sensor import RayGrid
from lidistill.simulate.simulator_settings import SimulatorSettings

ASPHALT, PAVEMENT, MARKING = 0.3, 0.33, 0.75
# At this range, a surface of reflectance 0.1 that faces the sensor returns with a probability of 1 - 1/e.
DARK_RANGE_M = 75.0
# Fitted to the intensities of KITTI's training frames by distance, for cars and for everything else: what is subtracted
# from the intensity of rough and of glossy surfaces, and how much more of both is lost beyond FADES_FROM_M. A third of
# the returns of cars read zero here, and nearly half on KITTI.
THRESHOLD, GLOSSY_THRESHOLD = 0.02, 0.07
FADES_FROM_M, FADES_OVER_M, FADES_BY = 19.0, 14.0, 0.3
TEXTURE = 0.3  # standard deviation of the intensity of one surface, as a share of it


class _Surfaces(NamedTuple):
    """What the rays hit, one entry per ray: (K,) each, float32."""

    reflectance: np.ndarray
    incidence: np.ndarray  # cosine of the angle between the ray and the surface normal; 1 on the rough ground
    loss: np.ndarray
    gloss: np.ndarray


def returns(
    hits: Hits,
    primitives: Primitives,
    ground: Ground,
    grid: RayGrid,
    settings: SimulatorSettings,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """The points of a scan, (P, 4) float32 x y z intensity, and the row of each point's labelled thing, (P,) int64, -1
    for none. Points are ordered by beam, top beam first, then by column.
    """
    beam, column = np.nonzero(np.isfinite(hits.distance))
    distance, primitive = hits.distance[beam, column], hits.primitive[beam, column]
    slant = np.sqrt(1 + grid.tangent**2)[beam]
    direction = np.stack([np.cos(grid.azimuth)[column], np.sin(grid.azimuth)[column], grid.tangent[beam]], axis=-1)
    spot, reach = direction * distance[:, None], distance * slant
    floor, rest = np.flatnonzero(primitive == GROUND), np.flatnonzero(primitive >= 0)
    solid = primitive[rest]
    on_road = ground.on_road(spot[floor, 0], spot[floor, 1])

    surfaces = _Surfaces(*np.zeros((4, len(beam)), dtype=np.float32))
    surfaces.reflectance[floor] = _ground_reflectance(ground, spot[floor], on_road)
    surfaces.incidence[floor] = 1
    surfaces.reflectance[rest] = primitives.reflectance[solid]
    surfaces.incidence[rest] = _incidence(primitives, solid, spot[rest], direction[rest] / slant[rest, None])
    surfaces.loss[rest] = primitives.loss[solid]
    surfaces.gloss[rest] = primitives.gloss[solid]

    range_m = reach.astype(np.float32)
    kept = _returned(surfaces, range_m, settings, rng)
    reach += settings.range_noise_m * rng.standard_normal(len(beam), dtype=np.float32)
    kept &= (reach >= settings.lidar.min_range_m) & (reach <= settings.lidar.max_range_m)
    points = np.empty((len(beam), 4), dtype=np.float32)
    points[:, :3] = direction * (reach / slant)[:, None]
    points[:, 3] = _intensity(surfaces, range_m, rng)
    stones = np.abs(rng.standard_normal(len(floor), dtype=np.float32))
    points[floor, 2] += np.where(on_road, *ground.roughness).astype(np.float32) * stones
    thing = np.full(len(beam), -1, dtype=np.int64)
    thing[rest] = primitives.thing[solid]
    return points[kept], thing[kept]


def _returned(
    surfaces: _Surfaces, range_m: np.ndarray, settings: SimulatorSettings, rng: np.random.Generator
) -> np.ndarray:
    """Which rays return: (K,) bool.

    By the LiDAR equation, the returned power is proportional to reflectance * cosine / range^2; the weaker it is, the
    likelier the return is lost. Glossy surfaces throw most of the light elsewhere: their power is fitted to the number
    of returns of cars on KITTI's training frames, by distance.
    """
    draws = rng.random((3, len(range_m)), dtype=np.float32)
    kept = (draws[0] >= settings.random_loss) & (draws[1] >= surfaces.loss)
    if settings.signal_loss > 0:
        rough = surfaces.reflectance * (0.1 + 0.9 * surfaces.incidence)
        glossy = (0.15 + 0.6 * surfaces.reflectance) * (0.04 + 0.04 * surfaces.incidence)
        power = rough + surfaces.gloss * (glossy - rough)
        signal = power / 0.1 * np.square(DARK_RANGE_M / np.maximum(range_m, 1))
        kept &= draws[2] >= np.exp(-signal / np.float32(settings.signal_loss))
    return kept


def _intensity(surfaces: _Surfaces, range_m: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Intensities in [0, 1]: (K,).

    Scanners compensate for range up to a point, and rough surfaces look the same from every side, so it mostly shows
    reflectance.
    """
    gloss = surfaces.gloss
    seen = surfaces.reflectance * (0.6 - 0.45 * gloss + (0.4 + 0.45 * gloss) * surfaces.incidence)
    seen *= 1 + TEXTURE * rng.standard_normal(len(range_m), dtype=np.float32)
    seen -= THRESHOLD + (GLOSSY_THRESHOLD - THRESHOLD) * gloss
    seen -= FADES_BY * (1 - np.exp(np.minimum(FADES_FROM_M - range_m, 0) / FADES_OVER_M))
    return np.clip(seen, 0, 1)


def _ground_reflectance(ground: Ground, spot: np.ndarray, on_road: np.ndarray) -> np.ndarray:
    """Reflectance at points on the ground (K, 3): asphalt, pavement, or the dashed centre line; (K,)."""
    along, across = ground.road_coordinates(spot[:, 0], spot[:, 1])
    marked = (np.abs(across) < 0.1) & (along % 9.0 < 4.0)
    return np.where(marked, MARKING, np.where(on_road, ASPHALT, PAVEMENT))


def _incidence(primitives: Primitives, solid: np.ndarray, spot: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Cosine of the angle between each ray and the surface normal: (K,). Porous solids (leaves, wire) have 0.8; the
    sides of tapered boxes count as upright."""
    centre, half, yaw = primitives.centre[solid], primitives.half[solid], primitives.yaw[solid]
    cos, sin = np.cos(yaw), np.sin(yaw)
    offset = spot - centre
    local = (
        np.stack(
            [cos * offset[:, 0] + sin * offset[:, 1], cos * offset[:, 1] - sin * offset[:, 0], offset[:, 2]], axis=-1
        )
        / half
    )
    ray = np.stack(
        [cos * direction[:, 0] + sin * direction[:, 1], cos * direction[:, 1] - sin * direction[:, 0], direction[:, 2]],
        axis=-1,
    )
    kind = primitives.kind[solid]
    face = np.abs(local).argmax(axis=1)
    flat = np.abs(ray[np.arange(len(ray)), face])
    lid = np.abs(local[:, 2]) > 0.999
    normal = local / half
    normal[:, 2] = np.where(kind == CYLINDER, 0.0, normal[:, 2])
    curved = np.abs((normal * ray).sum(axis=1)) / np.maximum(np.linalg.norm(normal, axis=1), 1e-9)
    curved = np.where((kind == CYLINDER) & lid, np.abs(ray[:, 2]), curved)
    cosine = np.where((kind == CYLINDER) | (kind == ELLIPSOID), curved, flat)
    return np.where(primitives.density[solid] > 0, 0.8, cosine)
