// The types that stored elements are read as (see convert_elements). Private to the room.
#pragma once

#include <cstdint>

#include "core/dtype.h"

#define ADDER_FOR_READ_TYPES(X) X(double) X(float) X(Bf16) X(F16) X(int64_t) X(int32_t)
