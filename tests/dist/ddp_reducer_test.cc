#include "grapnel/dist/ddp/ddp_reducer.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "c10/core/Allocator.h"
#include "c10/core/GradMode.h"
#include "c10/util/ThreadLocalDebugInfo.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/dist/gradient_reducer.h"
#include "grapnel/dist/single_process_group.h"
#include "grapnel/models/functional.h"
#include "grapnel/tests/dist/gloo_ranks.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

// Values that every run has again, of about 1.
at::Tensor Filled(std::vector<int64_t> shape, double seed) {
  int64_t numel = 1;
  for (const int64_t size : shape) numel *= size;
  return ops::arange(numel, at::kFloat).mul(0.7).add(seed).sin().view(shape);
}

// Two layers, and a head that only some batches use.
struct Net {
  explicit Net(double seed) {
    Add("first.weight", Filled({16, 8}, seed));
    Add("first.bias", Filled({16}, seed + 1));
    Add("second.weight", Filled({4, 16}, seed + 2));
    Add("second.bias", Filled({4}, seed + 3));
    Add("head.weight", Filled({4, 16}, seed + 4));
    buffers.push_back({"mean", Filled({16}, seed)});
  }

  void Add(const char* name, at::Tensor tensor) {
    params.push_back({name, tensor.requires_grad_()});
  }

  const at::Tensor& operator[](int i) const { return params[i].tensor; }
  at::Tensor grad(int i) const { return params[i].tensor.grad(); }
  void ZeroGrad() {
    for (NamedTensor& param : params) param.tensor.mutable_grad().reset();
  }

  // Without the head: it gets no gradient.
  at::Tensor Loss(const at::Tensor& x) const {
    const at::Tensor hidden =
        functional::relu(functional::linear(x, (*this)[0], (*this)[1]));
    return functional::linear(hidden, (*this)[2], (*this)[3]).square().mean();
  }

  // Of all parameters.
  at::Tensor FullLoss(const at::Tensor& x) const {
    return Loss(x).add(functional::linear(functional::relu(functional::linear(
                                              x, (*this)[0], (*this)[1])),
                                          (*this)[4])
                           .square()
                           .mean());
  }

  std::vector<NamedTensor> params;
  std::vector<NamedTensor> buffers;
};

at::Tensor Batch(int rank, int i) {
  return Filled({6, 8}, 100 + 10 * i + rank);
}

using LossOf = std::function<at::Tensor(const Net&, const at::Tensor&)>;

at::Tensor LossOfAll(const Net& net, const at::Tensor& x) {
  return net.FullLoss(x);
}

// One forward and backward pass.
absl::Status Iterate(GradientReducer& reducer, const Net& net,
                     const at::Tensor& x, bool sync,
                     const LossOf& loss_of = LossOfAll) {
  GRAPNEL_RETURN_IF_ERROR(reducer.BeginForward(sync));
  const at::Tensor loss = loss_of(net, x);
  GRAPNEL_RETURN_IF_ERROR(reducer.BeginBackward(loss));
  const absl::Status status = CatchAsStatus([&] {
    loss.backward();
    return absl::OkStatus();
  });
  return status.ok() ? reducer.EndBackward()
                     : reducer.EndFailedBackward(status);
}

// The gradient of parameter `i` from batch `index` of `rank`, without others.
at::Tensor LocalGradient(int i, int rank, int index,
                         const LossOf& loss_of = LossOfAll) {
  const Net net(0);
  loss_of(net, Batch(rank, index)).backward();
  return net.grad(i);
}

absl::StatusOr<std::unique_ptr<GradientReducer>> Reduce(
    const GlooRank& rank, const Net& net, const DdpOptions& options = {}) {
  return CreateDdpReducer(rank.group, net.params, net.buffers, options);
}

TEST(DdpReducerTest, GradientsAreThoseOfTheMeanOfAllRanks) {
  const std::vector<absl::Status> ends = RunGlooRanks(3, [](const GlooRank& r) {
    Net net(0);
    GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, net));
    for (int i = 0; i < 4; ++i) {
      GRAPNEL_RETURN_IF_ERROR(Iterate(*reducer, net, Batch(r.rank, i), true));
      for (int p = 0; p < 5; ++p) {
        const at::Tensor mean = LocalGradient(p, 0, i)
                                    .add(LocalGradient(p, 1, i))
                                    .add(LocalGradient(p, 2, i))
                                    .div(3);
        EXPECT_TRUE(ops::allclose(net.grad(p), mean, 1e-5, 1e-6))
            << "iteration " << i << ", " << net.params[p].name;
        EXPECT_EQ(net.grad(p).strides(), net[p].strides());
      }
      net.ZeroGrad();
    }
    return absl::OkStatus();
  });
  EXPECT_THAT(ends, Each(IsOk()));
}

