// The examples in the comments of headers, each a test that it compiles and
// returns OK. BUILD lists the headers, tools/docs/header_examples.py makes the
// tests. An example may use what is included here.

#include <unistd.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/data/data.pb.h"
#include "grapnel/data/data_loader.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/compare_tensors.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mean_weights.h"
#include "grapnel/io/pth.h"
#include "grapnel/io/pth_writer.h"
#include "grapnel/io/retention.h"
#include "grapnel/io/run_checkpoints.h"
#include "grapnel/io/safetensors.h"
#include "grapnel/io/verify_checkpoint.h"
#include "grapnel/io/weights.h"
#include "grapnel/loggers/log_backend.h"
#include "grapnel/loggers/visualizer.pb.h"
#include "grapnel/models/load_tensors.h"
#include "grapnel/models/metric.h"
#include "grapnel/models/metric.pb.h"
#include "grapnel/models/metric_value.h"
#include "grapnel/models/model.h"
#include "grapnel/models/nn_tensors.h"
#include "grapnel/optim/averaging/averaged_model.h"
#include "grapnel/optim/averaging/averaging_strategies.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/optim/optimizer.pb.h"
#include "grapnel/optim/optimizers/torch_optimizer.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "grapnel/runner/default_generator.h"
#include "grapnel/runner/history_buffer.h"
#include "grapnel/runner/loop_checkpoint.h"
#include "grapnel/runner/message_hub.h"
#include "gtest/gtest.h"
#include "torch/nn.h"
#include "torch/optim.h"
#include "torch/types.h"

namespace grapnel {
namespace {

// Examples write where a program is started: each in a folder of its own.
class HeaderExamplesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string dir = io::JoinPath(
        ::testing::TempDir(),
        ::testing::UnitTest::GetInstance()->current_test_info()->name());
    ASSERT_THAT(io::Env::Posix().CreateDir(dir), IsOk());
    ASSERT_EQ(::chdir(dir.c_str()), 0);
  }
};

#include "tests/header_examples/examples.inc"

}  // namespace
}  // namespace grapnel
