#include "grapnel/runner/run_progress.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "grapnel/base/status_macros.h"

namespace grapnel {
namespace {

using ::grapnel::io::v1::EpochLength;
using ::grapnel::io::v1::Progress;
using ::grapnel::runner::v1::DataPosition;

std::string DataText(const DataPosition& data) {
  if (data.has_stream()) {
    return absl::StrFormat("a stream in batches of %d", data.batch_size());
  }
  return absl::StrFormat("%d samples in %d batches of %d, %s%s",
                         data.dataset_size(), data.num_batches(),
                         data.batch_size(),
                         data.shuffle() ? "shuffled" : "in order",
                         data.infinite() ? ", for ever" : "");
}

// Larger ones are none, and what is computed with them leaves an int64.
constexpr int64_t kMaxCount = int64_t{1} << 60;
constexpr int64_t kMaxSize = int64_t{1} << 40;

int64_t WorldSize(const DataPosition& data) {
  return std::max<int64_t>(data.world_size(), 1);
}

// Whether an epoch and a batch in it are where the iterations say.
absl::Status CheckEpoch(const Progress& saved, const DataPosition& data) {
  const int64_t q = saved.iter_in_epoch();
  const auto bad = [&] {
    return absl::DataLossError(absl::StrCat("progress: iter: is ", saved.iter(),
                                            ", which batch ", q, " of epoch ",
                                            saved.epoch(), " isn't at"));
  };
  if (q > saved.iter()) return bad();
  if (saved.epoch_lengths().empty()) {
    return q > data.num_batches() ? bad() : absl::OkStatus();
  }
  const EpochLength& last = saved.epoch_lengths(saved.epoch_lengths_size() - 1);
  // It lacks its end alone, and the next one has another length.
  if (q > 0 && last.epoch() == saved.epoch() + 1 &&
      last.iter() == saved.iter()) {
    return absl::OkStatus();
  }
  int64_t begin = 0;
  if (last.epoch() > saved.epoch() || q > last.num_batches() ||
      __builtin_mul_overflow(saved.epoch() - last.epoch(), last.num_batches(),
                             &begin) ||
      __builtin_add_overflow(begin, last.iter(), &begin) ||
      begin != saved.iter() - q) {
    return bad();
  }
  return absl::OkStatus();
}

absl::Status Check(const Progress& saved, const DataPosition& data) {
  const std::pair<const char*, int64_t> fields[] = {
      {"epoch", saved.epoch()},
      {"iter", saved.iter()},
      {"iter_in_epoch", saved.iter_in_epoch()},
      {"pass", saved.pass()},
      {"samples_in_pass", saved.samples_in_pass()}};
  for (const auto& [name, value] : fields) {
    if (value < 0 || value > kMaxCount) {
      return absl::DataLossError(
          absl::StrCat("progress: ", name, ": is ", value));
    }
  }
  const bool stream = data.has_stream();
  const std::pair<const char*, int64_t> sizes[] = {
      {"batch_size", data.batch_size()},
      {"num_batches", stream ? 1 : data.num_batches()},
      {"dataset_size", stream ? 1 : data.dataset_size()}};
  for (const auto& [name, value] : sizes) {
    if (value < 1 || value > kMaxSize) {
      return absl::DataLossError(absl::StrCat("data: ", name, ": is ", value));
    }
  }
  if (stream && data.by_epoch()) {
    return absl::DataLossError("data: by_epoch: is true of a stream");
  }
  if (stream && !saved.epoch_lengths().empty()) {
    return absl::DataLossError("progress: epoch_lengths: are a stream's");
  }
  for (int i = 0; i < saved.epoch_lengths_size(); ++i) {
    const EpochLength& length = saved.epoch_lengths(i);
    const bool first = i == 0;
    if (length.num_batches() < 1 || length.iter() > saved.iter() ||
        (first ? length.epoch() != 0 || length.iter() != 0
               : length.epoch() <= saved.epoch_lengths(i - 1).epoch() ||
                     length.iter() <= saved.epoch_lengths(i - 1).iter())) {
      return absl::DataLossError(
          absl::StrCat("progress: epoch_lengths[", i, "]: is out of order"));
    }
  }
  return data.by_epoch() ? CheckEpoch(saved, data) : absl::OkStatus();
}

// Samples of all ranks that `iters` iterations draw: of a finite loader whole
// passes are the data's size, whatever is dropped or repeated at their end.
struct PassPlace {
  int64_t pass;
  int64_t samples;
};
PassPlace PlaceAfter(int64_t iters, const DataPosition& data) {
  const int64_t samples_of_iter = data.batch_size() * WorldSize(data);
  if (!data.infinite()) {
    return {iters / data.num_batches(),
            iters % data.num_batches() * samples_of_iter};
  }
  const int64_t size = data.dataset_size();
  int64_t samples;
  if (!__builtin_mul_overflow(iters, samples_of_iter, &samples)) {
    return {samples / size, samples % size};
  }
  const __int128 many = static_cast<__int128>(iters) * samples_of_iter;
  return {static_cast<int64_t>(many / size), static_cast<int64_t>(many % size)};
}

// What the data is, wherever a stream of it has come to.
std::string Identity(DataPosition data) {
  if (data.has_stream()) data.mutable_stream()->Clear();
  return data.SerializeAsString();
}

// Whether batches are the same in number and size, whatever is in them.
bool SameLength(const DataPosition& a, const DataPosition& b) {
  return a.dataset_size() == b.dataset_size() &&
         a.batch_size() == b.batch_size() && WorldSize(a) == WorldSize(b) &&
         a.num_batches() == b.num_batches() && a.infinite() == b.infinite();
}

// What checkpoints of before these fields don't say: until then a run could
// not change its data but at an epoch's border.
void Complete(const DataPosition& data, Progress* progress) {
  if (progress->epoch_lengths_size() > 0) return;
  const int64_t n = data.num_batches();
  if (!data.by_epoch()) {
    const PassPlace place = PlaceAfter(progress->iter(), data);
    progress->set_pass(place.pass);
    progress->set_samples_in_pass(place.samples);
  }
  const int64_t before = progress->iter() - progress->iter_in_epoch();
  const int64_t epoch = progress->epoch();
  EpochLength* first = progress->add_epoch_lengths();
  first->set_num_batches(n);
  if (!data.by_epoch() || epoch == 0 || before == epoch * n) return;
  // It changed once, nobody knows where.
  first->set_num_batches(std::max<int64_t>(before / epoch, 1));
  EpochLength* now = progress->add_epoch_lengths();
  now->set_epoch(epoch);
  now->set_iter(before);
  now->set_num_batches(n);
}

}  // namespace

absl::StatusOr<RunProgress> RunProgress::Create(const Plan& plan) {
  RunProgress progress;
  progress.plan_ = plan;
  if (progress.is_stream()) {
    progress.plan_.data.mutable_stream()->Clear();  // Moves on.
    GRAPNEL_RETURN_IF_ERROR(progress.SetLength());
    return progress;
  }
  progress.state_.add_epoch_lengths()->set_num_batches(plan.data.num_batches());
  progress.epoch_length_ = plan.data.num_batches();
  GRAPNEL_RETURN_IF_ERROR(progress.SetLength());
  return progress;
}

bool RunProgress::AtBorder(const Progress& saved, const DataPosition& data) {
  if (data.has_stream()) return true;
  if (!data.by_epoch()) {
    Progress complete = saved;
    Complete(data, &complete);
    return complete.samples_in_pass() == 0;
  }
  if (saved.iter_in_epoch() == 0) return true;
  if (saved.epoch_lengths().empty()) {
    return saved.iter_in_epoch() == data.num_batches();
  }
  const EpochLength& last = saved.epoch_lengths(saved.epoch_lengths_size() - 1);
  return saved.iter_in_epoch() == last.num_batches() ||
         last.epoch() > saved.epoch();
}

absl::StatusOr<RunProgress> RunProgress::Resume(
    const Plan& plan, const Progress& saved, const DataPosition& saved_data) {
  GRAPNEL_RETURN_IF_ERROR(Check(saved, saved_data));
  if (saved_data.by_epoch() != plan.by_epoch && saved.iter() > 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "train_cfg: by_epoch: is ", plan.by_epoch ? "true" : "false",
        ", the checkpoint's was not: its counters would mean something else"));
  }
  if (saved_data.has_stream() != plan.data.has_stream()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "train_dataloader: the checkpoint's data was ", DataText(saved_data),
        ", this run's is ", DataText(plan.data),
        ": a position in the one is none in the other"));
  }
  RunProgress progress;
  if (Identity(saved_data) != Identity(plan.data)) {
    progress.data_change_ = absl::StrCat(
        "train_dataloader: the checkpoint's had ", DataText(saved_data),
        "; this one has ", DataText(plan.data));
    if (!AtBorder(saved, saved_data)) {
      return absl::FailedPreconditionError(
          absl::StrCat(progress.data_change_,
                       ": the position inside the data would mean another"));
    }
  }
  progress.plan_ = plan;
  progress.state_ = saved;
  if (progress.is_stream()) {
    progress.plan_.data.mutable_stream()->Clear();
    GRAPNEL_RETURN_IF_ERROR(progress.SetLength());
    return progress;
  }
  Progress& state = progress.state_;
  Complete(saved_data, &state);
  progress.converted_before_ = progress.converted_steps();
  progress.epoch_length_ =
      plan.by_epoch && progress.length().epoch() > state.epoch()
          ? state.iter_in_epoch()
          : progress.length().num_batches();
  if (!SameLength(saved_data, plan.data)) {
    // An epoch that is complete but for its end still has its old length.
    const bool complete = state.iter_in_epoch() > 0;
    if (!complete) progress.epoch_length_ = plan.data.num_batches();
    EpochLength next;
    next.set_epoch(plan.by_epoch ? state.epoch() + complete : state.pass());
    next.set_iter(state.iter());
    next.set_num_batches(plan.data.num_batches());
    // Nothing was done with the length of before.
    if (progress.length().iter() == next.iter()) {
      state.mutable_epoch_lengths()->RemoveLast();
    }
    *state.add_epoch_lengths() = std::move(next);
  }
  GRAPNEL_RETURN_IF_ERROR(progress.SetLength());
  return progress;
}

