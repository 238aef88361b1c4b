"""Constants behind operators of Relax: what is left of them after the import."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Net, agrees


@pytest.mark.parametrize("index", [0, 2, -1, [2, 0], [1, -4]], ids=str)
def test_a_constant_index_is_taken_as_it_is_unless_it_counts_from_the_end(tmp_path, index):
    net = Net()
    net.output(net.op("Gather", net.input(3, 4, 5), net.constant(np.array(index, np.int64)), axis=1))
    compiled = agrees(net, tmp_path)
    kernels = [call.kernel for call in compiled.program.calls]
    assert kernels == ["take"] or np.min(index) < 0
