"""Opening strangers' files: what is recognised, and that nothing in them is ever run."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from lidistill.interop import read_checkpoint
from lidistill.interop.checkpoint_files import _LogHistory
from lidistill.types import InputError
from tests.interop.formula_weights import formula_state, small_table, tensors, write_checkpoint


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def weights_of(source: str) -> dict[str, torch.Tensor]:
    return tensors(formula_state(small_table(source)))


@pytest.mark.parametrize("source", ["openpcdet", "mmdet3d"])
def test_each_tool_is_recognised_by_content(tmp_path, source):
    found = read_checkpoint(write_checkpoint(tmp_path / "weights.bin", source, formula_state(small_table(source))))
    assert found.source == source
    assert found.classes == {"openpcdet": None, "mmdet3d": ("Pedestrian", "Cyclist", "Car")}[source]
    assert found.version == {"openpcdet": "pcdet+0.6.0", "mmdet3d": "mmengine 0.10.4"}[source]


@pytest.mark.parametrize("source", ["openpcdet", "mmdet3d"])
def test_bare_weights_are_recognised_by_their_keys(tmp_path, source):
    torch.save(OrderedDict(weights_of(source)), tmp_path / "bare.pth")
    found = read_checkpoint(tmp_path / "bare.pth")
    assert (found.source, found.classes, found.version) == (source, None, None)


def test_a_file_of_det3d_is_named(tmp_path):
    torch.save(
        {
            "meta": {},
            "state_dict": {"reader.pfn_layers.0.linear.weight": torch.zeros(64, 10), "backbone.x": torch.zeros(1)},
        },
        tmp_path / "a.pth",
    )
    assert read_checkpoint(tmp_path / "a.pth").source == "det3d"


def test_the_prefix_of_parallel_training_is_taken_off(tmp_path):
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in weights_of("mmdet3d").items()}}, tmp_path / "a.pth"
    )
    assert set(read_checkpoint(tmp_path / "a.pth").weights) == set(weights_of("mmdet3d"))


@pytest.mark.parametrize(
    ("meta", "classes"),
    [
        ({"CLASSES": ["Car"]}, ("Car",)),
        ({"CLASSES": "Car"}, ("Car",)),
        ({"dataset_meta": {"classes": ("Pedestrian", "Car")}}, ("Pedestrian", "Car")),
        ({"dataset_meta": {"CLASSES": ["Car"]}}, ("Car",)),
        ({"dataset_meta": None, "CLASSES": None}, None),
        ({"CLASSES": [1, 2]}, None),
    ],
)
def test_class_names_are_read_as_both_generations_write_them(tmp_path, meta, classes):
    torch.save({"meta": meta, "state_dict": weights_of("mmdet3d")}, tmp_path / "a.pth")
    assert read_checkpoint(tmp_path / "a.pth").classes == classes


def test_numpy_numbers_and_arrays_beside_the_weights_do_no_harm(tmp_path):
    extras = {
        "scalar": np.float64(0.5),
        "count": np.int64(3),
        "curve": np.arange(4.0),
        "flags": np.array([True]),
        "half": np.float16(1),
        "u": np.uint8(3),
    }
    torch.save({"state_dict": weights_of("mmdet3d"), "meta": extras}, tmp_path / "a.pth")
    assert read_checkpoint(tmp_path / "a.pth").source == "mmdet3d"


def test_numbers_written_under_the_other_generation_of_numpy_are_read(tmp_path):
    """The same pickle with the module names that numpy 1 and numpy 2 give to the same functions."""
    torch.save(
        {"state_dict": weights_of("mmdet3d"), "meta": {"loss": np.float64(0.5), "curve": np.arange(3.0)}},
        tmp_path / "a.pth",
    )
    for old, new in (
        (b"numpy._core.multiarray", b"numpy.core.multiarray"),
        (b"numpy.core.multiarray", b"numpy._core.multiarray"),
    ):
        changed = tmp_path / f"{len(new)}.pth"
        with zipfile.ZipFile(tmp_path / "a.pth") as source, zipfile.ZipFile(changed, "w") as target:
            for item in source.infolist():
                content = source.read(item)
                target.writestr(
                    item.filename, content.replace(old, new) if item.filename.endswith("data.pkl") else content
                )
        assert read_checkpoint(changed).source == "mmdet3d"


def test_the_log_buffers_of_mmengine_are_read_as_inert_data(tmp_path, monkeypatch):
    buffer = _LogHistory()
    buffer.__dict__.update(max_length=10, _log_history=np.arange(3.0), _count_history=np.arange(3))
    torch.save(
        {"state_dict": weights_of("mmdet3d"), "message_hub": {"log_scalars": {"loss": buffer}}}, tmp_path / "a.pth"
    )
    renamed = tmp_path / "b.pth"
    with zipfile.ZipFile(tmp_path / "a.pth") as source, zipfile.ZipFile(renamed, "w") as target:
        for item in source.infolist():
            content = source.read(item)
            own = b"clidistill.interop.checkpoint_files\n_LogHistory\n"
            assert not item.filename.endswith("data.pkl") or own in content
            target.writestr(item.filename, content.replace(own, b"cmmengine.logging.history_buffer\nHistoryBuffer\n"))
    assert read_checkpoint(renamed).source == "mmdet3d"


@pytest.mark.parametrize("legacy_format", [False, True])
def test_code_in_a_file_is_never_run(tmp_path, legacy_format):
    trap = tmp_path / "sprung"
    content = {"model_state": weights_of("openpcdet"), "config": Trap(trap)}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy_format)
    with pytest.raises(
        InputError, match=r"a\.pth: holds a Python object \(\w+\.mkdir\) besides weights.*save the weights alone"
    ):
        read_checkpoint(tmp_path / "a.pth")
    assert not trap.exists()


def test_a_plain_pickle_with_code_is_never_run(tmp_path):
    trap = tmp_path / "sprung"
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"model_state": {}, "x": Trap(trap)}))
    with pytest.raises(InputError, match=r"a\.pth"):
        read_checkpoint(tmp_path / "a.pth")
    assert not trap.exists()


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", b"PK\x03\x04 broken", b"\x80\x02}q\x00.", bytes(range(256)) * 20]
)
def test_a_file_that_is_no_checkpoint_is_said_to_be_none(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.pth: "):
        read_checkpoint(tmp_path / "a.pth")


def test_a_cut_file_is_said_to_be_damaged(tmp_path):
    path = write_checkpoint(tmp_path / "a.pth", "openpcdet", formula_state(small_table("openpcdet")))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match="damaged one; download or copy it again"):
        read_checkpoint(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.pth: no such file"):
        read_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(InputError, match="a folder, not a file"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"a": 1}, "holds no weights under 'model_state' or 'state_dict'"),
        ([1, 2], "holds no weights"),
        ({"state_dict": {}}, "holds no weights"),
        ({"state_dict": {"a": "b"}}, "holds no weights"),
        (torch.zeros(3), "holds no weights"),
        ({"state_dict": {"conv1.weight": torch.zeros(2)}}, r"keys like conv1\.weight belong to no known tool"),
    ],
)
def test_a_file_of_something_else_is_refused_in_a_sentence(tmp_path, content, sentence):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(InputError, match=sentence):
        read_checkpoint(tmp_path / "a.pth")
