"""Reads Prometheus' text form strictly: what Prometheus would put up with, and nobody means, is an error here too."""

import re
from dataclasses import dataclass, field
from math import isnan

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
_SAMPLE = re.compile(rf"({NAME})(?:\{{({_LABEL}(?:,{_LABEL})*)\}})? (\S+)")
_PART = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_HEAD = re.compile(rf"# (HELP|TYPE) ({NAME}) (.+)")
_KINDS = {"counter", "gauge", "histogram", "summary"}
_OF_HISTOGRAM = ("_bucket", "_sum", "_count")

Labels = tuple[tuple[str, str], ...]


@dataclass
class Family:
    """A metric: its type, and the value of each sample by the sample's whole name and its labels, sorted."""

    kind: str = ""
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)


def parse(text: str) -> dict[str, Family]:
    """Give the families by name. Raises ValueError for a line that is none, and for what is there twice or apart."""
    assert text.endswith("\n"), "the last line has no end"
    families: dict[str, Family] = {}
    current = ""
    for line in text.splitlines():
        head = _HEAD.fullmatch(line)
        if head:
            word, name, rest = head.groups()
            if name != current and name in families:
                raise ValueError(f"{name} is there twice")
            current = name
            family = families.setdefault(name, Family())
            if word == "TYPE":
                if family.kind or family.samples or rest not in _KINDS:
                    raise ValueError(f"no place for {line}")
                family.kind = rest
        elif not line.startswith("#"):
            _sample(line, current, families)
    for name, family in families.items():
        if family.kind == "histogram":
            _whole(name, family)
    return families


def _sample(line: str, current: str, families: dict[str, Family]) -> None:
    found = _SAMPLE.fullmatch(line)
    if not found:
        raise ValueError(f"no sample: {line}")
    name, written, value = found.groups()
    family = families.get(current)
    own = (current, *(current + end for end in _OF_HISTOGRAM if family and family.kind in ("histogram", "summary")))
    if family is None or name not in own:
        raise ValueError(f"{name} stands below {current}")
    parts = _PART.findall(written or "")
    labels = tuple(sorted((key, re.sub(r"\\(.)", _plain, text)) for key, text in parts))
    if len(dict(labels)) != len(labels) or (name, labels) in family.samples:
        raise ValueError(f"twice: {line}")
    number = float(value)
    if isnan(number) or (family.kind == "counter" and number < 0):
        raise ValueError(f"no count: {line}")
    family.samples[name, labels] = number


def _plain(found: re.Match[str]) -> str:
    return "\n" if found[1] == "n" else found[1]


def _whole(name: str, family: Family) -> None:
    """Each series of a histogram has a sum, a count, and buckets that grow up to it."""
    series: dict[Labels, list[tuple[float, float]]] = {}
    for (sample, labels), value in family.samples.items():
        if sample == f"{name}_bucket":
            limit = float(dict(labels)["le"])
            series.setdefault(tuple(part for part in labels if part[0] != "le"), []).append((limit, value))
    for labels, buckets in series.items():
        counts = [count for _, count in sorted(buckets)]
        last = (max(buckets)[0], counts[-1])
        if counts != sorted(counts) or last != (float("inf"), family.samples[f"{name}_count", labels]):
            raise ValueError(f"{name}{labels}: its buckets do not add up")
        if (f"{name}_sum", labels) not in family.samples:
            raise ValueError(f"{name}{labels} has no sum")


def value(families: dict[str, Family], name: str, **labels: str) -> float:
    """Give one sample; 0 for one that is not there, as a counter's first is."""
    wanted = tuple(sorted(labels.items()))
    return sum(family.samples.get((name, wanted), 0) for family in families.values())
