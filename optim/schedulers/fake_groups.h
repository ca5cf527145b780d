// Parameter groups without an optimizer, for tests of schedulers.

#ifndef GRAPNEL_OPTIM_SCHEDULERS_FAKE_GROUPS_H_
#define GRAPNEL_OPTIM_SCHEDULERS_FAKE_GROUPS_H_

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/optim/param_groups.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "gtest/gtest.h"

namespace grapnel {

// Groups of any options.
class FakeGroups : public ParamGroups {
 public:
  using Options = std::map<std::string, double>;

  explicit FakeGroups(std::vector<Options> groups, bool has_base_group = false)
      : groups_(std::move(groups)), has_base_group_(has_base_group) {}

  int num_groups() const override { return static_cast<int>(groups_.size()); }
  bool has_base_group() const override { return has_base_group_; }
  double* option(int group, absl::string_view name) override {
    const auto found = groups_[group].find(std::string(name));
    return found == groups_[group].end() ? nullptr : &found->second;
  }

  const std::vector<Options>& values() const { return groups_; }
  void Set(int group, const std::string& name, double value) {
    groups_[group].at(name) = value;
  }
  // As an optimizer's LoadState: values change, and stay where they lie.
  void Load(const FakeGroups& saved) {
    for (size_t i = 0; i < groups_.size(); ++i) {
      for (auto& [name, value] : groups_[i]) value = saved.groups_[i].at(name);
    }
  }

  double lr(int group = 0) const { return groups_[group].at("lr"); }

 private:
  std::vector<Options> groups_;
  const bool has_base_group_;
};

using Schedulers = std::vector<std::unique_ptr<ParamScheduler>>;

// The scheduler of a ParamSchedulerConfig in text. It must be a good one.
inline std::unique_ptr<ParamScheduler> MakeScheduler(
    const std::string& text, ParamGroups& groups,
    const RunLength& length = {}) {
  optim::v1::ParamSchedulerConfig config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config))
      << text;
  auto scheduler = ParamSchedulerRegistry::Create(config, groups, length);
  EXPECT_THAT(scheduler, IsOk()) << text;
  return scheduler.ok() ? *std::move(scheduler) : nullptr;
}

inline Schedulers MakeSchedulers(const std::vector<std::string>& texts,
                                 ParamGroups& groups,
                                 const RunLength& length = {}) {
  Schedulers schedulers;
  for (const std::string& text : texts) {
    schedulers.push_back(MakeScheduler(text, groups, length));
  }
  return schedulers;
}

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_SCHEDULERS_FAKE_GROUPS_H_
