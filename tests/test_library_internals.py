"""The private names of other libraries: each does what we use it for, and no module reaches for another one."""

import ast
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from semprior.runtime.torch_internals import fused_convolution, onednn_has_bf16
from tests.other_processor import needs_bf16
from tests.repository import ROOT

LIBRARIES = {
    "torch",
    "timm",
    "optuna",
    "typer",
    "click",
    "matplotlib",
    "tensorboardX",
    "numpy",
    "cv2",
    "sklearn",
    "scipy",
}
MODULES = sorted(path for package in ("semprior", "tune") for path in (ROOT / package).rglob("*.py"))


def test_torch_knows_whether_onednn_has_bfloat16():
    assert isinstance(torch.ops.mkldnn._is_mkldnn_bf16_supported(), bool)
    assert onednn_has_bf16() is torch.ops.mkldnn._is_mkldnn_bf16_supported()


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_bf16)])
@pytest.mark.parametrize(
    ("activation", "with_residual"), [("none", False), ("relu", False), ("sigmoid", False), ("relu", True)]
)
def test_torch_fuses_a_convolution_with_residual_and_activation(dtype, activation, with_residual):
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape):
        tensor = torch.randn(shape, generator=generator).to(dtype)
        return tensor.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else tensor

    groups = 1 if with_residual else 2
    x, weight, bias = drawn(2, 16, 12, 10), drawn(32, 16 // groups, 3, 3) / 8, drawn(32)
    residual = drawn(2, 32, 6, 5) if with_residual else None
    shape = {"stride": (2, 2), "padding": (2, 2), "dilation": (2, 2), "groups": groups}
    found = fused_convolution(x, weight, bias, **shape, activation=activation, residual=residual)
    expected = F.conv2d(x.double(), weight.double(), bias.double(), **shape)
    expected = expected if residual is None else expected + residual.double()
    expected = {"none": lambda y: y, "relu": torch.relu, "sigmoid": torch.sigmoid}[activation](expected)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 0.05)


OPTIMIZER = """
import sys
import torch
from semprior.runtime.torch_internals import EagerAdamW

def trained(kind):
    weight = torch.zeros(4, requires_grad=True)
    optimizer = kind([weight], lr=0.1, fused=True)
    for _ in range(3):
        (weight - 1).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        optimizer.load_state_dict(optimizer.state_dict())
    return weight

ours = trained(EagerAdamW)
compiler = "torch._dynamo" in sys.modules
print(compiler, torch.equal(ours, trained(torch.optim.AdamW)))
"""


def test_the_optimizer_is_torchs_without_the_compiler():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", OPTIMIZER], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "False True\n"), done.stderr


@cache
def private_names(path: Path) -> set[str]:
    """Names that begin with one underscore and that a module takes from a library."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname or alias.name.split(".")[0]: alias.name for alias in node.names}
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = ast.unparse(node).partition(".")
            if first in aliases:
                found.add(f"{aliases[first]}.{rest}")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isprintable():
            found.add(node.value)  # modules that strings name, as loggers do
    return {name for name in found if name.split(".")[0] in LIBRARIES and is_private(name)}


def is_private(name: str) -> bool:
    return any((part.startswith("_") and not part.startswith("__")) or part == "__mro__" for part in name.split("."))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_private_names_of_a_library_stand_in_its_one_module(path):
    names = private_names(path)
    if path.name.endswith("_internals.py"):
        assert {name.split(".")[0] for name in names} <= {path.name.removesuffix("_internals.py")}
    else:
        assert names == set()


def test_private_names_are_seen(tmp_path):
    (tmp_path / "module.py").write_text(
        "import torch\nimport typer\nfrom torch.nn.modules.batchnorm import _BatchNorm\nimport timm.models as models\n"
        "from torch import ops\nx = ops.mkldnn._call, torch._foreach_lerp_, typer.BadParameter.__mro__[2]\n"
        "y = models._builder, 'timm.models._builder', torch.nn.Module.__name__, self._own, torch.ops._Op().run\n",
        encoding="utf-8",
    )
    assert private_names(tmp_path / "module.py") == {
        "torch.nn.modules.batchnorm._BatchNorm",
        "torch.ops.mkldnn._call",
        "torch._foreach_lerp_",
        "typer.BadParameter.__mro__",
        "timm.models._builder",
        "torch.ops._Op",
        "torch.ops._Op().run",
    }
