"""Makes the tables of three hospitals up: data/north.csv and so on, and a part of each that stays out of the training."""

import csv
import pathlib

import numpy as np

COLUMNS = ["age", "pulse", "sodium", "stays", "readmitted"]
# What a patient's figures mean is the same everywhere; who comes is not.
EFFECT, LEVEL = np.array([0.9, 0.6, -0.8, 1.1]), -0.4
HOSPITALS = {"north": (400, [0.8, 0.0, 0.3, -0.2]), "south": (250, [-0.9, 0.4, 0.0, 0.1]), "lake": (120, [0.1, -0.3, -0.7, 1.0])}


def write(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


def main(directory="data"):
    place = pathlib.Path(directory)
    place.mkdir(exist_ok=True)
    generator = np.random.default_rng(1)
    for name, (count, shift) in HOSPITALS.items():
        figures = generator.normal(shift, 1, (count, 4))
        chance = 1 / (1 + np.exp(-(figures @ EFFECT + LEVEL)))
        readmitted = generator.random(count) < chance
        rows = [[*(f"{value:.3f}" for value in patient), int(label)] for patient, label in zip(figures, readmitted)]
        kept = count * 4 // 5
        write(place / f"{name}.csv", rows[:kept])
        write(place / f"{name}-held-out.csv", rows[kept:])


if __name__ == "__main__":
    main()