// From the second iteration on sums are added in another order than in the
// first: a run that goes on has no first one.
TEST(DdpReducerTest, ARunThatGoesOnHasTheBitsOfOneThatWasNotInterrupted) {
  constexpr int kIters = 3;
  const std::vector<absl::Status> ends = RunGlooRanks(4, [](const GlooRank& r) {
    Net whole(0);
    GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, whole));
    std::vector<std::vector<int64_t>> orders = {reducer->order()};
    std::vector<std::vector<at::Tensor>> grads(kIters);
    for (int i = 0; i < kIters; ++i) {
      GRAPNEL_RETURN_IF_ERROR(Iterate(*reducer, whole, Batch(r.rank, i), true));
      for (int p = 0; p < 5; ++p) grads[i].push_back(whole.grad(p).clone());
      whole.ZeroGrad();
      orders.push_back(reducer->order());
    }
    EXPECT_THAT(orders[0], IsEmpty());
    EXPECT_THAT(orders[1], UnorderedElementsAre(0, 1, 2, 3, 4));
    int without = 0;
    for (int first = 1; first < kIters; ++first) {
      for (const bool set : {true, false}) {
        Net net(0);
        GRAPNEL_ASSIGN_OR_RETURN(const auto again, Reduce(r, net));
        GRAPNEL_RETURN_IF_ERROR(again->SetOrder({0, 1}));  // Of no such net.
        if (set) GRAPNEL_RETURN_IF_ERROR(again->SetOrder(orders[first]));
        for (int i = first; i < kIters; ++i) {
          GRAPNEL_RETURN_IF_ERROR(Iterate(*again, net, Batch(r.rank, i), true));
          for (int p = 0; p < 5; ++p) {
            const bool same = ops::equal(net.grad(p), grads[i][p]);
            EXPECT_TRUE(same || !set) << first << ", " << i << ", " << p;
            if (!same) ++without;
          }
          net.ZeroGrad();
        }
        EXPECT_EQ(again->order(), orders[kIters]);
      }
    }
    EXPECT_GT(without, 0) << "the order makes no difference here";
    return absl::OkStatus();
  });
  EXPECT_THAT(ends, Each(IsOk()));
}

TEST(DdpReducerTest, AWindowIsAveragedAtItsEnd) {
  const std::vector<absl::Status> ends = RunGlooRanks(2, [](const GlooRank& r) {
    Net net(0);
    GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, net));
    const size_t before = r.collectives.names().size();
    GRAPNEL_RETURN_IF_ERROR(Iterate(*reducer, net, Batch(r.rank, 0), false));
    EXPECT_TRUE(ops::equal(net.grad(0), LocalGradient(0, r.rank, 0)));
    EXPECT_EQ(r.collectives.names().size(), before);
    GRAPNEL_RETURN_IF_ERROR(Iterate(*reducer, net, Batch(r.rank, 1), true));
    const at::Tensor mean = LocalGradient(0, 0, 0)
                                .add(LocalGradient(0, 0, 1))
                                .add(LocalGradient(0, 1, 0))
                                .add(LocalGradient(0, 1, 1))
                                .div(2);
    EXPECT_TRUE(ops::allclose(net.grad(0), mean, 1e-5, 1e-6));
    return absl::OkStatus();
  });
  EXPECT_THAT(ends, Each(IsOk()));
}

// As a resumed run does with the window that was half filled.
TEST(DdpReducerTest, GradientsSetByHandCount) {
  const std::vector<absl::Status> ends = RunGlooRanks(2, [](const GlooRank& r) {
    Net net(0);
    GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, net));
    for (int i = 0; i < 3; ++i) {
      for (NamedTensor& param : net.params) {
        param.tensor.mutable_grad() =
            ops::full(param.tensor.sizes(), 10.0 * (r.rank + 1));
      }
      GRAPNEL_RETURN_IF_ERROR(Iterate(*reducer, net, Batch(r.rank, i), true));
      const at::Tensor mean =
          LocalGradient(2, 0, i).add(LocalGradient(2, 1, i)).div(2).add(15);
      EXPECT_TRUE(ops::allclose(net.grad(2), mean, 1e-5, 1e-5)) << i;
      net.ZeroGrad();
    }
    return absl::OkStatus();
  });
  EXPECT_THAT(ends, Each(IsOk()));
}

TEST(DdpReducerTest, ParametersAndBuffersBecomeThoseOfRankZero) {
  const std::vector<absl::Status> ends = RunGlooRanks(2, [](const GlooRank& r) {
    Net net(r.rank);
    GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, net));
    const Net first(0);
    for (int p = 0; p < 5; ++p) {
      EXPECT_TRUE(ops::equal(net[p], first[p])) << net.params[p].name;
    }
    EXPECT_TRUE(ops::equal(net.buffers[0].tensor, first.buffers[0].tensor));
    return absl::OkStatus();
  });
  EXPECT_THAT(ends, Each(IsOk()));
}

