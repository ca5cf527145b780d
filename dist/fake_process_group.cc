#include "grapnel/dist/fake_process_group.h"

#include <cstdint>
#include <string>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "c10/core/GradMode.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/dist/check_collective.h"

namespace grapnel {
namespace {

// Brings the ranks of one group together: the last to come does the work for
// all, in the order of ranks, so that every rank gets the same bits.
class Meeting {
 public:
  Meeting(int world_size, absl::Duration timeout)
      : world_size_(world_size),
        timeout_(timeout),
        tensors_(world_size),
        bytes_(world_size) {}

  int world_size() const { return world_size_; }

  // Waits for all ranks to bring a tensor, undefined if they need none, for
  // the same `call`; `work` gets them by rank.
  absl::Status Join(
      int rank, const std::string& call, const at::Tensor& tensor,
      const std::function<void(const std::vector<at::Tensor>&)>& work) {
    absl::MutexLock lock(&mutex_);
    return JoinLocked(rank, call, tensor, work);
  }

  // As Join; the bytes of all ranks.
  absl::StatusOr<std::vector<std::string>> Gather(int rank,
                                                  absl::string_view bytes) {
    absl::MutexLock lock(&mutex_);
    GRAPNEL_RETURN_IF_ERROR(broken_);
    bytes_[rank] = std::string(bytes);
    GRAPNEL_RETURN_IF_ERROR(JoinLocked(rank, "AllGather", at::Tensor(),
                                       [this](const std::vector<at::Tensor>&) {
                                         mutex_.AssertHeld();
                                         gathered_ = bytes_;
                                       }));
    // Nobody can have finished the next one, which needs this rank too.
    return gathered_;
  }

  void Fail(int rank, const absl::Status& failure) {
    absl::MutexLock lock(&mutex_);
    if (!failure_.ok()) return;
    failure_ = absl::Status(
        failure.code(), absl::StrCat("rank ", rank, ": ", failure.message()));
    broken_ = absl::UnavailableError(failure_.message());
  }

  absl::Status failure() const {
    absl::MutexLock lock(&mutex_);
    return failure_;
  }

 private:
  absl::Status JoinLocked(
      int rank, const std::string& call, const at::Tensor& tensor,
      const std::function<void(const std::vector<at::Tensor>&)>& work)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    GRAPNEL_RETURN_IF_ERROR(broken_);
    if (arrived_ == 0) {
      call_ = call;
    } else if (call != call_) {
      broken_ = absl::InvalidArgumentError(absl::StrCat(
          "rank ", rank, " calls ", call, ", others call ", call_));
      return broken_;
    }
    tensors_[rank] = tensor;
    if (++arrived_ == world_size_) {
      broken_ = CatchAsStatus([&] {
        const c10::AutoGradMode no_grad(false);
        work(tensors_);
        return absl::OkStatus();
      });
      for (at::Tensor& t : tensors_) t.reset();
      arrived_ = 0;
      ++round_;
      return broken_;
    }
    struct Wait {
      const Meeting* meeting;
      int64_t round;
    };
    const Wait wait{this, round_};
    const auto over = +[](const Wait* w) {
      w->meeting->mutex_.AssertReaderHeld();
      return w->meeting->round_ != w->round || !w->meeting->broken_.ok();
    };
    if (!mutex_.AwaitWithTimeout(absl::Condition(over, &wait), timeout_)) {
      broken_ = absl::DeadlineExceededError(absl::StrCat(
          call, ": only ", arrived_, " of ", world_size_, " ranks came"));
    }
    return round_ == wait.round ? broken_ : absl::OkStatus();
  }

