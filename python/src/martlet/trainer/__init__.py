"""A trainer of two functions, for `martlet client --trainer-command "python my_trainer.py"`.

    from martlet import trainer

    @trainer.fit
    def fit(weights, task):
        x, y = task.table("label")
        for rows in task.batches(len(y)):
            ...                                   # change weights["weight"] and so on
        return weights, len(y)                    # and, if you like, {"loss": …, "accuracy": …}

    @trainer.evaluate
    def evaluate(weights, task):
        ...
        return len(y), {"loss": loss, "accuracy": accuracy}

    trainer.run()

`weights` are NumPy arrays by name, F32, yours to change. With `@trainer.fit(module=Net)` the function gets a `torch.nn.Module` that `Net()`
made, with the weights in it, and returns only the count, or count and measurements. Measurements are means over the examples.

Clipping, noise and sending are the client's, so no mistake in these functions can break a promise about privacy. What they print goes to
the trainer's log on the device.
"""

from .errors import ModelMismatch, NoData, NumericTrouble, TrainerError
from .process import evaluate, fit, run
from .task import Task, Tensors

__all__ = ["ModelMismatch", "NoData", "NumericTrouble", "Task", "Tensors", "TrainerError", "evaluate", "fit", "run"]
