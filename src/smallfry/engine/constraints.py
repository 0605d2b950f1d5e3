"""What a model may write next: small state machines, one per answer, advanced token by token."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from smallfry.tokenizer import END, TEXT, Tokenizer

_UNSEEN = 0.002  # probability of a value or key that training never showed, up to which a set counts as closed


class Constraint(Protocol):
    """State of one answer that is being written."""

    def allowed(self) -> np.ndarray | None:
        """Ids that may come next, ``(n,)``; None where any may. A single id is forced and costs no choice."""

    def advance(self, token: int) -> None:
        """Take note that ``token`` was written."""


class Trie:
    """A set of token sequences."""

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        self.root: dict[int, Any] = {}
        self._allowed: dict[int, np.ndarray] = {}
        for sequence in sequences:
            node = self.root
            for token in sequence:
                node = node.setdefault(token, {})

    def children(self, node: dict[int, Any]) -> np.ndarray:
        """Ids that continue ``node``; END where nothing does."""
        found = self._allowed.get(id(node))
        if found is None:
            found = self._allowed[id(node)] = np.array(sorted(node) or [END])
        return found


class TrieConstraint:
    """Only the sequences of a trie, each followed by END."""

    def __init__(self, trie: Trie) -> None:
        self.trie = trie
        self.node: dict[int, Any] = trie.root

    def allowed(self) -> np.ndarray:
        """Continuations of what was written."""
        return self.trie.children(self.node)

    def advance(self, token: int) -> None:
        """Go down one edge."""
        self.node = self.node.get(token, {})


class InlineConstraint:
    """Head symbols, then the input's own words with a tag after each.

    Args:
        rules: From `forms.compile_rules`: ``follows`` (first symbol, previous path) -> next ids, ``path_of`` symbol id
            -> path, ``tags`` first symbol -> previous tag -> next tags.
        schedule: What follows the head: the id of a word piece, or -1 where a tag is chosen.
    """

    def __init__(self, rules: dict[str, Any], schedule: Sequence[int]) -> None:
        self.rules, self.schedule = rules, schedule
        self.first, self.previous = -1, ""
        self.tag = -1
        self.at = -1  # place in the schedule; -1 while the head is written

    def allowed(self) -> np.ndarray:
        """The next symbol, word piece or tag."""
        if self.at < 0:
            found = self.rules["follows"].get((self.first, self.previous))
            return np.array([TEXT]) if found is None else found
        if self.at >= len(self.schedule):
            return np.array([END])
        if self.schedule[self.at] >= 0:
            return np.array([self.schedule[self.at]])
        table = self.rules["tags"].get(self.first) or self.rules["tags"][-2]
        found = table.get(self.tag)
        tags: np.ndarray = table[-1] if found is None else found
        return tags

    def advance(self, token: int) -> None:
        """Follow a symbol, a word piece or a tag."""
        if self.at < 0:
            if token == TEXT:
                self.at = 0
                return
            if not self.previous:
                self.first = token
            self.previous = self.rules["path_of"].get(token, "")
        elif self.at < len(self.schedule):
            if self.schedule[self.at] < 0:
                self.tag = token
            self.at += 1


class Speller(Protocol):
    """What turns texts into tokens and back."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""


class WatchConstraint:
    """Anything may be written, a tool writes on where it has something to say, and stop texts end the answer.

    Args:
        speller: The model's tokenizer.
        tool: From the text written so far to what must come next, or None.
        stops: Texts after which nothing more is written.
        end: The token that ends an answer.
        asks: Tokens behind which alone the tool has something to say; None for all.
    """

    def __init__(
        self, speller: Speller, tool: Callable[[str], str | None] | None = None, stops: Sequence[str] = (),
        end: int = END, asks: frozenset[int] | None = None,
    ) -> None:  # fmt: skip
        self._speller, self._tool, self._stops, self._end, self._asks = speller, tool, stops, end, asks
        self._tail = 4 * max(map(len, stops), default=0) + 4  # tokens that hold a stop: a character is at most four
        self._written: list[int] = []
        self._forced: list[int] = []

    def allowed(self) -> np.ndarray | None:
        """The tool's next token, the end after a stop, or anything."""
        return np.array(self._forced[:1]) if self._forced else None

    def advance(self, token: int) -> None:
        """Note a token; after the model's own, look for a stop and ask the tool."""
        self._written.append(token)
        if self._forced:
            self._forced.pop(0)
            return
        if self._stops and cut_at(tail := self._speller.decode(self._written[-self._tail :]), self._stops) != tail:
            self._forced = [self._end]
            return
        if self._tool is None or (self._asks is not None and token not in self._asks):
            return
        said = self._tool(self._speller.decode(self._written))
        if said:
            self._forced = self._speller.encode(said)


