#include "eval/serving_profile.h"

#include <algorithm>
#include <cmath>
#include <fstream>

namespace dspark {
namespace {

constexpr int kFewSteps = 3;  // a mean of fewer is not believed

// Numbers that count as one: every small one by itself, an eighth of an octave beyond.
int WidthClass(int x) {
  int step = 1;
  while (x / step >= 16) step *= 2;
  return x / step * step;
}

// A text of a report, for people; empty where there is none.
std::string TextOf(const nlohmann::json& report, const char* key) {
  const auto at = report.find(key);
  return at != report.end() && at->is_string() ? at->get<std::string>() : "";
}

nlohmann::json ToJson(const CostCurve& curve) {
  nlohmann::json json = nlohmann::json::array();
  for (const auto& [x, ms] : curve.points) json.push_back({x, ms});
  return json;
}

nlohmann::json ToJson(const RecordedRound& round) {
  nlohmann::json json{round.drafts, round.kept, round.match_length, round.committed};
  if (!round.confidence.empty()) json.push_back(round.confidence);
  return json;
}

// Reads a profile's parts; the first mistake stays.
class ProfileReader {
 public:
  ProfileReader(const std::string& path, const nlohmann::json& json) : path_(path), json_(json) {}

  double Number(const char* key) {
    const auto at = json_.find(key);
    if (at != json_.end() && at->is_number() && at->get<double>() >= 0) return at->get<double>();
    Fail(fmt::format("{} is no number of 0 or more", key));
    return 0;
  }
  int Count(const char* key) {
    const double value = Number(key);
    if (value >= 1 && value <= 1 << 20) return int(value);
    Fail(fmt::format("{} is {}; it must be from 1 to {}", key, value, 1 << 20));
    return 1;
  }
  // [[x, ms], …] by increasing x.
  CostCurve Curve(const char* key) {
    CostCurve curve;
    const auto at = json_.find(key);
    if (at == json_.end() || !at->is_array()) return Fail(fmt::format("{} is no list", key)), curve;
    for (const auto& pair : *at) {
      const bool sound = pair.is_array() && pair.size() == 2 && pair[0].is_number_integer() &&
                         pair[1].is_number() && pair[1].get<double>() >= 0 && pair[0].get<int64_t>() > 0 &&
                         pair[0].get<int64_t>() <= 1 << 20 &&
                         (curve.points.empty() || pair[0].get<int>() > curve.points.back().first);
      if (!sound) return Fail(fmt::format("{} must be pairs [number, ms] by increasing number", key)), curve;
      curve.points.emplace_back(pair[0].get<int>(), pair[1].get<double>());
    }
    return curve;
  }
  std::vector<RecordedReply> Replies() {
    std::vector<RecordedReply> replies;
    const auto at = json_.find("replies");
    if (at == json_.end() || !at->is_array()) return Fail("replies is no list"), replies;
    for (const auto& reply : *at) {
      if (!reply.is_array()) return Fail("a reply is no list of rounds"), replies;
      replies.emplace_back();
      for (const auto& round : reply) {
        if (!AddRound(round, &replies.back())) {
          Fail("a round is [drafts, kept, match length, tokens] and perhaps a list of confidences");
          return replies;
        }
      }
    }
    return replies;
  }
  std::vector<ReplyShape> Shapes() {
    std::vector<ReplyShape> shapes;
    const auto at = json_.find("shapes");
    if (at == json_.end() || !at->is_array()) return Fail("shapes is no list"), shapes;
    for (const auto& shape : *at) {
      if (!Whole(shape, 2) || shape[0] < 1 || shape[1] < 1 || shape[0] > 1 << 20 || shape[1] > 1 << 20)
        return Fail("a shape is [tokens of the prompt, tokens of the reply]"), shapes;
      shapes.push_back({shape[0], shape[1]});
    }
    return shapes;
  }
  void Fail(const std::string& what) {
    if (status_.ok())
      status_ = MakeError("{}: not a profile of `dspark bench serve --json`: {}", path_, what);
  }
  const Status& status() const { return status_; }

