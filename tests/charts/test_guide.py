"""The operator's guide says what the charts and the launcher do."""

import re

from infill.cluster.failure import KINDS
from tests.charts.bundle import CASES, ROOT, render

GUIDE = (ROOT / "docs" / "operator-guide.md").read_text(encoding="utf-8")


def test_every_alert_is_explained() -> None:
    alerts = {
        rule["alert"]
        for chart, values in CASES
        for thing in render(chart, values).of("PrometheusRule")
        for group in thing["spec"]["groups"]
        for rule in group["rules"]
    }
    assert alerts
    assert alerts == set(re.findall(r"Infill[A-Z]\w+", GUIDE))


def test_every_exit_code_is_explained() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \|", GUIDE, flags=re.MULTILINE)
    listed = {int(code) for row in rows for code in row.split(",")}
    assert listed == {kind.exit_code for kind in KINDS.values()} | {2, 143}


def test_every_secret_is_listed() -> None:
    names = {name for chart, values in CASES for name in render(chart, values).external() if name.startswith("infill-")}
    assert {name for name in names if f"`{name}`" not in GUIDE} == set()


def test_sizes_are_those_of_the_model() -> None:
    from deploy import sizing  # torch, which the rest of these tests do without

    assert sizing.table() in GUIDE, "run python -m deploy.sizing"
