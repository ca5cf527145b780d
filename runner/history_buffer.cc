#include "grapnel/runner/history_buffer.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/runner/message_hub.pb.h"

namespace grapnel {
namespace {

using State = runner::v1::MessageHubState;

bool AreAlike(const at::Tensor& a, const at::Tensor& b) {
  return a.device() == b.device() && a.scalar_type() == b.scalar_type();
}

// NaN stays, once it is there.
double MinOrNaN(double a, double b) { return std::isnan(b) || b < a ? b : a; }
double MaxOrNaN(double a, double b) { return std::isnan(b) || b > a ? b : a; }

// The sum of get(i) for `n` indices from `begin`, added up in NumPy's order:
// more exact than one after the other, and MMEngine's means to the last bit.
template <typename Get>
double PairwiseSum(const Get& get, int64_t begin, int64_t n) {
  constexpr int64_t kBlock = 128;
  if (n < 8) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += get(begin + i);
    return sum;
  }
  if (n > kBlock) {
    const int64_t half = n / 2 - n / 2 % 8;
    return PairwiseSum(get, begin, half) +
           PairwiseSum(get, begin + half, n - half);
  }
  double r[8];
  for (int k = 0; k < 8; ++k) r[k] = get(begin + k);
  int64_t i = 8;
  for (; i < n - n % 8; i += 8) {
    for (int k = 0; k < 8; ++k) r[k] += get(begin + i + k);
  }
  double sum =
      ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
  for (; i < n; ++i) sum += get(begin + i);
  return sum;
}

// The value of one element on the CPU, read without LibTorch's dispatcher; none
// if it is elsewhere, of a dtype that C++ doesn't have, or isn't in memory as
// it is (the negative of a view).
std::optional<double> ReadAtOnce(const at::Tensor& tensor) {
  if (!tensor.is_cpu() || tensor.layout() != at::kStrided || tensor.is_neg()) {
    return std::nullopt;
  }
  const void* const data = tensor.const_data_ptr();
  if (data == nullptr) return std::nullopt;
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return *static_cast<const double*>(data);
    case at::kFloat:
      return *static_cast<const float*>(data);
    case at::kHalf:
      return static_cast<float>(*static_cast<const at::Half*>(data));
    case at::kBFloat16:
      return static_cast<float>(*static_cast<const at::BFloat16*>(data));
    case at::kLong:
      return static_cast<double>(*static_cast<const int64_t*>(data));
    case at::kInt:
      return *static_cast<const int32_t*>(data);
    case at::kShort:
      return *static_cast<const int16_t*>(data);
    case at::kChar:
      return *static_cast<const int8_t*>(data);
    case at::kByte:
      return *static_cast<const uint8_t*>(data);
    case at::kBool:
      return *static_cast<const bool*>(data) ? 1 : 0;
    default:
      return std::nullopt;
  }
}

}  // namespace

void HistoryBuffer::Totals::Add(double value, int64_t count) {
  if (!std::isfinite(value)) return;
  sum += value;
  sum_counts += count;
  // The first one replaces NaN.
  min = value > min ? min : value;
  max = value < max ? max : value;
}

double HistoryBuffer::Totals::Mean() const {
  return sum_counts == 0 ? kNaN : sum / static_cast<double>(sum_counts);
}

void HistoryBuffer::Totals::Save(State::Totals* state) const {
  state->set_sum(sum);
  state->set_sum_counts(sum_counts);
  state->set_min(min);
  state->set_max(max);
}

void HistoryBuffer::Totals::Load(const State::Totals& state) {
  *this = {state.sum(), state.sum_counts(), state.min(), state.max()};
  // Of before NaNs were left out, or of no value at all.
  if (!std::isfinite(sum) || !std::isfinite(min + max) || sum_counts == 0) {
    *this = Totals();
  }
}

HistoryBuffer::HistoryBuffer(std::string name, int64_t capacity,
                             std::vector<HistoryBuffer*>* listed)
    : name_(std::move(name)),
      listed_(listed),
      capacity_(capacity),
      max_pending_(std::min(capacity, kMaxPending)),
      slots_(capacity) {}

HistoryBuffer::Slot& HistoryBuffer::SlotOfAge(int64_t age) const {
  const int64_t i = next_ - 1 - age;
  return slots_[i < 0 ? i + capacity_ : i];
}

