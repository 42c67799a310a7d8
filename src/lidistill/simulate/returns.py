"""From hits to returns: range noise, intensity, and lost returns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lidistill.simulate.ground import Ground
from lidistill.simulate.primitives import CYLINDER, Primitives
from lidistill.simulate.raycast import GROUND, Hits
from lidistill.simulate.sensor import RayGrid
from lidistill.simulate.simulator_settings import SimulatorSettings

ASPHALT, PAVEMENT, MARKING = 0.3, 0.33, 0.75
# At this range, a surface of reflectance 0.1 that faces the sensor returns with a probability of 1 - 1/e.
DARK_RANGE_M = 75.0
# Fitted to the intensities of KITTI's training frames by distance, for cars and for everything else: what is subtracted
# from the intensity of rough and of glossy surfaces, and how much more of both is lost beyond FADES_FROM_M.
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
    flat = np.flatnonzero(np.isfinite(hits.distance))
    beam, column = np.divmod(flat, grid.shape[1])
    primitive = hits.primitive.ravel()[flat]
    # Single precision from here on: a scan has tens of thousands of returns, precise to a few centimetres.
    distance = hits.distance.ravel()[flat].astype(np.float32)
    cos, sin = np.cos(grid.azimuth).astype(np.float32)[column], np.sin(grid.azimuth).astype(np.float32)[column]
    tangent, slant = grid.tangent.astype(np.float32)[beam], np.sqrt(1 + grid.tangent**2).astype(np.float32)[beam]
    range_m = distance * slant
    floor, rest = np.flatnonzero(primitive == GROUND), np.flatnonzero(primitive >= 0)
    solid = primitive[rest]
    along, across = ground.road_coordinates(cos[floor] * distance[floor], sin[floor] * distance[floor])
    on_road = ground.is_road(along, across)

    surfaces = _Surfaces(*np.zeros((4, len(flat)), dtype=np.float32))
    surfaces.reflectance[floor] = _ground_reflectance(along, across, on_road)
    surfaces.incidence[floor] = 1
    surfaces.reflectance[rest] = primitives.reflectance[solid]
    surfaces.incidence[rest] = _incidence(
        primitives, solid, distance[rest], (cos[rest], sin[rest], tangent[rest]), slant[rest]
    )
    surfaces.loss[rest] = primitives.loss[solid]
    surfaces.gloss[rest] = primitives.gloss[solid]

    kept = _returned(surfaces, range_m, settings, rng)
    reach = range_m + np.float32(settings.range_noise_m) * rng.standard_normal(len(flat), dtype=np.float32)
    kept &= (reach >= settings.lidar.min_range_m) & (reach <= settings.lidar.max_range_m)
    points = np.empty((len(flat), 4), dtype=np.float32)
    reach /= slant
    for axis, ray in enumerate((cos, sin, tangent)):
        np.multiply(ray, reach, out=points[:, axis])
    points[:, 3] = _intensity(surfaces, range_m, rng)
    stones = np.abs(rng.standard_normal(len(floor), dtype=np.float32))
    points[floor, 2] += np.where(on_road, *np.array(ground.roughness, dtype=np.float32)) * stones
    thing = np.full(len(flat), -1, dtype=np.int64)
    thing[rest] = primitives.thing[solid]
    kept_rows = np.flatnonzero(kept)
    return points[kept_rows], thing[kept_rows]


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


def _ground_reflectance(along: np.ndarray, across: np.ndarray, on_road: np.ndarray) -> np.ndarray:
    """Reflectance at points on the ground (K,): asphalt, pavement, or the dashed centre line."""
    marked = (np.abs(across) < 0.1) & (along % 9.0 < 4.0)
    return np.where(marked, MARKING, np.where(on_road, ASPHALT, PAVEMENT))


def _incidence(
    primitives: Primitives,
    solid: np.ndarray,
    distance: np.ndarray,
    ray: tuple[np.ndarray, np.ndarray, np.ndarray],
    slant: np.ndarray,
) -> np.ndarray:
    """Cosine of the angle between each ray and the surface normal: (K,) float32.

    `ray` is its direction x y z, of length `slant`. Porous solids (leaves, wire) have 0.8; the sides of tapered boxes
    count as upright.
    """
    # The rays in the axes of their solids, in which its half extents are 1.
    half_x, half_y, half_z = primitives.half.T.astype(np.float32)[:, solid]
    centre_x, centre_y, centre_z = primitives.centre.T.astype(np.float32)[:, solid]
    cos = np.cos(primitives.yaw).astype(np.float32)[solid]
    sin = np.sin(primitives.yaw).astype(np.float32)[solid]
    ray_x, ray_y, ray_z = cos * ray[0] + sin * ray[1], cos * ray[1] - sin * ray[0], ray[2]
    x = (distance * ray_x - cos * centre_x - sin * centre_y) / half_x
    y = (distance * ray_y + sin * centre_x - cos * centre_y) / half_y
    z = (distance * ray_z - centre_z) / half_z
    kind = primitives.kind[solid]
    # flat faces: the one that the spot is nearest to
    out_x, out_y, out_z = np.abs(x), np.abs(y), np.abs(z)
    on_lid = (out_z > out_x) & (out_z > out_y)
    cosine = np.abs(np.where(on_lid, ray_z, np.where(out_x >= out_y, ray_x, ray_y)))
    round_rows = np.flatnonzero(kind >= CYLINDER)
    x, y, z, ray_x, ray_y, ray_z, half_x, half_y, half_z = (
        values[round_rows] for values in (x, y, z, ray_x, ray_y, ray_z, half_x, half_y, half_z)
    )
    upright = kind[round_rows] == CYLINDER
    normal_x, normal_y, normal_z = x / half_x, y / half_y, np.where(upright, 0, z / half_z)
    length = np.sqrt(normal_x * normal_x + normal_y * normal_y + normal_z * normal_z)
    curved = np.abs(normal_x * ray_x + normal_y * ray_y + normal_z * ray_z) / np.maximum(length, 1e-9)
    cosine[round_rows] = np.where(upright & (np.abs(z) > 0.999), np.abs(ray_z), curved)
    return np.where(primitives.density[solid] > 0, np.float32(0.8), cosine / slant)
