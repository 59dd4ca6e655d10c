"""A processor of the other kind: without bfloat16 where this process has it, with it where this process has none.

Variables make any x86 machine look like one with AVX2 and nothing beyond; they are read once a process, so that another
process has to run there.
"""

import os
import subprocess
import sys

import pytest

from semprior.devices import processor_has_bf16

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
needs_bf16 = pytest.mark.skipif(not processor_has_bf16(), reason="this processor has no bfloat16, which this tests")


def environment():
    """The variables of a process on the other kind of processor."""
    here = {name: value for name, value in os.environ.items() if name not in AVX2}
    return here | {"PYTHONPATH": os.pathsep.join(sys.path)} | (AVX2 if processor_has_bf16() else {})


def semprior_there(*words):
    """What ``semprior WORDS`` prints there."""
    program = [sys.executable, "-m", "semprior", *map(str, words)]
    done = subprocess.run(program, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def require_both_kinds():
    """Skip where both kinds are one: a machine that has no bfloat16 at all, or one that is no x86."""
    program = "from semprior.devices import processor_has_bf16; print(processor_has_bf16())"
    done = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True)
    if done.stdout.strip() == str(processor_has_bf16()):
        pytest.skip("this machine cannot run both with bfloat16 and without")
