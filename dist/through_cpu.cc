#include "grapnel/dist/through_cpu.h"

#include <chrono>
#include <cstddef>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/core/ivalue.h"
#include "ATen/core/jit_type.h"
#include "c10/core/Device.h"
#include "c10/core/DeviceGuard.h"
#include "c10/core/GradMode.h"

namespace grapnel {
namespace {

using c10::ivalue::Future;

// What has a future for its end.
class FutureWork final : public c10d::Work {
 public:
  explicit FutureWork(c10::intrusive_ptr<Future> future)
      : future_(std::move(future)) {}

  bool isCompleted() override { return future_->completed(); }
  bool isSuccess() const override {
    return future_->completed() && !future_->hasError();
  }
  std::exception_ptr exception() const override {
    return future_->exception_ptr();
  }
  // As those of NCCL, for as long as the collective itself may take.
  bool wait(std::chrono::milliseconds /*timeout*/) override {
    future_->waitAndThrow();
    return true;
  }
  c10::intrusive_ptr<Future> getFuture() override { return future_; }

 private:
  const c10::intrusive_ptr<Future> future_;
};

class ThroughCpu final : public c10d::Backend {
 public:
  explicit ThroughCpu(c10::intrusive_ptr<c10d::Backend> cpu)
      : Backend(cpu->getRank(), cpu->getSize()), cpu_(std::move(cpu)) {}

  const std::string getBackendName() const override {
    return cpu_->getBackendName();
  }

  c10::intrusive_ptr<c10d::Work> allreduce(
      std::vector<at::Tensor>& tensors,
      const c10d::AllreduceOptions& options) override {
    std::vector<at::Tensor> on_cpu = ToCpu(tensors);
    return Back(cpu_->allreduce(on_cpu, options), on_cpu, tensors);
  }

  c10::intrusive_ptr<c10d::Work> broadcast(
      std::vector<at::Tensor>& tensors,
      const c10d::BroadcastOptions& options) override {
    std::vector<at::Tensor> on_cpu = ToCpu(tensors);
    return Back(cpu_->broadcast(on_cpu, options), on_cpu, tensors);
  }

 private:
  static std::vector<at::Tensor> ToCpu(const std::vector<at::Tensor>& tensors) {
    const c10::AutoGradMode no_grad(false);
    std::vector<at::Tensor> on_cpu;
    for (const at::Tensor& tensor : tensors) on_cpu.push_back(tensor.cpu());
    return on_cpu;
  }

  // The rest of `sent`, a collective of `on_cpu`: into `tensors`.
  static c10::intrusive_ptr<c10d::Work> Back(
      const c10::intrusive_ptr<c10d::Work>& sent,
      std::vector<at::Tensor> on_cpu, std::vector<at::Tensor> tensors) {
    // c10d's groups give a collective at least one tensor, all on one device.
    const auto back = c10::make_intrusive<Future>(
        c10::ListType::ofTensors(),
        std::vector<c10::Device>{tensors.front().device()});
    sent->getFuture()->addCallback([back, on_cpu = std::move(on_cpu),
                                    tensors = std::move(tensors)](Future& own) {
      if (own.hasError()) {
        back->setError(own.exception_ptr());
        return;
      }
      try {
        const c10::AutoGradMode no_grad(false);
        const c10::OptionalDeviceGuard guard(tensors.front().device());
        for (size_t i = 0; i < tensors.size(); ++i) {
          tensors[i].copy_(on_cpu[i]);
        }
        back->markCompleted(tensors);
      } catch (...) {
        back->setError(std::current_exception());
      }
    });
    return c10::make_intrusive<FutureWork>(back);
  }

  const c10::intrusive_ptr<c10d::Backend> cpu_;
};

}  // namespace

c10::intrusive_ptr<c10d::Backend> MakeThroughCpu(
    c10::intrusive_ptr<c10d::Backend> cpu) {
  return c10::make_intrusive<ThroughCpu>(std::move(cpu));
}

}  // namespace grapnel
