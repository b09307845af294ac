// Marks what libadder.so exports; everything else in it is hidden.
#pragma once

#if defined(__GNUC__) || defined(__clang__)
#define ADDER_API __attribute__((visibility("default")))
#define ADDER_HIDDEN __attribute__((visibility("hidden")))
#else
#define ADDER_API
#define ADDER_HIDDEN
#endif
