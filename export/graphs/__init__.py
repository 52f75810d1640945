"""Networks as ONNX graphs, exact and fast."""
