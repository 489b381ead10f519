"""Every rule says both yes and no: the committed figures as they are, and bent so that the verdict must change."""

import copy

import pytest

from paper_checks.core import Verdict, all_checks

CHECKS = all_checks()
REPRODUCED, NOT, CORRECTED = Verdict.REPRODUCED, Verdict.NOT_REPRODUCED, Verdict.CORRECTED


def figures(name: str) -> dict:
    cells = CHECKS[f"alpha_lora.{name}"].finished()
    if not cells:
        pytest.skip("no committed results")
    return copy.deepcopy(cells)


def verdict(name: str, cells: dict) -> Verdict:
    outcome = CHECKS[f"alpha_lora.{name}"].judge(cells)
    assert outcome.summary.endswith(".")
    return outcome.verdict


@pytest.mark.parametrize("quantity", ["mean", "second_moment", "accuracy", "alpha_star", "alpha_bar"])
def test_arbitrary_source(quantity):
    cells = figures("arbitrary_source")
    for figure in cells.values():
        for record in figure["settings"]:
            record["z"] = dict.fromkeys(record["z"], 3.9)
    assert verdict("arbitrary_source", cells) == REPRODUCED
    cells["batch3"]["settings"][4]["z"][quantity] = -4.1
    assert verdict("arbitrary_source", cells) == NOT


@pytest.mark.parametrize("quantity", ["mean", "variance", "accuracy", "alpha_star", "best_accuracy", "closed_form"])
def test_several_sources(quantity):
    cells = figures("several_sources")
    for figure in cells.values():
        for record in figure["settings"]:
            record["z"] = dict.fromkeys(record["z"], 3.9)
    assert verdict("several_sources", cells) == REPRODUCED
    record = cells["batch3"]["settings"][4]
    if quantity == "closed_form":
        record["closed_form"] = 2e-9
    else:
        record["z"][quantity] = 4.1
    assert verdict("several_sources", cells) == NOT


@pytest.mark.parametrize("cell", ["covariance", "losses", "optima", "classes", "elliptical", "subspace"])
@pytest.mark.parametrize(("z", "expected"), [(3.9, REPRODUCED), (4.1, NOT), (float("nan"), NOT)])
def test_beyond(cell, z, expected):
    cells = figures("beyond")
    for figure in cells.values():
        figure["worst"] = [dict.fromkeys(one, 1.0) for one in figure["worst"]]
    cells[cell]["worst"][-1]["alpha_risk" if cell == "optima" else "variance"] = z
    assert verdict("beyond", cells) == expected


@pytest.mark.parametrize(
    ("ours", "code", "expected"), [(3.9, 3.9, REPRODUCED), (3.9, 4.1, CORRECTED), (4.1, 9.0, NOT), (4.1, 0.0, NOT)]
)
def test_ridge_source(ours, code, expected):
    cells = figures("ridge_source")
    places = [cells[name] for name in cells if name != "map"] + cells["map"]["probes"]
    for place in places:
        place["worst_z"] = {"corrected": 0.0, "code": 0.0}
    places[-1]["worst_z"] = {"corrected": ours, "code": code}
    assert verdict("ridge_source", cells) == expected


def bend_star(cells, value, stderr):
    for figure in cells.values():
        figure["worst_z"] = 1.0
    cells["beta0.9"]["alpha_star"].update(value=value, stderr=stderr)
    for beta, printed in (("0.2", 1.64), ("0.5", 4.13)):
        cells[f"beta{beta}"]["alpha_star"].update(value=printed, stderr=stderr)


@pytest.mark.parametrize(
    ("value", "stderr", "expected"),
    [
        (7.471, 0.01, CORRECTED),  # 5.4 errors from the end of [7.525, 7.535]
        (7.53, 0.01, REPRODUCED),
        (7.471, 0.2, Verdict.UNDECIDED),
    ],
)
def test_figure1(value, stderr, expected):
    cells = figures("figure1")
    bend_star(cells, value, stderr)
    assert verdict("figure1", cells) == expected
    cells["beta0.5"]["worst_z"] = 4.1
    assert verdict("figure1", cells) == NOT


def test_figure1_needs_the_printed_labels():
    cells = figures("figure1")
    cells["beta0.2"]["alpha_bar"]["code"] += 0.01
    assert verdict("figure1", cells) == NOT


def test_figure2():
    cells = figures("figure2")
    for figure in cells.values():
        for curve in figure["curves"]:
            for dot in curve["dots"]:
                dot["z"] = 0.0
    assert verdict("figure2", cells) == REPRODUCED
    falling = copy.deepcopy(cells)
    star = falling["ridge"]["curves"][2]["alpha_star"]
    star[10], star[11] = star[11], star[10]
    assert verdict("figure2", falling) == NOT
    cells["arbitrary"]["curves"][1]["dots"][0]["z"] = 4.1
    assert verdict("figure2", cells) == NOT


def test_histograms():
    cells = figures("histograms")
    for figure in cells.values():
        for curve in figure["curves"]:
            curve["n_eff"], curve["distance"]["predicted"] = 10000.0, 0.018  # the rule allows 1.63/100 + 1/400
    assert verdict("histograms", cells) == REPRODUCED
    cells["amazon-book-dvd"]["curves"][0]["distance"]["predicted"] = 0.5
    assert verdict("histograms", cells) == REPRODUCED
    cells["beta0.3"]["curves"][2]["distance"]["predicted"] = 0.019
    assert verdict("histograms", cells) == NOT


