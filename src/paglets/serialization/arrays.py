"""Numpy arrays and `array.array` as typed raw bytes.

numpy is imported only when a payload needs it, so that a process without arrays never pays for it.
"""

from __future__ import annotations

import array
import math
import re
import sys
from typing import TYPE_CHECKING, Any

from paglets.serialization.kinds import ARRAY_TAG, NDARRAY_TAG, MisfitError, buffer_of, type_name
from paglets.serialization.packing import KIND_RAW, Sink

if TYPE_CHECKING:
    import numpy as np

_SIMPLE_DTYPE = re.compile(r"[<>|][?biufcSUVmM]\d{1,10}(\[(\d{1,6})?[A-Za-z]{1,2}\])?")
_MAX_DTYPE_FIELDS = 4096

_SIGNED = "bhilq"
_UNSIGNED = "BHILQ"
_FLOATING = "fd"


def is_ndarray_type(hint: object) -> bool:
    """Return whether a type is `numpy.ndarray` or a class derived from it, without importing numpy."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(hint, type) and issubclass(hint, numpy.ndarray)


def is_numpy_scalar_type(hint: object) -> bool:
    """Return whether a type is a numpy scalar type, without importing numpy."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(hint, type) and issubclass(hint, numpy.generic)


def is_ndarray_tag(value: dict[Any, Any]) -> bool:
    """Return whether a dict is a tagged numpy array."""
    return len(value) == 2 and NDARRAY_TAG in value and "data" in value


def is_array_tag(value: dict[Any, Any]) -> bool:
    """Return whether a dict is a tagged `array.array`."""
    return len(value) == 2 and ARRAY_TAG in value and "data" in value


# --- numpy ----------------------------------------------------------------------------------------------------------


def encode_ndarray(value: Any, sink: Sink | None) -> dict[str, Any]:
    """Return a numpy array as tagged raw bytes; raises MisfitError for arrays of objects and masked arrays."""
    import numpy as np

    if isinstance(value, np.ma.MaskedArray):
        raise MisfitError("masked numpy arrays cannot travel; send data and mask as two arrays")
    array_ = value.view(np.ndarray)
    description: dict[str, Any] = {"dtype": _describe_dtype(np, array_.dtype), "shape": list(array_.shape)}
    if array_.flags.f_contiguous and not array_.flags.c_contiguous:
        description["order"] = "F"
        array_ = array_.T
    if array_.nbytes == 0:
        return {NDARRAY_TAG: description, "data": b""}
    data = _bytes_of(np, array_ if array_.flags.c_contiguous else _packed(np, array_))
    return {NDARRAY_TAG: description, "data": bytes(data) if sink is None else sink.add(data, KIND_RAW)}


def decode_ndarray(value: Any) -> Any:
    """Return the array of a tagged dict: writable, owning its memory, in the byte order it had.

    Raises MisfitError when dtype, shape and data do not fit each other or are not allowed.
    """
    import numpy as np

    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, dict) or not is_ndarray_tag(value) or not isinstance(value[NDARRAY_TAG], dict):
        raise MisfitError(f"expected a numpy array, got {type_name(value)}")
    description = value[NDARRAY_TAG]
    data = buffer_of(value["data"])
    shape = _checked_shape(description.get("shape"))
    order = description.get("order", "C")
    if order not in ("C", "F"):
        raise MisfitError("the order of a numpy array is 'C' or 'F'")
    try:
        dtype = _build_dtype(np, description.get("dtype"))
        count = math.prod(shape)
        expected = dtype.itemsize * count
        size = memoryview(data).nbytes
        if size != expected:
            raise MisfitError(f"numpy array of {expected} bytes has {size} bytes of data")
        if expected == 0:
            return np.zeros(shape, dtype, order=order)
        result = np.empty(shape, dtype, order=order)
        # Copied as bytes, so that the padding inside structured items arrives too.
        _bytes_of(np, result.T if order == "F" else result)[:] = memoryview(data).cast("B")
        return result
    except (ValueError, TypeError, OverflowError, MemoryError, SyntaxError, KeyError) as error:
        raise MisfitError(f"malformed numpy array: {error}") from None


def _bytes_of(numpy: Any, contiguous: Any) -> memoryview:
    """Return the memory of a C-contiguous array, seen as bytes because not every dtype has a buffer format."""
    return memoryview(contiguous.reshape(-1).view(numpy.uint8))


def _packed(numpy: Any, strided: Any) -> Any:
    """Return a C-contiguous copy; padding is zero, because what memory held before must not leave this process."""
    copy = numpy.zeros(strided.shape, strided.dtype)
    copy[...] = strided
    return copy


def encode_numpy_scalar(value: Any, sink: Sink | None) -> Any:
    """Return the plain Python value of a numpy scalar; raises MisfitError when it has none."""
    plain = value.item()
    if type(plain) in (bool, int, float, str, bytes):
        return plain
    if type(plain) is complex:
        return [plain.real, plain.imag]
    raise MisfitError(f"{type_name(value)} cannot travel; use an array of it")


