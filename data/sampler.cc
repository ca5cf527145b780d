#include "grapnel/data/sampler.h"

#include <limits>
#include <numeric>
#include <utility>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/core/MT19937RNGEngine.h"
#include "ATen/core/Tensor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/dense_tensor.h"
#include "grapnel/data/sampler.pb.h"

namespace grapnel {
namespace {

using data::v1::SamplerConfig;

// at::randperm draws in another way from here on.
constexpr int64_t kLarge = std::numeric_limits<uint32_t>::max() / 20;

// ops::randperm(n, generator) for a CPU generator seeded with `seed`, bit for
// bit, but on this thread alone: at::randperm itself numbers large tensors in
// parallel, which would start a pool of threads for the loader worker that
// happens to come to a new epoch.
at::Tensor DrawPermutation(uint64_t seed, int64_t n) {
  if (n >= kLarge) {
    return ops::randperm(n, at::make_generator<at::CPUGeneratorImpl>(seed),
                         at::kLong);
  }
  at::Tensor permutation = NewTensor({n}, at::kLong);
  int64_t* order = permutation.mutable_data_ptr<int64_t>();
  std::iota(order, order + n, 0);
  at::mt19937 engine(seed);
  for (int64_t i = 0; i < n - 1; ++i) {
    std::swap(order[i], order[i + engine() % (n - i)]);
  }
  return permutation;
}

// The orders of successive passes over the dataset, the latest one kept.
class Orders {
 public:
  Orders(int64_t dataset_size, bool shuffle, int64_t seed)
      : size_(dataset_size), shuffle_(shuffle), seed_(seed) {}

  int64_t At(int64_t pass, int64_t place) {
    if (!shuffle_) return place;
    if (pass != drawn_) {
      permutation_ =
          DrawPermutation(static_cast<uint64_t>(seed_) + pass, size_);
      order_ = permutation_.const_data_ptr<int64_t>();
      drawn_ = pass;
    }
    return order_[place];
  }

 private:
  const int64_t size_;
  const bool shuffle_;
  const int64_t seed_;
  int64_t drawn_ = -1;  // The pass whose order it is.
  at::Tensor permutation_;
  const int64_t* order_ = nullptr;  // Its elements.
};

// Of `samples` that ranks take in turn, what one of them gets.
int64_t Share(int64_t samples, const SamplerOptions& options, int rank,
              bool round_up) {
  const int64_t rest = samples % options.world_size;
  return samples / options.world_size + (round_up ? rest != 0 : rank < rest);
}

class DefaultSampler final : public Sampler {
 public:
  DefaultSampler(const SamplerOptions& options, bool shuffle, bool round_up)
      : options_(options),
        round_up_(round_up),
        orders_(options.dataset_size, shuffle, options.seed) {}

  int64_t size() const override { return SizeBehind(0, options_.rank); }
  bool infinite() const override { return false; }

  int64_t SizeBehind(int64_t begin, int rank) const override {
    return Share(options_.dataset_size - begin, options_, rank, round_up_);
  }

  void SetEpoch(int64_t epoch, int64_t begin) override {
    epoch_ = epoch;
    begin_ = begin;
  }

  int64_t At(int64_t position) override {
    int64_t place = begin_ + position * options_.world_size + options_.rank;
    // Only what rounding up has added lies behind the end.
    if (place >= options_.dataset_size) place %= options_.dataset_size;
    return orders_.At(epoch_, place);
  }

 private:
  const SamplerOptions options_;
  const bool round_up_;
  int64_t epoch_ = 0;
  int64_t begin_ = 0;
  Orders orders_;
};

class InfiniteSampler final : public Sampler {
 public:
  InfiniteSampler(const SamplerOptions& options, bool shuffle)
      : options_(options),
        orders_(options.dataset_size, shuffle, options.seed) {}

  int64_t size() const override { return SizeBehind(0, options_.rank); }
  bool infinite() const override { return true; }

  int64_t SizeBehind(int64_t begin, int rank) const override {
    return Share(options_.dataset_size - begin, options_, rank,
                 /*round_up=*/true);
  }

  void SetEpoch(int64_t epoch, int64_t begin) override {
    first_pass_ = epoch;
    begin_ = begin;
  }

  int64_t At(int64_t position) override {
    const int64_t place =
        begin_ + position * options_.world_size + options_.rank;
    return orders_.At(first_pass_ + place / options_.dataset_size,
                      place % options_.dataset_size);
  }

 private:
  const SamplerOptions options_;
  int64_t first_pass_ = 0;
  int64_t begin_ = 0;
  Orders orders_;
};

absl::Status Validate(const SamplerConfig& config,
                      const SamplerOptions& options) {
  if (config.type() != SamplerConfig::TYPE_UNSPECIFIED &&
      config.type() != SamplerConfig::DEFAULT &&
      config.type() != SamplerConfig::INFINITE) {
    return absl::InvalidArgumentError(
        absl::StrCat("type: must be DEFAULT or INFINITE, is ", config.type()));
  }
  if (config.type() == SamplerConfig::INFINITE && config.has_round_up()) {
    return absl::InvalidArgumentError(
        absl::StrCat("round_up: must be unset with type: INFINITE, is ",
                     config.round_up() ? "true" : "false"));
  }
  if (options.dataset_size < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("the dataset must have at least one sample, has ",
                     options.dataset_size));
  }
  if (options.seed < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("seed: must be >= 0, is ", options.seed));
  }
  if (options.world_size < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("world_size: must be >= 1, is ", options.world_size));
  }
  if (options.rank < 0 || options.rank >= options.world_size) {
    return absl::InvalidArgumentError(absl::StrCat(
        "rank: must be in 0..", options.world_size - 1, ", is ", options.rank));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Sampler>> CreateSampler(
    const SamplerConfig& config, const SamplerOptions& options) {
  GRAPNEL_RETURN_IF_ERROR(Validate(config, options));
  if (config.type() == SamplerConfig::INFINITE) {
    return std::make_unique<InfiniteSampler>(options, config.shuffle());
  }
  const bool round_up = !config.has_round_up() || config.round_up();
  auto sampler =
      std::make_unique<DefaultSampler>(options, config.shuffle(), round_up);
  if (sampler->size() == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("round_up: must be true where ", options.dataset_size,
                     " samples don't go round, as with rank ", options.rank,
                     " of ", options.world_size));
  }
  return sampler;
}

}  // namespace grapnel
