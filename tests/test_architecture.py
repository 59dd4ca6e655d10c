"""The promises that hold the packages together: rooms in one order, no circle, no hidden dependency."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.repository import ROOT

NEEDED = {
    *("PIL", "cv2", "filelock", "huggingface_hub", "jinja2", "markupsafe", "matplotlib", "numpy", "platformdirs"),
    *("plotly", "pyarrow", "rich"),
    *("safetensors", "scipy", "sklearn"),
    *("timm", "torch", "typer", "threadpoolctl", "yaml"),
}  # huggingface_hub and yaml come with timm, markupsafe with jinja2, threadpoolctl with scikit-learn
OPTIONAL = {"onnx", "onnxruntime", "onnxscript", "tensorboardX"}  # imported where they are used, never at the top
FLOORS = (
    ("semprior.errors",),
    ("semprior.reading",),
    ("semprior.config", "semprior.io", "semprior.runtime", "semprior.clustering"),
    ("semprior.data", "semprior.kernels"),
    ("semprior.foundation",),
    ("semprior.models", "semprior.labels"),
    ("semprior.evaluation",),
    ("semprior.training", "semprior.deployment"),
    ("semprior.reporting",),
    ("semprior.pages",),
    ("semprior.cli",),
    ("tune.spec",),
    ("tune.store",),
    ("tune.comparison",),
    ("tune.search", "tune.monitor"),
    ("tune.launch", "tune.exporting"),
    ("tune.pages",),
    ("tune.session",),
    ("tune.cli",),
)
"""The rooms, bottom up: each imports only rooms on lower floors."""
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
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
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


def room_of(name: str) -> str:
    """The room that a module lies in; of what lies beside the rooms, the module itself."""
    parts = name.split(".")
    return ".".join(parts[:2])


def arrows() -> dict[str, set[str]]:
    """For every module, the modules of both packages that it imports anywhere."""
    return {name: {target for target in everywhere(name) if target in BOTH} - {name} for name in BOTH}


def test_rooms_import_only_rooms_below_them():
    floors = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    ends = {"semprior.__main__": len(FLOORS), "tune.__main__": len(FLOORS), "semprior": -1, "tune": -1}
    floors |= ends
    upward = {
        f"{name} -> {target}"
        for name, targets in arrows().items()
        for target in targets
        if room_of(name) != room_of(target) and floors[room_of(target)] >= floors[room_of(name)]
    }
    assert upward == set()


def test_every_room_is_on_a_floor():
    found = {room_of(name) for name, path in BOTH.items() if path.parent.parent != ROOT} - {"semprior", "tune"}
    assert found - {"semprior.errors"} <= {room for rooms in FLOORS for room in rooms}


@pytest.mark.parametrize("folder", sorted({path.parent for path in BOTH.values()}))
def test_a_room_holds_at_most_twelve_modules_and_says_what_it_is_for(folder):
    modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= 12
    documentation = ast.get_docstring(tree(module_name(folder / "__init__.py"))) or ""
    assert documentation
    if folder.parent.name in ("semprior", "tune"):
        assert "mport" in documentation  # what it may import


def test_tests_mirror_the_rooms():
    for package in ("semprior", "tune"):
        rooms = {path.name for path in (ROOT / package).iterdir() if (path / "__init__.py").is_file()}
        mirrored = {path.name for path in (ROOT / "tests" / package).iterdir() if path.is_dir()} - {"__pycache__"}
        assert mirrored <= rooms


def test_no_module_imports_itself_through_others():
    graph = arrows()
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("name", BOTH)
def test_nothing_is_unpickled(name):
    assert not {"pickle", "shelve", "dill", "joblib", "cloudpickle"} & everywhere(name)
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load":
            keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
            owner = ast.unparse(node.func.value)
            assert owner != "torch" or keywords.get("weights_only") == "True"
            assert owner != "np" or keywords.get("allow_pickle", "False") == "False"


SINKS = {"semprior.reporting.terminal", "semprior.io.transfer_progress", "tune.monitor.tables"}
"""What writes to a terminal or a table, and makes foreign text visible before."""
TABLES = {"semprior.cli.train", "semprior.reporting.evaluation_tables", "tune.cli.demo", "tune.cli.list_status"}
"""What prints tables of rich whose texts are numbers, our own words, or cells that are visible already."""
DATA_FILES = {"semprior.data.image_tables", "semprior.data.importing.writing"}
"""What writes the tables of a data set, whose names must be read back as they are."""


def prints_foreign_text(name: str, called: str, given: list[str]) -> bool:
    """Whether a call in a module may show text that no function of `semprior.io.foreign_text` has seen."""
    if called == "print":  # JSON escapes what is not ASCII
        return not all("json.dumps(" in text or text == "__version__" for text in given)
    if called.endswith(".print"):
        return name not in TABLES or not all("table" in text for text in given)
    if called in ("csv.writer", "csv.DictWriter"):
        return name not in DATA_FILES and "semprior.io.foreign_text.csv_cell" not in everywhere(name)
    return called in ("sys.stdout.write", "sys.stderr.write")


def test_text_is_shown_only_through_the_functions_that_make_it_visible():
    calls = ((name, node) for name in BOTH for node in ast.walk(tree(name)) if isinstance(node, ast.Call))
    offenders = [
        f"{BOTH[name]}:{node.lineno}"
        for name, node in calls
        if name not in SINKS
        and prints_foreign_text(name, ast.unparse(node.func), [ast.unparse(argument) for argument in node.args])
    ]
    assert offenders == []


PARSERS = {
    *("yaml.safe_load", "yaml.load", "yaml.SafeLoader", "json.load", "json.loads", "csv.reader", "csv.DictReader"),
    *("np.load", "np.loadtxt", "pq.read_table", "pq.ParquetFile"),
    *("safetensors.torch.load", "safetensors.torch.load_file", "load_file"),
    *("cv2.imread", "cv2.imdecode", "Image.open"),
    *("ElementTree.parse", "ElementTree.fromstring", "ElementTree.XML", "ElementTree.iterparse"),
    *("expat.ParserCreate", "minidom.parse", "minidom.parseString"),
}
PARSED_ELSEWHERE = {
    "semprior.io.array_cache": {"np.load"},  # maps arrays of the cache, which is this user's own
    "tune.store.record_files": {"pq.ParquetFile"},  # of bytes whose SHA-256 is checked as they are read
    "tune.launch.autoscaler": {"json.loads"},  # files of Ray's launcher
    "tune.launch.ray_internals": {"json.loads"},
}


@pytest.mark.parametrize("name", [name for name in BOTH if room_of(name) != "semprior.reading"])
def test_what_others_wrote_is_parsed_in_one_room(name):
    called = {ast.unparse(node.func) for node in ast.walk(tree(name)) if isinstance(node, ast.Call)}
    assert called & PARSERS <= PARSED_ELSEWHERE.get(name, set())


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
