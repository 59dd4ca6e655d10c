"""The published method to the letter, as the slow path that everything fast is held against.

Nothing here imports `semprior`: every module is written from the description of the method alone, in plain fp32 NCHW
PyTorch with Python loops, the VFM run on every crop and the encoder run twice. It is a reference and a stopwatch, not a
library: clarity goes before everything else.
"""
