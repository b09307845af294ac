// How the functions of table lines reach the code of a SIMD target. A file that Highway's
// foreach_target compiles once for each target defines them there with ADDER_SIMD_FUNCTIONS and
// once for all under HWY_ONCE with ADDER_SIMD_DISPATCH, both in namespace adder. HWY_EXPORT takes
// plain functions: one name for each choice of types.
#pragma once

#include "core/context.h"
#include "core/dtype.h"

/// NAME_f64, NAME_f32 and NAME_bf16 of one target: they call RUN(shape, args, exec).
#define ADDER_SIMD_FUNCTIONS(NAME, SHAPE, ARGS, RUN)                         \
  void NAME##_f64(const SHAPE& shape, const ARGS<double>& args, Exec exec) { \
    RUN(shape, args, exec);                                                  \
  }                                                                          \
  void NAME##_f32(const SHAPE& shape, const ARGS<float>& args, Exec exec) {  \
    RUN(shape, args, exec);                                                  \
  }                                                                          \
  void NAME##_bf16(const SHAPE& shape, const ARGS<Bf16>& args, Exec exec) {  \
    RUN(shape, args, exec);                                                  \
  }

/// FUNCTION(shape, args, exec), a template declared by the family, calls those of the target in
/// use.
#define ADDER_SIMD_DISPATCH(NAME, SHAPE, ARGS, FUNCTION)                   \
  HWY_EXPORT(NAME##_f64);                                                  \
  HWY_EXPORT(NAME##_f32);                                                  \
  HWY_EXPORT(NAME##_bf16);                                                 \
  template <>                                                              \
  void FUNCTION(const SHAPE& shape, const ARGS<double>& args, Exec exec) { \
    HWY_DYNAMIC_DISPATCH(NAME##_f64)(shape, args, exec);                   \
  }                                                                        \
  template <>                                                              \
  void FUNCTION(const SHAPE& shape, const ARGS<float>& args, Exec exec) {  \
    HWY_DYNAMIC_DISPATCH(NAME##_f32)(shape, args, exec);                   \
  }                                                                        \
  template <>                                                              \
  void FUNCTION(const SHAPE& shape, const ARGS<Bf16>& args, Exec exec) {   \
    HWY_DYNAMIC_DISPATCH(NAME##_bf16)(shape, args, exec);                  \
  }

/// The same for one choice of types, which the last argument names: ADDER_SIMD_FUNCTION defines
/// NAME of one target, and ADDER_SIMD_LINE defines FUNCTION, which calls it.
#define ADDER_SIMD_FUNCTION(NAME, RUN, SHAPE, ...) \
  void NAME(const SHAPE& shape, const __VA_ARGS__& args, Exec exec) { RUN(shape, args, exec); }
#define ADDER_SIMD_LINE(NAME, FUNCTION, SHAPE, ...)                       \
  HWY_EXPORT(NAME);                                                       \
  template <>                                                             \
  void FUNCTION(const SHAPE& shape, const __VA_ARGS__& args, Exec exec) { \
    HWY_DYNAMIC_DISPATCH(NAME)(shape, args, exec);                        \
  }
