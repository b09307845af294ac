// `adder op ssd` against tests/golden: every output and every gradient of ops_f64/ssd_*, the SSD
// fixture, and what is valid of the published Triton kernels.
#include <cstring>

#include "run_adder.h"
#include "tensor_files.h"

namespace adder::tests {
namespace {

/// Part of an .npy file of little-endian floats in row-major order.
Tensor read_npy(const std::string& path, std::vector<int64_t> shape) {
  const std::string bytes = read_file(path);
  EXPECT_EQ(bytes.compare(0, 6, "\x93NUMPY"), 0) << path;
  EXPECT_NE(bytes.find("'descr': '<f4', 'fortran_order': False"), std::string::npos) << path;
  Tensor tensor = filled(std::move(shape), 0);
  const auto low = static_cast<unsigned char>(bytes[8]),
             high = static_cast<unsigned char>(bytes[9]);
  const size_t header = 10 + low + 256u * high;
  EXPECT_EQ(bytes.size(), header + 4 * tensor.data.size()) << path;
  for (size_t i = 0; i < tensor.data.size(); ++i) {
    float value = 0;
    std::memcpy(&value, bytes.data() + header + 4 * i, 4);
    tensor.data[i] = value;
  }
  return tensor;
}

class SsdGolden : public AdderTest {
 protected:
  /// The outputs; nothing when no line of that name takes the shape.
  Tensors run_file(const std::string& input, const std::string& dtype, const std::string& impl) {
    std::vector<std::string> arguments = {"op",      "ssd",      "--input",
                                          input,     "--output", path("out.safetensors"),
                                          "--grads", "--dtype",  dtype};
    if (!impl.empty()) arguments.insert(arguments.end(), {"--impl", impl});
    const RunResult result = run(arguments);
    if (result.code == 1 && contains(result.err, "no kernel serves this shape")) return {};
    EXPECT_EQ(result.code, 0) << result.err;
    return result.code == 0 ? read_tensors(path("out.safetensors")) : Tensors{};
  }
  Tensors run_op(const Tensors& in, const std::string& dtype, const std::string& impl) {
    write_tensors(path("in.safetensors"), in, {"softplus"});
    return run_file(path("in.safetensors"), dtype, impl);
  }

  /// {dtype, impl}: the reference, then every line.
  std::vector<std::pair<std::string, std::string>> runs(const std::vector<std::string>& dtypes) {
    std::vector<std::pair<std::string, std::string>> all = {{"f64", "reference"}};
    const RunResult info = run({"info", "kernels", "--json"});
    for (const std::string& dtype : dtypes) {
      const auto lines = line_names(info.out, "ssd", dtype);
      EXPECT_FALSE(lines.empty()) << dtype;
      for (const std::string& line : lines) all.emplace_back(dtype, line);
    }
    return all;
  }

