"""Frames per second of the simulator on one core, stage by stage, and the ray caster compared with a plain loop.

python benchmarks/bench_simulator.py [--frames 40] [--out docs/results/simulator.json]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import compare, environment, print_ratios, record

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the slow twins under tests/reference

from lidistill.simulate import PRESETS, SIMULATOR_VERSION, SimulatorSettings, simulate_frame
from lidistill.simulate.raycast import cast
from lidistill.simulate.returns import returns
from lidistill.simulate.scene import build_scene
from tests.reference import raycast as slow

SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--frames", type=int, default=40, help="frames timed for each sensor (a quarter as many for whole turns)"
    )
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print({**environment(), "seed": SEED})
    content: dict[str, Any] = {
        "seed": SEED,
        "simulator_version": SIMULATOR_VERSION,
        "sensors": {name: sensor_figures(name, arguments.frames) for name in PRESETS},
    }
    content["beside_a_loop"] = loop_figures()
    if arguments.out:
        record(arguments.out, "simulator", content)


def sensor_figures(name: str, frames: int) -> dict[str, Any]:
    """Return the frames per second and the milliseconds of each stage, over several frames."""
    settings = SimulatorSettings(sensor=name)
    low, high = settings.window_deg
    frames = frames if high - low <= 90 else max(1, frames // 4)
    simulate_frame(settings, SEED, 0)
    seconds, points = [], []
    for index in range(frames):
        start = time.perf_counter()
        points.append(len(simulate_frame(settings, SEED, index).points))
        seconds.append(time.perf_counter() - start)
    stages = {stage: statistics.median(values) * 1e3 for stage, values in _stage_seconds(settings, frames).items()}
    rays = int(np.prod(settings.grid().shape))
    print(
        f"\n{name}: {rays} rays, {np.mean(points):.0f} points a frame\n"
        f"  frames/s: median {1 / statistics.median(seconds):.1f}, {1 / max(seconds):.1f} to {1 / min(seconds):.1f} "
        f"({frames} frames, one core)\n"
        f"  median ms: {', '.join(f'{stage} {value:.1f}' for stage, value in stages.items())}"
    )
    return {
        "frames": frames,
        "rays": rays,
        "points_mean": round(float(np.mean(points))),
        "min_s": min(seconds),
        "max_s": max(seconds),
        "median_s": statistics.median(seconds),
        "frames_per_second_best": 1 / min(seconds),
        "frames_per_second_median": 1 / statistics.median(seconds),
        "median_ms": stages,
    }


def _stage_seconds(settings: SimulatorSettings, frames: int) -> dict[str, list[float]]:
    """Return the seconds of street, rays and returns, each timed separately over several frames."""
    seconds: dict[str, list[float]] = {"street": [], "rays": [], "returns": []}

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        seconds[stage].append(time.perf_counter() - start)
        return result

    grid = settings.grid()
    for index in range(frames):
        rng = np.random.default_rng([SEED, index])
        scene = timed("street", lambda rng=rng: build_scene(settings, rng))
        free_path = rng.standard_exponential(grid.shape)
        hits = timed(
            "rays",
            lambda scene=scene, path=free_path: cast(scene.primitives, scene.ground, grid, len(scene.names), path),
        )
        timed(
            "returns",
            lambda scene=scene, hits=hits, rng=rng: returns(hits, scene.primitives, scene.ground, grid, settings, rng),
        )
    return seconds


def loop_figures() -> dict[str, Any]:
    """Compare the ray caster with the tests' loop over rays and solids, on one street with a coarse grid."""
    settings = SimulatorSettings(azimuth_step_deg=3.0)
    grid = settings.grid()
    scene = build_scene(settings, np.random.default_rng(SEED))
    free_path = np.ones(grid.shape)
    arguments = (scene.primitives, scene.ground, grid, len(scene.names), free_path)
    times = compare(
        {"ray caster": lambda: cast(*arguments), "loop over rays and solids": lambda: slow.cast(*arguments)}, repeats=3
    )
    print_ratios(f"{np.prod(grid.shape)} rays, {len(scene.primitives)} solids", times)
    fast, twin = cast(*arguments), slow.cast(*arguments)
    same = float(np.mean(fast.primitive == twin[1]))
    print(f"  rays that meet the same solid first: {same:.6f}")
    return {"rays": int(np.prod(grid.shape)), "solids": len(scene.primitives), "times": times, "same_first_solid": same}


if __name__ == "__main__":
    main()
