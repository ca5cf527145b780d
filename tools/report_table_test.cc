#include "grapnel/tools/report_table.h"

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

TEST(ReportTableTest, HasWhatTheRehearsalSaw) {
  RehearsalReport report;
  report.parameters = {{"0.weight", "(100, 64)", "Float", 6400, true},
                       {"frozen", "(3,)", "Half", 3, false}};
  report.buffers = {{"1.running_mean", "(100,)", "Float", 100, false}};
  RehearsalReport::Part train;
  train.name = "train_dataloader";
  train.samples = 1437;
  train.num_batches = 45;
  train.inputs = {"", "(32, 64)", "Float", 2048, false};
  train.targets = {"", "(32,)", "Long", 32, false};
  train.iterations = 20;
  train.iteration = absl::Microseconds(2500);
  train.waited = absl::Nanoseconds(12300);
  RehearsalReport::Part val = train;
  val.name = "val_dataloader";
  val.outputs = {"", "(32, 10)", "Float", 320, false};
  val.iterations = 1;
  val.iteration = absl::Milliseconds(1500);
  report.parts = {train, val};
  report.losses = {{"loss", 2.302585}};
  report.weight_bytes = 26006;
  report.gradient_bytes = 999;
  report.optimizer_bytes = 51200000;
  report.peak_resident_bytes = 999960000;
  report.max_epochs = 20;
  report.max_iters = 900;
  EXPECT_EQ(ReportTable(report),
            "parameter  shape      numbers  type\n"
            "0.weight   (100, 64)  6,400    Float\n"
            "frozen     (3,)       3        Half\n"
            "in all                6,403    6,400 trained\n"
            "\n"
            "buffer          shape   numbers  type\n"
            "1.running_mean  (100,)  100      Float\n"
            "in all                  100\n"
            "\n"
            "data              samples  batches  inputs          targets     "
            "outputs         an iteration  of it waiting\n"
            "train_dataloader  1,437    45       (32, 64) Float  (32,) Long  "
            "-               2.5 ms        12.3 us\n"
            "val_dataloader    1,437    45       (32, 64) Float  (32,) Long  "
            "(32, 10) Float  1.5 s         -\n"
            "\n"
            "first iteration  value\n"
            "loss             2.30259\n"
            "\n"
            "memory            bytes\n"
            "weights           26.0 kB\n"
            "gradients         999 B\n"
            "optimizer         51.2 MB\n"
            "process, at most  1.0 GB\n"
            "\n"
            "run: 20 epochs, 900 iterations, about 2.2 s without validation\n");
}

TEST(ReportTableTest, ARunThatOnlyEvaluates) {
  RehearsalReport report;
  RehearsalReport::Part test;
  test.name = "test_dataloader";
  test.samples = 1000000;
  test.num_batches = 1;
  report.parts = {test};
  report.weight_bytes = 8;
  report.peak_resident_bytes = 1000;
  EXPECT_EQ(ReportTable(report),
            "data             samples    batches  inputs  targets  outputs  an "
            "iteration  of it waiting\n"
            "test_dataloader  1,000,000  1        -       -        -        -  "
            "           -\n"
            "\n"
            "memory            bytes\n"
            "weights           8 B\n"
            "process, at most  1.0 kB\n"
            "\n");
}

}  // namespace
}  // namespace grapnel
