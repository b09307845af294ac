// `adder bench duality`: what it prints and draws.
#include <set>

#include "formats/json.h"
#include "run_adder.h"

namespace adder::tests {
namespace {

class DualityCommand : public AdderTest {
 protected:
  std::vector<JsonValue> json_lines(const std::string& text) {
    std::vector<JsonValue> lines;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) lines.push_back(parse_json(line, "bench"));
    return lines;
  }
};

TEST_F(DualityCommand, JsonLinesAndThePlot) {
  const RunResult result = run({"bench", "duality", "--longest", "128", "--threads", "1",
                                "--min-time", "0", "--json", "--plot", path("plot")});
  const bool drawn = result.code == 0;
  if (!drawn) {
    // Everything is printed before the plot is drawn; only gnuplot may be missing.
    ASSERT_TRUE(contains(result.err, "gnuplot")) << result.err;
    std::printf("skipped: the plot (%s)\n", result.err.c_str());
  }
  std::map<std::string, int> kinds;
  std::set<std::string> forms;
  for (const JsonValue& line : json_lines(result.out)) {
    const std::string kind = line.find("kind")->as_string();
    ++kinds[kind];
    if (kind == "claim") {
      EXPECT_GT(line.find("forward")->as_double(), 0);
      EXPECT_GT(line.find("training_counted")->as_double(), 0);
    }
    if (kind == "crossover") {
      EXPECT_GE(line.find("len")->as_double(), 1);
      EXPECT_LE(line.find("len")->as_double(), 128);
    }
    if (line.find("family") == nullptr || line.find("family")->as_string() != "ssd") continue;
    forms.insert(line.find("line")->as_string());
    EXPECT_GT(line.find("median_us")->as_double(), 0);
  }
  EXPECT_EQ(kinds["claim"], 4);
  EXPECT_EQ(forms, (std::set<std::string>{"recurrent", "quadratic", "chunked"}));
  if (!drawn) return;
  const std::string svg = read_file(path("plot") + "/duality.svg");
  for (const std::string& form : forms) EXPECT_TRUE(contains(svg, form)) << form;
  EXPECT_EQ(read_file(path("plot") + "/duality.png").compare(1, 3, "PNG"), 0);
}

TEST_F(DualityCommand, BadOptionsAreNamed) {
  const RunResult result = run({"bench", "duality", "--longest", "7"});
  EXPECT_NE(result.code, 0);
  EXPECT_TRUE(contains(result.err, "--longest")) << result.err;
  const RunResult blocked =
      run({"bench", "duality", "--longest", "128", "--min-time", "0", "--plot", "/dev/null/plot"});
  EXPECT_EQ(blocked.code, 1);
  EXPECT_TRUE(contains(blocked.err, "/dev/null/plot")) << blocked.err;
}

}  // namespace
}  // namespace adder::tests
