// Trains a network on handwritten digits, by the C API:
//
//   train CONFIG DATA_DIR [--resume] [FIELD=VALUE ...]
//
// A line for each epoch goes to stdout. SIGINT and SIGTERM stop the training
// once it is saved; a second one ends the process.

#define _POSIX_C_SOURCE 200809L

#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "examples/c_train/digits_data.h"
#include "grapnel/grapnel.h"

// A string as the API takes it, which reads no further than told.
#define TEXT(string) (string), strlen(string)

// As of the command `grapnel`.
enum { kDone = 0, kRunFailed = 1, kBadInput = 2, kStopped = 128 };

static const char kUsage[] =
    "usage: train CONFIG DATA_DIR [--resume] [FIELD=VALUE ...]\n";
static const char kAccuracy[] = "accuracy/top1";

// Prints an error, if it is one, and destroys it.
static int failed(grapnel_status* status) {
  if (status == NULL) return 0;
  fprintf(stderr, "train: %s\n", grapnel_status_message(status));
  grapnel_status_destroy(status);
  return 1;
}

// ------------------------------------------------------------------- signals

// The signal that came; 0 if none did. A handler may do no more than set it: to
// ask a runner to stop takes locks and memory. The hook below does.
static atomic_int signal_that_came;
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "for a signal handler");

static void on_signal(int number) { atomic_store(&signal_that_came, number); }

// One that our parent has us ignore, as nohup does, stays ignored.
static void handle_signal(int number) {
  struct sigaction action;
  if (sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN) {
    return;
  }
  memset(&action, 0, sizeof(action));
  action.sa_handler = on_signal;
  // RESETHAND: the next one does what it would have done without us.
  action.sa_flags = (int)(SA_RESTART | SA_RESETHAND);
  sigemptyset(&action.sa_mask);
  sigaction(number, &action, NULL);
}

// ---------------------------------------------------------------------- hook

static grapnel_status* print_epoch(grapnel_run* run) {
  const grapnel_scalars* metrics = NULL;
  double accuracy = 0;
  double loss = 0;
  grapnel_status* status = grapnel_run_metrics(run, &metrics);
  if (status == NULL) {
    status = grapnel_scalars_find(metrics, TEXT(kAccuracy), &accuracy);
  }
  if (status == NULL) {
    status = grapnel_run_scalar(run, TEXT("train/loss"), &loss);
  }
  if (status != NULL) return status;
  printf("epoch %" PRId64 " of %" PRId64 ": loss %.4f, accuracy %.1f %%\n",
         grapnel_run_epoch(run), grapnel_run_max_epochs(run), loss, accuracy);
  fflush(stdout);
  return NULL;
}

static grapnel_status* on_stage(void* user_data, grapnel_stage stage,
                                grapnel_run* run) {
  (void)user_data;
  // The last evaluation, behind the training, is none of ours.
  if (!grapnel_run_training(run)) return NULL;
  if (stage == GRAPNEL_AFTER_VAL_EPOCH) return print_epoch(run);
  if (atomic_load(&signal_that_came) == 0) return NULL;
  return grapnel_run_request_stop(run, GRAPNEL_STOP_NOW, TEXT("a signal"));
}

static grapnel_status* add_hook(grapnel_runner_options* options) {
  const grapnel_hook_callbacks callbacks = {
      .struct_size = sizeof(callbacks),
      .stages = (uint64_t)1 << GRAPNEL_AFTER_TRAIN_ITER |
                (uint64_t)1 << GRAPNEL_AFTER_VAL_ITER |
                (uint64_t)1 << GRAPNEL_AFTER_VAL_EPOCH,
      .priority = 50,
      .on_stage = on_stage,
  };
  return grapnel_runner_options_add_hook(options, TEXT("print_and_stop"),
                                         &callbacks, NULL);
}

// ----------------------------------------------------------------------- run

static grapnel_status* set_options(grapnel_runner_options* options, int argc,
                                   char** argv) {
  grapnel_status* status =
      grapnel_runner_options_set_config_file(options, TEXT(argv[1]));
  // Its paths, work_dir, start where we are and not where the file is.
  if (status == NULL) {
    status = grapnel_runner_options_set_base_dir(options, NULL, 0);
  }
  for (int i = 3; status == NULL && i < argc; ++i) {
    const int resume = strcmp(argv[i], "--resume") == 0;
    const char* const assignment = resume ? "resume=true" : argv[i];
    status = grapnel_runner_options_override(options, TEXT(assignment));
  }
  if (status == NULL) {
    status = digits_set_data(options, GRAPNEL_TRAIN, argv[2], "train");
  }
  if (status == NULL) {
    status = digits_set_data(options, GRAPNEL_VAL, argv[2], "test");
  }
  return status != NULL ? status : add_hook(options);
}

static grapnel_status* make_runner(int argc, char** argv,
                                   grapnel_runner** runner) {
  grapnel_runner_options* options = NULL;
  grapnel_status* status = grapnel_runner_options_create(&options);
  if (status == NULL) status = set_options(options, argc, argv);
  if (status == NULL) status = grapnel_runner_create(options, runner);
  grapnel_runner_options_destroy(options);
  return status;
}

// Trains, and says what became of it.
static int train(grapnel_runner* runner) {
  grapnel_bytes reason = {NULL, 0};
  if (failed(grapnel_runner_train(runner)) ||
      failed(grapnel_runner_stop_reason(runner, &reason))) {
    return kRunFailed;
  }
  const int stopped = reason.size > 0;
  grapnel_bytes_clear(&reason);
  if (stopped) {
    fprintf(stderr, "train: stopped; --resume goes on\n");
    return kStopped + atomic_load(&signal_that_came);
  }
  grapnel_scalars* metrics = NULL;
  double accuracy = 0;
  const int good =
      !failed(grapnel_scalars_create(&metrics)) &&
      !failed(grapnel_runner_val(runner, metrics)) &&
      !failed(grapnel_scalars_find(metrics, TEXT(kAccuracy), &accuracy));
  grapnel_scalars_destroy(metrics);
  if (!good) return kRunFailed;
  printf("accuracy %.1f %%\n", accuracy);
  return kDone;
}

int main(int argc, char** argv) {
  // Under `bazel run` the paths that a user types start where the user is.
  const char* const user_dir = getenv("BUILD_WORKING_DIRECTORY");
  if (user_dir != NULL && chdir(user_dir) != 0) {
    perror(user_dir);
    return kBadInput;
  }
  if (argc < 3) {
    fputs(kUsage, stderr);
    return kBadInput;
  }
  handle_signal(SIGINT);
  handle_signal(SIGTERM);
  grapnel_runner* runner = NULL;
  const int exit_code =
      failed(make_runner(argc, argv, &runner)) ? kBadInput : train(runner);
  grapnel_runner_destroy(runner);
  if (grapnel_live_objects() != 0) {
    fputs("train: something wasn't destroyed\n", stderr);
    return kRunFailed;
  }
  return exit_code;
}
