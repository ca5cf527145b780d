#include "grapnel/runner/log_processor.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <variant>

#include "absl/container/flat_hash_set.h"
#include "absl/container/node_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/utf8.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/runner/log_processor.pb.h"
#include "grapnel/runner/rank_exchange.pb.h"
#include "re2/re2.h"

namespace grapnel {
namespace {

using ::grapnel::runner::v1::LoggedNumbers;
using Config = runner::v1::LogProcessorConfig;

constexpr Mode kModes[] = {Mode::kTrain, Mode::kVal, Mode::kTest};
constexpr int kDefaultNumDigits = 4;
constexpr int kMaxNumDigits = 17;
constexpr char kDefaultMeanPattern[] = ".*(loss|time|data_time|grad_norm).*";
constexpr char kTime[] = "time";
constexpr char kDataTime[] = "data_time";

// A statistic that the config asks for.
struct Statistic {
  enum class Method { kMean, kMax, kMin, kCurrent };
  enum class Window { kEntries, kEpoch, kGlobal };

  std::string sources[3];  // "<mode>/<data_src>", by mode.
  std::string log_name;
  Method method = Method::kMean;
  Window window = Window::kEntries;
  int64_t entries = 0;
};

// A number of a line and a record: its name, without mode, and its value.
using Tag = std::pair<absl::string_view, double>;
using Tags = std::vector<Tag>;

// The tag of that name, or null. `tags`: Tags, const or not.
template <typename T>
auto FindTag(absl::string_view name, T& tags) -> decltype(tags.data()) {
  for (auto& tag : tags) {
    if (tag.first == name) return &tag;
  }
  return nullptr;
}

absl::Status CheckWindow(absl::string_view field, int64_t window) {
  if (window >= 1 && window <= HistoryBuffer::kMaxWindow) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      field, ": must be in 1..", HistoryBuffer::kMaxWindow, ", is ", window));
}

absl::StatusOr<Statistic> ParseStatistic(const Config::CustomStatistic& config,
                                         int64_t window_size, bool by_epoch) {
  using Method = Statistic::Method;
  using Window = Statistic::Window;
  Statistic statistic;
  if (config.data_src().empty()) {
    return absl::InvalidArgumentError("data_src: is required");
  }
  for (const Mode mode : kModes) {
    statistic.sources[static_cast<int>(mode)] =
        absl::StrCat(ModeName(mode), "/", config.data_src());
  }
  statistic.log_name =
      config.has_log_name() ? config.log_name() : config.data_src();
  if (statistic.log_name.empty()) {
    return absl::InvalidArgumentError("log_name: is empty");
  }

  const std::string& method = config.method_name();
  if (!config.has_method_name() || method == "mean") {
    statistic.method = Method::kMean;
  } else if (method == "max") {
    statistic.method = Method::kMax;
  } else if (method == "min") {
    statistic.method = Method::kMin;
  } else if (method == "current") {
    statistic.method = Method::kCurrent;
  } else {
    return absl::InvalidArgumentError(absl::StrCat(
        "method_name: must be mean, max, min or current, is \"", method, "\""));
  }

  const std::string& window = config.window_size();
  if (!config.has_window_size()) {
    statistic.entries = window_size;
  } else if (window == "epoch") {
    if (!by_epoch) {
      return absl::InvalidArgumentError(
          "window_size: must not be \"epoch\" if by_epoch is false");
    }
    statistic.window = Window::kEpoch;
  } else if (window == "global") {
    statistic.window = Window::kGlobal;
  } else if (absl::SimpleAtoi(window, &statistic.entries)) {
    GRAPNEL_RETURN_IF_ERROR(CheckWindow("window_size", statistic.entries));
  } else {
    return absl::InvalidArgumentError(absl::StrCat(
        "window_size: must be a number, \"epoch\" or \"global\", is \"", window,
        "\""));
  }
  return statistic;
}

absl::StatusOr<double> Evaluate(const Statistic& statistic,
                                const HistoryBuffer& history) {
  using Method = Statistic::Method;
  using Window = Statistic::Window;
  const int64_t entries = statistic.entries;
  switch (statistic.method) {
    case Method::kMean:
      return statistic.window == Window::kEpoch    ? history.EpochMean()
             : statistic.window == Window::kGlobal ? history.GlobalMean()
                                                   : history.Mean(entries);
    case Method::kMax:
      return statistic.window == Window::kEpoch    ? history.EpochMax()
             : statistic.window == Window::kGlobal ? history.GlobalMax()
                                                   : history.Max(entries);
    case Method::kMin:
      return statistic.window == Window::kEpoch    ? history.EpochMin()
             : statistic.window == Window::kGlobal ? history.GlobalMin()
                                                   : history.Min(entries);
    case Method::kCurrent:
      break;
  }
  return history.Current();
}

