"""One A100 in the ways to share it: drawn from the catalogue and the planner, and played as a cluster of three nodes.

Nothing here states a figure: what a part has is what `accelerators.places.granted` says, and what it holds is what
`goldpath plan` would answer.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path

from goldpath.accelerators import catalogue, models
from goldpath.accelerators.fitting import GIB, serving_row, training_row
from goldpath.accelerators.granted import Place, granted
from goldpath.accelerators.plan import MARGIN
from goldpath.accelerators.requests import parse
from goldpath.accelerators.serving_memory import ServingShape
from goldpath.accelerators.training_memory import estimate
from goldpath.accelerators.training_shape import TrainingShape
from tests.accelerators.clusters import node
from tests.kube.server import Server

GPU = catalogue.find("A100-40GB")
MODEL = models.load("Qwen2.5-1.5B")
TOKENS = 1024
CUTS = ("3g.20gb", "2g.10gb", "1g.5gb")
_SMALLEST = TrainingShape(sequence_length=TOKENS, batch_size=1, gradient_checkpointing=True)


@dataclass(frozen=True)
class Way:
    """One way to share the GPU."""

    title: str
    note: str
    request: str
    parts: int
    """As many as are drawn."""
    apart: bool
    """Whether the memory of the parts is kept apart."""

    @property
    def place(self) -> Place:
        """What one part is sure to have."""
        found = granted(parse(self.request))
        assert found is not None, f"{self.request}: how much memory it gives is not known"
        return found


def ways() -> list[Way]:
    """Alone, cut by MIG, in turns, at once."""
    cuts = [
        Way(
            f"Cut into {count} by MIG",
            f"{profile.sms} of {GPU.sms} SMs each, kept apart",
            f"mig:{profile.resource_name}",
            count,
            True,
        )
        for profile, count in ((one, one.instances) for one in map(_profile, CUTS))
    ]
    return [
        Way("Whole", f"{GPU.sms} SMs, one user", f"whole:{GPU.name}", 1, True),
        *cuts,
        Way("Shared in turns", "all SMs, memory not kept apart", f"shared:{GPU.name}", 3, False),
        Way("Shared at once (MPS)", "half of the threads each at most", f"mps:{GPU.name},50%,10Gi", 2, True),
    ]


def _profile(name: str) -> catalogue.Profile:
    return catalogue.check_profile(GPU, name)


def holds(way: Way) -> list[str]:
    """What one part holds, in words: trainings and serving, as the planner has them."""
    place = way.place

    def fits(**given: object) -> bool:
        shape = _SMALLEST.model_copy(update=given)
        return training_row(MODEL, shape, place, MARGIN).fits

    largest = next(n for n in itertools.count() if not fits(batch_size=n + 1))
    told = [] if way.apart else ["While the others hold nothing:"]
    told.append(f"LoRA, up to {largest} x {TOKENS:,} tokens" if largest else "no LoRA")
    told.append("full fine-tuning" if fits(method="full") else "no full fine-tuning")
    served = serving_row(MODEL, ServingShape(), place, 0.0).capacity
    tokens = served.kv_tokens if served else 0
    told.append(f"serving, {tokens:,} tokens of KV cache" if tokens else "no serving with vLLM")
    return told


def page() -> str:
    """The picture as HTML."""
    need = estimate(MODEL, _SMALLEST).total
    rows = "".join(_row(way, need) for way in ways())
    return f"""<style>{_STYLE}</style><main>