  const int world_size_;
  const absl::Duration timeout_;
  mutable absl::Mutex mutex_;
  std::vector<at::Tensor> tensors_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> bytes_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> gathered_ ABSL_GUARDED_BY(mutex_);
  std::string call_ ABSL_GUARDED_BY(mutex_);
  int arrived_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t round_ ABSL_GUARDED_BY(mutex_) = 0;
  // Of all calls from now on.
  absl::Status broken_ ABSL_GUARDED_BY(mutex_);
  // The first that was reported.
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
};

// "(2, 3) Float": what must be the same on all ranks.
std::string Describe(const at::Tensor& tensor) {
  return absl::StrCat("(", absl::StrJoin(tensor.sizes(), ", "), ") ",
                      c10::toString(tensor.scalar_type()));
}

at::Tensor Reduce(const at::Tensor& a, const at::Tensor& b, ReduceOp op) {
  switch (op) {
    case ReduceOp::kMin:
      return a.minimum(b);
    case ReduceOp::kMax:
      return a.maximum(b);
    case ReduceOp::kSum:
      break;
  }
  return a.add(b);
}

class FakeProcessGroup final : public ProcessGroup {
 public:
  FakeProcessGroup(int rank, std::shared_ptr<Meeting> meeting)
      : rank_(rank), meeting_(std::move(meeting)) {}

  int rank() const override { return rank_; }
  int world_size() const override { return meeting_->world_size(); }
  int local_rank() const override { return rank_; }
  std::string description() const override {
    return absl::StrCat("threads, rank ", rank_, " of ", world_size());
  }

  absl::Status AllReduce(const at::Tensor& tensor, ReduceOp op) override {
    GRAPNEL_RETURN_IF_ERROR(CheckCollectiveTensor(tensor));
    return meeting_->Join(rank_,
                          absl::StrCat("AllReduce ", static_cast<int>(op),
                                       " of ", Describe(tensor)),
                          tensor, [op](const std::vector<at::Tensor>& tensors) {
                            at::Tensor result = tensors[0].clone();
                            for (size_t i = 1; i < tensors.size(); ++i) {
                              result = Reduce(result, tensors[i], op);
                            }
                            for (const at::Tensor& t : tensors) t.copy_(result);
                          });
  }

  absl::Status Broadcast(const at::Tensor& tensor, int root) override {
    GRAPNEL_RETURN_IF_ERROR(CheckRoot(root, world_size()));
    GRAPNEL_RETURN_IF_ERROR(CheckCollectiveTensor(tensor));
    return meeting_->Join(
        rank_, absl::StrCat("Broadcast from ", root, " of ", Describe(tensor)),
        tensor, [root](const std::vector<at::Tensor>& tensors) {
          for (size_t i = 0; i < tensors.size(); ++i) {
            if (static_cast<int>(i) != root) tensors[i].copy_(tensors[root]);
          }
        });
  }

  absl::Status Barrier() override {
    return meeting_->Join(rank_, "Barrier", at::Tensor(),
                          [](const std::vector<at::Tensor>&) {});
  }

  absl::StatusOr<std::vector<std::string>> AllGather(
      absl::string_view bytes) override {
    return meeting_->Gather(rank_, bytes);
  }

  void ReportFailure(const absl::Status& failure) override {
    meeting_->Fail(rank_, failure);
  }

  absl::Status FirstFailure() override { return meeting_->failure(); }

 private:
  const int rank_;
  const std::shared_ptr<Meeting> meeting_;
};

}  // namespace

std::vector<std::unique_ptr<ProcessGroup>> CreateFakeProcessGroups(
    int world_size, absl::Duration timeout) {
  const auto meeting = std::make_shared<Meeting>(world_size, timeout);
  std::vector<std::unique_ptr<ProcessGroup>> groups;
  for (int rank = 0; rank < world_size; ++rank) {
    groups.push_back(std::make_unique<FakeProcessGroup>(rank, meeting));
  }
  return groups;
}

std::vector<absl::Status> RunRanks(
    int world_size, const std::function<absl::Status(ProcessGroup&)>& body,
    absl::Duration timeout) {
  const auto groups = CreateFakeProcessGroups(world_size, timeout);
  std::vector<absl::Status> statuses(world_size);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world_size; ++rank) {
    threads.emplace_back([&body, &status = statuses[rank],
                          &group = *groups[rank]] { status = body(group); });
  }
  for (std::thread& thread : threads) thread.join();
  return statuses;
}

}  // namespace grapnel
