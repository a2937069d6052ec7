"""Writes a checkpoint of the shapes of a LLaMA: random bf16 weights in shards, an index, a configuration.

    generate.py DIR [--weights 2e9] [--shards 8] [--seed 0]

Rows have scales of their own and a few columns stand out, as in trained models; the values mean nothing.
"""
import argparse
import json
import os
import struct

import numpy as np

WIDTH, INNER, KEYS, VOCABULARY = 4096, 11008, 1024, 32000
LAYER = [("self_attn.q_proj", WIDTH, WIDTH), ("self_attn.k_proj", KEYS, WIDTH), ("self_attn.v_proj", KEYS, WIDTH),
         ("self_attn.o_proj", WIDTH, WIDTH), ("mlp.gate_proj", INNER, WIDTH), ("mlp.up_proj", INNER, WIDTH),
         ("mlp.down_proj", WIDTH, INNER)]


def tensors(weights):
    """Names and shapes: as many layers as bring the weights nearest to the number asked for."""
    layer = sum(rows * cols for _, rows, cols in LAYER)
    layers = max(1, round((weights - 2 * VOCABULARY * WIDTH) / layer))
    result = [("model.embed_tokens.weight", (VOCABULARY, WIDTH))]
    for i in range(layers):
        prefix = f"model.layers.{i}."
        result += [(f"{prefix}{name}.weight", (rows, cols)) for name, rows, cols in LAYER]
        result += [(prefix + "input_layernorm.weight", (WIDTH,)), (prefix + "post_attention_layernorm.weight", (WIDTH,))]
    return result + [("model.norm.weight", (WIDTH,)), ("lm_head.weight", (VOCABULARY, WIDTH))], layers


def to_bf16(values):
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype("<u2")


def values(shape, random, noise):
    """A tensor's bytes in pieces; `noise` is a block of normal numbers that is read from random places."""
    if len(shape) == 1:
        yield to_bf16((1 + 0.1 * random.standard_normal(shape)).astype(np.float32)).tobytes()
        return
    rows, cols = shape
    columns = np.where(random.random(cols) < 0.002, 6.0, 1.0).astype(np.float32)
    for first in range(0, rows, 1024):
        count = min(1024, rows - first)
        scale = np.exp(0.3 * random.standard_normal((count, 1))).astype(np.float32) * np.float32(0.02)
        start = random.integers(0, noise.size - count * cols)
        yield to_bf16(noise[start:start + count * cols].reshape(count, cols) * scale * columns).tobytes()


def write_shard(path, listed, random, noise):
    header, offset = {}, 0
    for name, shape in listed:
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, shape in listed:
            for piece in values(shape, random, noise):
                file.write(piece)


def split(listed, shards):
    """Consecutive tensors, so that the shards come out about equal."""
    total = sum(int(np.prod(shape)) for _, shape in listed)
    result, done = [[] for _ in range(shards)], 0
    for name, shape in listed:
        result[min(shards - 1, done * shards // total)].append((name, shape))
        done += int(np.prod(shape))
    return [part for part in result if part]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("directory")
    parser.add_argument("--weights", type=float, default=2e9)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    listed, layers = tensors(options.weights)
    parts = split(listed, options.shards)
    random = np.random.default_rng(options.seed)
    noise = random.standard_normal(3 << 24, dtype=np.float32)
    os.makedirs(options.directory, exist_ok=True)
    weight_map = {}
    for i, part in enumerate(parts):
        name = f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors"
        weight_map.update((tensor, name) for tensor, _ in part)
        write_shard(os.path.join(options.directory, name), part, random, noise)
    size = 2 * sum(int(np.prod(shape)) for _, shape in listed)
    with open(os.path.join(options.directory, "model.safetensors.index.json"), "w") as file:
        json.dump({"metadata": {"total_size": size}, "weight_map": weight_map}, file, indent=1)
    with open(os.path.join(options.directory, "config.json"), "w") as file:
        json.dump({"architectures": ["LlamaForCausalLM"], "hidden_size": WIDTH, "intermediate_size": INNER,
                   "num_hidden_layers": layers, "num_attention_heads": 32, "num_key_value_heads": 8,
                   "vocab_size": VOCABULARY}, file, indent=1)
    print(f"{options.directory}: {size // 2} weights in {len(parts)} shards")


if __name__ == "__main__":
    main()
