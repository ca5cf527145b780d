// The grapnel command as a process.

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/io/env.h"
#include "grapnel/io/safetensors.h"
#include "grapnel/io/weights.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/config_paths.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::google::protobuf::util::MessageDifferencer;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

constexpr int kTimeoutSeconds = 60;

std::string ReadOrEmpty(const std::string& path) {
  return io::ReadFile(io::Env::Posix(), path).value_or("");
}

void Write(const std::string& path, absl::string_view content) {
  ASSERT_THAT(io::WriteFileAtomically(io::Env::Posix(), path, content), IsOk());
}

// A running `grapnel`. Its output goes to files: a pipe nobody reads would stop
// it.
class Process {
 public:
  // Starts in `dir`. Without `streams` it has no standard streams at all.
  Process(const std::string& dir, const std::vector<std::string>& args,
          bool streams = true)
      : out_(dir + "/.stdout"), err_(dir + "/.stderr") {
    std::vector<std::string> all = {absl::StrCat(getenv("TEST_SRCDIR"), "/",
                                                 getenv("TEST_WORKSPACE"),
                                                 "/tools/grapnel")};
    all.insert(all.end(), args.begin(), args.end());
    std::vector<char*> argv;
    for (std::string& arg : all) argv.push_back(arg.data());
    argv.push_back(nullptr);
    // Of a process before, which nobody is to take for this one's.
    unlink(out_.c_str());
    unlink(err_.c_str());
    pid_ = fork();
    if (pid_ != 0) return;
    unsetenv("BUILD_WORKING_DIRECTORY");
    if (chdir(dir.c_str()) != 0) _exit(97);
    Redirect("/dev/null", O_RDONLY, STDIN_FILENO);
    Redirect(out_, O_WRONLY | O_CREAT | O_TRUNC, STDOUT_FILENO);
    Redirect(err_, O_WRONLY | O_CREAT | O_TRUNC, STDERR_FILENO);
    for (int fd = 0; !streams && fd <= STDERR_FILENO; ++fd) close(fd);
    execv(argv[0], argv.data());
    _exit(98);
  }

  ~Process() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }

  void Signal(int signal) { kill(pid_, signal); }

  // Waits until `text` was written to stderr.
  bool WaitForStderr(absl::string_view text) {
    for (int i = 0; i < kTimeoutSeconds * 100; ++i) {
      if (absl::StrContains(err(), text)) return true;
      absl::SleepFor(absl::Milliseconds(10));
    }
    return false;
  }

  // Its exit code; 1000 and the signal that killed it; -1 if it doesn't end.
  int Wait() {
    for (int i = 0; i < kTimeoutSeconds * 100; ++i) {
      int status = 0;
      if (waitpid(pid_, &status, WNOHANG) == pid_) {
        pid_ = -1;
        return WIFEXITED(status) ? WEXITSTATUS(status)
                                 : 1000 + WTERMSIG(status);
      }
      absl::SleepFor(absl::Milliseconds(10));
    }
    return -1;
  }

  std::string out() const { return ReadOrEmpty(out_); }
  std::string err() const { return ReadOrEmpty(err_); }

 private:
  static void Redirect(const std::string& path, int flags, int fd) {
    const int file = open(path.c_str(), flags, 0644);
    if (file < 0 || dup2(file, fd) < 0) _exit(99);
    close(file);
  }

  const std::string out_;
  const std::string err_;
  pid_t pid_ = -1;
};

// 16 images of 2x2 pixels in two classes that a linear layer separates.
std::string Images() {
  std::string bytes("\0\0\x8\x3\0\0\0\x10\0\0\0\x2\0\0\0\x2", 16);
  for (int i = 0; i < 16; ++i) {
    bytes += i % 2 == 0 ? std::string("\xff\xf0\0\x4", 4)
                        : std::string("\0\x3\xff\xf8", 4);
  }
  return bytes;
}

std::string Labels() {
  std::string bytes("\0\0\x8\x1\0\0\0\x10", 8);
  for (int i = 0; i < 16; ++i) bytes.push_back(static_cast<char>(i % 2));
  return bytes;
}

