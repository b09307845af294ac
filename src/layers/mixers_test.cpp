// The mixers tell of themselves: sizes that they refuse, state that they carry, parameters.
// Their arithmetic is tested in whole models (src/models/models_test.cpp).
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/error.h"
#include "core/workspace.h"
#include "layers/gated_mlp.h"
#include "layers/mamba1.h"
#include "layers/mamba2.h"

namespace adder {
namespace {

template <class Config>
std::string refusal(const Config& config) {
  try {
    config.check();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

Mamba2Config small_mamba2() {
  Mamba2Config config;
  config.d_model = 8;
  config.d_inner = 16;
  config.d_ssm = 12;
  config.head_dim = 3;
  config.groups = 2;
  config.state = 5;
  return config;
}

TEST(Mixers, Mamba2RefusesSizesThatDoNotFit) {
  EXPECT_EQ(refusal(small_mamba2()), "");
  struct Case {
    int64_t Mamba2Config::* field;
    int64_t value;
    const char* says;
  };
  for (const Case& bad :
       {Case{&Mamba2Config::d_model, 0, "d_model"},
        {&Mamba2Config::d_inner, 0, "d_inner"},
        {&Mamba2Config::d_ssm, 17, "d_ssm: out of range: expected 1 to d_inner 16"},
        {&Mamba2Config::d_ssm, 0, "d_ssm"},
        {&Mamba2Config::head_dim, 5, "head_dim: out of range: expected a divisor of the 12"},
        {&Mamba2Config::head_dim, 0, "head_dim"},
        {&Mamba2Config::groups, 3, "groups: out of range: expected a divisor of the 4 heads"},
        {&Mamba2Config::norm_groups, 5, "norm_groups"},
        {&Mamba2Config::state, -1, "state"},
        {&Mamba2Config::conv_width, 0, "conv_width"},
        {&Mamba2Config::chunk, -1, "chunk"}}) {
    Mamba2Config config = small_mamba2();
    config.*bad.field = bad.value;
    EXPECT_NE(refusal(config).find(bad.says), std::string::npos)
        << bad.says << " in: " << refusal(config);
  }
}

TEST(Mixers, GatedMlpRefusesEmptySizes) {
  EXPECT_EQ(refusal(GatedMlpConfig{8, 16, 1.0}), "");
  EXPECT_NE(refusal(GatedMlpConfig{0, 16, 1.0}).find("d_model"), std::string::npos);
  EXPECT_NE(refusal(GatedMlpConfig{8, 0, 1.0}).find("width"), std::string::npos);
}

// math.md 7.10.
TEST(Mixers, StateIsWhatDecodingCarries) {
  const auto parts = Mamba2Mixer<Bf16>(small_mamba2()).state_parts();
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts[0].elements, 3 * (12 + 2 * 2 * 5));
  EXPECT_EQ(parts[0].dtype, Dtype::bf16);
  EXPECT_EQ(parts[1].elements, 12 * 5);
  EXPECT_EQ(parts[1].dtype, Dtype::f32);
  EXPECT_TRUE(GatedMlp<float>({8, 16, 1.0}).state_parts().empty());
}

// models_test.cpp crosses chunk boundaries with sizes as small as these.
TEST(Mixers, SmallSizesHaveChunksOf64) {
  for (const int64_t head_dim : {1, 2, 3, 16}) EXPECT_EQ(ssd_chunk_for(head_dim, 5), 64);
}

// in_proj's rows: z0 and x0 of the MLP path, z, x, B, C, dt (math.md 7.3).
TEST(Mixers, Mamba2PartsTileTheProjection) {
  const Mamba2Config config = small_mamba2();
  EXPECT_EQ(config.z_at(), 2 * 4);
  EXPECT_EQ(config.conv_at(), 8 + 12);
  EXPECT_EQ(config.dt_at(), 20 + 12 + 20);
  EXPECT_EQ(config.projected(), 2 * 16 + 2 * 2 * 5 + 4);
}

// A low-rank adapter is the weight W + up down, and its gradients follow by the chain rule.
TEST(Linear, AnAdapterIsAPartOfTheWeight) {
  constexpr int64_t kRows = 5, kIn = 4, kOut = 3, kRank = 2;
  const auto wave = [](int64_t count, double frequency) {
    std::vector<double> values(static_cast<size_t>(count));
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = std::sin(frequency * static_cast<double>(i + 1));
    }
    return values;
  };
  const auto x = wave(kRows * kIn, 0.7), gy = wave(kRows * kOut, 1.3), w = wave(kOut * kIn, 0.9);
  const auto down = wave(kRank * kIn, 0.4), up = wave(kOut * kRank, 1.1);
  const auto matrix = [](const std::vector<double>& data, int64_t rows, int64_t cols) {
    return Matrix{data.data(), Dtype::f64, rows, cols, cols, nullptr};
  };
  const LowRankAdapter adapter{matrix(down, kRank, kIn), matrix(up, kOut, kRank)};
  Matrix weight = matrix(w, kOut, kIn);
  weight.adapter = &adapter;
  std::vector<double> y(kRows * kOut), dx(kRows * kIn), dw(kOut * kIn), ddown(kRank * kIn),
      dup(kOut * kRank);
  Workspace workspace(1);
  workspace.run([&](Context& context) {
    const Rows<const double> xs{x.data(), kIn}, gys{gy.data(), kOut};
    linear_forward<double>(context, kRows, xs, weight, nullptr, {y.data(), kOut});
    linear_backward_input<double>(context, kRows, gys, weight, {dx.data(), kIn});
    linear_backward_weight<double>(context, kRows, gys, xs, weight,
                                   {dw.data(), ddown.data(), dup.data()});
  });
  const auto at = [](const std::vector<double>& m, int64_t cols, int64_t i, int64_t j) {
    return m[static_cast<size_t>(i * cols + j)];
  };
  std::vector<double> merged = w;  // (out, in)
  for (int64_t o = 0; o < kOut; ++o) {
    for (int64_t i = 0; i < kIn; ++i) {
      for (int64_t k = 0; k < kRank; ++k) {
        merged[static_cast<size_t>(o * kIn + i)] += at(up, kRank, o, k) * at(down, kIn, k, i);
      }
    }
  }
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t o = 0; o < kOut; ++o) {
      double expected = 0;
      for (int64_t i = 0; i < kIn; ++i) expected += at(x, kIn, r, i) * at(merged, kIn, o, i);
      EXPECT_NEAR(at(y, kOut, r, o), expected, 1e-14);
    }
    for (int64_t i = 0; i < kIn; ++i) {
      double expected = 0;
      for (int64_t o = 0; o < kOut; ++o) expected += at(gy, kOut, r, o) * at(merged, kIn, o, i);
      EXPECT_NEAR(at(dx, kIn, r, i), expected, 1e-14);
    }
  }
  // dW of the merged weight leads to the three.
  for (int64_t o = 0; o < kOut; ++o) {
    for (int64_t i = 0; i < kIn; ++i) {
      double expected = 0;
      for (int64_t r = 0; r < kRows; ++r) expected += at(gy, kOut, r, o) * at(x, kIn, r, i);
      EXPECT_NEAR(at(dw, kIn, o, i), expected, 1e-14);
    }
  }
  for (int64_t k = 0; k < kRank; ++k) {
    for (int64_t i = 0; i < kIn; ++i) {
      double expected = 0;
      for (int64_t o = 0; o < kOut; ++o) expected += at(up, kRank, o, k) * at(dw, kIn, o, i);
      EXPECT_NEAR(at(ddown, kIn, k, i), expected, 1e-13);
    }
    for (int64_t o = 0; o < kOut; ++o) {
      double expected = 0;
      for (int64_t i = 0; i < kIn; ++i) expected += at(dw, kIn, o, i) * at(down, kIn, k, i);
      EXPECT_NEAR(at(dup, kRank, o, k), expected, 1e-13);
    }
  }
}

}  // namespace
}  // namespace adder