TEST(DdpReducerTest, BuffersFollowRankZeroAfterEachAveragedPass) {
  const std::vector<absl::Status> ends = RunGlooRanks(2, [](const GlooRank& r) {
    Net net(0);
    DdpOptions options;
    options.broadcast_buffers = true;
    GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, net, options));
    const at::Tensor& buffer = net.buffers[0].tensor;
    std::vector<float> seen;
    const LossOf loss_of = [&](const Net& n, const at::Tensor& x) {
      seen.push_back(buffer[0].item<float>());
      buffer.add_(r.rank + 1);
      return n.FullLoss(x);
    };
    for (const bool sync : {true, false, true, true}) {
      GRAPNEL_RETURN_IF_ERROR(
          Iterate(*reducer, net, Batch(r.rank, 0), sync, loss_of));
    }
    // Inside of the window each has its own.
    EXPECT_THAT(
        seen, r.rank == 0 ? ElementsAre(0, 1, 2, 3) : ElementsAre(0, 1, 3, 3));
    return absl::OkStatus();
  });
  EXPECT_THAT(ends, Each(IsOk()));
}

TEST(DdpReducerTest, BuffersAreEachRanksOwnByDefault) {
  const std::vector<absl::Status> ends = RunGlooRanks(2, [](const GlooRank& r) {
    Net net(0);
    GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, net));
    net.buffers[0].tensor.fill_(r.rank);
    GRAPNEL_RETURN_IF_ERROR(Iterate(*reducer, net, Batch(r.rank, 0), true));
    EXPECT_EQ(net.buffers[0].tensor[0].item<float>(), r.rank);
    return absl::OkStatus();
  });
  EXPECT_THAT(ends, Each(IsOk()));
}

TEST(DdpReducerTest, NamesParametersWithoutAGradientInThatIteration) {
  for (const int bad : {0, 2}) {
    const std::vector<absl::Status> ends =
        RunGlooRanks(2, [&](const GlooRank& r) -> absl::Status {
          Net net(0);
          GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, net));
          for (int i = 0; i < bad; ++i) {
            GRAPNEL_RETURN_IF_ERROR(
                Iterate(*reducer, net, Batch(r.rank, i), true));
            net.ZeroGrad();
          }
          const absl::Status status = Iterate(
              *reducer, net, Batch(r.rank, bad), true,
              [](const Net& n, const at::Tensor& x) { return n.Loss(x); });
          EXPECT_EQ(reducer->BeginForward(true).code(),
                    absl::StatusCode::kFailedPrecondition);
          return status;
        });
    EXPECT_THAT(
        ends,
        Each(StatusIs(
            absl::StatusCode::kFailedPrecondition,
            AllOf(HasSubstr("parameter \"head.weight\", which got no gradient"),
                  HasSubstr("find_unused_parameters: true")))))
        << "iteration " << bad;
  }
}

TEST(DdpReducerTest, AWindowsGradientsDontHideAnUnusedParameter) {
  const std::vector<absl::Status> ends = RunGlooRanks(2, [](const GlooRank& r) {
    Net net(0);
    GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, net));
    GRAPNEL_RETURN_IF_ERROR(Iterate(*reducer, net, Batch(r.rank, 0), false));
    return Iterate(*reducer, net, Batch(r.rank, 1), true,
                   [](const Net& n, const at::Tensor& x) { return n.Loss(x); });
  });
  EXPECT_THAT(ends, Each(StatusIs(absl::StatusCode::kFailedPrecondition,
                                  HasSubstr("\"head.weight\""))));
}

TEST(DdpReducerTest, ALossOfNoParameterAtAllIsAnError) {
  const std::vector<absl::Status> ends = RunGlooRanks(2, [](const GlooRank& r) {
    Net net(0);
    GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, net));
    return Iterate(*reducer, net, ops::ones({3}).requires_grad_(), true,
                   [](const Net&, const at::Tensor& x) { return x.sum(); });
  });
  EXPECT_THAT(ends,
              Each(StatusIs(absl::StatusCode::kFailedPrecondition,
                            AllOf(HasSubstr("parameters \"first.weight\", "),
                                  HasSubstr("\"head.weight\", which")))));
}

TEST(DdpReducerTest, UnusedParametersCountAsZeroWhereOthersUseThem) {
  const std::vector<absl::Status> ends = RunGlooRanks(2, [](const GlooRank& r) {
    Net net(0);
    DdpOptions options;
    options.find_unused_parameters = true;
    GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, net, options));
    for (int i = 0; i < 4; ++i) {
      const bool used = i % 2 == 1;  // By rank 1.
      GRAPNEL_RETURN_IF_ERROR(Iterate(*reducer, net, Batch(r.rank, i), true,
                                      [&](const Net& n, const at::Tensor& x) {
                                        return used && r.rank == 1
                                                   ? n.FullLoss(x)
                                                   : n.Loss(x);
                                      }));
      EXPECT_EQ(net.grad(4).defined(), used) << i;
      if (used) {
        EXPECT_TRUE(ops::allclose(net.grad(4), LocalGradient(4, 1, i).div(2)));
      }
      EXPECT_TRUE(net.grad(2).defined());
      net.ZeroGrad();
    }
    return absl::OkStatus();
  });
  EXPECT_THAT(ends, Each(IsOk()));
}

