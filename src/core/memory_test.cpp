// Buffers, arenas, workspaces and the backend behind them; checks of contents.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "core/buffer.h"
#include "core/contents.h"
#include "core/context.h"
#include "core/kernel_table.h"
#include "core/workspace.h"

namespace adder {
namespace {

/// The CPU's own backend, with a record of what was asked of it.
class CountingBackend : public DeviceBackend {
 public:
  CountingBackend() : inner_(device_backend(Device::cpu)) { set_device_backend(Device::cpu, this); }
  ~CountingBackend() override { set_device_backend(Device::cpu, nullptr); }

  std::byte* allocate(int64_t bytes, const Memory& memory) override {
    if (bytes > limit) return nullptr;
    living += bytes;
    return inner_.allocate(bytes, memory);
  }
  void release(std::byte* data, int64_t bytes, const Memory& memory) override {
    living -= bytes;
    inner_.release(data, bytes, memory);
  }
  void fill(void* stream, void* to, int byte, int64_t bytes) override {
    events.emplace_back("fill");
    inner_.fill(stream, to, byte, bytes);
  }
  void copy(void* stream, void* to, const void* from, int64_t bytes) override {
    events.emplace_back("copy");
    inner_.copy(stream, to, from, bytes);
  }
  void synchronize(void*) override { events.emplace_back("synchronize"); }
  double elapsed_us(void* stream, const std::function<void()>& work) override {
    return inner_.elapsed_us(stream, work);
  }
  void begin_line() override { events.emplace_back("begin_line"); }
  void end_line() override { events.emplace_back("end_line"); }

  std::vector<std::string> events;
  int64_t living = 0;                // bytes allocated and not released
  int64_t limit = int64_t{1} << 40;  // of one allocation

 private:
  DeviceBackend& inner_;
};

using Events = std::vector<std::string>;

constexpr std::array kKinds = {MemoryKind::host, MemoryKind::pinned, MemoryKind::device};

template <class Call>
std::string message_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Buffer, EveryKindIsFilledWrittenReadAndMoved) {
  for (const MemoryKind kind : kKinds) {
    Buffer buffer(100, {.kind = kind});
    EXPECT_EQ(buffer.memory().kind, kind);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % kAlignment, 0u);
    buffer.fill(0x5A);
    const std::array<uint8_t, 3> written = {1, 2, 3};
    buffer.write(97, written.data(), 3);
    std::array<uint8_t, 5> read{};
    buffer.read(95, read.data(), 5);
    EXPECT_EQ(read, (std::array<uint8_t, 5>{0x5A, 0x5A, 1, 2, 3}));

    const std::byte* data = buffer.data();
    Buffer moved(std::move(buffer));
    EXPECT_EQ(moved.data(), data);
    EXPECT_EQ(buffer.data(), nullptr);  // NOLINT(bugprone-use-after-move)
    EXPECT_EQ(buffer.bytes(), 0);
    Buffer target(7);
    target = std::move(moved);
    EXPECT_EQ(target.data(), data);
    EXPECT_EQ(target.bytes(), 100);
    EXPECT_EQ(target.memory().kind, kind);
    EXPECT_EQ(moved.data(), nullptr);  // NOLINT(bugprone-use-after-move)
  }
}

TEST(Buffer, GivesBackWhatItTookAndRefusesMoreThanThereIs) {
  CountingBackend backend;
  {
    Buffer a(100), b(50);
    EXPECT_EQ(backend.living, 150);
    a = std::move(b);
    EXPECT_EQ(backend.living, 50);
    Buffer().fill(0);
    Buffer().write(0, nullptr, 0);
    EXPECT_EQ(backend.events, Events{});  // nothing to do is nothing asked
    a.fill(1);
    EXPECT_EQ(backend.events, (Events{"fill", "synchronize"}));
  }
  EXPECT_EQ(backend.living, 0);
  backend.limit = 10;
  EXPECT_EQ(message_of([] { Buffer(11); }), "out of memory: 11 bytes refused");
  EXPECT_EQ(message_of([] { Buffer(11, {.kind = MemoryKind::pinned}); }),
            "out of pinned memory: 11 bytes refused");
  EXPECT_EQ(message_of([] { Buffer(11, {.kind = MemoryKind::device}); }),
            "out of device memory: 11 bytes refused");
}

TEST(Buffer, CopiesStayInside) {
  Buffer buffer(8);
  std::array<char, 16> bytes{};
  EXPECT_DEATH(buffer.write(1, bytes.data(), 8), "check failed");
  EXPECT_DEATH(buffer.read(-1, bytes.data(), 1), "check failed");
}

