#!/usr/bin/env python3
"""Writes src/draft/testdata: a tiny Eagle3 (three taps, reduced vocabulary, no QK norm) and a tiny MTP with what they
compute, each row anew from the whole text before it.

    tools/make_draft_testdata.py            needs PyTorch and safetensors

Weights are under llama.cpp's names (src/load/drafter_files.h). io.taps [N, taps * D], io.next [N]: the observed rows.
io.chain [K]: the drafts that are fed back. <case>.states [N, D]: y of the observed rows; <case>.logits [K, head rows]:
before draft k; greedy.chain [K]: what greedy drafting gives, as the target numbers tokens.
"""
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

D, HEADS, KV_HEADS, HEAD_DIM, FFN, VOCAB, DRAFT_VOCAB, EPS, THETA = 16, 2, 1, 8, 24, 40, 20, 1e-5, 10000.0
N, K = 12, 4  # observed rows, drafts
OUT = pathlib.Path(__file__).resolve().parent.parent / "src/draft/testdata"


def rms(x, weight):
    return weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS)


def rotate(x):  # [rows, heads, HEAD_DIM], half-split
    frequency = THETA ** (-torch.arange(0, HEAD_DIM, 2, dtype=torch.float64) / HEAD_DIM)
    angle = (torch.arange(x.shape[0], dtype=torch.float64)[:, None] * frequency)[:, None, :]
    low, high = x.chunk(2, -1)
    return torch.cat([low * angle.cos() - high * angle.sin(), high * angle.cos() + low * angle.sin()], -1)


