#include "grapnel/tools/verify_resume/likely_owner.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <set>
#include <utility>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/data.pb.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/sample_rng.h"
#include "grapnel/data/transform.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "grapnel/runner/default_generator.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/run_checkpoint.h"
#include "grapnel/runner/run_state.pb.h"
#include "grapnel/runner/runner_config.pb.h"

namespace grapnel {
namespace {

using Source = RunDifference::Source;
using OwnPart = RunParticulars::OwnPart;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;

bool IsOfGrapnel(absl::string_view type) {
  return absl::StartsWith(type, "grapnel.");
}

std::string TypeOf(const google::protobuf::Any& any) {
  const std::string& url = any.type_url();
  return url.substr(url.rfind('/') + 1);
}

// In every Any that the message has, though not inside of one.
void FindOwnParts(const Message& message, const std::string& place,
                  std::vector<OwnPart>* parts) {
  if (message.GetDescriptor() == google::protobuf::Any::descriptor()) {
    google::protobuf::Any any;
    any.CopyFrom(message);
    const std::string type = TypeOf(any);
    if (!IsOfGrapnel(type)) {
      parts->push_back(
          {std::string(absl::StripSuffix(place, ".custom")), type});
    }
    return;
  }
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE ||
        field->is_map()) {
      continue;
    }
    const std::string at =
        absl::StrCat(place, place.empty() ? "" : ".", field->name());
    if (!field->is_repeated()) {
      FindOwnParts(message.GetReflection()->GetMessage(message, field), at,
                   parts);
      continue;
    }
    const int size = message.GetReflection()->FieldSize(message, field);
    for (int i = 0; i < size; ++i) {
      FindOwnParts(
          message.GetReflection()->GetRepeatedMessage(message, field, i),
          absl::StrCat(at, ".", i), parts);
    }
  }
}

bool IsAtOrBelow(absl::string_view part, absl::string_view place) {
  return absl::ConsumePrefix(&part, place) &&
         (part.empty() || part.front() == '.');
}

// "a", "a or b": those at these places, or below.
std::string OwnPartsAt(const RunParticulars& run,
                       const std::vector<std::string>& places) {
  std::vector<std::string> found;
  for (const OwnPart& part : run.own_parts) {
    for (const std::string& place : places) {
      if (!IsAtOrBelow(part.place, place)) continue;
      found.push_back(absl::StrCat(part.place, " (", part.type, ")"));
      break;
    }
  }
  return absl::StrJoin(found, " or ");
}

constexpr char kNobody[] =
    "none of the run's parts that could be named: please report it, with the "
    "configuration";

bool IsBy(const std::optional<int64_t>& drawn, int64_t iter) {
  return drawn.has_value() && *drawn <= iter;
}

// Anywhere in the run.
bool DrawsBy(const RunParticulars& run, int64_t iter) {
  const RunParticulars::Draws& draws = run.draws;
  return IsBy(draws.loading, iter) || IsBy(draws.in_step, iter) ||
         IsBy(draws.before_val, iter) || IsBy(draws.val_loading, iter) ||
         IsBy(draws.evaluating, iter);
}

// What is wrong with a part: "which" it does, or has. `unsaved`: if it has
// something that no checkpoint holds.
std::string Trouble(const RunParticulars& run, bool draws,
                    const std::string& unsaved) {
  if (draws) {
    return "draws from LibTorch's default generator, which no seed fixes and "
           "no checkpoint holds";
  }
  if (!run.deterministic) {
    return "has random numbers that no seed fixes, or goes by the clock or by "
           "the order of threads";
  }
  return unsaved;
}

