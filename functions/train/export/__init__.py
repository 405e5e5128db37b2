"""From a trained model to ONNX graphs: export, parity, quantization."""
