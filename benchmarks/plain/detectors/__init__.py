"""The seven detectors of the paper as they are specified, in plain fp32 NCHW PyTorch.

MLCLNet and ALCLNet start with the published weights; the others, which are timed and given weights, with PyTorch's.
"""

from benchmarks.plain.detectors.dnanet import DNANet
from benchmarks.plain.detectors.gglnet import GGLNet
from benchmarks.plain.detectors.lcl import ALCLNet, MLCLNet
from benchmarks.plain.detectors.mshnet import MSHNet
from benchmarks.plain.detectors.repisdnet import RepISDNet
from benchmarks.plain.detectors.sctransnet import SCTransNet

DETECTORS: dict[str, type[MLCLNet | ALCLNet | GGLNet | MSHNet | RepISDNet | DNANet | SCTransNet]] = {
    "mlclnet": MLCLNet,
    "alclnet": ALCLNet,
    "gglnet": GGLNet,
    "mshnet": MSHNet,
    "repisdnet": RepISDNet,
    "dnanet": DNANet,
    "sctransnet": SCTransNet,
}
