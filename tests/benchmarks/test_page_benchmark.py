"""The benchmark of a sweep's page writes the page of a sweep that it made up."""

import json

from benchmarks.page import main


def test_a_small_sweep_has_a_page(tmp_path, capfd):
    out = tmp_path / "page.html"
    assert main(["--trials", "4", "--epochs", "8", "--out", str(out), "--json"]) == 0
    figures = json.loads(capfd.readouterr().out)
    assert (figures["trials"], figures["epochs"], figures["passed"]) == (4, 8, True)
    assert figures["cpu_s"] > 0 and figures["memory_mb"] > 0
    assert figures["page_mb"] * 2**20 == out.stat().st_size
    assert "0003" in out.read_text(encoding="utf-8")
