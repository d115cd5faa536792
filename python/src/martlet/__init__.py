"""Federated learning with Martlet from Python.

The operator's side is here: `Server`, `Population` and `Run`. `martlet.trainer` makes a trainer of two functions, for devices.
"""

from .errors import FieldError, MartletError, ModelError, RunEnded, ServerError, Unreachable
from .population import Population
from .run import Run
from .server import Server

__version__ = "0.2.0"
__all__ = [
    "FieldError", "MartletError", "ModelError", "Population", "Run", "RunEnded", "Server", "ServerError", "Unreachable", "__version__",
]
