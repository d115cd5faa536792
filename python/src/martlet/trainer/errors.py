"""Why a task ends without an update; each has an exit code of the contract."""

from __future__ import annotations

from ..errors import MartletError

OK, FAILED, NO_DATA, NUMERIC, OUT_OF_MEMORY, STOPPED, MODEL_MISMATCH, USAGE = 0, 1, 10, 11, 12, 13, 14, 64


class TrainerError(MartletError):
    """The work cannot be done, or its result not be used."""

    exit_code = FAILED


class NoData(TrainerError):
    """There is nothing to train or judge on."""

    exit_code = NO_DATA


class NumericTrouble(TrainerError):
    """A value is NaN or infinite."""

    exit_code = NUMERIC


class ModelMismatch(TrainerError):
    """The model is not one that this trainer understands."""

    exit_code = MODEL_MISMATCH


class Stopped(TrainerError):
    """Asked to stop before there was anything to send."""

    exit_code = STOPPED


class Usage(TrainerError):
    """The script was started by hand, or lacks a function."""

    exit_code = USAGE
