"""The page of a sweep says which configuration won, by how much and how sure, what mattered and what it cost."""

import html
import json
import re
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from semprior.pages.blocks import Chart, Choice, Table, Text
from semprior.pages.write import render_page
from semprior.reporting.terminal import console
from tests.tune.made_up import made_up_sweep
from tests.tune.pages.searched import NAMES, searched
from tune.cli.app import main
from tune.launch.target import Target
from tune.monitor.heartbeat import HeartbeatWriter
from tune.pages.curves import best_so_far_chart, curve_charts
from tune.pages.detections import Wanted
from tune.pages.dimensions import Axis, Evaluated, contour_charts, evaluated, parallel_chart, slice_chart, smoothed
from tune.pages.gathered import gather
from tune.pages.page import sweep_page
from tune.pages.ranking import ranking_table, verdict
from tune.pages.report import Request, report
from tune.pages.settings import differences_table
from tune.store.records import Record
from tune.store.results_store import ResultsStore


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return gather(searched(tmp_path_factory.mktemp("searched")))


@pytest.fixture(scope="module")
def page(data):
    return sweep_page(data, Target(), 3, Wanted(), None)


def blocks_of(page, kind):
    return [block for section in page.sections for block in section.blocks if isinstance(block, kind)]


def text_of(page):
    return "\n".join(block.text for block in blocks_of(page, Text))


def test_the_result_says_what_won_by_how_much_and_how_sure(data, page):
    shown = data.ranking.shown
    assert shown[0].entry.trial == "0001"
    difference = shown[0].standings[0].from_base
    told = " ".join(verdict(data))
    assert "Trial 0001 ranks first, with holdout/point_score 0.8000" in told
    assert f"{difference.value:+.4f} ± {difference.error:.4f}" in told
    half = difference.half_width(0.95)
    assert f"95% interval {difference.value - half:+.4f} to {difference.value + half:+.4f}" in told
    assert "larger than chance explains" in told
    assert "with a probability of 100%" in told
    assert "semprior train" in text_of(page)
    facts = dict(page.sections[0].blocks[0].items)
    assert facts["first in the ranking"] == "0001"


def test_a_cheaper_one_that_comes_before_the_best_value_is_explained(data):
    shown = list(data.ranking.shown)
    assert "is ahead" not in " ".join(verdict(data))
    turned = replace(data, ranking=replace(data.ranking, shown=[shown[1], shown[0], *shown[2:]]))
    told = " ".join(verdict(turned))
    assert "Trial 0001 is ahead on the same images, with 0.8000" in told
    assert "costs at least a tenth less" in told


def test_the_ranking_holds_differences_and_settings(data):
    table = ranking_table(data, 3)
    titles = [column.title for column in table.columns]
    assert titles[:6] == ["place", "trial", "point_score", "from the best", "from the preset", "P(best)"]
    assert table.highlighted == {0, 1, 2}
    first = table.rows[0]
    assert first[titles.index("from the best")].text == "0"
    assert "clusters.count = 7" in first[1].hint and "scam.stages = 2" in first[1].hint
    assert [row[1].text for row in table.rows].count("0000") == 1
    values = [row[titles.index("point_score")].value for row in table.rows]
    assert values[0] == max(values)


