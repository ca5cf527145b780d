#include "grapnel/dist/ddp/ddp_reducer.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "ATen/core/Tensor.h"
#include "ATen/core/ivalue.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "c10/core/GradMode.h"
#include "c10/util/StringUtil.h"
#include "c10/util/intrusive_ptr.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/base/utf8.h"
#include "grapnel/dist/c10d_handle.h"
#include "grapnel/dist/ddp/agreement.h"
#include "torch/csrc/autograd/function.h"
#include "torch/csrc/autograd/variable.h"
#include "torch/csrc/distributed/c10d/ProcessGroup.hpp"
#include "torch/csrc/distributed/c10d/comm.hpp"
#include "torch/csrc/distributed/c10d/logger.hpp"
#include "torch/csrc/distributed/c10d/reducer.hpp"

namespace grapnel {
namespace {

constexpr double kBytesPerMib = 1024 * 1024;

// In errors.
constexpr char kAveraging[] = "averaging of gradients";

// What a rank says of a parameter's gradient: it is there, or not, which it may
// be or not.
constexpr char kHas = '+';
constexpr char kMayLack = '0';
constexpr char kLacks = '-';

// Of one broadcast; DistributedDataParallel's.
constexpr size_t kBroadcastBytes = size_t{250} << 20;

const char* CompressionName(DdpOptions::Compression compression) {
  switch (compression) {
    case DdpOptions::Compression::kNone:
      return "none";
    case DdpOptions::Compression::kFloat16:
      return "float16";
    case DdpOptions::Compression::kBFloat16:
      return "bfloat16";
  }
  return "unknown";
}

std::string Quoted(const char* what, const std::string& name) {
  return absl::StrCat(what, " \"", EscapeToUtf8(name), "\"");
}

std::string Describe(const at::Tensor& tensor) {
  std::string text = absl::StrCat(c10::str(tensor.sizes()), " ",
                                  c10::toString(tensor.scalar_type()));
  if (!tensor.is_contiguous()) {
    absl::StrAppend(&text, " with strides ", c10::str(tensor.strides()));
  }
  if (tensor.requires_grad()) absl::StrAppend(&text, ", requires a gradient");
  return text;
}

std::vector<AgreedItem> ItemsOf(const std::vector<NamedTensor>& params,
                                const std::vector<NamedTensor>& buffers,
                                const DdpOptions& options) {
  const auto name = [](bool value) { return value ? "true" : "false"; };
  std::vector<AgreedItem> items = {
      {"find_unused_parameters", name(options.find_unused_parameters)},
      {"static_graph", name(options.static_graph)},
      {"broadcast_buffers", name(options.broadcast_buffers)},
      {"bucket_cap_mb", options.bucket_cap_mb.has_value()
                            ? absl::StrCat(*options.bucket_cap_mb)
                            : "unset"},
      {"compression", CompressionName(options.compression)},
  };
  for (const NamedTensor& param : params) {
    items.push_back({Quoted("parameter", param.name), Describe(param.tensor)});
  }
  for (const NamedTensor& buffer : buffers) {
    items.push_back({Quoted("buffer", buffer.name), Describe(buffer.tensor)});
  }
  return items;
}

// Each once, without its graph.
std::vector<at::Tensor> DistinctTensors(const std::vector<NamedTensor>& first,
                                        const std::vector<NamedTensor>& then) {
  std::unordered_set<const c10::TensorImpl*> seen;
  std::vector<at::Tensor> out;
  for (const auto* list : {&first, &then}) {
    for (const NamedTensor& one : *list) {
      if (!seen.insert(one.tensor.unsafeGetTensorImpl()).second) continue;
      out.push_back(one.tensor.detach());
    }
  }
  return out;
}

// Of 0..size - 1.
bool IsPermutation(std::vector<int64_t> numbers, size_t size) {
  if (numbers.size() != size) return false;
  std::sort(numbers.begin(), numbers.end());
  for (size_t i = 0; i < size; ++i) {
    if (numbers[i] != static_cast<int64_t>(i)) return false;
  }
  return true;
}

// Averages in a smaller type.
class CompressionHook final : public c10d::CppCommHookInterface<
                                  c10::intrusive_ptr<c10d::ProcessGroup>> {
 public:
  CompressionHook(c10::intrusive_ptr<c10d::ProcessGroup> group,
                  c10::ScalarType dtype)
      : CppCommHookInterface(std::move(group)), dtype_(dtype) {}

  c10::intrusive_ptr<c10::ivalue::Future> runHook(
      c10d::GradBucket& bucket) override {
    // Divides first: a sum overflows sooner.
    std::vector<at::Tensor> sent = {
        bucket.getBufferRef().to(dtype_).div_(state_->getSize())};
    return state_->allreduce(sent)->getFuture()->then(
        [full = bucket.getBufferRef()](c10::ivalue::Future& sum) {
          full.copy_(sum.value().toTensorVector()[0]);
          return c10::IValue(full);
        },
        c10::TensorType::get());
  }

 private:
  const c10::ScalarType dtype_;
};

class OpenReducer final : public c10d::Reducer {
 public:
  using Reducer::Reducer;

