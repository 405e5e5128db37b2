"""Other servers over the same ONNX file, written as their documentation shows; they run in `.venv-rivals`."""
