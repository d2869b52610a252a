"""The worker with its weights shared out among processors.

torch and DeepSpeed do that there too; accelerate passes the setting over, which is all that is changed here.
"""

from __future__ import annotations

import sys
from typing import Any

from accelerate import state
from accelerate.utils import DistributedType

from goldpath.training import worker

_begin = state.AcceleratorState.__init__


def _begun(self: Any, *args: Any, **kwargs: Any) -> None:
    """What accelerate does where there are GPUs, after what it does where there are none."""
    _begin(self, *args, **kwargs)
    if (plugin := kwargs.get("fsdp_plugin")) is not None:
        if self._mixed_precision != "no":
            plugin.set_mixed_precision(self._mixed_precision)
        self.fsdp_plugin = plugin
    if (plugin := kwargs.get("deepspeed_plugin")) is not None:
        plugin.set_mixed_precision(self._mixed_precision)
        plugin.select(_from_accelerator_state=True)
        self.deepspeed_plugins = plugin
    if getattr(self, "fsdp_plugin", None) is not None:
        self.distributed_type = DistributedType.FSDP
    if getattr(self, "deepspeed_plugins", None) is not None:
        self.distributed_type = DistributedType.DEEPSPEED


if __name__ == "__main__":
    state.AcceleratorState.__init__ = _begun
    sys.exit(worker.main())
