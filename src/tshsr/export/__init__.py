"""Export of a trained network as ONNX graphs or `torch.export` programs.

Modules: `graphs` (the parts of a network as functions of tensors), `files` (their files, in either format, and int8).
"""
