"""A tiny Llama-like model with a real tokenizer, and a training frame: on disk in half a second, no torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HIDDEN, LAYERS, HEADS, KV_HEADS, INNER, VOCAB, POSITIONS = 64, 2, 4, 2, 128, 512, 512
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_KINDS = ["Pod", "Service", "Deployment", "Job", "Secret", "Node", "Ingress", "Lease", "Event", "Role"]
_FIELDS = ["replicas", "selector", "template", "namespace", "image", "ports", "labels", "status", "phase"]
_USES = ["how many copies run", "which objects are chosen", "what each copy looks like", "where it lives"]


def chats(count: int, split: str = "train") -> list[dict[str, object]]:
    """Question and answer chats that a model can learn: the same row for the same split and position."""
    made: list[dict[str, object]] = []
    shift = sum(split.encode())
    for i in range(count):
        kind = _KINDS[(i + shift) % len(_KINDS)]
        field = _FIELDS[(i // len(_KINDS) + shift) % len(_FIELDS)]
        use = _USES[(i * 7 + shift) % len(_USES)]
        question = f"What does the field {field} of {kind} mean?"
        answer = f"The field {field} of a {kind} tells {use}. It is optional and number {i}."
        made.append(
            {
                "id": f"{split}-{i}",
                "question": question,
                "answer": answer,
                "messages": [
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": answer},
                ],
                "source": f"{kind}.{field}",
            }
        )
    return made


def make_frame(folder: Path, rows: int = 60) -> Path:
    """Write train (`rows`), validation and test (a fifth each, at least 4) as Parquet; returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", rows), ("validation", max(4, rows // 5)), ("test", max(4, rows // 5))):
        write_rows(folder / f"{split}.parquet", chats(count, split))
    return folder


def write_rows(path: Path, made: list[dict[str, object]]) -> Path:
    """Write rows with the frame's columns."""
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    text = [(name, pa.string()) for name in ("id", "question", "answer")]
    schema = pa.schema([*text, ("messages", pa.list_(message)), ("source", pa.string())])
    pq.write_table(pa.Table.from_pylist(made, schema=schema), path)
    return path


def make_tiny_model(folder: Path, seed: int = 0) -> Path:
    """Write a random Llama-like model (0.1 million parameters) with a tokenizer and a chat template."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    head = HIDDEN // HEADS

    def weight(*shape: int) -> np.ndarray:
        return random.normal(0, 0.05, shape).astype(np.float32)

    tensors = {
        "model.embed_tokens.weight": weight(VOCAB, HIDDEN),
        "model.norm.weight": np.ones(HIDDEN, np.float32),
    }
    for i in range(LAYERS):
        at = f"model.layers.{i}"
        tensors |= {
            f"{at}.self_attn.q_proj.weight": weight(HEADS * head, HIDDEN),
            f"{at}.self_attn.k_proj.weight": weight(KV_HEADS * head, HIDDEN),
            f"{at}.self_attn.v_proj.weight": weight(KV_HEADS * head, HIDDEN),
            f"{at}.self_attn.o_proj.weight": weight(HIDDEN, HEADS * head),
            f"{at}.mlp.gate_proj.weight": weight(INNER, HIDDEN),
            f"{at}.mlp.up_proj.weight": weight(INNER, HIDDEN),
            f"{at}.mlp.down_proj.weight": weight(HIDDEN, INNER),
            f"{at}.input_layernorm.weight": np.ones(HIDDEN, np.float32),
            f"{at}.post_attention_layernorm.weight": np.ones(HIDDEN, np.float32),
        }
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    _write_config(folder)
    _write_tokenizer(folder)
    return folder


def _write_config(folder: Path) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HIDDEN // HEADS,
        "hidden_act": "silu",
        "max_position_embeddings": POSITIONS,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "vocab_size": VOCAB,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(generation))


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [f"{row['question']} {row['answer']} user assistant system" for row in chats(90)]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": POSITIONS,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(described, indent=2))
