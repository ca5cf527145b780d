#include "grapnel/runner/run_progress.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
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
  const std::string ranks =
      data.world_size() > 1
          ? absl::StrFormat(" on each of %d ranks", data.world_size())
          : "";
  return absl::StrFormat("%d samples in %d batches of %d%s, %s%s",
                         data.dataset_size(), data.num_batches(),
                         data.batch_size(), ranks,
                         data.shuffle() ? "shuffled" : "in order",
                         data.infinite() ? ", for ever" : "");
}

// Larger ones are none, and what is computed with them leaves an int64.
constexpr int64_t kMaxCount = int64_t{1} << 60;
constexpr int64_t kMaxSize = int64_t{1} << 40;

int64_t WorldSize(const DataPosition& data) {
  return std::max<int64_t>(data.world_size(), 1);
}

int64_t SamplesOfIter(const DataPosition& data) {
  return data.batch_size() * WorldSize(data);
}

const EpochLength& Last(const Progress& progress) {
  return progress.epoch_lengths(progress.epoch_lengths_size() - 1);
}

// Batches of such a length that the first samples of an epoch are, where it was
// shared out anew inside: then it has them behind itself, however many
// iterations they were.
int64_t Skipped(const EpochLength& length) {
  return length.samples() > 0 ? length.num_batches() - length.batches_left()
                              : 0;
}

// Whether that length began inside the epoch under way.
bool BeganInside(const EpochLength& length, const Progress& progress) {
  return length.samples() > 0 && length.epoch() == progress.epoch();
}

// Batches of the epoch under way, of a run by epoch.
int64_t LengthOfEpoch(const Progress& progress) {
  const EpochLength& last = Last(progress);
  // It lacks its end alone, and the next one has another length.
  if (last.epoch() > progress.epoch()) return progress.iter_in_epoch();
  if (!BeganInside(last, progress)) return last.num_batches();
  const int64_t before =
      progress.iter_in_epoch() - (progress.iter() - last.iter());
  return before + last.batches_left();
}

// The iterations before the epoch under way, as the lengths say; -1 if they
// don't.
int64_t BeginOfEpoch(const Progress& progress) {
  int i = progress.epoch_lengths_size() - 1;
  while (i > 0 && BeganInside(progress.epoch_lengths(i), progress)) --i;
  const EpochLength& from = progress.epoch_lengths(i);
  int64_t begin = 0;
  if (from.epoch() > progress.epoch() ||
      __builtin_mul_overflow(progress.epoch() - from.epoch(),
                             from.num_batches(), &begin) ||
      __builtin_add_overflow(begin, from.iter() - Skipped(from), &begin)) {
    return -1;
  }
  return begin;
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
  const EpochLength& last = Last(saved);
  // It lacks its end alone, and the next one has another length.
  if (q > 0 && last.epoch() == saved.epoch() + 1 && last.samples() == 0 &&
      last.iter() == saved.iter()) {
    return absl::OkStatus();
  }
  return q > LengthOfEpoch(saved) || BeginOfEpoch(saved) != saved.iter() - q
             ? bad()
             : absl::OkStatus();
}

// Samples of all ranks that iterations draw: of a finite loader whole passes
// are the data's size, whatever is dropped or repeated at their end.
struct PassPlace {
  int64_t pass;
  int64_t samples;
};

// Behind `iters` iterations from where `from` is.
PassPlace PlaceAfter(const EpochLength& from, int64_t iters,
                     const DataPosition& data) {
  const int64_t samples_of_iter = SamplesOfIter(data);
  if (!data.infinite()) {
    if (from.samples() > 0 && iters < from.batches_left()) {
      return {from.epoch(), from.samples() + iters * samples_of_iter};
    }
    iters += Skipped(from);
    return {from.epoch() + iters / from.num_batches(),
            iters % from.num_batches() * samples_of_iter};
  }
  const int64_t size = data.dataset_size();
  int64_t samples;
  if (!__builtin_mul_overflow(iters, samples_of_iter, &samples) &&
      !__builtin_add_overflow(samples, from.samples(), &samples)) {
    return {from.epoch() + samples / size, samples % size};
  }
  const __int128 many =
      static_cast<__int128>(iters) * samples_of_iter + from.samples();
  return {from.epoch() + static_cast<int64_t>(many / size),
          static_cast<int64_t>(many % size)};
}

// Whether the last of so many batches behind `samples` samples has one of its
// own.
bool Fits(int64_t samples, int64_t batches, const DataPosition& data) {
  return static_cast<__int128>(batches - 1) * SamplesOfIter(data) + samples <
         data.dataset_size();
}

