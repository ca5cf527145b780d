#include "grapnel/optim/autocast.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "ATen/Parallel.h"
#include "ATen/autocast_mode.h"
#include "absl/status/status.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
// Also for the compiler to compare with ATen/autocast_mode.h.
#include "grapnel/optim/autocast_mode.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "gtest/gtest.h"
#include "torch/types.h"

namespace grapnel {
namespace {

using ::grapnel::optim::v1::AmpConfig;
using ::grapnel::optim::v1::OptimWrapperConfig;
using ::testing::HasSubstr;

template <typename Config>
Config Parse(const std::string& text) {
  Config config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config))
      << text;
  return config;
}

Autocast Make(const std::string& config) {
  auto autocast = CreateAutocast(Parse<AmpConfig>(config), {});
  EXPECT_THAT(autocast, IsOk());
  return *autocast;
}

at::ScalarType DtypeOfAProduct() {
  const at::Tensor a = torch::ones({2, 2});
  return a.matmul(a).scalar_type();
}

TEST(AutocastScopeTest, CastsMatrixProductsAndLeavesTheThreadAsItWas) {
  at::autocast::set_autocast_dtype(at::kCPU, at::kHalf);
  EXPECT_EQ(DtypeOfAProduct(), at::kFloat);
  {
    const AutocastScope outer(Make("dtype: BFLOAT16"));
    EXPECT_EQ(DtypeOfAProduct(), at::kBFloat16);
    {
      const AutocastScope inner(Make("dtype: FLOAT16"));
      EXPECT_EQ(DtypeOfAProduct(), at::kHalf);
      const AutocastScope nothing{Autocast()};
      EXPECT_EQ(DtypeOfAProduct(), at::kHalf);
    }
    EXPECT_EQ(DtypeOfAProduct(), at::kBFloat16);
  }
  EXPECT_EQ(DtypeOfAProduct(), at::kFloat);
  EXPECT_FALSE(at::autocast::is_autocast_enabled(at::kCPU));
  EXPECT_EQ(at::autocast::get_autocast_dtype(at::kCPU), at::kHalf);
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
}

TEST(AutocastScopeTest, AnExceptionLeavesTheThreadAsItWas) {
  try {
    const AutocastScope scope(Make("dtype: BFLOAT16"));
    throw std::runtime_error("in the forward pass");
  } catch (const std::runtime_error&) {
  }
  EXPECT_FALSE(at::autocast::is_autocast_enabled(at::kCPU));
  EXPECT_EQ(at::autocast::increment_nesting(), 1);
  EXPECT_EQ(at::autocast::decrement_nesting(), 0);
}

// A cast of a parameter that outlived the scope would be of the old weights.
TEST(AutocastScopeTest, TheNextScopeSeesChangedParameters) {
  const at::Tensor weight = torch::ones({1, 1}).requires_grad_();
  const at::Tensor x = torch::ones({1, 1});
  for (const double value : {1.0, 3.0}) {
    {
      torch::NoGradGuard no_grad;
      weight.fill_(value);
    }
    const AutocastScope scope(Make("dtype: BFLOAT16"));
    EXPECT_EQ(x.matmul(weight).item<double>(), value);
  }
}

TEST(CreateAutocastTest, RefusesByField) {
  struct Case {
    const char* config;
    at::Tensor param;
    const char* message;
  };
  const at::Tensor param = torch::ones({2}).requires_grad_();
  const Case cases[] = {
      {"", param, "dtype: must be set, to BFLOAT16 or FLOAT16"},
      {"dtype: BFLOAT16 loss_scale {}", param,
       "loss_scale: is for dtype FLOAT16"},
      {"dtype: FLOAT16", param.detach().to(at::kHalf).requires_grad_(),
       "\"w\" is Half itself"},
      {"dtype: BFLOAT16", torch::ones({2}, at::kMeta),
       "LibTorch has no autocast on meta"},
  };
  for (const Case& test : cases) {
    EXPECT_THAT(
        CreateAutocast(Parse<AmpConfig>(test.config), {{"w", test.param}}),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(test.message)));
  }
  // A frozen part may be of 16 bits.
  EXPECT_THAT(CreateAutocast(Parse<AmpConfig>("dtype: FLOAT16"),
                             {{"w", torch::ones({2}, at::kHalf)}}),
              IsOk());
}

// ---- What it costs in precision ----