TEST(Backend, ADeviceThatIsNotThereIsSaid) {
  EXPECT_EQ(message_of([] { device_backend(Device::cuda); }),
            "device 'cuda': not in use: this build or this machine has none");
  EXPECT_EQ(message_of([] { Buffer(1, {MemoryKind::device, Device::cuda}); }),
            "device 'cuda': not in use: this build or this machine has none");
}

TEST(Backend, TimesWork) {
  bool ran = false;
  EXPECT_GE(device_backend(Device::cpu).elapsed_us(nullptr, [&] { ran = true; }), 0);
  EXPECT_TRUE(ran);
}

// A family of one line, y = 2 x, with scratch for each element.
struct TwiceShape {
  int64_t count = 0;
  std::string describe() const { return "count " + std::to_string(count); }
};
struct TwiceArgs {
  const float* x = nullptr;
  float* y = nullptr;
};
using TwiceLine = Line<TwiceShape, OneWay<TwiceShape, TwiceArgs>>;

CountingBackend* g_backend = nullptr;  // of the test that looks into the line

void twice_elementwise(const TwiceShape& shape, const TwiceArgs& args, Exec exec) {
  if (g_backend != nullptr) g_backend->events.emplace_back("line");
  auto* sum = exec.carve<float>(shape.count);
  for (int64_t i = 0; i < shape.count; ++i) sum[i] = args.x[i] + args.x[i];
  std::copy_n(sum, shape.count, args.y);
}

constexpr TwiceLine kTwice[] = {
    {cpu_line<float>("elementwise", 1),
     accepts_all<TwiceShape>,
     [](const Caps&, const TwiceShape&, Direction) { return 1.0; },
     [](const Caps&, const TwiceShape& shape, Direction) { return 4 * shape.count; },
     {twice_elementwise}}};

void twice(Context& context, const TwiceShape& shape, const TwiceArgs& args,
           const Choice& choice = {}) {
  run_line(context, "twice", std::span<const TwiceLine>(kTwice), shape, Direction::forward, args,
           choice);
}

TEST(Workspace, APlanRunsNothingAndTheRunTakesWhatWasPlanned) {
  CountingBackend backend;
  g_backend = &backend;
  std::vector<float> x = {1, 2, 3}, y(3), fetched(3);
  const auto call = [&](Context& context) {
    Arena::Scope scope(*context.arena);
    auto* a = context.arena->take<float>(3);
    auto* b = context.arena->take<float>(3);
    zero_elements(context, b, 3);
    copy_elements(context, a, x.data(), 3);
    twice(context, {3}, {a, b});
    fetch_elements(context, y.data(), b, 3);
  };
  Workspace workspace(1);
  EXPECT_EQ(workspace.plan(call), 3 * kAlignment);
  EXPECT_EQ(workspace.capacity(), 0);
  EXPECT_EQ(backend.events, Events{});
  EXPECT_EQ(y, std::vector<float>(3));

  workspace.run(call);
  EXPECT_EQ(y, (std::vector<float>{2, 4, 6}));
  EXPECT_EQ(workspace.capacity(), 3 * kAlignment);
  EXPECT_EQ(workspace.context().memory(MemoryKind::device).kind, MemoryKind::device);
  EXPECT_EQ(backend.events,
            (Events{"fill", "copy", "begin_line", "line", "end_line", "copy", "synchronize"}));
  g_backend = nullptr;
}

TEST(Workspace, PlansAKeyOnceAndGrowsOnly) {
  int planned = 0, ran = 0;
  Workspace workspace(1);
  const auto run = [&](int64_t count) {
    workspace.run({count}, [&](Context& context) {
      ++(context.planning() ? planned : ran);
      context.arena->take<float>(count);
    });
  };
  run(100);
  run(100);
  EXPECT_EQ(planned, 1);
  EXPECT_EQ(ran, 2);
  EXPECT_EQ(workspace.capacity(), 448);
  run(10);
  EXPECT_EQ(workspace.capacity(), 448);
  run(1000);
  EXPECT_EQ(workspace.capacity(), 4032);
  run(100);
  EXPECT_EQ(planned, 3);
  EXPECT_EQ(ran, 5);
}

