"""Folders in the layout of KITTI's tracking benchmark, written from folders in that of the object benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lidistill.files import write_text

LEVELS = {0.0: "0", 0.25: "1", 0.7: "2", -1.0: "-1"}  # of truncation; the nearest is taken
LATITUDE, LONGITUDE = 49.0, 8.4
METRES_PER_DEGREE = np.radians(1) * 6378137.0 * np.cos(np.radians(LATITUDE))  # of Mercator's map, both ways
LIDAR_FROM_IMU = np.array([[0, -1.0, 0, 0.5], [1, 0, 0, -0.2], [0, 0, 1, 0.9], [0, 0, 0, 1]])


def write_sequence(root: Path, sequence: str, objects: Path, ids: Sequence[str], speed_m_s: float | None = 5.0) -> None:
    """Write the frames `ids` of the object-layout folder `objects` (with velodyne/, calib/ and label_2/) as a sequence.

    The inertial unit drives north at `speed_m_s`, turning left by 0.01 rad per frame; None writes no OXTS file.
    """
    training = root / "training"
    rows = []
    for number, frame_id in enumerate(ids):
        scan = training / "velodyne" / sequence / f"{number:06d}.bin"
        scan.parent.mkdir(parents=True, exist_ok=True)
        scan.write_bytes((objects / "velodyne" / f"{frame_id}.bin").read_bytes())
        for line in (objects / "label_2" / f"{frame_id}.txt").read_text().splitlines():
            name, truncation, *rest = line.split()
            if name == "DontCare":
                rest[6:9] = ["-1000"] * 3
            name = "Person" if name == "Person_sitting" else name
            rows.append(
                " ".join(
                    [
                        str(number),
                        str(len(rows)),
                        name,
                        LEVELS[min(LEVELS, key=lambda level: abs(level - float(truncation)))],
                        *rest,
                    ]
                )
            )
    write_text(training / "label_02" / f"{sequence}.txt", "".join(f"{row}\n" for row in rows))
    kept = []
    for line in (objects / "calib" / f"{ids[0]}.txt").read_text().splitlines():
        name, *values = line.split() or [""]
        name = {"R0_rect:": "R_rect", "Tr_velo_to_cam:": "Tr_velo_cam"}.get(name, name)
        kept += [" ".join([name, *values])] if values and not name.startswith("Tr_imu") else []
    imu = " ".join(f"{value:.12e}" for value in LIDAR_FROM_IMU[:3].ravel())
    write_text(training / "calib" / f"{sequence}.txt", "\n".join([*kept, f"Tr_imu_velo {imu}", ""]))
    if speed_m_s is not None:
        poses = "".join(oxts_row(number, speed_m_s) for number in range(len(ids)))
        write_text(training / "oxts" / f"{sequence}.txt", poses)


def oxts_row(number: int, speed_m_s: float) -> str:
    """One row of 30 columns: north by `speed_m_s` a tenth of a second, with a yaw that grows from north."""
    latitude = LATITUDE + number * 0.1 * speed_m_s * np.cos(np.radians(LATITUDE)) / METRES_PER_DEGREE
    yaw = np.pi / 2 + 0.01 * number
    return " ".join(f"{value:.15f}" for value in [latitude, LONGITUDE, 112.0, 0.0, 0.0, yaw, *[0.0] * 24]) + "\n"
