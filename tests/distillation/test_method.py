import dataclasses

import pytest

from lidistill.distillation import METHODS
from lidistill.types import InputError


@pytest.mark.parametrize("name", METHODS)
def test_the_table_lists_each_method_under_its_own_name(name):
    assert METHODS[name].name == name


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_senseless_weight_is_refused(name, weight):
    with pytest.raises(InputError, match=rf"{name}.weight is {weight}; give"):
        METHODS[name](weight=weight)


@pytest.mark.parametrize("name", METHODS)
def test_settings_are_frozen(name):
    with pytest.raises(dataclasses.FrozenInstanceError):
        METHODS[name]().weight = 2.0
