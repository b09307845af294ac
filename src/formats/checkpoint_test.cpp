#include "formats/checkpoint.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <cstring>
#include <thread>

#include "core/atomic_file.h"
#include "core/checksum.h"
#include "core/rng.h"
#include "formats/safetensors.h"
#include "formats/scratch_folder.h"

// Writes, flushes and reads go through here (-Wl,--wrap): the chosen write reaches the disk with a
// flipped bit, the disk forgets a bit once it is flushed, and the bytes that are read are counted.
namespace {
int64_t corrupt_write = -1;
int64_t writes_seen = 0;
int64_t bit_lost_after_flush = -1;
int64_t bytes_read = 0;
}  // namespace

extern "C" {
ssize_t __real_pwrite(int, const void*, size_t, off_t);
ssize_t __wrap_pwrite(int descriptor, const void* data, size_t size, off_t offset) {
  if (size == 0 || writes_seen++ != corrupt_write) {
    return __real_pwrite(descriptor, data, size, offset);
  }
  std::string damaged(static_cast<const char*>(data), size);
  damaged[size / 2] = static_cast<char>(damaged[size / 2] ^ 0x10);
  return __real_pwrite(descriptor, damaged.data(), size, offset);
}

ssize_t __real_pread(int, void*, size_t, off_t);
ssize_t __wrap_pread(int descriptor, void* data, size_t size, off_t offset) {
  const ssize_t got = __real_pread(descriptor, data, size, offset);
  if (got > 0) bytes_read += got;
  return got;
}

int __real_fsync(int);
int __wrap_fsync(int descriptor) {
  const int result = __real_fsync(descriptor);
  if (bit_lost_after_flush < 0) return result;
  const auto at = static_cast<off_t>(bit_lost_after_flush / 8);
  char byte = 0;
  if (__real_pread(descriptor, &byte, 1, at) == 1) {
    byte = static_cast<char>(byte ^ (1 << (bit_lost_after_flush % 8)));
    EXPECT_EQ(__real_pwrite(descriptor, &byte, 1, at), 1);
  }
  return result;
}
}

