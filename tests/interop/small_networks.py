"""Key tables of narrow SECOND and CenterPoint networks as each tool names them."""

from __future__ import annotations

from tests.interop.formula_weights import Table, norm_table

STAGES = ((4, 1), (6, 1), (6, 1), (8, 1))  # channels and blocks
BRANCHES = {"offset": 2, "height": 1, "size": 3, "rotation": 2}
NAMES = {  # of those branches, the heat map, velocity and overlap
    "openpcdet": ("center", "center_z", "dim", "rot", "hm", "vel", "iou"),
    "mmdet3d": ("reg", "height", "dim", "rot", "heatmap", "vel", "iou"),
    "det3d": ("reg", "height", "dim", "rot", "hm", "vel", "iou"),
}


def _kernel(out: int, before: int, first: bool = False, flat: bool = False) -> list:
    size = [3, 1, 1] if flat else [3, 3, 3]
    return [[out, *size, before], "float32", "first" if first else "sparse", before * (3 if flat else 27)]


def sparse_table(source: str, residual: bool, columns: int) -> Table:
    """The encoder's keys, kernels in the layout of spconv 2."""
    root = {
        "openpcdet": "backbone_3d",
        "mmdet3d": "pts_middle_encoder" if residual else "middle_encoder",
        "det3d": "backbone",
    }[source]
    table: Table = {}

    def layer(name: str, norm: str, kernel: list, bias: bool = False) -> None:
        table[f"{root}.{name}.weight"] = kernel
        if bias:
            table[f"{root}.{name}.bias"] = [[kernel[0][0]], "float32", "normal0.1"]
        table.update(norm_table(f"{root}.{norm}", kernel[0][0]))

    layer("conv_input.0", "conv_input.1", _kernel(STAGES[0][0], columns, first=True))
    before = STAGES[0][0]
    for stage, (channels, blocks) in enumerate(STAGES):
        places = iter(_places(source, residual, stage, blocks))
        if stage:
            layer(*next(places), _kernel(channels, before))
        before = channels
        for conv, norm in places:
            layer(conv, norm, _kernel(channels, channels), bias=residual and source != "mmdet3d")
    out = "extra_conv" if source == "det3d" else "conv_out"
    layer(f"{out}.0", f"{out}.1", _kernel(8, before, flat=True))
    return table


def _places(source: str, residual: bool, stage: int, blocks: int) -> list[tuple[str, str]]:
    """Names of the convolutions and norms of a stage, the strided one first."""
    group = f"encoder_layers.encoder_layer{stage + 1}" if source == "mmdet3d" else f"conv{stage + 1}"
    opening = [(f"{group}.0.0", f"{group}.0.1")]
    start = 1 if stage else 0
    if source == "det3d":
        opening, start = [(f"{group}.0", f"{group}.1")], 3 if stage else 0
    elif source == "mmdet3d" and residual:
        before = f"encoder_layers.encoder_layer{stage}.{blocks}"
        opening, start = [(f"{before}.0", f"{before}.1")], 0
    inner = []
    for block in range(start, start + blocks):
        names = [(f"{group}.{block}.conv{i}", f"{group}.{block}.bn{i}") for i in (1, 2)]
        inner += names if residual else [(f"{group}.{block}.0", f"{group}.{block}.1")]
    return (opening if stage else []) + inner


def bev_table(source: str, before: int, strides: tuple[float, ...], prefix: str = "") -> Table:
    """Two or three stages of 8 channels with one layer each, and a neck of 8 channels a branch."""
    blocks = {"openpcdet": "backbone_2d.blocks", "mmdet3d": f"{prefix}backbone.blocks", "det3d": "neck.blocks"}[source]
    neck = {"openpcdet": "backbone_2d.deblocks", "mmdet3d": f"{prefix}neck.deblocks", "det3d": "neck.deblocks"}[source]
    shift = 0 if source == "mmdet3d" else 1
    table: Table = {}
    for stage, stride in enumerate(strides):
        for layer in range(2):
            table[f"{blocks}.{stage}.{3 * layer + shift}.weight"] = [[8, before, 3, 3], "float32", "conv", before * 9]
            table.update(norm_table(f"{blocks}.{stage}.{3 * layer + shift + 1}", 8))
            before = 8
        kernel = round(stride if stride >= 1 else 1 / stride)
        table[f"{neck}.{stage}.0.weight"] = [[8, 8, kernel, kernel], "float32", "convtranspose", 8]
        table.update(norm_table(f"{neck}.{stage}.1", 8))
    return table


