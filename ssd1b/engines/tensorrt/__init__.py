"""TensorRT and TensorRT-RTX: exported graphs to signed plans, and plans to engines.

    inputs       what an ONNX file takes, and its hash           library      the one door to `tensorrt`, `tensorrt_rtx`
    profiles     ranges of the axes that a plan must serve       builder      graph -> plan bytes
    options      target, options, key of a plan                  quantise     graph -> graph with Q/DQ nodes (ModelOpt)
    signing      nothing unsigned is ever deserialised           plans        the folder of plans
    lease        built once per cluster, not once per replica    ensure       `ensure_plans`, `load_plan`
    buffers      batch buckets, padding, least recently used     lane         streams and captured graphs
    runner       a plan as a function of tensors                 on_tensorrt  UNet, VAE decoder and text towers on it

Built for real, without a GPU, by TensorRT-RTX (the tests do). Running a plan needs a GPU and has never been done: all
that only runs there says so.
"""
