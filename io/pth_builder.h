// Files of torch.save, good and bad, byte by byte: for tests.

#ifndef GRAPNEL_IO_PTH_BUILDER_H_
#define GRAPNEL_IO_PTH_BUILDER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace grapnel {
namespace io {

// A record of a ZIP file. What is set goes into the file in place of what is
// right.
struct ZipEntry {
  std::string name;
  std::string data;
  std::optional<std::string> local_name = {};
  std::optional<uint32_t> crc32 = {};
  std::optional<uint32_t> num_bytes = {};      // In the directory.
  std::optional<uint32_t> header_offset = {};  // In the directory.
  uint16_t method = 0;
  uint16_t flags = 0x0808;  // As torch.save's.
  std::optional<uint16_t> local_method = {};
  std::optional<uint16_t> local_flags = {};
};

struct ZipLayout {
  std::optional<uint64_t> count;
  std::optional<uint32_t> directory_offset;
  bool zip64 = false;  // Sizes and offsets of 64 bits, as torch.save's, or not.
  std::string comment;
};

std::string BuildZip(const std::vector<ZipEntry>& entries,
                     const ZipLayout& layout = {});

// "a/data.pkl" and what torch.save puts beside it, then "a/data/0" and so on.
std::vector<ZipEntry> PthEntries(absl::string_view pickle,
                                 const std::vector<std::string>& storages = {});
std::string BuildPth(absl::string_view pickle,
                     const std::vector<std::string>& storages = {});

// The form of before torch 1.6; storages with their numbers of elements.
struct LegacyStorage {
  std::string key;
  int64_t count;
  std::string data;
};
std::string BuildLegacyPth(absl::string_view pickle,
                           const std::vector<LegacyStorage>& storages = {});

// Parts of a pickle. None has the opcodes in front and behind: see Pickle.
namespace pickled {

std::string Pickle(absl::string_view value);  // PROTO, `value`, STOP.
std::string Int(int64_t value);
std::string Float(double value);
std::string Text(absl::string_view text);
std::string Bytes(absl::string_view latin1);  // Its text, in UTF-8.
std::string Global(absl::string_view module, absl::string_view name);
std::string Tuple(const std::vector<std::string>& items);
std::string List(const std::vector<std::string>& items);
std::string Dict(const std::vector<std::string>& keys_and_values);
std::string Call(absl::string_view callable,
                 const std::vector<std::string>& arguments);
std::string OrderedDict(const std::vector<std::string>& keys_and_values);

// A storage by its persistent id.
std::string Storage(absl::string_view type, absl::string_view key,
                    int64_t count, absl::string_view device = "cpu");

// A tensor of `storage`, a persistent id.
std::string TensorOf(absl::string_view storage, int64_t offset,
                     const std::vector<int64_t>& sizes,
                     const std::vector<int64_t>& strides);
std::string TensorOf(absl::string_view storage, absl::string_view dtype,
                     int64_t offset, const std::vector<int64_t>& sizes,
                     const std::vector<int64_t>& strides);

}  // namespace pickled
}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_PTH_BUILDER_H_
