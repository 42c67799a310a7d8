"""Names of layers: the keys of OpenPCDet, mmdetection3d and CenterPoint's own code (det3d), and ours.

Checked against OpenPCDet 8caccce, mmdetection3d 1.4.0 and the second version of CenterPoint's `det3d`.
"""

from __future__ import annotations

import re

# pattern of a whole key -> our name, in which <\1-1> is computed; the first pattern that matches counts
Rules = tuple[tuple[str, str], ...]


def our_key(key: str, rules: Rules) -> str | None:
    """Return our name of a tool's key; None if no rule matches or a number would be negative."""
    for pattern, name in rules:
        match = re.fullmatch(pattern, key)
        if match is not None:
            own = re.sub(r"<(\d+)([+-]\d+)>", lambda sum_: str(int(sum_[1]) + int(sum_[2])), match.expand(name))
            return None if "-" in own else own
    return None


def _named(pattern: str, own: str, layers: dict[str, str]) -> Rules:
    """Make one rule for each of the layers under `pattern`; `layers` maps their names to ours."""
    return tuple((rf"{pattern}\.{theirs}\.(?P<rest>.+)", rf"{own}.{ours}.\g<rest>") for theirs, ours in layers.items())


SEQUENTIAL = {"0": "conv", "1": "norm"}
RESIDUAL = {"conv1": "first.conv", "bn1": "first.norm", "conv2": "second.conv", "bn2": "second.norm"}

PILLARS: dict[str, Rules] = {
    "openpcdet": ((r"vfe\.pfn_layers\.(\d+)\.(linear|norm)\.(.+)", r"encoder.layers.\1.\2.\3"),),
    "mmdet3d": ((r"(?:pts_)?voxel_encoder\.pfn_layers\.(\d+)\.(linear|norm)\.(.+)", r"encoder.layers.\1.\2.\3"),),
    "det3d": ((r"reader\.pfn_layers\.(\d+)\.(linear|norm)\.(.+)", r"encoder.layers.\1.\2.\3"),),
}

_MIDDLE = r"(?:pts_)?middle_encoder"
_LAYER = rf"{_MIDDLE}\.encoder_layers\.encoder_layer"
_MMDET3D_ENDS = (
    *_named(rf"{_MIDDLE}\.conv_input", "encoder.stages.0.0", SEQUENTIAL),
    *_named(rf"{_MIDDLE}\.conv_out", "encoder.output", SEQUENTIAL),
)

PLAIN_ENCODERS: dict[str, Rules] = {
    "openpcdet": (
        *_named(r"backbone_3d\.conv_input", "encoder.stages.0.0", SEQUENTIAL),
        *_named(r"backbone_3d\.conv1\.(\d+)", r"encoder.stages.0.<\1+1>", SEQUENTIAL | RESIDUAL),
        *_named(r"backbone_3d\.conv(\d+)\.(\d+)", r"encoder.stages.<\1-1>.\2", SEQUENTIAL | RESIDUAL),
        *_named(r"backbone_3d\.conv_out", "encoder.output", SEQUENTIAL),
    ),
    "mmdet3d": (
        *_named(rf"{_LAYER}1\.(\d+)", r"encoder.stages.0.<\1+1>", SEQUENTIAL),
        *_named(rf"{_LAYER}(\d+)\.(\d+)", r"encoder.stages.<\1-1>.\2", SEQUENTIAL),
        *_MMDET3D_ENDS,
    ),
}
RESIDUAL_ENCODERS: dict[str, Rules] = {
    "openpcdet": PLAIN_ENCODERS["openpcdet"],
    "mmdet3d": (  # there a strided convolution ends a layer, here it begins a stage
        *_named(rf"{_LAYER}(\d+)\.(\d+)", r"encoder.stages.<\1-1>.<\2+1>", RESIDUAL),
        *_named(rf"{_LAYER}(\d+)\.\d+", r"encoder.stages.\1.0", SEQUENTIAL),
        *_MMDET3D_ENDS,
    ),
    "det3d": (  # the first convolution, norm and ReLU are entries 0 to 2, so blocks start at 3
        *_named(r"backbone\.conv_input", "encoder.stages.0.0", SEQUENTIAL),
        *_named(r"backbone\.conv1\.(\d+)", r"encoder.stages.0.<\1+1>", RESIDUAL),
        *_named(r"backbone\.conv(\d+)\.(\d+)", r"encoder.stages.<\1-1>.<\2-2>", RESIDUAL),
        *_named(r"backbone\.conv(\d+)", r"encoder.stages.<\1-1>.0", SEQUENTIAL),
        *_named(r"backbone\.extra_conv", "encoder.output", SEQUENTIAL),
    ),
}


