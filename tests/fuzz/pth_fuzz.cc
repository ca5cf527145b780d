// A file of torch.save: ZIP, or of before torch 1.6.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "grapnel/io/crc32.h"
#include "grapnel/tests/fuzz/fuzz_target.h"
#include "grapnel/tests/fuzz/pth_values.h"

namespace grapnel {
namespace {

// What a ZIP file's directory says of a record.
struct Record {
  size_t crc_at;  // Where the directory has its CRC.
  size_t begin;   // Its bytes.
  size_t size;
};

uint32_t NumberAt(absl::string_view file, size_t at, size_t size) {
  uint32_t number = 0;
  std::memcpy(&number, file.data() + at, size);
  return number;
}

// Those that lie in the file.
std::vector<Record> FindRecords(absl::string_view file) {
  std::vector<Record> records;
  for (size_t at = 0; at = file.find("PK\x01\x02", at),
              at != absl::string_view::npos && at + 46 <= file.size();
       ++at) {
    const size_t size = NumberAt(file, at + 20, 4);
    const size_t header = NumberAt(file, at + 42, 4);
    if (header + 30 > file.size()) continue;
    const size_t begin = header + 30 + NumberAt(file, header + 26, 2) +
                         NumberAt(file, header + 28, 2);
    if (begin > file.size() || size > file.size() - begin) continue;
    records.push_back({at + 16, begin, size});
  }
  return records;
}

}  // namespace
}  // namespace grapnel

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  grapnel::NoteOutcome(
      grapnel::ReadPthAndCheck({reinterpret_cast<const char*>(data), size}));
  return 0;
}

// Of a ZIP file, mostly changes one record in its place, and makes CRCs fit.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size,
                                          size_t max_size, unsigned int seed) {
  using namespace grapnel;
  std::string file(reinterpret_cast<const char*>(data), size);
  std::vector<Record> records = FindRecords(file);
  if (records.empty() || seed % 4 == 0) {
    Mutate(max_size, &file);
    records = FindRecords(file);
  } else {
    const Record& record = records[seed / 4 % records.size()];
    std::string bytes = file.substr(record.begin, record.size);
    Mutate(2 * record.size + 1, &bytes);
    bytes.resize(record.size);
    file.replace(record.begin, record.size, bytes);
  }
  for (const Record& record : records) {
    if (seed % 64 == 1) break;
    const uint32_t crc =
        io::Crc32(absl::string_view(file).substr(record.begin, record.size));
    std::memcpy(&file[record.crc_at], &crc, sizeof(crc));
  }
  std::copy(file.begin(), file.end(), data);
  return file.size();
}
