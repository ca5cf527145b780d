// What a run takes of the weights that it is given.

#ifndef GRAPNEL_RUNNER_LOAD_OPTIONS_H_
#define GRAPNEL_RUNNER_LOAD_OPTIONS_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/io/checkpoint.h"

namespace re2 {
class RE2;
}  // namespace re2

namespace grapnel::runner::v1 {
class LoadOptions;
}  // namespace grapnel::runner::v1

namespace grapnel {

// The rules of a LoadOptions, ready to be applied. Thread-compatible.
class LoadRules {
 public:
  LoadRules();  // Takes all as it is.
  LoadRules(LoadRules&&) noexcept;
  LoadRules& operator=(LoadRules&&) noexcept;
  ~LoadRules();

  // kInvalidArgument, naming the field, for what isn't a pattern or a
  // replacement for it.
  static absl::StatusOr<LoadRules> Create(
      const runner::v1::LoadOptions& options);

  // Leaves out and renames in section "model", and in sections with names that
  // are all the model's own, as averages have; others stay as they are. Each
  // rule that matches no name of the model's is a line in `*warnings`.
  // kInvalidArgument if two tensors get one name, or one an empty name.
  absl::Status Apply(io::CheckpointContents* contents,
                     std::vector<std::string>* warnings) const;

 private:
  struct Rename {
    std::unique_ptr<re2::RE2> pattern;
    std::string replacement;
  };

  // One section. Sets `matched` of each rule, excludes first, that matches.
  absl::StatusOr<TensorMap> ApplyTo(const TensorMap& tensors,
                                    std::vector<bool>* matched) const;

  std::vector<std::unique_ptr<re2::RE2>> exclude_;
  std::vector<Rename> rename_;
};

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_LOAD_OPTIONS_H_
