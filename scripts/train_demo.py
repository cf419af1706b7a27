"""Train the embedded demo model: a byte-level GPT of about a million weights.

The text is `pydoc_data.topics`, the language reference that every Python
carries, so nothing is downloaded. The result is an ordinary Hugging Face
folder. An interrupted run continues from its checkpoint when started again.

    python scripts/train_demo.py
"""

import argparse
import hashlib
import json
import math
import os
import platform
import shutil
import time
from pathlib import Path
from pydoc_data.topics import topics

import torch
import torch.nn.functional as F
import transformers
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

WINDOW = 256
BATCH = 12
PEAK_LR = 2e-3
WARM_UP = 100
WEIGHT_DECAY = 0.1
DROPOUT = 0.1
INITIAL_STD = 0.06  # GPT-2's 0.02 is for wider layers; at width 128 it slows the start
EVALUATE_EVERY = 200
CHECKPOINT = "checkpoint.safetensors"
DEFAULT_OUT = Path(__file__).resolve().parent.parent / "cimphony" / "models" / "demo"


# --- text ------------------------------------------------------------------


def is_validation(name):
    """One topic in six or so; the hash makes the choice the same everywhere."""
    return hashlib.sha256(name.encode()).digest()[0] % 6 == 0


def load_text():
    """Return (training bytes, validation bytes), with no shared paragraphs.

    Topics quote one another (`compound` contains all of `with`), so a split by
    name alone would leak validation text into training. Paragraphs already
    seen are dropped from the training side; short ones ("Note:") may repeat.
    """
    names = sorted(topics)
    validation = "\n\n".join(topics[name] for name in names if is_validation(name))
    seen = {" ".join(paragraph.split()) for paragraph in validation.split("\n\n")}
    kept = []
    for name in names:
        if is_validation(name):
            continue
        for paragraph in topics[name].split("\n\n"):
            key = " ".join(paragraph.split())
            if len(key) >= 60 and key in seen:
                continue
            seen.add(key)
            kept.append(paragraph)
    return "\n\n".join(kept).encode(), validation.encode()


def as_ids(data):
    return torch.tensor(list(data), dtype=torch.long)


def draw_batch(ids, generator):
    starts = torch.randint(0, len(ids) - WINDOW, (BATCH, 1), generator=generator)
    windows = ids[starts + torch.arange(WINDOW + 1)]
    return windows[:, :-1], windows[:, 1:]


# --- model -----------------------------------------------------------------


def build_model():
    config = GPT2Config(
        vocab_size=256,
        n_positions=WINDOW,
        n_embd=128,
        n_head=2,
        n_layer=5,
        resid_pdrop=DROPOUT,
        embd_pdrop=DROPOUT,
        attn_pdrop=DROPOUT,
        initializer_range=INITIAL_STD,
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=True,
    )
    return GPT2LMHeadModel(config)


def build_tokenizer():
    """A byte-level BPE without merges, numbered so that an id is a byte's value."""
    # The GPT-2 byte alphabet keeps printable Latin-1 bytes as they are and
    # moves the others, in order, to the code points from 256 on.
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [byte for byte in range(256) if byte not in plain]
    symbols = {byte: chr(byte) for byte in plain}
    symbols |= {byte: chr(256 + place) for place, byte in enumerate(moved)}
    tokenizer = Tokenizer(models.BPE(vocab={symbols[byte]: byte for byte in range(256)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=WINDOW,
        clean_up_tokenization_spaces=False,
    )


def build_optimiser(model):
    # Weight decay is for matrices; biases and norms are left alone.
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_LR, betas=(0.9, 0.95))


@torch.no_grad()
def evaluate(model, ids):
    """Mean loss in nats per byte over windows side by side.

    Window k reads bytes 256k to 256k+255 and predicts the byte after each, so
    every byte but the very first is scored exactly once.
    """
    model.eval()
    inputs, targets = ids[:-1], ids[1:]
    whole = len(inputs) // WINDOW * WINDOW
    pieces = list(
        zip(inputs[:whole].view(-1, WINDOW).split(BATCH), targets[:whole].view(-1, WINDOW).split(BATCH), strict=True)
    )
    if whole < len(inputs):
        pieces.append((inputs[None, whole:], targets[None, whole:]))
    total = 0.0
    for x, y in pieces:
        total += F.cross_entropy(model(x).logits.flatten(0, 1), y.flatten(), reduction="sum").item()
    model.train()
    return total / len(targets)


# --- checkpoint ------------------------------------------------------------


def save_checkpoint(path, model, optimiser, record):
    """Weights and optimiser moments as tensors, the rest as JSON: no pickle."""
    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[name] = parameter.detach()
        for key, value in optimiser.state[parameter].items():
            tensors[f"{key}/{name}"] = value
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, metadata={"record": json.dumps(record)})
    os.replace(temporary, path)


def load_checkpoint(path, model, optimiser, record):
    """Fill model and optimiser from the file; return its record."""
    with safe_open(path, "pt") as file:
        saved = json.loads(file.metadata()["record"])
        for key in ("seed", "target_steps", "text_sha256"):
            if saved[key] != record[key]:
                raise SystemExit(f"{path} is from a run with another {key}; delete it to start afresh.")
        for name, parameter in model.named_parameters():
            parameter.data.copy_(file.get_tensor(name))
            keys = ("step", "exp_avg", "exp_avg_sq")
            optimiser.state[parameter] = {key: file.get_tensor(f"{key}/{name}") for key in keys}
    return saved


# --- training --------------------------------------------------------------


