// Adder: Mamba state space models in C++. This header brings in the whole library.
//
//   auto model = adder::Model::load("out/shakespeare/model");
//   std::cout << model.generate_text("ROMEO:").text;
//
// CMake: find_package(adder) and link adder::adder; nothing else is needed.
//
// Signals: matrix products are oneDNN's, whose code may keep data in the stack pointer. A handler
// that can run on a thread inside the library needs a stack of its own (sigaltstack, SA_ONSTACK).
#pragma once

#include "adder/model.h"
#include "adder/trainer.h"

namespace adder {
inline namespace v0 {

/// "0.1.0"
ADDER_API const char* version();

}  // namespace v0
}  // namespace adder
