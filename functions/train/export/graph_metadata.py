"""What exporters write into a graph beside what it computes. It imports no torch."""

import onnx


def strip_metadata(model: onnx.ModelProto) -> onnx.ModelProto:
    """Clear, in place, the doc strings and properties that carry stack traces, and so the paths of this machine."""
    graph = model.graph
    described = [*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer, *model.functions]
    for part in [model, graph, *described, *(node for function in model.functions for node in function.node)]:
        part.doc_string = ""
        del part.metadata_props[:]
    return model
