// A file of the IDX format: images, or labels if it has one dimension. The
// other file is made to fit.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/log.h"
#include "grapnel/data/data.pb.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/sample.h"
#include "grapnel/tests/fuzz/bytes_env.h"
#include "grapnel/tests/fuzz/fuzz_target.h"

namespace grapnel {
namespace {

constexpr size_t kMaxSamples = 1 << 12;

// `n` samples of one byte, of a file with `rank` dimensions.
std::string OneByteEach(uint32_t n, int rank) {
  std::string bytes = {0, 0, 8, static_cast<char>(rank)};
  for (int shift = 24; shift >= 0; shift -= 8) {
    bytes += static_cast<char>(n >> shift);
  }
  for (int i = 1; i < rank; ++i) bytes += std::string("\0\0\0\1", 4);
  for (size_t i = 0; i < std::min<size_t>(n, kMaxSamples); ++i) {
    bytes += static_cast<char>(i);
  }
  return bytes;
}

// Every sample is there, alone and in a batch.
void CheckSamples(const Dataset& dataset, bool is_labels) {
  std::vector<int64_t> indices(std::min<int64_t>(dataset.size(), kMaxSamples));
  std::iota(indices.begin(), indices.end(), 0);
  int64_t numel = 0;
  double sum = 0;
  for (const int64_t index : indices) {
    Sample sample;
    const absl::Status status = dataset.Get(index, &sample);
    GRAPNEL_CHECK(status.ok()) << status;
    GRAPNEL_CHECK(sample.input.dim() == 3 && sample.target.dim() == 0);
    numel += sample.input.numel();
    sum += *sample.input.const_data_ptr<float>();
    GRAPNEL_CHECK(*sample.target.const_data_ptr<int64_t>() <= 255);
  }
  GRAPNEL_CHECK(sum >= 0);
  Batch batch;
  GRAPNEL_CHECK(dataset.GetBatch(indices, &batch));
  GRAPNEL_CHECK(batch.inputs.numel() == numel);
  GRAPNEL_CHECK(!is_labels || numel == static_cast<int64_t>(indices.size()));
}

}  // namespace
}  // namespace grapnel

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace grapnel;
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  const bool is_labels = size > 3 && data[3] == 1;
  uint32_t n = 0;
  for (size_t i = 4; i < std::min<size_t>(size, 8); ++i) n = n << 8 | data[i];
  const std::string other = OneByteEach(n, is_labels ? 3 : 1);
  BytesEnv env({{is_labels ? "/labels" : "/images", bytes},
                {is_labels ? "/images" : "/labels", other}});

  data::v1::DatasetConfig config;
  config.mutable_idx()->set_images("images");
  config.mutable_idx()->set_labels("labels");
  DatasetOptions options;
  options.base_dir = "/";
  options.env = &env;
  const auto dataset = DatasetRegistry::Create(config, options);
  NoteOutcome(dataset.status());
  if (dataset.ok()) CheckSamples(**dataset, is_labels);
  return 0;
}
