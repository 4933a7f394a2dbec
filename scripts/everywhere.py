"""Compress networks of many kinds and check what becomes of them: a row of a table each.

    python scripts/everywhere.py                                 # all networks, formats and ratios
    python scripts/everywhere.py --only vit_b_16,unet --formats tt,cp --ranks 4x

--only NAMES of networks, by default all
--formats NAMES, by default all
--ranks BUDGETS, by default 4x,10x
--timm NAMES of models of timm, besides
--out FILE, by default results/everywhere.csv; rows that are there are kept

The networks have random weights. Columns: what was asked and reached; ``seconds`` that compress took; ``error``, the
largest difference of the outputs from those of the dense network that holds the cores' weights, relative to their norm;
``gradients``, the share of the parameters that one backward pass reaches; ``loaded``, whether a saved file gives the
same outputs in a network that was just built; or ``refused``, the line that says why nothing was done. transformers and
timm are used where they are installed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas
import torch
import torchvision
from torch import Tensor, nn

import tdcompress
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.formats import FORMATS

TORCHVISION = (
    *(
        "alexnet",
        "densenet121",
        "efficientnet_b0",
        "mnasnet0_5",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "regnet_y_400mf",
    ),
    *("resnet18", "resnet50", "shufflenet_v2_x0_5", "squeezenet1_1", "vgg11"),
    *("convnext_tiny", "vit_b_16", "swin_t"),
)
Made = tuple[nn.Module, tuple[Any, ...]]


class Tagger(nn.Module):
    """Tokens to a tag each."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.rnn = nn.Embedding(5000, 128), nn.LSTM(128, 256, 2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(512, 20)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.rnn(self.table(tokens))[0])


class UNet(nn.Module):
    """Two levels down and up again, by transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 64, 3, 2, 1), nn.Conv2d(64, 128, 3, 2, 1)
        self.deep = nn.Conv2d(128, 128, 3, padding=1)
        self.up2, self.up1 = nn.ConvTranspose2d(128, 64, 4, 2, 1), nn.ConvTranspose2d(128, 64, 4, 2, 1)
        self.out = nn.Conv2d(64, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = torch.relu(self.down1(x))
        deep = torch.relu(self.deep(torch.relu(self.down2(first))))
        return self.out(torch.relu(self.up1(torch.cat([first, torch.relu(self.up2(deep))], 1))))


def volume() -> nn.Module:
    """A network of convolutions along three axes."""
    block = [nn.Conv3d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(32, 64, 3, padding=1), nn.ReLU()]
    return nn.Sequential(
        *block, nn.Conv3d(64, 64, 3, padding=1), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(64, 10)
    )


def of_torchvision(name: str) -> Made:
    """A classifier of torchvision's."""
    return torchvision.models.get_model(name, weights=None), (torch.randn(1, 3, 224, 224),)


def of_timm(name: str) -> Made:
    """A classifier of timm's, for images as it likes them."""
    model = importlib.import_module("timm").create_model(name)
    return model, (torch.randn(1, *model.default_cfg["input_size"]),)


def of_transformers(name: str) -> Made:
    """A small network of the architecture of this name, for 32 tokens."""
    package, tokens = importlib.import_module("transformers"), torch.randint(1000, (1, 32))
    if name == "bert":
        sizes = package.BertConfig(vocab_size=8000, num_hidden_layers=4, hidden_size=384, num_attention_heads=6)
        return package.BertModel(sizes), (tokens,)
    return package.GPT2LMHeadModel(package.GPT2Config(vocab_size=8000, n_layer=4, n_embd=384, n_head=6)), (tokens,)


