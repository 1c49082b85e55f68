"""Plain loops compiled by Numba, kept beside their source for the next process.

Importing Numba takes a second, so modules of compiled functions are imported by who calls them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function, or read what an earlier process compiled where a folder is writable.

    Compiled code lets other threads run; division by zero gives what NumPy gives.
    """
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # neither beside the file nor in the user's cache
        return numba.njit(nogil=True, error_model="numpy")(function)