// `else_owner`: if no hook can be it.
std::string AHook(const RunParticulars& run, bool draws,
                  const std::string& else_owner) {
  const std::vector<std::string>& without = run.hooks_without_state;
  if (without.empty() && !else_owner.empty()) return else_owner;
  std::vector<std::string> hooks = without;
  // Whether it saves something is no matter of these.
  if (without.empty() || !run.deterministic) {
    hooks.insert(hooks.end(), run.hooks_with_state.begin(),
                 run.hooks_with_state.end());
  }
  if (hooks.empty()) return kNobody;
  const std::string names = absl::StrCat("hook ", absl::StrJoin(hooks, " or "));
  if (!run.deterministic) {
    return absl::StrCat(names, ", which ", Trouble(run, draws, ""));
  }
  return absl::StrCat(
      names,
      without.empty() ? ", whose saved state may lack something"
                      : ", which saves no state",
      draws ? ", or which draws from LibTorch's default generator" : "");
}

// Hooks may set the sampler's epoch, and the order depends on the size of the
// dataset.
std::string SamplesOwner(const RunParticulars& run, bool draws,
                         const std::string& loader) {
  const std::string dataset = OwnPartsAt(run, {loader + ".dataset"});
  if (dataset.empty()) {
    return AHook(run, draws, loader + ": the order of its samples");
  }
  const std::string resized =
      absl::StrCat(dataset, ", if its size isn't always the same");
  return run.hooks_without_state.empty()
             ? absl::StrCat(resized, ", else ", loader,
                            ": the order of its samples")
             : absl::StrCat(AHook(run, draws, ""), "; or ", resized);
}

std::string DataOwner(const RunParticulars& run, const std::string& loader,
                      bool in_val, int64_t iter) {
  const std::string dataset = loader + ".dataset";
  const std::string transforms = OwnPartsAt(run, {loader + ".transforms"});
  bool draws = IsBy(in_val ? run.draws.val_loading : run.draws.loading, iter);
  const auto varying =
      std::find_if(run.varying_parts.begin(), run.varying_parts.end(),
                   [&](const RunParticulars::VaryingPart& part) {
                     return IsAtOrBelow(part.place, loader);
                   });
  std::string who;
  if (varying != run.varying_parts.end()) {
    draws = varying->draws_from_default_generator;
    const std::string own = OwnPartsAt(run, {varying->place});
    who = absl::StrCat(own.empty() ? varying->place : own, ", which ",
                       varying->place == dataset ? "reads" : "changes",
                       " a sample otherwise each time: it ");
  } else if (!transforms.empty()) {
    who = absl::StrCat(transforms, ", which ");
  } else {
    who = OwnPartsAt(run, {dataset});
    absl::StrAppend(&who,
                    who.empty() ? loader + ": its dataset or a transform" : "",
                    ", which ");
  }
  return absl::StrCat(who,
                      Trouble(run, draws,
                              "has a generator or a counter of its own, and no "
                              "checkpoint holds that"));
}

bool SameBits(const at::Tensor& a, const at::Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  const at::Tensor x = a.contiguous(), y = b.contiguous();
  return x.sizes() == y.sizes() && x.scalar_type() == y.scalar_type() &&
         memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0;
}

bool SameBits(const Sample& a, const Sample& b) {
  if (!SameBits(a.input, b.input) || !SameBits(a.target, b.target) ||
      a.extras.size() != b.extras.size()) {
    return false;
  }
  for (size_t i = 0; i < a.extras.size(); ++i) {
    if (a.extras[i].name != b.extras[i].name ||
        !SameBits(a.extras[i].tensor, b.extras[i].tensor)) {
      return false;
    }
  }
  return true;
}

// Its storage may be one that the next sample is read into.
Sample CopyOf(const Sample& sample) {
  Sample copy = sample;
  copy.input = copy.input.clone();
  if (copy.target.defined()) copy.target = copy.target.clone();
  for (NamedTensor& extra : copy.extras) {
    if (extra.tensor.defined()) extra.tensor = extra.tensor.clone();
  }
  return copy;
}

