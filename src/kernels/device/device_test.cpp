// The CUDA backend where there is a GPU; elsewhere, what the error says.
#include <gtest/gtest.h>

#include <array>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/workspace.h"
#include "kernels/device/cuda_backend.h"

namespace adder {
namespace {

template <class Call>
std::string message_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

class Gpu : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "no GPU here: " << reason();
  }
  static std::string reason() {
    return message_of([] { cuda_caps(0); });
  }
};

TEST(NoGpu, TheErrorSaysWhatIsMissing) {
  if (cuda_device_count() > 0) GTEST_SKIP() << "there is a GPU";
  const std::string message = message_of([] { cuda_caps(0); });
#if ADDER_CUDA
  EXPECT_TRUE(message == "device 'cuda': this machine has no NVIDIA driver" ||
              message == "device 'cuda': this machine has no GPU that CUDA can use" ||
              message.starts_with("device 'cuda': the NVIDIA driver "))
      << message;
#else
  EXPECT_EQ(message, "device 'cuda': this build has no CUDA");
#endif
  EXPECT_EQ(message_of([] { use_cuda(0); }), message);
  // The backend was not installed.
  EXPECT_EQ(message_of([] { device_backend(Device::cuda); }),
            "device 'cuda': not in use: this build or this machine has none");
}

TEST_F(Gpu, CapsAreFound) {
  for (int ordinal = 0; ordinal < cuda_device_count(); ++ordinal) {
    const Caps caps = cuda_caps(ordinal);
    EXPECT_EQ(caps.device, Device::cuda);
    EXPECT_EQ(caps.ordinal, ordinal);
    EXPECT_GE(caps.architecture, 50);
    EXPECT_GT(caps.processors, 0);
    EXPECT_GE(caps.shared_bytes, 48 << 10);
    EXPECT_GT(caps.memory_bandwidth_mb_s, 10'000);
    RecordProperty("caps", std::to_string(caps.architecture) + " " +
                               std::to_string(caps.processors) + " processors, " +
                               std::to_string(caps.shared_bytes) + " bytes shared, " +
                               std::to_string(caps.memory_bandwidth_mb_s) + " MB/s");
  }
  const std::string count = std::to_string(cuda_device_count());
  EXPECT_EQ(message_of([] { use_cuda(-1); }),
            "device 'cuda': no such GPU: expected a number in [0, " + count + "), got -1");
}

TEST_F(Gpu, EveryKindOfMemoryIsFilledWrittenReadAndMoved) {
  const Context context = use_cuda(0);
  for (const MemoryKind kind : {MemoryKind::host, MemoryKind::pinned, MemoryKind::device}) {
    Buffer buffer(1000, context.memory(kind));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % kAlignment, 0u);
    buffer.fill(0x5A);
    const std::array<uint8_t, 3> written = {1, 2, 3};
    buffer.write(997, written.data(), 3);
    const Buffer moved(std::move(buffer));
    std::array<uint8_t, 5> read{};
    moved.read(995, read.data(), 5);
    EXPECT_EQ(read, (std::array<uint8_t, 5>{0x5A, 0x5A, 1, 2, 3}));
  }
}

TEST_F(Gpu, MoreThanThereIsIsRefusedAndForgotten) {
  const Context context = use_cuda(0);
  EXPECT_EQ(message_of([&] { Buffer(int64_t{1} << 50, context.memory(MemoryKind::device)); }),
            "out of device memory: 1125899906842624 bytes refused");
  Buffer(64, context.memory(MemoryKind::device)).fill(0);
}

TEST_F(Gpu, CopiesKeepTheirOrderOnTheStream) {
  Workspace workspace(use_cuda(0));
  const int64_t count = 100'003;
  std::vector<float> x(static_cast<size_t>(count)), y(x.size(), -1);
  std::iota(x.begin(), x.end(), 0.0f);
  double us = 0;
  const auto call = [&](Context& context) {
    auto* a = context.arena->take<float>(count);
    auto* b = context.arena->take<float>(count);
    zero_elements(context, b, count);
    copy_elements(context, a, x.data(), count);
    copy_elements(context, b + 1, a, count - 1);
    fetch_elements(context, y.data(), b, count);
    if (context.planning()) return;
    us = context.backend().elapsed_us(context.stream, [&] { zero_elements(context, a, count); });
  };
  workspace.run(call);
  for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i], i == 0 ? 0 : x[i - 1]);
  EXPECT_GT(us, 0);
  EXPECT_EQ(use_cuda(0).stream, workspace.context().stream);
}

TEST_F(Gpu, AFailedCallIsNamed) {
  const Context context = use_cuda(0);
  const Buffer buffer(64, context.memory(MemoryKind::device));
  EXPECT_EQ(message_of([&] {
              context.backend().fill(context.stream, buffer.data(), 0, int64_t{1} << 50);
            }),
            "device 'cuda:0': cudaMemsetAsync failed: cudaErrorInvalidValue (invalid argument)");
  context.backend().fill(context.stream, buffer.data(), 0, 64);  // the error does not come back
}

}  // namespace
}  // namespace adder