TEST(DdpReducerTest, AStaticGraphMayLeaveParametersOut) {
  const std::vector<absl::Status> ends = RunGlooRanks(2, [](const GlooRank& r) {
    Net net(0);
    DdpOptions options;
    options.static_graph = true;
    GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, net, options));
    const LossOf loss_of = [](const Net& n, const at::Tensor& x) {
      return n.Loss(x);
    };
    for (int i = 0; i < 4; ++i) {
      // Windows too, the first included.
      GRAPNEL_RETURN_IF_ERROR(
          Iterate(*reducer, net, Batch(r.rank, i), i % 2 == 1, loss_of));
      if (i % 2 == 0) continue;
      const at::Tensor mean = LocalGradient(2, 0, i - 1, loss_of)
                                  .add(LocalGradient(2, 0, i, loss_of))
                                  .add(LocalGradient(2, 1, i - 1, loss_of))
                                  .add(LocalGradient(2, 1, i, loss_of))
                                  .div(2);
      EXPECT_TRUE(ops::allclose(net.grad(2), mean, 1e-5, 1e-6)) << i;
      EXPECT_FALSE(net.grad(4).defined());
      net.ZeroGrad();
    }
    return absl::OkStatus();
  });
  EXPECT_THAT(ends, Each(IsOk()));
}

struct Differing {
  const char* name;
  std::function<void(Net* net, DdpOptions* options)> change;  // Rank 1's.
  const char* error;
};

TEST(DdpReducerTest, RanksThatDifferAreAllToldWhere) {
  const std::vector<Differing> cases = {
      {"Shape",
       [](Net* net, DdpOptions*) {
         net->params[2].tensor = ops::zeros({5, 16}).requires_grad_();
       },
       "parameter \"second.weight\": [4, 16] Float, requires a gradient on "
       "rank 0, [5, 16] Float, requires a gradient on rank 1"},
      {"Dtype",
       [](Net* net, DdpOptions*) {
         net->params[1].tensor = ops::zeros({16}, at::kDouble).requires_grad_();
       },
       "parameter \"first.bias\": [16] Float, requires a gradient on rank 0, "
       "[16] Double, requires a gradient on rank 1"},
      {"Frozen",
       [](Net* net, DdpOptions*) {
         net->params[0].tensor.requires_grad_(false);
       },
       "parameter \"first.weight\": [16, 8] Float, requires a gradient on rank "
       "0, [16, 8] Float on rank 1"},
      {"Strides",
       [](Net* net, DdpOptions*) {
         net->params[0].tensor = ops::zeros({8, 16}).t().requires_grad_();
       },
       "[16, 8] Float with strides [1, 16], requires a gradient on rank 1"},
      {"Name", [](Net* net, DdpOptions*) { net->params[3].name = "bias"; },
       "parameter \"second.bias\": [4] Float, requires a gradient on rank 0, "
       "and rank 1 has none"},
      {"Missing", [](Net* net, DdpOptions*) { net->params.pop_back(); },
       "parameter \"head.weight\": [4, 16] Float, requires a gradient on rank "
       "0, and rank 1 has none"},
      {"More",
       [](Net* net, DdpOptions*) { net->Add("third", ops::zeros({2})); },
       "parameter \"third\": [2] Float, requires a gradient on rank 1, and "
       "rank 0 has none"},
      {"Order",
       [](Net* net, DdpOptions*) { std::swap(net->params[1], net->params[3]); },
       "parameter \"first.bias\": where rank 0 has it rank 1 has parameter "
       "\"second.bias\": the order must be the same"},
      {"Buffer",
       [](Net* net, DdpOptions*) { net->buffers[0].tensor = ops::zeros({3}); },
       "buffer \"mean\": [16] Float on rank 0, [3] Float on rank 1"},
      {"Option",
       [](Net*, DdpOptions* options) { options->static_graph = true; },
       "static_graph: false on rank 0, true on rank 1"},
  };
  for (const Differing& one : cases) {
    const std::vector<absl::Status> ends =
        RunGlooRanks(3, [&](const GlooRank& r) {
          Net net(0);
          DdpOptions options;
          if (r.rank == 1) one.change(&net, &options);
          const absl::Status status = Reduce(r, net, options).status();
          EXPECT_THAT(r.collectives.names(), ElementsAre());
          return status;
        });
    EXPECT_THAT(ends, Each(StatusIs(absl::StatusCode::kFailedPrecondition,
                                    HasSubstr(one.error))))
        << one.name;
  }
}