  void check_file(const std::string& name, const std::vector<std::string>& dtypes, double limit,
                  size_t outputs) {
    const std::string input = golden_path("ops_f64/" + name + ".safetensors");
    const Tensors golden = read_tensors(input);
    for (const auto& [dtype, impl] : runs(dtypes)) {
      const Tensors got = run_file(input, dtype, impl);
      if (got.empty()) {
        std::printf("skipped: %s %s does not take %s\n", impl.c_str(), dtype.c_str(), name.c_str());
        continue;
      }
      EXPECT_EQ(got.size(), outputs) << impl;
      for (const auto& [tensor, value] : got) {
        ASSERT_EQ(golden.count(tensor), 1u) << tensor;
        EXPECT_LE(relative_error(value, golden.at(tensor)), limit)
            << name << " " << impl << " " << dtype << ": " << tensor;
      }
    }
  }
};

TEST_F(SsdGolden, DoubleThroughTheReferenceAndEveryLine) {
  check_file("ssd_0", {"f64"}, 1e-10, 10);
  check_file("ssd_1", {"f64"}, 1e-10, 11);
}

TEST_F(SsdGolden, SingleThroughEveryLine) {
  check_file("ssd_0", {"f32"}, 1e-4, 10);
  check_file("ssd_1", {"f32"}, 1e-4, 11);
}

TEST_F(SsdGolden, Bf16ThroughEveryLine) {
  check_file("ssd_0", {"bf16"}, 0.05, 10);
  check_file("ssd_1", {"bf16"}, 0.05, 11);
}

TEST_F(SsdGolden, ChunkIsAnInputThatChangesNothingButRounding) {
  const std::string input = golden_path("ops_f64/ssd_1.safetensors");
  const Tensors golden = read_tensors(input);
  Tensors in = golden;
  for (const double chunk : {1, 7, 32}) {
    in["chunk"] = filled({1}, chunk);
    write_tensors(path("in.safetensors"), in, {"softplus", "chunk"});
    for (const auto& [dtype, impl] : runs({"f64"})) {
      const Tensors got = run_file(path("in.safetensors"), dtype, impl);
      for (const auto& [name, value] : got) {
        EXPECT_LE(relative_error(value, golden.at(name)), 1e-10) << impl << " " << name;
      }
    }
  }
  in["chunk"] = filled({1}, 0);
  write_tensors(path("in.safetensors"), in, {"softplus", "chunk"});
  const RunResult bad =
      run({"op", "ssd", "--input", path("in.safetensors"), "--output", path("out.safetensors")});
  EXPECT_EQ(bad.code, 1);
  EXPECT_TRUE(contains(bad.err, "ssd: chunk")) << bad.err;
}

TEST_F(SsdGolden, APlantedErrorIsSeen) {
  const Tensors golden = read_tensors(golden_path("ops_f64/ssd_0.safetensors"));
  Tensor wrong = golden.at("d_A");
  wrong.data[0] *= 1 + 1e-6;
  EXPECT_GT(relative_error(wrong, golden.at("d_A")), 1e-10);
}

// The fixture gives the log-decay and inputs that are already multiplied by delta: with A = -1,
// delta is minus the log-decay and x the input over delta.
TEST_F(SsdGolden, Fixture) {
  const std::string folder = golden_path("ssd_fixture/");
  Tensors in;
  in["dt"] = read_npy(folder + "A.npy", {1, 128, 2});
  in["x"] = read_npy(folder + "X.npy", {1, 128, 2, 8});
  for (size_t i = 0; i < in["dt"].data.size(); ++i) {
    double& dt = in["dt"].data[i];
    dt = -dt;
    ASSERT_GT(dt, 0);
    for (size_t p = 0; p < 8; ++p) in["x"].data[i * 8 + p] /= dt;
  }
  in["B"] = read_npy(folder + "B.npy", {1, 128, 2, 16});
  in["C"] = read_npy(folder + "C.npy", {1, 128, 2, 16});
  in["A"] = filled({2}, -1);
  in["softplus"] = filled({1}, 0);
  in["gy"] = filled({1, 128, 2, 8}, 1);
  const Tensor y = read_npy(folder + "Y.npy", {1, 128, 2, 8});
  const Tensor state = read_npy(folder + "final_state.npy", {1, 2, 8, 16});
  for (const auto& [dtype, impl] : runs({"f64", "f32"})) {
    const Tensors out = run_op(in, dtype, impl);
    if (out.empty()) {
      std::printf("skipped: %s %s\n", impl.c_str(), dtype.c_str());
      continue;
    }
    EXPECT_LE(relative_error(out.at("y"), y), 1e-6) << impl << " " << dtype;
    EXPECT_LE(relative_error(out.at("hT"), state), 1e-6) << impl << " " << dtype;
  }
}

/// Head `head` of a tensor whose axis `axis` counts heads; that axis is kept with size 1.
Tensor one_head(const Tensor& all, size_t axis, int64_t head) {
  Tensor out;
  out.shape = all.shape;
  out.shape[axis] = 1;
  int64_t inner = 1;
  for (size_t i = axis + 1; i < all.shape.size(); ++i) inner *= all.shape[i];
  const int64_t rows = count_of(all.shape) / (inner * all.shape[axis]);
  for (int64_t row = 0; row < rows; ++row) {
    const auto* begin = all.data.data() + (row * all.shape[axis] + head) * inner;
    out.data.insert(out.data.end(), begin, begin + inner);
  }
  return out;
}

// Head 0 of combined_full: A < 0 there. Their products are TF32, and the gradients those of sum(y).
TEST_F(SsdGolden, TritonKernels) {
  const JsonValue cases = read_json_file(golden_path("mamba_ssm_ops/mamba_reference_cases.json"));
  const JsonValue& dump = *cases.find("ssd_combined")->find("combined_full");
  const JsonValue& inputs = *dump.find("inputs");
  const auto head_of = [](const JsonValue& group, const char* name, size_t axis) {
    return one_head(tensor_of(*group.find(name)), axis, 0);
  };
  Tensors in;
  in["x"] = head_of(inputs, "X", 2);
  in["z"] = head_of(inputs, "z", 2);
  in["dt"] = head_of(inputs, "dt", 2);
  in["A"] = head_of(inputs, "A", 0);
  in["D"] = head_of(inputs, "D", 0);
  in["dt_bias"] = head_of(inputs, "dt_bias", 0);
  in["h0"] = head_of(inputs, "initial_states", 1);
  in["B"] = tensor_of(*inputs.find("B"));
  in["C"] = tensor_of(*inputs.find("C"));
  in["softplus"] = filled({1}, 1);
  in["gy"] = filled(in["x"].shape, 1);
  const JsonValue& outputs = *dump.find("outputs");
  const JsonValue& gradients = *dump.find("gradients");
  const Tensors expected = {{"y", head_of(outputs, "y", 2)},
                            {"hT", head_of(outputs, "final_states", 1)},
                            {"d_x", head_of(gradients, "X", 2)},
                            {"d_dt", head_of(gradients, "dt", 2)},
                            {"d_z", head_of(gradients, "z", 2)},
                            {"d_A", head_of(gradients, "A", 0)},
                            {"d_D", head_of(gradients, "D", 0)},
                            {"d_dt_bias", head_of(gradients, "dt_bias", 0)},
                            {"d_h0", head_of(gradients, "initial_states", 1)}};
  for (const auto& [dtype, impl] : runs({"f64", "f32"})) {
    const Tensors out = run_op(in, dtype, impl);
    if (out.empty()) {
      std::printf("skipped: %s %s\n", impl.c_str(), dtype.c_str());
      continue;
    }
    for (const auto& [name, value] : expected) {
      EXPECT_LE(relative_error(out.at(name), value), 2e-3) << impl << " " << dtype << " " << name;
    }
  }
  std::printf(
      "skipped: combined_full head 1 (A > 0: their decays are clamped, not the recurrence)\n"
      "skipped: d_B, d_C of combined_full (they sum over head 1)\n"
      "skipped: combined_varlen (the dump lacks the sequence bounds)\n"
      "skipped: ssd_components, ssd_bmm (steps inside their kernels), ssd_chunk_scan_* (A "
      "partly positive)\n");
}

}  // namespace
}  // namespace adder::tests
