"""The promises that hold the package together: one arrow, no hidden dependency, no cycle, no file too long to read."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NEEDED = {
    *(
        "cv2",
        "filelock",
        "huggingface_hub",
        "matplotlib",
        "numpy",
        "pyarrow",
        "rich",
        "safetensors",
        "scipy",
        "sklearn",
    ),
    *("timm", "torch", "typer", "threadpoolctl", "yaml"),
}  # huggingface_hub and yaml come with timm, threadpoolctl with scikit-learn
OPTIONAL = {"onnx", "onnxruntime", "onnxscript", "tensorboardX"}  # imported where they are used, never at the top
BLOCKED = {"ray", "tune", "pydantic", *OPTIONAL}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((ROOT / "semprior").rglob("*.py"))}
BOTH = MODULES | {module_name(path): path for path in sorted((ROOT / "tune").rglob("*.py"))}


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(BOTH[name].read_text())


def imported(name: str, node: ast.AST) -> set[str]:
    """Dotted names that a statement of module `name` imports: modules, and what is taken from them."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        package = name if BOTH[name].name == "__init__.py" else name.rpartition(".")[0]
        climbed = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        source = ".".join([*climbed, *([node.module] if node.module else [])])
        return {source} | {f"{source}.{alias.name}" for alias in node.names}
    return set()


def everywhere(name: str) -> set[str]:
    return {target for node in ast.walk(tree(name)) for target in imported(name, node)}


def at_the_top(name: str) -> set[str]:
    """What is imported when the module is; imports inside functions wait until they are called."""
    found, waiting = set(), list(tree(name).body)
    while waiting:
        node = waiting.pop()
        found |= imported(name, node)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += ast.iter_child_nodes(node)
    return found


def foreign(targets: set[str]) -> set[str]:
    heads = {target.split(".")[0] for target in targets}
    return heads - set(sys.stdlib_module_names) - {"semprior"}


@pytest.mark.parametrize("name", MODULES)
def test_only_declared_packages_are_imported(name):
    assert foreign(at_the_top(name)) <= NEEDED
    assert foreign(everywhere(name)) <= NEEDED | OPTIONAL


def test_every_module_imports_without_the_optional_packages():
    program = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({sorted(BLOCKED)!r}))  # None: as if not installed
for name in {list(MODULES)!r}:
    importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_module_needs_itself():
    graph = {name: {target for target in everywhere(name) if target in BOTH} - {name} for name in BOTH}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_no_file_is_too_long_to_read():
    files = [path for folder in ("semprior", "tune", "benchmarks", "tests") for path in (ROOT / folder).rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


@pytest.mark.parametrize("name", BOTH)
def test_nothing_is_unpickled(name):
    assert not {"pickle", "shelve", "dill", "joblib", "cloudpickle"} & everywhere(name)
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load":
            keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
            owner = ast.unparse(node.func.value)
            assert owner != "torch" or keywords.get("weights_only") == "True"
            assert owner != "np" or keywords.get("allow_pickle", "False") == "False"


@pytest.mark.parametrize("name", BOTH)
def test_text_is_utf8_whatever_the_locale(name):
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2]
            words = {word.arg for word in node.keywords}
            modes = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            opens_text = called == "open" and any(mode in ("r", "w", "a", "x", "r+", "a+", "w+") for mode in modes)
            if called in ("read_text", "write_text") or opens_text or words & {"text", "universal_newlines"}:
                assert "encoding" in words, f"{BOTH[name]}:{node.lineno}"