TEST(DdpReducerTest, RefusesWhatCantBeAveraged) {
  const auto ends_with = [](double cap, bool frozen) {
    return RunGlooRanks(2, [&](const GlooRank& r) {
      Net net(0);
      if (frozen) {
        for (NamedTensor& param : net.params) {
          param.tensor.requires_grad_(false);
        }
      }
      DdpOptions options;
      options.bucket_cap_mb = cap;
      return Reduce(r, net, options).status();
    });
  };
  EXPECT_THAT(ends_with(0, false),
              Each(StatusIs(absl::StatusCode::kInvalidArgument,
                            HasSubstr("bucket_cap_mb: must be finite and > 0, "
                                      "is 0"))));
  EXPECT_THAT(ends_with(1, true),
              Each(StatusIs(absl::StatusCode::kInvalidArgument,
                            HasSubstr("no parameter requires a gradient"))));
}

TEST(DdpReducerTest, CallsOutOfOrderAreErrors) {
  const std::vector<absl::Status> ends = RunGlooRanks(2, [](const GlooRank& r) {
    Net net(0);
    GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, net));
    const auto refused = StatusIs(absl::StatusCode::kFailedPrecondition,
                                  HasSubstr("before each backward pass"));
    const at::Tensor loss = net.FullLoss(Batch(0, 0));
    EXPECT_THAT(reducer->BeginBackward(loss), refused);
    EXPECT_THAT(reducer->EndBackward(), refused);
    const auto too_early = StatusIs(absl::StatusCode::kFailedPrecondition,
                                    HasSubstr("BeginForward with sync"));
    EXPECT_THAT(reducer->AverageGradients(true), too_early);
    GRAPNEL_RETURN_IF_ERROR(reducer->BeginForward(false));
    EXPECT_THAT(reducer->AverageGradients(true), too_early);
    GRAPNEL_RETURN_IF_ERROR(reducer->BeginForward(true));
    // A forward pass whose loss nobody wants.
    GRAPNEL_RETURN_IF_ERROR(reducer->BeginForward(true));
    EXPECT_THAT(reducer->BeginBackward({}),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("loss: is undefined")));
    GRAPNEL_RETURN_IF_ERROR(reducer->BeginBackward(loss));
    EXPECT_THAT(reducer->BeginForward(true),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("begun and not ended")));
    loss.backward();
    return reducer->EndBackward();
  });
  EXPECT_THAT(ends, Each(IsOk()));
}

TEST(DdpReducerTest, CompressionRoundsWhatIsSent) {
  for (const auto& [compression, dtype] :
       {std::make_pair(DdpOptions::Compression::kFloat16, at::kHalf),
        std::make_pair(DdpOptions::Compression::kBFloat16, at::kBFloat16)}) {
    const at::ScalarType type = dtype;
    DdpOptions options;
    options.compression = compression;
    const std::vector<absl::Status> ends =
        RunGlooRanks(2, [&](const GlooRank& r) {
          Net net(0);
          GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, net, options));
          for (int i = 0; i < 3; ++i) {
            GRAPNEL_RETURN_IF_ERROR(
                Iterate(*reducer, net, Batch(r.rank, i), true));
            const at::Tensor sum =
                LocalGradient(0, 0, i)
                    .to(type)
                    .div(2)
                    .add(LocalGradient(0, 1, i).to(type).div(2))
                    .to(at::kFloat);
            EXPECT_TRUE(ops::equal(net.grad(0), sum)) << type << " " << i;
            net.ZeroGrad();
          }
          return absl::OkStatus();
        });
    EXPECT_THAT(ends, Each(IsOk()));
  }
}

// ---- Without a backward pass ----

// Sets the gradients of parameters 0 to `end` - 1.
void SetGradients(Net* net, int rank, int index, int end = 5) {
  const Net other(0);
  other.FullLoss(Batch(rank, index)).backward();
  net->ZeroGrad();
  for (int i = 0; i < end; ++i) {
    net->params[i].tensor.mutable_grad() = other.grad(i);
  }
}

