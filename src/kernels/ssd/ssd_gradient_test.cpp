// Every line's gradients in double against central differences.
#include <span>

#include "kernels/ssd/ssd_call_test.h"
#include "measure/gradcheck.h"

namespace adder::ssd {
namespace {

double loss_of(Call<double>& call, const Choice& choice) {
  call.run_forward(choice);
  double loss = 0;
  for (int64_t i = 0; i < call.y.count(); ++i) loss += call.y[i] * call.gy[i];
  for (int64_t i = 0; i < call.hT.count(); ++i) loss += call.hT[i] * call.ghT[i];
  return loss;
}

std::vector<measure::GradInput> inputs_of(Call<double>& call) {
  const auto span = [](Guarded<double>& array) {
    return std::span<double>(array.data(), static_cast<size_t>(array.count()));
  };
  return {{"x", span(call.x), span(call.dx)},   {"dt", span(call.dt), span(call.ddt)},
          {"z", span(call.z), span(call.dz)},   {"B", span(call.B), span(call.dB)},
          {"C", span(call.C), span(call.dC)},   {"A", span(call.A), span(call.dA)},
          {"D", span(call.D), span(call.dD)},   {"dt_bias", span(call.bias), span(call.dbias)},
          {"h0", span(call.h0), span(call.dh0)}};
}

void check_every_line(const Call<double>& given) {
  const auto names = lines_for<double>(given.shape);
  ASSERT_FALSE(names.empty());
  for (const std::string& name : names) {
    const Choice choice{.name = name};
    Call<double> call = given;
    call.run(choice);
    const auto report =
        measure::check_gradients([&] { return loss_of(call, choice); }, inputs_of(call));
    EXPECT_TRUE(report.passed()) << name << " " << call.shape.describe() << ": " << report.worst
                                 << " " << report.worst_at;
  }
}

SsdShape sizes(int64_t len, int64_t heads, int64_t head_dim, int64_t state, int64_t groups = 1) {
  SsdShape shape;
  shape.len = len;
  shape.heads = heads;
  shape.head_dim = head_dim;
  shape.state = state;
  shape.groups = groups;
  shape.chunk = 16;
  return shape;
}

TEST(SsdGradient, SeveralChunks) {
  SsdShape shape = sizes(35, 4, 3, 5, 2);
  shape.batch = 2;
  check_every_line(Call<double>(shape));
}

TEST(SsdGradient, WiderThanAWord) { check_every_line(Call<double>(sizes(17, 2, 19, 33))); }

TEST(SsdGradient, DPerChannelAndOneGroupAHead) {
  SsdShape shape = sizes(20, 3, 4, 2, 3);
  shape.d_per_channel = true;
  check_every_line(Call<double>(shape));
}

TEST(SsdGradient, Packed) {
  SsdShape shape = sizes(40, 2, 3, 2);
  shape.sequences = 5;
  check_every_line(Call<double>(shape, {0, 1, 1, 19, 36, 40}));
}

TEST(SsdGradient, Limits) {
  Call<double> call(sizes(20, 2, 5, 4));
  call.dt_min = 0.1;
  call.dt_max = 1;
  check_every_line(call);
}

TEST(SsdGradient, WithoutSoftplus) {
  SsdShape shape = sizes(20, 2, 5, 4);
  shape.softplus = false;
  Call<double> call(shape);
  for (int64_t i = 0; i < call.dt.count(); ++i) call.dt[i] = std::exp(call.dt[i]);
  for (int64_t i = 0; i < call.bias.count(); ++i) call.bias[i] = 0.1;
  check_every_line(call);
}

// The check can go red: one gradient moved by a thousandth of itself.
TEST(SsdGradient, APlantedDefectIsSeen) {
  Call<double> call(sizes(9, 2, 3, 4));
  const Choice choice{.name = "recurrent"};
  call.run(choice);
  call.dA[1] *= 1.001;
  const auto report =
      measure::check_gradients([&] { return loss_of(call, choice); }, inputs_of(call));
  EXPECT_FALSE(report.passed()) << report.worst;
}

}  // namespace
}  // namespace adder::ssd
