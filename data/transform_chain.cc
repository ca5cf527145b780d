#include "grapnel/data/transform_chain.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "grapnel/base/kind_name.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/data.pb.h"
#include "grapnel/data/sample_rng.h"
#include "grapnel/data/transform.pb.h"

namespace grapnel {
namespace {

using data::v1::TransformConfig;

// "transforms[1]: normalize", or without what it is if that isn't set.
std::string FieldName(int i, const TransformConfig& config) {
  const std::string kind = KindName(config);
  return absl::StrCat("transforms[", i, "]", kind.empty() ? "" : ": ", kind);
}

bool DependsOnPass(const TransformConfig& config) {
  return config.kind_case() != TransformConfig::kScale &&
         config.kind_case() != TransformConfig::kNormalize;
}

}  // namespace

absl::StatusOr<TransformChain> TransformChain::Create(
    const data::v1::DataLoaderConfig& config, int64_t seed) {
  TransformChain chain;
  chain.seed_ = seed;
  for (int i = 0; i < config.transforms_size(); ++i) {
    const TransformConfig& transform = config.transforms(i);
    std::string name = FieldName(i, transform);
    absl::StatusOr<std::unique_ptr<Transform>> created;
    absl::Status status = CatchAsStatus([&] {
      created = TransformRegistry::Create(transform);
      return created.status();
    });
    if (!status.ok()) return WithContext(std::move(status), name);
    chain.transforms_.push_back(*std::move(created));
    chain.names_.push_back(std::move(name));
    chain.depends_on_pass_ |= DependsOnPass(transform);
  }
  return chain;
}

absl::Status TransformChain::Apply(int64_t pass, int64_t index,
                                   Sample* sample) const {
  SampleRng rng(seed_, pass, index);
  for (size_t i = 0; i < transforms_.size(); ++i) {
    absl::Status status =
        CatchAsStatus([&] { return transforms_[i]->Apply(rng, sample); });
    if (!status.ok()) {
      return WithContext(std::move(status),
                         absl::StrCat(names_[i], ": sample ", index));
    }
  }
  return absl::OkStatus();
}

}  // namespace grapnel
