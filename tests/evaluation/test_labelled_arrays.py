import numpy as np
import pytest

from lidistill.evaluation.labelled_arrays import load_labelled, save_labelled
from lidistill.types import InputError

KINDS = {"values": ("f", 1)}


def load(path, version=2, origin="protocol"):
    return load_labelled(path, KINDS, "make it again", version=version, origin=origin)


def test_arrays_read_back_with_the_name_of_what_wrote_them(tmp_path):
    save_labelled(tmp_path / "a.npz", {"values": np.arange(3.0)}, version=2, origin="protocol", name="yard")
    arrays, name = load(tmp_path / "a.npz")
    assert arrays["values"].tolist() == [0.0, 1.0, 2.0]
    assert name == "yard"


def test_an_empty_name_reads_back(tmp_path):
    save_labelled(tmp_path / "a.npz", {"values": np.zeros(0)}, version=2, origin="protocol", name="")
    assert load(tmp_path / "a.npz")[1] == ""


def test_another_format_and_another_origin_are_named_with_the_remedy(tmp_path):
    save_labelled(tmp_path / "a.npz", {"values": np.zeros(1)}, version=3, origin="protocol", name="yard")
    with pytest.raises(InputError, match=r"a\.npz: has format 3, but this version reads format 2; make it again"):
        load(tmp_path / "a.npz")
    with pytest.raises(InputError, match="has no format number or no dataset.*; make it again"):
        load(tmp_path / "a.npz", version=3, origin="dataset")


def test_a_file_of_an_earlier_version_says_nothing_of_itself(tmp_path):
    np.savez(tmp_path / "a.npz", values=np.zeros(1))
    with pytest.raises(InputError, match="has no format number or no protocol, so an earlier version"):
        load(tmp_path / "a.npz")


@pytest.mark.parametrize("label", [{"format": np.array("two")}, {"format": np.array([2])}, {"protocol": np.array(1)}])
def test_a_label_of_another_kind_is_refused(tmp_path, label):
    np.savez(
        tmp_path / "a.npz", **{"format": np.array(2), "protocol": np.array("yard"), "values": np.zeros(1), **label}
    )
    with pytest.raises(InputError, match="wrong type or number of dimensions.*; make it again"):
        load(tmp_path / "a.npz")