constexpr char kConfig[] = R"(
model { sequential {
  layers { flatten {} }
  layers { linear { out_features: 2 } }
  loss { cross_entropy {} }
} }
train_dataloader {
  batch_size: 4
  sampler { shuffle: true }
  dataset { idx { images: "images" labels: "labels" num_classes: 2 } }
}
val_dataloader {
  batch_size: 8
  dataset { idx { images: "images" labels: "labels" } }
}
test_dataloader {
  batch_size: 8
  dataset { idx { images: "images" labels: "labels" } }
}
train_cfg { max_epochs: 3 }
optim_wrapper { optimizer { sgd { lr: 0.5 } } }
val_evaluator { accuracy {} }
test_evaluator { accuracy {} }
default_hooks { checkpoint { interval: 1 } logger { interval: 2 } }
randomness { seed: 0 }
)";

class GrapnelTest : public testing::Test {
 protected:
  GrapnelTest()
      : dir_(absl::StrCat(
            testing::TempDir(), "/",
            testing::UnitTest::GetInstance()->current_test_info()->name())) {
    EXPECT_THAT(io::Env::Posix().CreateDir(dir_), IsOk());
    EXPECT_THAT(io::Env::Posix().CreateDir(dir_ + "/data"), IsOk());
    Write(dir_ + "/data/net.textproto", kConfig);
    Write(dir_ + "/data/images", Images());
    Write(dir_ + "/data/labels", Labels());
  }

  struct Result {
    int exit_code;
    std::string out;
    std::string err;
  };

  Result Run(const std::vector<std::string>& args) {
    Process process(dir_, args);
    const int exit_code = process.Wait();
    return {exit_code, process.out(), process.err()};
  }

  // Expects one line on stderr, nothing on stdout, and the exit code.
  void ExpectRefused(const std::vector<std::string>& args, int exit_code,
                     testing::Matcher<std::string> message) {
    const Result result = Run(args);
    EXPECT_EQ(result.exit_code, exit_code);
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.err,
                AllOf(StartsWith("grapnel: "), EndsWith("\n"), message));
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1)
        << result.err;
  }

  bool Exists(const std::string& path) {
    return io::Env::Posix().FileExists(io::JoinPath(dir_, path));
  }

  const std::string dir_;
};

