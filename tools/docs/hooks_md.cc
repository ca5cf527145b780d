// Prints docs/hooks.md: every hook with its options.
//
//   hooks_md SET
//
// What options mean is said once, in the comments of the hooks' protos. SET is
// a FileDescriptorSet that protoc made of those, with their comments and what
// they import. Where a hook acts and when, the hook itself says, made from the
// first `valid` config of hooks/*/testdata/conformance.textproto.

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/message.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/text_proto.h"
#include "grapnel/hooks/conformance.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/runner/default_hooks.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/stage.h"

namespace grapnel {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::DescriptorPool;
using ::google::protobuf::EnumDescriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::MessageFactory;
using ::google::protobuf::OneofDescriptor;
using ::google::protobuf::SourceLocation;

constexpr char kHead[] = R"(# Hooks

Made from the hooks' protos: `./bazelw run //tools/docs:update_hooks_md` writes it again.

A default hook is there as soon as its target is linked in, and is set in its slot of `default_hooks`, or left out with `off`,
where the hook's name is as good as the slot's. The others are named in `custom_hooks`:

    default_hooks { logger { interval: 50 } off: "timer" }
    custom_hooks { config { [hooks/EmptyCacheHook] { after_iter: true } } priority: "LOW" }

At each mount point hooks act in the order of their priorities, a smaller number first, and equals as they are listed in the config. The
loop with its mount points is drawn in [runner/stage.h](../runner/stage.h).

| hook | target | in the config | priority |
|---|---|---|---|
)";

// A hook, and its config with the comments.
struct HookToPrint {
  const Descriptor* config = nullptr;
  ScheduledHook scheduled;
  std::string folder;
  std::string slot;  // Of default_hooks; "" if it has none.
};

// The paragraphs of what is said of a declaration, above it and behind it.
template <typename D>
std::vector<std::string> Comment(const D& declared) {
  std::vector<std::string> paragraphs;
  SourceLocation location;
  if (!declared.GetSourceLocation(&location)) return paragraphs;
  const std::string text =
      absl::StrCat(location.leading_comments, location.trailing_comments);
  bool goes_on = false;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    line = absl::StripAsciiWhitespace(line);
    if (line.empty()) {
      goes_on = false;
    } else if (goes_on) {
      absl::StrAppend(&paragraphs.back(), " ", line);
    } else {
      paragraphs.emplace_back(line);
      goes_on = true;
    }
  }
  return paragraphs;
}

// What is said of a field; a comment may be for the line below, too.
std::vector<std::string> Meaning(const FieldDescriptor& field) {
  std::vector<std::string> meaning = Comment(field);
  if (const OneofDescriptor* oneof = field.real_containing_oneof()) {
    std::vector<std::string> choice = Comment(*oneof);
    choice.insert(choice.begin(),
                  absl::StrCat("One of `", oneof->name(), "`."));
    meaning.push_back(absl::StrJoin(choice, " "));
  }
  if (!meaning.empty() || field.index() == 0) return meaning;
  const FieldDescriptor& above =
      *field.containing_type()->field(field.index() - 1);
  SourceLocation here, there;
  if (field.GetSourceLocation(&here) && above.GetSourceLocation(&there) &&
      here.start_line == there.end_line + 1) {
    meaning.push_back(absl::StrCat("See `", above.name(), "`."));
  }
  return meaning;
}

std::string Escaped(absl::string_view text) {
  return absl::StrReplaceAll(text, {{"|", "\\|"}, {"<", "&lt;"}});
}

// In full if it is another file's.
template <typename D>
std::string NameFor(const FieldDescriptor& field, const D& type) {
  return type.file() == field.file() ? type.name() : type.full_name();
}

std::string TypeOf(const FieldDescriptor& field) {
  const Descriptor* const message = field.message_type();
  if (field.is_map()) {
    return absl::StrCat("map<", TypeOf(*message->map_key()), ", ",
                        TypeOf(*message->map_value()), ">");
  }
  std::string type = field.type_name();
  if (message != nullptr) type = NameFor(field, *message);
  if (field.enum_type() != nullptr) type = NameFor(field, *field.enum_type());
  return absl::StrCat(field.is_repeated() ? "repeated " : "", type);
}

void AddTable(const Descriptor& message, std::string* page) {
  absl::StrAppend(page, "| option | type | meaning |\n|---|---|---|\n");
  for (int i = 0; i < message.field_count(); ++i) {
    const FieldDescriptor& field = *message.field(i);
    std::vector<std::string> meaning;
    for (const std::string& said : Meaning(field)) {
      meaning.push_back(Escaped(said));
    }
    absl::StrAppend(page, "| `", field.name(), "` | ", Escaped(TypeOf(field)),
                    " | ", absl::StrJoin(meaning, "<br>"), " |\n");
  }
}

void AddValues(const EnumDescriptor& type, std::string* page) {
  for (int i = 0; i < type.value_count(); ++i) {
    const std::string& name = type.value(i)->name();
    if (absl::EndsWith(name, "UNSPECIFIED")) continue;
    const std::string meaning = absl::StrJoin(Comment(*type.value(i)), " ");
    absl::StrAppend(page, "* `", name, "`", meaning.empty() ? "" : ": ",
                    Escaped(meaning), "\n");
  }
}

template <typename D>
void AddTypeName(const D& type, std::string* page) {
  const std::string meaning = absl::StrJoin(Comment(type), "\n\n");
  absl::StrAppend(page, "\n`", type.name(), "`", meaning.empty() ? "" : ": ",
                  Escaped(meaning), "\n\n");
}

