#include <cstdint>
#include <memory>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/models/layer.h"
#include "grapnel/models/layer.pb.h"
#include "grapnel/models/layers/config_checks.h"
#include "grapnel/models/shape.h"

namespace grapnel {
namespace {

class FlattenLayer : public SeededLayer {
 public:
  using Config = models::v1::FlattenLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& options) {
    const int64_t start = config.has_start_dim() ? config.start_dim() : 1;
    const int64_t end = config.has_end_dim() ? config.end_dim() : -1;
    const int64_t last = static_cast<int64_t>(options.input_shape.size());
    GRAPNEL_RETURN_IF_ERROR(CheckAtLeast("start_dim", start, 1));
    if (end != -1) GRAPNEL_RETURN_IF_ERROR(CheckAtLeast("end_dim", end, start));
    if (start > last || end > last) {
      return absl::InvalidArgumentError(absl::StrCat(
          start > last ? "start_dim" : "end_dim", ": must be at most ", last,
          ", is ", start > last ? start : end, ": input is ",
          ShapeString(options.input_shape), " behind the batch dimension"));
    }
    return std::make_unique<FlattenLayer>(start, end);
  }

  FlattenLayer(int64_t start_dim, int64_t end_dim)
      : start_dim_(start_dim), end_dim_(end_dim) {}

  at::Tensor Forward(const at::Tensor& input) override {
    return input.flatten(start_dim_, end_dim_);
  }

 private:
  const int64_t start_dim_;
  const int64_t end_dim_;
};

GRAPNEL_REGISTER(LayerRegistry, FlattenLayer);

}  // namespace
}  // namespace grapnel
