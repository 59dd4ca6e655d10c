"""A small sweep for tests, as text and as a checked spec."""

from tune.spec.sweep_file import SweepSpec, load_sweep

SWEEP = """\
name: small
data: scenes
base: {preset: quick, detector: alclnet, epochs: 45}
search:
  clusters.count: {int: [1, 128], log: true}
  scam.stages: {subset: all}
  scam.scale: {float: [0.05, 1.0], when: {scam.stages: nonempty}}
  distill.temperature: {float: [1, 8], when: {scam.stages: nonempty}}
objective: {holdout/point_score: max}
sampler: {name: tpe, seed: 0, startup: 4}
scheduler: {name: asha, factor: 3}
budget: {trials: 12, hours: 2}
seeds: 1
resources: {workers: 1, cpus: 1, gpus: 0}
concurrent: auto
failures: {retries: 2}
storage: ./runs
"""


def write(folder, text=SWEEP):
    path = folder / "sweep.yaml"
    path.write_text(text)
    return path


def spec_of(folder, *changes, environment=None, text=SWEEP) -> SweepSpec:
    """The small sweep with ``(old, new)`` texts exchanged."""
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return load_sweep(write(folder, text), environment or {})
