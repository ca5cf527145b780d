// What a run knows about itself: histories of numbers, and facts.

#ifndef GRAPNEL_RUNNER_MESSAGE_HUB_H_
#define GRAPNEL_RUNNER_MESSAGE_HUB_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grapnel/runner/history_buffer.h"
#include "grapnel/runner/mode.h"

namespace grapnel::runner::v1 {
class MessageHubState;
}  // namespace grapnel::runner::v1

namespace grapnel {

// Thread-compatible. Scalars are named "<mode>/<name>", "train/loss". Names,
// and facts that are text, are kept as EscapeToUtf8 makes them.
//
// Example:
//
//   MessageHub hub;
//   HistoryBuffer& loss = hub.Scalar("train/loss");
//   for (const double value : {4.0, 2.0, 1.0}) loss.Add(value);
//   GRAPNEL_ASSIGN_OR_RETURN(const double mean, loss.Mean(/*window=*/2));
//   GRAPNEL_RET_CHECK(mean == 1.5);
//   hub.SetInfo("epoch", int64_t{3});
//   GRAPNEL_RET_CHECK(std::get<int64_t>(*hub.FindInfo("epoch")) == 3);
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
  // Null if there is none. Valid until the fact is set again or removed, or a
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
