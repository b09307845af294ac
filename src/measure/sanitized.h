// Whether a sanitizer watches this build.
#pragma once

namespace adder::measure {

/// Under a sanitizer a test runs slower and looks for other things than values: it may leave out
/// repeats (seeds, row counts), never a line, a direction, a dtype or a target.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;  // gcc
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
inline constexpr bool kSanitized = true;  // clang
#else
inline constexpr bool kSanitized = false;
#endif
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace adder::measure