  // What a static graph's first averaged backward pass records adds to what
  // those in the window before it have left.
  void ForgetRecord() {
    for (auto& [index, count] : numGradHooksTriggeredMap_) count = 0;
  }

  // Which parameters a window used. A backward pass that averages does so at
  // its end.
  void ForgetUsed() {
    if (local_used_map_.defined()) local_used_map_.zero_();
  }

  // Of the gradients; empty before buckets are made by it.
  std::vector<int64_t> order() const {
    if (!has_rebuilt_bucket_) return rebuilt_param_indices_;
    std::vector<int64_t> order;
    for (const Bucket& bucket : buckets_) {
      order.insert(order.end(), bucket.variable_indices.begin(),
                   bucket.variable_indices.end());
    }
    return order;
  }

  // Makes buckets as a first backward pass with this order would.
  void MakeBuckets(const std::vector<int64_t>& order) {
    if (!should_rebuild_buckets()) return;
    for (const int64_t index : order) push_rebuilt_params(index);
    rebuild_buckets();
  }

  // Whether a backward pass that was prepared for hasn't averaged all.
  bool unfinished() const { return expect_autograd_hooks_; }
};

class DdpReducer final : public GradientReducer {
 public:
  DdpReducer(C10dProcessGroup* owner, std::vector<NamedTensor> params,
             std::vector<at::Tensor> buffers, const DdpOptions& options)
      : owner_(owner),
        group_(c10::intrusive_ptr<c10d::ProcessGroup>::reclaim_copy(
            &owner->c10d_group())),
        params_(std::move(params)),
        buffers_(std::move(buffers)),
        options_(options) {}

  // Makes `tensors` rank 0's.
  absl::Status Broadcast(const std::vector<at::Tensor>& tensors) {
    return Communicate("broadcast of the model", [&] {
      const c10::AutoGradMode no_grad(false);
      c10d::broadcast_coalesced(group_, tensors, kBroadcastBytes);
      return absl::OkStatus();
    });
  }

  // Makes what may throw.
  absl::Status Init() {
    return CatchAsStatus([&] {
      std::vector<at::Tensor> tensors;
      std::unordered_map<size_t, std::string> names;
      for (const NamedTensor& param : params_) {
        names[tensors.size()] = param.name;
        tensors.push_back(param.tensor);
      }
      const std::vector<bool> sparse(tensors.size(), false);
      int64_t cap = c10d::kDefaultBucketBytesCap;
      int64_t first_cap = c10d::kDefaultFirstBucketBytes;
      if (options_.bucket_cap_mb.has_value()) {
        cap = static_cast<int64_t>(*options_.bucket_cap_mb * kBytesPerMib);
        first_cap = cap;
      }
      bucket_cap_ = static_cast<size_t>(cap);
      // In which order gradients come isn't known before the first backward
      // pass; where buckets are made anew after it they begin as one.
      std::vector<size_t> limits = {SIZE_MAX};
      if (finds_unused()) {
        limits = {static_cast<size_t>(first_cap), static_cast<size_t>(cap)};
      }
      std::vector<std::vector<size_t>> buckets = std::get<0>(
          c10d::compute_bucket_assignment_by_size(tensors, limits, sparse));
      std::reverse(buckets.begin(), buckets.end());
      reducer_ = std::make_shared<OpenReducer>(
          std::move(tensors), std::move(buckets), group_, sparse, cap,
          options_.find_unused_parameters, /*gradient_as_bucket_view=*/true,
          std::move(names), first_cap, /*skip_all_reduce_unused_params=*/false,
          /*use_python_reducer=*/false, std::vector<int64_t>());
      // The Reducer takes one for granted in places. Not told of its
      // construction: it would take whatever calls itself gloo for LibTorch's.
      logger_ = std::make_shared<c10d::Logger>(reducer_);
      reducer_->set_logger(logger_);
      if (options_.static_graph) {
        reducer_->set_static_graph();
        logger_->set_static_graph();
      }
      switch (options_.compression) {
        case DdpOptions::Compression::kNone:
          break;
        case DdpOptions::Compression::kFloat16:
          Compress(c10::kHalf);
          break;
        case DdpOptions::Compression::kBFloat16:
          Compress(c10::kBFloat16);
          break;
      }
      outputs_.reserve(1);
      return absl::OkStatus();
    });
  }