def cut_at(text: str, stops: Sequence[str]) -> str:
    """A text up to the first stop in it."""
    return text[: min((at for stop in stops if stop and (at := text.find(stop)) >= 0), default=len(text))]


class JsonConstraint:
    """JSON that fits a schema, through ``llguidance``.

    Args:
        tokenizer: The model's tokenizer.
        schema: A JSON schema (`infer_schema`).
    """

    def __init__(self, tokenizer: Tokenizer, schema: dict[str, Any]) -> None:
        import llguidance

        if tokenizer.compiled is None:
            tokenizer.compiled = llguidance.LLTokenizer(
                tokenizer.hf.to_str(), n_vocab=tokenizer.vocab_size, eos_token=END
            )
        text = json.dumps(schema)
        grammar = f'start: " " json\njson: %json {text}'
        self._matcher = llguidance.LLMatcher(
            tokenizer.compiled, '{"grammars":[{"lark_grammar":' + json.dumps(grammar) + "}]}"
        )
        self._size = tokenizer.vocab_size

    def allowed(self) -> np.ndarray:
        """Tokens that keep the text a prefix of valid JSON."""
        if self._matcher.is_stopped():
            return np.array([END])
        mask = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        return np.flatnonzero(np.unpackbits(mask, bitorder="little")[: self._size])

    def advance(self, token: int) -> None:
        """Consume one token."""
        self._matcher.consume_token(token)


def infer_schema(outputs: Sequence[str], max_enum: int = 64) -> dict[str, Any] | None:
    """A JSON schema that all outputs fit, or None where they are not all JSON objects or all JSON arrays.

    Keys seen in every object are required. Strings and scalars with few distinct values become enumerations, unless so
    many were seen once only that further ones are to be expected; objects with such keys may have any.
    """
    values = []
    for output in outputs:
        try:
            value = json.loads(output)
        except ValueError:
            return None
        if not isinstance(value, dict | list):
            return None
        values.append(value)
    if len({type(value) for value in values}) != 1:
        return None
    return _schema_of(values, max_enum)


def _closed(counts: Counter[str]) -> bool:
    """Whether what was counted is all there is: the chance of something unseen is the share seen once (Good 1953)."""
    return sum(n == 1 for n in counts.values()) <= _UNSEEN * counts.total()


def _schema_of(values: Sequence[Any], max_enum: int) -> dict[str, Any]:
    if all(isinstance(v, dict) for v in values):
        keys: dict[str, list[Any]] = {}
        for value in values:
            for key, child in value.items():
                keys.setdefault(key, []).append(child)
        if not _closed(Counter({key: len(found) for key, found in keys.items()})):
            children = [child for found in keys.values() for child in found]
            return {"type": "object", "additionalProperties": _schema_of(children, max_enum)}
        return {
            "type": "object",
            "properties": {k: _schema_of(v, max_enum) for k, v in keys.items()},
            "required": [k for k, v in keys.items() if len(v) == len(values)],
            "additionalProperties": False,
        }
    if all(isinstance(v, list) for v in values):
        items = [child for value in values for child in value]
        return {"type": "array", "items": _schema_of(items, max_enum)} if items else {"type": "array"}
    distinct = Counter(json.dumps(v, sort_keys=True) for v in values)
    if len(distinct) <= max_enum and len(values) >= 5 * len(distinct) and _closed(distinct):
        return {"enum": [json.loads(v) for v in sorted(distinct)]}
    names = {
        str: "string",
        bool: "boolean",
        int: "integer",
        float: "number",
        type(None): "null",
        dict: "object",
        list: "array",
    }
    types = sorted({names[type(v)] for v in values})
    return {"type": types[0] if len(types) == 1 else types}
