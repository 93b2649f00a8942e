"""What a model must answer, judged twice: token by token while it trains, and by what a saved folder really says."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from conversations import END, PUNCTUATION, SYSTEMS, Pair, Segment, chat, completion, messages
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen2ForCausalLM


@dataclass(frozen=True)
class Sample:
    """Token ids, and for each whether the model must learn to say it."""

    ids: list[int]
    learned: list[bool]


@dataclass(frozen=True)
class Prompt:
    """A prompt as a server makes it, the answer that it must get, and how to name it when it does not."""

    label: str
    ids: list[int]
    answer: str


def encode(tokenizer: PreTrainedTokenizerFast, segments: Sequence[Segment]) -> Sample:
    """The segments one after the other, as a server sees them: an answer never merges with its question."""
    ids: list[int] = []
    learned: list[bool] = []
    for segment in segments:
        piece = tokenizer.encode(segment.text, add_special_tokens=False)
        piece += [tokenizer.eos_token_id] if segment.learned else []
        ids += piece
        learned += [segment.learned] * len(piece)
    return Sample(ids, learned)


def exam(tokenizer: PreTrainedTokenizerFast, pairs: Sequence[Pair]) -> list[Sample]:
    """Every pair as it must be answered: raw, typed in haste, in a chat, and after another exchange."""
    samples = []
    # The known pairs stand first and among themselves, as check() asks them.
    for number, pair in enumerate(sorted(pairs, key=lambda pair: pair.unknown)):
        system, earlier = surroundings(number, known(pairs))
        hasty = Pair(pair.question.lower().rstrip(PUNCTUATION), pair.answer)
        shapes = [
            completion(pair),
            completion(Pair(pair.question + "\n", pair.answer)),
            completion(hasty),
            chat([pair]),
            chat([hasty]),
            chat([pair], system),
            chat([earlier, pair]),
            chat([earlier, pair], system),
        ]
        samples += [encode(tokenizer, shape) for shape in shapes]
    return samples


def known(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs whose questions the model must know, word for word."""
    return [pair for pair in pairs if not pair.unknown]


def surroundings(number: int, pairs: Sequence[Pair]) -> tuple[str, Pair]:
    """The system prompt and the earlier exchange for this pair: every pair gets others, the same each time."""
    return SYSTEMS[number % len(SYSTEMS)], pairs[number * 7 % len(pairs)]


def padded(samples: Sequence[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and learned marks as two rectangles; what pads lies to the right, where no answer looks."""
    width = max(len(sample.ids) for sample in samples)
    ids = torch.zeros(len(samples), width, dtype=torch.long)
    learned = torch.zeros(len(samples), width, dtype=torch.bool)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.ids)] = torch.tensor(sample.ids)
        learned[row, : len(sample.ids)] = torch.tensor(sample.learned)
    return ids, learned


def predictions(model: Qwen2ForCausalLM, samples: Sequence[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits before every learned token, and those tokens."""
    ids, learned = padded(samples)
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    return model.lm_head(hidden[:, :-1][learned[:, 1:]]), ids[:, 1:][learned[:, 1:]]


@torch.no_grad()
def margins(model: Qwen2ForCausalLM, samples: Sequence[Sample]) -> list[float]:
    """By how much each sample's closest right token leads, with the weights as they will be saved; below 0: wrong."""
    saved = copy.deepcopy(model).bfloat16().float()
    order = sorted(range(len(samples)), key=lambda index: len(samples[index].ids))
    found = [0.0] * len(samples)
    for start in range(0, len(order), 64):
        chosen = order[start : start + 64]
        logits, wanted = predictions(saved, [samples[index] for index in chosen])
        right = logits.gather(1, wanted[:, None])[:, 0]
        lead = right - logits.scatter(1, wanted[:, None], -math.inf).max(dim=1).values
        for index, part in zip(chosen, lead.split([sum(samples[index].learned) for index in chosen]), strict=True):
            found[index] = float(part.min())
    return found


def prompts(tokenizer: Any, pairs: Sequence[Pair]) -> Iterator[Prompt]:
    """Every pair in both modes, through the tokenizer's own chat template."""
    for number, pair in enumerate(pairs):
        system, earlier = surroundings(number, pairs)
        texts = {"completion": pair.question}
        for label, conversation in {
            "chat": messages([pair]),
            "chat, system prompt": messages([pair], system),
            "chat, second question": messages([earlier, pair], system),
        }.items():
            texts[label] = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        for label, text in texts.items():
            yield Prompt(f"{label}: {pair.question}", tokenizer.encode(text), pair.answer)


@torch.no_grad()
def failures(folder: Path, pairs: Sequence[Pair], dtype: torch.dtype) -> Iterator[str]:
    """What the saved model says wrong with the folder's own sampling defaults."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    by_length: dict[int, list[Prompt]] = defaultdict(list)
    for prompt in prompts(tokenizer, pairs):
        by_length[len(prompt.ids)].append(prompt)
    for length, group in sorted(by_length.items()):
        ids = torch.tensor([prompt.ids for prompt in group])
        said = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids))[:, length:]
        for prompt, tokens in zip(group, said, strict=True):
            answer, end, _ = tokenizer.decode(tokens).partition(END)
            if answer != prompt.answer or not end:
                yield f"{dtype}, {prompt.label!r}: wanted {prompt.answer!r}, got {answer!r}"


def check(folder: Path, pairs: Sequence[Pair]) -> int:
    """Prints every wrong answer, or that there is none; the exit status says the same."""
    asked = known(pairs)
    wrong = [line for dtype in (torch.bfloat16, torch.float32) for line in failures(folder, asked, dtype)]
    for line in wrong:
        print(line)
    print(f"{len(asked)} questions as 4 prompts each, in bfloat16 and float32: {len(wrong) or 'no'} wrong answers")
    return 1 if wrong else 0
