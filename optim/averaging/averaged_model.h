// A running average of a model's weights.
//
// Needs no runner and no module of a certain kind: tensors with names. What
// hooks/ema does in a run is this.
//
// Example:
//
//   torch::nn::Linear net(3, 1);
//   torch::optim::SGD sgd(net->parameters(), torch::optim::SGDOptions(0.1));
//   AveragingOptions options;
//   GRAPNEL_ASSIGN_OR_RETURN(options.strategy, EMAStrategy(0.02));
//   GRAPNEL_ASSIGN_OR_RETURN(
//       const std::unique_ptr<AveragedModel> average,
//       AveragedModel::Create(std::move(options), NamedParameters(*net)));
//   for (int i = 0; i < 10; ++i) {
//     sgd.zero_grad();
//     net(torch::rand({8, 3})).square().mean().backward();
//     sgd.step();
//     GRAPNEL_RETURN_IF_ERROR(average->Update());
//   }
//   GRAPNEL_ASSIGN_OR_RETURN(const AverageScope scope,
//                            AverageScope::Enter(average.get()));
//   net->eval();  // Until the scope ends it has the averaged weights.

#ifndef GRAPNEL_OPTIM_AVERAGING_AVERAGED_MODEL_H_
#define GRAPNEL_OPTIM_AVERAGING_AVERAGED_MODEL_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "c10/core/Device.h"
#include "c10/core/ScalarType.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/optim/averaging/averaging_strategy.h"
#include "grapnel/optim/averaging/lerp_kernel.h"

namespace grapnel::optim::v1 {
class AveragedModelConfig;
}  // namespace grapnel::optim::v1

namespace grapnel {

// What AveragedModelConfig says, checked.
struct AveragingOptions {
  // Errors name the field: "strategy: momentum: ...". Strategies are those that
  // are linked in; //optim/averaging:averaging_strategies are ours.
  static absl::StatusOr<AveragingOptions> FromConfig(
      const optim::v1::AveragedModelConfig& config);

  std::unique_ptr<const AveragingStrategy> strategy;  // Not null.
  int64_t interval = 1;
  bool update_buffers = false;
  std::optional<c10::Device> device;
  std::optional<c10::ScalarType> dtype;
};

// Holds an average of every parameter of a model, and with update_buffers of
// every buffer; other buffers it has in common with the model. A model's
// tensors are called the source's.
//
// The first update copies the source; of those after it every interval-th
// averages. There is no other start: without updates the average is what the
// source was at Create. Averages are known by name, and so are buffers, which
// MMEngine pairs by their position. Thread-compatible; the model must not train
// meanwhile.
class AveragedModel {
 public:
  // `parameters` and `buffers` share storage with the model, as
  // Model::parameters() does. kInvalidArgument if a name is there twice or a
  // parameter isn't floating.
  static absl::StatusOr<std::unique_ptr<AveragedModel>> Create(
      AveragingOptions options, const std::vector<NamedTensor>& parameters,
      const std::vector<NamedTensor>& buffers = {});

  // Call after each step of the optimizer. kFailedPrecondition in an
  // AverageScope, as CopySource and Load.
  absl::Status Update();

  // Makes the average equal to the source, integers included. Doesn't count as
  // an update.
  absl::Status CopySource();

  // Calls of Update. Set to >= 0, to go on from a saved average.
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

  // The averaged model's whole state, parameters first, in the source's order.
  // They share storage with the average and, of buffers that aren't averaged,
  // with the source. In an AverageScope tensors() may hold the source's values;
  // State() has the averages even then, in the source's storage where they are.
  const std::vector<NamedTensor>& tensors() const { return tensors_; }
  absl::StatusOr<TensorMap> State() const;

  // What State() would be after a CopySource. Shares storage with the source,
  // where the average has its type and device.
  absl::StatusOr<TensorMap> SourceState() const;

  // What the strategy has to say; see AveragingStrategy.
  std::vector<std::string> warnings() const {
    return options_.strategy->warnings();
  }

  // Copies saved averages in, by name; buffers that aren't averaged are left.
  // Everything is checked before anything is copied. With `strict` the names
  // must be the same; else averages that `saved` lacks are left, and listed in
  // `*report`, if not null, as "missing: <name>", and those that only it has
  // as "unexpected: <name>". kInvalidArgument if a shape differs.
  absl::Status Load(const TensorMap& saved, bool strict,
                    std::vector<std::string>* report);

 private:
  friend class AverageScope;

  explicit AveragedModel(AveragingOptions options)
      : options_(std::move(options)) {}

  // A source, its average, and what the source held while it has the average's
  // values, unless the average holds it.
  struct Swapped {
    at::Tensor average, source, saved;
  };

  absl::Status Add(const NamedTensor& source,
                   std::vector<AveragedTensor>* floating);
  absl::Status CheckNotSwapped() const;
  absl::Status SwapIn();
  absl::Status SwapOut();

  const AveragingOptions options_;
  std::vector<NamedTensor> tensors_;
  std::vector<Swapped> averages_;   // Parameters, and buffers if averaged.
  std::vector<std::string> names_;  // Theirs.
  std::optional<LerpKernel> kernel_;
  int64_t steps_ = 0;
  size_t num_swapped_ = 0;
  bool in_scope_ = false;
};

// While it lives the model has the averaged weights. Values are exchanged in
// place, so that nothing that refers to the weights notices; where the average
// is of another device or type, the model's own values are kept in a copy. A
// model that is moved to another device or type meanwhile gets its values
// there. An optimizer step meanwhile would train the average.
class AverageScope {
 public:
  // `average` outlives the scope. kFailedPrecondition if it is in one. After an
  // error the model is as it was.
  static absl::StatusOr<AverageScope> Enter(AveragedModel* average);

  AverageScope(AverageScope&& other) noexcept
      : average_(std::exchange(other.average_, nullptr)) {}
  AverageScope& operator=(AverageScope&&) = delete;

  // Leaves; an error is logged.
  ~AverageScope();

  // Gives the model its own weights back. Once left it does nothing. After an
  // error, as if a weight has got another shape, some weights are still the
  // averaged ones, and the average refuses what it refuses in a scope.
  absl::Status Leave();

 private:
  explicit AverageScope(AveragedModel* average) : average_(average) {}

  AveragedModel* average_;
};

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_AVERAGING_AVERAGED_MODEL_H_
