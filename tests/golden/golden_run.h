// The run behind golden/calls.json and golden/log_lines.json, in our terms.
//
// The model has w = [1, 2], float64. Batch i, 1-based, holds the number i; its
// loss is i * ((w0 - 1) + (w1 - 2) / 2), so that the gradient is i * [1, 1/2].
// It also logs "aux", always 1. SGD with the rate "lr", 0.01 if it isn't given.

#ifndef GRAPNEL_TESTS_GOLDEN_GOLDEN_RUN_H_
#define GRAPNEL_TESTS_GOLDEN_GOLDEN_RUN_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "nlohmann/json.hpp"

namespace grapnel {

// Keeps the order of the keys.
using Json = nlohmann::ordered_json;

// tests/golden/<name>.json.
Json ReadGolden(const std::string& name);

// The one of its "cases" that has that "name"; null if there is none.
Json ReadGoldenCase(const std::string& file, const std::string& name);

// A runner for a golden "config". `options` brings env, clock, log and hooks,
// and the model if it isn't the one above; checkpoints and logs go to /run of
// its env. `more` is merged into the runner's config: what golden configs don't
// say.
absl::StatusOr<std::unique_ptr<Runner>> CreateGoldenRunner(
    const Json& config, RunnerOptions options,
    const runner::v1::RunnerConfig& more = runner::v1::RunnerConfig());

}  // namespace grapnel

#endif  // GRAPNEL_TESTS_GOLDEN_GOLDEN_RUN_H_
