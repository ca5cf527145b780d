#include "grapnel/runner/hook_list.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/utf8.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/runner/run_context.h"

namespace grapnel {

absl::Status HookList::Add(ScheduledHook hook) {
  if (hook.hook == nullptr) {
    return absl::InvalidArgumentError("hook: must not be null");
  }
  if (hook.priority < 0 || hook.priority > 100) {
    return absl::InvalidArgumentError(
        absl::StrCat("hook \"", hook.hook->name(),
                     "\": priority: must be in 0..100, is ", hook.priority));
  }
  GRAPNEL_RETURN_IF_ERROR(
      WithContext(CheckUtf8(hook.hook->name()), "hook: name"));
  for (const ScheduledHook& other : hooks_) {
    if (other.hook->name() == hook.hook->name()) {
      return absl::AlreadyExistsError(
          absl::StrCat("two hooks are called \"", hook.hook->name(),
                       "\": their state in checkpoints would be one"));
    }
  }
  const auto position =
      std::upper_bound(hooks_.begin(), hooks_.end(), hook.priority,
                       [](int priority, const ScheduledHook& h) {
                         return priority < h.priority;
                       });
  hooks_.insert(position, std::move(hook));

  for (std::vector<Hook*>& stage : by_stage_) stage.clear();
  for (const ScheduledHook& h : hooks_) {
    for (int stage = 0; stage < kNumStages; ++stage) {
      if (h.stages.Has(static_cast<Stage>(stage))) {
        by_stage_[stage].push_back(h.hook.get());
      }
    }
  }
  return absl::OkStatus();
}

Hook* HookList::Find(absl::string_view name) const {
  for (const ScheduledHook& h : hooks_) {
    if (h.hook->name() == name) return h.hook.get();
  }
  return nullptr;
}

void HookList::CallOnError(RunContext& run, const absl::Status& error) const {
  for (Hook* hook : by_stage_[static_cast<int>(Stage::kOnError)]) {
    const absl::Status status = CatchAsStatus([&] {
      hook->OnError(run, error);
      return absl::OkStatus();
    });
    if (status.ok()) continue;
    run.log().Warning(Blame(*hook, Stage::kOnError, status).message());
  }
}

std::string HookList::Table() const {
  std::string table;
  for (int i = 0; i < kNumStages; ++i) {
    std::vector<std::string> names;
    for (const ScheduledHook& h : hooks_) {
      if (!h.stages.Has(static_cast<Stage>(i))) continue;
      names.push_back(absl::StrCat(h.hook->name(), " (", h.priority, ")"));
    }
    if (names.empty()) continue;
    absl::StrAppend(&table, StageSnakeName(static_cast<Stage>(i)), ": ",
                    absl::StrJoin(names, ", "), "\n");
  }
  return table;
}

absl::Status HookList::Blame(const Hook& hook, Stage stage,
                             const absl::Status& status) {
  return WithContext(
      status, absl::StrCat("hook \"", hook.name(), "\": ", StageName(stage)));
}

}  // namespace grapnel