// Has the part at `place` make `*sample`, several times.
template <typename Make>
absl::Status FindOutIfItVaries(const std::string& place, Make make,
                               Sample* sample, RunParticulars* run) {
  GRAPNEL_ASSIGN_OR_RETURN(const at::Tensor before, DefaultGeneratorState());
  Sample first;
  GRAPNEL_RETURN_IF_ERROR(make(&first));
  *sample = CopyOf(first);
  bool varies = false;
  for (int i = 0; i < 3; ++i) {
    Sample again;
    GRAPNEL_RETURN_IF_ERROR(make(&again));
    varies |= !SameBits(*sample, again);
  }
  GRAPNEL_ASSIGN_OR_RETURN(const at::Tensor after, DefaultGeneratorState());
  if (varies) run->varying_parts.push_back({place, !SameBits(before, after)});
  return absl::OkStatus();
}

// Those of the loader at `place`, as far as they can be made and give samples
// here.
void FindVaryingParts(const data::v1::DataLoaderConfig& loader,
                      const std::string& place, const std::string& base_dir,
                      RunParticulars* run) {
  if (OwnPartsAt(*run, {place}).empty()) return;
  DatasetOptions options;
  options.base_dir = base_dir;
  options.env = &io::Env::Posix();
  CatchAsStatus([&]() -> absl::Status {
    GRAPNEL_ASSIGN_OR_RETURN(
        const std::unique_ptr<Dataset> dataset,
        DatasetRegistry::Create(loader.dataset(), options));
    Sample sample;
    GRAPNEL_RETURN_IF_ERROR(FindOutIfItVaries(
        place + ".dataset", [&](Sample* made) { return dataset->Get(0, made); },
        &sample, run));
    for (int i = 0; i < loader.transforms_size(); ++i) {
      GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<Transform> transform,
                               TransformRegistry::Create(loader.transforms(i)));
      const Sample before = sample;
      GRAPNEL_RETURN_IF_ERROR(FindOutIfItVaries(
          absl::StrCat(place, ".transforms.", i),
          [&](Sample* made) {
            SampleRng rng(/*seed=*/0, /*epoch=*/0, /*index=*/0);
            *made = before;
            return transform->Apply(rng, made);
          },
          &sample, run));
    }
    return absl::OkStatus();
  }).IgnoreError();
}

// Notes that the generator moved between the event before `event` and this one.
void NoteDraw(const TraceEvent& event, bool train_workers, bool val_workers,
              RunParticulars::Draws* draws) {
  const auto note = [](int64_t iter, std::optional<int64_t>* first) {
    if (!first->has_value()) *first = iter;
  };
  const bool in_val = event.kind == trace::kValBatch ||
                      event.kind == trace::kValStep ||
                      event.kind == trace::kAfterVal;
  // Workers load at any time, and of a batch of theirs it may be seen too late.
  if (train_workers) {
    note(std::max<int64_t>(1, event.iter - 1), &draws->loading);
  }
  if (val_workers && in_val) note(event.iter, &draws->val_loading);
  if (event.kind == trace::kBeforeIter) {
    note(event.iter, &draws->loading);
  } else if (event.kind == trace::kAfterIter) {
    note(event.iter, &draws->in_step);
  } else if (event.kind == trace::kBeforeVal) {
    note(event.iter, &draws->before_val);
  } else if (event.kind == trace::kValBatch) {
    note(event.iter, &draws->val_loading);
  } else if (in_val) {
    note(event.iter, &draws->evaluating);
  }
}

RunParticulars::Draws DrawsOf(const std::vector<TraceEvent>& trace,
                              const runner::v1::RunnerConfig& config) {
  RunParticulars::Draws draws;
  const std::string* last = nullptr;
  for (const TraceEvent& event : trace) {
    for (const auto& [name, state] : event.fields) {
      if (name != trace_field::kDefaultGenerator) continue;
      if (last != nullptr && *last != state) {
        NoteDraw(event, config.train_dataloader().num_workers() > 0,
                 config.val_dataloader().num_workers() > 0, &draws);
      }
      last = &state;
    }
  }
  return draws;
}