  absl::Status BeginForward(bool sync) override {
    if (phase_ == Phase::kFailed) return Failed();
    if (phase_ == Phase::kBackward) {
      return absl::FailedPreconditionError(
          "a backward pass was begun and not ended");
    }
    // Makes buckets anew, once, after the first averaged backward pass.
    GRAPNEL_RETURN_IF_ERROR(Communicate("order of the gradients", [&] {
      reducer_->rebuild_buckets();
      return absl::OkStatus();
    }));
    if (buffers_due_ && options_.broadcast_buffers && !buffers_.empty()) {
      GRAPNEL_RETURN_IF_ERROR(Broadcast(buffers_));
    }
    buffers_due_ = sync;
    sync_ = sync;
    phase_ = Phase::kForward;
    return absl::OkStatus();
  }

  absl::Status BeginBackward(const at::Tensor& loss) override {
    if (phase_ == Phase::kFailed) return Failed();
    if (phase_ != Phase::kForward) {
      return absl::FailedPreconditionError(
          "BeginForward must come before each backward pass");
    }
    if (!loss.defined()) {
      return absl::InvalidArgumentError("loss: is undefined");
    }
    phase_ = Phase::kBackward;
    const absl::Status status = CatchAsStatus([&] {
      if (!sync_) return absl::OkStatus();
      outputs_.push_back(loss);
      reducer_->prepare_for_forward();  // Counts.
      if (options_.static_graph && !recorded_) reducer_->ForgetRecord();
      reducer_->prepare_for_backward(finds_unused() ? outputs_ : none_);
      return absl::OkStatus();
    });
    return status.ok() ? status : Fail(status);
  }

  absl::Status EndBackward() override {
    if (phase_ == Phase::kFailed) return Failed();
    if (phase_ != Phase::kBackward) {
      return absl::FailedPreconditionError(
          "BeginBackward must come before each backward pass");
    }
    if (sync_ && options_.static_graph && !recorded_) {
      GRAPNEL_RETURN_IF_ERROR(Communicate(kAveraging, [&] {
        const c10::AutoGradMode no_grad(false);
        reducer_->delay_all_reduce();
        return absl::OkStatus();
      }));
      recorded_ = true;
    }
    if (sync_ && reducer_->unfinished()) return Fail(Unfinished());
    outputs_.clear();
    phase_ = Phase::kIdle;
    return absl::OkStatus();
  }

  absl::Status AverageGradients(bool counts) override {
    if (phase_ == Phase::kFailed) return Failed();
    if (phase_ != Phase::kForward || !sync_) {
      return absl::FailedPreconditionError(
          "BeginForward with sync must come before each averaging of "
          "gradients");
    }
    std::vector<at::Tensor> gradients;
    const absl::Status agreed =
        CatchAsStatus([&] { return FindGradients(counts, &gradients); });
    if (!agreed.ok()) return Fail(WithContext(agreed, kAveraging));
    GRAPNEL_RETURN_IF_ERROR(Communicate(kAveraging, [&] {
      const c10::AutoGradMode no_grad(false);
      auto begin = gradients.begin();
      while (begin != gradients.end()) {
        size_t bytes = begin->nbytes();
        auto end = begin + 1;
        while (end != gradients.end() && bytes + end->nbytes() <= bucket_cap_ &&
               end->scalar_type() == begin->scalar_type()) {
          bytes += end++->nbytes();
        }
        AverageBucket({begin, end});
        begin = end;
      }
      reducer_->ForgetUsed();
      return absl::OkStatus();
    }));
    phase_ = Phase::kIdle;
    return absl::OkStatus();
  }

  absl::Status AverageNumbers(absl::Span<double> numbers) override {
    if (phase_ == Phase::kFailed) return Failed();
    return Communicate("average of numbers", [&] {
      // Not where they are: after an error c10d may still write there.
      const at::Tensor sums = ops::tensor(
          at::ArrayRef<double>(numbers.data(), numbers.size()), at::kDouble);
      std::vector<at::Tensor> sent = {sums};
      group_->allreduce(sent)->wait();
      for (size_t i = 0; i < numbers.size(); ++i) {
        numbers[i] = sums.const_data_ptr<double>()[i] / group_->getSize();
      }
      return absl::OkStatus();
    });
  }

