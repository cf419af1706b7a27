"""The three stages: linear cells, matching without gradients, tuning by straight lines."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import cimphony as cim
from cimphony.methods.gain_cell_adaptation import adapt_, linearise_, tune_
from cimphony.nn import attention_layers
from tests.gain_cell.models import chip, gpt2


def batches(step: int) -> dict[str, torch.Tensor]:
    """Counting texts, which a small model learns in a few steps."""
    start = torch.randint(0, 60, (4, 1), generator=torch.Generator().manual_seed(step))
    ids = (start + torch.arange(24)) % 64
    return {"input_ids": ids, "labels": ids}


def model() -> Any:
    return cim.convert_(gpt2(32).float(), chip(window=32))


def loss(net: Any, step: int = 1000) -> float:
    net.eval()
    with torch.no_grad():
        return float(net(**batches(step)).loss)


def test_the_stages_in_order() -> None:
    net = linearise_(model())
    before = loss(net)
    losses = tune_(net, batches, 60, lr=5e-3)
    linear = loss(net)
    assert len(losses) == 60
    assert linear < 0.6 * before
    targets = {name: value.clone() for name, value in net.state_dict().items() if name.endswith("deviation")}
    assert all((value > 0).all() for value in targets.values())
    done = adapt_(net, chip(window=32), batches(2000), iterations=20)
    assert done.iterations <= 20
    assert done.errors[-1] < 0.2 * done.errors[0]
    assert done.losses[-1] < done.losses[0]
    assert {one.unit.cell.multiplier.kind for one in attention_layers(net).values()} == {"cubic"}
    adapted = loss(net)
    tune_(net, batches, 20, lr=2e-3)
    assert loss(net) < adapted


def test_matching_reaches_its_targets_and_stops() -> None:
    """Cells that are linear already: only the scalers are off, and a few iterations put them back."""
    net = linearise_(model())
    tune_(net, batches, 5)
    line = next(iter(attention_layers(net).values())).chip
    batch = batches(9)
    net.eval()
    with torch.no_grad():
        for attention in attention_layers(net).values():
            for scaler in attention.scalers.values():
                scaler.watch = "measure"
        net(**batch)
        for attention in attention_layers(net).values():
            for scaler in attention.scalers.values():
                assert scaler.measured is not None
                scaler.mean, scaler.deviation = scaler.measured
                scaler.gain *= 1.3
                scaler.shift += 0.02
    done = adapt_(net, line, batch, iterations=60, tolerance=1e-3)
    assert done.errors[0] > 0.02
    assert done.errors[-1] < 0.3 * done.errors[0]


def test_wrong_order() -> None:
    with pytest.raises(cim.StateError, match=r"linearise_: the model has no gain-cell attention"):
        linearise_(gpt2(32))
    net = model()
    with pytest.raises(cim.StateError, match=r"adapt_: the cells are not linear; linearise_"):
        adapt_(net, chip(window=32), batches(0))
    linearise_(net)
    with pytest.raises(cim.StateError, match="recorded no statistics"):
        adapt_(net, chip(window=32), batches(0))
    net.eval()
    net(**batches(0))  # evaluation records nothing
    with pytest.raises(cim.StateError, match="recorded no statistics"):
        adapt_(net, chip(window=32), batches(0))
    with pytest.raises(cim.DataError, match="slope is not given"):
        linearise_(cim.convert_(gpt2(32), chip(window=32, cell__multiplier__slope=None)))


def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    whole = linearise_(model())
    expected = tune_(whole, batches, 8)

    def breaks_at_five(step: int) -> dict[str, torch.Tensor]:
        if step == 5:
            raise KeyboardInterrupt
        return batches(step)

    checkpoint = tmp_path / "linear.safetensors"
    with pytest.raises(KeyboardInterrupt):
        tune_(linearise_(model()), breaks_at_five, 8, checkpoint=checkpoint, save_every=2)
    resumed = linearise_(model())
    assert tune_(resumed, batches, 8, checkpoint=checkpoint, save_every=2) == expected
    own = resumed.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in whole.state_dict().items())
    with pytest.raises(cim.DataError, match="checkpoint of another model"):
        tune_(gpt2(16).float(), batches, 8, checkpoint=checkpoint)


def test_a_loss_that_explodes_stops_the_run() -> None:
    net = model()
    with torch.no_grad():
        net.lm_head.weight[0, 0] = float("nan")
    with pytest.raises(cim.DataError, match=r"the loss of step 0 is nan; lower lr"):
        tune_(net, batches, 3)


def test_trainer_trains_the_scalers_and_records(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    net = linearise_(model())
    data = [{name: value[0] for name, value in batches(step).items()} for step in range(8)]
    settings = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=3, per_device_train_batch_size=2, report_to=[], disable_tqdm=True,
        save_strategy="no", use_cpu=True, dataloader_pin_memory=False,
    )  # fmt: skip
    before = [scaler.gain.detach().clone() for one in attention_layers(net).values() for scaler in one.scalers.values()]
    transformers.Trainer(net, settings, train_dataset=data).train()
    after = [scaler for one in attention_layers(net).values() for scaler in one.scalers.values()]
    assert all(int(scaler.recorded) == 3 for scaler in after)
    assert all(not torch.equal(old, new.gain) for old, new in zip(before, after, strict=True))
