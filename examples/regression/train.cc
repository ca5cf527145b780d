// Learns a quantile of what a CSV file tells.
//
//   train [WORK_DIR [FIELD=VALUE ...]]
//
// Prints the line that it found, and which part of the rows that it was not
// trained with are below.

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/base/log.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/examples/regression/coverage_metric.h"
#include "grapnel/examples/regression/csv.h"
#include "grapnel/io/env.h"
#include "grapnel/models/metric.h"
#include "grapnel/models/model.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"

namespace examples {
namespace {

constexpr char kConfig[] = "examples/regression/deliveries.textproto";
constexpr char kData[] = "examples/regression/deliveries.csv";
constexpr int64_t kValidationRows = 500;

// The last column is what is to be learned from the others.
absl::StatusOr<std::unique_ptr<grapnel::TensorDataset>> Rows(
    const CsvTable& table, int64_t begin, int64_t end) {
  const at::Tensor rows = table.values.slice(0, begin, end);
  const int64_t last = rows.size(1) - 1;
  return grapnel::TensorDataset::Create(rows.slice(1, 0, last),
                                        rows.slice(1, last));
}

absl::Status Train(const std::string& work_dir,
                   const std::vector<std::string>& overrides) {
  grapnel::io::Env& env = grapnel::io::Env::Posix();
  GRAPNEL_ASSIGN_OR_RETURN(grapnel::runner::v1::RunnerConfig config,
                           grapnel::LoadRunnerConfig(env, kConfig));
  config.set_work_dir(work_dir);
  for (const std::string& assignment : overrides) {
    GRAPNEL_RETURN_IF_ERROR(
        grapnel::ApplyOverride(assignment, /*path_base=*/"", &config));
  }

  GRAPNEL_ASSIGN_OR_RETURN(const std::string text,
                           grapnel::io::ReadFile(env, kData));
  GRAPNEL_ASSIGN_OR_RETURN(const CsvTable table, ParseCsv(text, kData));
  const int64_t rows = table.values.size(0);
  const int64_t train_rows = rows - kValidationRows;

  grapnel::RunnerOptions options;
  options.config_name = grapnel::ConfigName(kConfig);
  options.terminal_fd = STDERR_FILENO;
  GRAPNEL_ASSIGN_OR_RETURN(options.train_dataset, Rows(table, 0, train_rows));
  GRAPNEL_ASSIGN_OR_RETURN(options.val_dataset, Rows(table, train_rows, rows));
  options.val_metrics.push_back(std::make_unique<CoverageMetric>());
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<grapnel::Runner> runner,
                           grapnel::Runner::Create(config, std::move(options)));
  GRAPNEL_RETURN_IF_ERROR(runner->Train());

  for (const grapnel::NamedTensor& parameter :
       runner->context().model().parameters()) {
    std::cout << parameter.name << " " << parameter.tensor.item().toDouble()
              << std::endl;
  }
  GRAPNEL_ASSIGN_OR_RETURN(const grapnel::Metrics metrics, runner->Val());
  std::cout << "coverage "
            << std::get<double>(*grapnel::FindMetric(metrics, "coverage"))
            << std::endl;
  return absl::OkStatus();
}

}  // namespace
}  // namespace examples

int main(int argc, char** argv) {
  grapnel::InitLogging(argv[0]);
  // `bazel run` starts us among the files of this example.
  const char* const user_dir = getenv("BUILD_WORKING_DIRECTORY");
  const std::string work_dir =
      grapnel::io::JoinPath(user_dir == nullptr ? "" : user_dir,
                            argc > 1 ? argv[1] : "work_dirs/deliveries");
  const absl::Status status = examples::Train(
      work_dir,
      std::vector<std::string>(argv + (argc > 2 ? 2 : argc), argv + argc));
  if (status.ok()) return 0;
  std::cerr << status.message() << std::endl;
  return 1;
}