// What is defined inside of a message.
void AddInner(const Descriptor& message, std::string* page) {
  for (int i = 0; i < message.enum_type_count(); ++i) {
    AddTypeName(*message.enum_type(i), page);
    AddValues(*message.enum_type(i), page);
  }
  for (int i = 0; i < message.nested_type_count(); ++i) {
    const Descriptor& inner = *message.nested_type(i);
    if (inner.options().map_entry()) continue;
    AddTypeName(inner, page);
    AddTable(inner, page);
    AddInner(inner, page);
  }
}

std::string PriorityText(int priority) {
  const std::string name = PriorityName(priority);
  const std::string number = absl::StrCat(priority);
  return name == number ? number : absl::StrCat(name, " ", number);
}

// The line of the table of all hooks.
void AddRow(const HookToPrint& hook, std::string* page) {
  const absl::string_view name = hook.scheduled.hook->name();
  const std::string where =
      hook.slot.empty()
          ? absl::StrCat("`[hooks/",
                         absl::StripSuffix(hook.config->name(), "Config"), "]`")
          : absl::StrCat("slot `", hook.slot, "`");
  absl::StrAppend(page, "| [", name, "](#", name, ") | `//hooks/", hook.folder,
                  "` | ", where, " | ", PriorityText(hook.scheduled.priority),
                  " |\n");
}

void AddHook(const HookToPrint& hook, std::string* page) {
  std::vector<std::string> stages;
  for (int stage = 0; stage < kNumStages; ++stage) {
    if (hook.scheduled.stages.Has(static_cast<Stage>(stage))) {
      stages.push_back(StageName(static_cast<Stage>(stage)));
    }
  }
  absl::StrAppend(page, "\n## ", hook.scheduled.hook->name(), "\n\n",
                  Escaped(absl::StrJoin(Comment(*hook.config), "\n\n")),
                  "\n\nActs at ", absl::StrJoin(stages, ", "), ".\n");
  if (hook.config->field_count() > 0) {
    absl::StrAppend(page, "\n");
    AddTable(*hook.config, page);
  }
  AddInner(*hook.config, page);
}

// The hook in hooks/<folder>, of which `text` is the conformance.textproto.
absl::StatusOr<HookToPrint> MakeHook(const std::string& folder,
                                     const std::string& text,
                                     const DescriptorPool& commented) {
  hooks::testing::HookConformance conformance;
  GRAPNEL_RETURN_IF_ERROR(ParseTextProto(text, &conformance));
  if (conformance.valid_size() == 0) {
    return absl::InvalidArgumentError("valid: must be set");
  }
  HookToPrint made;
  made.folder = folder;
  made.config = commented.FindMessageTypeByName(conformance.config());
  const Descriptor* const linked =
      DescriptorPool::generated_pool()->FindMessageTypeByName(
          conformance.config());
  if (made.config == nullptr || linked == nullptr) {
    return absl::NotFoundError(absl::StrCat(
        conformance.config(), ": is in no proto, or isn't linked in"));
  }
  const std::unique_ptr<Message> config(
      MessageFactory::generated_factory()->GetPrototype(linked)->New());
  GRAPNEL_RETURN_IF_ERROR(
      WithContext(ParseTextProto(conformance.valid(0), config.get()), "valid"));
  GRAPNEL_ASSIGN_OR_RETURN(made.scheduled, CreateHook(*config));
  for (const DefaultHookSlot& slot : DefaultHookSlots()) {
    if (slot.field->message_type() == linked) made.slot = slot.field->name();
  }
  return made;
}

absl::Status PrintPage(const std::string& set_path) {
  io::Env& env = io::Env::Posix();
  GRAPNEL_ASSIGN_OR_RETURN(const std::string bytes,
                           io::ReadFile(env, set_path));
  google::protobuf::FileDescriptorSet set;
  if (!set.ParseFromString(bytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat(set_path, ": not a FileDescriptorSet"));
  }
  DescriptorPool commented;
  for (const google::protobuf::FileDescriptorProto& file : set.file()) {
    if (commented.BuildFile(file) == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(set_path, ": ", file.name(), ": can't be used"));
    }
  }

  std::vector<HookToPrint> hooks;
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> folders,
                           env.ListDir("hooks"));
  for (const std::string& folder : folders) {
    const std::string path =
        absl::StrCat("hooks/", folder, "/testdata/conformance.textproto");
    if (!env.FileExists(path)) continue;
    GRAPNEL_ASSIGN_OR_RETURN(const std::string text, io::ReadFile(env, path));
    absl::StatusOr<HookToPrint> hook = MakeHook(folder, text, commented);
    if (!hook.ok()) return WithContext(hook.status(), path);
    hooks.push_back(*std::move(hook));
  }
  // Those that every run has come first.
  std::sort(hooks.begin(), hooks.end(),
            [](const HookToPrint& a, const HookToPrint& b) {
              const auto key = [](const HookToPrint& hook) {
                return std::make_tuple(hook.slot.empty(),
                                       hook.scheduled.priority,
                                       hook.scheduled.hook->name());
              };
              return key(a) < key(b);
            });
  std::string page = kHead;
  for (const HookToPrint& hook : hooks) AddRow(hook, &page);
  for (const HookToPrint& hook : hooks) AddHook(hook, &page);
  std::fputs(page.c_str(), stdout);
  return absl::OkStatus();
}

}  // namespace
}  // namespace grapnel

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "hooks_md SET\n");
    return 2;
  }
  const absl::Status status = grapnel::PrintPage(argv[1]);
  if (status.ok()) return 0;
  std::fprintf(stderr, "hooks_md: %s\n", status.ToString().c_str());
  return 1;
}
