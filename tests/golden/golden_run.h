// The run behind golden/calls.json and golden/log_lines.json, in our terms.
//
// The model has w = [1, 2], float64. Batch i, 1-based, holds the number i; its
// loss is i * ((w0 - 1) + (w1 - 2) / 2), so that the gradient is i * [1, 1/2].
// It also logs "aux", always 1. SGD with a rate of 0.01.

#ifndef GRAPNEL_TESTS_GOLDEN_GOLDEN_RUN_H_
#define GRAPNEL_TESTS_GOLDEN_GOLDEN_RUN_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/runner.h"
#include "nlohmann/json.hpp"

namespace grapnel {

// Keeps the order of the keys.
using Json = nlohmann::ordered_json;

// tests/golden/<name>.json.
Json ReadGolden(const std::string& name);

// A runner for a golden "config". `options` brings env, clock, log and hooks;
// checkpoints and logs go to /run of its env.
absl::StatusOr<std::unique_ptr<Runner>> CreateGoldenRunner(
    const Json& config, RunnerOptions options);

}  // namespace grapnel

#endif  // GRAPNEL_TESTS_GOLDEN_GOLDEN_RUN_H_
