#include "grapnel/runner/message_hub.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/utf8.h"
#include "grapnel/runner/message_hub.pb.h"

namespace grapnel {
namespace {

using State = runner::v1::MessageHubState;

// The value of that key, made if there is none.
template <typename Map>
typename Map::mapped_type& FindOrAdd(Map& map, absl::string_view key) {
  const auto it = map.find(key);
  return it != map.end() ? it->second : map[std::string(key)];
}

// Names, and facts that are text, as they are kept: models, metrics and hooks
// give them, and checkpoints hold UTF-8 alone. `*escaped` holds the result if
// `name` isn't.
absl::string_view Kept(absl::string_view name, std::string* escaped) {
  if (IsUtf8(name)) return name;
  *escaped = EscapeToUtf8(name);
  return *escaped;
}

void SaveInfo(const MessageHub::Info& info, State::Info* state) {
  struct Visitor {
    State::Info* state;
    void operator()(int64_t value) { state->set_int_value(value); }
    void operator()(double value) { state->set_double_value(value); }
    void operator()(bool value) { state->set_bool_value(value); }
    void operator()(const std::string& value) {
      // What came by InfoSlot has not been looked at.
      state->set_string_value(IsUtf8(value) ? value : EscapeToUtf8(value));
    }
    void operator()(const std::vector<int64_t>& value) {
      state->mutable_ints_value()->mutable_values()->Assign(value.begin(),
                                                            value.end());
    }
  };
  std::visit(Visitor{state}, info);
}

absl::StatusOr<MessageHub::Info> LoadInfo(const State::Info& state) {
  switch (state.value_case()) {
    case State::Info::kIntValue:
      return state.int_value();
    case State::Info::kDoubleValue:
      return state.double_value();
    case State::Info::kBoolValue:
      return state.bool_value();
    case State::Info::kStringValue:
      return state.string_value();
    case State::Info::kIntsValue:
      return std::vector<int64_t>(state.ints_value().values().begin(),
                                  state.ints_value().values().end());
    case State::Info::VALUE_NOT_SET:
      break;
  }
  return absl::DataLossError("has no value");
}

}  // namespace

MessageHub::MessageHub() = default;
MessageHub::~MessageHub() = default;

HistoryBuffer& MessageHub::Scalar(absl::string_view name) {
  std::string escaped;
  name = Kept(name, &escaped);
  std::unique_ptr<HistoryBuffer>& history = FindOrAdd(histories_, name);
  if (history == nullptr) {
    history = absl::WrapUnique(
        new HistoryBuffer(std::string(name), window_, &scalars_));
  }
  return *history;
}

const HistoryBuffer* MessageHub::FindScalar(absl::string_view name) const {
  std::string escaped;
  const auto it = histories_.find(Kept(name, &escaped));
  if (it == histories_.end() || it->second->num_entries() == 0) return nullptr;
  return it->second.get();
}

void MessageHub::KeepAtLeast(int64_t window) {
  window_ = std::max(window_, std::min(window, HistoryBuffer::kMaxWindow));
  for (auto& [name, history] : histories_) history->KeepAtLeast(window_);
}

void MessageHub::ForgetScalar(absl::string_view name) {
  const auto history = std::find_if(
      scalars_.begin(), scalars_.end(),
      [name](const HistoryBuffer* h) { return h->name() == name; });
  if (history == scalars_.end()) return;
  (*history)->Clear();
  scalars_.erase(history);
}

void MessageHub::BeginEpoch(Mode mode) {
  const std::string prefix = absl::StrCat(ModeName(mode), "/");
  for (HistoryBuffer* history : scalars_) {
    if (absl::StartsWith(history->name(), prefix)) history->BeginEpoch();
  }
}

void MessageHub::SetInfo(absl::string_view name, Info value, bool resumable) {
  std::string escaped;
  Fact& fact = FindOrAdd(infos_, Kept(name, &escaped));
  if (auto* text = std::get_if<std::string>(&value)) {
    if (!IsUtf8(*text)) *text = EscapeToUtf8(*text);
  }
  fact.value = std::move(value);
  fact.resumable = resumable;
}

std::optional<MessageHub::Info>& MessageHub::InfoSlot(absl::string_view name) {
  std::string escaped;
  return FindOrAdd(infos_, Kept(name, &escaped)).value;
}

const MessageHub::Info* MessageHub::FindInfo(absl::string_view name) const {
  std::string escaped;
  const auto it = infos_.find(Kept(name, &escaped));
  if (it == infos_.end() || !it->second.value.has_value()) return nullptr;
  return &*it->second.value;
}

void MessageHub::RemoveInfo(absl::string_view name) {
  std::string escaped;
  const auto it = infos_.find(Kept(name, &escaped));
  if (it != infos_.end()) it->second.value.reset();
}

void MessageHub::SaveState(State* state) const {
  state->Clear();
  for (const HistoryBuffer* history : scalars_) {
    history->Save(state->add_scalars());
  }
  for (const auto& [name, fact] : infos_) {
    if (!fact.resumable || !fact.value.has_value()) continue;
    SaveInfo(*fact.value, &(*state->mutable_infos())[name]);
  }
}

int64_t MessageHub::ShortWindow() const {
  int64_t least = -1;
  for (const HistoryBuffer* history : scalars_) {
    const int64_t kept = history->num_kept_;
    if (!history->cut_ ||
        kept == std::min(history->capacity_, history->num_entries_)) {
      continue;
    }
    if (least < 0 || kept < least) least = kept;
  }
  return least;
}

absl::Status MessageHub::LoadState(const State& state) {
  absl::flat_hash_set<absl::string_view> names;
  for (int i = 0; i < state.scalars_size(); ++i) {
    const State::History& history = state.scalars(i);
    absl::Status status = HistoryBuffer::CheckState(history);
    if (status.ok() && !names.insert(history.name()).second) {
      status = absl::DataLossError("comes twice");
    }
    if (!status.ok()) {
      return WithContext(
          status, absl::StrCat("scalars[", i, "] \"", history.name(), "\""));
    }
  }
  std::vector<std::pair<std::string, Info>> infos;
  for (const auto& [name, info] : state.infos()) {
    absl::StatusOr<Info> value = LoadInfo(info);
    if (!value.ok()) {
      return WithContext(value.status(), absl::StrCat("infos[\"", name, "\"]"));
    }
    infos.emplace_back(name, *std::move(value));
  }

  for (HistoryBuffer* history : scalars_) history->Clear();
  scalars_.clear();
  for (const State::History& saved : state.scalars()) {
    HistoryBuffer& history = Scalar(saved.name());
    history.Load(saved);
    scalars_.push_back(&history);
  }
  for (auto& [name, fact] : infos_) {
    if (fact.resumable) fact.value.reset();
  }
  for (auto& [name, value] : infos) SetInfo(name, std::move(value));
  return absl::OkStatus();
}

}  // namespace grapnel
