"""The accountants against dp-accounting and Opacus on 200 random cases, by way of `martlet privacy check-vectors`.

Usage: accountants.py MARTLET. Prints what was compared; where neither library is installed it says so and ends with success.

The seed is fixed. What may be expected of each case:
- Renyi divergences at whole orders: equal to dp-accounting's to 1e-6 of them (or 2e-13).
- At fractional orders: equal to Opacus's to 1e-4; dp-accounting 0.6.0 drops the sign of a generalised binomial there and is
  over, so ours is at most its value.
- Epsilon by loss distributions: between dp-accounting's optimistic and pessimistic answers on its own grid.
"""

import importlib.util
import json
import logging
import os
import random
import subprocess
import sys
import tempfile

CASES = 200
LOSS_CASES = 30
ORDERS = [1.5, 2, 2.5, 3, 4.7, 8, 16, 32, 64]


def opacus():
    """Opacus's arithmetic without Opacus: importing the package needs torch, this file of it numpy and scipy."""
    found = importlib.util.find_spec("opacus")
    if found is None or not found.submodule_search_locations:
        return None
    path = os.path.join(found.submodule_search_locations[0], "accountants", "analysis", "rdp.py")
    spec = importlib.util.spec_from_file_location("opacus_rdp", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ImportError:
        return None
    return module


def google():
    try:
        import dp_accounting
        from dp_accounting.pld import privacy_loss_distribution
        from dp_accounting.rdp import rdp_privacy_accountant
    except ImportError:
        return None
    return dp_accounting, privacy_loss_distribution, rdp_privacy_accountant


def compute(binary, cases):
    """What Martlet computes for each case, by id."""
    document = {"schema": "fl-privacy-vectors/1", "cases": cases}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(document, file)
        file.flush()
        # The expectations in the file are zero on purpose: only the values that are printed are judged, here.
        run = subprocess.run([binary, "privacy", "check-vectors", file.name], capture_output=True, text=True)
    lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    if len(lines) != len(cases):
        sys.exit(f"{len(lines)} answers for {len(cases)} cases: {run.stderr}")
    return {line["id"]: line["computed"] for line in lines}


def main():
    binary = sys.argv[1]
    logging.disable(logging.WARNING)
    peers = (google(), opacus())
    if peers == (None, None):
        print("SKIPPED: neither dp-accounting nor opacus is installed (pip install dp-accounting opacus)")
        return
    generator = random.Random(20250707)
    cases, losses = [], []
    for index in range(CASES):
        q = round(10 ** generator.uniform(-4, -0.05), 6)
        z = round(10 ** generator.uniform(-0.25, 1), 4)
        steps = generator.choice([1, 10, 100, 1000])
        delta = generator.choice([1e-5, 1e-6, 1e-8])
        if index < CASES - LOSS_CASES:
            parameters = {"q": q, "sigma": z, "steps": steps, "orders": ORDERS}
            cases.append({"id": f"rdp-{index}", "kind": "rdp_sampled_gaussian", "params": parameters, "expect": {"rdp": []}})
        else:
            z = max(z, 0.8)
            parameters = {"composition": [{"q": q, "sigma": z, "steps": steps}], "delta": delta, "adjacency": "add_remove"}
            losses.append({"id": f"pld-{index}", "kind": "pld_epsilon", "params": parameters, "expect": {"epsilon": 0}})
    computed = compute(binary, cases + losses)
    problems, compared = [], {}

    def judge(name, holds, text):
        compared[name] = compared.get(name, 0) + 1
        if not holds:
            problems.append(f"{name}: {text}")

    for case in cases:
        p, values = case["params"], computed[case["id"]]["rdp"]
        if peers[0]:
            dp, _, rdp = peers[0]
            accountant = rdp.RdpAccountant(ORDERS)
            event = dp.PoissonSampledDpEvent(p["q"], dp.GaussianDpEvent(p["sigma"]))
            accountant.compose(event, p["steps"])
            for order, ours, theirs in zip(ORDERS, values, accountant._rdp):
                text = f"{p} order {order}: {ours} and {theirs}"
                if order == int(order):
                    judge("dp-accounting rdp", abs(ours - theirs) <= max(2e-13 * p["steps"], 1e-6 * theirs), text)
                else:
                    judge("dp-accounting rdp, fractional", ours <= theirs * (1 + 1e-6) + 2e-13 * p["steps"], text)
        if peers[1]:
            theirs = peers[1].compute_rdp(q=p["q"], noise_multiplier=p["sigma"], steps=p["steps"], orders=ORDERS)
            for order, ours, value in zip(ORDERS, values, theirs):
                # Opacus's logarithms keep about 1e-13 of 1, so the smallest curves are compared to that.
                tolerance = max(1e-12 * p["steps"], 1e-4 * value)
                judge("opacus rdp", abs(ours - value) <= tolerance, f"{p} order {order}: {ours} and {value}")
    for case in losses if peers[0] else []:
        p, ours = case["params"], computed[case["id"]]["epsilon"]
        step = p["composition"][0]

        def theirs(pessimistic):
            loss = peers[0][1].from_gaussian_mechanism(
                step["sigma"],
                sampling_prob=step["q"],
                value_discretization_interval=1e-3,
                pessimistic_estimate=pessimistic,
            )
            return loss.self_compose(step["steps"]).get_epsilon_for_delta(p["delta"])

        low, high = theirs(False), theirs(True)
        # Ours is an upper bound on a finer grid, that is within half a percent of the truth.
        judge("dp-accounting pld", low - 1e-9 <= ours <= high * 1.005 + 1e-6, f"{p}: {ours} not in {low} to {high}")
    print(compared)
    if problems:
        sys.exit(f"{len(problems)} of {sum(compared.values())} comparisons fail:\n" + "\n".join(problems[:20]))


main()
