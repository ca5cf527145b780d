#include "grapnel/tests/device/fake_device.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/Context.h"
#include "ATen/DeviceAccelerator.h"
#include "ATen/core/Formatting.h"
#include "ATen/core/Generator.h"
#include "ATen/core/Tensor.h"
#include "ATen/core/dispatch/Dispatcher.h"
#include "ATen/ops/add_ops.h"
#include "absl/strings/str_join.h"
#include "c10/core/CachingDeviceAllocator.h"
#include "c10/core/Device.h"
#include "c10/core/GradMode.h"
#include "gmock/gmock.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/models/functional.h"
#include "grapnel/optim/autocast_mode.h"
#include "grapnel/optim/foreach_ops.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr c10::DeviceType kFake = c10::DeviceType::PrivateUse1;

// Whether `f` throws, and what.
std::string Refusal(const std::function<void()>& f) {
  try {
    f();
  } catch (const std::exception& e) {
    return e.what();
  }
  return "it was taken";
}

// What the program copies while `f` runs.
FakeCopies CopiesOf(const std::function<void()>& f) {
  const FakeCopies before = CountFakeCopies();
  f();
  FakeCopies copies = CountFakeCopies();
  copies.to_host -= before.to_host;
  copies.to_device -= before.to_device;
  copies.bytes_to_host -= before.bytes_to_host;
  copies.bytes_to_device -= before.bytes_to_device;
  copies.waits -= before.waits;
  return copies;
}

TEST(FakeDeviceDeathTest, IsClosedToTheHost) {
  const at::Tensor there = ops::ones({3}, FakeDevice());
  const auto read = [&there] {
    volatile float value = *there.const_data_ptr<float>();
    static_cast<void>(value);
  };
  EXPECT_DEATH(read(), "");
  EXPECT_DEATH(*there.mutable_data_ptr<float>() = 1, "");
  // And is again after an operator or a copy had it open.
  there.add_(1).cpu();
  EXPECT_DEATH(read(), "");
}

TEST(FakeDeviceTest, IsFoundByName) {
  EXPECT_EQ(c10::Device("fake:0"), FakeDevice());
  EXPECT_EQ(c10::Device("fake").type(), FakeDevice().type());
  EXPECT_EQ(at::accelerator::getAccelerator(), FakeDevice().type());
  EXPECT_EQ(at::accelerator::deviceCount(), 2);
}

TEST(FakeDeviceTest, HasTwoDevicesThatDontMix) {
  const at::Tensor here = ops::ones({3}, c10::Device("fake:0"));
  const at::Tensor there = ops::ones({3}, c10::Device("fake:1"));
  EXPECT_EQ(there.device().index(), 1);
  EXPECT_EQ(there.add(there).device().index(), 1);
  EXPECT_THAT(Refusal([&] { here.add(there); }),
              HasSubstr("at least two devices, fake:0 and fake:1"));
  EXPECT_TRUE(ops::equal(here.to(there.device()).add(there).cpu(),
                         ops::full({3}, 2.0)));
}

TEST(FakeDeviceTest, TakesNumbersOfTheCpuAndNoOtherTensors) {
  const at::Tensor there = ops::ones({3}, FakeDevice());
  EXPECT_EQ(there.mul(ops::scalar_tensor(2)).sum().item<float>(), 6);
  EXPECT_THAT(Refusal([&] { there.add(ops::ones({3})); }),
              HasSubstr("at least two devices, fake:0 and cpu"));
  EXPECT_THAT(Refusal([&] {
                ops::cat({there, ops::ones({3})});
              }),
              HasSubstr("at least two devices"));
  EXPECT_THAT(Refusal([&] { ops::ones({3}).add_(there); }),
              HasSubstr("at least two devices"));
  std::vector<at::Tensor> weights = {there};
  std::vector<at::Tensor> states = {ops::ones({3}, FakeDevice())};
  EXPECT_THAT(Refusal([&] {
                ops::fused_adamw_(weights, states, states, states, {},
                                  {ops::scalar_tensor(0)}, 0.1, 0.9, 0.9, 0,
                                  1e-8, false, false);
              }),
              HasSubstr("at least two devices"));
}

