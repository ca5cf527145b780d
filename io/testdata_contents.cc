#include "grapnel/io/testdata_contents.h"

#include <utility>

#include "grapnel/base/log.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/io/checkpoint_manifest.pb.h"

namespace grapnel {
namespace io {
namespace {

void Add(TensorMap& map, const char* name, at::Tensor tensor) {
  GRAPNEL_CHECK(map.Add(name, std::move(tensor)).ok()) << name;
}

}  // namespace

CheckpointContents TestdataV1() {
  CheckpointContents contents;
  v1::CheckpointManifest& manifest = contents.manifest();
  manifest.set_run_uuid("run uuid 16 byte");
  manifest.set_parent_uuid("parent uuid 16 b");
  manifest.set_created_unix_nanos(1'700'000'000'000'000'000);
  manifest.set_producer("grapnel 0.1.0");
  manifest.set_libtorch_version("2.11.0");
  manifest.set_cpu_capability("AVX2");
  manifest.set_num_threads(2);
  v1::Progress& progress = *manifest.mutable_progress();
  progress.set_epoch(2);
  progress.set_iter(20);
  progress.set_updates(10);
  progress.set_samples(640);
  progress.set_max_epochs(3);
  progress.set_validation_pending(true);
  manifest.set_config("max_epochs: 3\n");
  (*manifest.mutable_metrics())["accuracy"] = 0.5;

  TensorMap model;
  Add(model, "fc.weight", ops::arange(6, at::kFloat).view({2, 3}).div(8));
  Add(model, "fc.bias", ops::arange(2, at::kFloat));
  Add(model, "bn.num_batches_tracked", ops::ones({}, at::kLong).mul(7));
  Add(model, "mask", ops::arange(4, at::kLong).remainder(2).to(at::kBool));
  Add(model, "half", ops::arange(3, at::kFloat).to(at::kBFloat16));
  Add(model, "empty", ops::empty({0, 3}, at::TensorOptions(at::kDouble)));
  TensorMap optimizer;
  Add(optimizer, "fc.weight/exp_avg", ops::arange(6, at::kFloat).view({2, 3}));
  contents.sections.emplace_back("model", std::move(model));
  contents.sections.emplace_back("optimizer", std::move(optimizer));
  contents.blobs.emplace_back("state", std::string("\0state\xff", 7));
  return contents;
}

}  // namespace io
}  // namespace grapnel