int NumDigits(int64_t value) {
  int digits = 1;
  for (; value >= 10; value /= 10) ++digits;
  return digits;
}

Record::Kind KindOf(Mode mode) {
  return mode == Mode::kTrain ? Record::Kind::kTrain
         : mode == Mode::kVal ? Record::Kind::kVal
                              : Record::Kind::kTest;
}

// The place of `name`, which is most often `likely`; -1 if it isn't there.
int IndexOf(absl::string_view name, int likely, const LoggedNumbers& logged) {
  const auto& names = logged.names();
  if (likely < names.size() && names[likely] == name) return likely;
  const auto it = std::find(names.begin(), names.end(), name);
  return it == names.end() ? -1 : static_cast<int>(it - names.begin());
}

absl::Status CheckSameNames(const LoggedNumbers& first,
                            const LoggedNumbers& other, size_t rank) {
  const auto missing = [](const LoggedNumbers& from, const LoggedNumbers& in,
                          const std::string& has, const std::string& has_not) {
    for (int i = 0; i < from.names_size(); ++i) {
      if (IndexOf(from.names(i), i, in) >= 0) continue;
      return absl::FailedPreconditionError(absl::StrCat(
          "reduce_logged: ", has, " logs \"", EscapeToUtf8(from.names(i)),
          "\", which ", has_not, " doesn't"));
    }
    return absl::OkStatus();
  };
  const std::string name = absl::StrCat("rank ", rank);
  GRAPNEL_RETURN_IF_ERROR(missing(first, other, "rank 0", name));
  return missing(other, first, name, "rank 0");
}

// `ranks`: with the same names. NaN, and infinities, come through.
double MeanOf(absl::string_view name, int likely,
              const std::vector<LoggedNumbers>& ranks) {
  const double first = ranks[0].values(IndexOf(name, likely, ranks[0]));
  double sum = 0;
  bool differ = false;
  for (const LoggedNumbers& rank : ranks) {
    const double value = rank.values(IndexOf(name, likely, rank));
    differ = differ || value != first;
    sum += value;
  }
  // A rate shall not be rounded by having been added up and divided.
  return differ ? sum / static_cast<double>(ranks.size()) : first;
}

class LogProcessorImpl : public LogProcessor {
 public:
  LogProcessorImpl(const Config& config, bool by_epoch, int64_t window_size,
                   int num_digits, std::vector<Statistic> statistics,
                   std::unique_ptr<RE2> mean_pattern)
      : by_epoch_(by_epoch),
        window_size_(window_size),
        num_digits_(num_digits),
        with_hierarchy_(config.log_with_hierarchy()),
        reduces_(config.reduce_logged()),
        statistics_(std::move(statistics)),
        mean_pattern_(std::move(mean_pattern)) {}

  void Setup(MessageHub& hub) override;
  absl::Status ReadIter(Mode mode, const LogPosition& position,
                        const MessageHub& hub, IterNumbers* numbers) override;
  absl::Status ReduceIter(ProcessGroup& group, IterNumbers* numbers) override;
  void FormatIter(const IterNumbers& numbers, std::string* line,
                  Record* record) const override;
  absl::Status FormatEpoch(Mode mode, const LogPosition& position,
                           const Metrics& metrics, const MessageHub& hub,
                           std::string* line, Record* record) override;

 private:
  absl::Status ReadTags(Mode mode, const MessageHub& hub, Tags* tags);

  // True if the mean pattern matches; asked once of each name.
  bool IsSmoothed(absl::string_view name);

  // "Epoch(train) [1][ 2/11]  ".
  void AppendPlace(Mode mode, const LogPosition& position,
                   std::string* line) const;
  void AppendNumber(double value, std::string* line) const;
  void AppendItem(absl::string_view name, double value,
                  std::string* line) const;
  void AddScalar(Mode mode, absl::string_view name, Scalar value,
                 Record* record) const;

  const bool by_epoch_;
  const int64_t window_size_;
  const int num_digits_;
  const bool with_hierarchy_;
  const bool reduces_;
  const std::vector<Statistic> statistics_;
  const std::unique_ptr<RE2> mean_pattern_;

  absl::node_hash_map<std::string, bool> smoothed_;  // By name.
};

