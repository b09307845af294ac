// `adder op s6` against tests/golden/ops_f64: every output and every gradient, through the
// reference and through every line of the table.
#include "run_adder.h"
#include "tensor_files.h"

namespace adder::tests {
namespace {

class OpGolden : public AdderTest, public ::testing::WithParamInterface<int> {
 protected:
  std::string input() const {
    return golden_path(fmt::format("ops_f64/s6_{}.safetensors", GetParam()));
  }

  /// Runs on the golden input; false if no line of that name takes the shape.
  bool run_op(const std::string& dtype, const std::string& impl, const std::string& output) {
    std::vector<std::string> arguments = {"op",   "s6",      "--input", input(), "--output",
                                          output, "--grads", "--dtype", dtype};
    if (!impl.empty()) arguments.insert(arguments.end(), {"--impl", impl});
    const RunResult result = run(arguments);
    if (result.code == 1 && contains(result.err, "no kernel serves this shape")) return false;
    EXPECT_EQ(result.code, 0) << result.err;
    return result.code == 0;
  }

  void compare(const std::string& output, double limit, const std::string& what) {
    const Tensors golden = read_tensors(input());
    const Tensors got = read_tensors(output);
    int compared = 0;
    for (const auto& [name, expected] : golden) {
      if (name != "y" && name != "hT" && name.rfind("d_", 0) != 0) continue;
      ASSERT_EQ(got.count(name), 1u) << what << ": " << name << " was not written";
      EXPECT_LE(relative_error(got.at(name), expected), limit) << what << ": " << name;
      ++compared;
    }
    EXPECT_GE(compared, 7);
    EXPECT_EQ(static_cast<size_t>(compared), got.size()) << what << ": more than was asked for";
  }

