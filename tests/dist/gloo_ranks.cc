#include "grapnel/tests/dist/gloo_ranks.h"

#include <cstddef>
#include <memory>
#include <thread>
#include <type_traits>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "c10/util/intrusive_ptr.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/dist/c10d_handle.h"
#include "grapnel/dist/c10d_process_group.h"
#include "grapnel/dist/loopback.h"
#include "torch/csrc/distributed/c10d/Backend.hpp"
#include "torch/csrc/distributed/c10d/ProcessGroup.hpp"

namespace grapnel {
namespace {

// gloo, with a list of what it was asked for.
class WatchedGloo final : public c10d::Backend {
 public:
  WatchedGloo(c10::intrusive_ptr<c10d::Backend> gloo, Collectives* collectives)
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

  const c10::intrusive_ptr<c10d::Backend> gloo_;
  Collectives* const collectives_;
};

// `joined`, with a list of what is called on its c10d group, and one of what is
// called on itself.
class WatchedGroup final : public C10dProcessGroup {
 public:
  WatchedGroup(C10dProcessGroup* joined, Collectives* collectives,
               Collectives* own)
      : joined_(joined),
        own_(own),
        group_(c10::make_intrusive<c10d::ProcessGroup>(
            joined->c10d_group().getStore(), joined->rank(),
            joined->world_size())) {
    group_->setBackend(
        c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::GLOO,
        c10::make_intrusive<WatchedGloo>(
            joined->c10d_group().getBackend(c10::DeviceType::CPU),
            collectives));
    group_->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
  }

  int rank() const override { return joined_->rank(); }
  int world_size() const override { return joined_->world_size(); }
  int local_rank() const override { return joined_->local_rank(); }
  std::string description() const override { return joined_->description(); }
  absl::Status AllReduce(const at::Tensor& tensor, ReduceOp op) override {
    return Count("AllReduce", [&] { return joined_->AllReduce(tensor, op); });
  }
  absl::Status Broadcast(const at::Tensor& tensor, int root) override {
    return Count("Broadcast", [&] { return joined_->Broadcast(tensor, root); });
  }
  absl::StatusOr<std::vector<std::string>> AllGather(
      absl::string_view bytes) override {
    return Count("AllGather", [&] { return joined_->AllGather(bytes); });
  }
  absl::Status Barrier() override {
    return Count("Barrier", [&] { return joined_->Barrier(); });
  }
  void ReportFailure(const absl::Status& failure) override {
    joined_->ReportFailure(failure);
  }
  absl::Status FirstFailure() override { return joined_->FirstFailure(); }
  c10d::ProcessGroup& c10d_group() override { return *group_; }
  absl::Status Explain(const absl::Status& failure,
                       absl::string_view call) override {
    return joined_->Explain(failure, call);
  }

 private:
  template <typename F>
  std::invoke_result_t<F> Count(const char* name, F&& call) {
    const size_t index = own_->Begin(name);
    std::invoke_result_t<F> result = call();
    own_->End(index);
    return result;
  }

  C10dProcessGroup* const joined_;
  Collectives* const own_;
  const c10::intrusive_ptr<c10d::ProcessGroup> group_;
};

absl::Status RunRank(int rank, int world_size, int port,
                     const JoinOptions& options,
                     const std::function<absl::Status(const GlooRank&)>& body) {
  GRAPNEL_ASSIGN_OR_RETURN(
      const std::unique_ptr<ProcessGroup> group,
      JoinProcessGroup(LocalPlace(rank, world_size, port), options));
  C10dProcessGroup* const joined = AsC10dProcessGroup(*group);
  GRAPNEL_RET_CHECK(joined != nullptr);
  Collectives collectives, own;
  return CatchAsStatus([&] {
    WatchedGroup watched(joined, &collectives, &own);
    return body({rank, watched, collectives, own});
  });
}

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
    absl::Duration timeout, bool own_connections) {
  const int port = FreePort();
  JoinOptions options;
  options.timeout = timeout;
  options.own_connections = own_connections;
  std::vector<absl::Status> ends(world_size);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world_size; ++rank) {
    threads.emplace_back([&, rank] {
      ends[rank] = RunRank(rank, world_size, port, options, body);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return ends;
}

}  // namespace grapnel