std::string ModelOwner(const RunParticulars& run, bool draws) {
  const std::string own = OwnPartsAt(run, {"model"});
  return absl::StrCat(own.empty() ? "the model" : own, ", which ",
                      Trouble(run, draws,
                              "has something that is neither a parameter nor "
                              "a registered buffer"));
}

// Of a validation whose weights and batches are the same.
std::string MetricOwner(const RunParticulars& run, int64_t iter) {
  const bool draws = IsBy(run.draws.evaluating, iter);
  const std::string own = OwnPartsAt(run, {"val_evaluator"});
  if (!own.empty()) {
    return absl::StrCat(
        own, ", which ",
        Trouble(run, draws, "keeps something from one validation to the next"));
  }
  const std::string model = ModelOwner(run, draws);
  // A model of Grapnel's own parts is the same in each validation.
  return OwnPartsAt(run, {"model"}).empty()
             ? AHook(run, DrawsBy(run, iter), model)
             : model;
}

constexpr char kOptimizerStartsOver[] =
    "default_hooks.checkpoint, with save_optimizer: false: a resumed run "
    "starts the optimizer over";

// A hook, or the user's own parts at these places.
std::string AHookOr(const RunParticulars& run, bool draws,
                    const std::vector<std::string>& places) {
  const std::string own = OwnPartsAt(run, places);
  return AHook(run, draws,
               own.empty() ? ""
                           : absl::StrCat(own, ", which ",
                                          Trouble(run, draws,
                                                  "has a state that isn't all "
                                                  "saved")));
}

std::string OptimizerOwner(const RunParticulars& run, bool draws) {
  if (run.deterministic && !run.saves_optimizer) return kOptimizerStartsOver;
  return AHookOr(run, draws, {"optim_wrapper"});
}

std::string OptionsOwner(const RunParticulars& run, bool draws) {
  if (run.deterministic && !run.saves_optimizer) return kOptimizerStartsOver;
  if (run.deterministic && !run.saves_schedulers) {
    return "default_hooks.checkpoint, with save_param_scheduler: false: a "
           "resumed run starts the schedulers over";
  }
  return AHookOr(run, draws, {"param_scheduler", "optim_wrapper"});
}

std::string TraceOwner(const std::vector<RunDifference>& differences,
                       const RunParticulars& run) {
  const RunDifference& first = differences[0];
  // All that differs at that event.
  std::set<std::string> fields;
  bool logged = false, metric = false, option = false;
  for (const RunDifference& difference : differences) {
    if (difference.source != Source::kTrace || difference.kind != first.kind ||
        difference.iter != first.iter) {
      continue;
    }
    fields.insert(difference.field);
    logged |= absl::StartsWith(difference.field, trace_field::kLog);
    metric |= absl::StartsWith(difference.field, trace_field::kMetric);
    option |= absl::StartsWith(difference.field, trace_field::kOption);
  }
  const auto differs = [&](const char* field) {
    return fields.count(field) > 0;
  };
  const bool in_val =
      first.kind == trace::kValBatch || first.kind == trace::kAfterVal;
  const std::string loader = in_val ? "val_dataloader" : "train_dataloader";
  const bool draws = DrawsBy(run, first.iter);
  if (differs("")) {
    if (first.kind == trace::kValBatch &&
        !OwnPartsAt(run, {loader + ".dataset"}).empty()) {
      return SamplesOwner(run, draws, loader);
    }
    // With the optimizer, accumulation begins anew.
    return first.kind == trace::kStep ? OptimizerOwner(run, draws)
                                      : AHook(run, draws, "");
  }
  if (differs(trace_field::kIndices)) {
    return SamplesOwner(run, draws, loader);
  }
  if (differs(trace_field::kBatch)) {
    return DataOwner(run, loader, in_val, first.iter);
  }
  const std::string model =
      ModelOwner(run, IsBy(run.draws.in_step, first.iter));
  if (logged) return model;
  if (option || differs(trace_field::kOptions)) {
    return OptionsOwner(run, draws);
  }
  if (first.kind == trace::kStep && differs(trace_field::kWeights)) {
    return OptimizerOwner(run, draws);
  }
  if (metric) return MetricOwner(run, first.iter);
  if (differs(trace_field::kWeights)) return AHook(run, draws, "");
  if (differs(trace_field::kBuffers)) return model;
  if (differs(trace_field::kGenerator)) return AHook(run, draws, model);
  return kNobody;
}

