// What `adder train` shows while it runs: one line that is redrawn on a terminal, a plain line now
// and then elsewhere; texts and notes as they come. All of it goes to standard error.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "train/loop.h"

namespace adder::apps {

/// "1:02:03", "4:05".
std::string clock_text(double seconds);
/// "12.3k", "1.75M".
std::string short_count(double value);

class TrainProgress final : public TrainObserver {
 public:
  TrainProgress();
  ~TrainProgress() override;

  void on_start(const TrainStart& start) override;
  void on_step(const MetricsRecord& record, const StepReport& report) override;
  void on_eval(int64_t step, const Evaluation& eval) override;
  void on_sample(int64_t step, const std::string& text) override;
  void on_note(const std::string& note) override;
  /// Ends the line that is being redrawn.
  void finish();

 private:
  using Clock = std::chrono::steady_clock;

  std::string status(int64_t step) const;
  std::string bar(int64_t step) const;
  void clear_line();
  void say(const std::string& text);
  // Everything that the run still does, at its recent pace.
  double seconds_left(int64_t step) const;

  bool terminal_ = false;
  TrainStart start_;
  Clock::time_point begin_ = Clock::now();
  Clock::time_point shown_;
  bool line_shown_ = false;
  double loss_ = 0;          // averaged over recent steps
  double tokens_per_s_ = 0;  // likewise
  int64_t last_step_ = 0;
  std::optional<double> val_loss_;
};

}  // namespace adder::apps