void LogProcessorImpl::Setup(MessageHub& hub) {
  hub.KeepAtLeast(window_size_);
  for (const Statistic& statistic : statistics_) {
    for (const std::string& source : statistic.sources) {
      hub.Scalar(source).KeepAtLeast(statistic.entries);
    }
  }
}

bool LogProcessorImpl::IsSmoothed(absl::string_view name) {
  const auto it = smoothed_.find(name);
  if (it != smoothed_.end()) return it->second;
  const bool smoothed = RE2::FullMatch(
      re2::StringPiece(name.data(), name.size()), *mean_pattern_);
  smoothed_.emplace(std::string(name), smoothed);
  return smoothed;
}

absl::Status LogProcessorImpl::ReadTags(Mode mode, const MessageHub& hub,
                                        Tags* tags) {
  const absl::string_view mode_name = ModeName(mode);
  for (const HistoryBuffer* history : hub.scalars()) {
    absl::string_view name = history->name();
    if (!absl::StartsWith(name, mode_name) || name.size() <= mode_name.size() ||
        name[mode_name.size()] != '/') {
      continue;
    }
    name.remove_prefix(mode_name.size() + 1);
    int64_t window = window_size_;
    if (mode != Mode::kTrain) {
      window = std::min(window, history->num_epoch_entries());
      // Metrics of the evaluation before this one.
      if (window == 0) continue;
    }
    GRAPNEL_ASSIGN_OR_RETURN(const double value, IsSmoothed(name)
                                                     ? history->Mean(window)
                                                     : history->Current());
    tags->emplace_back(name, value);
  }
  for (const Statistic& statistic : statistics_) {
    const HistoryBuffer* history =
        hub.FindScalar(statistic.sources[static_cast<int>(mode)]);
    if (history == nullptr) continue;
    if (history->num_epoch_entries() == 0 &&
        (statistic.window == Statistic::Window::kEpoch ||
         mode != Mode::kTrain)) {
      continue;
    }
    GRAPNEL_ASSIGN_OR_RETURN(const double value, Evaluate(statistic, *history));
    if (Tag* tag = FindTag(statistic.log_name, *tags)) {
      tag->second = value;
    } else {
      tags->emplace_back(statistic.log_name, value);
    }
  }
  return absl::OkStatus();
}

void LogProcessorImpl::AppendPlace(Mode mode, const LogPosition& position,
                                   std::string* line) const {
  const bool train = mode == Mode::kTrain;
  absl::StrAppend(line, by_epoch_ ? "Epoch(" : "Iter(", ModeName(mode), ")");
  int64_t i = position.batch_idx + 1;
  int64_t n = position.num_batches;
  if (by_epoch_ && mode != Mode::kTest) {
    // Aligned for the last epoch, behind a blank if training says how many.
    const std::string epoch =
        absl::StrCat("[", position.epoch + (train ? 1 : 0), "]");
    const int width =
        position.has_train_loop ? NumDigits(position.max_epochs) + 3 : 0;
    absl::StrAppendFormat(line, "%*s", width, epoch);
  } else {
    line->push_back(' ');
    if (!by_epoch_ && train) {
      i = position.iter + 1;
      n = position.max_iters;
    }
  }
  absl::StrAppendFormat(line, "[%*d/%d]  ", NumDigits(n), i, n);
}

void LogProcessorImpl::AppendNumber(double value, std::string* line) const {
  if (std::isnan(value)) {
    line->append("nan");  // Never "-nan".
  } else {
    absl::StrAppendFormat(line, "%.*f", num_digits_, value);
  }
}

void LogProcessorImpl::AppendItem(absl::string_view name, double value,
                                  std::string* line) const {
  absl::StrAppend(line, name, ": ");
  AppendNumber(value, line);
}

void LogProcessorImpl::AddScalar(Mode mode, absl::string_view name,
                                 Scalar value, Record* record) const {
  record->scalars.emplace_back(with_hierarchy_
                                   ? absl::StrCat(ModeName(mode), "/", name)
                                   : std::string(name),
                               value);
}

absl::Status LogProcessorImpl::ReadIter(Mode mode, const LogPosition& position,
                                        const MessageHub& hub,
                                        IterNumbers* numbers) {
  *numbers = IterNumbers();
  numbers->mode = mode;
  numbers->position = position;
  numbers->tags.reserve(hub.scalars().size() + statistics_.size());
  if (const MessageHub::Info* memory = hub.FindInfo("memory")) {
    if (const int64_t* mb = std::get_if<int64_t>(memory)) {
      numbers->memory_mb = *mb;
    }
  }
  if (const MessageHub::Info* eta = hub.FindInfo("eta")) {
    if (const double* seconds = std::get_if<double>(eta)) {
      numbers->eta_seconds = *seconds;
    }
  }
  return ReadTags(mode, hub, &numbers->tags);
}

