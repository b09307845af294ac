// The loss curves of a run as SVG and PNG, drawn by gnuplot.
#pragma once

#include <string>
#include <vector>

#include "train/metrics.h"

namespace adder {

struct LossPlot {
  std::string directory;  // where loss.svg and loss.png go
  std::string title;
  std::string loss_unit = "nats/byte";
};

/// The gnuplot script that draws both files, data included: training loss (faint, and averaged over
/// its neighbours) and validation loss over the steps.
std::string loss_plot_script(const std::vector<MetricsRecord>& records, const LossPlot& plot);

/// Runs gnuplot on the script. Returns "", or why there is no plot (gnuplot absent or failing):
/// a plot is never worth a failed run.
std::string draw_losses(const std::vector<MetricsRecord>& records, const LossPlot& plot);

}  // namespace adder