def networks(timm: Sequence[str]) -> dict[str, Callable[[], Made]]:
    """Functions that build a network and give the inputs that it takes, by name."""

    found: dict[str, Callable[[], Made]] = {name: partial(of_torchvision, name) for name in TORCHVISION}
    found |= {
        "transformer": lambda: (nn.Transformer(256, 4, 3, 3, 1024, batch_first=True), (torch.randn(1, 20, 256),) * 2),
        "tagger": lambda: (Tagger(), (torch.randint(5000, (1, 30)),)),
        "unet": lambda: (UNet(), (torch.randn(1, 3, 64, 64),)),
        "volume": lambda: (volume(), (torch.randn(1, 3, 8, 32, 32),)),
    }
    if importlib.util.find_spec("transformers"):
        found |= {name: partial(of_transformers, name) for name in ("bert", "gpt2")}
    for name in timm:
        found[f"timm/{name}"] = partial(of_timm, name)
    return found


def tensors(outputs: Any) -> list[Tensor]:
    """The floating-point tensors among what a network gives."""
    if isinstance(outputs, Tensor):
        return [outputs] if outputs.is_floating_point() else []
    values = outputs.values() if hasattr(outputs, "values") else outputs if isinstance(outputs, list | tuple) else ()
    return [tensor for value in values for tensor in tensors(value)]


def distance(found: Any, expected: Any) -> float:
    """The largest relative difference of two networks' outputs; none of what is zero in both."""
    pairs = list(zip(tensors(found), tensors(expected), strict=True))
    return max(float((a - b).norm() / b.norm()) if b.norm() > 0 else float(a.norm()) for a, b in pairs)


def row(make: Callable[[], Made], format: str, rank: str) -> dict[str, Any]:
    """Compress a network and look at what became of it."""
    torch.manual_seed(0)
    model, inputs = make()
    model.eval()
    began = time.perf_counter()
    try:
        tdcompress.compress(model, format, rank, example_inputs=inputs)
    except ConfigError as error:
        return {"seconds": time.perf_counter() - began, "refused": str(error)}
    seconds = time.perf_counter() - began
    counts = tdcompress.report(model).counts
    with torch.no_grad():
        outputs = model(*inputs)
        off = distance(outputs, tdcompress.fold(model, example_inputs=inputs, plan="dense")(*inputs))
    torch.stack([tensor.square().mean() for tensor in tensors(model(*inputs))]).sum().backward()
    trained = [parameter.grad is not None for parameter in model.parameters()]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        tdcompress.save(model, Path(folder, "model.safetensors"))
        again = tdcompress.load(Path(folder, "model.safetensors"), make()[0].eval())
        loaded = distance(again(*inputs), outputs) == 0
    return {
        "seconds": seconds,
        "dense_parameters": counts["dense_parameters"],
        "compression_ratio": counts["compression_ratio"],
        "macs_share": counts["macs"] / max(counts["dense_macs"], 1),
        "error": off,
        "gradients": sum(trained) / len(trained),
        "loaded": loaded,
    }


def main() -> None:
    """Make the rows that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names of networks, by default all")
    parser.add_argument("--formats", default=",".join(name for name, one in sorted(FORMATS.items()) if one.factorised))
    parser.add_argument("--ranks", default="4x,10x")
    parser.add_argument("--timm", default="", help="names of models of timm's, too")
    parser.add_argument("--out", type=Path, default=Path("results/everywhere.csv"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    made = networks(options.timm.split(",") if options.timm else [])
    names = options.only.split(",") if options.only else list(made)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = pandas.read_csv(options.out).to_dict("records") if options.out.exists() else []
    done = {(one["network"], one["format"], one["rank"]) for one in rows}
    for name in names:
        for rank in options.ranks.split(","):
            for format in options.formats.split(","):
                if (name, format, rank) not in done:
                    try:
                        values = row(made[name], format, rank)
                    except Exception as error:  # a fault of ours: to be seen in the table, and the others go on
                        values = {"fault": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
                    rows.append({"network": name, "format": format, "rank": rank, **values})
                    pandas.DataFrame(rows).to_csv(options.out, index=False)
                    print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
