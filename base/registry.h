// Makes objects from their configuration messages.
//
// Hooks, layers, losses, metrics, datasets, transforms, optimizers, schedulers
// and log backends are open sets: each is a registry keyed by the config's
// message type. An implementation says, at namespace scope in its .cc,
//
//   GRAPNEL_REGISTER(LossRegistry, CrossEntropyLoss);
//
// where CrossEntropyLoss::Config is its message and the static
// CrossEntropyLoss::Create(const Config&, <the registry's arguments>) returns
// absl::StatusOr<std::unique_ptr<CrossEntropyLoss>>. Its Bazel target is a
// grapnel_registered(), which keeps the linker from dropping an object file
// that nothing refers to.
//
// A config that chooses among implementations is a message with a oneof called
// `kind` and a google.protobuf.Any called `custom` in it:
//
//   message LossConfig {
//     oneof kind {
//       CrossEntropyLossConfig cross_entropy = 1;
//       google.protobuf.Any custom = 15;
//     }
//   }

#ifndef GRAPNEL_BASE_REGISTRY_H_
#define GRAPNEL_BASE_REGISTRY_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace google {
namespace protobuf {
class Descriptor;
class Message;
}  // namespace protobuf
}  // namespace google

namespace grapnel {
namespace internal_registry {

// One per registered implementation, in static storage. Its constructor only
// links it into a list: at static-initialization time it's too early for logs
// and for protobuf's descriptor pool, and an error would have nowhere to go.
struct Entry {
  using Descriptor = const google::protobuf::Descriptor* (*)();

  Entry(const Entry** head, Descriptor descriptor, const char* file, int line)
      : descriptor(descriptor), file(file), line(line), next(*head) {
    *head = this;
  }

  const Descriptor descriptor;
  const char* const file;
  const int line;
  const Entry* const next;
};

// So that the message's full type isn't needed here.
struct DeleteMessage {
  void operator()(google::protobuf::Message* message) const;
};
using MessagePtr = std::unique_ptr<google::protobuf::Message, DeleteMessage>;

// The message to look up for `config`: the one set in its oneof `kind`, the one
// packed in it if it is an Any, or `config` itself. Points into `config` or to
// `*storage`.
absl::StatusOr<const google::protobuf::Message*> ResolveConfig(
    const google::protobuf::Message& config, MessagePtr* storage);

absl::StatusOr<const Entry*> FindEntry(const Entry* head,
                                       absl::string_view what,
                                       const google::protobuf::Message& config);

std::vector<std::string> EntryNames(const Entry* head);

}  // namespace internal_registry

// What is registered makes a `Traits::Product`, std::unique_ptr<Loss> for
// example, from a config message and `Args`. `Traits::kWhat` is what errors
// call it: "loss".
//
// Registration happens before main; everything else is safe to use from many
// threads.
template <typename Traits, typename... Args>
class Registry {
 public:
  using Result = absl::StatusOr<typename Traits::Product>;

  // Makes the implementation for `config`: its own config message, an Any that
  // holds one, or a message with a oneof `kind`.
  //   kInvalidArgument: nothing of that type is linked in, and the message
  //     lists what is; `kind` is unset, the bytes don't parse, or the
  //     implementation refuses the config.
  //   kAlreadyExists: two linked implementations claim the message type.
  static Result Create(const google::protobuf::Message& config, Args... args) {
    internal_registry::MessagePtr storage;
    absl::StatusOr<const google::protobuf::Message*> resolved =
        internal_registry::ResolveConfig(config, &storage);
    if (!resolved.ok()) return std::move(resolved).status();
    absl::StatusOr<const internal_registry::Entry*> entry =
        internal_registry::FindEntry(head_, Traits::kWhat, **resolved);
    if (!entry.ok()) return std::move(entry).status();
    return static_cast<const Entry*>(*entry)->create(
        **resolved, std::forward<Args>(args)...);
  }

  // Full names of the config messages of all linked implementations, sorted.
  static std::vector<std::string> ConfigNames() {
    return internal_registry::EntryNames(head_);
  }

  // For GRAPNEL_REGISTER.
  struct Entry : internal_registry::Entry {
    using CreateFunction = Result (*)(const google::protobuf::Message&,
                                      Args...);
    Entry(Descriptor descriptor, CreateFunction create, const char* file,
          int line)
        : internal_registry::Entry(&head_, descriptor, file, line),
          create(create) {}
    const CreateFunction create;
  };

  template <typename T>
  static Result CreateAs(const google::protobuf::Message& config,
                         Args... args) {
    return T::Create(static_cast<const typename T::Config&>(config),
                     std::forward<Args>(args)...);
  }

 private:
  // Constant-initialized, so before any Entry.
  inline static const internal_registry::Entry* head_ = nullptr;
};

}  // namespace grapnel

// `R` is a Registry<...>, `T` the implementation's unqualified class name.
#define GRAPNEL_REGISTER(R, T)                      \
  static const R::Entry grapnel_registry_entry_##T( \
      &T::Config::descriptor, &R::CreateAs<T>, __FILE__, __LINE__)

#endif  // GRAPNEL_BASE_REGISTRY_H_
