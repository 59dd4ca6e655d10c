"""The page of sweep files names every key with its default and invents none, and its example is a sweep."""

import re

import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from tests.repository import ROOT
from tests.tune.small_sweep import write
from tune.spec.sweep_file import SweepSpec, load_sweep

PAGE = (ROOT / "docs" / "sweeps.md").read_text()
OTHERWISE = {
    "name",
    "base",
    "search",
    "constraints",
    "configurations",
    "start",
    "budget.hours",
    "budget.patience",
    "runs.folds",
}  # the page says it in words


def keys(model: type[BaseModel], prefix: str = ""):
    for name, field in model.model_fields.items():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, BaseModel):
            yield from keys(part, f"{name}.")
        else:
            yield prefix + name, None if field.default is PydanticUndefined else field.default


def test_every_key_stands_on_the_page_with_its_default():
    rows = dict(re.findall(r"^\| `([a-z._]+)` \|([^|\n]*)\|[^|\n]+\|$", PAGE, re.MULTILINE))
    expected = dict(keys(SweepSpec))
    assert set(rows) == set(expected)
    for key, default in expected.items():
        if key not in OTHERWISE:
            assert yaml.safe_load(rows[key] or "null") == default, key


def test_the_example_is_a_sweep(tmp_path):
    example = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    spec = load_sweep(write(tmp_path, example.group(1)), {})
    assert spec.search["scam.scale"].when == {"scam.stages": "nonempty"}