HistoryBuffer::Slot& HistoryBuffer::NextSlot() {
  if (num_pending_ == max_pending_ && !Pack()) Convert();
  if (num_entries_ == 0) listed_->push_back(this);
  Slot& slot = slots_[next_];
  next_ = next_ + 1 == capacity_ ? 0 : next_ + 1;
  num_kept_ = std::min(num_kept_ + 1, capacity_);
  ++num_pending_;
  ++num_entries_;
  return slot;
}

void HistoryBuffer::AddToTotals(const Slot& slot, int64_t entry) const {
  total_.Add(slot.value, slot.count);
  if (entry == epoch_begin_) epoch_total_ = Totals();
  epoch_total_.Add(slot.value, slot.count);
}

void HistoryBuffer::Add(double value, int64_t count) {
  Slot& slot = NextSlot();
  slot.value = value;
  slot.count = count;
}

void HistoryBuffer::Add(const at::Tensor& value, int64_t count) {
  std::optional<double> number;
  const absl::Status status = CatchAsStatus([&]() -> absl::Status {
    if (!value.defined() || value.numel() != 1 || value.is_complex()) {
      return absl::InvalidArgumentError(
          !value.defined()
              ? "must be one real number, is an undefined tensor"
              : absl::StrCat("must be one real number, has ", value.numel(),
                             " of dtype ", at::toString(value.scalar_type())));
    }
    number = ReadAtOnce(value);
    return absl::OkStatus();
  });
  if (!status.ok()) {
    Fail(status);
    number = kNaN;
  }
  if (number.has_value()) {
    Add(*number, count);
    return;
  }
  Slot& slot = NextSlot();
  slot.tensor = value.requires_grad() ? value.detach() : value;
  slot.count = count;
}

void HistoryBuffer::KeepAtLeast(int64_t window) {
  window = std::min(window, kMaxWindow);
  if (window <= capacity_) return;
  std::vector<Slot> slots(window);
  for (int64_t i = 0; i < num_kept_; ++i) {
    slots[i] = std::move(SlotOfAge(num_kept_ - 1 - i));
  }
  slots_ = std::move(slots);
  capacity_ = window;
  max_pending_ = std::min(window, kMaxPending);
  next_ = num_kept_;
}

void HistoryBuffer::Fail(const absl::Status& status) const {
  if (status_.ok()) status_ = WithContext(status, name_);
}

bool HistoryBuffer::Pack() const {
  const at::Tensor& first = SlotOfAge(num_pending_ - 1).tensor;
  if (!first.defined() || num_packed_ + num_pending_ > kMaxUnread) return false;
  Block block;
  std::vector<at::Tensor> tensors;
  for (int64_t age = num_pending_ - 1; age >= 0; --age) {
    const Slot& slot = SlotOfAge(age);
    if (!slot.tensor.defined() || !AreAlike(slot.tensor, first)) return false;
    tensors.push_back(slot.tensor);
    block.counts.push_back(slot.count);
  }
  const absl::Status status = CatchAsStatus([&] {
    for (at::Tensor& tensor : tensors) tensor = tensor.reshape({});
    block.values = ops::stack(tensors);
    blocks_.push_back(std::move(block));
    return absl::OkStatus();
  });
  if (!status.ok()) return false;  // Convert says what is wrong.
  for (int64_t age = 0; age < num_pending_; ++age) {
    SlotOfAge(age).tensor.reset();
  }
  num_packed_ += num_pending_;
  num_pending_ = 0;
  // Each entry is moved as often as the number of blocks doubles. Those that
  // there is no memory to join stay as they are.
  CatchAsStatus([&] {
    while (JoinLast(&blocks_)) continue;
    return absl::OkStatus();
  }).IgnoreError();
  return true;
}

bool HistoryBuffer::JoinLast(std::vector<Block>* blocks) {
  if (blocks->size() < 2) return false;
  Block& last = blocks->back();
  Block& before = *(blocks->end() - 2);
  if (!AreAlike(last.values, before.values) ||
      last.counts.size() < before.counts.size()) {
    return false;
  }
  before.counts.reserve(before.counts.size() + last.counts.size());
  before.values = ops::cat({before.values, last.values});
  before.counts.insert(before.counts.end(), last.counts.begin(),
                       last.counts.end());
  blocks->pop_back();
  return true;
}

