#include "apps/train_progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace adder::apps {
namespace {

constexpr double kRedrawSeconds = 0.1;  // on a terminal
constexpr double kLineSeconds = 10;     // elsewhere
constexpr double kMemory = 0.9;         // of the running averages
constexpr int kBarCells = 24;
constexpr int kDefaultColumns = 100;
constexpr size_t kSampleLines = 6;

int terminal_columns() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return kDefaultColumns;
}

// The first lines, marked, each cut to `columns` characters, without what would move the cursor.
std::string quoted_sample(std::string_view text, int columns) {
  text.remove_prefix(std::min(text.find_first_not_of('\n'), text.size()));
  std::string result = "  | ";
  size_t lines = 1;
  int column = 4;
  for (const char c : text) {
    if (c == '\n') {
      if (++lines > kSampleLines) break;
      result += "\n  | ";
      column = 4;
      continue;
    }
    const auto code = static_cast<unsigned char>(c);
    if (code < 0x20 || code == 0x7F) continue;
    const bool starts_character = (code & 0xC0) != 0x80;
    if (starts_character) ++column;
    if (column < columns) result += c;
  }
  return result;
}

}  // namespace

std::string clock_text(double seconds) {
  const auto total = static_cast<int64_t>(std::llround(std::max(seconds, 0.0)));
  const int64_t hours = total / 3600, minutes = total / 60 % 60, rest = total % 60;
  return hours > 0 ? fmt::format("{}:{:02}:{:02}", hours, minutes, rest)
                   : fmt::format("{}:{:02}", minutes, rest);
}

std::string short_count(double value) {
  if (value >= 999.5e6) return fmt::format("{:.2f}G", value * 1e-9);
  if (value >= 999.5e3) return fmt::format("{:.2f}M", value * 1e-6);
  if (value >= 999.5) return fmt::format("{:.1f}k", value * 1e-3);
  return fmt::format("{:.0f}", value);
}

TrainProgress::TrainProgress() : terminal_(isatty(STDERR_FILENO) != 0) {}

TrainProgress::~TrainProgress() { finish(); }

void TrainProgress::on_start(const TrainStart& start) {
  start_ = start;
  begin_ = shown_ = Clock::now();
  last_step_ = start.first_step - 1;
  std::string line = fmt::format(
      "{} parameters, {} steps ({:.1f} passes over the text), {} thread{}, {:.0f} MiB",
      short_count(static_cast<double>(start.parameters)), start.steps, start.epochs, start.threads,
      start.threads == 1 ? "" : "s", static_cast<double>(start.memory_bytes) / (1 << 20));
  if (start.trainable != start.parameters) {
    line += fmt::format("; {} of them trained", short_count(static_cast<double>(start.trainable)));
  }
  if (start.first_step > 1) line += fmt::format("; resumed after step {}", start.first_step - 1);
  say(line);
}

double TrainProgress::seconds_left(int64_t step) const {
  const auto done = static_cast<double>(step - start_.first_step + 1);
  if (done <= 0) return 0;
  const double spent = std::chrono::duration<double>(Clock::now() - begin_).count();
  return spent / done * static_cast<double>(start_.steps - step);
}

std::string TrainProgress::bar(int64_t step) const {
  const int64_t filled = step * kBarCells / std::max<int64_t>(start_.steps, 1);
  std::string cells;
  for (int64_t i = 0; i < kBarCells; ++i) cells += i < filled ? "█" : "░";
  return cells;
}

std::string TrainProgress::status(int64_t step) const {
  std::string text = fmt::format("loss {:.3f}", loss_);
  if (val_loss_) text += fmt::format("  val {:.4f}", *val_loss_);
  text += fmt::format("  {} tok/s  {} left", short_count(tokens_per_s_),
                      clock_text(seconds_left(step)));
  return text;
}

void TrainProgress::on_step(const MetricsRecord& record, const StepReport& report) {
  const double speed = report.seconds > 0 ? static_cast<double>(report.tokens) / report.seconds : 0;
  const bool first = last_step_ < start_.first_step;
  if (std::isfinite(report.loss)) {
    loss_ = first ? report.loss : kMemory * loss_ + (1 - kMemory) * report.loss;
  }
  tokens_per_s_ = first ? speed : kMemory * tokens_per_s_ + (1 - kMemory) * speed;
  last_step_ = record.step;
  const double since = std::chrono::duration<double>(Clock::now() - shown_).count();
  const bool last = record.step == start_.steps;
  if (since < (terminal_ ? kRedrawSeconds : kLineSeconds) && !last) return;
  shown_ = Clock::now();
  const std::string count = fmt::format("step {}/{}", record.step, start_.steps);
  if (!terminal_) {
    fmt::print(stderr, "{}  {}\n", count, status(record.step));
    return;
  }
  std::string line = fmt::format("{} {}  {}", count, bar(record.step), status(record.step));
  // A bar cell takes three bytes and one column.
  const int64_t columns = static_cast<int64_t>(line.size()) - 2 * kBarCells;
  if (columns >= terminal_columns()) line = fmt::format("{}  {}", count, status(record.step));
  clear_line();
  fmt::print(stderr, "{}", line);
  std::fflush(stderr);
  line_shown_ = true;
}

void TrainProgress::on_eval(int64_t step, const Evaluation& eval) {
  val_loss_ = eval.loss;
  say(fmt::format("step {}: validation {:.4f} {} ({:.4f} bits/byte) over {} tokens", step,
                  eval.loss, start_.loss_unit, eval.bits_per_byte,
                  short_count(static_cast<double>(eval.tokens))));
}

void TrainProgress::on_sample(int64_t, const std::string& text) {
  say(quoted_sample(text, terminal_columns()));
}

void TrainProgress::on_note(const std::string& note) { say(note); }

void TrainProgress::clear_line() {
  if (line_shown_) fmt::print(stderr, "\r\x1b[K");
  line_shown_ = false;
}

void TrainProgress::say(const std::string& text) {
  clear_line();
  fmt::print(stderr, "{}\n", text);
}

void TrainProgress::finish() {
  if (line_shown_) fmt::print(stderr, "\n");
  line_shown_ = false;
}

}  // namespace adder::apps
