#include "grapnel/base/torch_status.h"

#include <cstdint>
#include <exception>
#include <new>
#include <stdexcept>

#include "c10/util/Exception.h"
#include "grapnel/base/status_exception.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(TorchStatusTest, LibTorchErrorsKeepTheirMessageWithoutTheBacktrace) {
  const absl::Status status = CatchAsStatus([]() -> absl::Status {
    TORCH_CHECK_VALUE(false, "size must be positive");
    return absl::OkStatus();
  });
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument,
                               HasSubstr("size must be positive")));
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr("frame #")));
}

TEST(TorchStatusTest, OtherExceptionsGetTheirCodes) {
  EXPECT_THAT(CatchAsStatus([]() -> absl::Status { throw std::bad_alloc(); }),
              StatusIs(absl::StatusCode::kResourceExhausted, "out of memory"));
  EXPECT_THAT(
      CatchAsStatus([]() -> absl::Status { throw std::runtime_error("boom"); }),
      StatusIs(absl::StatusCode::kInternal, "boom"));
  EXPECT_THAT(CatchAsStatus([]() -> absl::Status { throw 1; }),
              StatusIs(absl::StatusCode::kInternal, "unknown exception"));
}

// LibTorch throws its plain Error here, which has no type of its own.
TEST(TorchStatusTest, TheCpusMemoryThatIsUsedUpIsAResource) {
  const absl::Status status = CatchAsStatus([] {
    ops::empty({int64_t{1} << 46});  // 256 TiB: more than there are addresses.
    return absl::OkStatus();
  });
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted,
                               HasSubstr("DefaultCPUAllocator")));
  EXPECT_THAT(CatchAsStatus([]() -> absl::Status {
                TORCH_CHECK(false, "something else");
                return absl::OkStatus();
              }),
              StatusIs(absl::StatusCode::kInternal, "something else"));
}

TEST(TorchStatusTest, StatusOfTheCallPassesThrough) {
  EXPECT_THAT(CatchAsStatus([] { return absl::NotFoundError("gone"); }),
              StatusIs(absl::StatusCode::kNotFound, "gone"));
}

TEST(TorchStatusTest, AStatusThatIsThrownComesBackAsItWas) {
  EXPECT_THAT(CatchAsStatus([] {
                ThrowIfError(absl::OkStatus());
                ThrowIfError(absl::UnavailableError("rank 1: gone"));
                return absl::OkStatus();
              }),
              StatusIs(absl::StatusCode::kUnavailable, "rank 1: gone"));
  // For code that knows it as an exception only.
  try {
    ThrowIfError(absl::AbortedError("over"));
    ADD_FAILURE() << "nothing was thrown";
  } catch (const std::exception& e) {
    EXPECT_STREQ(e.what(), "over");
  }
}

TEST(TorchStatusTest, MessagesAreUtf8) {
  EXPECT_THAT(CatchAsStatus([]() -> absl::Status {
                TORCH_CHECK(false, "no caf\xe9");
                return absl::OkStatus();
              }),
              StatusIs(absl::StatusCode::kInternal, "no caf\\xe9"));
  EXPECT_THAT(CatchAsStatus([]() -> absl::Status {
                throw std::runtime_error("no caf\xe9");
              }),
              StatusIs(absl::StatusCode::kInternal, "no caf\\xe9"));
}

}  // namespace
}  // namespace grapnel
