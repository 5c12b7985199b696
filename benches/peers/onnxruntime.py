"""onnxruntime: the network as a graph of Gemm and Relu."""


def exported(work, weights):
    """The network in ONNX's format, as bytes."""
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes, arrays, value = [], [], "x"
    for number, (weight, bias) in enumerate(weights):
        out = "out" if number == len(weights) - 1 else f"sum{number}"
        arrays += [numpy_helper.from_array(weight, f"weight{number}")]
        arrays += [numpy_helper.from_array(bias, f"bias{number}")]
        inputs = [value, f"weight{number}", f"bias{number}"]
        nodes.append(helper.make_node("Gemm", inputs, [out]))
        if out != "out":
            value = f"relu{number}"
            nodes.append(helper.make_node("Relu", [out], [value]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", width])
        for name, width in (("x", work.widths[0]), ("out", work.widths[-1]))
    ]
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], arrays)
    # A format that runtimes have read for years: a new onnx may be ahead of its runtime.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    return model.SerializeToString()


def inference(work, weights, x, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        exported(work, weights), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"x": x})[0]