def _checked_shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < 2**62 for size in shape):
        raise MisfitError("the shape of a numpy array is a list of sizes")
    return tuple(shape)


def _describe_dtype(numpy: Any, dtype: np.dtype[Any]) -> Any:
    if dtype.hasobject:
        raise MisfitError("numpy arrays of objects cannot travel")
    if dtype.names is not None:
        fields = [dtype.fields[name] for name in dtype.names] if dtype.fields is not None else []
        return {
            "names": list(dtype.names),
            "formats": [_describe_dtype(numpy, field[0]) for field in fields],
            "offsets": [field[1] for field in fields],
            "titles": [_checked_title(field[2] if len(field) > 2 else None) for field in fields],
            "itemsize": dtype.itemsize,
            "aligned": dtype.isalignedstruct,
        }
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": _describe_dtype(numpy, base), "shape": list(shape)}
    if not _SIMPLE_DTYPE.fullmatch(dtype.str) or numpy.dtype(dtype.str) != dtype:
        raise MisfitError(f"numpy arrays of {dtype} cannot travel")
    return dtype.str


def _build_dtype(numpy: Any, description: Any) -> Any:
    if isinstance(description, str):
        if not _SIMPLE_DTYPE.fullmatch(description):
            raise MisfitError("the dtype of a numpy array is not allowed")
        return numpy.dtype(description)
    if not isinstance(description, dict):
        raise MisfitError("the dtype of a numpy array is text or a description of its fields")
    if "base" in description:
        return numpy.dtype((_build_dtype(numpy, description["base"]), _checked_shape(description.get("shape"))))
    names, formats, offsets = (description.get(key) for key in ("names", "formats", "offsets"))
    if not (isinstance(names, list) and isinstance(formats, list) and isinstance(offsets, list)):
        raise MisfitError("a structured dtype has names, formats and offsets")
    titles = description.get("titles") or [None] * len(names)
    if not isinstance(titles, list) or len(titles) != len(names):
        raise MisfitError("a structured dtype has as many titles as names")
    if not len(names) == len(formats) == len(offsets) <= _MAX_DTYPE_FIELDS:
        raise MisfitError(f"a structured dtype has as many formats and offsets as names, at most {_MAX_DTYPE_FIELDS}")
    return numpy.dtype(
        {
            "names": names,
            "formats": [_build_dtype(numpy, item) for item in formats],
            "offsets": offsets,
            "titles": [_checked_title(title) for title in titles],
            "itemsize": description.get("itemsize"),
        },
        align=description.get("aligned") is True,
    )


def _checked_title(title: Any) -> str | None:
    if title is not None and not isinstance(title, str):
        raise MisfitError("the title of a dtype field is text")
    return title


# --- array.array ----------------------------------------------------------------------------------------------------


def encode_array(value: array.array[Any], sink: Sink | None) -> dict[str, Any]:
    """Return an `array.array` of numbers as tagged raw bytes; raises MisfitError for arrays of characters."""
    if value.typecode not in _SIGNED + _UNSIGNED + _FLOATING:
        raise MisfitError(f"array.array({value.typecode!r}) cannot travel; use str")
    description = {"typecode": value.typecode, "itemsize": value.itemsize, "byteorder": sys.byteorder}
    data: Any = value.tobytes() if sink is None else sink.add(memoryview(value).cast("B"), KIND_RAW)
    return {ARRAY_TAG: description, "data": data}


def decode_array(value: Any) -> array.array[Any]:
    """Return the `array.array` of a tagged dict; raises MisfitError when description and data do not fit."""
    if isinstance(value, array.array):
        return value
    if not isinstance(value, dict) or not is_array_tag(value) or not isinstance(value[ARRAY_TAG], dict):
        raise MisfitError(f"expected an array.array, got {type_name(value)}")
    description = value[ARRAY_TAG]
    result = _empty_array(description.get("typecode"), description.get("itemsize"))
    data = buffer_of(value["data"])
    if memoryview(data).nbytes % result.itemsize:
        raise MisfitError(f"array.array of {result.itemsize}-byte items has a fraction of one")
    result.frombytes(data)
    byteorder = description.get("byteorder")
    if byteorder not in ("little", "big"):
        raise MisfitError("the byte order of an array.array is 'little' or 'big'")
    if byteorder != sys.byteorder:
        result.byteswap()
    return result


def _empty_array(typecode: Any, itemsize: Any) -> array.array[Any]:
    """Return an array of the same kind and width of number; the letter of a width differs between platforms."""
    if isinstance(typecode, str) and len(typecode) == 1:
        for family in (_SIGNED, _UNSIGNED, _FLOATING):
            if typecode in family:
                for letter in (typecode, *family):
                    candidate: array.array[Any] = array.array(letter)
                    if candidate.itemsize == itemsize:
                        return candidate
    raise MisfitError("unknown kind of array.array")
