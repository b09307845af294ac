// The plot of `adder bench duality`: time against length for each form, drawn by gnuplot.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace adder::apps {

/// Microseconds of one form at one length.
struct DualityPoint {
  double len = 0;
  double us = 0;
};
using DualityCurves = std::map<std::string, std::vector<DualityPoint>>;

/// Where curve `first` overtakes `second`: on straight lines between points on logarithmic axes.
struct Crossover {
  std::string before;  // the faster form at shorter lengths
  std::string after;   // and at longer ones
  double len = 0;
  double us = 0;
};
std::vector<Crossover> crossovers(const DualityCurves& curves);

/// The gnuplot script that draws duality.svg and duality.png; curves of forward, and of forward
/// with backward.
std::string duality_script(const DualityCurves& forward, const DualityCurves& training,
                           const std::string& title);

/// Makes the folder if need be; throws Error when nothing can be written there.
void open_plot_folder(const std::string& directory);

/// Writes directory/duality.gp and runs gnuplot on it. Throws Error when that fails.
void draw_duality(const std::string& script, const std::string& directory);

}  // namespace adder::apps
