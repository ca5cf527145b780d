// The history of one number of a run.

#ifndef GRAPNEL_RUNNER_HISTORY_BUFFER_H_
#define GRAPNEL_RUNNER_HISTORY_BUFFER_H_

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace grapnel::runner::v1 {
// MessageHubState.History and .Totals: nested ones can't be declared otherwise.
class MessageHubState_History;
class MessageHubState_Totals;
}  // namespace grapnel::runner::v1

namespace grapnel {

// The last values of one scalar in a ring, and sum, count, minimum and maximum
// of all that ever came and of this epoch's. Each entry is a value and a count,
// 1 unless said otherwise; mean = sum of values / sum of counts, so that a
// value that stands for `count` samples is their sum, as in MMEngine. A NaN or
// infinity is part of each window that reaches back to it; statistics of the
// epoch and of all leave them out, or one would keep them for ever, and are NaN
// if nothing else came.
//
// A number on the CPU is read when it is added. A tensor on a device is kept as
// it is and becomes a number, with all others in one copy, when somebody asks:
// adding one waits for no device. Until then it takes a number's memory there;
// only after kMaxUnread of them that nobody asked for are they read. If that
// fails, or a tensor isn't one real number, it counts as NaN and all statistics
// are that error.
//
// Allocates nothing for a number on the CPU once made. Thread-compatible. Owned
// by a MessageHub, never moves.
class HistoryBuffer {
 public:
  static constexpr int64_t kDefaultWindow = 10;
  static constexpr int64_t kMaxWindow = 1000000;
  static constexpr int64_t kMaxUnread = 1 << 20;

  HistoryBuffer(const HistoryBuffer&) = delete;
  HistoryBuffer& operator=(const HistoryBuffer&) = delete;

  const std::string& name() const { return name_; }

  // `count` >= 1.
  void Add(double value, int64_t count = 1);

  // `value`: one element, any real dtype, any device; detached by the callee.
  // The caller doesn't write it afterwards.
  void Add(const at::Tensor& value, int64_t count = 1);

  // Makes the ring at least `window` long; 1..kMaxWindow, nearer one else. Call
  // before the first Add, or earlier values of a longer window are missing.
  void KeepAtLeast(int64_t window);

  // Entries that ever came, and those since MessageHub::BeginEpoch.
  int64_t num_entries() const { return num_entries_; }
  int64_t num_epoch_entries() const { return num_entries_ - epoch_begin_; }

  // Over the last `window` entries, >= 1, or all that there are; after a state
  // of a shorter ring was loaded, those that are kept. kOutOfRange if the ring
  // is shorter than that; kFailedPrecondition if there are no entries.
  absl::StatusOr<double> Mean(int64_t window) const;
  absl::StatusOr<double> Max(int64_t window) const;
  absl::StatusOr<double> Min(int64_t window) const;

  // The same over all entries of this epoch, however many.
  absl::StatusOr<double> EpochMean() const;
  absl::StatusOr<double> EpochMax() const;
  absl::StatusOr<double> EpochMin() const;

  // The same over all entries that ever came.
  absl::StatusOr<double> GlobalMean() const;
  absl::StatusOr<double> GlobalMax() const;
  absl::StatusOr<double> GlobalMin() const;

  // The last value. kFailedPrecondition if there is none.
  absl::StatusOr<double> Current() const;

 private:
  friend class MessageHub;

  // A kept tensor of one number takes some hundred times a number's memory.
  static constexpr int64_t kMaxPending = 64;
  static constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

  struct Slot {
    double value = 0;
    int64_t count = 0;
    at::Tensor tensor;  // Defined until it has become `value`.
  };

  struct Totals {
    double sum = 0;
    int64_t sum_counts = 0;
    double min = kNaN;
    double max = kNaN;

    void Add(double value, int64_t count);
    double Mean() const;
    void Save(runner::v1::MessageHubState_Totals* state) const;
    void Load(const runner::v1::MessageHubState_Totals& state);
  };

  // Adds itself to `*listed` with its first entry.
  HistoryBuffer(std::string name, int64_t capacity,
                std::vector<HistoryBuffer*>* listed);

  // The slot of the entry that came `age` before the last one.
  Slot& SlotOfAge(int64_t age) const;

  // Entries that have left the pending ones unread, the oldest first.
  struct Block {
    at::Tensor values;  // (entries), where they came from.
    std::vector<int64_t> counts;
  };

  // Makes a new entry: its slot, to be filled.
  Slot& NextSlot();

  // An entry, the oldest that is in no total yet, has become a number.
  void AddToTotals(const Slot& slot, int64_t entry) const;

  // Makes a block of what is pending; false if that is not all of one kind on a
  // device, or there are enough.
  bool Pack() const;
  static bool JoinLast(std::vector<Block>* blocks);

  // Makes numbers of all tensors, and puts what is pending into the totals.
  void Convert() const;
  void ConvertBlocks() const;
  void ConvertRun(int64_t oldest_age, int64_t size) const;
  void Fail(const absl::Status& status) const;

  // Converts, and says how many entries the window has.
  absl::StatusOr<int64_t> ConvertedWindow(int64_t window) const;
  absl::Status ConvertedEpoch() const;
  absl::Status ConvertedAll() const;

  void BeginEpoch() { epoch_begin_ = num_entries_; }
  void Clear();
  void Save(runner::v1::MessageHubState_History* state) const;
  // kDataLoss if Load can't take it.
  static absl::Status CheckState(
      const runner::v1::MessageHubState_History& state);
  void Load(const runner::v1::MessageHubState_History& state);

  const std::string name_;
  std::vector<HistoryBuffer*>* const listed_;
  int64_t capacity_;     // Size of slots_.
  int64_t max_pending_;  // At most that, and kMaxPending.
  int64_t num_entries_ = 0;
  int64_t epoch_begin_ = 0;  // Number of the epoch's first entry.
  int64_t num_kept_ = 0;     // Entries in the ring,
  int64_t next_ = 0;         // and the slot of the one to come.
  bool cut_ = false;         // A state had fewer than the ring has room for.

  // Under readers, or where there is no more room, the last `num_pending_`
  // entries and those of blocks before them go into the totals, and tensors
  // become numbers. An entry of a block has no value in its slot until then.
  mutable std::vector<Slot> slots_;
  mutable int64_t num_pending_ = 0;
  mutable std::vector<Block> blocks_;
  mutable int64_t num_packed_ = 0;  // Entries in them.
  mutable Totals total_;
  mutable Totals epoch_total_;
  mutable absl::Status status_;  // The first failure.
};

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_HISTORY_BUFFER_H_
