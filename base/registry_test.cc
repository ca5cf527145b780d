#include "grapnel/base/registry.h"

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/any.pb.h"
#include "grapnel/base/registry_test.pb.h"
#include "grapnel/base/status_matchers.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::grapnel::base::testing::AnimalConfig;
using ::grapnel::base::testing::CatConfig;
using ::grapnel::base::testing::DogConfig;
using ::grapnel::base::testing::FishConfig;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Animal {
  std::string says;
};

struct AnimalTraits {
  using Product = std::unique_ptr<Animal>;
  static constexpr char kWhat[] = "animal";
};
using AnimalRegistry = Registry<AnimalTraits, const std::string&>;

struct Dog : Animal {
  using Config = DogConfig;
  static absl::StatusOr<std::unique_ptr<Dog>> Create(
      const Config& config, const std::string& greeting) {
    if (config.name().empty()) {
      return absl::InvalidArgumentError("name: must be set");
    }
    auto dog = std::make_unique<Dog>();
    dog->says = absl::StrCat(greeting, ", ", config.name());
    return dog;
  }
};
GRAPNEL_REGISTER(AnimalRegistry, Dog);

// Two that claim one config.
struct Cat : Animal {
  using Config = CatConfig;
  static absl::StatusOr<std::unique_ptr<Cat>> Create(const Config&,
                                                     const std::string&) {
    return std::make_unique<Cat>();
  }
};
using OtherCat = Cat;
GRAPNEL_REGISTER(AnimalRegistry, Cat);
GRAPNEL_REGISTER(AnimalRegistry, OtherCat);

TEST(RegistryTest, OwnConfigMessageMakesTheImplementation) {
  DogConfig config;
  config.set_name("Rex");
  const auto animal = AnimalRegistry::Create(config, "hello");
  ASSERT_THAT(animal, IsOk());
  EXPECT_EQ((*animal)->says, "hello, Rex");
}

TEST(RegistryTest, OneofChoosesTheImplementation) {
  AnimalConfig config;
  config.mutable_dog()->set_name("Rex");
  const auto animal = AnimalRegistry::Create(config, "hello");
  ASSERT_THAT(animal, IsOk());
  EXPECT_EQ((*animal)->says, "hello, Rex");
}

TEST(RegistryTest, AnyInTheOneofMakesTheUsersOwn) {
  DogConfig dog;
  dog.set_name("Rex");
  AnimalConfig config;
  config.mutable_custom()->PackFrom(dog);
  const auto animal = AnimalRegistry::Create(config, "hello");
  ASSERT_THAT(animal, IsOk());
  EXPECT_EQ((*animal)->says, "hello, Rex");
}

TEST(RegistryTest, ErrorsOfTheImplementationPassThrough) {
  EXPECT_THAT(
      AnimalRegistry::Create(DogConfig(), ""),
      StatusIs(absl::StatusCode::kInvalidArgument, "name: must be set"));
}

TEST(RegistryTest, UnsetOneofNamesTheChoices) {
  EXPECT_THAT(AnimalRegistry::Create(AnimalConfig(), ""),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("dog, cat, fish, custom")));
}

TEST(RegistryTest, MissingImplementationNamesTheLinkedOnes) {
  EXPECT_THAT(AnimalRegistry::Create(FishConfig(), ""),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("grapnel.base.testing.FishConfig"),
                             HasSubstr("grapnel.base.testing.DogConfig"))));
}

TEST(RegistryTest, TwoImplementationsOfOneConfigAreBothNamed) {
  EXPECT_THAT(AnimalRegistry::Create(CatConfig(), ""),
              StatusIs(absl::StatusCode::kAlreadyExists,
                       HasSubstr("registry_test.cc:")));
}

TEST(RegistryTest, AnyOfAnUnknownTypeSaysWhatToDo) {
  google::protobuf::Any any;
  any.set_type_url("type.googleapis.com/my.pkg.Unlinked");
  EXPECT_THAT(AnimalRegistry::Create(any, ""),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("my.pkg.Unlinked"),
                             HasSubstr("depend on the target"))));
}

TEST(RegistryTest, AnyWithBrokenBytesIsRefused) {
  google::protobuf::Any any;
  any.PackFrom(DogConfig());
  any.set_value("\xff\xff");
  EXPECT_THAT(
      AnimalRegistry::Create(any, ""),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("not a valid grapnel.base.testing.DogConfig")));
}

TEST(RegistryTest, NamesAreSorted) {
  EXPECT_THAT(AnimalRegistry::ConfigNames(),
              ElementsAre("grapnel.base.testing.CatConfig",
                          "grapnel.base.testing.CatConfig",
                          "grapnel.base.testing.DogConfig"));
}

}  // namespace
}  // namespace grapnel