@pytest.mark.parametrize("key", ["risk", "star"])
def test_regression(key):
    cells = figures("regression")
    for figure in cells.values():
        for curve in figure["curves"]:
            curve.update(z_risk=[0.0, 3.9], z_star=3.9)
    assert verdict("regression", cells) == REPRODUCED
    cells["n20-p40"]["curves"][1].update({"risk": {"z_risk": [0.0, -4.1]}, "star": {"z_star": -4.1}}[key])
    assert verdict("regression", cells) == NOT


@pytest.mark.parametrize("quantity", ["accuracy", "second_moment"])
def test_regularisation(quantity):
    cells = figures("regularisation")
    for figure in cells.values():
        for curve in figure["curves"]:
            curve.update(z_accuracy=[3.9], z_second_moment=[-3.9])
    assert verdict("regularisation", cells) == REPRODUCED
    cells["p-equals-n"]["curves"][0][f"z_{quantity}"] = [0.0, -4.1]
    assert verdict("regularisation", cells) == NOT


def test_table1_as_committed():
    assert verdict("table1", figures("table1")) == REPRODUCED


def test_table1_tolerates_seeds_but_not_more():
    cells = figures("table1")
    entry = cells["book-dvd-n20"]["replayed"]["plain"]
    entry.update(mean=76.43 + 0.25, deviation=0.06)  # allowed: 3·√(2·0.06²/3) + 0.1 = 0.247
    assert verdict("table1", cells) == NOT
    entry["mean"] = 76.43 + 0.24
    assert verdict("table1", cells) == REPRODUCED


@pytest.mark.parametrize("change", ["beta", "scale", "order"])
def test_table1_can_fail(change):
    cells = figures("table1")
    cell = cells["elec-kitchen-n40"]
    if change == "beta":
        cell["beta"] += 0.01
    elif change == "scale":
        cell["scales"]["paper's α*"] -= 0.01
    else:
        cell["replayed"]["plain"]["mean"] = cell["replayed"]["optimal"]["mean"] + 0.01
    assert verdict("table1", cells) == NOT


@pytest.mark.parametrize(
    ("gain", "expected"), [((1.0, 0.4), REPRODUCED), ((1.0, 0.6), Verdict.UNDECIDED), ((-1.0, 0.4), NOT)]
)
def test_figure3(gain, expected):
    cells = figures("figure3")
    for figure in cells.values():
        figure["gain_over_plain"] = figure["gain_over_target_only"] = [5.0, 0.1]
    cells["dvd-book"]["gain_over_plain"] = list(gain)
    assert verdict("figure3", cells) == expected


@pytest.mark.parametrize(("error", "expected"), [(2.9, REPRODUCED), (3.1, NOT)])
def test_digits(error, expected):
    cells = figures("digits")
    for figure in cells.values():
        for size in figure["sizes"]:
            size["theory"] = [value + error for value in size["value"]]
    assert verdict("digits", cells) == expected


@pytest.mark.parametrize(
    ("gain", "expected"),
    [
        ([-0.2, 0.1], REPRODUCED),  # neither below 0 nor down to −.5, at 2.81 standard errors
        ([-0.3, 0.1], NOT),
        ([-0.25, 0.1], Verdict.UNDECIDED),
    ],
)
def test_digits_alpha_star(gain, expected):
    cells = figures("digits_alpha_star")
    for figure in cells.values():
        for size in figure["sizes"]:
            size["gain"] = [1.0, 0.1]
    cells["69-07"]["sizes"][1]["gain"] = gain
    assert verdict("digits_alpha_star", cells) == expected


def test_partial_results_are_judged_too():
    assert verdict("ridge_source", {"setting1": figures("ridge_source")["setting1"]}) == CORRECTED
    assert verdict("histograms", {"amazon-book-dvd": figures("histograms")["amazon-book-dvd"]}) == Verdict.NOT_RUN
    assert verdict("table1", {"book-dvd-n20": figures("table1")["book-dvd-n20"]}) == REPRODUCED


@pytest.mark.parametrize("column", ["auto", "predicted", "source-only"])
def test_choose_alpha(column):
    cells = figures("choose_alpha")
    assert verdict("choose_alpha", cells) == REPRODUCED
    if column == "auto":  # below every rival on average
        for figure in cells.values():
            figure["columns"]["auto"]["mean"] -= 1.5
    elif column == "predicted":  # off by more than 2 points
        for figure in cells.values():
            figure["predicted"]["mean"] = figure["columns"]["auto"]["mean"] + 2.1
    else:  # one cell more than a point below the untouched source
        figure = next(iter(cells.values()))
        figure["columns"]["source-only"]["mean"] = figure["columns"]["auto"]["mean"] + 1.1
    assert verdict("choose_alpha", cells) == NOT


@pytest.mark.parametrize("shift", [1.2, -1.2])
def test_real_curves(shift):
    cells = figures("real_curves")
    assert verdict("real_curves", cells) == REPRODUCED
    for figure in cells.values():
        for n in ("n20", "n100"):
            lines = figure[n]["lines"]
            lines["corrected"] = [value + 2.0 * shift for value in lines["corrected"]]
    assert verdict("real_curves", cells) == NOT
