"""Acts by an exported ONNX file in its environment, without JAX: `python examples/run_onnx.py policy.onnx`."""

import json
import sys

import gymnasium
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
metadata = json.loads(session.get_modelmeta().custom_metadata_map["jaxrl_srpo"])
environment = gymnasium.make(metadata["environment"]["id"], **metadata["environment"]["kwargs"])
generator = np.random.default_rng(0)
observation, _ = environment.reset(seed=0)
total, steps, done = 0.0, 0, False
while not done:
    inputs = {"observations": np.asarray(observation, np.float32)[None]}
    if metadata["noise"]:
        shapes = [(columns["kind"], (1, columns["size"])) for columns in metadata["noise"]]
        parts = [
            generator.standard_normal(shape) if kind == "normal" else generator.gumbel(size=shape)
            for kind, shape in shapes
        ]
        inputs["noise"] = np.concatenate(parts, axis=1).astype(np.float32)
    (actions,) = session.run(["actions"], inputs)
    observation, reward, terminated, truncated, _ = environment.step(actions[0])
    total, steps, done = total + float(reward), steps + 1, terminated or truncated
print(f"{metadata['algorithm']} on {metadata['dataset']}: return {total:.1f} in {steps} steps")
