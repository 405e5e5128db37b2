"""Data sets: read, cleaned, split, encoded, and served as mini-batches."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
