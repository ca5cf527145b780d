#include <cmath>
#include <cstdint>
#include <memory>

#include "ATen/ops/full.h"
#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "data/line_dataset.pb.h"
#include "grapnel/data/dataset.h"

namespace acme {

class LineDataset final : public grapnel::Dataset {
 public:
  using Config = LineDatasetConfig;

  static absl::StatusOr<std::unique_ptr<LineDataset>> Create(
      const Config& config, const grapnel::DatasetOptions& options) {
    if (config.size() < 2) {
      return absl::InvalidArgumentError(
          absl::StrCat("size: must be >= 2, is ", config.size()));
    }
    return absl::WrapUnique(new LineDataset(config));
  }

  int64_t size() const override { return config_.size(); }

  absl::Status Get(int64_t index, grapnel::Sample* sample) const override {
    const double x = double(index) / double(size() - 1);
    const bool bad = config_.has_bad_sample() && index == config_.bad_sample();
    const double y = bad ? NAN : config_.slope() * x + config_.offset();
    sample->input = at::full({1}, x, at::kFloat);
    sample->target = at::full({1}, y, at::kFloat);
    return absl::OkStatus();
  }

 private:
  explicit LineDataset(const Config& config) : config_(config) {}

  const Config config_;
};

GRAPNEL_REGISTER(grapnel::DatasetRegistry, LineDataset);

}  // namespace acme
