"""The optimizer and the schedule that a configuration names."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from training import COSINE, SGD, STEPLR, config_in, run_of

from tdcompress.compression.switch import begin_anew
from tdcompress.config.schema import MethodConfig, OptimConfig, TrainConfig
from tdcompress.tensor.errors import ConfigError
from tdcompress.train.optim.build import build_optimizer, build_scheduler
from tdcompress.train.run import train

pytestmark = pytest.mark.usefixtures("small_images")


@pytest.mark.parametrize(
    ("optim", "message"),
    [
        (OptimConfig(), "optim.optimizer needs a _target_ such as torch.optim.SGD"),
        (OptimConfig({"_target_": "torch.optim.SDG"}), "cannot be imported"),
        (OptimConfig({"_target_": "nowhere.SGD"}), "cannot be imported"),
        (OptimConfig({**SGD, "colour": 1}), "optim.optimizer: .*colour"),
        (OptimConfig({**SGD, "momentum": -1}), "momentum"),
        (OptimConfig({"_target_": "builtins.list"}), "optim.optimizer"),
        (OptimConfig({"_target_": "torch.optim.LBFGS"}), "optim.optimizer: LBFGS.step.* missing .*closure"),
        (OptimConfig({"_target_": "torch.optim.SparseAdam"}), "optim.optimizer: SparseAdam does not support dense"),
        (OptimConfig(SGD, {"_target_": "torch.optim.lr_scheduler.StepLR"}), "step_size"),
        (OptimConfig(SGD, STEPLR, "minute"), "known: "),
    ],
)
def test_optimizer_and_schedule_that_cannot_be(tmp_path, optim, message):
    config = config_in(tmp_path / "results", optim=optim)
    with pytest.raises(ConfigError, match=message) as error:
        train(config, run_of(config), print)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "results").exists()


def test_the_first_step_does_not_wait_for_the_compiler():
    code = """if True:
        import sys, torch
        from tdcompress.config.schema import MethodConfig, OptimConfig, TrainConfig
        from tdcompress.train.optim.build import build_optimizer
        weight = torch.nn.Parameter(torch.ones(2))
        config = TrainConfig(optim=OptimConfig({"_target_": "torch.optim.AdamW"}))
        optimizer = build_optimizer(config, [weight], torch.device("cpu"))
        weight.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        optimizer.load_state_dict(optimizer.state_dict())
        print(weight.tolist() != [1, 1], "torch._dynamo" in sys.modules)
    """
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "True False\n"


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_the_optimizer_is_the_one_of_torch(name):
    weights = [torch.nn.Parameter(torch.linspace(-1, 1, 50)) for _ in range(2)]
    config = TrainConfig(optim=OptimConfig({"_target_": f"torch.optim.{name}", "weight_decay": 0.1}), lr=0.1)
    optimizers = [
        build_optimizer(config, weights[:1], torch.device("cpu")),
        getattr(torch.optim, name)(weights[1:], lr=0.1, weight_decay=0.1, fused=True),
    ]
    for weight, optimizer in zip(weights, optimizers, strict=True):
        for _ in range(5):
            optimizer.zero_grad()
            weight.square().sum().backward()
            optimizer.step()
    assert isinstance(optimizers[0], getattr(torch.optim, name))
    assert torch.equal(*weights)


def test_the_schedule_knows_the_length_of_the_run():
    config = TrainConfig(optim=OptimConfig(SGD, COSINE, "step"), epochs=7, lr=0.2)
    optimizer = build_optimizer(config, [torch.nn.Parameter(torch.zeros(2))], torch.device("cpu"))
    assert optimizer.param_groups[0]["fused"]
    assert optimizer.param_groups[0]["lr"] == 0.2
    assert build_scheduler(config, optimizer, steps_per_epoch=11).T_max == 77
    assert build_scheduler(replace(config, optim=OptimConfig(SGD)), optimizer, 11) is None


@pytest.mark.parametrize(
    "name", ["Adafactor", "Rprop", "NAdam", "ASGD", "RMSprop", "Adagrad", "Adamax", "Adadelta", "AdamW"]
)
def test_any_optimizer_goes_on_after_a_cut(tmp_path, name):
    optim = OptimConfig({"_target_": f"torch.optim.{name}"})
    method = MethodConfig("tt", layout="split")
    config = config_in(tmp_path, method=method, optim=optim, rank="adaptive:8x", lr=0.001, epochs=4, full_rank_epochs=0)
    lines: list[str] = []
    summary = train(config, run_of(config), lines.append)
    assert summary.status == "finished" and sum(line.startswith("cut to ") for line in lines) == 2


@pytest.mark.parametrize("name", ["Adafactor", "Rprop", "NAdam", "AdamW", "SGD"])
def test_what_has_changed_its_shape_begins_anew(name):
    def trained(steps: int, parameter: torch.nn.Parameter, optimizer: torch.optim.Optimizer) -> torch.Tensor:
        for step in range(steps):
            parameter.grad = torch.linspace(-1, 1, parameter.numel()).view_as(parameter) * (step + 1)
            optimizer.step()
        return parameter.detach().clone()

    config = TrainConfig(optim=OptimConfig({"_target_": f"torch.optim.{name}"}), lr=0.01)
    changed, fresh = (torch.nn.Parameter(torch.ones(4, 4)) for _ in range(2))
    optimizer = build_optimizer(config, [changed], torch.device("cpu"))
    trained(3, changed, optimizer)
    changed.data = torch.ones(4, 4)
    begin_anew(optimizer, changed, [changed])
    wanted = trained(2, fresh, build_optimizer(config, [fresh], torch.device("cpu")))
    assert torch.equal(trained(2, changed, optimizer), wanted)