TEST(DdpReducerTest, GradientsFromElsewhereAreAveragedToTheSameBits) {
  for (const auto compression :
       {DdpOptions::Compression::kNone, DdpOptions::Compression::kFloat16}) {
    for (const double cap : {0.0001, 25.0}) {  // A bucket each, and one.
      DdpOptions options;
      options.compression = compression;
      options.bucket_cap_mb = cap;
      const std::vector<absl::Status> ends =
          RunGlooRanks(2, [&](const GlooRank& r) {
            Net net(0), other(0);
            GRAPNEL_ASSIGN_OR_RETURN(const auto reducer,
                                     Reduce(r, net, options));
            GRAPNEL_ASSIGN_OR_RETURN(const auto by_backward,
                                     Reduce(r, other, options));
            for (int i = 0; i < 3; ++i) {
              const at::Tensor x = Batch(r.rank, i);
              GRAPNEL_RETURN_IF_ERROR(Iterate(*by_backward, other, x, true));
              GRAPNEL_RETURN_IF_ERROR(reducer->BeginForward(true));
              SetGradients(&net, r.rank, i);
              GRAPNEL_RETURN_IF_ERROR(reducer->AverageGradients(true));
              for (int p = 0; p < 5; ++p) {
                EXPECT_TRUE(ops::equal(net.grad(p), other.grad(p)))
                    << net.params[p].name << " of " << i;
              }
              other.ZeroGrad();
            }
            return absl::OkStatus();
          });
      EXPECT_THAT(ends, Each(IsOk()));
    }
  }
}

// As where one of the ranks has nothing to go backward from.
TEST(DdpReducerTest, BothWaysOfAveragingFollowEachOther) {
  const std::vector<absl::Status> ends = RunGlooRanks(3, [](const GlooRank& r) {
    Net net(0);
    GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, net));
    for (int i = 0; i < 5; ++i) {
      if (i % 2 == 0) {
        GRAPNEL_RETURN_IF_ERROR(reducer->BeginForward(true));
        if (r.rank != 1) net.FullLoss(Batch(r.rank, i)).backward();
        GRAPNEL_RETURN_IF_ERROR(reducer->AverageGradients(r.rank != 1));
      } else {
        GRAPNEL_RETURN_IF_ERROR(Iterate(*reducer, net, Batch(r.rank, i), true));
      }
      for (int p = 0; p < 5; ++p) {
        at::Tensor mean =
            LocalGradient(p, 0, i).add(LocalGradient(p, 2, i)).div(3);
        if (i % 2 == 1) mean = mean.add(LocalGradient(p, 1, i), 1.0 / 3);
        EXPECT_TRUE(ops::allclose(net.grad(p), mean, 1e-5, 1e-6))
            << net.params[p].name << " of " << i;
      }
      net.ZeroGrad();
    }
    return absl::OkStatus();
  });
  EXPECT_THAT(ends, Each(IsOk()));
}

// As several optimizers have them: a loss passes through the other's part too.
TEST(DdpReducerTest, TwoOfOneModelAverageTheirOwn) {
  const std::vector<absl::Status> ends = RunGlooRanks(2, [](const GlooRank& r) {
    Net net(0);
    const std::vector<NamedTensor> front(net.params.begin(),
                                         net.params.begin() + 2);
    const std::vector<NamedTensor> back(net.params.begin() + 2,
                                        net.params.end());
    GRAPNEL_ASSIGN_OR_RETURN(const auto first,
                             CreateDdpReducer(r.group, front, net.buffers, {}));
    GRAPNEL_ASSIGN_OR_RETURN(const auto second,
                             CreateDdpReducer(r.group, back, {}, {}));
    for (int i = 0; i < 4; ++i) {
      GRAPNEL_RETURN_IF_ERROR(second->BeginForward(true));
      GRAPNEL_RETURN_IF_ERROR(Iterate(*first, net, Batch(r.rank, i), true));
      const auto mean = [i](int p) {
        return LocalGradient(p, 0, i).add(LocalGradient(p, 1, i)).div(2);
      };
      EXPECT_TRUE(ops::allclose(net.grad(0), mean(0), 1e-5, 1e-6)) << i;
      EXPECT_TRUE(ops::equal(net.grad(2), LocalGradient(2, r.rank, i))) << i;
      int losses = 1;
      if (i % 2 == 0) {  // What was left is all there is.
        GRAPNEL_RETURN_IF_ERROR(second->AverageGradients(true));
      } else {  // It counts beside a loss of its own.
        GRAPNEL_RETURN_IF_ERROR(Iterate(*second, net, Batch(r.rank, i), true));
        losses = 2;
      }
      EXPECT_TRUE(ops::allclose(net.grad(2), mean(2).mul(losses), 1e-5, 1e-6))
          << i;
      net.ZeroGrad();
    }
    return absl::OkStatus();
  });
  EXPECT_THAT(ends, Each(IsOk()));
}

TEST(DdpReducerTest, NamesAGradientThatNotAllRanksHave) {
  const std::vector<absl::Status> ends = RunGlooRanks(3, [](const GlooRank& r) {
    Net net(0);
    GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, net));
    GRAPNEL_RETURN_IF_ERROR(reducer->BeginForward(true));
    SetGradients(&net, r.rank, 0, r.rank == 2 ? 3 : 5);
    const absl::Status status = reducer->AverageGradients(true);
    EXPECT_EQ(reducer->BeginForward(true).code(),
              absl::StatusCode::kFailedPrecondition);
    return status;
  });
  EXPECT_THAT(ends, Each(StatusIs(
                        absl::StatusCode::kFailedPrecondition,
                        "averaging of gradients: parameter \"second.bias\" has "
                        "a gradient on rank 0 and none on rank 2; "
                        "find_unused_parameters: true allows that")));
}