def _bev(blocks: str, deblocks: str, shift: int) -> Rules:
    """Make the rules for trunk and neck.

    `shift` is the index of the first convolution within a stage: 1 if a padding layer comes first.
    """
    return (
        (rf"{blocks}\.(\d+)\.(\d+)\.(.+)", rf"trunk.stages.\1.<\2-{shift}>.\3"),
        (rf"{deblocks}\.(\d+)\.([01])\.(.+)", r"neck.branches.\1.\2.\3"),
    )


BEV: dict[str, Rules] = {
    "openpcdet": _bev(r"backbone_2d\.blocks", r"backbone_2d\.deblocks", 1),
    "mmdet3d": _bev(r"(?:pts_)?backbone\.blocks", r"(?:pts_)?neck\.deblocks", 0),
    "det3d": _bev(r"neck\.blocks", r"neck\.deblocks", 1),
}

ANCHOR_HEADS: dict[str, Rules] = {
    "openpcdet": _named(
        r"dense_head", "head", {"conv_cls": "conv_class", "conv_box": "conv_box", "conv_dir_cls": "conv_direction"}
    ),
    "mmdet3d": _named(
        r"bbox_head", "head", {"conv_cls": "conv_class", "conv_reg": "conv_box", "conv_dir_cls": "conv_direction"}
    ),
}

BRANCHES = {
    "openpcdet": {
        "hm": "heatmap",
        "center": "offset",
        "center_z": "height",
        "dim": "size",
        "rot": "rotation",
        "vel": "velocity",
        "iou": "overlap",
    },
    "mmdet3d": {
        "heatmap": "heatmap",
        "reg": "offset",
        "height": "height",
        "dim": "size",
        "rot": "rotation",
        "vel": "velocity",
    },
    "det3d": {
        "hm": "heatmap",
        "reg": "offset",
        "height": "height",
        "dim": "size",
        "rot": "rotation",
        "vel": "velocity",
        "iou": "overlap",
    },
}


def _tasks(tasks: str, branches: dict[str, str], layers: dict[str, str]) -> Rules:
    """Make one rule for each layer of each branch; `layers` maps their places in the branch to ours."""
    return tuple(
        (
            rf"{tasks}\.(?P<task>\d+)\.{theirs}\.{place}\.(?P<rest>weight|bias|running_.+|num_.+)",
            rf"head.tasks.\g<task>.{ours}.{own}.\g<rest>",
        )
        for theirs, ours in branches.items()
        for place, own in layers.items()
    )


_NESTED = r"(?P<layer>\d+)"
CENTER_HEADS: dict[str, Rules] = {
    "openpcdet": (
        *_named(r"dense_head\.shared_conv", "head.shared", SEQUENTIAL),
        *_tasks(
            r"dense_head\.heads_list",
            BRANCHES["openpcdet"],
            {rf"{_NESTED}\.0": r"hidden.\g<layer>.conv", rf"{_NESTED}\.1": r"hidden.\g<layer>.norm", r"\d+": "output"},
        ),
    ),
    "mmdet3d": (
        *_named(r"(?:pts_)?bbox_head\.shared_conv", "head.shared", {"conv": "conv", "bn": "norm"}),
        *_tasks(
            r"(?:pts_)?bbox_head\.task_heads",
            BRANCHES["mmdet3d"],
            {
                rf"{_NESTED}\.conv": r"hidden.\g<layer>.conv",
                rf"{_NESTED}\.bn": r"hidden.\g<layer>.norm",
                r"\d+": "output",
            },
        ),
    ),
    "det3d": (  # convolution, norm, ReLU, convolution
        *_named(r"bbox_head\.shared_conv", "head.shared", SEQUENTIAL),
        *_tasks(r"bbox_head\.tasks", BRANCHES["det3d"], {"0": "hidden.0.conv", "1": "hidden.0.norm", "3": "output"}),
    ),
}
