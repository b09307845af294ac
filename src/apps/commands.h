// The subcommands of `adder`. One file each: add_NAME_command declares the options and a callback
// that
// runs it. To add a subcommand, write its file and add one line here and one in command_line.cpp.
//
// A callback reports failure by throwing: UsageError (exit 2), any other std::exception (exit 1, as
// "adder: error: ..."), or ExitWith for another code and no message.
#pragma once

namespace CLI {
class App;
}

namespace adder::apps {

void add_train_command(CLI::App& app);
void add_op_command(CLI::App& app);
void add_bench_command(CLI::App& app);
void add_info_command(CLI::App& app);
void add_tokenize_command(CLI::App& app);
void add_generate_command(CLI::App& app);
void add_eval_command(CLI::App& app);
void add_logits_command(CLI::App& app);

/// Leaves the command with this code.
struct ExitWith {
  int code = 0;
};

}  // namespace adder::apps