TEST_F(GrapnelTest, HelpGoesToStdout) {
  const Result result = Run({"--help"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, HasSubstr("grapnel train CONFIG"));
  EXPECT_EQ(result.err, "");
}

TEST_F(GrapnelTest, VersionNamesWhatItIsMadeOf) {
  const Result result = Run({"--version"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out,
              testing::MatchesRegex("grapnel [0-9.]+ \\(LibTorch 2\\.[0-9.]+, "
                                    "protobuf 3\\.[0-9.]+, [^)]+\\)\n"));
  EXPECT_EQ(result.err, "");
}

TEST_F(GrapnelTest, TyposAreRefusedWithASuggestion) {
  ExpectRefused({"train", "data/net.textproto", "--wrok-dir=x"}, 2,
                HasSubstr("did you mean --work-dir?"));
  ExpectRefused({"trian", "data/net.textproto"}, 2,
                HasSubstr("did you mean \"train\"?"));
  Write(dir_ + "/data/typo.textproto", "work_dir: 'w'\nmodle {}\n");
  ExpectRefused({"train", "data/typo.textproto"}, 2,
                HasSubstr("data/typo.textproto:2:1: no field \"modle\" in "
                          "RunnerConfig; did you mean \"model\"?"));
  ExpectRefused({"train", "data/net.textproto", "--cfg-options",
                 "optim_wrapper.optimizer.sgd.lrr=1"},
                2, HasSubstr("did you mean \"lr\"?"));
  EXPECT_FALSE(Exists("work_dirs"));
}

TEST_F(GrapnelTest, BadInputIsRefusedAtTheStart) {
  ExpectRefused({"train", "data/none.textproto"}, 2,
                HasSubstr("data/none.textproto"));
  ExpectRefused({"train", "data"}, 2, HasSubstr("data"));
  ExpectRefused({"train", "data/net.textproto", "--cfg-options",
                 "train_dataloader.dataset.idx.images=none"},
                2, AllOf(HasSubstr("train_dataloader"), HasSubstr("none")));
  ExpectRefused({"train", "data/net.textproto", "--cfg-options",
                 "optim_wrapper.optimizer.sgd.lr=nan"},
                2, HasSubstr("lr: must be finite"));
  ExpectRefused({"test", "data/net.textproto"}, 2,
                HasSubstr("there is no checkpoint in"));
  ExpectRefused({"train", "data/net.textproto", "--load-from=none"}, 2,
                HasSubstr("load_from"));

  Write(dir_ + "/data/cut", Images().substr(0, 40));
  ExpectRefused({"train", "data/net.textproto", "--cfg-options",
                 "train_dataloader.dataset.idx.images=data/cut"},
                2, HasSubstr("data/cut"));
  EXPECT_FALSE(Exists("work_dirs"));
}

TEST_F(GrapnelTest, BadWorkDirIsRefusedAtTheStart) {
  Write(dir_ + "/file", "");
  ExpectRefused({"train", "data/net.textproto", "--work-dir=file"}, 2,
                HasSubstr("work_dir"));
  ExpectRefused({"train", "data/net.textproto", "--work-dir=file/below"}, 2,
                HasSubstr("work_dir"));
  ExpectRefused({"train", "data/net.textproto",
                 absl::StrCat("--work-dir=", std::string(300, 'x'))},
                2, HasSubstr("work_dir"));
  ExpectRefused({"train", "data/net.textproto", "--work-dir=/proc/none"}, 2,
                HasSubstr("work_dir"));
}

TEST_F(GrapnelTest, BadCheckpointHasAnExitCodeOfItsOwn) {
  ASSERT_THAT(io::Env::Posix().CreateDir(dir_ + "/epoch_1"), IsOk());
  Write(dir_ + "/epoch_1/manifest.pb", "not a manifest");
  ExpectRefused({"train", "data/net.textproto", "--load-from=epoch_1"}, 4,
                HasSubstr("epoch_1"));
}

TEST_F(GrapnelTest, ConfigPrintsWhatParsesBack) {
  const Result result =
      Run({"config", "data/net.textproto", "--seed=5", "--cfg-options",
           "train_cfg.max_epochs=7", "--work-dir", "w"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.err, "");
  absl::StatusOr<runner::v1::RunnerConfig> printed =
      ParseRunnerConfig(result.out, ConfigFormat::kText, "stdout");
  ASSERT_THAT(printed, IsOk());
  absl::StatusOr<runner::v1::RunnerConfig> expected =
      ParseRunnerConfig(kConfig, ConfigFormat::kText, "config");
  ASSERT_THAT(expected, IsOk());
  expected->mutable_randomness()->set_seed(5);
  expected->mutable_train_cfg()->set_max_epochs(7);
  expected->set_work_dir(printed->work_dir());
  // Wherever it is used.
  ASSERT_THAT(
      RebasePaths(io::Dirname(printed->work_dir()) + "/data", &*expected),
      IsOk());
  EXPECT_THAT(printed->work_dir(), AllOf(StartsWith("/"), EndsWith("/w")));
  EXPECT_TRUE(MessageDifferencer::Equals(*printed, *expected));
  EXPECT_FALSE(Exists("w"));
}

TEST_F(GrapnelTest, ConfigsAreTheSameRunFromAnywhere) {
  Write(dir_ + "/data/net.textproto", absl::StrCat("work_dir: 'w'\n", kConfig));
  ASSERT_EQ(Run({"train", "data/net.textproto"}).exit_code, 0);
  ASSERT_TRUE(Exists("data/w/epoch_3"));

  // What it left there, also when the folder has another place.
  const Result longer = Run({"train", "data/w/net.textproto", "--resume",
                             "--cfg-options", "train_cfg.max_epochs=4"});
  EXPECT_EQ(longer.exit_code, 0) << longer.err;
  EXPECT_TRUE(Exists("data/w/epoch_4"));
  EXPECT_FALSE(Exists("data/w/w"));
  ASSERT_THAT(io::Env::Posix().Rename(dir_ + "/data/w", dir_ + "/moved"),
              IsOk());
  const Result moved = Run({"train", "moved/net.textproto", "--resume",
                            "--cfg-options", "train_cfg.max_epochs=5"});
  EXPECT_EQ(moved.exit_code, 0) << moved.err;
  EXPECT_TRUE(Exists("moved/epoch_5"));
  EXPECT_FALSE(Exists("data/w"));
  EXPECT_EQ(Run({"test", "moved/net.textproto"}).exit_code, 0);
  EXPECT_THAT(ReadOrEmpty(dir_ + "/moved/net.textproto"),
              HasSubstr("work_dir: \".\""));

  const Result printed = Run({"config", "data/net.textproto"});
  Write(dir_ + "/printed.textproto", printed.out);
  const Result trained = Run({"train", "printed.textproto"});
  EXPECT_EQ(trained.exit_code, 0) << trained.err;
  EXPECT_TRUE(Exists("data/w/epoch_3"));
}

TEST_F(GrapnelTest, TextThatIsNotUtf8IsRefusedBeforeAnythingIsWritten) {
  ExpectRefused({"train", "data/net.textproto", "--work-dir", "caf\xe9"}, 2,
                HasSubstr("argument 4: not UTF-8"));
  EXPECT_FALSE(Exists("caf\xe9"));
  const std::string odd = dir_ + "/caf\xe9";
  ASSERT_THAT(io::Env::Posix().CreateDir(odd), IsOk());
  Process process(odd, {"train", "../data/net.textproto"});
  EXPECT_EQ(process.Wait(), 2);
  EXPECT_THAT(process.err(), HasSubstr("not UTF-8"));
  EXPECT_FALSE(Exists("caf\xe9/work_dirs"));
}

TEST_F(GrapnelTest, WeightsThatAreNotThereAreNotEvaluated) {
  ASSERT_EQ(Run({"train", "data/net.textproto"}).exit_code, 0);
  // One tensor of two.
  const auto all =
      io::ReadWeights(io::Env::Posix(), dir_ + "/work_dirs/net/epoch_3");
  ASSERT_THAT(all, IsOk());
  ASSERT_EQ(all->size(), 2u);
  TensorMap part;
  ASSERT_THAT(part.Add(all->begin()->name, all->begin()->tensor), IsOk());
  ASSERT_THAT(
      io::WriteSafetensors(io::Env::Posix(), dir_ + "/part.safetensors", part),
      IsOk());

  const Result refused =
      Run({"test", "data/net.textproto", "--load-from=part.safetensors"});
  EXPECT_EQ(refused.exit_code, 4);
  EXPECT_EQ(refused.out, "");
  EXPECT_THAT(refused.err, HasSubstr("missing: 1 ("));
  const Result taken = Run({"test", "data/net.textproto", "--no-strict",
                            "--load-from=part.safetensors"});
  EXPECT_EQ(taken.exit_code, 0) << taken.err;
  EXPECT_THAT(taken.out, StartsWith("{\"accuracy/top1\": "));
  EXPECT_EQ(Run({"train", "data/net.textproto", "--load-from=part.safetensors",
                 "--work-dir=w"})
                .exit_code,
            0);
  ExpectRefused({"train", "data/net.textproto", "--resume=part.safetensors",
                 "--work-dir=w2"},
                4, AllOf(HasSubstr("resume: "), HasSubstr("weights alone")));
}

TEST_F(GrapnelTest, CheckTriesTheRunAndWritesNothing) {
  const Result result = Run({"check", "data/net.textproto"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  EXPECT_THAT(
      result.out,
      AllOf(HasSubstr("1.weight   (2, 4)  8        Float\n"),
            HasSubstr("in all             10       10 trained\n"),
            HasSubstr("train_dataloader  16       4        (4, 1, 2, 2) Float"),
            HasSubstr("test_dataloader   16       2        (8, 1, 2, 2) Float"),
            HasSubstr("run: 3 epochs, 12 iterations, about ")));
  EXPECT_FALSE(Exists("work_dirs"));

  // Beside a training, of what it has come to.
  ASSERT_EQ(Run({"train", "data/net.textproto"}).exit_code, 0);
  const auto before = io::Env::Posix().ListDir(dir_ + "/work_dirs/net").value();
  EXPECT_EQ(Run({"check", "data/net.textproto", "--resume"}).exit_code, 0);
  EXPECT_EQ(io::Env::Posix().ListDir(dir_ + "/work_dirs/net").value(), before);

  // A label that the model has no output for.
  ExpectRefused({"check", "data/net.textproto", "--cfg-options",
                 "train_dataloader.dataset.idx={images:'data/images' "
                 "labels:'data/labels'}",
                 "model.sequential.layers.1.linear.out_features=1"},
                1, HasSubstr("training iteration 1"));
}

TEST_F(GrapnelTest, CheckAndConfigRefuseWhatTrainWould) {
  Write(dir_ + "/file", "");
  for (const char* const verb : {"check", "config"}) {
    const std::string config = "data/net.textproto";
    ExpectRefused(
        {verb, config, "--cfg-options", "optim_wrapper.optimizer.sgd.lr=nan"},
        2, HasSubstr("lr: must be finite"));
    ExpectRefused({verb, config, "--cfg-options",
                   "val_dataloader.dataset.idx.images=none"},
                  2, AllOf(HasSubstr("val_dataloader"), HasSubstr("none")));
    ExpectRefused({verb, config, "--load-from=none"}, 2,
                  HasSubstr("load_from"));
    ExpectRefused({verb, config, "--work-dir=file/below"}, 2,
                  HasSubstr("work_dir"));
    ExpectRefused({verb, config, "--work-dir=file"}, 2, HasSubstr("work_dir"));
    ExpectRefused(
        {verb, config, absl::StrCat("--work-dir=", std::string(300, 'x'))}, 2,
        HasSubstr("work_dir"));
  }
  EXPECT_FALSE(Exists("work_dirs"));
}

TEST_F(GrapnelTest, TrainsThenTestsTheNewestCheckpoint) {
  const Result trained = Run({"train", "data/net.textproto", "--threads=1"});
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  EXPECT_EQ(trained.out, "");
  EXPECT_THAT(trained.err,
              AllOf(HasSubstr("Epoch(train)"), HasSubstr("Epoch(val)")));
  EXPECT_TRUE(Exists("work_dirs/net/epoch_3/manifest.pb"));

  const Result tested = Run({"test", "data/net.textproto"});
  EXPECT_EQ(tested.exit_code, 0) << tested.err;
  EXPECT_THAT(tested.out,
              AllOf(StartsWith("{\"accuracy/top1\": 100.0"), EndsWith("}\n")));
  EXPECT_EQ(std::count(tested.out.begin(), tested.out.end(), '\n'), 1);
}

TEST_F(GrapnelTest, WithoutStandardStreamsNothingGoesIntoFilesInstead) {
  Process process(dir_, {"train", "data/net.textproto"}, /*streams=*/false);
  EXPECT_EQ(process.Wait(), 0);
  const std::string work_dir = dir_ + "/work_dirs/net";
  const auto names = io::Env::Posix().ListDir(work_dir);
  ASSERT_THAT(names, IsOk());
  std::string log;
  for (const std::string& name : *names) {
    const std::string in_log_dir =
        absl::StrCat(work_dir, "/", name, "/", name, ".log");
    if (io::Env::Posix().FileExists(in_log_dir)) log = ReadOrEmpty(in_log_dir);
  }
  EXPECT_THAT(log, HasSubstr("Epoch(val)"));
  for (const absl::string_view line : absl::StrSplit(log, '\n')) {
    EXPECT_THAT(std::string(line), testing::AnyOf("", StartsWith("20")))
        << "a terminal's lines have no year";
  }
}

TEST_F(GrapnelTest, ExportOfAModelWithoutAFormatSaysSo) {
  ASSERT_EQ(Run({"train", "data/net.textproto"}).exit_code, 0);
  EXPECT_EQ(Run({"export", "data/net.textproto"}).exit_code, 2);
  const Result result =
      Run({"export", "data/net.textproto", "--output", "net.pt"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("model.safetensors"));
  EXPECT_FALSE(Exists("net.pt"));
}

TEST_F(GrapnelTest, TestThatIsNotConfiguredIsRefused) {
  ASSERT_EQ(Run({"train", "data/net.textproto"}).exit_code, 0);
  const std::string config = absl::StrCat(
      std::string(kConfig).substr(0, std::string(kConfig).find("test_data")),
      "train_cfg { max_epochs: 3 }\n"
      "optim_wrapper { optimizer { sgd { lr: 0.5 } } }\n"
      "val_evaluator { accuracy {} }\n");
  Write(dir_ + "/data/net.textproto", config);
  const Result result = Run({"test", "data/net.textproto"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.err, HasSubstr("test_dataloader"));
}

TEST_F(GrapnelTest, ASecondTrainingOfAFolderIsRefusedAtOnce) {
  const std::vector<std::string> args = {
      "train",
      "data/net.textproto",
      "--work-dir=w",
      "--cfg-options",
      "train_cfg.max_epochs=1000000",
      "default_hooks.checkpoint.interval=-1"};
  Process first(dir_, args);
  ASSERT_TRUE(first.WaitForStderr("Epoch(train)")) << first.err();
  ASSERT_THAT(io::Env::Posix().CreateDir(dir_ + "/elsewhere"), IsOk());
  for (const char* resume : {"--resume=false", "--resume"}) {
    // Its output has other files than the first one's.
    Process second(dir_ + "/elsewhere", {"train", "../data/net.textproto",
                                         "--work-dir=../w", resume});
    EXPECT_EQ(second.Wait(), 2);
    EXPECT_EQ(second.out(), "");
    EXPECT_THAT(
        second.err(),
        testing::MatchesRegex(
            "grapnel: work_dir: .*/w is in use by another run: host [^ ]+, "
            "process [0-9]+, started [-0-9]+ [:0-9]+ [-+:0-9]+\n"));
  }
  first.Signal(SIGTERM);
  EXPECT_EQ(first.Wait(), 128 + SIGTERM);
  const Result again =
      Run({"train", "data/net.textproto", "--work-dir=w", "--resume",
           "--cfg-options", "train_cfg.max_epochs=1"});
  EXPECT_THAT(again.err, HasSubstr("resumed epoch: "));
}

TEST_F(GrapnelTest, WaitsForALockAsLongAsItIsTold) {
  ASSERT_THAT(io::Env::Posix().CreateDir(dir_ + "/w"), IsOk());
  auto lock = io::Env::Posix().LockFile(dir_ + "/w/.lock");
  ASSERT_THAT(lock, IsOk());
  // In a folder of its own each, where its output goes.
  const auto start = [&](const std::string& name, const std::string& wait) {
    EXPECT_THAT(io::Env::Posix().CreateDir(io::JoinPath(dir_, name)), IsOk());
    return std::make_unique<Process>(
        io::JoinPath(dir_, name),
        std::vector<std::string>{"train", "../data/net.textproto",
                                 "--work-dir=../w",
                                 absl::StrCat("--wait-for-lock=", wait)});
  };
  const auto refused = start("refused", "300ms");
  EXPECT_EQ(refused->Wait(), 2);
  EXPECT_THAT(refused->err(),
              AllOf(HasSubstr("waiting for its end, for up to 300ms"),
                    HasSubstr("grapnel: work_dir: ")));
  const auto stopped = start("stopped", "1h");
  ASSERT_TRUE(stopped->WaitForStderr("waiting for its end"));
  stopped->Signal(SIGTERM);
  EXPECT_EQ(stopped->Wait(), 128 + SIGTERM);
  EXPECT_THAT(stopped->err(), HasSubstr("interrupted while "));
  const auto waits = start("waits", "1h");
  ASSERT_TRUE(waits->WaitForStderr("waiting for its end"));
  lock->reset();
  EXPECT_EQ(waits->Wait(), 0) << waits->err();
  EXPECT_TRUE(Exists("w/epoch_3/manifest.pb"));
}

TEST_F(GrapnelTest, AnEvaluationNeedsNoLock) {
  ASSERT_EQ(Run({"train", "data/net.textproto", "--work-dir=w"}).exit_code, 0);
  const auto lock = io::Env::Posix().LockFile(dir_ + "/w/.lock");
  ASSERT_THAT(lock, IsOk());
  EXPECT_EQ(Run({"test", "data/net.textproto", "--work-dir=w"}).exit_code, 0);
}

TEST_F(GrapnelTest, AnOutDirOfTheCommandLineIsInTheUsersFolder) {
  const std::vector<std::string> args = {"train",
                                         "data/net.textproto",
                                         "--work-dir=w",
                                         "--cfg-options",
                                         "default_hooks.checkpoint.out_dir=ck",
                                         "default_hooks.logger.out_dir=lg"};
  const Result trained = Run(args);
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  EXPECT_TRUE(Exists("ck/w/epoch_3/manifest.pb"));
  EXPECT_TRUE(Exists("lg/w"));
  EXPECT_FALSE(Exists("data/ck"));
  EXPECT_FALSE(Exists("data/lg"));
  EXPECT_EQ(ReadOrEmpty(dir_ + "/w/last_checkpoint"), "../ck/w/epoch_3");
}

// The process below `dir`'s launcher that is rank 0; -1 if there is none.
pid_t FindRank0(const std::string& dir) {
  const auto entries = io::Env::Posix().ListDir("/proc");
  for (const std::string& name : entries.value_or(std::vector<std::string>())) {
    pid_t pid;
    if (!absl::SimpleAtoi(name, &pid)) continue;
    std::ifstream file(absl::StrCat("/proc/", name, "/environ"));
    const std::string environment{std::istreambuf_iterator<char>(file), {}};
    if (absl::StrContains(environment, std::string("\0RANK=0\0", 8)) &&
        absl::StrContains(environment, absl::StrCat("MARK=", dir))) {
      return pid;
    }
  }
  return -1;
}

class LaunchTest : public GrapnelTest {
 protected:
  LaunchTest() { setenv("MARK", dir_.c_str(), 1); }
  ~LaunchTest() override { unsetenv("MARK"); }

  // A pid of -1 would mean every process there is.
  bool KillRank0() const {
    const pid_t pid = FindRank0(dir_);
    return pid > 0 && kill(pid, SIGKILL) == 0;
  }
};

TEST_F(LaunchTest, RunsTrainAndTestAsGrapnelAlone) {
  const Result trained = Run({"launch", "--", "train", "data/net.textproto"});
  EXPECT_EQ(trained.exit_code, 0) << trained.err;
  EXPECT_TRUE(Exists("work_dirs/net/epoch_3/manifest.pb"));
  const Result tested = Run({"launch", "test", "data/net.textproto"});
  EXPECT_EQ(tested.exit_code, 0) << tested.err;
  EXPECT_THAT(tested.out,
              AllOf(StartsWith("{\"accuracy/top1\": 100.0"), EndsWith("}\n")));
  EXPECT_EQ(std::count(tested.out.begin(), tested.out.end(), '\n'), 1);
}

TEST_F(LaunchTest, RanksWithOneBatchNormTrainWhatOneProcessTrains) {
  Write(dir_ + "/data/norm.textproto",
        absl::StrReplaceAll(kConfig, {{"layers { flatten {} }",
                                       "layers { flatten {} } "
                                       "layers { batch_norm1d {} }"},
                                      {"lr: 0.5", "lr: 0.1"}}));
  const Result alone = Run({"train", "data/norm.textproto", "--work-dir=one"});
  ASSERT_EQ(alone.exit_code, 0) << alone.err;
  // With one sample each, which no batch norm could take alone.
  const Result ranks =
      Run({"launch", "--nproc-per-node=4", "--", "train", "data/norm.textproto",
           "--work-dir=four", "--cfg-options", "train_dataloader.batch_size=1",
           "distributed={sync_batch_norm:true}",
           "log_processor={reduce_logged:true}"});
  ASSERT_EQ(ranks.exit_code, 0) << ranks.err;
  const auto want = io::ReadWeights(io::Env::Posix(), dir_ + "/one/epoch_3");
  const auto weights =
      io::ReadWeights(io::Env::Posix(), dir_ + "/four/epoch_3");
  ASSERT_THAT(want, IsOk());
  ASSERT_THAT(weights, IsOk());
  EXPECT_EQ(weights->size(), 7);
  for (const NamedTensor& one : *want) {
    const at::Tensor* const tensor = weights->Find(one.name);
    ASSERT_NE(tensor, nullptr) << one.name;
    EXPECT_LE(tensor->sub(one.tensor).abs().max().item().toDouble(), 1e-6)
        << one.name;
  }
}

TEST_F(LaunchTest, SaysOnceWhatIsWrongWithACommand) {
  ExpectRefused({"launch", "--nproc-per-node=2", "--", "train", "none.pb"}, 2,
                HasSubstr("none.pb"));
  ExpectRefused({"launch", "--nproc-per-node=2", "--", "train",
                 "data/net.textproto", "--sede=1"},
                2, HasSubstr("did you mean --seed?"));
  ExpectRefused({"launch", "--nproc-per-nod=2", "--", "train", "none.pb"}, 2,
                HasSubstr("did you mean --nproc-per-node?"));
  ExpectRefused({"launch", "--nproc-per-node=2", "--", "./mine", "arg"}, 2,
                HasSubstr("launched by --program ./mine -- ARG ..."));
  ExpectRefused({"launch", "--", "config", "data/net.textproto"}, 2,
                HasSubstr("for train and test, and not for config"));
  ExpectRefused({"launch", "--", "test", "data/net.textproto"}, 2,
                HasSubstr("there is no checkpoint in"));
}

TEST_F(LaunchTest, ARankThatIsKilledGoesOnFromItsNewestCheckpoint) {
  // What an earlier run left in the work dir isn't gone on from.
  ASSERT_EQ(Run({"train", "data/net.textproto", "--work-dir=w"}).exit_code, 0);
  ASSERT_TRUE(Exists("w/epoch_3"));
  Write(dir_ + "/.stderr", "");  // Nobody waits for what was said before.
  Process process(
      dir_, {"launch", "--max-restarts=2", "--", "train", "data/net.textproto",
             "--work-dir=w", "--load-from=w/epoch_3", "--cfg-options",
             "train_cfg.max_epochs=1000000",
             "default_hooks.checkpoint={interval:-1}"});
  ASSERT_TRUE(process.WaitForStderr("Epoch(train)")) << process.err();
  ASSERT_TRUE(KillRank0());
  ASSERT_TRUE(process.WaitForStderr(
      "grapnel: rank 0 was killed by signal 9 (Killed); its last lines:\n"));
  ASSERT_TRUE(process.WaitForStderr("grapnel: restart 1 of 2\n"));
  EXPECT_FALSE(absl::StrContains(process.err(), "resumed epoch"));
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait(), 128 + SIGTERM);
  EXPECT_EQ(FindRank0(dir_), -1);

  Write(dir_ + "/.stderr", "");
  Process again(
      dir_, {"launch", "--max-restarts=2", "--", "train", "data/net.textproto",
             "--work-dir=w", "--load-from=w/epoch_3", "--cfg-options",
             "train_cfg.max_epochs=1000000",
             "default_hooks.checkpoint={interval:20}"});
  // The one before is complete.
  ASSERT_TRUE(again.WaitForStderr("Saving checkpoint at 40 epochs"));
  ASSERT_TRUE(KillRank0());
  ASSERT_TRUE(again.WaitForStderr(
      "grapnel: restart 1 of 2, from the newest checkpoint\n"));
  ASSERT_TRUE(again.WaitForStderr("resumed epoch: "));
  again.Signal(SIGTERM);
  EXPECT_EQ(again.Wait(), 128 + SIGTERM);
  EXPECT_EQ(FindRank0(dir_), -1);
}

class SignalTest : public GrapnelTest,
                   public testing::WithParamInterface<int> {};

TEST_P(SignalTest, SavesStopsAndCanGoOn) {
  const std::vector<std::string> args = {
      "train",
      "data/net.textproto",
      "--work-dir=w",
      "--cfg-options",
      "train_cfg.max_epochs=1000000",
      "default_hooks.checkpoint.interval=-1"};
  {
    Process process(dir_, args);
    ASSERT_TRUE(process.WaitForStderr("Epoch(train)")) << process.err();
    process.Signal(GetParam());
    EXPECT_EQ(process.Wait(), 128 + GetParam());
    EXPECT_THAT(process.err(), HasSubstr("--resume goes on\n"));
  }
  ASSERT_TRUE(Exists("w/last_checkpoint"));

  std::vector<std::string> again = args;
  again.push_back("--resume");
  Process process(dir_, again);
  ASSERT_TRUE(process.WaitForStderr("resumed epoch: ")) << process.err();
  ASSERT_TRUE(process.WaitForStderr("Epoch(train)")) << process.err();
  process.Signal(GetParam());
  EXPECT_EQ(process.Wait(), 128 + GetParam());
}

TEST_P(SignalTest, WhatCkptMakesIsMadeWholeOrNotAtAll) {
  // Of zeros that take no space, and long enough to be met while it is written.
  constexpr int64_t kBytes = 256 << 20;
  const std::string json =
      absl::StrCat("{\"w\":{\"dtype\":\"U8\",\"shape\":[", kBytes,
                   "],\"data_offsets\":[0,", kBytes, "]}}");
  ASSERT_LT(json.size(), 256);
  const std::string path = dir_ + "/m.safetensors";
  Write(path, absl::StrCat(std::string(1, static_cast<char>(json.size())),
                           std::string(7, '\0'), json));
  ASSERT_EQ(
      truncate(path.c_str(), 8 + static_cast<int64_t>(json.size()) + kBytes),
      0);
  ASSERT_THAT(io::Env::Posix().CreateDir(dir_ + "/out"), IsOk());
  const auto made = [&] {
    return io::Env::Posix().ListDir(dir_ + "/out").value();
  };
  // It may be faster than the signal, but not each time.
  for (int attempt = 0; attempt < 10; ++attempt) {
    Process process(dir_, {"ckpt", "export", "m.safetensors", "out/m.pth"});
    for (int i = 0; i < kTimeoutSeconds * 1000 && made().empty(); ++i) {
      absl::SleepFor(absl::Milliseconds(1));
    }
    process.Signal(GetParam());
    const int exit_code = process.Wait();
    if (exit_code == 0) {
      EXPECT_THAT(made(), ElementsAre("m.pth"));
      ASSERT_EQ(unlink((dir_ + "/out/m.pth").c_str()), 0);
      continue;
    }
    EXPECT_EQ(exit_code, 128 + GetParam());
    EXPECT_THAT(process.err(), HasSubstr("stopped by a signal\n"));
    EXPECT_THAT(made(), IsEmpty());
    return;
  }
  FAIL() << "the signal comes too late";
}

INSTANTIATE_TEST_SUITE_P(All, SignalTest,
                         testing::Values(SIGINT, SIGTERM, SIGHUP),
                         [](const auto& info) {
                           return info.param == SIGINT    ? "Int"
                                  : info.param == SIGTERM ? "Term"
                                                          : "Hup";
                         });

}  // namespace
}  // namespace grapnel
