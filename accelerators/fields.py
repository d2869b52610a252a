"""Read the fields of a config.json, and say which one is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from goldpath.core.errors import ModelError

_ALIASES = {
    "hidden_size": ("n_embd", "d_model", "n_embed"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("n_head", "n_heads"),
    "num_key_value_heads": ("num_kv_heads", "n_head_kv"),
    "intermediate_size": ("n_inner", "ffn_hidden_size", "block_ff_dim"),
    "max_position_embeddings": ("n_positions", "n_ctx", "max_seq_len"),
    "num_local_experts": ("num_experts", "n_routed_experts", "moe_num_experts"),
    "num_experts_per_tok": ("moe_k", "num_experts_per_token"),
}
_MOST_LAYERS = 10_000
_REMEDY = "Correct it in config.json."


class Fields:
    """A config's values by their usual names, with the family's defaults behind them.

    A field that is null counts as given: in transformers it replaces the default.
    """

    def __init__(
        self, config: Mapping[str, Any], name: str, defaults: Mapping[str, Any] | None = None
    ) -> None:
        self.config, self.name, self.defaults = config, name, dict(defaults or {})

    def replaced(self, **values: Any) -> Fields:
        """The same fields with other values, whatever they are called in the config."""
        old = {other for key in values for other in _ALIASES.get(key, ())}
        kept = {key: value for key, value in self.config.items() if key not in old}
        return Fields({**kept, **values}, self.name, self.defaults)

    def get(self, key: str, default: Any = None) -> Any:
        """The raw value: given, the family's default, or `default`.

        Raises:
            ModelError: it is given under two names, with two values.
        """
        names = [known for known in (key, *_ALIASES.get(key, ())) if known in self.config]
        if not names:
            return self.defaults.get(key, default)
        given = [known for known in names if self.config[known] is not None]
        for other in given[1:]:
            if self.config[other] != self.config[given[0]]:
                told = f"is {_shown(self.config[given[0]])} and {other}, the same by another name, "
                raise self.wrong(given[0], f"{told}{_shown(self.config[other])}", "one value")
        return self.config[given[0]] if given else None

    def size(self, key: str, *, least: int = 1, default: int | None = None) -> int:
        """A whole number of at least `least`.

        Raises:
            ModelError: it is missing and has no default, or is no such number.
        """
        value = self.get(key, default)
        if value is None:
            value = default
        if value is None:
            raise self.wrong(key, "is missing", f"a whole number from {least}")
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.wrong(key, f"is {_shown(value)}", f"a whole number from {least}")
        return value

    def layers(self) -> int:
        """How many layers there are.

        Raises:
            ModelError: it is missing, or no such number.
        """
        count = self.size("num_hidden_layers")
        if count > _MOST_LAYERS:
            raise self.wrong("num_hidden_layers", f"is {count}", f"at most {_MOST_LAYERS}")
        return count

    def optional(self, key: str) -> int | None:
        """As `size`, or None where it is null or missing."""
        return None if self.get(key) is None else self.size(key)

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false.

        Raises:
            ModelError: it is something else.
        """
        value = self.get(key, default)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(key, f"is {_shown(value)}", "true or false")
        return value

    def names(self, key: str, allowed: Mapping[str, Any], length: int) -> list[str] | None:
        """A list of `length` names, each one of `allowed`; None where it is missing.

        Raises:
            ModelError: another length, another name, no list.
        """
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != length:
            given = f"has {len(value)} entries" if isinstance(value, list) else f"is {_shown(value)}"
            raise self.wrong(key, given, f"one entry for each of the {length} layers (num_hidden_layers)")
        for entry in value:
            if not isinstance(entry, str) or entry not in allowed:
                raise self.wrong(key, f"has the entry {_shown(entry)}", ", ".join(allowed))
        return value

    def indices(self, key: str, length: int) -> list[int]:
        """A list of layers, each from 0 to `length` - 1; empty where it is missing.

        Raises:
            ModelError: no list, or something else in it.
        """
        value = self.get(key)
        if value is None:
            return []
        inside = isinstance(value, list) and all(
            isinstance(one, int) and not isinstance(one, bool) and 0 <= one < length for one in value
        )
        if not inside:
            raise self.wrong(key, f"is {_shown(value)}", f"a list of layers from 0 to {length - 1}")
        return list(value)

    def wrong(self, key: str, given: str, allowed: str) -> ModelError:
        """The error for a field."""
        return ModelError(f"config of {self.name}: {key} {given} (allowed: {allowed})", _REMEDY)


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