// Three layers that learn whether a point lies in a ball.
class Mlp {
 public:
  explicit Mlp(const std::string& amp) {
    at::set_num_threads(1);  // Products of this size take longer on several.
    torch::manual_seed(5);
    const int64_t sizes[] = {8, 32, 32, 2};
    for (int i = 0; i < 3; ++i) {
      const std::string name = "fc" + std::to_string(i);
      const double bound = 1 / std::sqrt(static_cast<double>(sizes[i]));
      params_.push_back(
          {name + ".weight", torch::empty({sizes[i + 1], sizes[i]})
                                 .uniform_(-bound, bound)
                                 .requires_grad_()});
      params_.push_back({name + ".bias", torch::empty({sizes[i + 1]})
                                             .uniform_(-bound, bound)
                                             .requires_grad_()});
    }
    auto wrapper = OptimWrapper::Create(
        Parse<OptimWrapperConfig>(
            "optimizer { sgd { lr: 0.1 momentum: 0.5 } } " + amp),
        params_);
    EXPECT_THAT(wrapper, IsOk());
    wrapper_ = *std::move(wrapper);
  }

  const std::vector<NamedTensor>& params() const { return params_; }

  // Makes a step and returns the loss before it.
  double Step(int64_t iter) {
    torch::manual_seed(100 + iter);
    at::Tensor x = torch::randn({64, 8});
    const at::Tensor target = x.square().sum(1).gt(8).to(at::kLong);
    wrapper_->BeginStep();
    at::Tensor loss;
    {
      const AutocastScope scope(wrapper_->autocast());
      for (size_t i = 0; i < params_.size(); i += 2) {
        if (i > 0) x = x.tanh();
        x = at::linear(x, params_[i].tensor, params_[i + 1].tensor);
      }
      outputs_dtype_ = x.scalar_type();
      loss = at::cross_entropy_loss(x, target);
    }
    EXPECT_THAT(wrapper_->Update(loss), IsOk());
    return loss.item<double>();
  }

  at::ScalarType outputs_dtype() const { return outputs_dtype_; }

 private:
  std::vector<NamedTensor> params_;
  std::unique_ptr<OptimWrapper> wrapper_;
  at::ScalarType outputs_dtype_ = at::kFloat;
};

// The largest distance of two tensors of one name, relative to the norm.
double Distance(const Mlp& a, const Mlp& b,
                const std::function<at::Tensor(const at::Tensor&)>& part) {
  double largest = 0;
  for (size_t i = 0; i < a.params().size(); ++i) {
    const at::Tensor x = part(a.params()[i].tensor);
    const at::Tensor y = part(b.params()[i].tensor);
    largest = std::max(largest, ((x - y).norm() / y.norm()).item<double>());
  }
  return largest;
}

at::Tensor Value(const at::Tensor& param) { return param.detach(); }
at::Tensor Grad(const at::Tensor& param) { return param.grad(); }

// The bound that autocast.h states.
TEST(AutocastPrecisionTest, Bfloat16IsWithinTheStatedBoundOfFloat32) {
  Mlp exact("");
  Mlp cast("amp { dtype: BFLOAT16 }");
  for (int64_t iter = 0; iter < 50; ++iter) {
    const double loss = exact.Step(iter);
    EXPECT_NEAR(cast.Step(iter), loss, 0.002 * loss) << "iteration " << iter;
    if (iter == 0) {
      EXPECT_EQ(exact.outputs_dtype(), at::kFloat);
      EXPECT_EQ(cast.outputs_dtype(), at::kBFloat16);
      EXPECT_LT(Distance(cast, exact, Grad), 0.01);
      EXPECT_GT(Distance(cast, exact, Grad), 1e-5);  // It was in fewer bits.
    }
  }
  EXPECT_LT(Distance(cast, exact, Value), 0.005);
  for (const NamedTensor& param : cast.params()) {
    EXPECT_EQ(param.tensor.scalar_type(), at::kFloat);
    EXPECT_EQ(param.tensor.grad().scalar_type(), at::kFloat);
  }
}

// The whole way of FLOAT16, on the CPU: scaled, unscaled, and nearer to float32
// than bfloat16 is.
TEST(AutocastPrecisionTest, Float16WithAScaledLossIsNearFloat32) {
  Mlp exact("");
  Mlp cast("amp { dtype: FLOAT16 }");
  for (int64_t iter = 0; iter < 50; ++iter) {
    const double loss = exact.Step(iter);
    EXPECT_NEAR(cast.Step(iter), loss, 0.0005 * loss) << "iteration " << iter;
    if (iter == 0) {
      EXPECT_LT(Distance(cast, exact, Grad), 0.002);
    }
  }
  EXPECT_EQ(cast.outputs_dtype(), at::kHalf);
  EXPECT_LT(Distance(cast, exact, Value), 0.001);
}

}  // namespace
}  // namespace grapnel