absl::Status RunProgress::SetLength() {
  state_.set_max_epochs(plan_.by_epoch ? plan_.total : 1);
  if (!plan_.by_epoch) {
    state_.set_max_iters(plan_.total);
    return absl::OkStatus();
  }
  GRAPNEL_RET_CHECK(!is_stream());
  const EpochLength& from = length();
  int64_t iters = 0;
  if (__builtin_mul_overflow(std::max<int64_t>(plan_.total - from.epoch(), 0),
                             from.num_batches(), &iters) ||
      __builtin_add_overflow(iters, from.iter(), &iters)) {
    return absl::InvalidArgumentError(
        absl::StrCat("train_cfg: max_epochs: is too large, ", plan_.total));
  }
  // A run that was cut shorter than it is has nothing left to do.
  state_.set_max_iters(std::max(iters, iter()));
  return absl::OkStatus();
}

int64_t RunProgress::converted_steps() const {
  if (state_.epoch_lengths().empty()) return 0;
  const EpochLength& from = length();
  return from.epoch() * from.num_batches() + iter() - from.iter();
}

bool RunProgress::done() const {
  if (validation_pending()) return false;
  if (plan_.by_epoch) return epoch() >= max_epochs();
  return iter() >= max_iters() && loop_ended();
}

RunProgress::DataPlace RunProgress::place() const {
  if (plan_.by_epoch) return {epoch(), iter_in_epoch()};
  const EpochLength& from = length();
  const int64_t iters = iter() - from.iter();
  if (plan_.data.infinite()) return {from.epoch(), iters};
  return {from.epoch() + iters / from.num_batches(),
          iters % from.num_batches()};
}

void RunProgress::CountIter(int64_t samples) {
  state_.set_iter(iter() + 1);
  state_.set_samples(state_.samples() + samples);
  if (plan_.by_epoch) {
    state_.set_iter_in_epoch(iter_in_epoch() + 1);
    return;
  }
  if (is_stream()) return;  // Its place is told by SetStreamPlace.
  const EpochLength& from = length();
  const PassPlace place = PlaceAfter(iter() - from.iter(), plan_.data);
  state_.set_pass(from.epoch() + place.pass);
  state_.set_samples_in_pass(place.samples);
}

void RunProgress::EndEpoch() {
  if (!plan_.by_epoch) {
    state_.set_loop_ended(true);
    return;
  }
  state_.set_epoch(epoch() + 1);
  state_.set_iter_in_epoch(0);
  epoch_length_ = num_batches();
}

}  // namespace grapnel
