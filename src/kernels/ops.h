// The small ops between the matmuls. Each takes one row (or one vector), so that callers decide how rows are
// shared among workers, and each gives the same bits for a row whatever surrounds it and whatever the
// instruction set.
#pragma once

#include <cstdint>
#include <span>

#include "core/isa.h"

namespace dspark {

// y = w ⊙ x · (mean(x²) + eps)^-1/2, n values. y may be x.
void RmsNorm(Isa isa, const float* x, const float* w, int n, float eps, float* y);

// Rotates each head of x ([heads * head_dim]) in place. `cos_sin` holds head_dim/2 cosines, then as many
// sines, for the row's position. interleaved: pairs (2i, 2i+1); otherwise (i, i + head_dim/2).
void Rope(Isa isa, float* x, int heads, int head_dim, const float* cos_sin, bool interleaved);

// gate = silu(gate) * up, n values; silu(x) = x / (1 + exp(-x)).
void SwiGlu(Isa isa, float* gate, const float* up, int n);

// The index of the largest value; the lowest index on ties. NaN never wins; all NaN gives 0.
int ArgMax(Isa isa, std::span<const float> x);

// The k largest values in descending order, ties by lower index; NaN ranks below everything. ids and values
// have k elements, 1 ≤ k ≤ x.size(). Allocates only for k > 1024.
void TopK(Isa isa, std::span<const float> x, int k, int32_t* ids, float* values);

// Σ x_i y_i over n values, in one fixed order. The second takes x in fp16.
float Dot(Isa isa, const float* x, const float* y, int n);
float Dot(Isa isa, const uint16_t* x, const float* y, int n);

// Writes to `ids` the indices i ≥ begin with x_i + factor · w_i (rounded once) ≥ limit, in order, until x
// ends or ids is full; `count` is how many. Returns the index to go on from, x.size() at the end. No NaN, the
// limit finite.
size_t SumAtLeast(Isa isa, std::span<const float> x, const float* w, float factor, float limit, size_t begin,
                  std::span<int32_t> ids, int* count);

// y_i = exp(x_i) within 1e-7 relative, n values; exactly 0 below -87.33 (and for -inf), infinity from 88.72.
// y may be x.
void Exp(Isa isa, const float* x, int n, float* y);

// log Σ exp(x_i) as max + log(Σ exp(x_i - max)), summed in a fixed order. All -inf (or empty) gives -inf.
float LogSumExp(Isa isa, std::span<const float> x);

// p_i = exp(x_i * inverse_temperature - that maximum) / Σ, n values; p may be x. -inf gives exactly 0.
// NaN throughout when x holds NaN or +inf, or nothing finite.
void Softmax(Isa isa, std::span<const float> x, float inverse_temperature, float* p);

}  // namespace dspark