void HistoryBuffer::ConvertBlocks() const {
  int64_t entry = num_entries_ - num_pending_ - num_packed_;
  for (auto first = blocks_.begin(); first != blocks_.end();) {
    std::vector<at::Tensor> alike;
    std::vector<int64_t> counts;
    auto next = first;
    for (; next != blocks_.end() && AreAlike(next->values, first->values);
         ++next) {
      alike.push_back(next->values);
      counts.insert(counts.end(), next->counts.begin(), next->counts.end());
    }
    at::Tensor numbers;
    const absl::Status status = CatchAsStatus([&] {
      numbers = ops::cat(alike).to(at::kCPU, at::kDouble);
      return absl::OkStatus();
    });
    if (!status.ok()) Fail(status);
    const double* const values =
        status.ok() ? numbers.const_data_ptr<double>() : nullptr;
    for (size_t i = 0; i < counts.size(); ++i, ++entry) {
      const double value = values != nullptr ? values[i] : kNaN;
      AddToTotals({value, counts[i], {}}, entry);
      const int64_t age = num_entries_ - 1 - entry;
      if (age < num_kept_) SlotOfAge(age).value = value;
    }
    first = next;
  }
  blocks_.clear();
  num_packed_ = 0;
}

void HistoryBuffer::Convert() const {
  if (!blocks_.empty()) {
    if (num_pending_ > 0) Pack();  // One copy of both, if they are alike.
    ConvertBlocks();
  }
  // From old to new: tensors of one kind that follow one another are one copy.
  for (int64_t age = num_pending_ - 1; age >= 0;) {
    const at::Tensor& first = SlotOfAge(age).tensor;
    int64_t size = 1;
    if (first.defined()) {
      for (; size <= age; ++size) {
        const at::Tensor& tensor = SlotOfAge(age - size).tensor;
        if (!tensor.defined() || !AreAlike(tensor, first)) break;
      }
      ConvertRun(age, size);
    }
    age -= size;
  }
  for (; num_pending_ > 0; --num_pending_) {
    AddToTotals(SlotOfAge(num_pending_ - 1), num_entries_ - num_pending_);
  }
}

void HistoryBuffer::ConvertRun(int64_t oldest_age, int64_t size) const {
  at::Tensor numbers;
  const absl::Status status = CatchAsStatus([&]() -> absl::Status {
    std::vector<at::Tensor> tensors;
    tensors.reserve(size);
    for (int64_t i = 0; i < size; ++i) {
      tensors.push_back(SlotOfAge(oldest_age - i).tensor.reshape({}));
    }
    numbers = ops::stack(tensors).to(at::kCPU, at::kDouble);
    return absl::OkStatus();
  });
  if (!status.ok()) Fail(status);
  const double* const values =
      status.ok() ? numbers.const_data_ptr<double>() : nullptr;
  for (int64_t i = 0; i < size; ++i) {
    Slot& slot = SlotOfAge(oldest_age - i);
    slot.value = values != nullptr ? values[i] : kNaN;
    slot.tensor.reset();
  }
}

absl::StatusOr<int64_t> HistoryBuffer::ConvertedWindow(int64_t window) const {
  if (window < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(name_, ": window: must be >= 1, is ", window));
  }
  GRAPNEL_RETURN_IF_ERROR(ConvertedAll());
  const int64_t wanted = std::min(window, num_entries_);
  if (wanted > num_kept_ && window <= capacity_) return num_kept_;
  if (wanted > num_kept_) {
    return absl::OutOfRangeError(absl::StrCat(name_, ": window: only the last ",
                                              num_kept_, " entries are kept, ",
                                              wanted, " are asked for"));
  }
  return wanted;
}

absl::Status HistoryBuffer::ConvertedEpoch() const {
  if (num_epoch_entries() == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(name_, ": has no entries in this epoch"));
  }
  return ConvertedAll();
}

absl::Status HistoryBuffer::ConvertedAll() const {
  if (num_entries_ == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(name_, ": has no entries"));
  }
  Convert();
  return status_;
}

absl::StatusOr<double> HistoryBuffer::Mean(int64_t window) const {
  GRAPNEL_ASSIGN_OR_RETURN(const int64_t n, ConvertedWindow(window));
  const double sum = PairwiseSum(
      [this, n](int64_t i) { return SlotOfAge(n - 1 - i).value; }, 0, n);
  int64_t counts = 0;
  for (int64_t age = 0; age < n; ++age) counts += SlotOfAge(age).count;
  return sum / static_cast<double>(counts);
}

absl::StatusOr<double> HistoryBuffer::Max(int64_t window) const {
  GRAPNEL_ASSIGN_OR_RETURN(const int64_t n, ConvertedWindow(window));
  double max = SlotOfAge(0).value;
  for (int64_t age = 1; age < n; ++age) {
    max = MaxOrNaN(max, SlotOfAge(age).value);
  }
  return max;
}

