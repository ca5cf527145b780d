// Writes what tensorboard_read_test.py and wandb_sync_test.py expect.
//
//   logger_tool DIR CONFIG   the records below, through the log backends of
//                            CONFIG, a VisualizerConfig in text format, into
//                            the log folder DIR
//
// Row i of 3000, from 1: training's "loss" is 1 / i and "iter" is i, at step i.
// After every 1000 rows of training one of validation: "acc" is the number of
// such rows, at that step. Then NaN and the infinities. A second passes between
// two rows, from 2023-11-14 22:13:20 UTC on.

#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/env.h"
#include "grapnel/loggers/log_backend.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/loggers/record_writer.h"
#include "grapnel/loggers/visualizer.pb.h"

namespace grapnel {
namespace {

// With a text longer than two blocks of a .wandb file.
std::string ConfigText() {
  return absl::StrCat(
      "work_dir: \"*runs*\"\n"
      "train_cfg { max_epochs: 3 }\n"
      "optim_wrapper { optimizer { sgd { lr: 0.1 } } }\n"
      "param_scheduler { linear { end: 5 } }\n"
      "param_scheduler { cosine_annealing { t_max: 19 } }\n"
      "experiment_name: \"",
      std::string(70000, 'x'), "\"\n");
}

// The same, as the runner gives it to those who want JSON.
std::vector<std::pair<std::string, std::string>> ConfigFields() {
  return {
      {"work_dir", R"("*runs*")"},
      {"train_cfg", R"({"max_epochs": 3})"},
      {"optim_wrapper", R"({"optimizer": {"sgd": {"lr": 0.1}}})"},
      {"param_scheduler",
       R"([{"linear": {"end": 5}}, {"cosine_annealing": {"t_max": 19}}])"},
      {"experiment_name", absl::StrCat("\"", std::string(70000, 'x'), "\"")}};
}

absl::Status Write(const std::string& dir, const std::string& config_text) {
  loggers::v1::VisualizerConfig config;
  if (!google::protobuf::TextFormat::ParseFromString(config_text, &config)) {
    return absl::InvalidArgumentError("config: no VisualizerConfig");
  }
  FakeClock clock;
  clock.wall = absl::FromUnixSeconds(1700000000);
  LogBackendOptions options;
  options.log_dir = dir;
  options.timestamp = "20231114_221320";
  options.experiment_name = "interop";
  options.config_fields = ConfigFields();
  options.env = &io::Env::Posix();
  options.clock = &clock;
  MemoryRunLog log;
  GRAPNEL_ASSIGN_OR_RETURN(
      std::unique_ptr<RecordWriter> writer,
      RecordWriter::Create(config, options, ConfigText(), log));
  const auto write = [&](const Record& record) {
    writer->Write(record);
    clock.wall += absl::Seconds(1);
  };
  for (int64_t i = 1; i <= 3000; ++i) {
    write({Record::Kind::kTrain,
           {{"loss", 1.0 / static_cast<double>(i)}, {"iter", i}},
           i});
    if (i % 1000 != 0) continue;
    write({Record::Kind::kVal,
           {{"val/acc", static_cast<double>(i / 1000)}},
           i / 1000});
  }
  write({Record::Kind::kTrain,
         {{"nan", std::nan("")}, {"up", INFINITY}, {"down", -INFINITY}},
         3001});
  writer->Close();
  if (!log.messages().empty()) return absl::UnknownError(log.messages()[0]);
  return absl::OkStatus();
}

}  // namespace
}  // namespace grapnel

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: logger_tool DIR CONFIG\n");
    return 2;
  }
  const absl::Status status = grapnel::Write(argv[1], argv[2]);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}