std::string CheckpointOwner(const RunDifference& first,
                            const RunParticulars& run) {
  const bool draws = DrawsBy(run, first.iter);
  if (first.kind == "hooks") {
    return absl::StrCat("hook \"", first.field.substr(0, first.field.find('/')),
                        "\", whose saved state isn't what it goes on with");
  }
  if (first.kind == "optimizer" || first.kind == "optim_wrapper" ||
      first.kind == "gradients") {
    return OptimizerOwner(run, draws);
  }
  if (first.kind == "param_schedulers") return OptionsOwner(run, draws);
  if (absl::StartsWith(first.kind, "ema")) {
    return absl::StrCat("hook \"", first.kind, "\", or how it averages");
  }
  return AHook(run, draws, "");
}

}  // namespace

absl::StatusOr<RunParticulars> ParticularsOf(
    const runner::v1::RunnerConfig& config, const std::string& base_dir,
    const io::CheckpointContents& checkpoint,
    const std::vector<TraceEvent>& trace) {
  RunParticulars run;
  runner::v1::RunnerConfig parts = config;
  parts.clear_custom_hooks();
  FindOwnParts(parts, "", &run.own_parts);
  FindVaryingParts(config.train_dataloader(), "train_dataloader", base_dir,
                   &run);
  FindVaryingParts(config.val_dataloader(), "val_dataloader", base_dir, &run);
  const auto& saves = config.default_hooks().checkpoint();
  run.saves_optimizer = !saves.has_save_optimizer() || saves.save_optimizer();
  run.saves_schedulers =
      !saves.has_save_param_scheduler() || saves.save_param_scheduler();

  GRAPNEL_ASSIGN_OR_RETURN(const runner::v1::RunState state,
                           ReadRunState(checkpoint));
  const TensorMap* const tensors = checkpoint.FindSection("hooks");
  for (int i = 0; i < config.custom_hooks_size(); ++i) {
    const google::protobuf::Any& any = config.custom_hooks(i).config();
    if (IsOfGrapnel(TypeOf(any))) continue;
    GRAPNEL_ASSIGN_OR_RETURN(const ScheduledHook scheduled, CreateHook(any));
    const std::string name(scheduled.hook->name());
    bool saves_something = checkpoint.FindSection(name) != nullptr;
    for (const runner::v1::HookState& hook : state.hooks()) {
      saves_something |=
          hook.name() == name && (hook.has_state() || !hook.bytes().empty());
    }
    if (tensors != nullptr) {
      for (const NamedTensor& tensor : *tensors) {
        saves_something |= absl::StartsWith(tensor.name, name + "/");
      }
    }
    (saves_something ? run.hooks_with_state : run.hooks_without_state)
        .push_back(absl::StrCat("\"", name, "\" (custom_hooks.", i, ")"));
  }

  run.draws = DrawsOf(trace, config);
  return run;
}

std::string LikelyOwner(const std::vector<RunDifference>& differences,
                        const RunParticulars& run) {
  const RunDifference& first = differences[0];
  switch (first.source) {
    case Source::kTrace:
      return TraceOwner(differences, run);
    case Source::kRecord:
      return AHook(run, DrawsBy(run, first.iter), "");
    case Source::kCheckpoint:
      return CheckpointOwner(first, run);
  }
  return kNobody;
}

}  // namespace grapnel
