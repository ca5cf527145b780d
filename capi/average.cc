// Averages of tensors of the caller's.

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/log.h"
#include "grapnel/capi/handles.h"
#include "grapnel/optim/averaging/averaged_model.h"
#include "grapnel/optim/averaging/averaging.pb.h"

struct grapnel_average : grapnel::capi::Counted {
  std::unique_ptr<grapnel::AveragedModel> model;  // Not null.
  // Goes first: it gives the caller's values back.
  std::optional<grapnel::AverageScope> scope;
  std::string read_only;  // A tensor that must not be written; or "".
};

namespace grapnel::capi {
namespace {

std::vector<NamedTensor> NamedTensors(const grapnel_tensors* from) {
  std::vector<NamedTensor> named;
  for (size_t i = 0; from != nullptr && i < from->size; ++i) {
    named.push_back({from->slots[i].name, from->slots[i].handle.tensor});
  }
  return named;
}

void FindReadOnly(const grapnel_tensors* tensors, std::string* name) {
  for (size_t i = 0; tensors != nullptr && i < tensors->size; ++i) {
    if (tensors->slots[i].handle.read_only) *name = tensors->slots[i].name;
  }
}

}  // namespace
}  // namespace grapnel::capi

using grapnel::AveragedModel;
using grapnel::AverageScope;
using grapnel::capi::Guard;
using grapnel::capi::NotNull;

grapnel_status* grapnel_average_create(const void* config, size_t config_size,
                                       grapnel_encoding encoding,
                                       const grapnel_tensors* parameters,
                                       const grapnel_tensors* buffers,
                                       grapnel_average** out) {
  return Guard([&] {
    absl::string_view bytes;
    GRAPNEL_RETURN_IF_ERROR(
        grapnel::capi::ReadBytes(config, config_size, "config", &bytes));
    grapnel::optim::v1::AveragedModelConfig parsed;
    GRAPNEL_RETURN_IF_ERROR(
        grapnel::capi::ParseMessage(bytes, encoding, "config", &parsed));
    GRAPNEL_RETURN_IF_ERROR(NotNull(parameters, "parameters"));
    GRAPNEL_RETURN_IF_ERROR(NotNull(out, "out"));
    auto options = grapnel::AveragingOptions::FromConfig(parsed);
    if (!options.ok()) {
      return grapnel::WithContext(options.status(), "config");
    }
    auto made = std::make_unique<grapnel_average>();
    GRAPNEL_ASSIGN_OR_RETURN(
        made->model,
        AveragedModel::Create(*std::move(options),
                              grapnel::capi::NamedTensors(parameters),
                              grapnel::capi::NamedTensors(buffers)));
    grapnel::capi::FindReadOnly(parameters, &made->read_only);
    grapnel::capi::FindReadOnly(buffers, &made->read_only);
    for (const std::string& warning : made->model->warnings()) {
      GRAPNEL_LOG(WARNING) << warning;
    }
    *out = made.release();
    return absl::OkStatus();
  });
}

void grapnel_average_destroy(grapnel_average* average) { delete average; }

grapnel_status* grapnel_average_update(grapnel_average* average) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(average, "average"));
    return average->model->Update();
  });
}

int64_t grapnel_average_steps(const grapnel_average* average) {
  return average == nullptr ? 0 : average->model->steps();
}

grapnel_status* grapnel_average_swap_in(grapnel_average* average) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(average, "average"));
    if (!average->read_only.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("average: the memory of \"", average->read_only,
                       "\" is read-only (DLPack)"));
    }
    GRAPNEL_ASSIGN_OR_RETURN(AverageScope scope,
                             AverageScope::Enter(average->model.get()));
    average->scope.emplace(std::move(scope));
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_average_swap_out(grapnel_average* average) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(average, "average"));
    if (!average->scope.has_value()) {
      return absl::FailedPreconditionError(
          "average: the caller's values are in place");
    }
    const absl::Status status = average->scope->Leave();
    average->scope.reset();
    return status;
  });
}

grapnel_status* grapnel_average_state(const grapnel_average* average,
                                      grapnel_tensors* state) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(average, "average"));
    GRAPNEL_RETURN_IF_ERROR(NotNull(state, "state"));
    GRAPNEL_ASSIGN_OR_RETURN(const grapnel::TensorMap averages,
                             average->model->State());
    return grapnel::capi::AddTensors(averages, state);
  });
}

grapnel_status* grapnel_average_load_state(grapnel_average* average,
                                           const grapnel_tensors* state,
                                           int64_t steps) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(average, "average"));
    GRAPNEL_RETURN_IF_ERROR(NotNull(state, "state"));
    if (steps < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("steps: must be >= 0, is ", steps));
    }
    grapnel::TensorMap saved;
    GRAPNEL_RETURN_IF_ERROR(grapnel::capi::ToTensorMap(*state, &saved));
    GRAPNEL_RETURN_IF_ERROR(grapnel::WithContext(
        average->model->Load(saved, /*strict=*/true, /*report=*/nullptr),
        "state"));
    average->model->set_steps(steps);
    return absl::OkStatus();
  });
}
