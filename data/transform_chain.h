// The transforms of a configuration, one after another.

#ifndef GRAPNEL_DATA_TRANSFORM_CHAIN_H_
#define GRAPNEL_DATA_TRANSFORM_CHAIN_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/transform.h"

namespace grapnel::data::v1 {
class DataLoaderConfig;
}  // namespace grapnel::data::v1

namespace grapnel {

// Nothing changes after Create: safe to use from many threads.
class TransformChain {
 public:
  // Of none.
  TransformChain() = default;

  // Those of `config`; `seed` is that of their random numbers. Errors name the
  // field.
  static absl::StatusOr<TransformChain> Create(
      const data::v1::DataLoaderConfig& config, int64_t seed);

  // Applies them to the sample that is `index`-th in the data, in that pass
  // over it. Errors name the transform and the index.
  absl::Status Apply(int64_t pass, int64_t index, Sample* sample) const;

  bool empty() const { return transforms_.empty(); }

  // False if they do the same in every pass.
  bool depends_on_pass() const { return depends_on_pass_; }

 private:
  int64_t seed_ = 0;
  std::vector<std::unique_ptr<Transform>> transforms_;
  std::vector<std::string> names_;  // For messages.
  bool depends_on_pass_ = false;
};

}  // namespace grapnel

#endif  // GRAPNEL_DATA_TRANSFORM_CHAIN_H_