absl::StatusOr<double> HistoryBuffer::Min(int64_t window) const {
  GRAPNEL_ASSIGN_OR_RETURN(const int64_t n, ConvertedWindow(window));
  double min = SlotOfAge(0).value;
  for (int64_t age = 1; age < n; ++age) {
    min = MinOrNaN(min, SlotOfAge(age).value);
  }
  return min;
}

absl::StatusOr<double> HistoryBuffer::EpochMean() const {
  GRAPNEL_RETURN_IF_ERROR(ConvertedEpoch());
  return epoch_total_.Mean();
}

absl::StatusOr<double> HistoryBuffer::EpochMax() const {
  GRAPNEL_RETURN_IF_ERROR(ConvertedEpoch());
  return epoch_total_.max;
}

absl::StatusOr<double> HistoryBuffer::EpochMin() const {
  GRAPNEL_RETURN_IF_ERROR(ConvertedEpoch());
  return epoch_total_.min;
}

absl::StatusOr<double> HistoryBuffer::GlobalMean() const {
  GRAPNEL_RETURN_IF_ERROR(ConvertedAll());
  return total_.Mean();
}

absl::StatusOr<double> HistoryBuffer::GlobalMax() const {
  GRAPNEL_RETURN_IF_ERROR(ConvertedAll());
  return total_.max;
}

absl::StatusOr<double> HistoryBuffer::GlobalMin() const {
  GRAPNEL_RETURN_IF_ERROR(ConvertedAll());
  return total_.min;
}

absl::StatusOr<double> HistoryBuffer::Current() const {
  GRAPNEL_RETURN_IF_ERROR(ConvertedAll());
  return SlotOfAge(0).value;
}

void HistoryBuffer::Clear() {
  for (Slot& slot : slots_) slot = Slot();
  num_entries_ = epoch_begin_ = num_kept_ = next_ = num_pending_ = 0;
  blocks_.clear();
  num_packed_ = 0;
  total_ = epoch_total_ = Totals();
  status_ = absl::OkStatus();
}

void HistoryBuffer::Save(State::History* state) const {
  Convert();
  state->set_name(name_);
  for (int64_t age = num_kept_ - 1; age >= 0; --age) {
    state->add_values(SlotOfAge(age).value);
    state->add_counts(SlotOfAge(age).count);
  }
  state->set_capacity(capacity_);
  state->set_num_entries(num_entries_);
  total_.Save(state->mutable_total());
  state->set_num_epoch_entries(num_epoch_entries());
  if (num_epoch_entries() > 0) {
    epoch_total_.Save(state->mutable_epoch_total());
  }
}

absl::Status HistoryBuffer::CheckState(const State::History& history) {
  const int64_t size = history.values_size();
  if (history.name().empty()) return absl::DataLossError("has no name");
  if (history.capacity() < 1 || history.capacity() > kMaxWindow) {
    return absl::DataLossError(absl::StrCat(
        "capacity: must be in 1..", kMaxWindow, ", is ", history.capacity()));
  }
  if (size != history.counts_size() || size < 1 || size > history.capacity() ||
      size > history.num_entries()) {
    return absl::DataLossError(
        absl::StrCat(size, " values, ", history.counts_size(),
                     " counts, capacity ", history.capacity(), " and ",
                     history.num_entries(), " entries don't go together"));
  }
  for (const int64_t count : history.counts()) {
    if (count < 1) {
      return absl::DataLossError(
          absl::StrCat("counts: must be >= 1, is ", count));
    }
  }
  if (history.num_epoch_entries() < 0 ||
      history.num_epoch_entries() > history.num_entries()) {
    return absl::DataLossError(absl::StrCat("num_epoch_entries: must be in 0..",
                                            history.num_entries(), ", is ",
                                            history.num_epoch_entries()));
  }
  return absl::OkStatus();
}

void HistoryBuffer::Load(const State::History& state) {
  Clear();
  cut_ = capacity_ > state.capacity();
  KeepAtLeast(state.capacity());
  for (int i = 0; i < state.values_size(); ++i) {
    slots_[i].value = state.values(i);
    slots_[i].count = state.counts(i);
  }
  num_kept_ = state.values_size();
  next_ = num_kept_ % capacity_;
  num_entries_ = state.num_entries();
  epoch_begin_ = num_entries_ - state.num_epoch_entries();
  total_.Load(state.total());
  epoch_total_.Load(state.epoch_total());
}

}  // namespace grapnel
