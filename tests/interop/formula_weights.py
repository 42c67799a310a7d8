"""Weights that follow from a formula, and checkpoints of other tools written around them.

The reference figures of the published networks were made with weights that depend on nothing but the key, the shape and
a rule, so that no weight has to be stored. The digest tells whether this machine's numpy still draws the same numbers.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch

NUSCENES_NAMES = (  # in the order of mmdetection3d's dataset, which is not that of its heads
    "car",
    "truck",
    "trailer",
    "bus",
    "construction_vehicle",
    "bicycle",
    "motorcycle",
    "pedestrian",
    "traffic_cone",
    "barrier",
)
Table = dict[str, list]  # key -> [shape, dtype, rule] or [shape, dtype, rule, number of inputs]


def read_table(path: Path) -> Table:
    return json.loads(path.read_text(encoding="utf-8"))


def formula_state(table: Table) -> dict[str, np.ndarray]:
    """Every key of the table with its value; constants of the tools, which have the rule "untouched", are left out."""
    return {key: _value(key, tuple(entry[0]), *entry[2:]) for key, entry in table.items() if entry[2] != "untouched"}


def digest(state: dict[str, np.ndarray]) -> str:
    """SHA-256 over keys and values in the order of the keys."""
    total = hashlib.sha256()
    for key in sorted(state):
        total.update(key.encode() + b"\0")
        total.update(np.ascontiguousarray(state[key]).tobytes())
    return total.hexdigest()


def _value(key: str, shape: tuple[int, ...], rule: str, num_inputs: int | None = None) -> np.ndarray:
    draws = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    spread = {"out_weight": 0.02, "normal0.1": 0.1}
    if num_inputs is not None:
        spread["conv"] = spread["convtranspose"] = spread["sparse"] = math.sqrt(2.0 / num_inputs)
        spread["first"] = 0.1 * math.sqrt(2.0 / num_inputs)
    if rule in spread:
        return draws.standard_normal(shape, dtype=np.float32) * np.float32(spread[rule])
    if rule in ("bn_weight", "bn_var"):
        low, high = (0.8, 1.2) if rule == "bn_weight" else (0.5, 1.5)
        return draws.uniform(low, high, shape).astype(np.float32)
    return {"cls_bias": np.full(shape, -2.19, np.float32), "zero": np.zeros(shape, np.int64)}[rule]


def small_table(source: str) -> Table:
    """The keys of a narrow, shallow PointPillars as OpenPCDet or mmdetection3d names them: 3 stages of 8, 12, 16
    channels.
    """
    names = {
        "openpcdet": (
            "vfe.pfn_layers.0",
            "backbone_2d.blocks",
            "backbone_2d.deblocks",
            "dense_head",
            ("conv_cls", "conv_box", "conv_dir_cls"),
            1,
        ),
        "mmdet3d": (
            "voxel_encoder.pfn_layers.0",
            "backbone.blocks",
            "neck.deblocks",
            "bbox_head",
            ("conv_cls", "conv_reg", "conv_dir_cls"),
            0,
        ),
    }
    encoder, trunk, neck, head, outputs, shift = names[source]
    table: Table = {f"{encoder}.linear.weight": [[8, 10], "float32", "first", 10], **norm_table(f"{encoder}.norm", 8)}
    before = 8
    for stage, (channels, layers) in enumerate(((8, 1), (12, 1), (16, 2))):
        for layer in range(layers + 1):
            place = 3 * layer + shift
            table[f"{trunk}.{stage}.{place}.weight"] = [[channels, before, 3, 3], "float32", "conv", before * 9]
            table.update(norm_table(f"{trunk}.{stage}.{place + 1}", channels))
            before = channels
        enlarge = 2**stage
        table[f"{neck}.{stage}.0.weight"] = [[channels, 8, enlarge, enlarge], "float32", "convtranspose", channels]
        table.update(norm_table(f"{neck}.{stage}.1", 8))
    for output, width in zip(outputs, (3, 7, 2), strict=True):
        table[f"{head}.{output}.weight"] = [[6 * width, 24, 1, 1], "float32", "out_weight"]
        table[f"{head}.{output}.bias"] = [[6 * width], "float32", "cls_bias" if output == "conv_cls" else "normal0.1"]
    if source == "openpcdet":
        table["global_step"] = [[1], "int64", "untouched"]
    return table


def norm_table(prefix: str, channels: int) -> Table:
    rules = {"weight": "bn_weight", "bias": "normal0.1", "running_mean": "normal0.1", "running_var": "bn_var"}
    table: Table = {f"{prefix}.{name}": [[channels], "float32", rule] for name, rule in rules.items()}
    return {**table, f"{prefix}.num_batches_tracked": [[], "int64", "zero"]}


def tensors(state: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(np.array(value)) for key, value in state.items()}


def write_checkpoint(path: Path, source: str, state: dict[str, np.ndarray]) -> Path:
    """The weights as `source` would save them, with the things around them that such files have."""
    weights = tensors(state)
    if source == "openpcdet":
        content = {
            "epoch": 80,
            "it": np.int64(37120),
            "model_state": {"global_step": torch.zeros(1, dtype=torch.int64), **weights},
        }
        torch.save({**content, "optimizer_state": None, "version": "pcdet+0.6.0"}, path)
    elif source == "mmdet3d":
        classes = (
            list(NUSCENES_NAMES) if any(key.startswith("pts_") for key in state) else ["Pedestrian", "Cyclist", "Car"]
        )
        meta = {"epoch": 80, "seed": np.int64(7), "mmengine_version": "0.10.4", "dataset_meta": {"classes": classes}}
        torch.save({"meta": meta, "state_dict": weights}, path)
    else:
        torch.save(
            {"meta": {"epoch": 20, "iter": 61780, "config": "type='VoxelNet'"}, "state_dict": weights, "optimizer": {}},
            path,
        )
    return path
