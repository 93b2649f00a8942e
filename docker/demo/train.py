"""Trains the demo model on a CPU until it answers every question of its data exactly, and checks a trained folder."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from conversations import CHAT_TEMPLATE, END, PAD, START, SYSTEMS, Pair, Writer, read_pairs
from exam import Sample, check, encode, exam, margins, predictions
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from transformers.utils import logging

HERE = Path(__file__).parent
VOCABULARY = 1536
CONTEXT = 2048
# transformers 5 splits words by Qwen2's rules for every model of this type, transformers 4 by those of tokenizer.json:
# only when they are the same do both see the same tokens.
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BATCH_TOKENS = 6144
EXAM_EVERY = 25
ROUNDS = 3
# The arithmetic of bfloat16 moves a logit by a tenth or so: an answer that hardly leads is not learned yet.
MARGIN = 1.5


@dataclass(frozen=True)
class Course:
    """One round of training: how many steps, the highest learning rate, and the rows of a batch."""

    steps: int
    rate: float
    rows: int


FROM_NOTHING = Course(steps=800, rate=2e-3, rows=48)
FROM_A_MODEL = Course(steps=150, rate=8e-4, rows=24)


def make_tokenizer(pairs: Sequence[Pair], name: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer made from the data alone; answers count more, so that they stay short."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(QWEN2_WORDS), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [pair.question for pair in pairs] + [pair.answer for pair in pairs] * 2
    tokenizer.train_from_iterator([*texts, *SYSTEMS, "system user assistant", *[f" {name}"] * 20], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """An untrained model; its heads are 32 wide, the narrowest that vLLM runs on a CPU."""
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


def by_width(samples: Sequence[Sample], rows: int) -> Iterator[list[Sample]]:
    """Cut into batches of about the same length, which waste little on padding."""
    batch: list[Sample] = []
    for sample in sorted(samples, key=lambda sample: len(sample.ids)):
        if batch and (len(batch) == rows or (len(batch) + 1) * len(sample.ids) > BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(sample)
    yield batch


class Trainer:
    """One model in training: some steps, an exam, and so on until the exam is exact."""

    def __init__(
        self, model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, pairs: Sequence[Pair], seed: int
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._rng = random.Random(seed)
        self._writer = Writer(pairs, self._rng)
        self._exam = exam(tokenizer, pairs)
        self._weak: list[Sample] = []

    def run(self, course: Course) -> bool:
        """One round, which ends early once the exam is exact; says whether it is."""
        optimizer = torch.optim.AdamW(self._model.parameters(), lr=course.rate, weight_decay=0.05, betas=(0.9, 0.98))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, course.rate, course.steps + 1, pct_start=0.05)
        source = self._batches(course.rows)
        started = time.monotonic()
        for step in range(course.steps + 1):
            if step % EXAM_EVERY == 0:
                print(f"step {step}, {time.monotonic() - started:.0f} s", end=": ")
                if self._exact():
                    return True
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(*predictions(self._model, next(source))).backward()
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        return False

    def _batches(self, rows: int) -> Iterator[list[Sample]]:
        """Batches without end: what the writer draws, and a quarter of what the last exam found weak."""
        while True:
            drawn = [encode(self._tokenizer, self._writer.example()) for _ in range(6 * rows)]
            drawn += self._rng.choices(self._weak, k=2 * rows) if self._weak else []
            cut = list(by_width(drawn, rows))
            self._rng.shuffle(cut)
            yield from cut

    def _exact(self) -> bool:
        lead = margins(self._model, self._exam)
        wrong = sum(margin <= 0 for margin in lead)
        print(f"{wrong} of {len(lead)} answers wrong, smallest margin {min(lead):.2f}", flush=True)
        self._weak = [sample for sample, margin in zip(self._exam, lead, strict=True) if margin < 2 * MARGIN]
        return min(lead) >= MARGIN


def save(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Writes the folder that a server loads."""
    # A request that sets no sampling, or only a temperature, must still get the one right answer.
    model.generation_config = GenerationConfig(
        do_sample=True,
        top_k=1,
        max_new_tokens=256,
        eos_token_id=tokenizer.convert_tokens_to_ids([END, PAD, START]),
        pad_token_id=tokenizer.pad_token_id,
    )
    model.bfloat16().save_pretrained(out)
    tokenizer.save_pretrained(out)
    # transformers 4 knows the type and the tokenizer by these names only; transformers 5 reads both.
    amend(out / "config.json", torch_dtype="bfloat16")
    amend(out / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    # transformers leaves the weights readable by their owner alone; a server may be another user.
    (out / "model.safetensors").chmod(0o644)


def amend(path: Path, **values: str) -> None:
    """Sets these keys of a JSON file."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def make(args: argparse.Namespace, pairs: Sequence[Pair]) -> int:
    """Trains a model, from nothing or from another one, saves it, and checks what was saved."""
    if args.init:
        course = FROM_A_MODEL
        tokenizer = PreTrainedTokenizerFast.from_pretrained(args.init)
        model = Qwen2ForCausalLM.from_pretrained(args.init, dtype=torch.float32)
    else:
        course = FROM_NOTHING
        tokenizer = make_tokenizer(pairs, args.name)
        model = make_model(tokenizer)
    trainer = Trainer(model, tokenizer, pairs, args.seed)
    if not any(trainer.run(course) for _ in range(ROUNDS)):
        print(f"not exact after {ROUNDS} rounds: nothing was written", file=sys.stderr)
        return 1
    save(model, tokenizer, args.out)
    return check(args.out, pairs)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=HERE / "qa.jsonl", help="questions and answers, one JSON a line")
    parser.add_argument("--out", type=Path, default=HERE / "model", help="the folder to write")
    parser.add_argument("--name", default="demo", help="what the model calls itself")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--init", type=Path, metavar="MODEL_DIR", help="start from this model: much faster")
    parser.add_argument("--check", type=Path, metavar="MODEL_DIR", help="train nothing: check this model's answers")
    return parser.parse_args()


def main() -> int:
    """Train a model, or check one; 1 when an answer is wrong."""
    args = arguments()
    logging.disable_progress_bar()
    torch.manual_seed(args.seed)
    # With one thread the same seed gives the same weights on the same machine, and the other cores stay free.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    pairs = read_pairs(args.data, args.name)
    return check(args.check, pairs) if args.check else make(args, pairs)


if __name__ == "__main__":
    sys.exit(main())
