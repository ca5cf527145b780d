#include "grapnel/tests/device/fake_copies.h"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "c10/core/ScalarType.h"

namespace grapnel {
namespace internal_fake_device {
namespace {

constexpr size_t kKept = 64;

struct Counted {
  std::mutex mutex;
  FakeCopies copies;
  std::deque<std::string> last;
};

Counted& TheCounted() {
  static Counted* const counted = new Counted();
  return *counted;
}

}  // namespace

void CountCopy(Direction direction, const at::Tensor& tensor,
               absl::string_view why) {
  const bool to_host = direction == Direction::kToHost;
  const auto bytes = static_cast<int64_t>(tensor.nbytes());
  Counted& counted = TheCounted();
  const std::lock_guard<std::mutex> lock(counted.mutex);
  FakeCopies& copies = counted.copies;
  ++(to_host ? copies.to_host : copies.to_device);
  (to_host ? copies.bytes_to_host : copies.bytes_to_device) += bytes;
  if (counted.last.size() == kKept) counted.last.pop_front();
  counted.last.push_back(absl::StrCat(to_host ? "to host: " : "to device: ",
                                      c10::toString(tensor.scalar_type()), " [",
                                      absl::StrJoin(tensor.sizes(), ", "), "]",
                                      why.empty() ? "" : ", by ", why));
}

FakeCopies Copies() {
  const std::lock_guard<std::mutex> lock(TheCounted().mutex);
  return TheCounted().copies;
}

std::vector<std::string> LastCopies() {
  const std::lock_guard<std::mutex> lock(TheCounted().mutex);
  return {TheCounted().last.begin(), TheCounted().last.end()};
}

}  // namespace internal_fake_device
}  // namespace grapnel
