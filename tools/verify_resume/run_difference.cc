#include "grapnel/tools/verify_resume/run_difference.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <map>
#include <set>
#include <tuple>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "google/protobuf/message.h"
#include "google/protobuf/util/message_differencer.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/runner/message_hub.pb.h"
#include "grapnel/runner/run_checkpoint.h"
#include "grapnel/runner/run_state.pb.h"

namespace grapnel {
namespace {

using Source = RunDifference::Source;
using Fields = std::vector<std::pair<std::string, std::string>>;
using ::google::protobuf::util::MessageDifferencer;

bool IsNumber(absl::string_view field) {
  return absl::StartsWith(field, trace_field::kOption) ||
         absl::StartsWith(field, trace_field::kLog) ||
         absl::StartsWith(field, trace_field::kMetric);
}

std::optional<double> DistanceOf(const std::string& a, const std::string& b) {
  double x, y;
  if (!absl::SimpleAtod(a, &x) || !absl::SimpleAtod(b, &y)) return std::nullopt;
  return std::abs(x - y);
}

std::string ItemOf(absl::string_view field) {
  if (absl::ConsumePrefix(&field, trace_field::kOption)) {
    return absl::StrCat("the option \"", field, "\" of the optimizer");
  }
  if (absl::ConsumePrefix(&field, trace_field::kLog)) {
    return absl::StrCat("\"", field, "\" of the training step");
  }
  if (absl::ConsumePrefix(&field, trace_field::kMetric)) {
    return absl::StrCat("the metric \"", field, "\"");
  }
  static const auto& names = *new std::map<absl::string_view, const char*>{
      {trace_field::kIndices, "the choice of samples"},
      {trace_field::kBatch, "the batch"},
      {trace_field::kOptions, "the optimizer's options"},
      {trace_field::kWeights, "the weights"},
      {trace_field::kBuffers, "the model's buffers"},
      {trace_field::kGenerator, "the state of the run's generator"},
      {"", "that there is such a point"}};
  const auto name = names.find(field);
  return name == names.end() ? std::string(field) : name->second;
}

std::string WhereIs(const TraceEvent& event) {
  if (event.kind == trace::kBeforeIter) {
    return absl::StrCat("before iteration ", event.iter);
  }
  if (event.kind == trace::kStep) {
    return absl::StrCat("after the optimizer's step in iteration ", event.iter);
  }
  if (event.kind == trace::kAfterIter) {
    return absl::StrCat("at the end of iteration ", event.iter);
  }
  if (event.kind == trace::kBeforeVal) {
    return absl::StrCat("before the validation after iteration ", event.iter);
  }
  if (event.kind == trace::kValBatch) {
    return absl::StrCat("in batch ", event.index + 1,
                        " of the validation after iteration ", event.iter);
  }
  return absl::StrCat("after the validation after iteration ", event.iter);
}

// Others say where a process is, and not what the run does.
bool IsOfRun(const TraceEvent& event) {
  for (const char* kind :
       {trace::kBeforeIter, trace::kStep, trace::kAfterIter, trace::kBeforeVal,
        trace::kValBatch, trace::kAfterVal}) {
    if (event.kind == kind) return true;
  }
  return false;
}

RunDifference OfEvent(const TraceEvent& event, const std::string& field) {
  RunDifference difference;
  difference.source = Source::kTrace;
  difference.kind = event.kind;
  difference.field = field;
  difference.iter = event.iter;
  difference.item = ItemOf(field);
  difference.where = WhereIs(event);
  return difference;
}

const std::string* Find(const Fields& fields, const std::string& name) {
  for (const auto& [other, value] : fields) {
    if (other == name) return &value;
  }
  return nullptr;
}

// ----------------------------------------------------------------- records

bool IsOfClock(absl::string_view name) {
  const size_t slash = name.rfind('/');
  if (slash != absl::string_view::npos) name.remove_prefix(slash + 1);
  return absl::EndsWith(name, "time") || name == "eta" || name == "memory";
}

Fields WithoutClock(Fields fields) {
  fields.erase(
      std::remove_if(fields.begin(), fields.end(),
                     [](const auto& field) { return IsOfClock(field.first); }),
      fields.end());
  return fields;
}

// Which record it is: nothing else in a run has these fields at that step.
std::string KeyOf(const Fields& fields) {
  std::string key;
  for (const auto& [name, value] : fields) absl::StrAppend(&key, name, "\n");
  for (const char* name : {"step", "iter"}) {
    const std::string* const value = Find(fields, name);
    if (value != nullptr) absl::StrAppend(&key, name, "=", *value, "\n");
  }
  return key;
}

struct KnownRecord {
  Fields fields;
  int64_t iter = 0;
};

// ------------------------------------------------------------- checkpoints

// Of two tensors of one shape and type. Throws nothing: both are on the CPU.
std::optional<double> MaxAbs(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes() || a.numel() == 0) return std::nullopt;
  const at::Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  return x.sub(y).abs().max().item().toDouble();
}

bool SameBits(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && a.scalar_type() == b.scalar_type() &&
         memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0;
}

RunDifference OfCheckpoint(const std::string& kind, const std::string& field,
                           std::string item) {
  RunDifference difference;
  difference.source = Source::kCheckpoint;
  difference.kind = kind;
  difference.field = field;
  difference.iter = std::numeric_limits<int64_t>::max();
  difference.item = std::move(item);
  difference.where = "at the end";
  return difference;
}

void CompareSections(const std::string& name, const TensorMap& expected,
                     const TensorMap& actual,
                     std::vector<RunDifference>* differences) {
  std::optional<RunDifference> first;
  int64_t count = 0;
  double largest = 0;
  const auto differs = [&](const std::string& tensor, std::string how) {
    ++count;
    if (first.has_value()) return;
    first = OfCheckpoint(
        name, tensor,
        absl::StrCat("section \"", name, "\": tensor \"", tensor, "\"", how));
  };
  for (const NamedTensor& tensor : expected) {
    const at::Tensor* const other = actual.Find(tensor.name);
    if (other == nullptr) {
      differs(tensor.name, ", which isn't there");
    } else if (!SameBits(tensor.tensor, *other)) {
      differs(tensor.name, "");
      largest =
          std::max(largest, MaxAbs(tensor.tensor, *other).value_or(largest));
    }
  }
  for (const NamedTensor& tensor : actual) {
    if (expected.Find(tensor.name) == nullptr) {
      differs(tensor.name, ", which is new");
    }
  }
  if (!first.has_value()) return;
  if (count > 1) {
    absl::StrAppend(&first->item, " and ", count - 1, " more of ",
                    expected.size());
  }
  if (largest > 0) first->max_abs = largest;
  differences->push_back(*std::move(first));
}

void CompareMessages(const google::protobuf::Message& expected,
                     const google::protobuf::Message& actual,
                     const std::string& kind, const std::string& field,
                     const std::string& item,
                     std::vector<RunDifference>* differences) {
  MessageDifferencer differencer;
  // As bits: a NaN is itself.
  google::protobuf::util::DefaultFieldComparator comparator;
  comparator.set_treat_nan_as_equal(true);
  differencer.set_field_comparator(&comparator);
  std::string report;
  differencer.ReportDifferencesToString(&report);
  if (differencer.Compare(expected, actual)) return;
  RunDifference difference = OfCheckpoint(kind, field, item);
  // "modified: values[0]: 1 -> 2"
  const std::string first = report.substr(0, report.find('\n'));
  if (first.size() <= 200) {
    absl::StrAppend(&difference.item, " (", first, ")");
  }
  differences->push_back(std::move(difference));
}

template <typename T>
std::map<std::string, const T*> ByName(
    const google::protobuf::RepeatedPtrField<T>& list) {
  std::map<std::string, const T*> by_name;
  for (const T& item : list) by_name[item.name()] = &item;
  return by_name;
}

// Of two lists of messages with names; `what` goes before a name.
template <typename T>
void CompareByName(const google::protobuf::RepeatedPtrField<T>& expected,
                   const google::protobuf::RepeatedPtrField<T>& actual,
                   const std::string& kind, const std::string& what,
                   std::vector<RunDifference>* differences) {
  const auto before = ByName(expected), now = ByName(actual);
  for (const auto& [name, item] : before) {
    const auto other = now.find(name);
    const std::string title = absl::StrCat(what, " \"", name, "\"");
    if (other == now.end()) {
      differences->push_back(
          OfCheckpoint(kind, name, absl::StrCat(title, ", which isn't there")));
    } else {
      CompareMessages(*item, *other->second, kind, name, title, differences);
    }
  }
  for (const auto& [name, item] : now) {
    if (before.count(name) > 0) continue;
    differences->push_back(OfCheckpoint(
        kind, name, absl::StrCat(what, " \"", name, "\", which is new")));
  }
}

void RemoveClock(runner::v1::MessageHubState* hub) {
  auto& scalars = *hub->mutable_scalars();
  scalars.erase(std::remove_if(scalars.begin(), scalars.end(),
                               [](const auto& scalar) {
                                 return IsOfClock(scalar.name());
                               }),
                scalars.end());
  std::vector<std::string> of_clock = {"experiment_name"};
  for (const auto& [name, info] : hub->infos()) {
    if (IsOfClock(name)) of_clock.push_back(name);
  }
  for (const std::string& name : of_clock) hub->mutable_infos()->erase(name);
}

void CompareStates(runner::v1::RunState expected, runner::v1::RunState actual,
                   std::vector<RunDifference>* differences) {
  RemoveClock(expected.mutable_message_hub());
  RemoveClock(actual.mutable_message_hub());
  if (expected.rng().SerializeAsString() != actual.rng().SerializeAsString()) {
    differences->push_back(
        OfCheckpoint("rng", "", ItemOf(trace_field::kGenerator)));
  }
  CompareMessages(expected.data(), actual.data(), "data", "",
                  "the position in the data", differences);
  CompareMessages(expected.optim_wrapper(), actual.optim_wrapper(),
                  "optim_wrapper", "", "the optimizer's state", differences);
  for (int i = 0; i < expected.param_schedulers_size() ||
                  i < actual.param_schedulers_size();
       ++i) {
    const std::string title = absl::StrCat("the state of scheduler ", i);
    if (i >= expected.param_schedulers_size() ||
        i >= actual.param_schedulers_size()) {
      differences->push_back(OfCheckpoint("param_schedulers", "", title));
      continue;
    }
    CompareMessages(expected.param_schedulers(i), actual.param_schedulers(i),
                    "param_schedulers", "", title, differences);
  }
  CompareByName(expected.hooks(), actual.hooks(), "hooks",
                "the saved state of hook", differences);
  CompareByName(expected.message_hub().scalars(),
                actual.message_hub().scalars(), "message_hub",
                "the message hub's scalar", differences);
  std::set<std::string> infos;
  for (const auto* hub : {&expected.message_hub(), &actual.message_hub()}) {
    for (const auto& [name, info] : hub->infos()) infos.insert(name);
  }
  for (const std::string& name : infos) {
    const auto& before = expected.message_hub().infos();
    const auto& now = actual.message_hub().infos();
    const std::string title =
        absl::StrCat("the message hub's info \"", name, "\"");
    if (before.count(name) == 0 || now.count(name) == 0) {
      differences->push_back(
          OfCheckpoint("message_hub", name,
                       absl::StrCat(title, before.count(name) == 0
                                               ? ", which is new"
                                               : ", which isn't there")));
      continue;
    }
    CompareMessages(before.at(name), now.at(name), "message_hub", name, title,
                    differences);
  }
  for (auto* state : {&expected, &actual}) {
    state->clear_rng();
    state->clear_data();
    state->clear_optim_wrapper();
    state->clear_param_schedulers();
    state->clear_message_hub();
    state->clear_hooks();
  }
  CompareMessages(expected, actual, "state", "", "the rest of the state",
                  differences);
}

}  // namespace