absl::Status CheckLengths(const Progress& saved, const DataPosition& data) {
  for (int i = 0; i < saved.epoch_lengths_size(); ++i) {
    const EpochLength& length = saved.epoch_lengths(i);
    const auto bad = [i](absl::string_view why) {
      return absl::DataLossError(
          absl::StrCat("progress: epoch_lengths[", i, "]: ", why));
    };
    const bool inside = length.samples() != 0;
    if (length.num_batches() < 1 || length.num_batches() > kMaxSize ||
        length.epoch() < 0 || length.epoch() > kMaxCount || length.iter() < 0 ||
        length.iter() > saved.iter() || length.samples() < 0 ||
        length.samples() > kMaxSize ||
        length.batches_left() < (inside ? 1 : 0) ||
        length.batches_left() > (inside ? length.num_batches() : 0) ||
        length.epoch() > kMaxCount / length.num_batches()) {
      return bad("is out of range");
    }
    if (i == 0) {
      if (length.epoch() != 0 || length.iter() != 0 || inside) {
        return bad("isn't the run's beginning");
      }
      continue;
    }
    const EpochLength& before = saved.epoch_lengths(i - 1);
    if (length.iter() <= before.iter() || length.epoch() < before.epoch() ||
        (length.epoch() == before.epoch() &&
         length.samples() <= before.samples())) {
      return bad("is out of order");
    }
  }
  if (saved.epoch_lengths().empty()) return absl::OkStatus();
  const EpochLength& last = Last(saved);
  if (last.num_batches() != data.num_batches() ||
      (last.samples() > 0 &&
       !Fits(last.samples(), last.batches_left(), data))) {
    return absl::DataLossError(
        absl::StrCat("progress: epoch_lengths[", saved.epoch_lengths_size() - 1,
                     "]: isn't of the checkpoint's data, ", DataText(data)));
  }
  return absl::OkStatus();
}

// Whether the pass is where the iterations say, of a run by iteration.
absl::Status CheckPass(const Progress& saved, const DataPosition& data) {
  if (saved.epoch_lengths().empty()) return absl::OkStatus();
  const EpochLength& last = Last(saved);
  const PassPlace place = PlaceAfter(last, saved.iter() - last.iter(), data);
  if (saved.pass() == place.pass && saved.samples_in_pass() == place.samples) {
    return absl::OkStatus();
  }
  return absl::DataLossError(absl::StrCat(
      "progress: iter: is ", saved.iter(), ", which sample ",
      saved.samples_in_pass(), " of pass ", saved.pass(), " isn't at"));
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
      {"world_size", WorldSize(data)},
      {"num_batches", stream ? 1 : data.num_batches()},
      {"dataset_size", stream ? 1 : data.dataset_size()}};
  for (const auto& [name, value] : sizes) {
    if (value < 1 || value > kMaxSize) {
      return absl::DataLossError(absl::StrCat("data: ", name, ": is ", value));
    }
  }
  if (data.batch_size() > kMaxSize / WorldSize(data)) {
    return absl::DataLossError(absl::StrCat("data: batch_size: is ",
                                            data.batch_size(), " on each of ",
                                            WorldSize(data), " ranks"));
  }
  if (!stream && !Fits(0, data.num_batches(), data)) {
    return absl::DataLossError(
        absl::StrCat("data: num_batches: too many for ", DataText(data)));
  }
  if (stream && data.by_epoch()) {
    return absl::DataLossError("data: by_epoch: is true of a stream");
  }
  if (stream && !saved.epoch_lengths().empty()) {
    return absl::DataLossError("progress: epoch_lengths: are a stream's");
  }
  if (stream) return absl::OkStatus();
  GRAPNEL_RETURN_IF_ERROR(CheckLengths(saved, data));
  return data.by_epoch() ? CheckEpoch(saved, data) : CheckPass(saved, data);
}

// What the data is, wherever a stream of it has come to.
std::string Identity(DataPosition data) {
  if (data.has_stream()) data.mutable_stream()->Clear();
  return data.SerializeAsString();
}

// Whether a position in the one is one in the other, whoever takes what.
bool SameOrder(const DataPosition& a, const DataPosition& b) {
  return a.dataset_size() == b.dataset_size() && a.shuffle() == b.shuffle() &&
         a.infinite() == b.infinite();
}

// Whether they differ in ranks alone, and in what follows from that.
bool OnlyRanksDiffer(const DataPosition& a, const DataPosition& b) {
  return SameOrder(a, b) && a.batch_size() == b.batch_size() &&
         WorldSize(a) != WorldSize(b);
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
  const int64_t before = progress->iter() - progress->iter_in_epoch();
  const int64_t epoch = progress->epoch();
  EpochLength* first = progress->add_epoch_lengths();
  first->set_num_batches(n);
  if (!data.by_epoch()) {
    const PassPlace place = PlaceAfter(*first, progress->iter(), data);
    progress->set_pass(place.pass);
    progress->set_samples_in_pass(place.samples);
  }
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
  Progress complete = saved;
  Complete(data, &complete);
  return data.by_epoch()
             ? complete.iter_in_epoch() == 0 ||
                   complete.iter_in_epoch() == LengthOfEpoch(complete)
             : complete.samples_in_pass() == 0;
}

