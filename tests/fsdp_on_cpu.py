"""Run scripts with FSDP on CPU processes, which torch can and accelerate does not ask it to.

As `accelerate launch --config_file FSDP_CONFIG_WITH_USE_CPU tests/fsdp_on_cpu.py '[["SCRIPT", "ARGUMENT"], ...]'`, one after
the other: the state that accelerate makes for several GPUs, made for several CPU processes.
"""

import json
import runpy
import sys

from accelerate.state import AcceleratorState, DistributedType, PartialState

make_state = AcceleratorState.__init__


def make_state_with_fsdp(state, *args, fsdp_plugin=None, **kwargs):
    make_state(state, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None and state.distributed_type is DistributedType.MULTI_CPU:
        state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        if state._mixed_precision != "no":
            fsdp_plugin.set_mixed_precision(state._mixed_precision)
        state.fsdp_plugin = fsdp_plugin


if __name__ == "__main__":
    AcceleratorState.__init__ = make_state_with_fsdp
    for words in json.loads(sys.argv[1]):
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
        assert AcceleratorState().distributed_type is DistributedType.FSDP
