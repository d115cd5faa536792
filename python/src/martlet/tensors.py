"""Models as dictionaries of NumPy arrays, and as safetensors files."""

from __future__ import annotations

import json
import os
import pathlib
import struct
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
import safetensors.numpy

from .errors import ModelError

if TYPE_CHECKING:
    import torch

Weights: TypeAlias = dict[str, np.ndarray]
"""A model: arrays by name."""
ModelLike: TypeAlias = Union[Mapping[str, Any], Sequence[Any], "torch.nn.Module", str, "os.PathLike[str]"]
"""What is accepted as a model: a dictionary of arrays or torch tensors, a list of arrays, a module, or a safetensors file."""


def array_of(name: str, value: Any) -> np.ndarray:
    """Anything that holds numbers as an array; BF16, which NumPy lacks, as F32."""
    if hasattr(value, "detach"):
        value = value.detach()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()
        value = value.cpu().resolve_conj().contiguous().numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ModelError(f"tensor '{name}' is no array of numbers: {error}") from None
    if not hasattr(value, "dtype") and array.dtype.kind in "iub":
        # Plain numbers of Python have no type to keep.
        array = array.astype(np.float64)
    if array.dtype.kind not in "fiub":
        raise ModelError(f"tensor '{name}' has dtype {array.dtype}, which is no number; use floating point numbers")
    return array


def model_of(model: ModelLike) -> Weights:
    """Arrays by name. Arrays of a list are named `00000`, `00001` and so on: files order tensors by name."""
    if isinstance(model, (str, os.PathLike)):
        return read(pathlib.Path(model))
    if hasattr(model, "state_dict"):
        model = model.state_dict()
    if isinstance(model, Mapping):
        return {str(name): array_of(str(name), value) for name, value in model.items()}
    if isinstance(model, Sequence):
        return {f"{index:05}": array_of(f"{index:05}", value) for index, value in enumerate(model)}
    raise ModelError(f"a {type(model).__name__} is no model: give a dictionary of arrays, a list of arrays, a torch module, or a file's path")


def first_model(model: ModelLike) -> Weights:
    """A model as the server stores it: F32, every value finite.

    Integer and boolean tensors, such as BatchNorm's counters, stay out with a warning: a server keeps floating point numbers only. F64 and
    half precision are converted.
    """
    arrays = model_of(model)
    kept: Weights = {}
    left_out = sorted(name for name, array in arrays.items() if array.dtype.kind != "f")
    for name, array in arrays.items():
        if array.dtype.kind == "f":
            kept[name] = finite_f32(name, array)
    if left_out:
        names = ", ".join(left_out[:5]) + (f" and {len(left_out) - 5} more" if len(left_out) > 5 else "")
        warnings.warn(f"not sent, because they hold no floating point numbers: {names}. Devices keep their own.", stacklevel=3)
    if not kept:
        raise ModelError("the model has no tensor of floating point numbers")
    return kept


def finite_f32(name: str, array: np.ndarray) -> np.ndarray:
    """F32, in C order; refuses what is not finite there."""
    with np.errstate(over="ignore"):
        converted = np.require(array, dtype=np.float32, requirements="C")
    if not np.isfinite(converted).all():
        place = tuple(int(index) for index in np.argwhere(~np.isfinite(converted))[0])
        was = "is NaN or infinite" if not np.isfinite(array[place]) else "is too large for F32"
        raise ModelError(f"tensor '{name}': the value at {list(place)} {was}")
    return converted


def encode(arrays: Weights, metadata: dict[str, str] | None = None) -> bytes:
    """A safetensors file."""
    return bytes(safetensors.numpy.save({name: np.require(array, requirements="C") for name, array in arrays.items()}, metadata))


def decode(content: bytes, what: str = "the file") -> Weights:
    """The arrays of a safetensors file in the order of their names, BF16 as F32."""
    try:
        (length,) = struct.unpack("<Q", content[:8])
        if length > len(content) - 8:
            raise ValueError
        header = json.loads(content[8 : 8 + length])
        arrays: Weights = {}
        if any(entry.get("dtype") == "BF16" for name, entry in header.items() if name != "__metadata__"):
            for name, entry in header.items():
                if name != "__metadata__":
                    begin, end = entry["data_offsets"]
                    arrays[name] = _array(entry, memoryview(content)[8 + length + begin : 8 + length + end])
            return dict(sorted(arrays.items()))
        return dict(sorted(safetensors.numpy.load(content).items()))
    except (ValueError, KeyError, struct.error, safetensors.SafetensorError) as error:
        raise ModelError(f"{what} is no safetensors file" + (f": {error}" if str(error) else "")) from None


_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?"}


def _array(entry: Any, data: memoryview) -> np.ndarray:
    if entry["dtype"] == "BF16":
        # BF16 is the upper half of F32.
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])
    return np.frombuffer(data, _TYPES[entry["dtype"]]).reshape(entry["shape"]).copy()


def read(path: pathlib.Path) -> Weights:
    """The arrays of a safetensors file on the disk."""
    return decode(path.read_bytes(), str(path))