  void check_lines(const std::string& dtype, double limit) {
    const RunResult info = run({"info", "kernels", "--json"});
    const auto lines = line_names(info.out, "s6", dtype);
    ASSERT_FALSE(lines.empty()) << "no line of s6 in " << dtype;
    int ran = 0;
    for (const std::string& line : lines) {
      const std::string output = path(line + ".safetensors");
      if (!run_op(dtype, line, output)) {
        std::printf("skipped: %s does not take s6_%d\n", line.c_str(), GetParam());
        continue;
      }
      compare(output, limit, line + " " + dtype);
      ++ran;
    }
    EXPECT_GT(ran, 0);
  }
};

TEST_P(OpGolden, ReferenceInDouble) {
  const std::string output = path("out.safetensors");
  ASSERT_TRUE(run_op("f64", "", output));
  compare(output, 1e-10, "reference");
}

TEST_P(OpGolden, EveryLineInDouble) { check_lines("f64", 1e-10); }
TEST_P(OpGolden, EveryLineInSingle) { check_lines("f32", 1e-4); }

TEST_P(OpGolden, AnyLineInBf16) {
  const std::string output = path("out.safetensors");
  ASSERT_TRUE(run_op("bf16", "", output));
  compare(output, 0.05, "bf16");
  const SafetensorsFile file(output);
  EXPECT_EQ(file.info("y").dtype, Dtype::bf16);
  EXPECT_EQ(file.info("d_u").dtype, Dtype::bf16);
  EXPECT_EQ(file.info("hT").dtype, Dtype::f32);
  EXPECT_EQ(file.info("d_A").dtype, Dtype::f32);
}

// The comparison can go red: one entry of the answer is moved by one part in a million.
TEST_P(OpGolden, APlantedErrorIsSeen) {
  const Tensors golden = read_tensors(input());
  Tensor wrong = golden.at("y");
  const auto largest = std::max_element(wrong.data.begin(), wrong.data.end());
  *largest *= 1 + 1e-6;
  EXPECT_GT(relative_error(wrong, golden.at("y")), 1e-10);
}

INSTANTIATE_TEST_SUITE_P(Cases, OpGolden, ::testing::Values(0, 1, 2, 3));

// Packed sequences through the command equal one run for each sequence.
class OpLaws : public AdderTest {
 protected:
  Tensors run_op(const std::string& op, const Tensors& in, const std::set<std::string>& integers,
                 const std::string& impl = "reference") {
    write_tensors(path("in.safetensors"), in, integers);
    const RunResult result = run({"op", op, "--input", path("in.safetensors"), "--output",
                                  path("out.safetensors"), "--grads", "--impl", impl});
    EXPECT_EQ(result.code, 0) << result.err;
    return result.code == 0 ? read_tensors(path("out.safetensors")) : Tensors{};
  }
};

// Tokens [begin, end) of a (1, len, ...) tensor.
Tensor tokens(const Tensor& all, int64_t begin, int64_t end) {
  Tensor part;
  part.shape = all.shape;
  const int64_t row = count_of(all.shape) / all.shape[1];
  part.shape[1] = end - begin;
  part.data.assign(all.data.begin() + begin * row, all.data.begin() + end * row);
  return part;
}

TEST_F(OpLaws, PackedS6EqualsSeparate) {
  constexpr int64_t kLen = 9, kDim = 3, kState = 2;
  Tensors all = {{"u", wave({1, kLen, kDim}, 0.7)},      {"dt", wave({1, kLen, kDim}, 0.3)},
                 {"B", wave({1, kLen, 1, kState}, 0.9)}, {"C", wave({1, kLen, 1, kState}, 1.1)},
                 {"A", filled({kDim, kState}, -0.5)},    {"gy", wave({1, kLen, kDim}, 0.2)},
                 {"softplus", filled({1}, 1)},           {"dt_limit", {{2}, {0.1, 0.9}}},
                 {"cu_seqlens", {{4}, {0, 4, 4, kLen}}}};
  const Tensors packed = run_op("s6", all, {"softplus", "cu_seqlens"});
  ASSERT_EQ(packed.at("hT").shape, (std::vector<int64_t>{3, kDim, kState}));
  const std::pair<int64_t, int64_t> bounds[] = {{0, 4}, {4, kLen}};
  for (const auto& [begin, end] : bounds) {
    Tensors one = all;
    one.erase("cu_seqlens");
    for (const char* name : {"u", "dt", "B", "C", "gy"}) one[name] = tokens(all[name], begin, end);
    const Tensors separate = run_op("s6", one, {"softplus"});
    for (const char* name : {"y", "d_u", "d_dt", "d_B", "d_C"}) {
      EXPECT_EQ(tokens(packed.at(name), begin, end).data, separate.at(name).data) << name;
    }
  }
}

// A, B, C and the states end in (re, im); the line agrees with the reference and keeps the shapes.
TEST_F(OpLaws, ComplexS6) {
  const Tensors in = {{"u", wave({2, 40, 3}, 0.7)},       {"dt", wave({2, 40, 3}, 0.3)},
                      {"B", wave({2, 40, 1, 2, 2}, 0.9)}, {"C", wave({2, 40, 1, 2, 2}, 1.1)},
                      {"A", filled({3, 2, 2}, -0.5)},     {"h0", wave({2, 3, 2, 2}, 0.4)},
                      {"gy", wave({2, 40, 3}, 0.2)},      {"softplus", filled({1}, 1)}};
  const Tensors expected = run_op("s6", in, {"softplus"});
  const Tensors got = run_op("s6", in, {"softplus"}, "complex");
  EXPECT_EQ(expected.at("hT").shape, (std::vector<int64_t>{2, 3, 2, 2}));
  EXPECT_EQ(expected.at("d_A").shape, (std::vector<int64_t>{3, 2, 2}));
  ASSERT_EQ(got.size(), expected.size());
  for (const auto& [name, tensor] : expected) {
    EXPECT_LE(relative_error(got.at(name), tensor), 1e-12) << name;
  }
}

// B of shape (dim, state) = the same rows at every token; its gradient is the sum over tokens.
TEST_F(OpLaws, ConstantS6) {
  constexpr int64_t kRows = 12, kDim = 3, kState = 2;
  Tensors in = {{"u", wave({2, 6, kDim}, 0.7)},      {"dt", wave({2, 6, kDim}, 0.3)},
                {"B", wave({kDim, kState}, 0.9)},    {"C", wave({2, 6, kDim, kState}, 1.1)},
                {"A", filled({kDim, kState}, -0.5)}, {"gy", wave({2, 6, kDim}, 0.2)},
                {"softplus", filled({1}, 1)}};
  const Tensors reference = run_op("s6", in, {"softplus"});
  const Tensors got = run_op("s6", in, {"softplus"}, "sequential");
  const Tensor constant = in["B"];
  in["B"].shape = in["C"].shape;
  for (int64_t row = 1; row < kRows; ++row) {
    in["B"].data.insert(in["B"].data.end(), constant.data.begin(), constant.data.end());
  }
  const Tensors repeated = run_op("s6", in, {"softplus"});
  EXPECT_LE(relative_error(got.at("y"), repeated.at("y")), 1e-12);
  EXPECT_LE(relative_error(got.at("d_C"), repeated.at("d_C")), 1e-12);
  ASSERT_EQ(got.at("d_B").shape, constant.shape);
  for (size_t i = 0; i < constant.data.size(); ++i) {
    double sum = 0;
    for (size_t row = 0; row < kRows; ++row) {
      sum += repeated.at("d_B").data[row * constant.data.size() + i];
    }
    EXPECT_NEAR(got.at("d_B").data[i], sum, 1e-12);
    EXPECT_NEAR(reference.at("d_B").data[i], sum, 1e-12);
  }
}

TEST_F(OpLaws, PackedConv1dEqualsSeparate) {
  constexpr int64_t kLen = 7, kChannels = 3, kWidth = 4;
  Tensors all = {{"x", wave({1, kLen, kChannels}, 0.7)},  {"w", wave({kChannels, kWidth}, 0.4)},
                 {"bias", wave({kChannels}, 0.3)},        {"silu", filled({1}, 1)},
                 {"gy", wave({1, kLen, kChannels}, 0.2)}, {"cu_seqlens", {{3}, {0, 2, kLen}}}};
  const Tensors packed = run_op("conv1d", all, {"silu", "cu_seqlens"});
  const std::pair<int64_t, int64_t> bounds[] = {{0, 2}, {2, kLen}};
  for (const auto& [begin, end] : bounds) {
    Tensors one = all;
    one.erase("cu_seqlens");
    for (const char* name : {"x", "gy"}) one[name] = tokens(all[name], begin, end);
    const Tensors separate = run_op("conv1d", one, {"silu"});
    for (const char* name : {"y", "d_x"}) {
      EXPECT_EQ(tokens(packed.at(name), begin, end).data, separate.at(name).data) << name;
    }
  }
}

// Length 0: the state passes through, and so does its gradient.
TEST_F(OpLaws, EmptySequences) {
  const Tensor state = wave({2, 3, 4}, 0.6);
  const Tensors s6 = {{"u", filled({2, 0, 3}, 0)},    {"dt", filled({2, 0, 3}, 0)},
                      {"B", filled({2, 0, 1, 4}, 0)}, {"C", filled({2, 0, 1, 4}, 0)},
                      {"A", filled({3, 4}, -1)},      {"h0", state},
                      {"ghT", wave({2, 3, 4}, 0.8)}};
  const Tensors out = run_op("s6", s6, {});
  EXPECT_EQ(out.at("hT").data, state.data);
  EXPECT_EQ(out.at("d_h0").data, s6.at("ghT").data);
  const Tensors conv = {{"x", filled({2, 0, 4}, 0)},
                        {"w", wave({4, 4}, 0.3)},
                        {"s0", wave({2, 3, 4}, 0.6)},
                        {"gsT", wave({2, 3, 4}, 0.8)}};
  const Tensors conv_out = run_op("conv1d", conv, {});
  EXPECT_EQ(conv_out.at("sT").data, conv.at("s0").data);
  EXPECT_EQ(conv_out.at("d_s0").data, conv.at("gsT").data);
}

// The step of central differences through the command itself: conv1d has no golden in ops_f64.
TEST_F(OpLaws, Conv1dGradientsAreDifferences) {
  Tensors in = {{"x", wave({2, 5, 3}, 0.7)},  {"w", wave({3, 3}, 0.4)},
                {"bias", wave({3}, 0.3)},     {"s0", wave({2, 2, 3}, 0.9)},
                {"silu", filled({1}, 1)},     {"gy", wave({2, 5, 3}, 0.2)},
                {"gsT", wave({2, 2, 3}, 1.3)}};
  const Tensors out = run_op("conv1d", in, {"silu"});
  const auto loss = [&](const Tensors& result) {
    double sum = 0;
    for (size_t i = 0; i < in["gy"].data.size(); ++i)
      sum += in["gy"].data[i] * result.at("y").data[i];
    for (size_t i = 0; i < in["gsT"].data.size(); ++i)
      sum += in["gsT"].data[i] * result.at("sT").data[i];
    return sum;
  };
  for (const char* name : {"x", "w", "bias", "s0"}) {
    const size_t at = in[name].data.size() / 2;
    const double kept = in[name].data[at];
    constexpr double kStep = 1e-5;
    in[name].data[at] = kept + kStep;
    const double above = loss(run_op("conv1d", in, {"silu"}));
    in[name].data[at] = kept - kStep;
    const double below = loss(run_op("conv1d", in, {"silu"}));
    in[name].data[at] = kept;
    const Tensor& gradient = out.at(std::string("d_") + name);
    EXPECT_NEAR(gradient.data[at], (above - below) / (2 * kStep), 1e-8) << name;
  }
}

}  // namespace
}  // namespace adder::tests