TEST(Workspace, AKeyWhosePlanFailedIsPlannedAgain) {
  Workspace workspace(1);
  bool fails = true;
  const auto call = [&](Context& context) {
    context.arena->take<float>(100);
    if (fails) throw Error("refused");
  };
  EXPECT_EQ(message_of([&] { workspace.run({1}, call); }), "refused");
  fails = false;
  workspace.run({1}, call);
  EXPECT_EQ(workspace.capacity(), 448);
}

TEST(KernelTable, AShapeThatNoLineServesIsNamed) {
  Arena measuring;
  Context context;
  context.arena = &measuring;
  Choice choice;
  choice.name = "fancy";
  EXPECT_EQ(message_of([&] { twice(context, {3}, {}, choice); }),
            "twice forward f32 on cpu: no kernel serves this shape, named 'fancy': expected a "
            "shape accepted by one of: elementwise, got count 3");
  choice = {};
  choice.exact_class = 2;
  EXPECT_THROW(twice(context, {3}, {}, choice), Error);
  context.caps.device = Device::cuda;
  EXPECT_EQ(message_of([&] { twice(context, {3}, {}); }),
            "twice forward f32 on cuda: no kernel serves this shape: expected a line on cuda, got "
            "count 3");
}

TEST(KernelTable, ALineServesItsOwnDeviceOnly) {
  std::array lines = {kTwice[0], kTwice[0]};
  lines[1].info.name = "gpu";
  lines[1].info.device = Device::cuda;
  const std::span<const TwiceLine> table(lines);
  Caps caps;
  const auto picked = [&] {
    return std::string(
        pick_line("twice", table, caps, TwiceShape{3}, Direction::forward).info.name);
  };
  EXPECT_EQ(picked(), "elementwise");
  caps.device = Device::cuda;
  EXPECT_EQ(picked(), "gpu");
}

TEST(Contents, IdsAndTargets) {
  const std::vector<int32_t> good = {0, 4, 2}, high = {0, 5}, low = {-1}, ignored = {1, -100};
  check_ids(good, 5, "batch");
  check_ids({}, 5, "batch");
  EXPECT_EQ(message_of([&] { check_ids(high, 5, "batch"); }),
            "batch: position 1: token id out of range: expected [0, 5), got 5");
  EXPECT_EQ(message_of([&] { check_ids(low, 5, "prompt", 7); }),
            "prompt: position 7: token id out of range: expected [0, 5), got -1");
  check_targets(ignored, 5, -100, "batch");
  EXPECT_EQ(message_of([&] { check_targets(high, 5, -100, "batch"); }),
            "batch: position 1: target out of range: expected [0, 5) or -100, got 5");
  EXPECT_EQ(message_of([&] { check_targets(low, 5, -100, "batch"); }),
            "batch: position 0: target out of range: expected [0, 5) or -100, got -1");
}

TEST(Contents, Boundaries) {
  const auto message = [](const std::vector<int32_t>& cu) {
    return message_of([&] { check_boundaries(cu, 10, "s6"); });
  };
  EXPECT_EQ(message({0, 3, 3, 10}), "no error");
  EXPECT_EQ(message({0}), "s6: cu_seqlens: too short: expected at least 2 entries, got 1");
  EXPECT_EQ(message({1, 10}), "s6: cu_seqlens: wrong first entry: expected 0, got 1");
  EXPECT_EQ(message({0, 5, 4, 10}),
            "s6: cu_seqlens: falls: expected a non-decreasing array, got 4 after 5");
  EXPECT_EQ(message({0, 9}), "s6: cu_seqlens: wrong last entry: expected 10 (len), got 9");
}

TEST(Contents, SlotsAndOrder) {
  const std::vector<int32_t> good = {2, 0, 1}, twice_named = {0, 2, 0}, high = {0, 3, 1};
  check_slots(good, 4, "state_index");
  EXPECT_EQ(message_of([&] { check_slots(twice_named, 4, "state_index"); }),
            "state_index: slot named twice: got 0");
  EXPECT_EQ(message_of([&] { check_slots(high, 3, "state_index"); }),
            "state_index: slot out of range: expected [0, 3), got 3");
  check_order(good, 3, "s6");
  EXPECT_EQ(message_of([&] { check_order(good, 4, "s6"); }),
            "s6: order: wrong number of tokens: expected 4, got 3");
  EXPECT_EQ(message_of([&] { check_order(twice_named, 3, "s6"); }),
            "s6: order: token visited twice: got 0");
  EXPECT_EQ(message_of([&] { check_order(high, 3, "s6"); }),
            "s6: order: token out of range: expected [0, 3), got 3");
}

}  // namespace
}  // namespace adder
