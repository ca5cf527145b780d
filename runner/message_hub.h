// What a run knows about itself: histories of numbers, and facts.

#ifndef GRAPNEL_RUNNER_MESSAGE_HUB_H_
#define GRAPNEL_RUNNER_MESSAGE_HUB_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/runner/mode.h"

namespace grapnel::runner::v1 {
class MessageHubState;
// MessageHubState.History and .Totals: nested ones can't be declared otherwise.
class MessageHubState_History;
class MessageHubState_Totals;
}  // namespace grapnel::runner::v1

namespace grapnel {

class MessageHub;

// The last values of one scalar in a ring, and sum, count, minimum and maximum
// of all that ever came and of this epoch's. Each entry is a value and a count,
// 1 unless said otherwise; mean = sum of values / sum of counts, so that a
// value that stands for `count` samples is their sum (parity.md 5.10). A NaN or
// infinity is part of each window that reaches back to it; statistics of the
// epoch and of all leave them out, or one would keep them for ever, and are NaN
// if nothing else came.
//
// A number on the CPU is read when it is added. A tensor on a device is kept as
// it is and becomes a number, with others in one copy, when somebody asks or
// the ring is full of such: adding one waits for no device. If that fails, or a
// tensor isn't one real number, it counts as NaN and all statistics are that
// error.
//
// Allocates nothing for an entry once made. Thread-compatible. Owned by a
// MessageHub, never moves.
class HistoryBuffer {
 public:
  static constexpr int64_t kDefaultWindow = 10;
  static constexpr int64_t kMaxWindow = 1000000;

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

  HistoryBuffer(std::string name, int64_t capacity, MessageHub* hub);

  // The slot of the entry that came `age` before the last one.
  Slot& SlotOfAge(int64_t age) const;

  // Makes a new entry: its slot, to be filled.
  Slot& NextSlot();

  // An entry, the oldest that is in no total yet, has become a number.
  void AddToTotals(const Slot& slot, int64_t entry) const;

  // Makes numbers of all tensors, and puts what is pending into the totals.
  void Convert() const;
  void ConvertRun(int64_t oldest_age, int64_t size) const;
  void Fail(const absl::Status& status) const;

  // Converts, and says how many entries the window has.
  absl::StatusOr<int64_t> ConvertedWindow(int64_t window) const;
  absl::Status ConvertedEpoch() const;
  absl::Status ConvertedAll() const;

  void BeginEpoch() { epoch_begin_ = num_entries_; }
  void Clear();
  void Save(runner::v1::MessageHubState_History* state) const;
  void Load(const runner::v1::MessageHubState_History& state);

  const std::string name_;
  MessageHub* const hub_;
  int64_t capacity_;  // Size of slots_.
  int64_t num_entries_ = 0;
  int64_t epoch_begin_ = 0;  // Number of the epoch's first entry.
  int64_t num_kept_ = 0;     // Entries in the ring,
  int64_t next_ = 0;         // and the slot of the one to come.
  bool cut_ = false;         // A state had fewer than the ring has room for.

  // Under readers, or when the ring is full of them, the last `num_pending_`
  // entries go into the totals, and tensors become numbers.
  mutable std::vector<Slot> slots_;
  mutable int64_t num_pending_ = 0;
  mutable Totals total_;
  mutable Totals epoch_total_;
  mutable absl::Status status_;  // The first failure.
};

// Thread-compatible. Scalars are named "<mode>/<name>", "train/loss". Names,
// and facts that are text, are kept as EscapeToUtf8 makes them.
class MessageHub {
 public:
  using Info =
      std::variant<int64_t, double, bool, std::string, std::vector<int64_t>>;

  MessageHub();
  ~MessageHub();
  MessageHub(const MessageHub&) = delete;
  MessageHub& operator=(const MessageHub&) = delete;

  // The history of that name, made if there is none. Look it up once, in Setup,
  // and keep it: it is valid as long as the hub. It isn't listed by scalars()
  // until something is added.
  HistoryBuffer& Scalar(absl::string_view name);

  // The history of that name if something was ever added to it, else null.
  const HistoryBuffer* FindScalar(absl::string_view name) const;

  // Drops what the history of that name holds; it isn't listed then.
  void ForgetScalar(absl::string_view name);

  // Histories with entries, in the order of their first entry.
  const std::vector<HistoryBuffer*>& scalars() const { return scalars_; }

  // KeepAtLeast of every history, also of those that will be made.
  void KeepAtLeast(int64_t window);

  // An epoch of that mode begins: the epoch's entries of "<mode>/..." are those
  // from now on. Waits for no device.
  void BeginEpoch(Mode mode);

  // Facts by name: "epoch", "seed", "loop_stage". Saved in checkpoints unless
  // `resumable` is false, which the last call decides.
  void SetInfo(absl::string_view name, Info value, bool resumable = true);
  // Where a fact is, for who sets it at every iteration and saves the look-up:
  // valid as long as the hub; empty while there is no such fact.
  std::optional<Info>& InfoSlot(absl::string_view name);
  // Null if there is none. Valid until the fact is set anew or removed, or a
  // state is loaded.
  const Info* FindInfo(absl::string_view name) const;
  void RemoveInfo(absl::string_view name);

  // Rings, totals and facts. LoadState replaces what there is, except facts
  // that aren't saved; histories that were looked up stay valid, and rings as
  // long as was asked. kDataLoss, naming the scalar, if the state contradicts
  // itself; nothing has changed then.
  void SaveState(runner::v1::MessageHubState* state) const;

  // The fewest entries that a history has where it should have more, since the
  // state that was loaded is of a shorter ring; -1 if there is none.
  int64_t ShortWindow() const;
  absl::Status LoadState(const runner::v1::MessageHubState& state);

 private:
  friend class HistoryBuffer;

  struct Fact {
    std::optional<Info> value;  // Empty once removed: slots stay.
    bool resumable = true;
  };

  std::map<std::string, std::unique_ptr<HistoryBuffer>, std::less<>> histories_;
  std::vector<HistoryBuffer*> scalars_;
  int64_t window_ = HistoryBuffer::kDefaultWindow;
  std::map<std::string, Fact, std::less<>> infos_;
};

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_MESSAGE_HUB_H_
