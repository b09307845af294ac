// Marks what libadder.so exports; everything else in it is hidden.
#pragma once

#if defined(__GNUC__) || defined(__clang__)
#define ADDER_API __attribute__((visibility("default")))
#else
#define ADDER_API
#endif
