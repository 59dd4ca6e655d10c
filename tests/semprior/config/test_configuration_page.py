"""The page of settings names every leaf with its default and invents none."""

import re

import yaml

from semprior.config.schema import Config, flatten
from tests.repository import ROOT

PAGE = ROOT / "docs" / "configuration.md"


def test_every_leaf_stands_on_the_page_with_its_default():
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.*?) \| (.+?) \|$", PAGE.read_text(), re.MULTILINE)
    assert {key: yaml.safe_load(default) for key, default, _ in rows} == flatten(Config())