  absl::Status EndFailedBackward(const absl::Status& failure) override {
    // Waits come last. What a backend says when it can't even begin has its
    // name in it; the rest is the model's.
    const bool waited = phase_ == Phase::kBackward && sync_ &&
                        (!reducer_->unfinished() ||
                         absl::StrContains(failure.message(), "gloo") ||
                         absl::StrContains(failure.message(), "NCCL"));
    return Fail(waited ? owner_->Explain(failure, kAveraging) : failure);
  }

  std::vector<int64_t> order() const override { return reducer_->order(); }

  absl::Status SetOrder(const std::vector<int64_t>& order) override {
    if (!IsPermutation(order, params_.size())) return absl::OkStatus();
    return Communicate("order of the gradients", [&] {
      reducer_->MakeBuckets(order);
      return absl::OkStatus();
    });
  }

 private:
  enum class Phase { kIdle, kForward, kBackward, kFailed };

  // The Reducer looks for unused parameters in the graph. Of a static graph it
  // knows them.
  bool finds_unused() const {
    return options_.find_unused_parameters && !options_.static_graph;
  }

  void Compress(c10::ScalarType dtype) {
    compressed_ = dtype;
    reducer_->register_comm_hook(
        std::make_unique<CompressionHook>(group_, dtype));
  }

  // Calls `f`, which waits for other ranks.
  template <typename F>
  absl::Status Communicate(const char* what, F&& f) {
    const absl::Status status = CatchAsStatus(f);
    return status.ok() ? status : Fail(owner_->Explain(status, what));
  }

  absl::Status Fail(absl::Status status) {
    phase_ = Phase::kFailed;
    outputs_.clear();
    return status;
  }

  // Those that this rank or another one has; zeros of its own where it has no
  // part.
  absl::Status FindGradients(bool counts, std::vector<at::Tensor>* gradients) {
    const bool may_lack = !counts || options_.find_unused_parameters;
    std::string mine;
    for (const NamedTensor& param : params_) {
      const bool has = param.tensor.grad().defined();
      mine.push_back(has ? kHas : may_lack ? kMayLack : kLacks);
    }
    GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                             owner_->AllGather(mine));
    for (size_t i = 0; i < params_.size(); ++i) {
      const auto first = [&](char what) {
        return std::find_if(
            all.begin(), all.end(),
            [&](const std::string& one) { return one[i] == what; });
      };
      if (first(kHas) == all.end()) continue;
      if (first(kLacks) != all.end()) {
        return absl::FailedPreconditionError(
            absl::StrCat(Quoted("parameter", params_[i].name),
                         " has a gradient on rank ", first(kHas) - all.begin(),
                         " and none on rank ", first(kLacks) - all.begin(),
                         "; find_unused_parameters: true allows that"));
      }
      at::Tensor& gradient = params_[i].tensor.mutable_grad();
      if (!gradient.defined()) gradient = ops::zeros_like(params_[i].tensor);
      gradients->push_back(gradient);
    }
    return absl::OkStatus();
  }

  // `gradients`: of one dtype. Each is scaled and rounded as in the Reducer's
  // buckets: two ranks come to the same bits. On more, those depend on the
  // order that ranks are added up in, and that on the place in a bucket.
  void AverageBucket(const std::vector<at::Tensor>& gradients) {
    std::vector<at::Tensor> flat;
    for (const at::Tensor& gradient : gradients) {
      flat.push_back(gradient.reshape({-1}));
    }
    at::Tensor bucket = ops::cat(flat);
    if (compressed_.has_value()) {
      bucket = bucket.to(*compressed_).div_(group_->getSize());
    } else {
      bucket.mul_(1.0 / group_->getSize());
    }
    std::vector<at::Tensor> sent = {bucket};
    group_->allreduce(sent)->wait();
    int64_t begin = 0;
    for (const at::Tensor& gradient : gradients) {
      gradient.copy_(
          bucket.narrow(0, begin, gradient.numel()).view(gradient.sizes()));
      begin += gradient.numel();
    }
  }

  static absl::Status Failed() {
    return absl::FailedPreconditionError(
        "the averaging of gradients has failed before");
  }

