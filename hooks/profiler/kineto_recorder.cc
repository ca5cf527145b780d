#include "grapnel/hooks/profiler/kineto_recorder.h"

#include <stdlib.h>

#include <atomic>
#include <filesystem>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "ATen/record_function.h"
#include "absl/cleanup/cleanup.h"
#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "c10/core/DeviceType.h"
#include "c10/core/impl/VirtualGuardImpl.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/io/env.h"
#include "torch/csrc/autograd/profiler_kineto.h"

namespace grapnel {

namespace kineto = ::torch::autograd::profiler;
using torch::profiler::impl::ActivityType;

struct KinetoRecording::Impl {
  std::unique_ptr<kineto::ProfilerResult> result;
};

struct KinetoRecorder::Impl {
  explicit Impl(const Options& options)
      : config(torch::profiler::impl::ProfilerState::KINETO,
               options.record_shapes, options.profile_memory,
               options.with_stack, options.with_flops) {
    if (options.cpu) activities.insert(ActivityType::CPU);
    if (options.cuda) activities.insert(ActivityType::CUDA);
  }

  // Kernels run later than they are launched: without it those of the last
  // steps would be missing, and those of a warm-up would be in.
  void WaitForDevice() const {
    if (activities.count(ActivityType::CUDA) == 0) return;
    const c10::impl::VirtualGuardImpl cuda(c10::DeviceType::CUDA);
    cuda.synchronizeDevice(cuda.getDevice().index());
  }

  const torch::profiler::impl::ProfilerConfig config;
  std::set<ActivityType> activities;
  bool prepared = false;
  bool recording = false;
  std::optional<at::RecordFunction> step;
};

namespace {

// Kineto checks little of it.
std::atomic<bool> kineto_is_taken{false};

}  // namespace

KinetoRecording::KinetoRecording(std::unique_ptr<Impl> impl)
    : impl_(std::move(impl)) {}

KinetoRecording::~KinetoRecording() = default;

std::vector<OpCall> KinetoRecording::CpuCalls() const {
  std::vector<OpCall> calls;
  for (const kineto::KinetoEvent& event : impl_->result->events()) {
    if (event.deviceType() != c10::DeviceType::CPU) continue;
    OpCall call;
    call.name = event.name();
    call.thread = event.startThreadId();
    call.start_nanos = static_cast<int64_t>(event.startNs());
    call.duration_nanos = static_cast<int64_t>(event.durationNs());
    calls.push_back(std::move(call));
  }
  return calls;
}

// Kineto only writes files of its own, so it gets one in a folder of its own.
absl::StatusOr<std::string> KinetoRecording::Trace() const {
  std::error_code error;
  std::string dir =
      (std::filesystem::temp_directory_path(error) / "grapnel_trace_XXXXXX")
          .string();
  if (error || mkdtemp(dir.data()) == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("can't make a temporary folder ", dir));
  }
  const auto remove = absl::MakeCleanup(
      [&dir, &error] { std::filesystem::remove_all(dir, error); });
  const std::string path = io::JoinPath(dir, "trace.json");
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    impl_->result->save(path);
    return absl::OkStatus();
  }));
  return io::ReadFile(io::Env::Posix(), path);
}

KinetoRecorder::KinetoRecorder(std::unique_ptr<Impl> impl)
    : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<KinetoRecorder>> KinetoRecorder::Create(
    const Options& options) {
  if (kineto_is_taken.exchange(true)) {
    return absl::FailedPreconditionError(
        "another runner of this process is profiling");
  }
  auto recorder =
      absl::WrapUnique(new KinetoRecorder(std::make_unique<Impl>(options)));
  // Taken back by ~KinetoRecorder.
  if (torch::profiler::impl::profilerEnabled() ||
      kineto::isProfilerEnabledInMainThread()) {
    return absl::FailedPreconditionError(
        "another profiler is active in this process");
  }
  return recorder;
}

KinetoRecorder::~KinetoRecorder() {
  // Kineto can only leave a warm-up by way of a recording.
  if (impl_->prepared && !impl_->recording) Start().IgnoreError();
  if (impl_->recording) Stop().status().IgnoreError();
  kineto_is_taken = false;
}

absl::Status KinetoRecorder::WarmUp() {
  if (impl_->prepared) return absl::OkStatus();
  return CatchAsStatus([this] {
    kineto::prepareProfiler(impl_->config, impl_->activities);
    impl_->prepared = true;
    return absl::OkStatus();
  });
}

absl::Status KinetoRecorder::Start() {
  if (impl_->recording) return absl::OkStatus();
  GRAPNEL_RETURN_IF_ERROR(WarmUp());
  return CatchAsStatus([this] {
    impl_->WaitForDevice();
    kineto::enableProfiler(
        impl_->config, impl_->activities,
        {at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION,
         at::RecordScope::USER_SCOPE});
    impl_->recording = true;
    return absl::OkStatus();
  });
}

absl::StatusOr<std::unique_ptr<KinetoRecording>> KinetoRecorder::Stop() {
  EndStep();
  impl_->recording = impl_->prepared = false;
  auto recording = std::make_unique<KinetoRecording::Impl>();
  const absl::Status waited = CatchAsStatus([this] {
    impl_->WaitForDevice();
    return absl::OkStatus();
  });
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    recording->result = kineto::disableProfiler();
    return absl::OkStatus();
  }));
  GRAPNEL_RETURN_IF_ERROR(waited);
  return absl::WrapUnique(new KinetoRecording(std::move(recording)));
}

bool KinetoRecorder::recording() const { return impl_->recording; }

void KinetoRecorder::BeginStep(int64_t step) {
  if (!impl_->recording) return;
  impl_->step.emplace(at::RecordScope::USER_SCOPE);
  if (impl_->step->isActive()) {
    impl_->step->before(absl::StrCat("ProfilerStep#", step));
  }
}

void KinetoRecorder::EndStep() { impl_->step.reset(); }

}  // namespace grapnel
