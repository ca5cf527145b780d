#include "grapnel/tests/dist/gloo_ranks.h"

#include <chrono>
#include <cstddef>
#include <memory>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "c10/util/intrusive_ptr.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/dist/c10d_handle.h"
#include "grapnel/dist/fake_process_group.h"
#include "torch/csrc/distributed/c10d/Backend.hpp"
#include "torch/csrc/distributed/c10d/HashStore.hpp"
#include "torch/csrc/distributed/c10d/ProcessGroup.hpp"
#include "torch/csrc/distributed/c10d/ProcessGroupGloo.hpp"

namespace grapnel {
namespace {

// gloo, with a list of what it was asked for.
class WatchedGloo final : public c10d::Backend {
 public:
  WatchedGloo(c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo,
              Collectives* collectives)
      : Backend(gloo->getRank(), gloo->getSize()),
        gloo_(std::move(gloo)),
        collectives_(collectives) {}

  const std::string getBackendName() const override { return "gloo"; }

  c10::intrusive_ptr<c10d::Work> allreduce(
      std::vector<at::Tensor>& tensors,
      const c10d::AllreduceOptions& options) override {
    const size_t index = Begin("allreduce", tensors);
    return Watch(index, gloo_->allreduce(tensors, options));
  }

  c10::intrusive_ptr<c10d::Work> broadcast(
      std::vector<at::Tensor>& tensors,
      const c10d::BroadcastOptions& options) override {
    const size_t index = Begin("broadcast", tensors);
    return Watch(index, gloo_->broadcast(tensors, options));
  }

 private:
  size_t Begin(const char* name, const std::vector<at::Tensor>& tensors) {
    size_t bytes = 0;
    for (const at::Tensor& tensor : tensors) bytes += tensor.nbytes();
    return collectives_->Begin(absl::StrCat(name, " of ", bytes, " bytes"));
  }

  c10::intrusive_ptr<c10d::Work> Watch(size_t index,
                                       c10::intrusive_ptr<c10d::Work> work) {
    Collectives* const collectives = collectives_;
    work->getFuture()->addCallback(
        [collectives, index](c10::ivalue::Future&) { collectives->End(index); },
        /*uses_future=*/false);
    return work;
  }

  const c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo_;
  Collectives* const collectives_;
};

// A rank of threads, whose gradients go by gloo.
class ThreadRank final : public C10dProcessGroup {
 public:
  ThreadRank(ProcessGroup* threads,
             c10::intrusive_ptr<c10d::ProcessGroup> group)
      : threads_(threads), group_(std::move(group)) {}

  int rank() const override { return threads_->rank(); }
  int world_size() const override { return threads_->world_size(); }
  int local_rank() const override { return threads_->local_rank(); }
  std::string description() const override { return threads_->description(); }
  absl::Status AllReduce(const at::Tensor& tensor, ReduceOp op) override {
    return threads_->AllReduce(tensor, op);
  }
  absl::Status Broadcast(const at::Tensor& tensor, int root) override {
    return threads_->Broadcast(tensor, root);
  }
  absl::StatusOr<std::vector<std::string>> AllGather(
      absl::string_view bytes) override {
    return threads_->AllGather(bytes);
  }
  absl::Status Barrier() override { return threads_->Barrier(); }
  void ReportFailure(const absl::Status& failure) override {
    threads_->ReportFailure(failure);
  }
  absl::Status FirstFailure() override { return threads_->FirstFailure(); }
  c10d::ProcessGroup& c10d_group() override { return *group_; }
  absl::Status Explain(const absl::Status& failure,
                       absl::string_view call) override {
    return WithContext(failure, call);
  }

 private:
  ProcessGroup* const threads_;
  const c10::intrusive_ptr<c10d::ProcessGroup> group_;
};

}  // namespace

bool Collectives::WaitFor(size_t index, absl::Duration timeout) const {
  absl::MutexLock lock(&mutex_);
  const auto ended = [&] { return index < all_.size() && all_[index].second; };
  return mutex_.AwaitWithTimeout(absl::Condition(&ended), timeout);
}

std::vector<std::string> Collectives::names() const {
  absl::MutexLock lock(&mutex_);
  std::vector<std::string> names;
  for (const auto& [name, ended] : all_) names.push_back(name);
  return names;
}

size_t Collectives::Begin(std::string name) {
  absl::MutexLock lock(&mutex_);
  all_.push_back({std::move(name), false});
  return all_.size() - 1;
}

void Collectives::End(size_t index) {
  absl::MutexLock lock(&mutex_);
  all_[index].second = true;
}

std::vector<absl::Status> RunGlooRanks(
    int world_size, const std::function<absl::Status(const GlooRank&)>& body,
    absl::Duration timeout) {
  const std::chrono::milliseconds limit(absl::ToInt64Milliseconds(timeout));
  const auto store = c10::make_intrusive<c10d::HashStore>();
  // Outlive gloo's threads, which end with the groups.
  std::vector<Collectives> collectives(world_size);
  return RunRanks(
      world_size,
      [&](ProcessGroup& group) {
        return CatchAsStatus([&] {
          auto options = c10d::ProcessGroupGloo::Options::create(limit);
          options->devices.push_back(
              c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1"));
          const int rank = group.rank();
          const auto gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(
              store, rank, world_size, options);
          auto c10d =
              c10::make_intrusive<c10d::ProcessGroup>(store, rank, world_size);
          c10d->setBackend(
              c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::GLOO,
              c10::make_intrusive<WatchedGloo>(gloo, &collectives[rank]));
          c10d->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
          ThreadRank thread_rank(&group, std::move(c10d));
          return body({rank, thread_rank, collectives[rank]});
        });
      },
      timeout);
}

}  // namespace grapnel