absl::Status LogProcessorImpl::ReduceIter(ProcessGroup& group,
                                          IterNumbers* numbers) {
  if (!reduces_ || group.world_size() == 1 || numbers->mode != Mode::kTrain) {
    return absl::OkStatus();
  }
  LoggedNumbers own;
  for (const Tag& tag : numbers->tags) {
    own.add_names(std::string(tag.first));
    own.add_values(tag.second);
  }
  const auto gathered = group.AllGather(own.SerializeAsString());
  if (!gathered.ok()) return WithContext(gathered.status(), "reduce_logged");
  std::vector<LoggedNumbers> ranks(gathered->size());
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    GRAPNEL_RET_CHECK(ranks[rank].ParseFromString((*gathered)[rank]));
    GRAPNEL_RETURN_IF_ERROR(CheckSameNames(ranks[0], ranks[rank], rank));
  }
  for (size_t i = 0; i < numbers->tags.size(); ++i) {
    Tag& tag = numbers->tags[i];
    tag.second = MeanOf(tag.first, static_cast<int>(i), ranks);
  }
  return absl::OkStatus();
}

void LogProcessorImpl::FormatIter(const IterNumbers& numbers, std::string* line,
                                  Record* record) const {
  const Mode mode = numbers.mode;
  const LogPosition& position = numbers.position;
  const Tags& tags = numbers.tags;
  line->clear();
  AppendPlace(mode, position, line);
  const auto is_rate = [mode](const Tag& tag) {
    return mode == Mode::kTrain && absl::EndsWith(tag.first, "lr");
  };
  bool first = true;
  for (const Tag& tag : tags) {
    if (!is_rate(tag)) continue;
    if (!first) line->push_back(' ');
    first = false;
    absl::StrAppend(line, tag.first, ": ");
    if (std::isnan(tag.second)) {
      line->append("nan");
    } else {
      absl::StrAppendFormat(line, "%.*e", num_digits_, tag.second);
    }
  }
  line->append("  ");

  const Tag* const time = FindTag(kTime, tags);
  const Tag* const data_time = FindTag(kDataTime, tags);
  const bool timed = numbers.eta_seconds.has_value() && time != nullptr &&
                     data_time != nullptr;
  if (timed) {
    absl::StrAppend(line, "eta: ", FormatEta(*numbers.eta_seconds), "  ");
    AppendItem(kTime, time->second, line);
    line->append("  ");
    AppendItem(kDataTime, data_time->second, line);
    line->append("  ");
  }
  if (numbers.memory_mb.has_value()) {
    absl::StrAppend(line, "memory: ", *numbers.memory_mb, "  ");
  }

  first = true;
  for (const Tag& tag : tags) {
    if (is_rate(tag) || (timed && (&tag == time || &tag == data_time))) {
      continue;
    }
    if (mode != Mode::kTrain &&
        !(mode == Mode::kVal && absl::StartsWith(tag.first, "loss"))) {
      continue;
    }
    if (!first) line->append("  ");
    first = false;
    AppendItem(tag.first, tag.second, line);
  }

  if (record == nullptr) return;
  record->kind = KindOf(mode);
  record->scalars.clear();
  record->step = position.iter + (mode == Mode::kTrain ? 1 : 0);
  if (mode != Mode::kTrain) return;
  for (const Tag& tag : tags) AddScalar(mode, tag.first, tag.second, record);
  if (by_epoch_) record->scalars.emplace_back("epoch", position.epoch + 1);
  record->scalars.emplace_back("iter", position.iter + 1);
  if (numbers.memory_mb.has_value()) {
    record->scalars.emplace_back("memory", *numbers.memory_mb);
  }
}

