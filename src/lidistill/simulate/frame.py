"""One simulated frame: the street, its scan, and the ground truth of every labelled thing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lidistill.simulate.builder import Scene
from lidistill.simulate.motion import pose_matrix
from lidistill.simulate.raycast import cast
from lidistill.simulate.returns import returns
from lidistill.simulate.scene import build_scene
from lidistill.simulate.simulator_settings import SimulatorSettings

VISIBLE_SHARE, PARTLY_SHARE = 0.8, 0.4  # shares of an object's rays that bound the occlusion levels


@dataclass(frozen=True)
class SimulatedObjects:
    """The labelled things of a street, visible or not."""

    names: np.ndarray  # (N,) str, classes as KITTI names them
    geometry: np.ndarray  # (N, 7) float64 boxes in LiDAR axes, as an annotator draws them
    velocity: np.ndarray  # (N, 2) float64 over ground, in LiDAR axes, metres per second
    points: np.ndarray  # (N,) int64 returns in the scan
    rays_alone: np.ndarray  # (N,) int64 rays that would hit it if it stood alone
    rays_visible: np.ndarray  # (N,) int64 rays that hit it first
    occlusion: np.ndarray  # (N,) int64 0 visible, 1 partly, 2 largely hidden, 3 unknown: no ray would hit it even alone

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: np.ndarray | slice) -> SimulatedObjects:
        return SimulatedObjects(
            self.names[rows],
            self.geometry[rows],
            self.velocity[rows],
            self.points[rows],
            self.rays_alone[rows],
            self.rays_visible[rows],
            self.occlusion[rows],
        )


@dataclass(frozen=True)
class SimulatedScan:
    """Points and objects of one frame."""

    points: np.ndarray  # (P, 4) float32 x y z intensity in [0, 1]
    thing: np.ndarray  # (P,) int64 row of the object that the point lies on, -1 for none
    objects: SimulatedObjects
    time_s: float  # since the first frame of the sequence
    world_from_lidar: np.ndarray  # (4, 4) float64; the world's axes are those of the sequence's first frame


def simulate_frame(settings: SimulatorSettings, seed: int, index: int) -> SimulatedScan:
    """Frame `index` of the world `seed`. The same three arguments always give the same frame.

    With `settings.motion`, frames 0 to num_frames - 1 form the first sequence, the next num_frames the second.
    """
    sequence, step = divmod(index, settings.frames_per_sequence)
    street, _ = np.random.SeedSequence([seed, sequence]).spawn(2)
    _, sensor = np.random.SeedSequence([seed, index]).spawn(2)
    scene = build_scene(settings, np.random.default_rng(street), step)
    time_s = 0.0 if settings.motion is None else step * settings.motion.interval_s
    return scan_scene(settings, scene, np.random.default_rng(sensor), time_s)


def scan_scene(
    settings: SimulatorSettings, scene: Scene, rng: np.random.Generator, time_s: float = 0.0
) -> SimulatedScan:
    """Scan a scene with one revolution of the sensor. `time_s`: seconds since the start of the sequence."""
    grid = settings.grid()
    lift = settings.lidar.beam_height_m
    primitives, ground = scene.primitives.lowered(lift), scene.ground.lowered(lift)
    hits = cast(primitives, ground, grid, len(scene.names), free_path=rng.standard_exponential(grid.shape))
    points, thing = returns(hits, primitives, ground, grid, settings, rng)
    points[:, 2] += lift
    objects = SimulatedObjects(
        names=np.array(scene.names, dtype=str),
        geometry=scene.geometry,
        velocity=scene.velocity,
        points=np.bincount(thing + 1, minlength=len(scene.names) + 1)[1:],
        rays_alone=hits.rays_alone,
        rays_visible=hits.rays_visible,
        occlusion=_occlusion(hits.rays_visible, hits.rays_alone),
    )
    return SimulatedScan(points, thing, objects, time_s, pose_matrix(scene.lidar))


def _occlusion(visible: np.ndarray, alone: np.ndarray) -> np.ndarray:
    """KITTI's occlusion level of each object (N,), from the share of its rays that no other thing blocks."""
    share = visible / np.maximum(alone, 1)
    return np.select([alone == 0, share > VISIBLE_SHARE, share > PARTLY_SHARE], [3, 0, 1], default=2)
