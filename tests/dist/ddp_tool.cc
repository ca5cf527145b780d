// The C++ side of ddp_interop_test.py: ranks are threads.
//
//   ddp_tool CASE WORLD_SIZE DIR
//
// reads DIR/in.safetensors, the weights and each rank's batches, and writes the
// gradients of each iteration, and the buffers after it, to
// DIR/CASE.cpp<rank>.safetensors.

#include <cstdio>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "c10/core/GradMode.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/dist/ddp/ddp_reducer.h"
#include "grapnel/dist/gradient_reducer.h"
#include "grapnel/io/env.h"
#include "grapnel/io/safetensors.h"
#include "grapnel/models/functional.h"
#include "grapnel/tests/dist/gloo_ranks.h"

namespace grapnel {
namespace {

constexpr int kIterations = 6;
constexpr double kRate = 0.1;

// What the cases of the test differ in.
struct Case {
  bool accumulates = false;  // Two batches a window.
  bool two_heads = false;    // Odd batches take the second one.
  bool zeroes = false;       // Gradients are set to zero, not dropped.
  DdpOptions options;
};

absl::StatusOr<Case> FindCase(absl::string_view name) {
  Case out;
  DdpOptions& options = out.options;
  if (name == "plain") return out;
  if (name == "buckets") {
    options.bucket_cap_mb = 0.001;
  } else if (name == "accumulate") {
    out.accumulates = true;
  } else if (name == "zeroed") {
    out.zeroes = true;
  } else if (name == "unused") {
    out.two_heads = true;
    options.find_unused_parameters = true;
  } else if (name == "unused_accumulate") {
    out.two_heads = true;
    out.accumulates = true;
    options.find_unused_parameters = true;
  } else if (name == "fp16") {
    options.compression = DdpOptions::Compression::kFloat16;
  } else if (name == "bf16") {
    options.compression = DdpOptions::Compression::kBFloat16;
  } else if (name == "static") {
    options.static_graph = true;
  } else if (name == "buffers") {
    options.broadcast_buffers = true;
    out.accumulates = true;
  } else {
    return absl::InvalidArgumentError(absl::StrCat("no case ", name));
  }
  return out;
}

// Convolution, batch norm, and a linear head or two.
class Net {
 public:
  // `weights`: all tensors of the state but a rank's own, by name.
  absl::Status Init(const TensorMap& weights) {
    for (const char* name :
         {"conv.weight", "conv.bias", "norm.weight", "norm.bias", "head.weight",
          "head.bias", "other.weight", "other.bias"}) {
      const at::Tensor* found = weights.Find(name);
      GRAPNEL_RET_CHECK(found != nullptr);
      params_.push_back({name, found->clone().requires_grad_()});
    }
    for (const char* name : {"norm.running_mean", "norm.running_var"}) {
      const at::Tensor* found = weights.Find(name);
      GRAPNEL_RET_CHECK(found != nullptr);
      buffers_.push_back({name, found->clone()});
    }
    return absl::OkStatus();
  }

  at::Tensor Loss(const at::Tensor& x, const at::Tensor& y, int head,
                  bool both) const {
    at::Tensor h =
        functional::conv2d(x, At(0), At(1), {1, 1}, {1, 1}, {1, 1}, 1);
    h = functional::batch_norm(h, At(2), At(3), buffers_[0].tensor,
                               buffers_[1].tensor, /*training=*/true, 0.1, 1e-5,
                               /*cudnn_enabled=*/true);
    h = functional::relu(h).flatten(1);
    at::Tensor out = functional::linear(h, At(4 + 2 * head), At(5 + 2 * head));
    if (both) out = out.add(functional::linear(h, At(6), At(7)));
    return functional::cross_entropy_loss(out, y, {}, /*reduction=*/1, -100, 0);
  }

  const std::vector<NamedTensor>& params() const { return params_; }
  const std::vector<NamedTensor>& buffers() const { return buffers_; }

 private:
  const at::Tensor& At(int i) const { return params_[i].tensor; }

  std::vector<NamedTensor> params_;
  std::vector<NamedTensor> buffers_;
};

absl::Status Train(const Case& what, const GlooRank& rank,
                   const TensorMap& input, TensorMap* output) {
  Net net;
  GRAPNEL_RETURN_IF_ERROR(net.Init(input));
  GRAPNEL_ASSIGN_OR_RETURN(
      const auto reducer,
      CreateDdpReducer(rank.group, net.params(), net.buffers(), what.options));
  for (int i = 0; i < kIterations; ++i) {
    const bool sync = !what.accumulates || i % 2 == 1;
    const at::Tensor* x = input.Find(absl::StrCat("x", rank.rank, ".", i));
    const at::Tensor* y = input.Find(absl::StrCat("y", rank.rank, ".", i));
    GRAPNEL_RET_CHECK(x != nullptr && y != nullptr);
    GRAPNEL_RETURN_IF_ERROR(reducer->BeginForward(sync));
    const int head = what.two_heads ? i % 2 : 0;
    at::Tensor loss = net.Loss(*x, *y, head, !what.two_heads);
    if (what.accumulates) loss = loss.div(2);
    GRAPNEL_RETURN_IF_ERROR(reducer->BeginBackward(loss));
    GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
      loss.backward();
      return absl::OkStatus();
    }));
    GRAPNEL_RETURN_IF_ERROR(reducer->EndBackward());
    const c10::AutoGradMode no_grad(false);
    for (const NamedTensor& param : net.params()) {
      const at::Tensor& grad = param.tensor.grad();
      if (!grad.defined()) continue;
      GRAPNEL_RETURN_IF_ERROR(
          output->Add(absl::StrCat(i, "/", param.name), grad.clone()));
    }
    for (const NamedTensor& buffer : net.buffers()) {
      GRAPNEL_RETURN_IF_ERROR(output->Add(absl::StrCat(i, "/", buffer.name),
                                          buffer.tensor.clone()));
    }
    if (!sync) continue;
    for (const NamedTensor& param : net.params()) {
      at::Tensor& grad = param.tensor.mutable_grad();
      if (!grad.defined()) continue;
      param.tensor.add_(grad, -kRate);
      if (what.zeroes) {
        grad.zero_();
      } else {
        grad.reset();
      }
    }
  }
  return absl::OkStatus();
}

absl::Status Main(absl::string_view name, int world_size,
                  const std::string& dir) {
  GRAPNEL_ASSIGN_OR_RETURN(const Case what, FindCase(name));
  io::Env& env = io::Env::Posix();
  GRAPNEL_ASSIGN_OR_RETURN(
      const TensorMap input,
      io::ReadSafetensors(env, absl::StrCat(dir, "/in.safetensors")));
  const std::vector<absl::Status> ends =
      RunGlooRanks(world_size, [&](const GlooRank& rank) -> absl::Status {
        TensorMap output;
        GRAPNEL_RETURN_IF_ERROR(Train(what, rank, input, &output));
        return io::WriteSafetensors(env,
                                    absl::StrCat(dir, "/", name, ".cpp",
                                                 rank.rank, ".safetensors"),
                                    output)
            .status();
      });
  for (const absl::Status& end : ends) GRAPNEL_RETURN_IF_ERROR(end);
  return absl::OkStatus();
}

}  // namespace
}  // namespace grapnel

int main(int argc, char** argv) {
  int world_size = 0;
  if (argc != 4 || !absl::SimpleAtoi(argv[2], &world_size)) {
    std::fprintf(stderr, "usage: ddp_tool CASE WORLD_SIZE DIR\n");
    return 2;
  }
  const absl::Status status = grapnel::Main(argv[1], world_size, argv[3]);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}