TEST(FakeDeviceTest, ManyThreadsUseOneTensor) {
  const at::Tensor shared = ops::ones({1000}, FakeDevice());
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&shared] {
      for (int j = 0; j < 200; ++j) {
        EXPECT_EQ(shared.mul(2).add(shared).sum().item<float>(), 3000);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Each computes on a device; the result is compared with the CPU's.
struct OpCase {
  std::string name;
  std::function<at::Tensor(at::TensorOptions)> run;
};

void PrintTo(const OpCase& c, std::ostream* os) { *os << c.name; }

at::Tensor Numbers(at::IntArrayRef size, at::TensorOptions options) {
  int64_t count = 1;
  for (const int64_t n : size) count *= n;
  return ops::linspace(-1.5, 2.5, count, at::kFloat)
      .reshape(size)
      .to(options.device());
}

class FakeDeviceOpTest : public ::testing::TestWithParam<OpCase> {};

TEST_P(FakeDeviceOpTest, GivesWhatTheCpuDoes) {
  const at::Tensor expected = GetParam().run(at::kCPU);
  const at::Tensor there = GetParam().run(FakeDevice());
  ASSERT_EQ(there.device(), FakeDevice());
  EXPECT_EQ(there.strides(), expected.strides());
  EXPECT_TRUE(ops::equal(there.cpu(), expected)) << there.cpu() << "\n"
                                                 << expected;
}

INSTANTIATE_TEST_SUITE_P(
    , FakeDeviceOpTest,
    ::testing::Values(
        OpCase{"View",
               [](at::TensorOptions o) {
                 at::Tensor t = Numbers({4, 6}, o);
                 t.view({2, 12}).select(0, 1).fill_(7);
                 return t;
               }},
        OpCase{"SliceInPlace",
               [](at::TensorOptions o) {
                 at::Tensor t = Numbers({4, 6}, o);
                 t.slice(1, 1, 6, 2).mul_(3).add_(t.slice(1, 0, 5, 2));
                 return t;
               }},
        OpCase{"TransposedCopy",
               [](at::TensorOptions o) {
                 at::Tensor t = Numbers({4, 6}, o);
                 ops::empty({6, 4}, o).t().copy_(t);
                 return t.t().contiguous();
               }},
        OpCase{"ChannelsLast",
               [](at::TensorOptions o) {
                 return Numbers({2, 3, 4, 4}, o)
                     .contiguous(at::MemoryFormat::ChannelsLast)
                     .add(1);
               }},
        OpCase{"Unfold",
               [](at::TensorOptions o) {
                 at::Tensor t = Numbers({8}, o);
                 t.unfold(0, 2, 2).select(1, 0).zero_();
                 return t;
               }},
        OpCase{"Resize",
               [](at::TensorOptions o) {
                 at::Tensor t = Numbers({2, 2}, o);
                 t.resize_({4, 4}).slice(0, 1, 4).zero_();
                 return t;
               }},
        OpCase{"OutOfAnotherSize",
               [](at::TensorOptions o) {
                 const at::Tensor t = Numbers({4, 6}, o);
                 at::Tensor larger = ops::empty({2}, o);
                 at::_ops::add_out::call(t, t, 1, larger);
                 at::Tensor smaller = ops::ones({9, 9}, o).resize_({0});
                 at::_ops::add_out::call(t, larger, 1, smaller);
                 return smaller.add(larger);
               }},
        OpCase{"SetToStorage",
               [](at::TensorOptions o) {
                 at::Tensor t = Numbers({8}, o);
                 at::Tensor s = ops::empty({0}, o);
                 s.set_(t.storage(), 2, {3, 2}, {2, 1}).add_(1);
                 return t;
               }},
        OpCase{"SetToTensorOrNothing",
               [](at::TensorOptions o) {
                 at::Tensor t = Numbers({8}, o);
                 at::Tensor s = ops::empty({0}, o);
                 s.set_(t);
                 s.add_(1);
                 s.set_();
                 TORCH_CHECK(s.numel() == 0, "not empty");
                 return t;
               }},
        OpCase{"SharedStorage",
               [](at::TensorOptions o) {
                 at::Tensor t = Numbers({8}, o);
                 t.slice(0, 0, 4).add_(t.slice(0, 4, 8));
                 return t;
               }},
        OpCase{
            "Casts",
            [](at::TensorOptions o) {
              return Numbers({8}, o).to(at::kBFloat16).to(at::kDouble).mul(3);
            }},
        OpCase{"CastWhileCopying",
               [](at::TensorOptions o) {
                 return Numbers({8}, at::kCPU).to(o.device(), at::kHalf);
               }},
        OpCase{"Factories",
               [](at::TensorOptions o) {
                 return ops::arange(6, o.dtype(at::kFloat))
                     .add(ops::full({6}, 0.5, o))
                     .add(ops::linspace(0, 1, 6, o))
                     .add(ops::zeros_like(ops::ones({6}, o)))
                     .add(ops::scalar_tensor(3, o));
               }},
        OpCase{"CatAndStack",
               [](at::TensorOptions o) {
                 const at::Tensor t = Numbers({2, 3}, o);
                 return ops::stack({ops::cat({t, t}, 1), ops::cat({t, t}, 1)});
               }},
        OpCase{
            "Index",
            [](at::TensorOptions o) {
              at::Tensor t = Numbers({5, 3}, o);
              const at::Tensor at = ops::tensor<int64_t>({3, 0}).to(o.device());
              t.index_put_({at}, ops::ones({2, 3}, o));
              return t.index({at}).add(t.index_select(0, at));
            }},
        OpCase{"Mask",
               [](at::TensorOptions o) {
                 at::Tensor t = Numbers({5, 3}, o);
                 return t.masked_select(t.gt(0)).add(t.index({t.gt(0)}));
               }},
        OpCase{"TopKAndSort",
               [](at::TensorOptions o) {
                 const at::Tensor t = Numbers({4, 5}, o).remainder(0.7);
                 return std::get<1>(t.topk(2, 1))
                     .add(std::get<1>(t.sort(1)).slice(1, 0, 2));
               }},
        OpCase{"GatherScatter",
               [](at::TensorOptions o) {
                 const at::Tensor t = Numbers({2, 3}, o);
                 const at::Tensor at = ops::zeros({2, 3}, o.dtype(at::kLong));
                 return t.scatter_add(1, at, t).add(t.gather(1, at));
               }},
        OpCase{
            "Softmax",
            [](at::TensorOptions o) {
              return functional::softmax(Numbers({4, 5}, o), 1).log_softmax(1);
            }},
        OpCase{
            "ForeachLists",
            [](at::TensorOptions o) {
              std::vector<at::Tensor> a = {Numbers({3}, o), Numbers({2, 2}, o)};
              std::vector<at::Tensor> b = {ops::ones({3}, o),
                                           ops::ones({2, 2}, o)};
              ops::foreach_lerp_(a, b, 0.25);
              ops::foreach_add_(a, b, 2);
              ops::foreach_mul_(a, ops::foreach_norm(a, 2)[0]);
              return ops::cat({a[0], a[1].flatten()});
            }},
        OpCase{"ListsOfViews",
               [](at::TensorOptions o) {
                 at::Tensor t = Numbers({6}, o);
                 std::vector<at::Tensor> views = {t.slice(0, 0, 2),
                                                  t.slice(0, 4, 6)};
                 ops::foreach_add_(views, 10);
                 return t;
               }},
        OpCase{"LossScale",
               [](at::TensorOptions o) {
                 std::vector<at::Tensor> grads = {Numbers({3}, o),
                                                  Numbers({2}, o)};
                 at::Tensor found = ops::zeros({}, o);
                 ops::amp_foreach_non_finite_check_and_unscale_(
                     grads, found, ops::full({}, 0.5, o));
                 grads[0].div_(0);
                 ops::amp_foreach_non_finite_check_and_unscale_(
                     grads, found, ops::full({}, 0.5, o));
                 return ops::cat({grads[1], found.reshape({1})});
               }},
        OpCase{"FusedSgd",
               [](at::TensorOptions o) {
                 std::vector<at::Tensor> p = {Numbers({3}, o)};
                 std::vector<at::Tensor> g = {ops::ones({3}, o)};
                 std::vector<at::Tensor> m = {ops::zeros({3}, o)};
                 for (const bool first : {true, false}) {
                   ops::fused_sgd_(p, g, m, 0.1, 0.9, 0.1, 0, true, false,
                                   first);
                 }
                 return p[0].add(m[0]);
               }},
        OpCase{"FusedAdamWithAmsgrad",
               [](at::TensorOptions o) {
                 std::vector<at::Tensor> p = {Numbers({3}, o)};
                 std::vector<at::Tensor> g = {Numbers({3}, o)};
                 std::vector<at::Tensor> m = {ops::zeros({3}, o)};
                 std::vector<at::Tensor> v = {ops::zeros({3}, o)};
                 std::vector<at::Tensor> x = {ops::zeros({3}, o)};
                 const at::Tensor step = ops::ones({}, o);
                 ops::fused_adam_(p, g, m, v, x, {step}, 0.1, 0.9, 0.99, 0,
                                  1e-8, true, false, ops::full({}, 2.0, o),
                                  ops::zeros({}, o));
                 return ops::stack({p[0], g[0], m[0], v[0], x[0]});
               }},
        OpCase{
            "Bincount",
            [](at::TensorOptions o) {
              return ops::tensor<int64_t>({1, 3, 1}).to(o.device()).bincount();
            }}),
    [](const auto& info) { return info.param.name; });

// Some of what a network does forward and backward: the gradients of its sum.
class FakeDeviceGradientTest : public ::testing::TestWithParam<OpCase> {};

TEST_P(FakeDeviceGradientTest, IsTheCpus) {
  const at::Tensor expected = GetParam().run(at::kCPU);
  const at::Tensor there = GetParam().run(FakeDevice());
  ASSERT_EQ(there.device(), FakeDevice());
  EXPECT_TRUE(ops::equal(there.cpu(), expected)) << there.cpu() << "\n"
                                                 << expected;
}

template <typename F>
OpCase Gradient(std::string name, std::vector<int64_t> size, F f) {
  return {std::move(name), [size = std::move(size), f](at::TensorOptions o) {
            const at::Tensor x = Numbers(size, o).requires_grad_();
            const at::Tensor y = f(x, o);
            y.mul(Numbers(y.sizes(), o)).sum().backward();
            return x.grad();
          }};
}

INSTANTIATE_TEST_SUITE_P(
    , FakeDeviceGradientTest,
    ::testing::Values(
        Gradient("LayerNorm", {3, 4},
                 [](const at::Tensor& x, at::TensorOptions o) {
                   return functional::layer_norm(x, {4}, ops::ones({4}, o),
                                                 ops::zeros({4}, o), 1e-5);
                 }),
        Gradient("GroupNorm", {2, 4, 3},
                 [](const at::Tensor& x, at::TensorOptions o) {
                   return functional::group_norm(x, 2, ops::ones({4}, o),
                                                 ops::zeros({4}, o), 1e-5);
                 }),
        Gradient("Embedding", {5, 4},
                 [](const at::Tensor& x, at::TensorOptions o) {
                   return functional::embedding(
                       x, ops::tensor<int64_t>({1, 4, 1}).to(o.device()));
                 }),
        Gradient("Conv1d", {2, 3, 8},
                 [](const at::Tensor& x, at::TensorOptions o) {
                   return functional::conv1d(x, Numbers({4, 3, 3}, o),
                                             ops::ones({4}, o), {2}, {1}, {1},
                                             1);
                 }),
        Gradient("ConvTranspose2d", {2, 3, 4, 4},
                 [](const at::Tensor& x, at::TensorOptions o) {
                   return functional::conv_transpose2d(
                       x, Numbers({3, 2, 3, 3}, o), {}, {2, 2}, {1, 1}, {1, 1},
                       1, {1, 1});
                 }),
        Gradient("MaxPool1d", {2, 3, 8},
                 [](const at::Tensor& x, at::TensorOptions) {
                   return functional::max_pool1d(x, {2}, {2}, {0}, {1}, false);
                 }),
        Gradient("AvgPool2d", {2, 3, 4, 4},
                 [](const at::Tensor& x, at::TensorOptions) {
                   return functional::avg_pool2d(x, {2, 2}, {2, 2}, {0, 0},
                                                 false, true);
                 }),
        Gradient("AdaptiveAvgPool2d", {2, 3, 4, 4},
                 [](const at::Tensor& x, at::TensorOptions) {
                   return functional::adaptive_avg_pool2d(x, {1, 1});
                 }),
        Gradient("Activations", {2, 5},
                 [](const at::Tensor& x, at::TensorOptions) {
                   return functional::gelu(x, "none")
                       .add(functional::silu(x))
                       .add(functional::elu(x, 1))
                       .add(functional::leaky_relu(x, 0.1))
                       .add(functional::tanh(x))
                       .add(functional::sigmoid(x));
                 }),
        Gradient("Linear3d", {2, 3, 4},
                 [](const at::Tensor& x, at::TensorOptions o) {
                   return functional::linear(x, Numbers({5, 4}, o),
                                             ops::ones({5}, o));
                 }),
        Gradient("ElementwiseLosses", {6},
                 [](const at::Tensor& x, at::TensorOptions o) {
                   const at::Tensor y = ops::full({6}, 0.3, o);
                   return functional::mse_loss(x, y, 1)
                       .add(functional::l1_loss(x, y, 1))
                       .add(functional::smooth_l1_loss(x, y, 1, 0.5))
                       .add(functional::binary_cross_entropy_with_logits(
                           x, y, {}, ops::ones({6}, o), 1));
                 }),
        Gradient("CrossEntropyWithWeights", {4, 5},
                 [](const at::Tensor& x, at::TensorOptions o) {
                   return functional::cross_entropy_loss(
                       x, ops::tensor<int64_t>({1, 4, -100, 0}).to(o.device()),
                       ops::arange(5, o.dtype(at::kFloat)), 1, -100, 0.1);
                 })),
    [](const auto& info) { return info.param.name; });

struct Trained {
  std::vector<at::Tensor> weights;  // And buffers; on the CPU.
  double loss = 0;
};

// A network with convolutions, batch norm and dropout, trained for five steps.
Trained Train(c10::Device device, const at::Generator& generator = {},
              std::optional<at::ScalarType> autocast = {}) {
  at::Generator cpu = at::detail::createCPUGenerator(7);
  const auto draw = [&](at::IntArrayRef size) {
    return ops::empty(size).normal_(0, 0.3, cpu).to(device);
  };
  const at::Tensor inputs = draw({32, 1, 8, 8});
  const at::Tensor targets = ops::arange(32).remainder(10).to(device);
  std::vector<at::Tensor> weights = {draw({8, 1, 3, 3}),     draw({8}),
                                     ops::ones({8}, device), draw({8}),
                                     draw({10, 128}),        draw({10})};
  for (at::Tensor& weight : weights) weight.requires_grad_();
  at::Tensor mean = ops::zeros({8}, device);
  at::Tensor var = ops::ones({8}, device);
  std::vector<at::Tensor> first;
  std::vector<at::Tensor> second;
  std::vector<at::Tensor> steps;
  for (const at::Tensor& weight : weights) {
    first.push_back(ops::zeros_like(weight));
    second.push_back(ops::zeros_like(weight));
    steps.push_back(ops::zeros({}, device));
  }

  Trained trained;
  for (int step = 0; step < 5; ++step) {
    if (autocast.has_value()) {
      at::autocast::set_autocast_enabled(device.type(), true);
      at::autocast::set_autocast_dtype(device.type(), *autocast);
    }
    at::Tensor hidden = functional::conv2d(inputs, weights[0], weights[1],
                                           {1, 1}, {1, 1}, {1, 1}, 1);
    hidden = functional::batch_norm(hidden, weights[2], weights[3], mean, var,
                                    true, 0.1, 1e-5, false);
    hidden = functional::max_pool2d(functional::relu(hidden), {2, 2}, {2, 2},
                                    {0, 0}, {1, 1}, false);
    hidden = hidden.flatten(1);
    hidden =
        generator.defined()
            ? hidden.mul(ops::empty_like(hidden).bernoulli_(0.7, generator))
            : functional::dropout(hidden, 0.3, true, generator);
    const at::Tensor loss = functional::cross_entropy_loss(
        functional::linear(hidden, weights[4], weights[5]), targets, {}, 1,
        -100, 0);
    if (autocast.has_value()) {
      at::autocast::clear_cache();
      at::autocast::set_autocast_enabled(device.type(), false);
    }
    for (at::Tensor& weight : weights) weight.mutable_grad() = at::Tensor();
    loss.backward();
    std::vector<at::Tensor> grads;
    for (const at::Tensor& weight : weights) grads.push_back(weight.grad());
    const at::NoGradGuard no_grad;
    ops::foreach_add_(steps, 1);
    ops::fused_adamw_(weights, grads, first, second, {}, steps, 0.01, 0.9, 0.95,
                      0.05, 1e-8, false, false);
    trained.loss = loss.item<double>();
  }
  for (const at::Tensor& weight : weights) {
    trained.weights.push_back(weight.detach().cpu());
  }
  trained.weights.push_back(mean.cpu());
  trained.weights.push_back(var.cpu());
  return trained;
}

void ExpectSameBits(const Trained& a, const Trained& b) {
  EXPECT_EQ(a.loss, b.loss);
  ASSERT_EQ(a.weights.size(), b.weights.size());
  for (size_t i = 0; i < a.weights.size(); ++i) {
    EXPECT_TRUE(ops::equal(a.weights[i], b.weights[i])) << i;
  }
}

class FakeDeviceTrainingTest : public ::testing::Test {
 protected:
  FakeDeviceTrainingTest() { FakeDevice(); }
  ~FakeDeviceTrainingTest() override { UseFakeGenerator(FakeGenerator::kOwn); }
};

TEST_F(FakeDeviceTrainingTest, EndsWithTheCpusBits) {
  UseFakeGenerator(FakeGenerator::kCpus);
  at::Generator generator = at::detail::createCPUGenerator(3);
  const Trained here = Train(at::kCPU, generator);
  generator.set_current_seed(3);
  ExpectSameBits(Train(FakeDevice(), generator), here);
}

TEST_F(FakeDeviceTrainingTest, EndsWithTheCpusBitsByItsDefaultGenerator) {
  UseFakeGenerator(FakeGenerator::kCpus);
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  generator.set_current_seed(3);
  const Trained here = Train(at::kCPU);
  generator.set_current_seed(3);
  ExpectSameBits(Train(FakeDevice()), here);
}

TEST_F(FakeDeviceTrainingTest, EndsWithTheCpusBitsUnderAutocast) {
  UseFakeGenerator(FakeGenerator::kCpus);
  at::Generator generator = at::detail::createCPUGenerator(3);
  const Trained here = Train(at::kCPU, generator, at::kBFloat16);
  generator.set_current_seed(3);
  ExpectSameBits(Train(FakeDevice(), generator, at::kBFloat16), here);
}

TEST_F(FakeDeviceTrainingTest, LeavesNoMemoryBehind) {
  const int64_t before = FakeBytesInUse();
  Train(FakeDevice());
  EXPECT_EQ(FakeBytesInUse(), before);
}

TEST_F(FakeDeviceTrainingTest, HasNoRaceOnOneStream) {
  TakeFakeRaces();
  Train(FakeDevice());
  EXPECT_THAT(TakeFakeRaces(), IsEmpty());
}

TEST(FakeDeviceAutocastTest, KnowsWhatTheCpuKnows) {
  FakeDevice();
  int known = 0;
  for (const c10::OperatorName& name :
       c10::Dispatcher::singleton().getAllOpNames()) {
    const auto op = c10::Dispatcher::singleton().findOp(name);
    if (!op.has_value()) continue;
    const bool is_known =
        op->hasKernelForDispatchKey(c10::DispatchKey::AutocastCPU);
    known += is_known;
    EXPECT_EQ(
        op->hasKernelForDispatchKey(c10::DispatchKey::AutocastPrivateUse1),
        is_known)
        << name;
  }
  EXPECT_GT(known, 100);
}

// As on the CPU: of tensors in the lower type and in float32.
TEST(FakeDeviceAutocastTest, JoinsInTheWidestType) {
  const auto join = [](c10::Device device) {
    at::autocast::set_autocast_enabled(device.type(), true);
    at::autocast::set_autocast_dtype(device.type(), at::kBFloat16);
    const at::Tensor wide = ops::ones({2}, device);
    const at::Tensor low = wide.to(at::kBFloat16);
    const std::vector<at::ScalarType> types = {
        ops::cat({low, low}).scalar_type(), ops::cat({low, wide}).scalar_type(),
        ops::stack({wide, wide}).scalar_type(), low.prod().scalar_type()};
    at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device.type(), false);
    return types;
  };
  EXPECT_EQ(join(FakeDevice()), join(at::kCPU));
}

TEST(FakeDeviceGeneratorTest, OwnOneIsDrawnFromAndTheCpusIsNot) {
  const at::Generator cpu = at::detail::getDefaultCPUGenerator();
  const at::Tensor before = cpu.get_state();
  const c10::Device device = FakeDevice();
  at::Generator own = at::globalContext().defaultGenerator(device);
  const at::Tensor state = own.get_state();
  const at::Tensor first = ops::randn({8}, device).cpu();
  EXPECT_TRUE(ops::equal(cpu.get_state(), before));
  EXPECT_FALSE(ops::equal(ops::randn({8}, device).cpu(), first));
  own.set_state(state);
  EXPECT_TRUE(ops::equal(ops::randn({8}, device).cpu(), first));
}

TEST(FakeDeviceGeneratorTest, NewOnesAreApartAndHaveTheirState) {
  const at::Generator own =
      at::globalContext().getAcceleratorHooksInterface(kFake).getNewGenerator(
          FakeDevice().index());
  at::Generator other = own.clone();
  EXPECT_EQ(own.device(), FakeDevice());
  EXPECT_EQ(other.device(), FakeDevice());
  const at::Generator standard =
      at::globalContext().defaultGenerator(FakeDevice());
  const at::Tensor before = standard.get_state();
  at::Tensor a = ops::empty({8}, FakeDevice()).uniform_(0, 1, own);
  at::Tensor b = ops::empty({8}, FakeDevice()).uniform_(0, 1, other);
  EXPECT_TRUE(ops::equal(a, b));
  EXPECT_FALSE(ops::equal(a.uniform_(0, 1, own), b));
  EXPECT_TRUE(ops::equal(standard.get_state(), before));
  other.set_state(own.get_state());
  EXPECT_TRUE(ops::equal(a.uniform_(0, 1, own), b.uniform_(0, 1, other)));
  other.set_current_seed(5);
  EXPECT_EQ(other.current_seed(), 5u);
}

TEST(FakeDeviceGeneratorTest, OwnOneIsTheOnlyKindThatIsTaken) {
  at::Tensor there = ops::empty({8}, FakeDevice());
  const at::Generator cpu = at::detail::createCPUGenerator();
  EXPECT_THAT(Refusal([&] { there.uniform_(0, 1, cpu); }),
              HasSubstr("generator device but found 'cpu'"));
  const at::Generator own = at::globalContext().defaultGenerator(FakeDevice());
  EXPECT_THAT(Refusal([&] { ops::empty({8}).uniform_(0, 1, own); }),
              HasSubstr("has a generator, but no tensor there"));
}

TEST(FakeDeviceCopiesTest, AreThoseThatTheProgramAsksFor) {
  at::Tensor there;
  FakeCopies copies =
      CopiesOf([&] { there = ops::ones({3}).to(FakeDevice()); });
  EXPECT_EQ(copies.to_device, 1);
  EXPECT_EQ(copies.bytes_to_device, 12);
  EXPECT_EQ(copies.to_host, 0);

  copies = CopiesOf([&] {
    for (int i = 0; i < 5; ++i) there = there.mul(2).add(there).clone();
    there = there.to(at::kDouble);
  });
  EXPECT_EQ(copies.to_device + copies.to_host + copies.waits, 0)
      << absl::StrJoin(LastFakeCopies(), "\n");

  copies = CopiesOf([&] { there.sum().item<double>(); });
  EXPECT_EQ(copies.to_host, 1);
  EXPECT_EQ(copies.bytes_to_host, 8);
  EXPECT_EQ(copies.waits, 1);
  EXPECT_EQ(LastFakeCopies().back(), "to host: Double [], by item");
}

TEST(FakeDeviceCopiesTest, ToTheHostIsWhatItHasToKnow) {
  const at::Tensor t = ops::ones({3}, FakeDevice());
  EXPECT_EQ(CopiesOf([&] { ops::equal(t, t.clone()); }).to_host, 1);
  EXPECT_EQ(CopiesOf([&] { t.nonzero(); }).to_host, 1);
  EXPECT_EQ(CopiesOf([&] { t.index({t.gt(0)}); }).to_host, 1);
  EXPECT_EQ(CopiesOf([&] { t.masked_select(t.gt(0)); }).to_host, 1);
}

// A device without hardware counts what a GPU's memory would.
TEST(FakeDeviceMemoryTest, IsInStatistics) {
  FakeDevice();
  const int64_t before = FakeBytesInUse();
  const auto stats = [] {
    return at::accelerator::getDeviceStats(0).allocated_bytes[0];
  };
  at::accelerator::resetPeakStats(0);
  EXPECT_EQ(stats().current, before);
  EXPECT_EQ(stats().peak, before);
  {
    const at::Tensor t = ops::ones({100}, FakeDevice());
    EXPECT_EQ(FakeBytesInUse(), before + 400);
    EXPECT_EQ(stats().current, before + 400);
  }
  EXPECT_EQ(FakeBytesInUse(), before);
  EXPECT_EQ(stats().current, before);
  EXPECT_EQ(stats().peak, before + 400);
  at::accelerator::resetPeakStats(0);
  EXPECT_EQ(stats().peak, before);

  const int64_t emptied = NumEmptiedFakeCaches();
  at::accelerator::emptyCache();
  EXPECT_EQ(NumEmptiedFakeCaches(), emptied + 1);
}

TEST(FakeDeviceMemoryTest, MayBeOfAnAllocatorThatKnowsNone) {
  UsePlainFakeAllocator(true);
  EXPECT_THAT(Refusal([] { at::accelerator::emptyCache(); }),
              HasSubstr("not a DeviceAllocator"));
  EXPECT_EQ(ops::ones({3}, FakeDevice()).sum().item<float>(), 3);
  UsePlainFakeAllocator(false);
  at::accelerator::emptyCache();
}

TEST(FakeDeviceMemoryTest, IsPinnedOnTheHost) {
  FakeDevice();
  const at::Tensor pinned = ops::arange(4).pin_memory();
  EXPECT_TRUE(pinned.is_pinned());
  EXPECT_TRUE(pinned.slice(0, 2, 4).is_pinned());
  EXPECT_FALSE(pinned.clone().is_pinned());
  EXPECT_TRUE(ops::equal(pinned.to(FakeDevice()).cpu(), ops::arange(4)));
}

}  // namespace
}  // namespace grapnel