def learning_rate(step, progress):
    warm_up = min(1.0, (step + 1) / WARM_UP)
    return PEAK_LR * warm_up * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def train_step(model, optimiser, ids, seed):
    # One seed per step governs batch and dropout, so a resumed run draws what
    # an unbroken one would have drawn.
    torch.manual_seed(seed)
    x, y = draw_batch(ids, torch.Generator().manual_seed(seed))
    loss = F.cross_entropy(model(x).logits.flatten(0, 1), y.flatten())
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    return loss.item()


def train(model, optimiser, train_ids, valid_ids, record, args):
    """Run to the last step, or to the end of the time allowed."""
    checkpoint = args.out / CHECKPOINT
    started = time.monotonic() - record["seconds"]
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    losses = []
    with Progress(*columns) as bar:
        task = bar.add_task("training", total=1.0, completed=record["progress"])
        while record["progress"] < 1.0:
            rate = learning_rate(record["steps"], record["progress"])
            for group in optimiser.param_groups:
                group["lr"] = rate
            losses.append(train_step(model, optimiser, train_ids, args.seed * 1_000_003 + record["steps"]))
            record["steps"] += 1
            record["seconds"] = time.monotonic() - started
            # Whichever of the two limits is nearer drives the cosine, so that
            # a run cut short by the clock still ends at the lowest rate.
            by_clock = record["seconds"] / (60 * args.minutes) if args.minutes else 0.0
            record["progress"] = max(record["progress"], record["steps"] / args.steps, by_clock)
            last = record["progress"] >= 1.0
            if last or record["steps"] % EVALUATE_EVERY == 0:
                point = {
                    "step": record["steps"],
                    "train_loss": round(sum(losses) / len(losses), 4),
                    "validation_loss": round(evaluate(model, valid_ids), 4),
                }
                record["curve"].append(point)
                losses.clear()
                save_checkpoint(checkpoint, model, optimiser, record)
                bar.console.print(point)
            bar.update(task, completed=record["progress"], description=f"step {record['steps']}")


# --- output ----------------------------------------------------------------


def training_record(record, args, model, loss, text_sizes):
    # The output folder is left out of the command: it is a local path.
    minutes = f" --minutes {args.minutes:g}" if args.minutes else ""
    return {
        "command": f"python scripts/train_demo.py --steps {args.steps} --seed {args.seed}{minutes}",
        "seed": args.seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": record["steps"],
        "batch": [BATCH, WINDOW],
        "peak_learning_rate": PEAK_LR,
        "warm_up_steps": WARM_UP,
        "weight_decay": WEIGHT_DECAY,
        "dropout": DROPOUT,
        "initial_std": INITIAL_STD,
        "duration_minutes": round(record["seconds"] / 60, 1),
        "validation_loss": loss,
        "validation_perplexity_per_byte": math.exp(loss),
        "validation_method": "saved float16 weights evaluated in float32; window k reads bytes 256k..256k+255 "
        "and predicts the next byte at each position; every byte but the first is scored once",
        "text": "pydoc_data.topics (the Python language reference), split by topic",
        "text_licence": "Python Software Foundation License, version 2 (PSF-2.0)",
        "text_python": platform.python_version(),
        "text_sha256": record["text_sha256"],
        "training_bytes": text_sizes[0],
        "validation_bytes": text_sizes[1],
        "validation_topics": [name for name in sorted(topics) if is_validation(name)],
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "curve": record["curve"],
    }


def save_tokenizer(folder):
    build_tokenizer().save_pretrained(folder)
    # The class name that both transformers 4 and 5 know; 5 writes its own.
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def publish(model, valid_text, record, args, text_sizes):
    """Write the folder's files beside their place, then move each one in."""
    staging = args.out / "staging"
    shutil.rmtree(staging, ignore_errors=True)
    model.half().save_pretrained(staging)
    save_tokenizer(staging)
    (staging / "eval.txt").write_bytes(valid_text)
    saved = AutoModelForCausalLM.from_pretrained(staging, dtype=torch.float32)
    loss = evaluate(saved, as_ids(valid_text))
    result = training_record(record, args, saved, loss, text_sizes)
    (staging / "training.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for file in sorted(staging.iterdir()):
        file.chmod(0o644)  # safetensors writes 0600, which a package would keep
        os.replace(file, args.out / file.name)
    staging.rmdir()
    (args.out / CHECKPOINT).unlink(missing_ok=True)
    return loss


def parse_arguments():
    parser = argparse.ArgumentParser(description="Train the embedded demo model.")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder for the model")
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=0.0, help="stop by this time at the latest (0: no limit)")
    return parser.parse_args()


def main():
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    train_text, valid_text = load_text()
    torch.manual_seed(args.seed)
    model = build_model()
    optimiser = build_optimiser(model)
    record = {
        "seed": args.seed,
        "target_steps": args.steps,
        "text_sha256": hashlib.sha256(train_text + valid_text).hexdigest(),
        "steps": 0,
        "progress": 0.0,
        "seconds": 0.0,
        "curve": [],
    }
    if (args.out / CHECKPOINT).exists():
        record = load_checkpoint(args.out / CHECKPOINT, model, optimiser, record)
    model.train()
    train(model, optimiser, as_ids(train_text), as_ids(valid_text), record, args)
    loss = publish(model, valid_text, record, args, (len(train_text), len(valid_text)))
    print(f"{record['steps']} steps, validation loss {loss:.4f}, perplexity {math.exp(loss):.3f} per byte")


if __name__ == "__main__":
    main()