def second_table(source: str) -> Table:
    head, outputs = (
        ("dense_head", ("conv_cls", "conv_box", "conv_dir_cls"))
        if source == "openpcdet"
        else ("bbox_head", ("conv_cls", "conv_reg", "conv_dir_cls"))
    )
    table = {**sparse_table(source, False, 4), **bev_table(source, 16, (1, 2))}
    for output, width in zip(outputs, (3, 7, 2), strict=True):
        table[f"{head}.{output}.weight"] = [[6 * width, 16, 1, 1], "float32", "out_weight"]
        table[f"{head}.{output}.bias"] = [[6 * width], "float32", "cls_bias" if output == "conv_cls" else "normal0.1"]
    return table


def center_head_table(
    source: str, before: int, tasks: tuple[int, ...], velocity: bool = True, overlap: bool = False
) -> Table:
    """A shared layer of 6 channels and branches with a hidden layer of 5."""
    root = {"openpcdet": "dense_head", "mmdet3d": "pts_bbox_head", "det3d": "bbox_head"}[source]
    group = {"openpcdet": "heads_list", "mmdet3d": "task_heads", "det3d": "tasks"}[source]
    shared = ("conv", "bn") if source == "mmdet3d" else ("0", "1")
    hidden = {"openpcdet": ("0.0", "0.1", "1"), "mmdet3d": ("0.conv", "0.bn", "1"), "det3d": ("0", "1", "3")}[source]
    table: Table = {}

    def block(conv: str, norm: str, channels: int, inputs: int) -> None:
        table[f"{conv}.weight"] = [[channels, inputs, 3, 3], "float32", "conv", inputs * 9]
        if source != "mmdet3d":
            table[f"{conv}.bias"] = [[channels], "float32", "normal0.1"]
        table.update(norm_table(norm, channels))

    block(f"{root}.shared_conv.{shared[0]}", f"{root}.shared_conv.{shared[1]}", 6, before)
    *names, heatmap, vel, iou = NAMES[source]
    for task, classes in enumerate(tasks):
        branches = (
            dict(zip(names, BRANCHES.values(), strict=True))
            | {heatmap: classes}
            | ({vel: 2} if velocity else {})
            | ({iou: 1} if overlap else {})
        )
        for name, channels in branches.items():
            place = f"{root}.{group}.{task}.{name}"
            block(f"{place}.{hidden[0]}", f"{place}.{hidden[1]}", 5, 6)
            table[f"{place}.{hidden[2]}.weight"] = [[channels, 5, 3, 3], "float32", "out_weight"]
            table[f"{place}.{hidden[2]}.bias"] = [[channels], "float32", "cls_bias" if name == heatmap else "normal0.1"]
    return table


NUSCENES = (1, 2, 2, 1, 2, 2)  # classes a task


def centerpoint_voxel_table(source: str, tasks: tuple[int, ...] = NUSCENES, overlap: bool = False) -> Table:
    velocity = tasks == NUSCENES
    return {
        **sparse_table(source, True, 5),
        **bev_table(source, 16, (1, 2), "pts_"),
        **center_head_table(source, 16, tasks, velocity, overlap),
    }


def centerpoint_pillar_table(source: str) -> Table:
    """Two layers in the pillar encoder, 4 and 8 channels wide; det3d's points have one column less."""
    root = {"openpcdet": "vfe", "mmdet3d": "pts_voxel_encoder", "det3d": "reader"}[source]
    columns = 10 if source == "det3d" else 11
    table: Table = {
        f"{root}.pfn_layers.0.linear.weight": [[4, columns], "float32", "first", columns],
        **norm_table(f"{root}.pfn_layers.0.norm", 4),
    }
    table |= {
        f"{root}.pfn_layers.1.linear.weight": [[8, 8], "float32", "conv", 8],
        **norm_table(f"{root}.pfn_layers.1.norm", 8),
    }
    return {**table, **bev_table(source, 8, (0.5, 1, 2), "pts_"), **center_head_table(source, 24, NUSCENES)}
