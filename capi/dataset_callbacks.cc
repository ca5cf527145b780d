#include "grapnel/capi/dataset_callbacks.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/log.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/capi/guard.h"
#include "grapnel/capi/library_thread.h"
#include "grapnel/data/dense_tensor.h"
#include "grapnel/data/tensor_dataset.h"

namespace grapnel::capi {
namespace {

constexpr char kInput[] = "input";
constexpr char kTarget[] = "target";

// Where "input", "target" and the others belong, in a sample or a batch.
struct Places {
  at::Tensor* input;
  at::Tensor* target;
  std::vector<NamedTensor>* extras;
};

// Puts what a callback gave where it belongs. check(tensor): what is wrong with
// one.
template <typename Check>
absl::Status Place(grapnel_tensors& given, const Places& places,
                   Check&& check) {
  at::Tensor input, target;
  std::vector<NamedTensor> extras;
  for (size_t i = 0; i < given.size; ++i) {
    const std::string& name = given.slots[i].name;
    at::Tensor& tensor = given.slots[i].handle.tensor;
    absl::Status status = CheckPlain(tensor);
    if (status.ok()) status = check(tensor);
    if (!status.ok()) return WithContext(status, name);
    if (name == kInput) {
      input = std::move(tensor);
    } else if (name == kTarget) {
      target = std::move(tensor);
    } else {
      extras.push_back({name, std::move(tensor)});
    }
  }
  if (!input.defined()) {
    return absl::InvalidArgumentError(
        given.size == 0 ? "gave no tensors" : "gave no tensor \"input\"");
  }
  *places.input = std::move(input);
  *places.target = std::move(target);
  *places.extras = std::move(extras);
  return absl::OkStatus();
}

class CallbackDataset final : public Dataset {
 public:
  CallbackDataset(const grapnel_dataset_callbacks& callbacks, void* user_data)
      : callbacks_(callbacks, user_data) {}

  LentData* lent() { return callbacks_.lent(); }

  int64_t size() const override { return callbacks_->size; }

  absl::Status Get(int64_t index, Sample* sample) const override {
    const CallbackScope scope;
    if (callbacks_->get == nullptr) {
      return GetAsBatch(index,
                        {&sample->input, &sample->target, &sample->extras});
    }
    const absl::Status status = CatchAsStatus([&]() -> absl::Status {
      grapnel_tensors given;
      GRAPNEL_RETURN_IF_ERROR(Call(
          [&] { return callbacks_->get(callbacks_.data(), index, &given); }));
      return ReadSample(given, sample);
    });
    return WithContext(status, "get");
  }

  bool GetBatch(absl::Span<const int64_t> indices,
                Batch* batch) const override {
    if (callbacks_->get_batch == nullptr) return false;
    const CallbackScope scope;
    const absl::Status status =
        GetMany(indices, {&batch->inputs, &batch->targets, &batch->extras});
    if (status.ok()) return true;
    // Samples are got one by one then: slower, and nobody would know why.
    if (!warned_.exchange(true)) {
      GRAPNEL_LOG(WARNING) << "dataset: " << status.message()
                           << ": samples are got one by one instead";
    }
    return false;
  }

 private:
  // What a callback says, called when no other one is being called, unless they
  // may be.
  template <typename F>
  absl::Status Call(F&& callback) const {
    if (callbacks_->thread_safe != 0) return FromC(callback());
    const std::lock_guard<std::mutex> lock(mutex_);
    return FromC(callback());
  }

  absl::Status GetMany(absl::Span<const int64_t> indices,
                       const Places& places) const {
    return WithContext(CatchAsStatus([&]() -> absl::Status {
                         const Given given(this);
                         if (callbacks_->thread_safe != 0) {
                           return GetMany(indices, places, given.get());
                         }
                         const std::lock_guard<std::mutex> lock(mutex_);
                         return GetMany(indices, places, given.get());
                       }),
                       "get_batch");
  }

  absl::Status GetMany(absl::Span<const int64_t> indices, const Places& places,
                       grapnel_tensors* given) const {
    GRAPNEL_RETURN_IF_ERROR(FromC(callbacks_->get_batch(
        callbacks_.data(), indices.data(), indices.size(), given)));
    const auto count = static_cast<int64_t>(indices.size());
    return Place(*given, places, [&](const at::Tensor& tensor) {
      return tensor.dim() >= 1 && tensor.size(0) == count
                 ? absl::OkStatus()
                 : absl::InvalidArgumentError(absl::StrCat(
                       "must be (", count, ", ...), is ", Describe(tensor)));
    });
  }

  absl::Status GetAsBatch(int64_t index, const Places& places) const {
    GRAPNEL_RETURN_IF_ERROR(GetMany(absl::MakeConstSpan(&index, 1), places));
    return CatchAsStatus([&] {
      *places.input = places.input->select(0, 0);
      if (places.target->defined()) {
        *places.target = places.target->select(0, 0);
      }
      for (NamedTensor& extra : *places.extras) {
        extra.tensor = extra.tensor.select(0, 0);
      }
      return absl::OkStatus();
    });
  }