namespace adder {
namespace {

/// Tensors whose values follow from the step.
struct Sample {
  explicit Sample(int64_t step, size_t size = 5) : weights(size), moments(size) {
    for (size_t i = 0; i < size; ++i) {
      weights[i] = static_cast<float>(normal(static_cast<uint64_t>(step), 0, i));
      moments[i] = normal(static_cast<uint64_t>(step), 1, i);
    }
    counters[0] = step;
    manifest.set("step", step).set("loss", 1.25).set("best", std::nan(""));
    manifest.set("config", JsonValue::object().set("name", "small"));
  }
  std::vector<TensorSource> tensors() const {
    const auto size = static_cast<int64_t>(weights.size());
    return {tensor_source("weights", {size, 1}, weights.data()),
            tensor_source("adam.m", {size}, moments.data()),
            tensor_source("counters", {1}, counters), tensor_source("none", {0}, counters)};
  }
  std::vector<float> weights;
  std::vector<double> moments;
  int64_t counters[1] = {0};
  JsonValue manifest;
};

void save(const ScratchFolder& folder, int64_t step, size_t size = 5) {
  const Sample sample(step, size);
  save_checkpoint(folder.at(checkpoint_name(step)), sample.manifest, sample.tensors());
}

TEST(Checkpoint, RoundTripsBitForBit) {
  const ScratchFolder folder;
  const Sample sample(42, 1000);
  save(folder, 42, 1000);
  const Checkpoint checkpoint = load_checkpoint(folder.at("checkpoint-00000042.adder"));
  EXPECT_EQ(checkpoint.manifest().find("step")->as_int(), 42);
  EXPECT_TRUE(std::isnan(checkpoint.manifest().find("best")->as_double()));
  EXPECT_EQ(checkpoint.names(),
            (std::vector<std::string>{"adam.m", "counters", "none", "weights"}));
  for (const TensorSource& tensor : sample.tensors()) {
    const auto data = checkpoint.data(tensor.name);
    ASSERT_EQ(data.size(), tensor.bytes.size());
    EXPECT_TRUE(std::equal(data.begin(), data.end(), tensor.bytes.begin()));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(data.data()) % 64, 0u);
  }
  std::vector<double> moments(1000);
  checkpoint.read_as("adam.m", moments.data(), std::vector<int64_t>{1000});
  EXPECT_EQ(moments, sample.moments);
  EXPECT_EQ(folder.files(), 1);
}

/// The bytes of a file follow from manifest and tensors: these are the ones that the first version
/// wrote, so its files and those of today open in each other's place.
TEST(Checkpoint, TheFileHasTheseVeryBytes) {
  const ScratchFolder folder;
  std::vector<float> weights(1000);
  std::vector<double> moments(77);
  std::vector<Bf16> halves(5);
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = 0.25f * static_cast<float>(i) - 7;
  for (size_t i = 0; i < moments.size(); ++i) moments[i] = 1.5 * static_cast<double>(i);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = Bf16(static_cast<float>(i));
  const int64_t counters[2] = {3, -1};
  const std::vector<TensorSource> tensors = {
      tensor_source("weights.\"a\"", {10, 100}, weights.data()),
      tensor_source("moments", {77}, moments.data()),
      tensor_source("none", {0}, weights.data()),
      tensor_source("halves", {5, 1}, halves.data()),
      tensor_source("counters", {2}, counters),
      tensor_source("scalar", {}, counters)};
  JsonValue manifest;
  manifest.set("step", int64_t{12}).set("loss", 1.25).set("best", std::nan(""));
  const std::vector<std::pair<std::span<const TensorSource>, std::array<int64_t, 2>>> kFiles = {
      {tensors, {5580, 3563554117}},
      {std::span(tensors).first(1), {4300, 3436642955}},
      {{}, {140, 1370758229}}};
  for (const auto& [sources, expected] : kFiles) {
    save_checkpoint(folder.at("file"), manifest, sources);
    const std::string file = folder.get("file");
    ASSERT_EQ(static_cast<int64_t>(file.size()), expected[0]);
    // Without the end: the checksum over bytes and their own checksum is the same for all bytes.
    const auto bytes = std::as_bytes(std::span<const char>(file)).first(file.size() - 12);
    EXPECT_EQ(int64_t{crc32c(bytes)}, expected[1]);
  }
}

TEST(Checkpoint, WrongShapesAndNamesAreNamed) {
  const ScratchFolder folder;
  save(folder, 1);
  const Checkpoint checkpoint = load_checkpoint(folder.at(checkpoint_name(1)));
  float out[5];
  const std::string shape =
      message_of([&] { checkpoint.read_as("weights", out, std::vector<int64_t>{5}); });
  EXPECT_NE(shape.find("tensor 'weights': wrong shape: expected [5], got [5, 1]"),
            std::string::npos);
  EXPECT_NE(message_of([&] { checkpoint.info("weight"); }).find("did you mean 'weights'"),
            std::string::npos);
}

TEST(Checkpoint, WithoutTensorsOrManifest) {
  const ScratchFolder folder;
  save_checkpoint(folder.at("a"), JsonValue(), {});
  const Checkpoint checkpoint = load_checkpoint(folder.at("a"));
  EXPECT_TRUE(checkpoint.manifest().is_null());
  EXPECT_TRUE(checkpoint.names().empty());
}

int64_t undetected_flips(std::string file, const MemoryFile& memory, size_t begin,
                         const std::function<void(const std::string&)>& open) {
  int64_t undetected = 0;
  for (size_t bit = begin * 8; bit < file.size() * 8; ++bit) {
    file[bit / 8] = static_cast<char>(file[bit / 8] ^ (1 << (bit % 8)));
    if (message_of([&] { open(memory.put(file)); }).empty()) ++undetected;
    file[bit / 8] = static_cast<char>(file[bit / 8] ^ (1 << (bit % 8)));
  }
  return undetected;
}

TEST(Checkpoint, EveryBitFlipIsDetected) {
  const ScratchFolder folder;
  const MemoryFile memory;
  save(folder, 3, 100);
  const std::string file = folder.get(checkpoint_name(3));
  EXPECT_GT(file.size(), 1500u);
  const auto open = [](const std::string& path) { load_checkpoint(path); };
  EXPECT_EQ(message_of([&] { open(memory.put(file)); }), "");
  EXPECT_EQ(undetected_flips(file, memory, 0, open), 0);
  // What this is worth: a format without checksums notices no flip in its data.
  const Sample sample(3, 100);
  write_safetensors(folder.at("plain"), sample.tensors());
  const std::string plain = folder.get("plain");
  const size_t data = plain.size() - 1208;
  const auto open_plain = [](const std::string& path) { SafetensorsFile{path}; };
  EXPECT_EQ(undetected_flips(plain, memory, data, open_plain), 1208 * 8);
}

TEST(Checkpoint, EveryTruncationIsAnError) {
  const ScratchFolder folder;
  const MemoryFile memory;
  save(folder, 3);
  const std::string file = folder.get(checkpoint_name(3));
  for (size_t size = 0; size < file.size(); ++size) {
    const std::string message =
        message_of([&] { load_checkpoint(memory.put(file.substr(0, size))); });
    EXPECT_NE(message, "") << size;
  }
  EXPECT_NE(message_of([&] { load_checkpoint(memory.put(file + "x")); }).find("wrong length"),
            std::string::npos);
}

/// A file around any header text and data, every checksum right: what a hostile writer makes.
std::string forged(const std::string& header, const std::string& data) {
  std::string file = "ADDRCKP1";
  const auto add = [&](auto value) {
    file.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  const auto sum = [](const std::string& text) {
    return crc32c(std::as_bytes(std::span<const char>(text)));
  };
  const size_t begin = (32 + header.size() + 63) / 64 * 64;
  add(uint32_t{1});
  add(sum(header));
  add(uint64_t{header.size()});
  add(uint64_t{begin + data.size() + 12});
  file += header;
  file.resize(begin, '\0');
  file += data;
  add(sum(file));
  return file + "ADDRCKPE";
}

std::string forged_tensor(const std::string& name, const std::string& dtype,
                          const std::string& shape, const std::string& offset,
                          const std::string& bytes, const std::string& crc) {
  return R"({"name":")" + name + R"(","dtype":")" + dtype + R"(","shape":)" + shape +
         R"(,"offset":)" + offset + R"(,"bytes":)" + bytes + R"(,"crc32c":)" + crc + "}";
}

TEST(Checkpoint, MuseumOfForgedFiles) {
  const MemoryFile memory;
  const std::string data(64, '\0');
  const std::string crc =
      std::to_string(crc32c(std::as_bytes(std::span<const char>(data)).first(8)));
  const auto with = [](const std::string& tensors) {
    return R"({"manifest":{},"tensors":[)" + tensors + "]}";
  };
  const auto tensor = [&](const char* dtype, const char* shape, const char* offset,
                          const char* bytes) {
    return with(forged_tensor("w", dtype, shape, offset, bytes, crc));
  };
  const std::vector<std::array<std::string, 3>> kForged = {
      {"no header", "", "empty"},
      {"not JSON", "{", "line 1"},
      {"an array", "[]", "an object"},
      {"no manifest", R"({"tensors":[]})", "'manifest'"},
      {"no tensors", R"({"manifest":{}})", "'tensors'"},
      {"tensors no array", R"({"manifest":{},"tensors":{}})", "an array"},
      {"unknown key", R"({"manifest":{},"tensors":[],"x":1})", "unknown key"},
      {"duplicate key", R"({"manifest":{},"manifest":{},"tensors":[]})", "duplicate key"},
      {"data without tensors", with(""), "wrong number of bytes"},
      {"tensor no object", with("1"), "an object"},
      {"no name", with("{}"), "'name'"},
      {"unknown dtype", tensor("F33", "[2]", "0", "8"), "unknown dtype"},
      {"negative shape", tensor("F32", "[-2]", "0", "8"), "disagree"},
      {"shape overflows", tensor("F32", "[4611686018427387904,4]", "0", "8"), "disagree"},
      {"shape fraction", tensor("F32", "[2.0]", "0", "8"), "array of integers"},
      {"wrong bytes", tensor("F32", "[2]", "0", "4"), "disagree"},
      {"past the end", tensor("F32", "[32]", "0", "128"), "runs past the end"},
      {"huge", tensor("U8", "[9223372036854775807]", "0", "9223372036854775807"), "past the end"},
      {"offset -64", tensor("F32", "[2]", "-64", "8"), "wrong place"},
      {"offset 64", tensor("F32", "[2]", "64", "8"), "wrong place"},
      {"offset 2^63 - 1", tensor("F32", "[2]", "9223372036854775807", "8"), "wrong place"},
      {"offset 2^63", tensor("F32", "[2]", "9223372036854775808", "8"), "an integer"},
      {"wrong checksum", with(forged_tensor("w", "F32", "[2]", "0", "8", "1")),
       "tensor 'w': wrong checksum of bytes"},
      {"duplicate name",
       with(forged_tensor("w", "F32", "[0]", "0", "0", "0") + "," +
            forged_tensor("w", "F32", "[2]", "0", "8", crc)),
       "duplicate name"},
      {"unknown field",
       with(R"({"name":"w","dtype":"F32","shape":[2],"offset":0,"bytes":8,"crc32c":)" + crc +
            R"(,"x":1})"),
       "unknown key"},
  };
  for (const auto& [what, header, expected] : kForged) {
    const std::string message =
        message_of([&] { load_checkpoint(memory.put(forged(header, data))); });
    EXPECT_NE(message.find(expected), std::string::npos) << what << ": " << message;
  }
  const std::string good = forged(tensor("F32", "[2]", "0", "8"), data);
  EXPECT_EQ(message_of([&] { load_checkpoint(memory.put(good)); }), "");
  for (const uint64_t length :
       {uint64_t{1} << 31, uint64_t{1} << 32, uint64_t{1} << 63, UINT64_MAX}) {
    for (const size_t field : {16, 24}) {  // bytes of the header, of the file
      std::string bad = good;
      std::memcpy(bad.data() + field, &length, sizeof length);
      EXPECT_NE(message_of([&] { load_checkpoint(memory.put(bad)); }), "");
    }
  }
}

TEST(Checkpoint, AWriteThatTheDiskSpoiltIsNeverCommitted) {
  const ScratchFolder folder;
  const std::string path = folder.at(checkpoint_name(1));
  save(folder, 1);
  const std::string before = folder.get(checkpoint_name(1));
  const Sample other(2);
  int64_t refused = 0;
  for (int64_t write = 0; write < 20; ++write) {
    writes_seen = 0;
    corrupt_write = write;
    const std::string message =
        message_of([&] { save_checkpoint(path, other.manifest, other.tensors()); });
    corrupt_write = -1;
    if (message.empty()) break;
    ++refused;
    EXPECT_NE(message.find("does not verify when read back"), std::string::npos) << message;
    EXPECT_EQ(folder.get(checkpoint_name(1)), before);
  }
  EXPECT_GE(refused, 8);  // front, header, padding, three tensors with theirs, end
  EXPECT_NE(folder.get(checkpoint_name(1)), before);  // the last save met no fault
  EXPECT_EQ(folder.files(), 1);
}

TEST(Checkpoint, ABitLostBetweenWritingAndVerifyingIsNoticed) {
  const ScratchFolder folder;
  const std::string path = folder.at(checkpoint_name(1));
  save(folder, 1);
  const std::string before = folder.get(checkpoint_name(1));
  const Sample other(2);
  for (int64_t bit = 0; bit < static_cast<int64_t>(before.size()) * 8; bit += 13) {
    bit_lost_after_flush = bit;
    const std::string message =
        message_of([&] { save_checkpoint(path, other.manifest, other.tensors()); });
    bit_lost_after_flush = -1;
    EXPECT_NE(message.find("does not verify when read back"), std::string::npos) << message;
    EXPECT_EQ(folder.get(checkpoint_name(1)), before);
  }
  EXPECT_EQ(folder.files(), 1);
}

TEST(Checkpoint, EveryByteIsReadOnce) {
  const ScratchFolder folder;
  bytes_read = 0;
  save(folder, 1, 400'000);  // tensors longer than a block of reading
  const auto size = static_cast<int64_t>(std::filesystem::file_size(folder.at(checkpoint_name(1))));
  EXPECT_GT(size, 4'800'000);
  EXPECT_EQ(bytes_read, size);
  bytes_read = 0;
  const Checkpoint checkpoint = load_checkpoint(folder.at(checkpoint_name(1)));
  EXPECT_EQ(bytes_read, size);
}

TEST(Checkpoint, FindsTheNewestFirst) {
  const ScratchFolder folder;
  EXPECT_TRUE(find_checkpoints(folder.at("none")).empty());
  for (const char* name : {"checkpoint-00000010.adder", "checkpoint-00000009.adder",
                           "checkpoint-123456789.adder", "checkpoint-9.adder", "checkpoint-.adder",
                           "checkpoint-00000011.adder.tmp", "checkpoint--0000001.adder", "other"}) {
    folder.put(name, "");
  }
  const auto found = find_checkpoints(folder.path());
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].step, 123456789);
  EXPECT_EQ(found[1].step, 10);
  EXPECT_EQ(found[2].step, 9);
}

void spoil(const ScratchFolder& folder, int64_t step) {
  std::string file = folder.get(checkpoint_name(step));
  file[file.size() / 2] = static_cast<char>(file[file.size() / 2] ^ 1);
  folder.put(checkpoint_name(step), file);
}

TEST(Checkpoint, OpensTheNewestThatVerifies) {
  const ScratchFolder folder;
  EXPECT_FALSE(open_newest_valid(folder.path()));
  for (const int64_t step : {10, 20, 30, 40}) save(folder, step);
  spoil(folder, 40);
  folder.put(checkpoint_name(30), folder.get(checkpoint_name(10)));  // of another step
  std::vector<std::string> skipped;
  const auto checkpoint =
      open_newest_valid(folder.path(), [&](const std::string& path, const std::string& reason) {
        skipped.push_back(path + " because " + reason);
      });
  ASSERT_TRUE(checkpoint);
  EXPECT_EQ(checkpoint->manifest().find("step")->as_int(), 20);
  ASSERT_EQ(skipped.size(), 2u);
  EXPECT_NE(skipped[0].find("checksum"), std::string::npos);
  EXPECT_NE(skipped[1].find("another step: expected 30, got 10"), std::string::npos);
  for (const int64_t step : {10, 20}) spoil(folder, step);
  EXPECT_NE(message_of([&] { open_newest_valid(folder.path()); }).find("no checkpoint verifies"),
            std::string::npos);
}

std::vector<int64_t> steps_in(const ScratchFolder& folder) {
  std::vector<int64_t> steps;
  for (const CheckpointFile& file : find_checkpoints(folder.path())) steps.push_back(file.step);
  return steps;
}

TEST(Checkpoint, KeepsTheLastTwoAndTheBest) {
  const ScratchFolder folder;
  using Steps = std::vector<int64_t>;
  save(folder, 10);
  EXPECT_TRUE(keep_checkpoints(folder.path()).empty());
  for (const int64_t step : {20, 30, 40}) save(folder, step);
  EXPECT_EQ(keep_checkpoints(folder.path(), 2, 10).size(), 1u);
  EXPECT_EQ(steps_in(folder), (Steps{40, 30, 10}));
  EXPECT_EQ(keep_checkpoints(folder.path(), 2, 40).size(), 1u);
  EXPECT_EQ(steps_in(folder), (Steps{40, 30}));
  // A spoilt newest does not cost an older one.
  save(folder, 50);
  spoil(folder, 50);
  EXPECT_EQ(keep_checkpoints(folder.path(), 2).size(), 1u);
  EXPECT_EQ(steps_in(folder), (Steps{40, 30}));
  spoil(folder, 40);
  EXPECT_TRUE(keep_checkpoints(folder.path(), 2).empty());
  EXPECT_EQ(steps_in(folder), (Steps{40, 30}));
}

TEST(Checkpoint, WhatIsKnownToVerifyIsNotReadAgain) {
  const ScratchFolder folder;
  for (const int64_t step : {10, 20, 30}) save(folder, step);
  bytes_read = 0;
  EXPECT_EQ(keep_checkpoints(folder.path(), 2, {}, std::vector<int64_t>{20, 30}).size(), 1u);
  EXPECT_EQ(bytes_read, 0);
  EXPECT_EQ(steps_in(folder), (std::vector<int64_t>{30, 20}));
  keep_checkpoints(folder.path(), 2, {}, std::vector<int64_t>{30});
  EXPECT_EQ(bytes_read, static_cast<int64_t>(folder.get(checkpoint_name(20)).size()));
}

/// Saves one step after the other until it is killed, telling `pipe` as each save begins.
[[noreturn]] void save_until_killed(const ScratchFolder& folder, int64_t step, int pipe) {
  for (;; ++step) {
    const Sample sample(step, 20'000);
    const char begins = 'b';
    if (::write(pipe, &begins, 1) != 1) ::_exit(1);
    save_checkpoint(folder.at(checkpoint_name(step)), sample.manifest, sample.tensors());
    keep_checkpoints(folder.path());
  }
}

TEST(Checkpoint, KilledSavesLoseNothing) {
  const ScratchFolder folder;
  save(folder, 0, 20'000);
  const Sample first(0, 20'000);
  const auto start = std::chrono::steady_clock::now();
  save_checkpoint(folder.at(checkpoint_name(0)), first.manifest, first.tensors());
  const auto save_time = std::chrono::steady_clock::now() - start;
  int64_t last = 0, inside = 0;
  for (uint64_t kill = 0; kill < 40 || (inside < 16 && kill < 200); ++kill) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) save_until_killed(folder, last + 1, ends[1]);
    char begins = 0;
    ASSERT_EQ(::read(ends[0], &begins, 1), 1);
    std::this_thread::sleep_for(save_time * uniform01(9, 0, kill));
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    ASSERT_EQ(::waitpid(child, nullptr, 0), child);
    ::close(ends[0]);
    ::close(ends[1]);
    // A kill inside the save is proven by the temporary that it left.
    if (folder.files() > static_cast<int64_t>(steps_in(folder).size())) ++inside;
    remove_stale_temporaries(folder.path());
    const auto checkpoint = open_newest_valid(folder.path());
    ASSERT_TRUE(checkpoint);
    const int64_t step = checkpoint->manifest().find("step")->as_int();
    EXPECT_GE(step, last);
    const Sample sample(step, 20'000);
    std::vector<float> weights(20'000);
    checkpoint->read_as("weights", weights.data(), std::vector<int64_t>{20'000, 1});
    EXPECT_EQ(weights, sample.weights);
    last = step;
  }
  EXPECT_GE(inside, 16);
  EXPECT_EQ(folder.files(), static_cast<int64_t>(steps_in(folder).size()));
}

}  // namespace
}  // namespace adder
