"""The page of settings names every leaf with its default and invents none."""

import re
from pathlib import Path

import yaml

from semprior.config import Config, flatten

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"


def test_every_leaf_stands_on_the_page_with_its_default():
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.*?) \| (.+?) \|$", PAGE.read_text(), re.MULTILINE)
    assert {key: yaml.safe_load(default) for key, default, _ in rows} == flatten(Config())
