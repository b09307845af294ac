#include "train/plot.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <iterator>

#include "core/mapped_file.h"

namespace adder {
namespace {

constexpr size_t kMostPoints = 1500;    // a curve with more is averaged over bins
constexpr size_t kSmoothingShare = 40;  // the average spans a 40th of the curve
constexpr int kExecFailed = 127;
constexpr const char* kNames[] = {"loss.svg", "loss.png"};

struct Point {
  double step = 0;
  double loss = 0;
};

std::vector<Point> train_points(const std::vector<MetricsRecord>& records) {
  const size_t bin = std::max<size_t>((records.size() + kMostPoints - 1) / kMostPoints, 1);
  std::vector<Point> points;
  for (size_t begin = 0; begin < records.size(); begin += bin) {
    Point sum;
    double count = 0;
    for (size_t i = begin; i < std::min(begin + bin, records.size()); ++i) {
      if (!std::isfinite(records[i].train_loss)) continue;
      sum.step += static_cast<double>(records[i].step);
      sum.loss += records[i].train_loss;
      count += 1;
    }
    if (count > 0) points.push_back({sum.step / count, sum.loss / count});
  }
  return points;
}

// Mean over the neighbours; the window shrinks at both ends so that the steep start stays in place.
std::vector<Point> smoothed(const std::vector<Point>& points) {
  std::vector<Point> result;
  const size_t widest = points.size() / kSmoothingShare / 2;
  for (size_t i = 0; i < points.size(); ++i) {
    const size_t reach = std::min({widest, i, points.size() - 1 - i});
    double sum = 0;
    for (size_t j = i - reach; j <= i + reach; ++j) sum += points[j].loss;
    result.push_back({points[i].step, sum / static_cast<double>(2 * reach + 1)});
  }
  return result;
}

std::vector<Point> validation_points(const std::vector<MetricsRecord>& records) {
  std::vector<Point> points;
  for (const MetricsRecord& record : records) {
    if (!record.val_loss || !std::isfinite(*record.val_loss)) continue;
    points.push_back({static_cast<double>(record.step), *record.val_loss});
  }
  return points;
}

std::string data_block(std::string_view name, const std::vector<Point>& points) {
  std::string text = fmt::format("${} << END_OF_DATA\n", name);
  for (const Point& point : points) text += fmt::format("{} {}\n", point.step, point.loss);
  return text + "END_OF_DATA\n";
}

// Single quotes are doubled inside gnuplot's single-quoted strings.
std::string quoted(std::string_view text) {
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? "''" : std::string(1, c);
  return result + "'";
}

// The start of a run would flatten the rest: the axis ends a little above the loss that all but the
// first twentieth of the points stay below.
double axis_top(const std::vector<Point>& train, const std::vector<Point>& validation) {
  std::vector<double> losses;
  for (const Point& point : train) losses.push_back(point.loss);
  for (const Point& point : validation) losses.push_back(point.loss);
  std::sort(losses.begin(), losses.end());
  const size_t index = losses.size() - 1 - losses.size() / 20;
  const double low = losses.front();
  return losses[index] + std::max(0.06 * (losses[index] - low), 1e-3);
}

// A file in memory that holds `text`, at its start; -1 on failure. Standard input from a file can
// neither block nor raise SIGPIPE, as a pipe would.
int memory_file(std::string_view text) {
  const int descriptor = ::memfd_create("adder-plot", MFD_CLOEXEC);
  if (descriptor < 0) return -1;
  while (!text.empty()) {
    const ssize_t written = ::write(descriptor, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      ::close(descriptor);
      return -1;
    }
    text.remove_prefix(static_cast<size_t>(written));
  }
  ::lseek(descriptor, 0, SEEK_SET);
  return descriptor;
}

std::string first_line_of(int descriptor) {
  char bytes[400];
  const ssize_t count = ::pread(descriptor, bytes, sizeof(bytes), 0);
  std::string text(bytes, count > 0 ? static_cast<size_t>(count) : 0);
  text.erase(0, std::min(text.find_first_not_of(" \n\t"), text.size()));
  return text.substr(0, text.find('\n'));
}

// Exit status of gnuplot reading `script` in `directory`; its complaints go to `complaints`.
int run_gnuplot(int script, int complaints, const std::string& directory) {
  const pid_t child = ::fork();
  if (child < 0) return kExecFailed;
  if (child == 0) {
    if (::dup2(script, STDIN_FILENO) < 0 || ::dup2(complaints, STDOUT_FILENO) < 0 ||
        ::dup2(complaints, STDERR_FILENO) < 0 || ::chdir(directory.c_str()) != 0) {
      ::_exit(kExecFailed);
    }
    ::execlp("gnuplot", "gnuplot", static_cast<char*>(nullptr));
    ::_exit(kExecFailed);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return kExecFailed;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

std::string temporary_name(std::string_view name) { return fmt::format(".{}.tmp", name); }

}  // namespace

std::string loss_plot_script(const std::vector<MetricsRecord>& records, const LossPlot& plot) {
  const std::vector<Point> train = train_points(records);
  const std::vector<Point> validation = validation_points(records);
  if (train.empty()) return "";
  std::string script = data_block("train", train) + data_block("smooth", smoothed(train)) +
                       data_block("validation", validation);
  script +=
      fmt::format("set title {} noenhanced font ',15' textcolor rgb '#222222' offset 0,-0.3\n",
                  quoted(plot.title));
  script +=
      fmt::format("set xlabel 'optimizer step'\nset ylabel 'cross-entropy [{}]'\n", plot.loss_unit);
  script += fmt::format("set yrange [:{}]\n", axis_top(train, validation));
  script +=
      "set border 3 lc rgb '#555555'\nset tics nomirror out textcolor rgb '#333333'\n"
      "set mytics 2\nset grid xtics ytics mytics lc rgb '#DDDDDD' lt 1 lw 1, lc rgb '#EEEEEE' lt "
      "1\n"
      "set key top right box lc rgb '#CCCCCC' samplen 2.2 spacing 1.25 height 0.5 width 1 opaque\n"
      "set xrange [0:*]\nset format x '%.0f'\n";
  std::string curves =
      "plot $train using 1:2 with lines lw 1 lc rgb '#A9CCE3' title 'training, each step', \\\n"
      "  $smooth using 1:2 with lines lw 2.5 lc rgb '#1F618D' title 'training, averaged'";
  if (!validation.empty()) {
    script +=
        fmt::format("set label 1 '{:.3f}' at {},{} right offset 0,0.9 textcolor rgb '#C0392B'\n",
                    validation.back().loss, validation.back().step, validation.back().loss);
    curves +=
        ", \\\n  $validation using 1:2 with linespoints lw 2.5 pt 7 ps 0.6 lc rgb '#C0392B' "
        "title 'validation'";
  }
  const char* terminals[] = {
      "set terminal svg size 900,540 font 'DejaVu Sans,12' background rgb 'white' enhanced",
      "set terminal pngcairo size 1350,810 font 'DejaVu Sans,11' fontscale 1.5 linewidth 1.5 "
      "background rgb 'white' enhanced"};
  for (size_t i = 0; i < std::size(kNames); ++i) {
    script += fmt::format("{}\nset output '{}'\n{}\nunset output\n", terminals[i],
                          temporary_name(kNames[i]), curves);
  }
  return script;
}

std::string draw_losses(const std::vector<MetricsRecord>& records, const LossPlot& plot) {
  const std::string script = loss_plot_script(records, plot);
  if (script.empty()) return "no plot: no metrics yet";
  const int input = memory_file(script);
  const int complaints = memory_file("");
  std::string note;
  if (input < 0 || complaints < 0) {
    note = "no plot: " + system_reason(errno);
  } else {
    const int status = run_gnuplot(input, complaints, plot.directory);
    if (status == kExecFailed) {
      note = "no plot: gnuplot cannot be run (Debian and Ubuntu: apt-get install gnuplot-nox)";
    } else if (status != 0) {
      note = "no plot: gnuplot: " + first_line_of(complaints);
    }
  }
  for (const char* name : kNames) {
    const std::string temporary = plot.directory + "/" + temporary_name(name);
    const std::string target = plot.directory + "/" + name;
    if (!note.empty()) {
      std::remove(temporary.c_str());
    } else if (std::rename(temporary.c_str(), target.c_str()) != 0) {
      note = "no plot: " + target + ": " + system_reason(errno);
    }
  }
  if (input >= 0) ::close(input);
  if (complaints >= 0) ::close(complaints);
  return note;
}

}  // namespace adder