absl::Status LogProcessorImpl::FormatEpoch(Mode mode,
                                           const LogPosition& position,
                                           const Metrics& metrics,
                                           const MessageHub& hub,
                                           std::string* line, Record* record) {
  if (mode == Mode::kTrain) {
    return absl::InvalidArgumentError("mode: training has no metrics");
  }
  const std::string mode_prefix = absl::StrCat(ModeName(mode), "/");
  Metrics items = metrics;
  Metrics times;
  for (const char* const name : {kDataTime, kTime}) {
    const HistoryBuffer* history =
        hub.FindScalar(absl::StrCat(mode_prefix, name));
    if (history == nullptr || history->num_epoch_entries() == 0) continue;
    GRAPNEL_ASSIGN_OR_RETURN(const double mean, history->EpochMean());
    times.emplace_back(name, mean);
    items.erase(
        std::remove_if(items.begin(), items.end(),
                       [name](const auto& item) { return item.first == name; }),
        items.end());
  }
  for (const Statistic& statistic : statistics_) {
    const HistoryBuffer* history =
        hub.FindScalar(statistic.sources[static_cast<int>(mode)]);
    if (history == nullptr || history->num_epoch_entries() == 0) continue;
    GRAPNEL_ASSIGN_OR_RETURN(const double value, Evaluate(statistic, *history));
    const auto replace = [&](Metrics& list) {
      const auto it = std::find_if(
          list.begin(), list.end(),
          [&](const auto& item) { return item.first == statistic.log_name; });
      if (it == list.end()) return false;
      it->second = value;
      return true;
    };
    if (!replace(times) && !replace(items)) {
      items.emplace_back(statistic.log_name, value);
    }
  }
  items.insert(items.end(), times.begin(), times.end());

  line->clear();
  absl::StrAppend(line, by_epoch_ ? "Epoch(" : "Iter(", ModeName(mode), ") ");
  if (by_epoch_ && mode != Mode::kTest) {
    absl::StrAppend(line, "[", position.epoch, "]");
  }
  absl::StrAppend(line, "[", position.num_batches, "/", position.num_batches,
                  "]  ");
  record->kind = KindOf(mode);
  record->scalars.clear();
  record->step = position.step_by_epoch ? position.epoch : position.iter;
  for (const auto& [name, value] : items) {
    absl::StrAppend(line, "  ", with_hierarchy_ ? mode_prefix : "", name, ": ");
    if (const double* number = std::get_if<double>(&value)) {
      AppendNumber(*number, line);
      AddScalar(mode, name, *number, record);
    } else if (const int64_t* integer = std::get_if<int64_t>(&value)) {
      absl::StrAppend(line, *integer);
      AddScalar(mode, name, *integer, record);
    } else {
      absl::StrAppend(line, std::get<std::string>(value));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<LogProcessor>> LogProcessor::Create(
    const Config& config, bool by_epoch) {
  const int64_t window_size = config.has_window_size()
                                  ? config.window_size()
                                  : HistoryBuffer::kDefaultWindow;
  GRAPNEL_RETURN_IF_ERROR(CheckWindow("window_size", window_size));
  if (config.has_by_epoch()) by_epoch = config.by_epoch();
  const int num_digits =
      config.has_num_digits() ? config.num_digits() : kDefaultNumDigits;
  if (num_digits < 0 || num_digits > kMaxNumDigits) {
    return absl::InvalidArgumentError(absl::StrCat(
        "num_digits: must be in 0..", kMaxNumDigits, ", is ", num_digits));
  }

  std::vector<Statistic> statistics;
  absl::flat_hash_set<std::string> log_names;
  for (int i = 0; i < config.custom_cfg_size(); ++i) {
    const std::string context = absl::StrCat("custom_cfg[", i, "]");
    absl::StatusOr<Statistic> statistic =
        ParseStatistic(config.custom_cfg(i), window_size, by_epoch);
    if (!statistic.ok()) return WithContext(statistic.status(), context);
    if (!log_names.insert(statistic->log_name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(context, ": log_name: \"", statistic->log_name,
                       "\" is another entry's too"));
    }
    statistics.push_back(*std::move(statistic));
  }

  auto mean_pattern = std::make_unique<RE2>(
      config.has_mean_pattern() ? config.mean_pattern() : kDefaultMeanPattern,
      RE2::Quiet);
  if (!mean_pattern->ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("mean_pattern: \"", config.mean_pattern(),
                     "\": ", mean_pattern->error()));
  }
  return std::make_unique<LogProcessorImpl>(config, by_epoch, window_size,
                                            num_digits, std::move(statistics),
                                            std::move(mean_pattern));
}

std::string FormatEta(double seconds) {
  constexpr int64_t kDay = 24 * 60 * 60;
  constexpr double kMost = 999999999.0 * kDay;  // As in Python.
  const int64_t whole =
      seconds > 0 ? static_cast<int64_t>(std::min(seconds, kMost)) : 0;
  std::string text;
  if (const int64_t days = whole / kDay; days > 0) {
    absl::StrAppend(&text, days, days == 1 ? " day, " : " days, ");
  }
  absl::StrAppendFormat(&text, "%d:%02d:%02d", whole % kDay / 3600,
                        whole % 3600 / 60, whole % 60);
  return text;
}

}  // namespace grapnel