def test_settings_are_listed_only_where_they_differ_from_the_preset(data):
    table = differences_table(data, 2)
    titles = [column.title for column in table.columns]
    assert titles[:3] == ["setting", "preset quick", "trial 0000"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["clusters.count"][2] == "7"
    assert "data.batch" not in rows  # no configuration changes it
    assert "seed" not in rows


def test_curves_of_all_trials_are_drawn_with_their_settings(data):
    (chart,) = curve_charts(data, 3)
    assert len(chart.figure.data) == 15
    hovers = [trace.hovertemplate for trace in chart.figure.data]
    assert sum("trial 0001, stopped" in hover and "clusters.count = 7" in hover for hover in hovers) == 1
    assert "1 running" in chart.description and "1 stopped" in chart.description


def test_the_best_value_rises_over_the_epochs_that_were_spent(data):
    chart = best_so_far_chart(data)
    (line,) = chart.figure.data
    assert list(line.y) == sorted(line.y)
    assert line.y[-1] == 0.8
    assert line.x[-1] == data.curves.epochs.size == 13 + 24
    assert (np.diff(line.x) >= 0).all()


def test_a_sweep_with_seeds_counts_a_configuration_once_all_of_its_runs_have_ended(tmp_path):
    sweep = made_up_sweep(tmp_path, ("seeds: 1", "seeds: 2"))
    assert best_so_far_chart(gather(sweep)) is None  # no second run has begun


def test_dimensions_that_do_not_apply_have_the_value_of_the_base(data):
    found = evaluated(data)
    assert len(found.numbers) == 15
    labels = {axis.label: axis for axis in found.axes}
    assert {"count", "stages[1]", "stages[3]", "scale"} <= labels.keys()
    assert labels["count"].log and not labels["scale"].log
    assert np.isfinite(labels["scale"].values).all()
    assert labels["stages[2]"].ticks == ("off", "on")
    contours = contour_charts(data, found)
    number = len(found.axes)
    assert len(contours) == number * (number - 1) // 2
    assert len(slice_chart(data, found).figure.layout.xaxis.domain) == 2
    assert len(parallel_chart(data, found).figure.data[0].dimensions) == number + 1


def test_a_contour_is_the_mean_of_what_is_near_and_empty_where_nothing_is():
    from optuna.distributions import FloatDistribution

    across = Axis("x", "x", FloatDistribution(0.0, 1.0), np.array([0.0, 0.0, 1.0]))
    up = Axis("y", "y", FloatDistribution(1.0, 100.0, log=True), np.array([1.0, 100.0, 1.0]))
    found = Evaluated(np.arange(3), np.array([1.0, 2.0, 3.0]), np.ones(3, bool), [across, up])
    x, y, surface = smoothed(found, across, up)
    assert surface.shape == (len(y), len(x))
    np.testing.assert_allclose([surface[0, 0], surface[-1, 0], surface[0, -1]], [1.0, 2.0, 3.0], atol=1e-6)
    assert np.isnan(surface[-1, -1])


def test_cost_and_failures_are_told(data, page):
    tables = {table.caption: table for table in blocks_of(page, Table)}
    machines = tables["Where the trials ran, and on what"]
    assert {row[0] for row in machines.rows} == {"elsewhere", *NAMES}
    assert sum(row[4].value for row in machines.rows) == 37
    faults = tables["What attempts broke off by"]
    assert faults.rows[0][0] == "0000" and faults.rows[0][4] == "lost: <b>node</b>"


def test_names_of_machines_and_reasons_are_text(page):
    text = render_page(page)
    assert "<script>alert" not in text and "<b>node" not in text
    shown = html.unescape(re.sub(r"<[^>]+>", "", text))
    assert all(name in shown for name in (*NAMES, "lost: <b>node</b>"))


def test_every_chart_is_told_in_words(page):
    charts = [*blocks_of(page, Chart), *(chart for one in blocks_of(page, Choice) for _, chart in one.charts)]
    assert len(charts) > 10
    assert all(chart.description for chart in charts)


def test_several_objectives_give_a_pareto_front(tmp_path):
    data = gather(searched(tmp_path, several=True))
    page = sweep_page(data, Target(), 3, Wanted(), None)
    (chart,) = [one for one in blocks_of(page, Chart) if "Pareto" in one.caption]
    front = {entry.entry.trial for entry in data.ranking.shown if entry.entry.front == 1}
    assert {row[0] for row in chart.data.rows} == front
    assert "on the Pareto front" in " ".join(verdict(data))


def test_a_sweep_without_a_value_has_a_page(tmp_path):
    sweep = made_up_sweep(tmp_path)
    (records,) = (sweep.storage.local / "records" / "new").iterdir()
    records.unlink()
    config = {"preset": "quick", "epochs": 6}
    start = Record(kind="start", trial="0000", configuration=0, seed=0, attempt=1, epoch=0, config=config)
    ResultsStore(sweep.storage).append([start])
    page = sweep_page(gather(sweep), Target(), 5, Wanted(), None)
    assert "No trial has a value of holdout/point_score yet." in text_of(page)
    assert "There is no winner yet." in text_of(page)
    assert render_page(page)


def test_pictures_need_data_and_checkpoints_and_the_page_says_so(data, page, tmp_path):
    assert "There are no pictures, because they cannot be made here: no checkpoint of trial 0001 is kept" in text_of(
        page
    )
    elsewhere = sweep_page(data, Target(), 3, Wanted(str(tmp_path / "none")), None)
    assert f"the data, {tmp_path / 'none'}, are not here; --data DIR names them" in text_of(elsewhere)


def test_the_command_writes_one_file_and_opens_it(tmp_path, capsys, monkeypatch):
    sweep, opened = made_up_sweep(tmp_path), []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    assert main(["report", "small", "--storage", str(sweep.storage.local.parent), "--open"]) == 0
    assert set(tmp_path.iterdir()) - before == {tmp_path / "small.html"}
    assert opened == [(tmp_path / "small.html").as_uri()]
    assert "small.html: the page of small" in capsys.readouterr().out
    assert "data-reload" not in (tmp_path / "small.html").read_text(encoding="utf-8").partition("<script")[0]


def test_a_sweep_of_a_cluster_is_read_from_the_storage_of_its_launcher_file(tmp_path):
    sweep, launcher = made_up_sweep(tmp_path), tmp_path / "cluster.yaml"
    storage = f"file://{sweep.storage.local.parent}"
    launcher.write_text(json.dumps({"provider": {"type": "local", "storage": storage}}), encoding="utf-8")
    out = tmp_path / "page.html"
    assert main(["report", "small", "--cluster", str(launcher), "--out", str(out)]) == 0
    assert "Sweep small" in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--out", "runs", "is a folder"),
        ("--out", "none/page.html", "there is no folder"),
        ("--data", "none", "no such folder"),
        ("--split", "night", "must be holdout, train, val or test"),
    ],
)
def test_what_cannot_be_meant_is_one_line(option, value, reason, tmp_path, capsys, monkeypatch):
    made_up_sweep(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["report", "small", "--storage", str(tmp_path / "runs"), option, value]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and reason in error
    assert not (tmp_path / "small.html").exists()


def test_a_page_that_follows_reloads_itself_until_the_sweep_ends(tmp_path):
    sweep, out = made_up_sweep(tmp_path), tmp_path / "page.html"
    target, request = Target(str(sweep.storage.local.parent)), Request("small", out, follow=True)
    with HeartbeatWriter(sweep.storage, 1) as heartbeat:
        following = threading.Thread(target=report, args=(request, target, console(), 0.1))
        following.start()
        until = time.monotonic() + 120
        while not out.exists() and time.monotonic() < until:
            time.sleep(0.05)
        assert '<body data-reload="1"' in out.read_text(encoding="utf-8")
        heartbeat.finish("done", "its budget is spent")
    following.join(120)
    assert not following.is_alive()
    final = out.read_text(encoding="utf-8")
    assert "<body data-reload" not in final and "small is done: its budget is spent" in final