absl::StatusOr<RunProgress> RunProgress::Resume(
    const Plan& plan, const Progress& saved, const DataPosition& saved_data,
    absl::FunctionRef<int64_t(int64_t samples)> batches_behind) {
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
    std::string change = absl::StrCat("train_dataloader: the checkpoint's had ",
                                      DataText(saved_data), "; this one has ",
                                      DataText(plan.data));
    if (!SameOrder(saved_data, plan.data) && !AtBorder(saved, saved_data)) {
      return absl::FailedPreconditionError(absl::StrCat(
          change, ": the position inside the data would mean another"));
    }
    if (!OnlyRanksDiffer(saved_data, plan.data)) {
      progress.data_change_ = std::move(change);
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
  // drop_last may leave whole epochs alone, but not a part.
  const EpochLength& last = progress.length();
  if (!SameLength(saved_data, plan.data) ||
      (last.samples() > 0 &&
       batches_behind(last.samples()) != last.batches_left())) {
    progress.ChangeLength(saved_data, batches_behind);
  }
  progress.epoch_length_ =
      plan.by_epoch ? LengthOfEpoch(state) : progress.num_batches();
  GRAPNEL_RETURN_IF_ERROR(progress.SetLength());
  return progress;
}

void RunProgress::ChangeLength(
    const DataPosition& saved_data,
    absl::FunctionRef<int64_t(int64_t)> batches_behind) {
  // An epoch that is complete but for its end is at the next one's beginning.
  PassPlace here = PlaceAfter(length(), iter() - length().iter(), saved_data);
  int64_t left = here.samples > 0 ? batches_behind(here.samples) : 0;
  // Nor has one more that has no batch left.
  if (here.samples > 0 && left == 0) here = {here.pass + 1, 0};
  EpochLength next;
  next.set_epoch(here.pass);
  next.set_iter(iter());
  next.set_num_batches(num_batches());
  next.set_samples(here.samples);
  next.set_batches_left(left);
  if (!plan_.by_epoch) {
    state_.set_pass(here.pass);
    state_.set_samples_in_pass(here.samples);
  }
  // Nothing was done with the length of before.
  if (length().iter() == next.iter()) {
    state_.mutable_epoch_lengths()->RemoveLast();
  }
  *state_.add_epoch_lengths() = std::move(next);
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
      __builtin_add_overflow(iters, from.iter() - Skipped(from), &iters)) {
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
  return from.epoch() * from.num_batches() + Skipped(from) + iter() -
         from.iter();
}

int64_t RunProgress::batches_left() const {
  if (plan_.by_epoch) return epoch_length_ - iter_in_epoch();
  const EpochLength& from = length();
  return from.num_batches() -
         (Skipped(from) + iter() - from.iter()) % from.num_batches();
}

std::vector<EpochLength> RunProgress::whole_epochs() const {
  std::vector<EpochLength> whole;
  const auto add = [&whole](int64_t epoch, int64_t iter, int64_t num_batches) {
    // Of the same epoch, whose length is known better now.
    if (!whole.empty() && whole.back().epoch() == epoch) whole.pop_back();
    EpochLength& length = whole.emplace_back();
    length.set_epoch(epoch);
    length.set_iter(iter);
    length.set_num_batches(num_batches);
  };
  for (const EpochLength& from : state_.epoch_lengths()) {
    while (!whole.empty() && whole.back().epoch() > from.epoch()) {
      whole.pop_back();  // It came otherwise.
    }
    if (from.samples() == 0) {
      add(from.epoch(), from.iter(), from.num_batches());
      continue;
    }
    const EpochLength& last = whole.back();
    // Passes of an infinite sampler may be shorter than so many batches.
    const int64_t begin = std::min(
        last.iter() + (from.epoch() - last.epoch()) * last.num_batches(),
        from.iter());
    const int64_t end = from.iter() + from.batches_left();
    add(from.epoch(), begin, end - begin);
    add(from.epoch() + 1, end, from.num_batches());
  }
  return whole;
}

bool RunProgress::done() const {
  if (validation_pending()) return false;
  if (plan_.by_epoch) return epoch() >= max_epochs();
  return iter() >= max_iters() && loop_ended();
}

RunProgress::DataPlace RunProgress::place() const {
  const EpochLength& from = length();
  const int64_t iters = iter() - from.iter();
  if (plan_.by_epoch) {
    if (!BeganInside(from, state_)) return {epoch(), 0, iter_in_epoch()};
    return {epoch(), from.samples(), iters};
  }
  if (plan_.data.infinite() ||
      (from.samples() > 0 && iters < from.batches_left())) {
    return {from.epoch(), from.samples(), iters};
  }
  const int64_t whole = iters + Skipped(from);
  return {from.epoch() + whole / from.num_batches(), 0,
          whole % from.num_batches()};
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
  const PassPlace place = PlaceAfter(from, iter() - from.iter(), plan_.data);
  state_.set_pass(place.pass);
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
