#include "apps/duality_plot.h"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "core/error.h"

extern char** environ;

namespace adder::apps {
namespace {

constexpr const char* kColors[] = {"#1F618D", "#C0392B", "#1E8449", "#7D3C98"};
constexpr int kMarkers[] = {7, 5, 9, 11};

std::string data_blocks(const DualityCurves& curves, const char* prefix) {
  std::string text;
  int index = 0;
  for (const auto& [name, points] : curves) {
    text += fmt::format("${}{} << END_OF_DATA\n", prefix, index++);
    for (const DualityPoint& point : points) text += fmt::format("{} {}\n", point.len, point.us);
    text += "END_OF_DATA\n";
  }
  return text;
}

// One panel: its curves, and a dotted line down from each crossover to its length.
std::string panel(const DualityCurves& curves, const char* prefix, const std::string& title) {
  std::string text = "unset arrow\nunset label\n";
  text += fmt::format("set title '{}'\n", title);
  int row = 0;
  for (const Crossover& cross : crossovers(curves)) {
    text += fmt::format(
        "set arrow from {0},graph 0 to {0},{1} nohead dt 3 lw 1.5 lc rgb '#444444'\n"
        "set label '{2} → {3} at {4:.0f}' at graph 0.97,graph {5} right textcolor rgb '#222222'\n",
        cross.len, cross.us, cross.before, cross.after, cross.len, 0.06 + 0.06 * row++);
    text += fmt::format("set label '' at {},{} point pt 6 ps 1.6 lw 2 lc rgb '#222222'\n",
                        cross.len, cross.us);
  }
  text += "plot ";
  int index = 0;
  for (const auto& curve : curves) {
    text +=
        fmt::format("{}${}{} using 1:2 with linespoints lw 2.2 pt {} ps 0.8 lc rgb '{}' title '{}'",
                    index > 0 ? ", \\\n  " : "", prefix, index, kMarkers[index % 4],
                    kColors[index % 4], curve.first);
    ++index;
  }
  return text + "\n";
}

void write_script(const std::string& script, const std::string& name) {
  std::ofstream file(name);
  file << script;
  file.close();
  if (!file) throw Error({"cannot be written", name, "a folder that can be written", "none"});
}

}  // namespace

std::vector<Crossover> crossovers(const DualityCurves& curves) {
  std::vector<Crossover> found;
  for (auto a = curves.begin(); a != curves.end(); ++a) {
    for (auto b = std::next(a); b != curves.end(); ++b) {
      const size_t count = std::min(a->second.size(), b->second.size());
      for (size_t i = 1; i < count; ++i) {
        const auto gap = [&](size_t at) { return std::log(a->second[at].us / b->second[at].us); };
        const double left = gap(i - 1), right = gap(i);
        if ((left < 0) == (right < 0)) continue;
        const double share = left / (left - right);
        const auto between = [&](double low, double high) {
          return std::exp(std::log(low) + share * std::log(high / low));
        };
        found.push_back({left < 0 ? a->first : b->first, left < 0 ? b->first : a->first,
                         between(a->second[i - 1].len, a->second[i].len),
                         between(a->second[i - 1].us, a->second[i].us)});
      }
    }
  }
  std::sort(found.begin(), found.end(),
            [](const Crossover& a, const Crossover& b) { return a.len < b.len; });
  return found;
}

std::string duality_script(const DualityCurves& forward, const DualityCurves& training,
                           const std::string& title) {
  std::string script = data_blocks(forward, "forward") + data_blocks(training, "training");
  script +=
      "set logscale xy\nset xlabel 'length [tokens]'\nset ylabel 'time [µs]'\n"
      "set xtics ('1' 1, '4' 4, '16' 16, '64' 64, '256' 256, '1024' 1024, '4096' 4096, '16384' "
      "16384, '65536' 65536)\n"
      "set format y '10^{%L}'\nset border 3 lc rgb '#555555'\n"
      "set tics nomirror out textcolor rgb '#333333'\n"
      "set grid xtics ytics lc rgb '#DDDDDD' lt 1 lw 1\n"
      "set key top left box lc rgb '#CCCCCC' samplen 2.2 spacing 1.25 opaque\n"
      "set xrange [*:*] noextend\n";
  struct Output {
    const char* terminal;
    const char* name;
  };
  const Output outputs[] = {
      {"svg size 1100,520 font 'DejaVu Sans,12' background rgb 'white' enhanced", "duality.svg"},
      {"pngcairo size 1650,780 font 'DejaVu Sans,11' fontscale 1.4 linewidth 1.4 background rgb "
       "'white' enhanced",
       "duality.png"}};
  for (const Output& output : outputs) {
    script += fmt::format("set terminal {}\nset output '{}'\n", output.terminal, output.name);
    script += fmt::format("set multiplot layout 1,2 title '{}' font ',14'\n", title);
    script += panel(forward, "forward", "forward");
    script += panel(training, "training", "forward and backward");
    script += "unset multiplot\nunset output\n";
  }
  return script;
}

void open_plot_folder(const std::string& directory) {
  std::error_code failure;
  std::filesystem::create_directories(directory, failure);
  write_script("", directory + "/duality.gp");
}

void draw_duality(const std::string& script, const std::string& directory) {
  const std::string name = directory + "/duality.gp";
  write_script(script, name);
  // gnuplot writes where it runs, so that the script holds no path.
  std::string command = "cd \"$0\" && exec gnuplot duality.gp";
  char shell[] = "/bin/sh", option[] = "-c";
  std::string folder = directory;
  char* arguments[] = {shell, option, command.data(), folder.data(), nullptr};
  pid_t child = 0;
  int status = posix_spawn(&child, shell, nullptr, nullptr, arguments, environ);
  if (status == 0) {
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
  }
  if (status != 0) {
    throw Error({"no plot", name, "a gnuplot that draws it (apt-get install gnuplot-nox)",
                 "status " + std::to_string(status)});
  }
}

}  // namespace adder::apps