<h1>One {escape(GPU.name)}, {len(ways())} ways to use it</h1>
<p>What each part holds of <b>{escape(MODEL.name)}</b>. A bar is the GPU's {GPU.usable_bytes / GIB:.1f} GiB, to scale:
<span><i class="need"></i> a LoRA training of 1 x {TOKENS:,} tokens, with gradient checkpointing,
{need / GIB:.1f} GiB</span>
<span><i class="margin"></i> the margin of {MARGIN:.0%} that stays free</span>
<span><i class="rest"></i> handed to nobody</span></p>
<header><b>How</b><b>Memory</b><b>What to write</b><b>What a part holds, with checkpointing</b></header>
{rows}</main>"""


def _row(way: Way, need: int) -> str:
    place = way.place
    of = place.has if way.apart else place.has // way.parts
    width = 100 * of / GPU.usable_bytes
    fits = need <= place.has * (1 - MARGIN)
    margin = f'<s class="margin" style="width:{100 * MARGIN:.2f}%"></s>' if way.apart else ""
    part = (
        f'<span class="{"part" if way.apart else "part open"}" style="width:{width:.3f}%">'
        f'<s class="{"need" if fits else "need over"}" style="width:{100 * need / of:.2f}%"></s>{margin}</span>'
    )
    each = "each " if way.parts > 1 and way.apart else ""
    kept = f"{each}{place.has / GIB:.1f} GiB" + ("" if way.apart else " between them")
    lines = "".join(
        f'<li class="{"no" if one.startswith("no ") else ""}">{escape(one)}</li>' for one in holds(way)
    )
    return f"""<section><div class="what"><h2>{escape(way.title)}</h2><small>{escape(way.note)}</small></div>
<div><div class="bar">{part * way.parts}</div><small>{kept}</small></div>
<code>{escape(way.request)}</code><ul>{lines}</ul></section>"""


_STYLE = """
* { box-sizing: border-box; margin: 0; }
main { width: 1280px; padding: 26px 30px 14px; background: #fff; color: #1c2128; font: 15px/1.4 system-ui, sans-serif; }
h1 { font-size: 23px; } h2 { font-size: 16px; } small { color: #57606a; font-size: 13px; }
p { margin: 6px 0 18px; color: #40474f; } p span { white-space: nowrap; margin-right: 14px; }
section, header { display: grid; grid-template-columns: 240px 1fr 240px 292px; gap: 22px; align-items: center; }
section { padding: 12px 0; border-top: 1px solid #d8dee4; }
header { padding-bottom: 6px; font-size: 13px; color: #57606a; }
.bar { display: flex; height: 42px; overflow: hidden;
  border-radius: 4px; margin-bottom: 3px; }
.bar, .rest { background: repeating-linear-gradient(90deg, #eef1f4 0 3px, #d9dee3 3px 6px); }
.part { position: relative; height: 100%; background: #e3edf9; border: 2px solid #1f5fa8; border-radius: 4px; }
.part.open { border-style: dashed; border-color: #8a6100; background: #fbf1dc; }
s, i { text-decoration: none; }
s { position: absolute; top: 0; bottom: 0; }
s.need { left: 0; } s.margin { right: 0; }
i { display: inline-block; width: 15px; height: 12px; border-radius: 2px; }
.need { background: #1f5fa8; } .open .need { background: #8a6100; } .over { background: #b42318; }
.margin { background: repeating-linear-gradient(135deg, #1f5fa8 0 2px, #e3edf9 2px 6px); }
code { font: 600 15px ui-monospace, "DejaVu Sans Mono", monospace; color: #0a4a8f; white-space: nowrap; }
ul { list-style: none; padding: 0; font-size: 14px; } li.no { color: #6e7781; }
"""


@contextmanager
def cluster() -> Iterator[Path]:
    """A played cluster of three nodes with this GPU (whole, cut, in turns); the kubeconfig that leads there."""
    product = {"nvidia.com/gpu.product": GPU.labels[0]}
    cut = dict(zip((f"nvidia.com/mig-{name}" for name in CUTS), ("1", "1", "2"), strict=True))
    nodes = [
        node("whole", {"nvidia.com/gpu": "1"}, product),
        node("cut", cut, {**product, "nvidia.com/mig.strategy": "mixed"}),
        node(
            "turns",
            {"nvidia.com/gpu.shared": "4"},
            {**product, "nvidia.com/gpu.sharing-strategy": "time-slicing"},
        ),
    ]
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        for one in nodes:
            server.put({"apiVersion": "v1", "kind": "Node", **one})
        yield server.kubeconfig(Path(folder))