  // The graph that went backward is still there, without what it saved.
  absl::Status Unfinished() const {
    std::unordered_set<const torch::autograd::Node*> reached;
    std::vector<const torch::autograd::Node*> left;
    const auto reach = [&](const torch::autograd::Node* node) {
      if (node != nullptr && reached.insert(node).second) left.push_back(node);
    };
    reach(
        torch::autograd::impl::gradient_edge(outputs_.front()).function.get());
    while (!left.empty()) {
      const torch::autograd::Node* const node = left.back();
      left.pop_back();
      for (const torch::autograd::Edge& edge : node->next_edges()) {
        reach(edge.function.get());
      }
    }
    std::vector<std::string> names;
    for (const NamedTensor& param : params_) {
      const auto node = torch::autograd::impl::grad_accumulator(param.tensor);
      if (reached.count(node.get()) > 0) continue;
      names.push_back(absl::StrCat("\"", EscapeToUtf8(param.name), "\""));
    }
    if (names.empty()) {
      return absl::FailedPreconditionError(
          options_.static_graph
              ? "gradients weren't averaged: a parameter got another number of "
                "gradients than in the first iteration; static_graph: true is "
                "for losses that are always computed in the same way"
              : "gradients weren't averaged: backward didn't come to all "
                "parameters that the loss is computed from, or was another "
                "loss's");
    }
    const size_t count = names.size();
    constexpr size_t kNamed = 10;
    names.resize(std::min(count, kNamed));
    return absl::FailedPreconditionError(absl::StrCat(
        "gradients weren't averaged: the loss isn't computed from ",
        count == 1 ? "parameter " : "parameters ", absl::StrJoin(names, ", "),
        count > kNamed ? absl::StrCat(" and ", count - kNamed, " more") : "",
        ", which got no gradient; ",
        options_.static_graph
            ? "static_graph: true is for losses that are always computed from "
              "the same ones"
            : "find_unused_parameters: true allows that"));
  }

  C10dProcessGroup* const owner_;
  const c10::intrusive_ptr<c10d::ProcessGroup> group_;
  const std::vector<NamedTensor> params_;
  const std::vector<at::Tensor> buffers_;
  const DdpOptions options_;
  size_t bucket_cap_ = 0;  // Bytes.
  std::optional<c10::ScalarType> compressed_;
  std::shared_ptr<OpenReducer> reducer_;
  std::shared_ptr<c10d::Logger> logger_;
  std::vector<at::Tensor> outputs_;  // The loss, from Begin- to EndBackward.
  const std::vector<at::Tensor> none_;
  Phase phase_ = Phase::kIdle;
  bool sync_ = false;        // Of this iteration.
  bool buffers_due_ = true;  // Before the next forward pass.
  bool recorded_ = false;    // A static graph's first backward pass is done.
};

}  // namespace

absl::StatusOr<std::unique_ptr<GradientReducer>> CreateDdpReducer(
    ProcessGroup& group, const std::vector<NamedTensor>& params,
    const std::vector<NamedTensor>& buffers, const DdpOptions& options) {
  C10dProcessGroup* const owner = AsC10dProcessGroup(group);
  if (owner == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("group: must be one of several processes over c10d, is ",
                     group.description()));
  }
  // Before the options are checked: for what this rank alone finds wrong the
  // others would wait.
  GRAPNEL_RETURN_IF_ERROR(
      CheckAgreement(ItemsOf(params, buffers, options), group));
  if (options.bucket_cap_mb.has_value()) {
    GRAPNEL_RETURN_IF_ERROR(CheckField(
        std::isfinite(*options.bucket_cap_mb) && *options.bucket_cap_mb > 0,
        "bucket_cap_mb", "finite and > 0", *options.bucket_cap_mb));
  }
  std::vector<NamedTensor> averaged;
  std::unordered_set<const c10::TensorImpl*> seen;
  for (const NamedTensor& param : params) {
    if (param.tensor.requires_grad() &&
        seen.insert(param.tensor.unsafeGetTensorImpl()).second) {
      averaged.push_back(param);
    }
  }
  if (averaged.empty()) {
    return absl::InvalidArgumentError("no parameter requires a gradient");
  }
  auto reducer = std::make_unique<DdpReducer>(
      owner, std::move(averaged), DistinctTensors({}, buffers), options);
  GRAPNEL_RETURN_IF_ERROR(reducer->Broadcast(DistinctTensors(params, buffers)));
  GRAPNEL_RETURN_IF_ERROR(reducer->Init());
  return {std::move(reducer)};
}

}  // namespace grapnel
