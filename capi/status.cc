#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "grapnel/base/utf8.h"
#include "grapnel/capi/guard.h"

namespace grapnel::capi {
namespace {

absl::Status TooLarge(absl::string_view name, size_t size) {
  return absl::InvalidArgumentError(
      absl::StrCat(name, "_size: is ", size, ", which is too large"));
}

}  // namespace

std::atomic<int64_t> Counted::alive{0};

grapnel_status* OutOfMemory() noexcept {
  alignas(grapnel_status) static char place[sizeof(grapnel_status)];
  static grapnel_status* const status = [] {
    auto* const made = new (place) grapnel_status;
    made->code = GRAPNEL_RESOURCE_EXHAUSTED;
    made->message = "out of memory";  // Short enough to need none.
    Counted::alive.fetch_sub(1, std::memory_order_release);
    return made;
  }();
  return status;
}

grapnel_status* ToC(const absl::Status& status) noexcept {
  if (status.ok()) return nullptr;
  try {
    auto made = std::make_unique<grapnel_status>();
    made->code = static_cast<grapnel_code>(status.code());
    made->message = EscapeToUtf8(status.message());
    return made.release();
  } catch (...) {
    return OutOfMemory();
  }
}

absl::Status FromC(grapnel_status* status) {
  if (status == nullptr) return absl::OkStatus();
  const std::unique_ptr<grapnel_status, DestroyStatus> taken(status);
  return absl::Status(static_cast<absl::StatusCode>(taken->code),
                      taken->message);
}

absl::Status NotNull(const void* argument, absl::string_view name) {
  if (argument != nullptr) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name, ": must not be null"));
}

absl::Status ReadText(const char* text, size_t size, absl::string_view name,
                      absl::string_view* out) {
  if (size > kMaxTextBytes) return TooLarge(name, size);
  absl::string_view read;
  GRAPNEL_RETURN_IF_ERROR(ReadBytes(text, size, name, &read));
  // Nearly always; a look at each code point costs more than the rest.
  if (std::all_of(read.begin(), read.end(),
                  [](char c) { return static_cast<signed char>(c) > 0; })) {
    *out = read;
    return absl::OkStatus();
  }
  GRAPNEL_RETURN_IF_ERROR(WithContext(CheckUtf8(read), name));
  const size_t nul = read.find('\0');
  if (nul != absl::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": byte ", nul, " is a NUL"));
  }
  *out = read;
  return absl::OkStatus();
}

absl::Status ReadName(const char* text, size_t size, absl::string_view name,
                      std::string* out) {
  absl::string_view read;
  GRAPNEL_RETURN_IF_ERROR(ReadText(text, size, name, &read));
  if (read.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": must not be empty"));
  }
  out->assign(read.data(), read.size());
  return absl::OkStatus();
}

absl::Status ReadBytes(const void* data, size_t size, absl::string_view name,
                       absl::string_view* out) {
  if (size > static_cast<size_t>(PTRDIFF_MAX)) return TooLarge(name, size);
  if (size == 0) {
    *out = absl::string_view();
    return absl::OkStatus();
  }
  GRAPNEL_RETURN_IF_ERROR(NotNull(data, name));
  *out = absl::string_view(static_cast<const char*>(data), size);
  return absl::OkStatus();
}

absl::Status AssignBytes(absl::string_view from, absl::string_view name,
                         grapnel_bytes* bytes) {
  GRAPNEL_RETURN_IF_ERROR(NotNull(bytes, name));
  auto* const data = static_cast<char*>(std::malloc(from.size() + 1));
  if (data == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat(name, ": no memory for ", from.size(), " bytes"));
  }
  if (!from.empty()) std::memcpy(data, from.data(), from.size());
  data[from.size()] = '\0';
  grapnel_bytes_clear(bytes);  // Only now: `from` may lie in it.
  bytes->data = data;
  bytes->size = from.size();
  return absl::OkStatus();
}

absl::Status AssignLines(const std::vector<std::string>& lines,
                         absl::string_view name, grapnel_bytes* bytes) {
  std::string text = absl::StrJoin(lines, "\n");
  if (!lines.empty()) text += '\n';
  return AssignBytes(text, name, bytes);
}

absl::Status CopyCallbacks(const void* callbacks, size_t size, size_t least,
                           absl::string_view name, void* out) {
  GRAPNEL_RETURN_IF_ERROR(NotNull(callbacks, name));
  size_t given = 0;
  std::memcpy(&given, callbacks, sizeof(given));
  if (given < least) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": struct_size: is ", given, ", must be at least ",
                     least, ", the struct's size"));
  }
  std::memset(out, 0, size);
  std::memcpy(out, callbacks, std::min(given, size));
  return absl::OkStatus();
}

}  // namespace grapnel::capi

using grapnel::capi::Counted;
using grapnel::capi::Guard;

grapnel_status* grapnel_status_create(grapnel_code code, const char* message,
                                      size_t message_size) {
  if (code == GRAPNEL_OK) return nullptr;
  try {
    auto status = std::make_unique<grapnel_status>();
    const bool known = code > GRAPNEL_OK && code <= GRAPNEL_UNAUTHENTICATED;
    status->code = known ? code : GRAPNEL_UNKNOWN;
    if (message_size > grapnel::capi::kMaxTextBytes) {
      status->message =
          absl::StrCat("a message of ", message_size, " bytes is too long");
    } else if (message != nullptr) {
      status->message = grapnel::EscapeToUtf8({message, message_size});
    }
    return status.release();
  } catch (...) {
    return grapnel::capi::OutOfMemory();
  }
}

grapnel_code grapnel_status_code(const grapnel_status* status) {
  return status == nullptr ? GRAPNEL_OK : status->code;
}

const char* grapnel_status_message(const grapnel_status* status) {
  return status == nullptr ? "" : status->message.c_str();
}

void grapnel_status_destroy(grapnel_status* status) {
  if (status != grapnel::capi::OutOfMemory()) delete status;
}

grapnel_status* grapnel_bytes_assign(grapnel_bytes* bytes, const void* data,
                                     size_t size) {
  return Guard([&] {
    absl::string_view from;
    GRAPNEL_RETURN_IF_ERROR(
        grapnel::capi::ReadBytes(data, size, "data", &from));
    return grapnel::capi::AssignBytes(from, "bytes", bytes);
  });
}

void grapnel_bytes_clear(grapnel_bytes* bytes) {
  if (bytes == nullptr) return;
  std::free(bytes->data);
  *bytes = {};
}

int64_t grapnel_live_objects(void) {
  return Counted::alive.load(std::memory_order_acquire);
}