  // What a call of get_batch fills, and the next one again: for its slots, and
  // the memory of batches that are used up.
  class Given {
   public:
    explicit Given(const CallbackDataset* dataset) : dataset_(dataset) {
      const std::lock_guard<std::mutex> lock(dataset_->given_mutex_);
      if (dataset_->given_.empty()) {
        tensors_ = std::make_unique<grapnel_tensors>();
        tensors_->reuses = true;
      } else {
        tensors_ = std::move(dataset_->given_.back());
        dataset_->given_.pop_back();
      }
    }
    Given(const Given&) = delete;
    Given& operator=(const Given&) = delete;
    ~Given() {
      tensors_->Clear();
      const std::lock_guard<std::mutex> lock(dataset_->given_mutex_);
      dataset_->given_.push_back(std::move(tensors_));
    }

    grapnel_tensors* get() const { return tensors_.get(); }

   private:
    const CallbackDataset* const dataset_;
    std::unique_ptr<grapnel_tensors> tensors_;
  };

  Callbacks<grapnel_dataset_callbacks> callbacks_;
  // std::mutex rather than absl::Mutex, which the thread sanitizer can't see
  // into where Abseil is the system's.
  mutable std::mutex mutex_;  // Held while a callback is called, as it may be.
  mutable std::mutex given_mutex_;
  // As many as were filled at once; empty.
  mutable std::vector<std::unique_ptr<grapnel_tensors>> given_;
  mutable std::atomic<bool> warned_{false};
};

// TensorDatasets beside each other: inputs and targets, and one for each extra,
// which has it as inputs.
class RowsDataset final : public Dataset {
 public:
  struct Extra {
    std::string name;
    std::unique_ptr<TensorDataset> rows;
  };

  RowsDataset(std::unique_ptr<TensorDataset> rows, std::vector<Extra> extras)
      : rows_(std::move(rows)), extras_(std::move(extras)) {}

  int64_t size() const override { return rows_->size(); }

  absl::Status Get(int64_t index, Sample* sample) const override {
    GRAPNEL_RETURN_IF_ERROR(rows_->Get(index, sample));
    for (const Extra& extra : extras_) {
      Sample one;
      GRAPNEL_RETURN_IF_ERROR(extra.rows->Get(index, &one));
      sample->extras.push_back({extra.name, std::move(one.input)});
    }
    return absl::OkStatus();
  }

  bool GetBatch(absl::Span<const int64_t> indices,
                Batch* batch) const override {
    Batch whole;
    if (!rows_->GetBatch(indices, &whole)) return false;
    for (const Extra& extra : extras_) {
      Batch one;
      if (!extra.rows->GetBatch(indices, &one)) return false;
      whole.extras.push_back({extra.name, std::move(one.inputs)});
    }
    batch->inputs = std::move(whole.inputs);
    batch->targets = std::move(whole.targets);
    batch->extras = std::move(whole.extras);
    return true;
  }

 private:
  const std::unique_ptr<TensorDataset> rows_;
  const std::vector<Extra> extras_;
};

// `first` is one that has passed, or the same.
absl::Status CheckRows(const at::Tensor& tensor, const at::Tensor& first) {
  GRAPNEL_RETURN_IF_ERROR(CheckPlain(tensor));
  if (tensor.dim() < 1 || tensor.size(0) < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("must have at least one row, is ", Describe(tensor)));
  }
  if (tensor.size(0) != first.size(0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("must have as many rows as the first, ", first.size(0),
                     ", is ", Describe(tensor)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Made<std::unique_ptr<Dataset>>> MakeDataset(
    const grapnel_dataset_callbacks* callbacks, void* user_data) {
  GRAPNEL_ASSIGN_OR_RETURN(
      const grapnel_dataset_callbacks known,
      Callbacks<grapnel_dataset_callbacks>::Read(callbacks, "callbacks"));
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(known.size >= 1, "callbacks: size", ">= 1", known.size));
  if (known.get_batch == nullptr) {
    GRAPNEL_RETURN_IF_ERROR(MustBeSet(known.get, "callbacks: get"));
  }
  auto dataset = std::make_unique<CallbackDataset>(known, user_data);
  LentData* const lent = dataset->lent();
  return Made<std::unique_ptr<Dataset>>{std::move(dataset), lent};
}

absl::Status ReadSample(grapnel_tensors& given, Sample* sample) {
  return Place(given, {&sample->input, &sample->target, &sample->extras},
               [](const at::Tensor&) { return absl::OkStatus(); });
}

absl::StatusOr<std::unique_ptr<Dataset>> MakeDataset(
    const grapnel_tensors& tensors) {
  at::Tensor input, target;
  std::vector<RowsDataset::Extra> extras;
  for (size_t i = 0; i < tensors.size; ++i) {
    const std::string& name = tensors.slots[i].name;
    const at::Tensor& tensor = tensors.slots[i].handle.tensor;
    const absl::Status status =
        CheckRows(tensor, tensors.slots[0].handle.tensor);
    if (!status.ok()) {
      return WithContext(status, absl::StrCat("tensors: \"", name, "\""));
    }
    if (name == kInput) {
      input = tensor;
    } else if (name == kTarget) {
      target = tensor;
    } else {
      GRAPNEL_ASSIGN_OR_RETURN(auto rows,
                               TensorDataset::Create(tensor, at::Tensor()));
      extras.push_back({name, std::move(rows)});
    }
  }
  if (!input.defined()) {
    return absl::InvalidArgumentError("tensors: there is no \"input\"");
  }
  GRAPNEL_ASSIGN_OR_RETURN(auto rows, TensorDataset::Create(input, target));
  return std::make_unique<RowsDataset>(std::move(rows), std::move(extras));
}

}  // namespace grapnel::capi
