"""The page of settings lists every leaf with its default, and no others."""

import re

import yaml

from semprior.config.schema import Config, flatten
from tests.repository import ROOT

PAGE = ROOT / "docs" / "configuration.md"


def test_the_page_lists_every_leaf_with_its_default():
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.*?) \| (.+?) \|$", PAGE.read_text(), re.MULTILINE)
    assert {key: yaml.safe_load(default) for key, default, _ in rows} == flatten(Config())
