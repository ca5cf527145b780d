#include "grapnel/runner/run_generators.h"

#include <cstddef>
#include <mutex>
#include <string>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/Context.h"
#include "ATen/ops/from_blob.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/device.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/runner/default_generator.h"
#include "grapnel/runner/run_state.pb.h"

namespace grapnel {
namespace {

// at::CPUGeneratorImpl's state, as torch.get_rng_state() in Python.
constexpr size_t kCpuStateSize = 5056;

absl::StatusOr<std::string> SaveGenerator(const at::Generator& generator) {
  GRAPNEL_ASSIGN_OR_RETURN(const at::Tensor state, GeneratorState(generator));
  return std::string(static_cast<const char*>(state.const_data_ptr()),
                     state.nbytes());
}

absl::Status LoadGenerator(std::string state, const at::Generator& generator) {
  return SetGeneratorState(
      at::from_blob(state.data(), {static_cast<int64_t>(state.size())},
                    at::kByte),
      generator);
}

absl::StatusOr<at::Generator> NewDeviceGenerator(c10::Device device) {
  at::Generator generator;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    at::Generator shared = at::globalContext().defaultGenerator(device);
    if (shared.device().is_cpu()) return absl::OkStatus();
    const std::lock_guard<std::mutex> lock(shared.mutex());
    generator = shared.clone();
    // A backend that inherits this from another one gives that one's.
    if (generator.device() != shared.device()) generator = shared;
    return absl::OkStatus();
  }));
  return generator;
}

void Seed(at::Generator generator, int64_t seed) {
  const std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_current_seed(static_cast<uint64_t>(seed));
}

}  // namespace

absl::StatusOr<RunGenerators> RunGenerators::Create(c10::Device device,
                                                    int64_t seed) {
  RunGenerators generators;
  generators.cpu_ =
      at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(seed));
  if (device.is_cpu()) return generators;
  auto own = NewDeviceGenerator(device);
  if (!own.ok()) {
    return WithContext(own.status(),
                       absl::StrCat("the generator of ", device.str()));
  }
  generators.device_ = *std::move(own);
  if (generators.device_.defined()) {
    GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
      Seed(generators.device_, seed);
      return absl::OkStatus();
    }));
  }
  return generators;
}

absl::Status RunGenerators::Save(runner::v1::RngState* state) const {
  GRAPNEL_ASSIGN_OR_RETURN(*state->mutable_cpu(), SaveGenerator(cpu_));
  if (!device_.defined()) return absl::OkStatus();
  runner::v1::RngState::DeviceState* const device = state->add_devices();
  device->set_device(DeviceKind(device_.device()));
  auto saved = SaveGenerator(device_);
  if (!saved.ok()) return WithContext(saved.status(), device->device());
  *device->mutable_state() = *std::move(saved);
  return absl::OkStatus();
}

absl::Status RunGenerators::Load(const runner::v1::RngState& state) const {
  if (state.cpu().size() != kCpuStateSize) {
    return absl::DataLossError(absl::StrCat("rng: the generator's state has ",
                                            state.cpu().size(),
                                            " bytes and not ", kCpuStateSize));
  }
  GRAPNEL_RETURN_IF_ERROR(LoadGenerator(state.cpu(), cpu_));
  if (!device_.defined()) return absl::OkStatus();
  for (const auto& saved : state.devices()) {
    if (saved.device() != DeviceKind(device_.device())) continue;
    const absl::Status loaded = LoadGenerator(saved.state(), device_);
    if (loaded.ok()) break;
    return absl::DataLossError(
        absl::StrCat("rng: devices: ", saved.device(), ": ", loaded.message()));
  }
  return absl::OkStatus();
}

}  // namespace grapnel
