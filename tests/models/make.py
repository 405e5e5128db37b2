"""Writes the graphs of this folder: `python -m tests.models.make`. They are kept, so that the tests need no onnx."""

from pathlib import Path

from onnx import NodeProto, TensorProto, ValueInfoProto, helper, save

FOLDER = Path(__file__).parent
IR_VERSION, OPSET = 10, 18
TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def write(name: str, nodes: list[NodeProto], inputs: list[ValueInfoProto], outputs: list[ValueInfoProto]) -> None:
    """Save one graph as `name`.onnx."""
    graph = helper.make_graph(nodes, name, inputs, outputs)
    model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)])
    save(model, FOLDER / f"{name}.onnx")


def double() -> None:
    """y = x + x, (batch, 3): the smallest model that can be told from another."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "xy")
    write("double", [helper.make_node("Add", ["x", "x"], ["y"])], [x], [y])


def square() -> None:
    """y = x * x, (batch, 3): the same signature as `double`, another answer."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "xy")
    write("square", [helper.make_node("Mul", ["x", "x"], ["y"])], [x], [y])


def logarithm() -> None:
    """y = log(x), (batch, 3): NaN and infinities come out of it."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "xy")
    write("logarithm", [helper.make_node("Log", ["x"], ["y"])], [x], [y])


def echo(datatype: str) -> None:
    """The input comes back, (rows, columns), in each datatype."""
    x, y = (helper.make_tensor_value_info(name, TYPES[datatype], ["rows", "columns"]) for name in "xy")
    write(f"echo-{datatype.lower()}", [helper.make_node("Identity", ["x"], ["y"])], [x], [y])


def pair() -> None:
    """Two inputs that share their batch, two outputs: total = left + right, left comes back as `same`."""
    names = ("left", "right", "total", "same")
    left, right, total, same = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 2]) for n in names)
    nodes = [helper.make_node("Add", ["left", "right"], ["total"]), helper.make_node("Identity", ["left"], ["same"])]
    write("pair", nodes, [left, right], [total, same])


def outer() -> None:
    """product = left times right transposed, both (?, 1): free dimensions without names, which are not the same."""
    left, right, product = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("left", [None, 1]), ("right", [None, 1]), ("product", [None, None]))
    )
    turned = helper.make_node("Transpose", ["right"], ["turned"])
    write("outer", [turned, helper.make_node("Mul", ["left", "turned"], ["product"])], [left, right], [product])


def colours() -> None:
    """The mean of each colour, (batch, 3), as `scores`; the pixels, (batch, 3, height, width), come back beside it."""
    shape: list[int | str] = ["batch", 3, "height", "width"]
    pixels, same = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("pixels", "same"))
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixels"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["scores"]),
        helper.make_node("Identity", ["pixels"], ["same"]),
    ]
    write("colours", nodes, [pixels], [scores, same])


def spots() -> None:
    """Two boxes in each image of 16 x 16, (batch, 7, 2) as YOLOv8's head: centre, size, and the mean of each colour."""
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, 16, 16])
    head = helper.make_tensor_value_info("head", TensorProto.FLOAT, ["batch", 7, 2])
    places = helper.make_tensor("places", TensorProto.FLOAT, [1, 4, 2], [4, 11, 4, 2, 4, 6, 4, 4])
    nodes = [
        helper.make_node("Constant", [], ["boxes"], value=places),
        helper.make_node("Constant", [], ["shape"], value_ints=[0, 3, 1]),
        helper.make_node("Constant", [], ["twice"], value_ints=[1, 1, 2]),
        helper.make_node("Constant", [], ["nothing"], value_float=0.0),
        helper.make_node("GlobalAveragePool", ["pixels"], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "shape"], ["colours"]),
        helper.make_node("Tile", ["colours", "twice"], ["scores"]),
        helper.make_node("ReduceSum", ["colours", "axis"], ["light"], keepdims=1),
        helper.make_node("Mul", ["light", "nothing"], ["zeros"]),
        helper.make_node("Add", ["boxes", "zeros"], ["all"]),
        helper.make_node("Concat", ["all", "scores"], ["head"], axis=1),
    ]
    axis = helper.make_node("Constant", [], ["axis"], value_ints=[1])
    write("spots", [axis, *nodes], [pixels], [head])


def running() -> None:
    """A sum that goes on, (batch, 1): `total` = the samples' sum times `gain`, plus `sum`; as `next` it comes back."""
    samples = helper.make_tensor_value_info("samples", TensorProto.FLOAT, ["batch", "time"])
    total, state, after = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1]) for name in ("total", "sum", "next")
    )
    gain = helper.make_tensor_value_info("gain", TensorProto.INT64, [])
    nodes = [
        helper.make_node("Constant", [], ["axis"], value_ints=[1]),
        helper.make_node("ReduceSum", ["samples", "axis"], ["own"], keepdims=1),
        helper.make_node("Cast", ["gain"], ["factor"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["own", "factor"], ["loud"]),
        helper.make_node("Add", ["loud", "sum"], ["total"]),
        helper.make_node("Identity", ["total"], ["next"]),
    ]
    write("running", nodes, [samples, state, gain], [total, after])


def tokens() -> None:
    """A vector for each token, (batch, tokens, 2): its id and its type, as `last_hidden_state`; the mask comes back."""
    names = ("input_ids", "attention_mask", "token_type_ids", "mask")
    infos = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in names]
    state = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "tokens", 2])
    nodes = [
        helper.make_node("Constant", [], ["axis"], value_ints=[2]),
        helper.make_node("Unsqueeze", ["input_ids", "axis"], ["ids"]),
        helper.make_node("Unsqueeze", ["token_type_ids", "axis"], ["types"]),
        helper.make_node("Concat", ["ids", "types"], ["both"], axis=2),
        helper.make_node("Cast", ["both"], ["last_hidden_state"], to=TensorProto.FLOAT),
        helper.make_node("Identity", ["attention_mask"], ["mask"]),
    ]
    write("tokens", nodes, infos[:3], [state, infos[3]])


def mixed() -> None:
    """Rows that depend on each other, (batch, 3): `centred`, x without the mean of the batch; `shared`, its softmax."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "xy")
    axis = helper.make_node("Constant", [], ["axis"], value_ints=[0])
    mean = helper.make_node("ReduceMean", ["x", "axis"], ["mean"], keepdims=1)
    write("centred", [axis, mean, helper.make_node("Sub", ["x", "mean"], ["y"])], [x], [y])
    write("shared", [helper.make_node("Softmax", ["x"], ["y"], axis=0)], [x], [y])


def endless() -> None:
    """y = x doubled 10^15 times, (batch, 3): an inference that somebody has to stop."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "xy")
    turn = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
    go, on = (helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go", "on"))
    before, after = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("before", "after")
    )
    steps = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["before", "before"], ["after"])]
    body = helper.make_graph(steps, "body", [turn, go, before], [on, after])
    turns = helper.make_node("Constant", [], ["turns"], value_int=10**15)
    write("endless", [turns, helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body)], [x], [y])


if __name__ == "__main__":
    endless()
    double()
    colours()
    spots()
    running()
    tokens()
    square()
    logarithm()
    pair()
    outer()
    mixed()
    for name in TYPES:
        echo(name)