 private:
  // A list that begins with `count` whole numbers.
  static bool Whole(const nlohmann::json& list, size_t count) {
    if (!list.is_array() || list.size() < count) return false;
    return std::all_of(list.begin(), list.begin() + std::ptrdiff_t(count),
                       [](const auto& value) { return value.is_number_integer(); });
  }
  static bool AddRound(const nlohmann::json& json, RecordedReply* reply) {
    if (!Whole(json, 4)) return false;
    RecordedRound round{json[0], json[1], json[2], json[3], {}};
    const bool sound = round.drafts >= 0 && round.drafts <= 64 && round.kept >= 0 &&
                       round.kept <= round.drafts && round.match_length >= -1 && round.committed >= 1 &&
                       round.committed <= round.kept + 1;
    if (!sound) return false;
    for (size_t k = 0; json.size() > 4 && k < json[4].size(); ++k) {
      if (!json[4].is_array() || !json[4][k].is_number()) return false;
      round.confidence.push_back(json[4][k]);
    }
    reply->push_back(std::move(round));
    return true;
  }

  const std::string& path_;
  const nlohmann::json& json_;
  Status status_;
};

}  // namespace

double CostCurve::At(int x) const {
  if (points.empty() || x <= 0) return 0;
  const auto upper = std::ranges::lower_bound(points, x, {}, &std::pair<int, double>::first);
  if (upper == points.end()) return points.back().second * x / points.back().first;
  if (upper == points.begin() || upper->first == x) return upper->second;
  const auto& [x0, y0] = upper[-1];
  return y0 + (upper->second - y0) * (x - x0) / (upper->first - x0);
}

void ProfileRecorder::AddStep(const Engine::StepCost& cost, double ms) {
  if (cost.rows == 0) return;
  if (cost.prompt_rows == 0) {
    pass_[WidthClass(cost.rows)].Add(cost.rows, cost.pass_ms - cost.depth_ms);
    if (ms > 0)
      overhead_[WidthClass(cost.committing)].Add(cost.committing, ms - cost.pass_ms - cost.drafter_ms);
  } else {
    mixed_.push_back({cost.rows - cost.prompt_rows, cost.prompt_rows, cost.pass_ms - cost.depth_ms});
  }
  if (cost.drafting > 0) draft_[WidthClass(cost.drafting)].Add(cost.drafting, cost.drafter_ms);
}

CostCurve ProfileRecorder::CurveOf(const std::map<int, Mean>& means) {
  CostCurve curve;
  for (const auto& [key, mean] : means) {
    const int x = int(std::lround(mean.x / mean.count));
    if (mean.count < kFewSteps || (!curve.points.empty() && x <= curve.points.back().first)) continue;
    curve.points.emplace_back(x, std::max(0.0, mean.ms / mean.count));
  }
  return curve;
}

ServingProfile ProfileRecorder::Profile(const CostTable& measured) const {
  ServingProfile profile;
  const CostCurve seen = CurveOf(pass_);
  std::vector<CostTable::Point> points;
  for (const auto& [rows, ms] : seen.points) {
    if (ms > 0) points.push_back({rows, ms});
  }
  if (!measured.points().empty()) {
    // Narrower and wider passes than any step had are as the start's table says, at the level of service.
    const auto level = [&](const CostTable::Point& p) { return p.ms / measured.Ms(p.rows); };
    const double narrow = points.empty() ? 1 : level(points.front()),
                 wide = points.empty() ? 1 : level(points.back());
    const int first = points.empty() ? 0 : points.front().rows,
              last = points.empty() ? 0 : points.back().rows;
    std::vector<CostTable::Point> all;
    for (const auto& p : measured.points()) {
      if (p.rows < first) all.push_back({p.rows, p.ms * narrow});
    }
    all.insert(all.end(), points.begin(), points.end());
    for (const auto& p : measured.points()) {
      if (p.rows > last) all.push_back({p.rows, p.ms * wide});
    }
    points = std::move(all);
  }
  if (points.empty()) return profile;
  profile.costs = CostTable(std::move(points), measured.ms_per_row_position());
  double ms = 0, rows = 0;
  for (const Mixed& mixed : mixed_) {
    ms += mixed.ms - (mixed.decoding > 0 ? profile.costs.Ms(mixed.decoding) : 0);
    rows += mixed.prompt;
  }
  profile.prompt_ms_per_row = rows > 0 ? std::max(0.0, ms / rows) : 0;
  profile.draft_ms = CurveOf(draft_);
  profile.overhead_ms = CurveOf(overhead_);
  return profile;
}

void RoundRecorder::OnRound(const RoundRecord& round) {
  const auto at = replies_.find(round.sequence);
  if (at == replies_.end() && replies_.size() >= most_) return;
  const bool known = round.origin == DraftOrigin::kTable || round.origin == DraftOrigin::kForced;
  const int match = known ? -1 : round.match_length;
  RecordedRound recorded{round.drafted, round.accepted, match, std::max(1, round.committed), {}};
  const size_t drafts = std::min(size_t(round.drafted), round.confidence.size());
  recorded.confidence.assign(round.confidence.begin(), round.confidence.begin() + std::ptrdiff_t(drafts));
  replies_[round.sequence].push_back(std::move(recorded));
}

std::vector<RecordedReply> RoundRecorder::Take() {
  std::vector<RecordedReply> replies;
  for (auto& [sequence, rounds] : replies_) replies.push_back(std::move(rounds));
  replies_.clear();
  return replies;
}

nlohmann::json ToJson(const ServingProfile& profile) {
  nlohmann::json json{{"ms_by_rows", nlohmann::json::array()},
                      {"ms_per_row_position", profile.costs.ms_per_row_position()},
                      {"prompt_ms_per_row", profile.prompt_ms_per_row},
                      {"draft_ms_by_sequences", ToJson(profile.draft_ms)},
                      {"overhead_ms_by_sequences", ToJson(profile.overhead_ms)},
                      {"logit_rows", profile.logit_rows},
                      {"prefill_rows", profile.prefill_rows},
                      {"replies", nlohmann::json::array()},
                      {"shapes", nlohmann::json::array()}};
  for (const auto& point : profile.costs.points()) json["ms_by_rows"].push_back({point.rows, point.ms});
  for (const ReplyShape& shape : profile.shapes)
    json["shapes"].push_back({shape.prompt_tokens, shape.tokens});
  for (const RecordedReply& reply : profile.replies) {
    nlohmann::json rounds = nlohmann::json::array();
    for (const RecordedRound& round : reply) rounds.push_back(ToJson(round));
    json["replies"].push_back(std::move(rounds));
  }
  return json;
}

Result<ServingProfile> ReadProfile(const std::string& path) {
  std::ifstream in(path);
  if (!in) return MakeError("{}: cannot be read", path);
  auto json = nlohmann::json::parse(in, nullptr, /*allow_exceptions=*/false);
  std::string model, drafter;
  if (json.is_object() && json.contains("profile")) {
    model = TextOf(json, "model"), drafter = TextOf(json, "drafter");
    json = nlohmann::json(json["profile"]);
  }
  if (!json.is_object()) return MakeError("{}: not a profile of `dspark bench serve --json`", path);
  ProfileReader reader(path, json);
  const CostCurve rows = reader.Curve("ms_by_rows");
  std::vector<CostTable::Point> points;
  for (const auto& [x, ms] : rows.points) {
    if (!(ms > 0)) reader.Fail("ms_by_rows has a pass that takes no time");
    points.push_back({x, ms});
  }
  if (points.empty()) reader.Fail("ms_by_rows is empty");
  const double per_position = reader.Number("ms_per_row_position");
  ServingProfile profile{.prompt_ms_per_row = reader.Number("prompt_ms_per_row"),
                         .draft_ms = reader.Curve("draft_ms_by_sequences"),
                         .overhead_ms = reader.Curve("overhead_ms_by_sequences"),
                         .logit_rows = reader.Count("logit_rows"),
                         .prefill_rows = reader.Count("prefill_rows"),
                         .replies = reader.Replies(),
                         .shapes = reader.Shapes(),
                         .model = std::move(model),
                         .drafter = std::move(drafter)};
  if (const Status& read = reader.status(); !read) return read.error();
  profile.costs = CostTable(std::move(points), per_position);
  return profile;
}

}  // namespace dspark