TEST(DdpReducerTest, AMissingGradientThatIsAllowedIsZero) {
  const std::vector<absl::Status> ends = RunGlooRanks(2, [](const GlooRank& r) {
    Net net(0);
    DdpOptions options;
    options.find_unused_parameters = true;
    GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, net, options));
    GRAPNEL_RETURN_IF_ERROR(reducer->BeginForward(true));
    SetGradients(&net, r.rank, 0, r.rank == 0 ? 4 : 2);
    GRAPNEL_RETURN_IF_ERROR(reducer->AverageGradients(true));
    EXPECT_TRUE(ops::equal(net.grad(3), LocalGradient(3, 0, 0).div(2)));
    EXPECT_FALSE(net.grad(4).defined());
    return absl::OkStatus();
  });
  EXPECT_THAT(ends, Each(IsOk()));
}

TEST(DdpReducerTest, WhatAWindowUsedThatEndsSoIsUnusedInTheNextOne) {
  std::vector<DdpOptions> all_options(2);
  all_options[0].find_unused_parameters = true;
  all_options[1].static_graph = true;
  for (const DdpOptions& options : all_options) {
    SCOPED_TRACE(options.static_graph);
    const std::vector<absl::Status> ends =
        RunGlooRanks(2, [&](const GlooRank& r) {
          Net net(0);
          GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, net, options));
          for (int window = 0; window < 2; ++window) {
            GRAPNEL_RETURN_IF_ERROR(
                Iterate(*reducer, net, Batch(r.rank, 0), /*sync=*/false));
            GRAPNEL_RETURN_IF_ERROR(reducer->BeginForward(true));
            GRAPNEL_RETURN_IF_ERROR(reducer->AverageGradients(true));
            EXPECT_TRUE(net.grad(4).defined());
            net.ZeroGrad();
            GRAPNEL_RETURN_IF_ERROR(Iterate(
                *reducer, net, Batch(r.rank, 1), /*sync=*/true,
                [](const Net& n, const at::Tensor& x) { return n.Loss(x); }));
            EXPECT_TRUE(net.grad(0).defined());
            EXPECT_FALSE(net.grad(4).defined());
            net.ZeroGrad();
          }
          return absl::OkStatus();
        });
    EXPECT_THAT(ends, Each(IsOk()));
  }
}

TEST(DdpReducerTest, NumbersAreAveragedInOneCollective) {
  const std::vector<absl::Status> ends = RunGlooRanks(3, [](const GlooRank& r) {
    Net net(0);
    GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, net));
    GRAPNEL_RETURN_IF_ERROR(reducer->BeginForward(true));
    const size_t before = r.collectives.names().size();
    double numbers[] = {0.5 * r.rank, 3e300, 7};
    GRAPNEL_RETURN_IF_ERROR(reducer->AverageNumbers(absl::MakeSpan(numbers)));
    EXPECT_THAT(numbers, ElementsAre(0.5, 3e300, 7));
    EXPECT_EQ(r.collectives.names().size(), before + 1);
    return absl::OkStatus();
  });
  EXPECT_THAT(ends, Each(IsOk()));
}

// Bytes of tensors that this thread allocates.
class CountAllocations final : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t size, size_t, size_t,
                         c10::Device) override {
    if (size > 0) bytes += size;
  }
  bool memoryProfilingEnabled() const override { return true; }

  int64_t bytes = 0;
};

TEST(DdpReducerTest, GradientsLiveInTheSameBucketForEver) {
  const std::vector<absl::Status> ends = RunGlooRanks(2, [](const GlooRank& r) {
    Net net(0);
    GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, net));
    std::vector<void*> places;
    const void* storage = nullptr;
    for (int i = 0; i < 6; ++i) {
      const auto count = std::make_shared<CountAllocations>();
      const at::Tensor x = Batch(r.rank, 0);
      {
        const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE,
                                        count);
        GRAPNEL_RETURN_IF_ERROR(Iterate(*reducer, net, x, true));
      }
      const auto local = std::make_shared<CountAllocations>();
      {
        const Net alone(0);
        const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE,
                                        local);
        alone.FullLoss(x).backward();
      }
      std::vector<void*> now;
      std::unordered_set<const void*> storages;
      for (const NamedTensor& param : net.params) {
        now.push_back(param.tensor.grad().data_ptr());
        storages.insert(param.tensor.grad().storage().data());
      }
      EXPECT_EQ(storages.size(), 1);
      if (i >= 2) {  // Buckets are made anew before the second.
        EXPECT_EQ(now, places);
        EXPECT_TRUE(storages.count(storage) > 0);
        // Scalars to multiply by.
        EXPECT_LE(count->bytes, local->bytes + 5 * 32)
            << "of a pass without others: " << local->bytes;
      }
      places = now;
      storage = *storages.begin();
      net.ZeroGrad();
    }
    return absl::OkStatus();
  });
  EXPECT_THAT(ends, Each(IsOk()));
}

