#include "measure/tensors.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.h"

namespace adder::measure {
namespace {

constexpr int kCanary = 0xA5;
constexpr int64_t kRing = 64;  // elements; a whole number of cache lines
constexpr unsigned char kPoison = 0xFF;

// Calls `use` with a null pointer to the element type.
template <class Use>
auto with_type(Dtype dtype, const Use& use) {
  switch (dtype) {
    case Dtype::f64:
      return use(static_cast<double*>(nullptr));
    case Dtype::f32:
      return use(static_cast<float*>(nullptr));
    case Dtype::bf16:
      return use(static_cast<Bf16*>(nullptr));
    case Dtype::f16:
      return use(static_cast<F16*>(nullptr));
    case Dtype::i32:
      return use(static_cast<int32_t*>(nullptr));
    default:
      ADDER_CHECK(dtype == Dtype::i64);
      return use(static_cast<int64_t*>(nullptr));
  }
}

}  // namespace

Array::Array(int64_t count, int64_t element_bytes, Dtype dtype)
    : count_(count),
      element_bytes_(element_bytes),
      first_(kRing + (ArenaLayout::on() ? 0 : 1)),
      dtype_(dtype),
      host_((count + 2 * kRing) * element_bytes + kAlignment) {
  host_.fill(kCanary);
  std::memset(image(Side::host), kPoison, bytes());
}

Array::Array(const Array& other)
    : count_(other.count_),
      element_bytes_(other.element_bytes_),
      first_(other.first_),
      dtype_(other.dtype_),
      host_(other.host_.bytes()) {
  if (present()) std::memcpy(host_.data(), other.host_.data(), static_cast<size_t>(host_.bytes()));
}

Array& Array::operator=(const Array& other) {
  if (this != &other) *this = Array(other);
  return *this;
}

bool Array::floating() const {
  return dtype_ == Dtype::f64 || dtype_ == Dtype::f32 || dtype_ == Dtype::bf16 ||
         dtype_ == Dtype::f16;
}

std::byte* Array::image(Side side) const {
  if (!present()) return nullptr;
  if (side == Side::host) return host_.data() + first_byte();
  ADDER_CHECK(device_.bytes() > 0);  // uploaded
  return device_.data() + first_byte();
}

void Array::upload(const Memory& memory) {
  if (!present()) return;
  const Memory& now = device_.memory();
  const bool there = device_.bytes() == host_.bytes() && now.kind == memory.kind &&
                     now.device == memory.device && now.ordinal == memory.ordinal;
  if (!there) device_ = Buffer(host_.bytes(), memory);
  device_.write(0, host_.data(), host_.bytes());
}

void Array::download() {
  if (present()) device_.read(0, host_.data(), host_.bytes());
}

bool Array::intact() const {
  const auto* all = host_.as<const unsigned char>();
  const auto is_canary = [](unsigned char byte) { return byte == kCanary; };
  const auto* end = all + first_byte() + bytes();
  return !present() || (std::all_of(all, all + first_byte(), is_canary) &&
                        std::all_of(end, all + host_.bytes(), is_canary));
}

bool Array::is_poison(int64_t i) const {
  const auto* element =
      reinterpret_cast<const unsigned char*>(image(Side::host)) + i * element_bytes_;
  return std::all_of(element, element + element_bytes_, [](auto b) { return b == kPoison; });
}

bool Array::same_bits(const Array& other) const {
  return count_ == other.count_ && other.holds(*this, 0);
}

bool Array::holds(const Array& part, int64_t first) const {
  ADDER_CHECK(element_bytes_ == part.element_bytes_ && first >= 0 && first + part.count_ <= count_);
  return part.count_ == 0 || std::memcmp(image(Side::host) + first * element_bytes_,
                                         part.image(Side::host), part.bytes()) == 0;
}

double Array::value(int64_t i) const {
  return with_type(dtype_, [&]<class T>(T*) {
    return to_double(reinterpret_cast<const T*>(image(Side::host))[i]);
  });
}

void Array::set(int64_t i, double value) {
  with_type(dtype_, [&]<class T>(T*) {
    reinterpret_cast<T*>(image(Side::host))[i] = from_double<T>(value);
  });
}

std::vector<double> Array::widened() const {
  std::vector<double> out(static_cast<size_t>(count_));
  with_type(dtype_, [&]<class T>(T*) {
    const auto* values = reinterpret_cast<const T*>(image(Side::host));
    std::transform(values, values + count_, out.begin(), to_double<T>);
  });
  return out;
}

void Array::assign(const Array& from) {
  ADDER_CHECK(count_ == from.count_ && present() == from.present());
  if (count_ == 0) return;
  if (dtype_ == from.dtype_) {
    std::memcpy(image(Side::host), from.image(Side::host), bytes());
    return;
  }
  for (int64_t i = 0; i < count_; ++i) {
    if (!from.is_poison(i)) {
      set(i, from.value(i));
    } else {
      std::memset(image(Side::host) + i * element_bytes_, kPoison,
                  static_cast<size_t>(element_bytes_));
    }
  }
}

void Array::take(const Array& from, int64_t first) {
  ADDER_CHECK(dtype_ == from.dtype_ && first >= 0 && first + count_ <= from.count_);
  if (count_ == 0) return;
  std::memcpy(image(Side::host), from.image(Side::host) + first * element_bytes_, bytes());
}

void Array::zero() {
  if (count_ > 0) std::memset(image(Side::host), 0, bytes());
}

}  // namespace adder::measure
