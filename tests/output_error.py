"""What rounding of a layer's weight costs in its output, by the inputs' Hessian."""

import numpy as np
from numpy.typing import NDArray


def output_error(difference: NDArray[np.floating], hessian: NDArray[np.floating]) -> NDArray[np.floating]:
    """Mean squared output error of a weight difference ``(groups, rows, K)``, per row: ``(groups, rows)``."""
    return np.asarray(np.einsum("grk,grk->gr", difference @ hessian, difference))