// The last gradient that backward computes waits for the first bucket's end: it
// would wait for ever if buckets were only sent after backward.
TEST(DdpReducerTest, GradientsAreSentWhileOthersAreComputed) {
  const std::vector<absl::Status> ends = RunGlooRanks(2, [](const GlooRank& r) {
    Net net(0);
    DdpOptions options;
    options.bucket_cap_mb = 0.0001;  // 100 bytes: a bucket each.
    GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, net, options));
    for (int i = 0; i < 2; ++i) {
      GRAPNEL_RETURN_IF_ERROR(Iterate(*reducer, net, Batch(r.rank, i), true));
      net.ZeroGrad();
    }
    GRAPNEL_RETURN_IF_ERROR(reducer->BeginForward(true));
    const size_t first = r.collectives.names().size();
    const at::Tensor loss = net.FullLoss(Batch(r.rank, 2));
    bool ended = false;
    net[0].register_hook([&](const at::Tensor&) {
      ended = r.collectives.WaitFor(first, absl::Seconds(20));
    });
    GRAPNEL_RETURN_IF_ERROR(reducer->BeginBackward(loss));
    loss.backward();
    EXPECT_TRUE(ended) << "of " << r.collectives.names().size() - first;
    EXPECT_GE(r.collectives.names().size() - first, 3);
    return reducer->EndBackward();
  });
  EXPECT_THAT(ends, Each(IsOk()));
}

TEST(DdpReducerTest, ARankWhoseOthersAreGoneEndsWithAnError) {
  const absl::Time start = absl::Now();
  const std::vector<absl::Status> ends = RunGlooRanks(
      2,
      [](const GlooRank& r) {
        Net net(0);
        GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, net));
        GRAPNEL_RETURN_IF_ERROR(Iterate(*reducer, net, Batch(r.rank, 0), true));
        net.ZeroGrad();
        return r.rank == 0 ? absl::OkStatus()
                           : Iterate(*reducer, net, Batch(1, 1), true);
      },
      absl::Seconds(5));
  EXPECT_THAT(ends[0], IsOk());
  EXPECT_THAT(ends[1], Not(IsOk()));
  EXPECT_LT(absl::Now() - start, absl::Seconds(20));
}

TEST(DdpReducerTest, TellsWhyAnotherRankDidntCome) {
  // Found where buckets are made anew, and in a backward pass.
  for (const int good : {1, 2}) {
    const std::vector<absl::Status> ends =
        RunGlooRanks(2, [&](const GlooRank& r) -> absl::Status {
          Net net(0);
          GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, net));
          for (int i = 0; i < good; ++i) {
            GRAPNEL_RETURN_IF_ERROR(
                Iterate(*reducer, net, Batch(r.rank, i), true));
            net.ZeroGrad();
          }
          if (r.rank == 1) return Iterate(*reducer, net, Batch(1, good), true);
          r.group.ReportFailure(absl::DataLossError("digits is cut short"));
          return absl::OkStatus();
        });
    EXPECT_THAT(ends[0], IsOk());
    EXPECT_THAT(
        ends[1],
        StatusIs(absl::StatusCode::kUnavailable,
                 good == 1
                     ? "order of the gradients: rank 0: digits is cut short"
                     : "averaging of gradients: rank 0: digits is cut short"));
  }
}

TEST(DdpReducerTest, TheModelsOwnErrorStaysWhatItIs) {
  const std::vector<absl::Status> ends =
      RunGlooRanks(2, [](const GlooRank& r) -> absl::Status {
        Net net(0);
        GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, net));
        return Iterate(*reducer, net, Batch(r.rank, 0), true,
                       [](const Net& n, const at::Tensor& x) {
                         const at::Tensor loss = n.FullLoss(x);
                         loss.register_hook([](const at::Tensor& grad) {
                           if (grad.defined()) {
                             throw std::runtime_error("the layer is broken");
                           }
                         });
                         return loss;
                       });
      });
  EXPECT_THAT(
      ends, Each(StatusIs(absl::StatusCode::kInternal, "the layer is broken")));
}

TEST(DdpReducerTest, RefusesAProcessAlone) {
  const Net net(0);
  SingleProcessGroup group;
  EXPECT_THAT(CreateDdpReducer(group, net.params, net.buffers, {}).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("must be one of several processes")));
}

}  // namespace
}  // namespace grapnel
