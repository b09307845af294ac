// The tests of the inference subcommands start from this fixture.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "adder/adder.h"
#include "formats/safetensors.h"
#include "run_adder.h"

namespace adder::tests {

inline const std::string kGolden = golden_path("models_hf/mamba_base");

/// A small byte model, some text and some ids in a fresh directory.
class InferCommand : public AdderTest {
 protected:
  void SetUp() override {
    AdderTest::SetUp();
    ModelSpec spec;
    spec.d_model = 16;
    spec.n_layer = 2;
    spec.d_state = 4;
    model_ = path("bytes");
    Model::create(spec, 1).save(model_);
    write_file(path("text"), "Some text to be scored, a line and no more.\n");
    write_ids("ids", {1, 4}, {1, 2, 3, 4});
  }

  void write_ids(const std::string& name, std::vector<int64_t> shape,
                 const std::vector<int64_t>& ids) const {
    write_safetensors(path(name), {tensor_source("input_ids", std::move(shape), ids.data())});
  }
  RunResult generate(std::vector<std::string> words, const std::string& redirect = "") const {
    words.insert(words.begin(), {"generate", "--model", model_});
    if (std::find(words.begin(), words.end(), "-n") == words.end()) {
      words.insert(words.end(), {"-n", "20"});
    }
    return run(words, redirect);
  }
  static void expect_error(const RunResult& outcome, int code, const std::string& says,
                           const std::string& about) {
    EXPECT_EQ(outcome.code, code) << about << "\n" << outcome.err;
    EXPECT_EQ(outcome.err.rfind("adder: error: ", 0), 0u) << about << "\n" << outcome.err;
    EXPECT_NE(outcome.err.find(says), std::string::npos) << about << "\n" << outcome.err;
    EXPECT_EQ(outcome.out, "") << about;
  }

  std::string model_;
};

}  // namespace adder::tests
