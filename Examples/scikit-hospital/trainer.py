"""What each hospital's device runs: a few passes of scikit-learn's SGDClassifier over its own table."""

import numpy as np
from martlet import trainer
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss, roc_auc_score


def classifier(weights, task):
    """The model of the server as an estimator."""
    model = SGDClassifier(loss="log_loss", alpha=1e-4, learning_rate="constant", eta0=task.lr)
    model.coef_, model.intercept_ = weights["coef"], weights["intercept"]
    model.classes_ = np.array([0, 1])
    return model


@trainer.fit
def fit(weights, task):
    x, y = task.table("readmitted")
    model = classifier(weights, task)
    for rows in task.batches(len(y)):
        model.partial_fit(x[rows], y[rows])
    return {"coef": model.coef_, "intercept": model.intercept_}, len(y)


@trainer.evaluate
def evaluate(weights, task):
    x, y = task.table("readmitted")
    chance = classifier(weights, task).predict_proba(x)[:, 1]
    return len(y), {
        "loss": log_loss(y, chance, labels=[0, 1]),
        "accuracy": ((chance > 0.5) == y).mean(),
        "auc": roc_auc_score(y, chance),
    }


trainer.run()