def attention(w, u):
    q = rotate((u @ w["blk.0.attn_q.weight"].T).view(-1, HEADS, HEAD_DIM))
    k = rotate((u @ w["blk.0.attn_k.weight"].T).view(-1, KV_HEADS, HEAD_DIM))
    v = (u @ w["blk.0.attn_v.weight"].T).view(-1, KV_HEADS, HEAD_DIM)
    k, v = (x.repeat_interleave(HEADS // KV_HEADS, 1).transpose(0, 1) for x in (k, v))
    mixed = F.scaled_dot_product_attention(q.transpose(0, 1), k, v, is_causal=True)
    return mixed.transpose(0, 1).flatten(1) @ w["blk.0.attn_output.weight"].T


def feed_forward(w, x):
    n = rms(x, w["blk.0.ffn_norm.weight"])
    gate, up = n @ w["blk.0.ffn_gate.weight"].T, n @ w["blk.0.ffn_up.weight"].T
    return x + (F.silu(gate) * up) @ w["blk.0.ffn_down.weight"].T


def eagle3_layer(w, embedding, states, tokens, norm_before_residual):
    normed = rms(states, w["blk.0.attn_norm_2.weight"])
    u = torch.cat([rms(embedding[tokens], w["blk.0.attn_norm.weight"]), normed], -1)
    return feed_forward(w, (normed if norm_before_residual else states) + attention(w, u))


def mtp_layer(w, embedding, states, tokens):
    z = torch.cat([rms(embedding[tokens], w["nextn.enorm.weight"]), rms(states, w["nextn.hnorm.weight"])], -1)
    z = z @ w["nextn.eh_proj.weight"].T
    return feed_forward(w, z + attention(w, rms(z, w["blk.0.attn_norm.weight"])))


def draft(layer, head, states, tokens, chain):
    """Logits before each draft of `chain`; without a chain the greedy one. Also y of the observed rows."""
    y = observed = layer(states, tokens)
    logits, drafts = [], []
    for k in range(K):
        logits.append(head(y[-1]))
        drafts.append(int(chain[k]) if chain is not None else head.target_id(int(logits[-1].argmax())))
        states = torch.cat([states, y[-1:]])
        tokens = torch.cat([tokens, torch.tensor(drafts[-1:])])
        y = layer(states, tokens)
    return observed, torch.stack(logits), torch.tensor(drafts)


class Head:
    def __init__(self, matrix, norm, ids):
        self.matrix, self.norm, self.ids = matrix, norm, ids

    def __call__(self, y):
        return self.matrix @ (y if self.norm is None else rms(y, self.norm))

    def target_id(self, token):
        return token if self.ids is None else int(self.ids[token])


def random_weights(generator, shapes):
    def one(name, shape):
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        value = 1 + 0.3 * noise if len(shape) == 1 else noise * (2 if "embd" in name else 1.5) / shape[-1] ** 0.5
        return value.float().double()  # fp32 values, fp64 arithmetic

    return {name: one(name, shape) for name, shape in shapes.items()}


def layer_shapes(columns):
    kv = KV_HEADS * HEAD_DIM
    shapes = {"attn_norm": [D], "attn_q": [HEADS * HEAD_DIM, columns], "attn_k": [kv, columns], "attn_v": [kv, columns],
              "attn_output": [D, HEADS * HEAD_DIM], "ffn_norm": [D], "ffn_gate": [FFN, D], "ffn_up": [FFN, D],
              "ffn_down": [D, FFN]}
    return {f"blk.0.{name}.weight": shape for name, shape in shapes.items()}


def write(name, tensors):
    OUT.mkdir(parents=True, exist_ok=True)
    narrow = {torch.float64: torch.float32, torch.int64: torch.int32}
    save_file({key: t.to(narrow.get(t.dtype, t.dtype)).contiguous() for key, t in tensors.items()}, OUT / name)


def inputs(generator, width):
    tokens = torch.randint(0, VOCAB, [N + K], generator=generator)
    taps = torch.randn([N, width], generator=generator, dtype=torch.float64).float().double()
    return {"io.taps": taps, "io.next": tokens[:N], "io.chain": tokens[N:]}


def make_eagle3():
    generator = torch.Generator().manual_seed(31)
    w = random_weights(generator, {
        "token_embd.weight": [VOCAB, D], "output.weight": [DRAFT_VOCAB, D], "output_norm.weight": [D],
        "fc.weight": [D, 3 * D], "fc.bias": [D], "blk.0.attn_norm_2.weight": [D], **layer_shapes(2 * D)})
    ids = torch.randperm(VOCAB, generator=generator)[:DRAFT_VOCAB].sort().values
    io = inputs(generator, 3 * D)
    out = {**w, **io, "d2t": ids}
    cases = {"plain": (False, False, True), "biased": (True, False, True), "normed": (False, True, True),
             "bare_head": (False, False, False)}
    for case, (bias, before_residual, head_norm) in cases.items():
        states = io["io.taps"] @ w["fc.weight"].T + (w["fc.bias"] if bias else 0)
        head = Head(w["output.weight"], w["output_norm.weight"] if head_norm else None, ids)
        layer = lambda s, t: eagle3_layer(w, w["token_embd.weight"], s, t, before_residual)
        out[f"{case}.states"], out[f"{case}.logits"], _ = draft(layer, head, states, io["io.next"], io["io.chain"])
        if case == "plain":
            out["greedy.chain"] = draft(layer, head, states, io["io.next"], None)[2]
    write("eagle3_three_taps.safetensors", out)


def make_mtp():
    generator = torch.Generator().manual_seed(32)
    w = random_weights(generator, {
        "token_embd.weight": [VOCAB, D], "output.weight": [VOCAB, D], "output_norm.weight": [D],
        "nextn.eh_proj.weight": [D, 2 * D], "nextn.enorm.weight": [D], "nextn.hnorm.weight": [D], **layer_shapes(D)})
    io = inputs(generator, D)
    layer = lambda s, t: mtp_layer(w, w["token_embd.weight"], s, t)
    head = Head(w["output.weight"], w["output_norm.weight"], None)
    states, logits, _ = draft(layer, head, io["io.taps"], io["io.next"], io["io.chain"])
    greedy = draft(layer, head, io["io.taps"], io["io.next"], None)[2]
    write("mtp.safetensors", {**w, **io, "plain.states": states, "plain.logits": logits, "greedy.chain": greedy})


make_eagle3()
make_mtp()
