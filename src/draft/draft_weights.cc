#include "draft/draft_weights.h"

namespace dspark {
namespace {

bool FourBits(WeightFormat format) {
  return format == WeightFormat::kInt4 || format == WeightFormat::kInt4Min;
}

// Rows `ids` of `head` (all when empty), in `format`.
PackedMatrix CopyRows(const PackedMatrix& head, std::span<const int32_t> ids, WeightFormat format,
                      ThreadPool& pool) {
  const int rows = ids.empty() ? head.n() : int(ids.size());
  PackedMatrix copy(rows, head.k(), format);
  pool.Run([&](Worker& worker) {
    const Range share = worker.Share(rows, 16);  // whole groups: workers share no bytes
    std::vector<float> values(size_t(head.k()));
    for (int r = share.begin; r < share.end; ++r) {
      head.GetRow(ids.empty() ? r : ids[size_t(r)], values.data());
      copy.SetRowFromFloats(r, values.data());
    }
  });
  return copy;
}

}  // namespace

const PackedMatrix& DraftHead(const DraftWeights& weights, const DrafterConfig& config, const Target& target,
                              ThreadPool& pool, const DrafterLimits& limits, PackedMatrix* copy) {
  const bool own = weights.head.n() > 0;
  const PackedMatrix& head = own ? weights.head : target.head();
  const bool gather = !own && !config.draft_to_target.empty();
  const bool quantise = limits.own_int4_head && !FourBits(head.format()) && head.k() % 32 == 0;
  if (!gather && !quantise) return head;
  *copy = CopyRows(head, gather ? std::span(config.draft_to_target) : std::span<const int32_t>(),
                   quantise ? WeightFormat::kInt4Min : head.format(), pool);
  return *copy;
}

Status PackDraftWeights(const DrafterFiles& files, ThreadPool& pool, const DrafterLimits& limits,
                        int qkv_columns, const WeightSlots& own, DraftWeights* w) {
  const DrafterConfig& config = files.config;
  const ModelConfig& c = config.backbone;
  WeightSlots slots;
  if (!config.taps.empty()) {
    slots.matrices.push_back({"fc.weight", c.d_model, int(config.taps.size()) * config.target_width, &w->fc});
    if (config.fc_bias) slots.vectors.push_back({"fc.bias", c.d_model, &w->fc_bias});
  }
  w->layers.resize(size_t(c.layers));
  for (int i = 0; i < c.layers; ++i) AddLayerSlots(c, i, qkv_columns, &w->layers[size_t(i)], &slots);
  if (config.head_norm) slots.vectors.push_back({"output_norm.weight", c.d_model, &w->output_norm});
  slots.matrices.insert(slots.matrices.end(), own.matrices.begin(), own.matrices.end());
  slots.tables.insert(slots.tables.end(), own.tables.begin(), own.tables.end());
  slots.vectors.insert(slots.vectors.end(), own.vectors.begin(), own.vectors.end());
  if (config.own_head) {
    MatrixSlot head{"output.weight", c.vocab, c.d_model, &w->head, true};
    if (limits.own_int4_head && c.d_model % 32 == 0) head.format = WeightFormat::kInt4Min;
    slots.matrices.push_back(head);
  }
  if (config.own_embedding)
    slots.matrices.push_back({"token_embd.weight", config.target_vocab, c.d_model, &w->embedding, true});
  DSPARK_ASSIGN_OR_RETURN(w->storage, PackSlots(*files.weights, slots, pool, limits.weights));
  return {};
}

}  // namespace dspark
