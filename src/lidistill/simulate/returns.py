"""From hits to returns: range noise, intensity, and lost returns."""

from __future__ import annotations

import numpy as np

from lidistill.simulate.ground import Ground
from lidistill.simulate.primitives import CYLINDER, ELLIPSOID, Primitives
from lidistill.simulate.raycast import GROUND, Hits
from lidistill.simulate.sensor import RayGrid
from lidistill.simulate.simulator_settings import SimulatorSettings

ASPHALT, PAVEMENT, MARKING = 0.2, 0.32, 0.8
# At this range, a surface of reflectance 0.1 that faces the sensor returns with a probability of 1 - 1/e.
DARK_RANGE_M = 75.0


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
    tangent, azimuth = grid.tangent[beam], grid.azimuth[column]
    slant = np.sqrt(1 + tangent**2)
    direction = np.stack([np.cos(azimuth), np.sin(azimuth), tangent], axis=-1)
    spot = direction * distance[:, None]
    reach = distance * slant

    reflectance = np.empty(len(beam))
    incidence = np.empty(len(beam))  # cosine between the ray and the surface normal
    loss = np.zeros(len(beam))
    floor = np.flatnonzero(primitive == GROUND)
    reflectance[floor] = _ground_reflectance(ground, spot[floor])
    incidence[floor] = np.abs(tangent[floor]) / slant[floor]
    rest = np.flatnonzero(primitive >= 0)
    solid = primitive[rest]
    reflectance[rest], loss[rest] = primitives.reflectance[solid], primitives.loss[solid]
    incidence[rest] = _incidence(primitives, solid, spot[rest], direction[rest] / slant[rest, None])

    # LiDAR equation: the returned power is proportional to reflectance * cosine / range^2. The weaker a return, the
    # likelier it is lost.
    signal = reflectance * (0.1 + 0.9 * incidence) / 0.1 * (DARK_RANGE_M / np.maximum(reach, 1.0)) ** 2
    draws = rng.random((3, len(beam)))
    heard = (
        draws[0] >= np.exp(-signal / settings.signal_loss)
        if settings.signal_loss > 0
        else np.ones(len(beam), dtype=bool)
    )
    kept = heard & (draws[1] >= settings.random_loss) & (draws[2] >= loss)
    noisy = reach + settings.range_noise_m * rng.standard_normal(len(beam))
    kept &= (noisy >= settings.lidar.min_range_m) & (noisy <= settings.lidar.max_range_m)
    # Scanners compensate intensity for range, and partly for the angle of incidence, so it mostly shows reflectance.
    intensity = reflectance * (0.35 + 0.65 * incidence) + 0.03 * rng.standard_normal(len(beam))
    points = np.concatenate([direction * (noisy / slant)[:, None], np.clip(intensity, 0.0, 1.0)[:, None]], axis=-1)
    thing = np.full(len(beam), -1, dtype=np.int64)
    thing[rest] = primitives.thing[solid]
    return points[kept].astype(np.float32), thing[kept]


def _ground_reflectance(ground: Ground, spot: np.ndarray) -> np.ndarray:
    """Reflectance at points on the ground (K, 3): asphalt, pavement, or the dashed centre line; (K,)."""
    along, across = ground.road_coordinates(spot[:, 0], spot[:, 1])
    reflectance = np.where(ground.on_road(spot[:, 0], spot[:, 1]), ASPHALT, PAVEMENT)
    return np.where((np.abs(across) < 0.1) & (along % 9.0 < 4.0), MARKING, reflectance)


def _incidence(primitives: Primitives, solid: np.ndarray, spot: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Cosine of the angle between each ray and the surface normal: (K,). Porous solids (leaves, wire) have 0.8."""
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
