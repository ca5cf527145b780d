// Samples by position.
//
// To add a dataset: derive from Dataset, give it a config message, a static
// Create(const Config&, const DatasetOptions&), and GRAPNEL_REGISTER it with
// DatasetRegistry in a grapnel_registered() target. data/idx_dataset.cc is the
// file to imitate.

#ifndef GRAPNEL_DATA_DATASET_H_
#define GRAPNEL_DATA_DATASET_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "grapnel/base/registry.h"
#include "grapnel/data/sample.h"
#include "grapnel/io/env.h"

namespace grapnel {

// Safe to use from many threads: loader workers call Get at once.
class Dataset {
 public:
  virtual ~Dataset() = default;

  // Number of samples. Constant, >= 1.
  virtual int64_t size() const = 0;

  // Sets `*sample` to sample `index`, 0 <= index < size(). The tensors may
  // share the dataset's storage: transforms and collation do not write to
  // them in place.
  virtual absl::Status Get(int64_t index, Sample* sample) const = 0;

  // Sets all of `*batch` but its `indices` to these samples, stacked: the same
  // as Get one by one, only faster. False, with `*batch` as it was, if the
  // dataset can't do that or something is wrong; the caller then goes by Get,
  // whose error names the sample. Used where there are no transforms.
  virtual bool GetBatch(absl::Span<const int64_t> indices, Batch* batch) const {
    return false;
  }

  // Names of the classes, by label; empty if there are none or they are not
  // known.
  virtual std::vector<std::string> class_names() const { return {}; }

  // What a user should know about it, a line each, for the run's log: what was
  // left out. Constant.
  virtual std::vector<std::string> warnings() const { return {}; }
};

struct DatasetOptions {
  // Where relative paths start: the folder of the config file. "" is the
  // process's own.
  std::string base_dir;

  io::Env* env = nullptr;  // Outlives the dataset. Never null.
};

struct DatasetTraits {
  using Product = std::unique_ptr<Dataset>;
  static constexpr char kWhat[] = "dataset";
};
using DatasetRegistry = Registry<DatasetTraits, const DatasetOptions&>;

}  // namespace grapnel

#endif  // GRAPNEL_DATA_DATASET_H_