std::vector<RunDifference> CompareTraces(
    const std::vector<TraceEvent>& expected,
    const std::vector<TraceEvent>& actual) {
  using Key = std::tuple<std::string, int64_t, int64_t>;
  std::map<Key, const TraceEvent*> by_key;
  for (const TraceEvent& event : expected) {
    if (IsOfRun(event)) by_key[{event.kind, event.iter, event.index}] = &event;
  }
  std::vector<RunDifference> differences;
  std::set<Key> done;
  int process = -1;
  const auto add = [&](RunDifference difference) {
    difference.process = std::max(process, 0);
    differences.push_back(std::move(difference));
  };
  for (const TraceEvent& event : actual) {
    if (event.kind == trace::kStart) ++process;
    if (!IsOfRun(event)) continue;
    const Key key = {event.kind, event.iter, event.index};
    done.insert(key);
    const auto found = by_key.find(key);
    if (found == by_key.end()) {
      RunDifference difference = OfEvent(event, "");
      difference.expected = "no";
      difference.actual = "yes";
      add(std::move(difference));
      continue;
    }
    const TraceEvent& before = *found->second;
    for (const auto& [name, value] : event.fields) {
      if (name == trace_field::kDefaultGenerator) continue;
      const std::string* const other = Find(before.fields, name);
      if (other != nullptr && *other == value) continue;
      RunDifference difference = OfEvent(event, name);
      if (IsNumber(name)) {
        difference.expected = other != nullptr ? *other : "none";
        difference.actual = value;
        difference.max_abs = DistanceOf(difference.expected, value);
      }
      add(std::move(difference));
    }
    for (const auto& [name, value] : before.fields) {
      if (Find(event.fields, name) != nullptr) continue;
      RunDifference difference = OfEvent(event, name);
      if (IsNumber(name)) difference.expected = value;
      difference.actual = "none";
      add(std::move(difference));
    }
  }
  for (const TraceEvent& event : expected) {
    if (!IsOfRun(event) ||
        done.count({event.kind, event.iter, event.index}) > 0) {
      continue;
    }
    RunDifference difference = OfEvent(event, "");
    difference.expected = "yes";
    difference.actual = "no";
    add(std::move(difference));
    break;
  }
  return differences;
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ParseRecord(
    absl::string_view line) {
  const absl::Status bad =
      absl::DataLossError(absl::StrCat("is no record: ", line));
  if (!absl::ConsumePrefix(&line, "{") || !absl::ConsumeSuffix(&line, "}")) {
    return bad;
  }
  // The end of what begins at `begin`: a "," or ":" outside of strings and
  // brackets.
  const auto end_of = [&](size_t begin, char separator) {
    int depth = 0;
    bool quoted = false;
    for (size_t i = begin; i < line.size(); ++i) {
      if (quoted) {
        if (line[i] == '\\')
          ++i;
        else if (line[i] == '"')
          quoted = false;
      } else if (line[i] == '"') {
        quoted = true;
      } else if (line[i] == '[' || line[i] == '{') {
        ++depth;
      } else if (line[i] == ']' || line[i] == '}') {
        --depth;
      } else if (line[i] == separator && depth == 0) {
        return i;
      }
    }
    return line.size();
  };
  Fields fields;
  for (size_t begin = 0; begin < line.size();) {
    const size_t colon = end_of(begin, ':');
    if (colon >= line.size()) return bad;
    const size_t comma = end_of(colon + 1, ',');
    absl::string_view name =
        absl::StripAsciiWhitespace(line.substr(begin, colon - begin));
    if (!absl::ConsumePrefix(&name, "\"") ||
        !absl::ConsumeSuffix(&name, "\"")) {
      return bad;
    }
    fields.emplace_back(std::string(name),
                        std::string(absl::StripAsciiWhitespace(
                            line.substr(colon + 1, comma - colon - 1))));
    begin = comma + 1;
  }
  return fields;
}

absl::StatusOr<std::vector<RunDifference>> CompareRecords(
    const std::vector<std::string>& expected,
    const std::vector<std::vector<std::string>>& actual) {
  std::map<std::string, KnownRecord> by_key;
  std::vector<std::string> keys;
  int64_t last_iter = 0;
  for (const std::string& line : expected) {
    KnownRecord record;
    GRAPNEL_ASSIGN_OR_RETURN(record.fields, ParseRecord(line));
    record.fields = WithoutClock(std::move(record.fields));
    const std::string* const iter = Find(record.fields, "iter");
    // A validation's may have none: it comes behind those of training.
    if (iter != nullptr) absl::SimpleAtoi(*iter, &last_iter);
    record.iter = last_iter;
    const std::string key = KeyOf(record.fields);
    keys.push_back(key);
    by_key[key] = std::move(record);
  }
  std::vector<RunDifference> differences;
  std::set<std::string> done;
  const auto add = [&](const std::string& field, int64_t iter, int process,
                       std::string before, std::string now) {
    RunDifference difference;
    difference.source = Source::kRecord;
    difference.kind = "record";
    difference.field = field;
    difference.iter = iter;
    difference.process = process;
    difference.item = field.empty()
                          ? "that there is such a record"
                          : absl::StrCat("the record \"", field, "\"");
    difference.where = absl::StrCat("of iteration ", iter);
    difference.max_abs = DistanceOf(before, now);
    difference.expected = std::move(before);
    difference.actual = std::move(now);
    differences.push_back(std::move(difference));
  };
  for (size_t process = 0; process < actual.size(); ++process) {
    last_iter = 0;
    const std::vector<std::string>& lines = actual[process];
    for (size_t i = 0; i < lines.size(); ++i) {
      absl::StatusOr<Fields> parsed = ParseRecord(lines[i]);
      if (!parsed.ok() && i + 1 == lines.size()) break;
      if (!parsed.ok()) return parsed.status();
      const Fields fields = WithoutClock(*std::move(parsed));
      const std::string* const iter = Find(fields, "iter");
      if (iter != nullptr) absl::SimpleAtoi(*iter, &last_iter);
      const std::string key = KeyOf(fields);
      done.insert(key);
      const auto found = by_key.find(key);
      if (found == by_key.end()) {
        add("", last_iter, static_cast<int>(process), "none", lines[i]);
        continue;
      }
      const KnownRecord& before = found->second;
      for (size_t f = 0; f < fields.size(); ++f) {
        if (fields[f].second == before.fields[f].second) continue;
        add(fields[f].first, before.iter, static_cast<int>(process),
            before.fields[f].second, fields[f].second);
      }
    }
  }
  for (size_t i = 0; i < keys.size(); ++i) {
    if (done.count(keys[i]) > 0) continue;
    add("", by_key[keys[i]].iter, static_cast<int>(actual.size()) - 1,
        expected[i], "none");
    break;
  }
  return differences;
}

absl::StatusOr<std::vector<RunDifference>> CompareCheckpoints(
    const io::CheckpointContents& expected,
    const io::CheckpointContents& actual) {
  std::vector<RunDifference> differences;
  for (const auto& [name, tensors] : expected.sections) {
    const TensorMap* const other = actual.FindSection(name);
    const TensorMap none;
    CompareSections(name, tensors, other != nullptr ? *other : none,
                    &differences);
  }
  for (const auto& [name, tensors] : actual.sections) {
    if (expected.FindSection(name) == nullptr) {
      differences.push_back(OfCheckpoint(
          name, "", absl::StrCat("section \"", name, "\", which is new")));
    }
  }
  GRAPNEL_ASSIGN_OR_RETURN(const runner::v1::RunState before,
                           ReadRunState(expected));
  GRAPNEL_ASSIGN_OR_RETURN(const runner::v1::RunState now,
                           ReadRunState(actual));
  CompareStates(before, now, &differences);
  CompareMessages(expected.manifest().progress(), actual.manifest().progress(),
                  "progress", "", "the progress", &differences);
  for (const auto& [name, value] : expected.manifest().metrics()) {
    const auto other = actual.manifest().metrics().find(name);
    if (other != actual.manifest().metrics().end() &&
        (other->second == value ||
         (std::isnan(other->second) && std::isnan(value)))) {
      continue;
    }
    differences.push_back(OfCheckpoint(
        "metrics", name, absl::StrCat("the metric \"", name, "\"")));
  }
  return differences;
}

std::vector<RunDifference> InOrder(std::vector<RunDifference> differences) {
  std::stable_sort(differences.begin(), differences.end(),
                   [](const RunDifference& a, const RunDifference& b) {
                     return std::tuple(a.source == Source::kCheckpoint, a.iter,
                                       static_cast<int>(a.source)) <
                            std::tuple(b.source == Source::kCheckpoint, b.iter,
                                       static_cast<int>(b.source));
                   });
  std::set<std::string> seen;
  std::vector<RunDifference> first;
  for (RunDifference& difference : differences) {
    if (!seen.insert(difference.item).second) continue;
    first.push_back(std::move(difference));
  }
  return first;
}

}  // namespace grapnel
