"""Whether memory grows, judged on made-up series: whatever fills up is flat, whatever goes on is not."""

import json

import numpy as np
import pytest

from benchmarks import memory

GB, MB = 10**9, 10**6


def series(base, *, rise=0.0, filling=0.0, noise=0.0, epochs=memory.EPOCHS):
    """Bytes after each epoch: `rise` MB in each, and `filling` MB that are there in the end, a fifth of them a time."""
    epoch = np.arange(epochs)
    scatter = np.random.default_rng(0).normal(0, noise * MB, epochs)
    return [int(value) for value in base + rise * MB * epoch + filling * MB * (1 - 0.8**epoch) + scatter]


@pytest.mark.parametrize(
    ("private", "growth"),
    [
        (series(2 * GB), pytest.approx(0)),
        (series(2 * GB, noise=10), pytest.approx(0, abs=2)),
        (series(2 * GB, filling=800), pytest.approx(1.2, abs=0.3)),
        (series(2 * GB, rise=-9), pytest.approx(-9)),
        (series(2 * GB, rise=4.9), pytest.approx(4.9)),
    ],
    ids=["flat", "noisy", "saturating", "shrinking", "hardly growing"],
)
def test_what_is_flat(private, growth):
    verdict = memory.judge(private, drawn=False)
    assert verdict == memory.Verdict(growth, memory.GROWTH_MB, 16)
    assert verdict.flat


@pytest.mark.parametrize(
    ("private", "growth"),
    [
        (series(2 * GB, rise=5.1), pytest.approx(5.1)),
        (series(2 * GB, rise=8, noise=10), pytest.approx(8, abs=2)),
        (series(2 * GB, rise=8, filling=800), pytest.approx(9.2, abs=0.3)),
    ],
    ids=["steady", "noisy", "beside what fills up"],
)
def test_what_grows(private, growth):
    verdict = memory.judge(private, drawn=False)
    assert verdict.growth == growth
    assert not verdict.flat


@pytest.mark.parametrize("share", [0.006, 0.02, 0.05])
@pytest.mark.parametrize("drawn", [True, False])
def test_a_few_percent_an_epoch_are_growth_in_a_short_run_too(drawn, share):
    verdict = memory.judge(series(GB, rise=1000 * share, epochs=memory.EPOCHS_DRAWN), drawn)
    assert verdict.judged == 3
    assert verdict.growth == pytest.approx(1000 * share)
    assert not verdict.flat


def test_what_drawn_images_may_add():
    private = [1_270 * MB, 1_340 * MB, 1_340 * MB, 1_338 * MB, 1_343 * MB, 1_347 * MB]
    verdict = memory.judge(private, drawn=True)
    assert (verdict.growth, verdict.allowed) == (pytest.approx(4.5), pytest.approx(0.005 * 1_342.67, abs=0.01))
    assert verdict.flat


@pytest.mark.parametrize(("rise", "code", "word"), [(0, 0, "flat: +0.0"), (30, 1, "GROWS: +30.0")])
@pytest.mark.parametrize(("words", "epochs"), [([], memory.EPOCHS), (["--synthetic", "9"], memory.EPOCHS_DRAWN)])
def test_growth_is_told_and_is_a_failure(monkeypatch, capsys, words, epochs, rise, code, word):
    def trained(function, *arguments):
        if function is memory.draw_data:
            return None
        assert f"epochs={epochs}" in arguments[2]
        private = series(GB, rise=rise, epochs=epochs)
        return memory.Usage(9, private, private, GB, GB, None, epochs - 1)

    monkeypatch.setattr(memory, "apart", trained)
    assert memory.main(words) == code
    assert f"{word} MB an epoch in the last {epochs // 2} (allowed 5." in capsys.readouterr().out
    assert memory.main([*words, "--json"]) == code
    figures = json.loads(capsys.readouterr().out)
    assert (figures["flat"], figures["growth_mb_per_epoch"]) == (code == 0, rise)


@pytest.mark.parametrize(
    "words", [["--epochs", "5"], ["--synthetic", "9", "--epochs", "3"], ["--settings", "epochs=5"], ["--epochs", "0"]]
)
def test_too_few_epochs_are_refused_before_anything_is_drawn_or_trained(monkeypatch, capsys, words):
    monkeypatch.setattr(memory, "apart", lambda *_: pytest.fail("it began"))
    assert memory.main(words) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1
    assert "epochs" in said.err
    assert not said.out
