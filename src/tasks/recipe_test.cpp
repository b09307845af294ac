// Recipes: what is read is what was written, and every mistake says where and what.
#include <gtest/gtest.h>

#include <string>

#include "core/error.h"
#include "core/mapped_file.h"
#include "tasks/recipe.h"

namespace adder {
namespace {

std::string failure(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "(nothing was thrown)";
}

std::string toml_failure(const std::string& text) {
  return failure([&] {
    RecipeBuilder builder;
    builder.add_toml(text, "my.toml");
    builder.build();
  });
}

std::string set_failure(const std::string& assignment) {
  return failure([&] {
    RecipeBuilder builder;
    builder.add_assignment(assignment);
    builder.build();
  });
}

#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << "got: " << (text)

TEST(Recipe, MistakesNameFileLineKeyAndTheNearestKey) {
  const std::string unknown = toml_failure("[train]\nsteps = 3\nlerning_rate = 1\nwamup = 3\n");
  EXPECT_SAYS(unknown, "my.toml:");
  const std::string typo = toml_failure("[train]\nsteps = 3\nwamup = 3\n");
  EXPECT_SAYS(typo, "my.toml:3");
  EXPECT_SAYS(typo, "'train.wamup'");
  EXPECT_SAYS(typo, "did you mean 'train.warmup'?");
  const std::string misplaced = toml_failure("[train]\nd_model = 3\n");
  EXPECT_SAYS(misplaced, "did you mean 'model.d_model'?");
  const std::string section = toml_failure("[modle]\nd_model = 3\n");
  EXPECT_SAYS(section, "my.toml:1");
  EXPECT_SAYS(section, "did you mean 'model'?");
  const std::string type = toml_failure("[train]\n\nsteps = \"many\"\n");
  EXPECT_SAYS(type, "my.toml:3");
  EXPECT_SAYS(type, "'train.steps'");
  EXPECT_SAYS(type, "expected an integer, got a string");
  EXPECT_SAYS(toml_failure("[train]\nsteps = 1.5\n"), "got a number with a fraction");
  EXPECT_SAYS(toml_failure("[train]\nfreeze = [1]\n"), "list of strings");
  EXPECT_SAYS(toml_failure("[train]\nsteps = { a = 1 }\n"), "got a table");
  EXPECT_SAYS(toml_failure("train = 3\n"), "expected a section, [train], got an integer");
  EXPECT_SAYS(toml_failure("steps = 3\n"), "did you mean 'train.steps'?");
  EXPECT_SAYS(toml_failure("[train\n"), "my.toml:1");
  EXPECT_SAYS(toml_failure("[train]\nsteps = 3\nsteps = 4\n"), "my.toml:3");
}

TEST(Recipe, RangesNameTheKeyAndItsPlace) {
  const std::string low = toml_failure("[train]\nsteps = 0\n");
  EXPECT_SAYS(low, "my.toml:2");
  EXPECT_SAYS(low, "'steps'");
  EXPECT_SAYS(low, "at least 1");
  EXPECT_SAYS(toml_failure("[train]\nlr = inf\n"), "'lr'");
  EXPECT_SAYS(toml_failure("[train]\nlr = nan\n"), "'lr'");
  EXPECT_SAYS(toml_failure("[train]\nbeta1 = 1.0\n"), "'beta1'");
  EXPECT_SAYS(toml_failure("[train]\nschedule = \"linear\"\n"), "cosine, wsd, constant");
  EXPECT_SAYS(toml_failure("[model]\narch = \"mamba9\"\n"), "mamba1 or mamba2");
  EXPECT_SAYS(toml_failure("[data]\nvalidation_fraction = 1.0\n"), "validation_fraction");
  EXPECT_SAYS(set_failure("log.keep=0"), "--set log.keep=0");
}

TEST(Recipe, Assignments) {
  RecipeBuilder builder;
  builder.add_toml("[train]\nsteps = 3\nlr = 1\n[model]\nd_state = 32\n", "my.toml");
  for (const char* assignment :
       {"train.steps=7", "arch = mamba2", "lr=2e-3", "freeze=backbone.*", "path=some text.txt",
        "sample_prompt=\"a\\nb\"", "conv_bias=false", "warmup=0", "data.field='x'"}) {
    builder.add_assignment(assignment);
  }
  const Recipe recipe = builder.build();
  EXPECT_EQ(recipe.train.steps, 7);
  EXPECT_EQ(recipe.model.arch, "mamba2");
  EXPECT_EQ(recipe.model.d_state, 32);  // given, so the default of mamba2 does not replace it
  EXPECT_EQ(recipe.train.lr, 2e-3);
  EXPECT_EQ(recipe.train.freeze, std::vector<std::string>{"backbone.*"});
  EXPECT_EQ(recipe.data.path, "some text.txt");
  EXPECT_EQ(recipe.log.sample_prompt, "a\nb");
  EXPECT_EQ(recipe.data.field, "x");
  EXPECT_FALSE(recipe.model.conv_bias);
  EXPECT_EQ(builder.where("train.steps"), "--set train.steps=7");
  EXPECT_EQ(builder.where("model.d_state"), "my.toml:5");

  EXPECT_SAYS(set_failure("step=3"), "did you mean 'train.steps'?");
  EXPECT_SAYS(set_failure("train.steps=soon"), "expected an integer, got a string");
  EXPECT_SAYS(set_failure("train.steps"), "section.key=value");
  EXPECT_SAYS(set_failure("train.steps="), "'train.steps'");
  EXPECT_SAYS(set_failure("conv_bias=1"), "expected a boolean");
}

TEST(Recipe, WrittenOnesReadBack) {
  RecipeBuilder builder;
  builder.add_toml(default_recipe().text, "default");
  builder.add_assignment("sample_prompt=\"quote \\\" and \\\\ and \\u0001\\n\"");
  builder.add_assignment("freeze=[\"a.*\", \"b\"]");
  builder.add_assignment("lr=0.1");
  const Recipe recipe = builder.build();
  RecipeBuilder again;
  again.add_toml(recipe_toml(recipe), "written");
  EXPECT_EQ(recipe_json(again.build()), recipe_json(recipe));
  EXPECT_EQ(again.build().log.sample_prompt, recipe.log.sample_prompt);
}

TEST(Recipe, TheShippedOnesAreValid) {
  for (const auto& [arch, name] :
       {std::pair("mamba1", "tinyshakespeare.toml"), {"mamba2", "tinyshakespeare_mamba2.toml"}}) {
    const std::string file = std::string(ADDER_SOURCE_DIR) + "/recipes/" + name;
    RecipeBuilder builder;
    builder.add_file(file);
    EXPECT_EQ(builder.build().model.arch, arch);
    const CompiledRecipe compiled = default_recipe(arch);
    EXPECT_EQ(compiled.text, read_text_file(file));
    EXPECT_TRUE(is_default_recipe(compiled.name + std::string(":7")));
    EXPECT_FALSE(is_default_recipe(file + ":7"));
  }
}

// 8 heads of 64 channels with 64 states, and steps, data and width as Mamba-1 has them.
TEST(Recipe, TheDefaultOfMamba2IsTheTargetsModel) {
  RecipeBuilder builder;
  builder.add_toml(default_recipe("mamba2").text, "default");
  Recipe recipe = builder.build();
  recipe.model.vocab_size = 256;
  resolve(recipe.model, "test");
  EXPECT_EQ(recipe.model.heads(), 8);
  EXPECT_EQ(recipe.model.headdim, 64);
  EXPECT_EQ(recipe.model.d_state, 64);
  EXPECT_EQ(recipe.model.d_inner, 512);
}

TEST(Recipe, TheTableOfKeysIsTheCodes) {
  const std::string page = read_text_file(std::string(ADDER_SOURCE_DIR) + "/recipes/README.md");
  EXPECT_NE(page.find(recipe_keys_markdown()), std::string::npos)
      << "recipes/README.md is stale: put the output of `adder train --keys` after its first part";
}

}  // namespace
}  // namespace adder
