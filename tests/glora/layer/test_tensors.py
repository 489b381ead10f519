"""Each structure of a support tensor against its dense form."""

from __future__ import annotations

from glora.layer.tensors import STRUCTURES
from tests.glora.layer.tensor_case import TensorCase


class TestScalar(TensorCase):
    structure = "scalar"
    readings = (False, True)

    def shape(self, product: bool) -> tuple[int, int]:
        return super().shape(False)  # a multiple of W0 in both readings


class TestVector(TensorCase):
    structure = "vector"


class TestDiagonal(TensorCase):
    structure, readings, thin = "diagonal", (True,), False


class TestLowRank(TensorCase):
    structure, readings = "lora", (False, True)


def test_every_structure_has_its_case() -> None:
    assert {case.structure for case in TensorCase.__subclasses__()} == set(STRUCTURES)
